package tiered

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/tierlog/tierlog/objstore"
	"github.com/tierlog/tierlog/tiered/logid"
	"github.com/tierlog/tierlog/tiered/manifest"
	"github.com/tierlog/tierlog/tiered/rollup"
)

// MaintenanceConfig says how often the log looks after itself.
type MaintenanceConfig struct {
	// A round runs when this many bytes or slots were published since the last one, or this much time has passed and
	// anything was.
	RoundBytes int64         // default 128 MiB
	RoundSlots int           // default 1,024
	RoundAge   time.Duration // default 5 min
	// RetentionInterval is how often log starts are looked at (log.retention.check.interval.ms, default 5 min).
	RetentionInterval time.Duration
	// Grace is how long garbage stays in the bucket, for readers that still know of it (default 10 min).
	Grace time.Duration
	// Segments and Merges say when records move to log segments and objects are rewritten; zero: their defaults.
	Segments rollup.SegmentConfig
	Merges   rollup.MergeConfig
	// Retire tells the cluster that an epoch's WAL holds nothing alive any more; nil: nobody needs to know.
	Retire func(context.Context, logid.Epoch) error
}

func (c *MaintenanceConfig) setDefaults() {
	if c.RoundBytes <= 0 {
		c.RoundBytes = 128 << 20
	}
	if c.RoundSlots <= 0 {
		c.RoundSlots = 1024
	}
	if c.RoundAge <= 0 {
		c.RoundAge = 5 * time.Minute
	}
	if c.RetentionInterval <= 0 {
		c.RetentionInterval = 5 * time.Minute
	}
	if c.Segments.Min <= 0 {
		c.Segments.Min = 1 << 20
	}
	if c.Grace <= 0 {
		c.Grace = 10 * time.Minute
	}
}

// maintainer keeps recovery short and the bucket small: checkpoints, rollup, retention, deletion of garbage.
type maintainer struct {
	l    *Log
	kick chan struct{}

	mu    sync.Mutex
	bytes int64 // published since the last round; owned by mu
	slots int   // owned by mu
	// stale says that something is in no checkpoint yet: what recovery found, log segments that were cut, or what a
	// checkpoint that failed should have held. Objects are not rewritten or dropped while it is; owned by mu.
	stale bool
	// deleted are partitions whose log segments are to go; owned by mu.
	deleted []*Partition

	turn    chan struct{} // holds one token: who has it does maintenance
	garbage *garbage      // owned by who has the turn
}

func newMaintainer(l *Log) *maintainer {
	m := &maintainer{l: l, kick: make(chan struct{}, 1), turn: make(chan struct{}, 1), garbage: &garbage{l: l}, stale: len(l.epochs) > 1}
	m.turn <- struct{}{}
	return m
}

