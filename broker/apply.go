package broker

import (
	"log/slog"
	"maps"

	"github.com/tierlog/tierlog/tiered"
	"github.com/tierlog/tierlog/tiered/logid"
)

// ApplyTopic makes a topic, or its newer state, known: partitions are opened in the engine first. It is called in the
// order of the metadata log, by one goroutine at a time.
func (b *Broker) ApplyTopic(s TopicSpec) error {
	conf, err := b.settings.Load().Topic(s.Configs)
	if err != nil {
		// Configs are checked before they are stored; what a newer version stored must not keep a topic from opening.
		b.cfg.Logger.Error("topic has configs that cannot be honoured; the defaults are in force for those", slog.String("topic", s.Name), slog.Any("err", err))
	}
	t := b.reg.byID(s.ID)
	known := t != nil
	if !known {
		t = &topic{name: s.Name, id: s.ID}
	}
	st := &topicState{overrides: maps.Clone(s.Configs), conf: conf, parts: make([]*tiered.Partition, len(s.LeaderEpochs))}
	es := engineSettings(conf)
	for i, epoch := range s.LeaderEpochs {
		st.parts[i] = b.cfg.Log.OpenPartition(logid.Partition{Topic: s.ID, Index: int32(i)}, s.Name, epoch, es)
	}
	t.state.Store(st)
	if !known {
		b.reg.add(t)
	}
	return nil
}

// RemoveTopic forgets a deleted topic.
func (b *Broker) RemoveTopic(id logid.TopicID) {
	t := b.reg.byID(id)
	if t == nil {
		return
	}
	b.reg.remove(t)
	for _, p := range t.state.Load().parts {
		b.cfg.Log.ClosePartition(p.ID())
	}
}
