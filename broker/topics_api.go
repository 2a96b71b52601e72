package broker

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tierlog/tierlog/tiered/logid"
	"github.com/tierlog/tierlog/wire"
)

// MaxPartitions bounds the partitions of one topic.
const MaxPartitions = 100_000

func errAttr(err error) slog.Attr { return slog.Any("err", err) }

func sortedUnique(names []string) []string {
	slices.Sort(names)
	return slices.Compact(names)
}

// checkTopicName applies Kafka's rules for topic names.
func checkTopicName(name string) error {
	bad := func(why string) error {
		return &coded{kerr.InvalidTopicException, fmt.Sprintf("Topic name is invalid: %q %s", clip(name), why)}
	}
	switch {
	case name == "":
		return bad("is empty")
	case name == "." || name == "..":
		return bad("cannot be \".\" or \"..\"")
	case len(name) > 249:
		return bad(fmt.Sprintf("has %d characters, at most 249 are allowed", len(name)))
	}
	for i := range len(name) {
		c := name[i]
		alnum := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !alnum && c != '.' && c != '_' && c != '-' {
			return bad("contains a character other than ASCII letters, digits, '.', '_' and '-'")
		}
	}
	return nil
}

func clip(s string) string {
	if len(s) > 300 {
		return s[:300] + "..."
	}
	return s
}

// autoCreate creates a topic that a client asked for. Somebody else creating it at the same time is no error.
func (b *Broker) autoCreate(ctx context.Context, name string) error {
	if err := checkTopicName(name); err != nil {
		return err
	}
	id, err := logid.NewTopicID(rand.Reader)
	if err != nil {
		return err
	}
	errs := b.cfg.Meta.CreateTopics(ctx, []NewTopic{{Name: name, ID: id, Partitions: b.settings.Load().NumPartitions}})
	if errors.Is(errs[0], kerr.TopicAlreadyExists) {
		return nil
	}
	return errs[0]
}

// CreateTopics (key 19), versions 2 to 7: KIP-4, KIP-464 (defaults), KIP-525 (configs in the answer), KIP-516 (ids).
// A replication factor is accepted and reported as 1: the bucket keeps the copies.

func (b *Broker) createTopics(ctx context.Context, _ *wire.Request, msg *kmsg.CreateTopicsRequest) (kmsg.Response, error) {
	resp := kmsg.NewPtrCreateTopicsResponse()
	seen := make(map[string]int)
	for i := range msg.Topics {
		seen[msg.Topics[i].Topic]++
	}
	var create []NewTopic
	var at []int
	for i := range msg.Topics {
		rt := &msg.Topics[i]
		if seen[rt.Topic] == 0 {
			continue // answered before
		}
		out := kmsg.NewCreateTopicsResponseTopic()
		out.Topic, out.NumPartitions, out.ReplicationFactor = rt.Topic, -1, -1
		var nt NewTopic
		err := error(&coded{kerr.InvalidRequest, "Create topics request from client contains multiple entries for the same topic."})
		if seen[rt.Topic] == 1 {
			nt, err = b.newTopic(rt)
		}
		seen[rt.Topic] = 0
		if err != nil {
			setError(&out.ErrorCode, &out.ErrorMessage, err)
		} else {
			b.describeNew(&out, nt)
			if !msg.ValidateOnly {
				create, at = append(create, nt), append(at, len(resp.Topics))
			} else {
				out.TopicID = logid.TopicID{}
			}
		}
		resp.Topics = append(resp.Topics, out)
	}
	if len(create) > 0 {
		for i, err := range b.cfg.Meta.CreateTopics(ctx, create) {
			if out := &resp.Topics[at[i]]; err != nil {
				out.TopicID, out.NumPartitions, out.ReplicationFactor, out.Configs = logid.TopicID{}, -1, -1, nil
				setError(&out.ErrorCode, &out.ErrorMessage, err)
			}
		}
	}
	return resp, nil
}

func setError(code *int16, message **string, err error) {
	*code = codeOf(err)
	text := err.Error()
	*message = &text
}

// newTopic checks one topic of a request.
func (b *Broker) newTopic(rt *kmsg.CreateTopicsRequestTopic) (NewTopic, error) {
	nt := NewTopic{Name: rt.Topic, Partitions: rt.NumPartitions, Configs: make(map[string]string, len(rt.Configs))}
	if err := checkTopicName(rt.Topic); err != nil {
		return nt, err
	}
	if b.reg.byName(rt.Topic) != nil {
		return nt, &coded{kerr.TopicAlreadyExists, fmt.Sprintf("Topic '%s' already exists.", rt.Topic)}
	}
	if len(rt.ReplicaAssignment) > 0 {
		if rt.NumPartitions != -1 || rt.ReplicationFactor != -1 {
			return nt, &coded{kerr.InvalidRequest, "Both numPartitions or replicationFactor and replicasAssignments were set. Both cannot be used at the same time."}
		}
		if err := b.checkAssignment(rt.ReplicaAssignment); err != nil {
			return nt, err
		}
		nt.Partitions = int32(len(rt.ReplicaAssignment))
	} else if nt.Partitions == -1 {
		nt.Partitions = b.settings.Load().NumPartitions
	}
	if nt.Partitions <= 0 || nt.Partitions > MaxPartitions {
		return nt, &coded{kerr.InvalidPartitions, fmt.Sprintf("Number of partitions is %d, allowed are 1 to %d, or -1 for the default.", nt.Partitions, MaxPartitions)}
	}
	if rf := rt.ReplicationFactor; rf == 0 || rf < -1 {
		return nt, &coded{kerr.InvalidReplicationFactor, fmt.Sprintf("Replication factor is %d, allowed are 1 and up, or -1 for the default.", rf)}
	}
	for _, c := range rt.Configs {
		if c.Value == nil {
			return nt, &coded{kerr.InvalidConfig, fmt.Sprintf("Null value not supported for topic configs: %s", clip(c.Name))}
		}
		nt.Configs[c.Name] = *c.Value
	}
	if err := b.settings.Load().Check(nt.Configs); err != nil {
		return nt, err
	}
	id, err := logid.NewTopicID(rand.Reader)
	nt.ID = id
	return nt, err
}

