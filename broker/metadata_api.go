package broker

import (
	"context"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tierlog/tierlog/tiered"
	"github.com/tierlog/tierlog/tiered/logid"
	"github.com/tierlog/tierlog/wire"
)

// Metadata (key 3), versions 0 to 13: KIP-4, KIP-516 (topic ids), KIP-700. Topics that do not exist are created where
// both the client and auto.create.topics.enable say so. Every partition has one replica, its leader: the bucket holds
// the copies.

func (b *Broker) metadata(ctx context.Context, req *wire.Request, msg *kmsg.MetadataRequest) (kmsg.Response, error) {
	resp := kmsg.NewPtrMetadataResponse()
	cluster := b.cfg.Meta.ClusterID()
	resp.ClusterID = &cluster
	resp.ControllerID = b.cfg.NodeID
	for _, m := range b.cfg.Meta.Members() {
		mb := kmsg.NewMetadataResponseBroker()
		mb.NodeID, mb.Host, mb.Port = m.NodeID, m.Host, m.Port
		if m.Rack != "" {
			mb.Rack = &m.Rack
		}
		resp.Brokers = append(resp.Brokers, mb)
	}
	all := msg.Topics == nil || req.Version == 0 && len(msg.Topics) == 0
	if all {
		for _, t := range b.reg.all() {
			resp.Topics = append(resp.Topics, b.topicMetadata(t))
		}
		return resp, nil
	}
	create := (req.Version < 4 || msg.AllowAutoTopicCreation) && b.settings.Load().AutoCreateTopics
	for i := range msg.Topics {
		resp.Topics = append(resp.Topics, b.oneTopic(ctx, &msg.Topics[i], create))
	}
	return resp, nil
}

// oneTopic answers for one asked topic, by id or by name.
func (b *Broker) oneTopic(ctx context.Context, rt *kmsg.MetadataRequestTopic, create bool) kmsg.MetadataResponseTopic {
	out := kmsg.NewMetadataResponseTopic()
	out.Topic, out.TopicID = rt.Topic, rt.TopicID
	if id := logid.TopicID(rt.TopicID); !id.IsZero() {
		if t := b.reg.byID(id); t != nil {
			return b.topicMetadata(t)
		}
		out.ErrorCode = kerr.UnknownTopicID.Code
		return out
	}
	if rt.Topic == nil {
		out.ErrorCode = kerr.InvalidRequest.Code
		return out
	}
	name := *rt.Topic
	t := b.reg.byName(name)
	if t == nil && create {
		if err := b.autoCreate(ctx, name); err != nil {
			out.ErrorCode = codeOf(err)
			return out
		}
		t = b.reg.byName(name)
	}
	switch {
	case t != nil:
		return b.topicMetadata(t)
	case checkTopicName(name) != nil:
		out.ErrorCode = kerr.InvalidTopicException.Code
	default:
		out.ErrorCode = kerr.UnknownTopicOrPartition.Code
	}
	return out
}

func (b *Broker) topicMetadata(t *topic) kmsg.MetadataResponseTopic {
	out := kmsg.NewMetadataResponseTopic()
	out.Topic, out.TopicID = &t.name, t.id
	st := t.state.Load()
	out.Partitions = make([]kmsg.MetadataResponseTopicPartition, len(st.parts))
	replicas := []int32{b.cfg.NodeID}
	for i, p := range st.parts {
		mp := &out.Partitions[i]
		mp.Default()
		mp.Partition, mp.Leader, mp.LeaderEpoch = int32(i), b.cfg.NodeID, p.LeaderEpoch()
		mp.Replicas, mp.ISR, mp.OfflineReplicas = replicas, replicas, []int32{}
	}
	return out
}

// DescribeCluster (key 60), versions 0 to 2: KIP-700, KIP-919.

