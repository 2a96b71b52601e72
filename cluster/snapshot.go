package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/tierlog/tierlog/objstore"
	"github.com/tierlog/tierlog/tiered/logid"
	"github.com/tierlog/tierlog/tiered/manifest"
)

// keepSnapshots is how many snapshots stay in the bucket: the older ones serve when the newest can not be read.
const keepSnapshots = 3

// uploadTimeout bounds the upload of a snapshot, which nobody waits for.
const uploadTimeout = time.Minute

// snapshots is what is known of the bucket's snapshots.
type snapshots struct {
	slots   []logid.Slot // ascending
	running bool         // an upload is under way
}

// snapshotBody is the body of a snapshot: the state after a slot. Two equal states have equal bodies but for the frame.
type snapshotBody struct {
	Cluster        logid.ClusterID   `json:"cluster"`
	Slot           logid.Slot        `json:"slot"`
	NextProducerID int64             `json:"nextProducerId"`
	Brokers        []Broker          `json:"brokers,omitempty"` // by node
	Epochs         []WALEpoch        `json:"epochs,omitempty"`  // ascending
	Configs        []snapshotConfigs `json:"brokerConfigs,omitempty"`
	Topics         []snapshotTopic   `json:"topics,omitempty"` // by name
}

type snapshotConfigs struct {
	Node    NodeID            `json:"node"`
	Configs map[string]string `json:"configs"`
}

type snapshotTopic struct {
	Name    string            `json:"name"`
	ID      logid.TopicID     `json:"id"`
	Created logid.Slot        `json:"created"`
	Configs map[string]string `json:"configs,omitempty"`
	// Partitions holds runs of partitions alike: [count, leader, leader epoch, broker epoch].
	Partitions [][4]int64 `json:"partitions"`
}

// snapshot returns the state as a body. The caller owns the turn, or the state.
func (s *State) snapshot(c logid.ClusterID) *snapshotBody {
	b := &snapshotBody{Cluster: c, Slot: s.slot, NextProducerID: s.nextPID, Brokers: s.sortedBrokers(), Epochs: s.epochs}
	for _, n := range slices.Sorted(maps.Keys(s.configs)) {
		b.Configs = append(b.Configs, snapshotConfigs{Node: n, Configs: s.configs[n]})
	}
	topics := slices.SortedFunc(maps.Values(s.topics), func(a, b *Topic) int { return strings.Compare(a.Name, b.Name) })
	for _, t := range topics {
		st := snapshotTopic{Name: t.Name, ID: t.ID, Created: t.Created, Configs: t.Configs}
		for i, p := range t.Partitions {
			if i > 0 && p == t.Partitions[i-1] {
				st.Partitions[len(st.Partitions)-1][0]++
				continue
			}
			st.Partitions = append(st.Partitions, [4]int64{1, int64(p.Leader), int64(p.LeaderEpoch), int64(p.BrokerEpoch)})
		}
		b.Topics = append(b.Topics, st)
	}
	return b
}

// restore returns the state that a snapshot describes, or says what is wrong with it.
func (b *snapshotBody) restore() (*State, error) {
	s := NewState()
	s.slot, s.nextPID, s.epochs = b.Slot, b.NextProducerID, b.Epochs
	if b.NextProducerID < 0 {
		return nil, fmt.Errorf("nextProducerId is %d: %w", b.NextProducerID, ErrCorrupt)
	}
	for i := range b.Epochs {
		if e := b.Epochs[i].Epoch; uint64(e) > uint64(b.Slot) || (i > 0 && b.Epochs[i-1].Epoch >= e) {
			return nil, fmt.Errorf("epoch %d is out of order: %w", e, ErrCorrupt)
		}
	}
	for i := range b.Brokers {
		v := &b.Brokers[i]
		at := slices.Index(b.Epochs, WALEpoch{Epoch: v.Epoch, Node: v.Node, Live: true})
		if s.brokers[v.Node] != nil || at < 0 {
			return nil, fmt.Errorf("broker %d appears twice or has no live epoch: %w", v.Node, ErrCorrupt)
		}
		s.brokers[v.Node] = v
	}
	for _, c := range b.Configs {
		if _, ok := s.configs[c.Node]; ok || len(c.Configs) == 0 {
			return nil, fmt.Errorf("settings of node %d are empty or appear twice: %w", c.Node, ErrCorrupt)
		}
		s.configs[c.Node] = c.Configs
	}
	for i := range b.Topics {
		if err := s.restoreTopic(&b.Topics[i]); err != nil {
			return nil, err
		}
	}
	return s, nil
}