// do runs one piece of maintenance when it is its turn.
func (m *maintainer) do(ctx context.Context, f func(context.Context) error) error {
	select {
	case <-m.turn:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { m.turn <- struct{}{} }()
	return f(ctx)
}

// sealed counts a published flight.
func (m *maintainer) sealed(fl *flight) {
	m.mu.Lock()
	m.bytes += fl.bytes
	m.slots++
	due := m.bytes >= m.l.cfg.Maintenance.RoundBytes || m.slots >= m.l.cfg.Maintenance.RoundSlots
	m.mu.Unlock()
	if due {
		m.wake()
	}
}

func (m *maintainer) wake() {
	select {
	case m.kick <- struct{}{}:
	default:
	}
}

// run does rounds until the log ends.
func (m *maintainer) run(ctx context.Context) {
	if m.l.waitIndexed(ctx) != nil {
		return
	}
	c := &m.l.cfg.Maintenance
	age := time.NewTicker(c.RoundAge)
	defer age.Stop()
	retention := time.NewTicker(c.RetentionInterval)
	defer retention.Stop()
	m.logged(ctx, m.start)
	for {
		select {
		case <-m.kick:
			m.logged(ctx, m.round)
		case <-age.C:
			m.logged(ctx, m.round)
		case <-retention.C:
			m.logged(ctx, m.retain)
		case <-ctx.Done():
			return
		}
	}
}

// logged runs one piece of maintenance. What fails is tried again in the next round; being fenced ends the log.
func (m *maintainer) logged(ctx context.Context, f func(context.Context) error) {
	err := m.do(ctx, f)
	switch {
	case err == nil || ctx.Err() != nil:
	case errors.Is(err, ErrFenced):
		m.l.flush.end(err)
	default:
		m.l.cfg.Logger.WarnContext(ctx, "maintenance failed; it will be tried again", slog.Any("err", err))
		m.l.cfg.Metrics.maintenanceFailed()
	}
}

// start ends the replay of earlier epochs: what recovery found is written down under this epoch.
func (m *maintainer) start(ctx context.Context) error {
	return errors.Join(m.garbage.load(ctx), m.checkpointStale(ctx))
}

// checkpointStale writes a checkpoint if there is anything that none has.
func (m *maintainer) checkpointStale(ctx context.Context) error {
	m.mu.Lock()
	stale := m.stale
	m.mu.Unlock()
	if !stale {
		return nil
	}
	return m.checkpoint(ctx, nil)
}

func (m *maintainer) markStale(yes bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.stale = yes
}

// round cuts log segments, then writes a checkpoint if there is anything new, then rewrites and drops objects. The
// checkpoint comes before any object is dropped: a process that takes over must know that log segments hold its records.
func (m *maintainer) round(ctx context.Context) error {
	m.mu.Lock()
	m.stale = m.stale || m.slots > 0
	m.bytes, m.slots = 0, 0
	m.mu.Unlock()
	w, err := m.worker(ctx)
	if err != nil {
		return err
	}
	failed := m.garbage.load(ctx)
	if w != nil {
		cut, err := m.cutSegments(ctx, w)
		failed = errors.Join(failed, err)
		if cut {
			m.markStale(true)
		}
	}
	if err := m.checkpointStale(ctx); err != nil {
		return errors.Join(failed, err)
	}
	failed = errors.Join(failed, m.dropDeleted(ctx))
	if w != nil {
		failed = errors.Join(failed, m.mergeObjects(ctx, w))
	}
	return errors.Join(failed, m.garbage.collect(ctx))
}

// checkpointNow writes a last checkpoint, for an orderly stop.
func (m *maintainer) checkpointNow(ctx context.Context) error {
	m.mu.Lock()
	idle := m.slots == 0 && !m.stale && len(m.deleted) == 0
	m.mu.Unlock()
	if idle {
		return nil
	}
	return m.do(ctx, func(ctx context.Context) error {
		if err := m.checkpoint(ctx, nil); err != nil {
			return err
		}
		return errors.Join(m.dropDeleted(ctx), m.garbage.collect(ctx)) // what this process alone knows of
	})
}

// checkpoint writes down the state of all partitions through the last published slot, lists the published objects
// in the manifest, and names the checkpoint there. starts are new log starts to be recorded with it; they take
// effect once they are durable.
func (m *maintainer) checkpoint(ctx context.Context, starts map[*Partition]int64) error {
	ctx = objstore.WithPurpose(ctx, objstore.PurposeManifest)
	l := m.l
	c, err := m.snapshot(starts)
	if err != nil {
		return err
	}
	id, err := newULID(l.cfg.Now())
	if err != nil {
		return err
	}
	body, err := c.Encode()
	if err != nil {
		return fmt.Errorf("checkpoint: %w", err)
	}
	if err := l.putSlot(ctx, c.Key(id), objstore.Bytes(body)); err != nil {
		return err
	}
	l.objMu.Lock()
	w := l.own()
	var old *manifest.CheckpointRef
	through := logid.Slot(0)
	if w.m != nil {
		old, through = w.m.Checkpoint, w.m.MergedThrough
	}
	objects := unlisted(w, through, c.Next)
	l.objMu.Unlock()
	err = l.updateManifest(ctx, w, func(n *manifest.WAL) error {
		if c.Next > through {
			if err := n.Merge(through, c.Next, objects...); err != nil {
				return err
			}
		}
		return n.SetCheckpoint(manifest.CheckpointRef{Slot: c.Next, ULID: id, Size: int64(len(body))})
	})
	if err != nil {
		return err
	}
	m.markStale(false)
	for p, start := range starts {
		p.advanceStart(start)
	}
	if old != nil {
		m.garbage.add(old.Key(l.cfg.Cluster, w.epoch))
	}
	return nil
}

// snapshot takes the state of all partitions at one point between two published slots.
func (m *maintainer) snapshot(starts map[*Partition]int64) (*manifest.Checkpoint, error) {
	nonce, err := manifest.NewNonce(rand.Reader)
	if err != nil {
		return nil, err
	}
	l := m.l
	c := &manifest.Checkpoint{Nonce: nonce, Cluster: l.cfg.Cluster, Epoch: l.cfg.Epoch}
	// Nothing is published while pubMu is held, so that the slot and all partitions fit together.
	l.flush.pubMu.Lock()
	defer l.flush.pubMu.Unlock()
	l.objMu.Lock()
	c.Next = l.own().next
	l.objMu.Unlock()
	for _, p := range l.Partitions() {
		c.Partitions = append(c.Partitions, p.state(starts[p]))
	}
	c.Sort()
	return c, nil
}

// state is what a checkpoint records of a partition: only what is durable. start raises the log start, if larger.
func (p *Partition) state(start int64) manifest.PartitionState {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := manifest.PartitionState{
		Partition: p.id, LogStart: logid.Offset(max(p.start, start)), NextOffset: logid.Offset(p.hw),
		RolledThrough: logid.Offset(p.rolled), ManifestVersion: p.manifestV,
	}
	for _, e := range p.epochs {
		if e.Start <= p.hw {
			s.Epochs = append(s.Epochs, manifest.EpochStart{Epoch: logid.LeaderEpoch(e.Epoch), Start: logid.Offset(e.Start)})
		}
	}
	for id, st := range p.producers {
		ps := manifest.ProducerState{ID: id, Epoch: st.epoch, CoordinatorEpoch: -1, LastTimestamp: st.seenMs, TxnFirst: logid.NoOffset}
		for _, b := range st.durable(p.hw) {
			ps.Batches = append(ps.Batches, manifest.ProducerBatch{
				BaseSeq: b.baseSeq, LastSeq: b.lastSeq, BaseOffset: logid.Offset(b.base), LastOffset: logid.Offset(b.last), Timestamp: b.timestamp,
			})
		}
		if len(ps.Batches) > 0 {
			s.Producers = append(s.Producers, ps)
		}
	}
	slices.SortFunc(s.Producers, func(a, b manifest.ProducerState) int { return int(min(max(a.ID-b.ID, -1), 1)) })
	return s
}

// advanceStart moves the log start up and drops extents that lie wholly below it.
func (p *Partition) advanceStart(start int64) {
	p.mu.Lock()
	p.start = max(p.start, min(start, p.hw))
	dead := p.dropExtents(p.start)
	p.mu.Unlock()
	for i := range dead {
		releaseTail(dead[i].tail)
	}
}
