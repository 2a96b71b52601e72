package broker

import (
	"cmp"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/tierlog/tierlog/tiered"
	"github.com/tierlog/tierlog/tiered/logid"
	"github.com/tierlog/tierlog/topicconf"
)

// registry finds topics and partitions without a lock that all requests share.
type registry struct {
	names sync.Map // string -> *topic
	ids   sync.Map // logid.TopicID -> *topic
}

// topic is one topic as this broker serves it.
type topic struct {
	name string
	id   logid.TopicID
	// state is replaced as a whole when the topic changes.
	state atomic.Pointer[topicState]
}

type topicState struct {
	parts     []*tiered.Partition // by index
	overrides map[string]string
	conf      *topicconf.Topic
}

func (r *registry) byName(name string) *topic {
	if v, ok := r.names.Load(name); ok {
		return v.(*topic)
	}
	return nil
}

func (r *registry) byID(id logid.TopicID) *topic {
	if v, ok := r.ids.Load(id); ok {
		return v.(*topic)
	}
	return nil
}

func (r *registry) add(t *topic) {
	r.ids.Store(t.id, t)
	r.names.Store(t.name, t)
}

func (r *registry) remove(t *topic) {
	r.names.CompareAndDelete(t.name, t)
	r.ids.Delete(t.id)
}

// all returns the topics sorted by name.
func (r *registry) all() []*topic {
	var out []*topic
	r.names.Range(func(_, v any) bool {
		out = append(out, v.(*topic))
		return true
	})
	slices.SortFunc(out, func(a, b *topic) int { return cmp.Compare(a.name, b.name) })
	return out
}

// partition returns the open partition of an index, or nil.
func (t *topic) partition(index int32) *tiered.Partition {
	parts := t.state.Load().parts
	if index < 0 || int(index) >= len(parts) {
		return nil
	}
	return parts[index]
}

// engineSettings are the topic's configs as the engine takes them.
func engineSettings(c *topicconf.Topic) tiered.Settings {
	s := tiered.Settings{
		MaxMessageBytes: int(c.MaxMessageBytes), LogAppendTime: c.TimestampType == topicconf.LogAppendTime,
		RetentionMs: c.RetentionMs, RetentionBytes: c.RetentionBytes, SegmentBytes: int64(c.SegmentBytes), SegmentMs: c.SegmentMs,
	}
	if !topicconf.NoBound(c.BeforeMaxMs) {
		s.BeforeMaxMs = c.BeforeMaxMs
	}
	if !topicconf.NoBound(c.AfterMaxMs) {
		s.AfterMaxMs = c.AfterMaxMs
	}
	return s
}