func (b *Broker) describeNew(out *kmsg.CreateTopicsResponseTopic, nt NewTopic) {
	out.TopicID, out.NumPartitions, out.ReplicationFactor = nt.ID, nt.Partitions, 1
	out.Configs = []kmsg.CreateTopicsResponseTopicConfig{}
	for _, e := range b.settings.Load().DescribeTopic(nt.Configs) {
		c := kmsg.NewCreateTopicsResponseTopicConfig()
		c.Name, c.Source, c.ReadOnly, c.IsSensitive = e.Name, int8(e.Source), e.ReadOnly, e.Sensitive
		if !e.NullValue && !e.Sensitive {
			v := e.Value
			c.Value = &v
		}
		out.Configs = append(out.Configs, c)
	}
}

// DeleteTopics (key 20), versions 1 to 6: KIP-4, KIP-516 (by id, from 6).

func (b *Broker) deleteTopics(ctx context.Context, req *wire.Request, msg *kmsg.DeleteTopicsRequest) (kmsg.Response, error) {
	resp := kmsg.NewPtrDeleteTopicsResponse()
	asked := msg.Topics
	if req.Version < 6 {
		asked = nil
		for i := range msg.TopicNames {
			rt := kmsg.NewDeleteTopicsRequestTopic()
			rt.Topic = &msg.TopicNames[i]
			asked = append(asked, rt)
		}
	}
	for i := range asked {
		out := kmsg.NewDeleteTopicsResponseTopic()
		out.Topic, out.TopicID = asked[i].Topic, asked[i].TopicID
		t, err := b.askedTopic(asked[i].Topic, asked[i].TopicID)
		if err == nil && !b.settings.Load().DeleteTopics {
			err = &coded{kerr.TopicDeletionDisabled, "Topic deletion is disabled: delete.topic.enable is false."}
		}
		if err == nil {
			out.Topic, out.TopicID = &t.name, t.id
			err = b.cfg.Meta.DeleteTopic(ctx, t.id)
		}
		if err != nil {
			setError(&out.ErrorCode, &out.ErrorMessage, err)
		}
		resp.Topics = append(resp.Topics, out)
	}
	return resp, nil
}

// askedTopic finds a topic by name or else by id.
func (b *Broker) askedTopic(name *string, id [16]byte) (*topic, error) {
	if name != nil {
		if t := b.reg.byName(*name); t != nil {
			return t, nil
		}
		return nil, &coded{kerr.UnknownTopicOrPartition, fmt.Sprintf("Topic %q does not exist.", clip(*name))}
	}
	if t := b.reg.byID(logid.TopicID(id)); t != nil {
		return t, nil
	}
	return nil, &coded{kerr.UnknownTopicID, fmt.Sprintf("No topic has the id %s.", logid.TopicID(id))}
}

// CreatePartitions (key 37), versions 0 to 3: KIP-195.

func (b *Broker) createPartitions(ctx context.Context, _ *wire.Request, msg *kmsg.CreatePartitionsRequest) (kmsg.Response, error) {
	resp := kmsg.NewPtrCreatePartitionsResponse()
	seen := make(map[string]bool)
	for i := range msg.Topics {
		rt := &msg.Topics[i]
		out := kmsg.NewCreatePartitionsResponseTopic()
		out.Topic = rt.Topic
		err := error(&coded{kerr.InvalidRequest, "Duplicate topic in request."})
		if !seen[rt.Topic] {
			err = b.morePartitions(ctx, rt, msg.ValidateOnly)
		}
		seen[rt.Topic] = true
		if err != nil {
			setError(&out.ErrorCode, &out.ErrorMessage, err)
		}
		resp.Topics = append(resp.Topics, out)
	}
	return resp, nil
}

func (b *Broker) morePartitions(ctx context.Context, rt *kmsg.CreatePartitionsRequestTopic, dry bool) error {
	t, err := b.askedTopic(&rt.Topic, [16]byte{})
	if err != nil {
		return err
	}
	now := int32(len(t.state.Load().parts))
	switch {
	case rt.Count == now:
		return &coded{kerr.InvalidPartitions, fmt.Sprintf("Topic already has %d partition(s).", now)}
	case rt.Count < now:
		return &coded{kerr.InvalidPartitions, fmt.Sprintf("The topic %s currently has %d partition(s); %d would not be an increase.", t.name, now, rt.Count)}
	case rt.Count > MaxPartitions:
		return &coded{kerr.InvalidPartitions, fmt.Sprintf("Number of partitions is %d, allowed are up to %d.", rt.Count, MaxPartitions)}
	case len(rt.Assignment) > 0 && len(rt.Assignment) != int(rt.Count-now):
		return &coded{kerr.InvalidReplicaAssignment, fmt.Sprintf("Attempted to add %d additional partition(s), but only %d assignment(s) were specified.", rt.Count-now, len(rt.Assignment))}
	}
	for _, a := range rt.Assignment {
		if err := b.checkReplicas(a.Replicas, 1); err != nil {
			return err
		}
	}
	if dry {
		return nil
	}
	return b.cfg.Meta.AddPartitions(ctx, t.id, rt.Count)
}