func (s *State) restoreTopic(st *snapshotTopic) error {
	if err := CheckTopicName(st.Name); err != nil {
		return fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	key := collisionKey(st.Name)
	if s.collisions[key] != "" || s.byID[st.ID] != nil || st.ID.IsZero() {
		return fmt.Errorf("topic %q appears twice: %w", st.Name, ErrCorrupt)
	}
	t := &Topic{Name: st.Name, ID: st.ID, Created: st.Created, Configs: st.Configs}
	for _, run := range st.Partitions {
		p := Partition{Leader: NodeID(run[1]), LeaderEpoch: logid.LeaderEpoch(run[2]), BrokerEpoch: logid.Epoch(run[3])}
		if run[0] < 1 || run[0] > int64(MaxPartitions-len(t.Partitions)) || int64(p.Leader) != run[1] || int64(p.LeaderEpoch) != run[2] || run[3] < 0 {
			return fmt.Errorf("topic %q: a run of partitions is out of range: %w", st.Name, ErrCorrupt)
		}
		t.Partitions = append(t.Partitions, slices.Repeat([]Partition{p}, int(run[0]))...)
	}
	if len(t.Partitions) == 0 {
		return fmt.Errorf("topic %q has no partitions: %w", st.Name, ErrCorrupt)
	}
	s.topics[t.Name], s.byID[t.ID], s.collisions[key] = t, t, t.Name
	s.partitions += len(t.Partitions)
	return nil
}

// encodeSnapshot returns the body of a snapshot. The caller owns the turn, or the state.
func encodeSnapshot(s *State, c logid.ClusterID, n manifest.Nonce) ([]byte, error) {
	return manifest.EncodeBody(kindSnapshot, n, s.snapshot(c))
}

// decodeSnapshot reads a snapshot. Errors wrap ErrCorrupt or ErrNewer.
func decodeSnapshot(body []byte, c logid.ClusterID, slot logid.Slot) (*State, error) {
	b := &snapshotBody{}
	if _, err := manifest.DecodeBody(kindSnapshot, body, b); err != nil {
		return nil, bodyError(err)
	}
	if b.Cluster != c || b.Slot != slot {
		return nil, fmt.Errorf("the body is that of slot %d of cluster %s, want slot %d of %s: %w", b.Slot, b.Cluster, slot, c, ErrCorrupt)
	}
	return b.restore()
}

func (l *Log) snapshotKey(s logid.Slot) string {
	return manifest.Key{Kind: manifest.KeyMetaSnapshot, Cluster: l.cluster.ID, Slot: s}.String()
}

// loadSnapshot starts from the newest snapshot that can be read. This is the only place that lists.
func (l *Log) loadSnapshot(ctx context.Context) error {
	prefix := manifest.Prefix(l.cluster.ID, manifest.KeyMetaSnapshot)
	for after := ""; ; {
		page, err := l.cfg.Store.List(ctx, prefix, after, 0)
		if err != nil {
			return fmt.Errorf("list snapshots of the metadata log: %w", err)
		}
		for _, o := range page.Objects {
			after = o.Key
			if k, err := manifest.ParseKey(o.Key); err == nil && k.Kind == manifest.KeyMetaSnapshot {
				l.snaps.slots = append(l.snaps.slots, k.Slot)
			}
		}
		if !page.More || len(page.Objects) == 0 {
			break
		}
	}
	for _, slot := range slices.Backward(l.snaps.slots) {
		s, err := l.readSnapshot(ctx, slot)
		switch {
		case err == nil:
			l.state = s
			return nil
		case errors.Is(err, ErrCorrupt), errors.Is(err, objstore.ErrNotFound), errors.Is(err, objstore.ErrInvalid):
			l.cfg.Logger.WarnContext(ctx, "snapshot of the metadata log is not usable, trying an older one",
				slog.String("key", l.snapshotKey(slot)), slog.Any("error", err))
		default:
			return err
		}
	}
	return nil
}

func (l *Log) readSnapshot(ctx context.Context, slot logid.Slot) (*State, error) {
	body, _, err := objstore.ReadAll(ctx, l.cfg.Store, l.snapshotKey(slot), manifest.MaxBody)
	if err != nil {
		return nil, err
	}
	s, err := decodeSnapshot(body, l.cluster.ID, slot)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", l.snapshotKey(slot), err)
	}
	return s, nil
}

