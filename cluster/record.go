package cluster

import (
	"fmt"
	"net"
	"strconv"
	"unicode/utf8"

	"github.com/tierlog/tierlog/tiered/logid"
)

// Record is one change of the state: a pointer to one of the types below. Records do not change once they are proposed.
type Record interface {
	// kind is the record's name in the bucket.
	kind() string
	// check returns what is wrong with the record by itself.
	check() error
}

// Broker is a broker process that joined.
type Broker struct {
	Node  NodeID      `json:"node"`
	Epoch logid.Epoch `json:"epoch"`
	// Incarnation is a random id of the process.
	Incarnation string `json:"incarnation"`
	Host        string `json:"host"` // advertised to clients
	Port        int32  `json:"port"`
	Rack        string `json:"rack,omitempty"`
	Version     string `json:"version,omitempty"`
}

// Address returns host:port.
func (b *Broker) Address() string { return net.JoinHostPort(b.Host, strconv.Itoa(int(b.Port))) }

// BrokerJoined makes a process a broker; its slot becomes its epoch. A live epoch of the same node id ends with it.
// All partitions are assigned to the broker.
type BrokerJoined struct {
	Node        NodeID `json:"node"`
	Incarnation string `json:"incarnation"`
	Host        string `json:"host"`
	Port        int32  `json:"port"`
	Rack        string `json:"rack,omitempty"`
	Version     string `json:"version,omitempty"`
	// Removes are live epochs of other node ids that end with it, ascending.
	Removes []logid.Epoch `json:"removes,omitempty"`
}

// BrokerRemoved ends a broker epoch. Its partitions have no leader until a broker joins.
type BrokerRemoved struct {
	Epoch logid.Epoch `json:"epoch"`
	// Left says that the broker itself asked for it, having written all it had.
	Left bool `json:"left,omitempty"`
}

// TopicCreated makes a topic. Its partitions are assigned to the broker that joined last.
type TopicCreated struct {
	Name       string            `json:"name"`
	ID         logid.TopicID     `json:"id"`
	Partitions int32             `json:"partitions"`
	Configs    map[string]string `json:"configs,omitempty"` // overrides
}

// PartitionsAdded raises a topic's number of partitions.
type PartitionsAdded struct {
	ID logid.TopicID `json:"id"`
	// Total is the new number of all partitions.
	Total int32 `json:"total"`
}

// TopicConfigAltered replaces a topic's overrides.
type TopicConfigAltered struct {
	ID      logid.TopicID     `json:"id"`
	Configs map[string]string `json:"configs,omitempty"` // all of them
}

// TopicDeleted removes a topic. Its id never comes back.
type TopicDeleted struct {
	ID logid.TopicID `json:"id"`
}

// BrokerConfigAltered replaces the settings that were altered at run time for a node id, or for AllNodes.
type BrokerConfigAltered struct {
	Node    NodeID            `json:"node"`
	Configs map[string]string `json:"configs,omitempty"` // all of them
}

// ProducerIDsAllocated gives a block of producer ids to a broker.
type ProducerIDsAllocated struct {
	First int64       `json:"first"`
	Count int32       `json:"count"`
	To    logid.Epoch `json:"to"`
}

// EpochRetired says that the WAL of an epoch that is not live holds nothing that is still needed.
type EpochRetired struct {
	Epoch logid.Epoch `json:"epoch"`
}

func (*BrokerJoined) kind() string         { return "brokerJoined" }
func (*BrokerRemoved) kind() string        { return "brokerRemoved" }
func (*TopicCreated) kind() string         { return "topicCreated" }
func (*PartitionsAdded) kind() string      { return "partitionsAdded" }
func (*TopicConfigAltered) kind() string   { return "topicConfigAltered" }
func (*TopicDeleted) kind() string         { return "topicDeleted" }
func (*BrokerConfigAltered) kind() string  { return "brokerConfigAltered" }
func (*ProducerIDsAllocated) kind() string { return "producerIdsAllocated" }
func (*EpochRetired) kind() string         { return "epochRetired" }

// newRecord returns an empty record of a kind, or nil.
func newRecord(kind string) Record {
	switch kind {
	case "brokerJoined":
		return &BrokerJoined{}
	case "brokerRemoved":
		return &BrokerRemoved{}
	case "topicCreated":
		return &TopicCreated{}
	case "partitionsAdded":
		return &PartitionsAdded{}
	case "topicConfigAltered":
		return &TopicConfigAltered{}
	case "topicDeleted":
		return &TopicDeleted{}
	case "brokerConfigAltered":
		return &BrokerConfigAltered{}
	case "producerIdsAllocated":
		return &ProducerIDsAllocated{}
	case "epochRetired":
		return &EpochRetired{}
	default:
		return nil
	}
}

// reservedKinds are names that later versions will use; no other record may take them.
var reservedKinds = []string{
	"aclCreated", "aclDeleted", "scramSet", "scramDeleted", "quotaAltered", "groupConfigAltered", "partitionsAssigned",
}

// maxProducerBlock is the largest block of producer ids.
const maxProducerBlock = 1 << 20

func (r *BrokerJoined) check() error {
	switch {
	case r.Node < 0:
		return invalid(r, "node is %d, want at least 0", r.Node)
	case r.Incarnation == "":
		return invalid(r, "incarnation is empty")
	case r.Host == "":
		return invalid(r, "host is empty")
	case r.Port < 1 || r.Port > 65535:
		return invalid(r, "port is %d, want 1 to 65535", r.Port)
	}
	for i := 1; i < len(r.Removes); i++ {
		if r.Removes[i-1] >= r.Removes[i] {
			return invalid(r, "removes are not ascending")
		}
	}
	return checkText(r, r.Incarnation, r.Host, r.Rack, r.Version)
}

func (r *BrokerRemoved) check() error { return nil }

func (r *TopicCreated) check() error {
	if err := CheckTopicName(r.Name); err != nil {
		return err
	}
	if r.ID.IsZero() {
		return invalid(r, "id is zero")
	}
	if err := checkPartitions(r.Name, r.Partitions); err != nil {
		return err
	}
	return checkConfigs(r, r.Configs)
}

func (r *PartitionsAdded) check() error { return checkPartitions(r.ID.String(), r.Total) }

func (r *TopicConfigAltered) check() error { return checkConfigs(r, r.Configs) }

func (r *TopicDeleted) check() error { return nil }

func (r *BrokerConfigAltered) check() error {
	if r.Node < AllNodes {
		return invalid(r, "node is %d, want at least %d", r.Node, AllNodes)
	}
	return checkConfigs(r, r.Configs)
}

func (r *ProducerIDsAllocated) check() error {
	if r.Count < 1 || r.Count > maxProducerBlock {
		return invalid(r, "count is %d, want 1 to %d", r.Count, maxProducerBlock)
	}
	return nil
}

func (r *EpochRetired) check() error { return nil }

func invalid(r Record, format string, args ...any) error {
	return fmt.Errorf("%s: %s: %w", r.kind(), fmt.Sprintf(format, args...), ErrInvalidRecord)
}

// checkConfigs refuses text that JSON can not hold as it is.
func checkConfigs(r Record, configs map[string]string) error {
	for name, v := range configs {
		if name == "" {
			return invalid(r, "a setting has no name")
		}
		if err := checkText(r, name, v); err != nil {
			return err
		}
	}
	return nil
}

func checkText(r Record, texts ...string) error {
	for _, s := range texts {
		if !utf8.ValidString(s) {
			return invalid(r, "%q is not valid UTF-8", clip(s))
		}
	}
	return nil
}
