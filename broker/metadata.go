package broker

import (
	"context"

	"github.com/tierlog/tierlog/tiered/logid"
)

// Metadata is what the broker needs of the cluster's metadata log. When a change returns nil, it is durable and has
// been handed to Broker.ApplyTopic or Broker.RemoveTopic.
type Metadata interface {
	ClusterID() string
	// Members returns the brokers of the cluster, by node id.
	Members() []Member
	// CreateTopics creates topics in one step and returns an error for each, in order. Errors: those of kerr, with a message.
	CreateTopics(ctx context.Context, topics []NewTopic) []error
	DeleteTopic(ctx context.Context, id logid.TopicID) error
	// AddPartitions raises the number of partitions to count.
	AddPartitions(ctx context.Context, id logid.TopicID, count int32) error
	// AlterTopic replaces a topic's configs by what edit makes of them.
	AlterTopic(ctx context.Context, id logid.TopicID, edit func(map[string]string) (map[string]string, error)) error
	// NextProducerID returns a producer id that nobody else has.
	NextProducerID(ctx context.Context) (int64, error)
}

// Member is a broker as clients reach it.
type Member struct {
	NodeID int32
	Host   string
	Port   int32
	Rack   string // empty for none
}

// NewTopic is a topic to be created; its configs have been checked.
type NewTopic struct {
	Name       string
	ID         logid.TopicID
	Partitions int32
	Configs    map[string]string
}

// TopicSpec is a topic of the applied metadata.
type TopicSpec struct {
	Name         string
	ID           logid.TopicID
	LeaderEpochs []int32 // by partition
	Configs      map[string]string
}