// snapshotIfDue starts the upload of a snapshot after every SnapshotEvery slots. The caller owns the turn.
func (l *Log) snapshotIfDue(ctx context.Context) {
	if l.sinceSnapshot() >= uint64(l.cfg.SnapshotEvery) {
		l.startSnapshot(ctx)
	}
}

// finalSnapshot starts one if the next start would otherwise read more than a few slots. The caller owns the turn.
func (l *Log) finalSnapshot(ctx context.Context) {
	const few = 8
	if !l.cfg.ReadOnly && l.sinceSnapshot() >= few {
		l.startSnapshot(ctx)
	}
}

func (l *Log) sinceSnapshot() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	var last logid.Slot
	if n := len(l.snaps.slots); n > 0 {
		last = l.snaps.slots[n-1]
	}
	if l.snaps.running || last > l.state.slot {
		return 0
	}
	return uint64(l.state.slot - last)
}

// startSnapshot encodes the state under the turn and uploads it without.
func (l *Log) startSnapshot(ctx context.Context) {
	slot := l.state.slot
	n, err := manifest.NewNonce(l.cfg.Random)
	var body []byte
	if err == nil {
		body, err = encodeSnapshot(l.state, l.cluster.ID, n)
	}
	if err != nil {
		l.cfg.Logger.ErrorContext(ctx, "snapshot of the metadata log is not possible; starts will read more slots", slog.Any("error", err))
		return
	}
	l.mu.Lock()
	l.snaps.running = true
	l.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), uploadTimeout)
	l.uploads.Go(func() {
		defer cancel()
		if err := l.upload(ctx, slot, body); err != nil {
			l.cfg.Logger.WarnContext(ctx, "snapshot of the metadata log failed; the next one will serve", slog.Any("error", err))
		}
	})
}

// upload creates the snapshot and deletes all but the newest ones. Another broker's snapshot of the slot is as good.
func (l *Log) upload(ctx context.Context, slot logid.Slot, body []byte) error {
	_, err := l.cfg.Store.Create(ctx, l.snapshotKey(slot), objstore.Bytes(body))
	ok := err == nil || errors.Is(err, objstore.ErrExists)
	l.mu.Lock()
	l.snaps.running = false
	var old []logid.Slot
	if ok {
		l.snaps.slots = append(l.snaps.slots, slot)
		if extra := len(l.snaps.slots) - keepSnapshots; extra > 0 {
			old = slices.Clone(l.snaps.slots[:extra])
			l.snaps.slots = slices.Delete(l.snaps.slots, 0, extra)
		}
	}
	l.mu.Unlock()
	if !ok {
		return err
	}
	if len(old) == 0 {
		return nil
	}
	keys := make([]string, len(old))
	for i, s := range old {
		keys[i] = l.snapshotKey(s)
	}
	return l.cfg.Store.Delete(ctx, keys)
}