func (b *Broker) describeCluster(_ context.Context, req *wire.Request, msg *kmsg.DescribeClusterRequest) (kmsg.Response, error) {
	resp := kmsg.NewPtrDescribeClusterResponse()
	resp.EndpointType = max(msg.EndpointType, 1)
	if req.Version >= 1 && msg.EndpointType > 1 {
		resp.ErrorCode = kerr.UnsupportedEndpointType.Code
		return resp, nil
	}
	resp.ClusterID, resp.ControllerID = b.cfg.Meta.ClusterID(), b.cfg.NodeID
	for _, m := range b.cfg.Meta.Members() {
		mb := kmsg.NewDescribeClusterResponseBroker()
		mb.NodeID, mb.Host, mb.Port = m.NodeID, m.Host, m.Port
		if m.Rack != "" {
			mb.Rack = &m.Rack
		}
		resp.Brokers = append(resp.Brokers, mb)
	}
	return resp, nil
}

// DescribeTopicPartitions (key 75), version 0: KIP-966. Arrays are empty, never null: Java's admin client needs it.

func (b *Broker) describeTopicPartitions(_ context.Context, _ *wire.Request, msg *kmsg.DescribeTopicPartitionsRequest) (kmsg.Response, error) {
	resp := kmsg.NewPtrDescribeTopicPartitionsResponse()
	left := msg.ResponsePartitionLimit
	if left <= 0 || left > 2000 {
		left = 2000
	}
	names := make([]string, 0, len(msg.Topics))
	for i := range msg.Topics {
		names = append(names, msg.Topics[i].Topic)
	}
	if len(names) == 0 {
		for _, t := range b.reg.all() {
			names = append(names, t.name)
		}
	}
	for _, name := range sortedUnique(names) {
		from := int32(0)
		if c := msg.Cursor; c != nil {
			if name < c.Topic {
				continue
			}
			if name == c.Topic {
				from = max(c.Partition, 0)
			}
		}
		if left == 0 {
			resp.NextCursor = cursorAt(name, from)
			break
		}
		rt, next := b.topicPartitions(name, from, left)
		left -= int32(len(rt.Partitions))
		resp.Topics = append(resp.Topics, rt)
		if next >= 0 {
			resp.NextCursor = cursorAt(name, next)
			break
		}
	}
	return resp, nil
}

func cursorAt(name string, partition int32) *kmsg.DescribeTopicPartitionsResponseNextCursor {
	c := kmsg.NewDescribeTopicPartitionsResponseNextCursor()
	c.Topic, c.Partition = name, partition
	return &c
}

// topicPartitions describes up to limit partitions of a topic; next is the first one left out, or -1.
func (b *Broker) topicPartitions(name string, from, limit int32) (rt kmsg.DescribeTopicPartitionsResponseTopic, next int32) {
	rt = kmsg.NewDescribeTopicPartitionsResponseTopic()
	rt.Topic = &name
	t := b.reg.byName(name)
	if t == nil {
		rt.ErrorCode = kerr.UnknownTopicOrPartition.Code
		if checkTopicName(name) != nil {
			rt.ErrorCode = kerr.InvalidTopicException.Code
		}
		return rt, -1
	}
	rt.TopicID = t.id
	parts := t.state.Load().parts
	for i := from; int(i) < len(parts); i++ {
		if int32(len(rt.Partitions)) == limit {
			return rt, i
		}
		rt.Partitions = append(rt.Partitions, b.describePartition(parts[i], i))
	}
	return rt, -1
}

func (b *Broker) describePartition(p *tiered.Partition, i int32) kmsg.DescribeTopicPartitionsResponseTopicPartition {
	dp := kmsg.NewDescribeTopicPartitionsResponseTopicPartition()
	dp.Partition, dp.LeaderID, dp.LeaderEpoch = i, b.cfg.NodeID, p.LeaderEpoch()
	dp.Replicas, dp.ISR = []int32{b.cfg.NodeID}, []int32{b.cfg.NodeID}
	dp.EligibleLeaderReplicas, dp.LastKnownELR, dp.OfflineReplicas = []int32{}, []int32{}, []int32{}
	return dp
}
