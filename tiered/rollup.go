package tiered

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"slices"

	"github.com/tierlog/tierlog/objstore"
	"github.com/tierlog/tierlog/tiered/logid"
	"github.com/tierlog/tierlog/tiered/manifest"
	"github.com/tierlog/tierlog/tiered/rollup"
	"github.com/tierlog/tierlog/tiered/segment"
	"github.com/tierlog/tierlog/tiered/wal"
)

// worker returns what carries rollups out, or nil while an object of the bucket cannot be read: then nothing is
// rewritten or dropped, so that what is damaged can still be looked into.
func (m *maintainer) worker(ctx context.Context) (*rollup.Worker, error) {
	c := &m.l.cfg
	if err := m.l.waitIndexed(ctx); err != nil {
		return nil, err
	}
	if m.l.damaged.Load() > 0 {
		c.Logger.WarnContext(ctx, "rollup waits: an object of the bucket cannot be read; see tierlog bucket verify")
		return nil, nil
	}
	return rollup.New(rollup.Config{
		Store: c.Store, Cluster: c.Cluster, Pool: c.Pool, Owner: "broker epoch " + c.Epoch.String(), ProducerExpiry: c.ProducerExpiry,
		Now: c.Now, Logger: c.Logger,
	})
}

// cutSegments writes the log segments that are due and reports whether any was. A partition whose segment fails keeps
// its extents and is planned again in the next round; others go on.
func (m *maintainer) cutSegments(ctx context.Context, w *rollup.Worker) (cut bool, err error) {
	parts := m.l.Partitions()
	stats := make([]rollup.PartitionStat, 0, len(parts))
	byID := make(map[logid.Partition]*Partition, len(parts))
	unrolled := int64(0)
	for _, p := range parts {
		s := p.rollupStat()
		unrolled += s.Bytes
		stats = append(stats, s)
		byID[p.id] = p
	}
	m.l.cfg.Metrics.lag(unrolled)
	var errs []error
	failed := make(map[logid.Partition]bool)
	for _, plan := range rollup.PlanSegments(stats, m.l.cfg.Maintenance.Segments, m.l.cfg.Now().UnixMilli()) {
		if failed[plan.Partition] {
			continue
		}
		if err := m.cutSegment(ctx, w, byID[plan.Partition], plan); err != nil {
			failed[plan.Partition] = true
			errs = append(errs, fmt.Errorf("log segment of %s-%d: %w", plan.Topic, plan.Partition.Index, err))
		}
		cut = true
	}
	return cut, errors.Join(errs...)
}

// rollupStat describes what of the partition is in no log segment.
func (p *Partition) rollupStat() rollup.PartitionStat {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.settings.Load()
	st := rollup.PartitionStat{
		Partition: p.id, Topic: p.topic, RolledThrough: logid.Offset(p.rolled), LogStart: logid.Offset(p.start), RolledEpoch: logid.NoLeaderEpoch,
		SegmentBytes: s.SegmentBytes, SegmentMs: s.SegmentMs, Count: len(p.extents), Bytes: p.bytes,
	}
	for _, e := range p.epochs {
		if e.Start < p.rolled {
			st.RolledEpoch = logid.LeaderEpoch(e.Epoch)
		}
	}
	if p.bytes < p.log.cfg.Maintenance.Segments.Min {
		return st
	}
	st.Extents = make([]rollup.Extent, len(p.extents))
	for i := range p.extents {
		e := &p.extents[i]
		st.Extents[i] = rollup.Extent{
			Base: logid.Offset(e.base), Last: logid.Offset(e.last), Epoch: logid.LeaderEpoch(e.epoch), MaxTs: e.maxTs, WrittenMs: e.obj.written,
			Key: e.obj.key, Pos: e.pos, Len: e.size, CRC: e.crc, HasCRC: true,
		}
	}
	return st
}

func (m *maintainer) cutSegment(ctx context.Context, w *rollup.Worker, p *Partition, plan rollup.SegmentPlan) error {
	l := m.l
	var err error
	if plan.ULID, err = w.NewULID(); err != nil {
		return err
	}
	rp, err := l.segments.get(ctx, p)
	if err != nil {
		return err
	}
	if rp.m != nil && rp.m.RolledThrough > plan.From {
		// A process that died after it had listed a segment, before its checkpoint: learn from the manifest, plan anew.
		p.rolledTo(rp)
		return errors.New("the manifest lists newer log segments; planned again in the next round")
	}
	job, err := w.Declare(ctx, rollup.WorkRollup, plan.Outputs(l.cfg.Cluster))
	if err != nil {
		return err
	}
	var before []segment.ProducerEntry
	if rp.m != nil && len(rp.m.Segments) > 0 {
		if before, err = w.ProducersAfter(ctx, rp.m, rp.m.Segments[len(rp.m.Segments)-1]); err != nil {
			return err
		}
	}
	written, err := w.WriteSegment(ctx, plan, before)
	if err != nil {
		return err
	}
	seg := written.Segment
	through := seg.Last + 1
	next, err := m.editPartition(ctx, p, rp, func(n *manifest.Partition) error { return n.Append(plan.From, through, seg) })
	if err != nil {
		return err
	}
	p.rolledTo(next)
	l.cfg.Metrics.rolled("segment", seg.Size)
	l.cfg.Logger.InfoContext(ctx, "log segment written", slog.String("topic", p.topic), slog.Int("partition", int(p.id.Index)),
		slog.Int64("base", int64(seg.Base)), slog.Int64("last", int64(seg.Last)), slog.Int64("bytes", seg.Size), slog.String("why", string(plan.Why)))
	return w.Finish(ctx, job)
}

// editPartition swaps a partition's manifest for an edited one, moving the oldest segments to pages as need be, and
// makes readers use it.
func (m *maintainer) editPartition(ctx context.Context, p *Partition, rp *rolledPartition, edit func(*manifest.Partition) error) (*rolledPartition, error) {
	l := m.l
	ctx = objstore.WithPurpose(ctx, objstore.PurposeManifest)
	nonce, err := manifest.NewNonce(rand.Reader)
	if err != nil {
		return nil, err
	}
	next := &manifest.Partition{Nonce: nonce, Version: 1, Topic: p.topic, TopicID: p.id.Topic, Index: p.id.Index}
	if rp.m != nil {
		next = rp.m.Next(nonce)
	}
	if err := edit(next); err != nil {
		return nil, err
	}
	pages, err := next.Spill(manifest.RootLimit, m.newPageID)
	if err != nil {
		return nil, err
	}
	for i := range pages {
		body, err := pages[i].Encode()
		if err != nil {
			return nil, err
		}
		if err := l.putSlot(ctx, next.PageKey(l.cfg.Cluster, pages[i].Ref()), objstore.Bytes(body)); err != nil {
			return nil, err
		}
	}
	body, err := next.Encode()
	if err != nil {
		return nil, err
	}
	out, v, err := l.write(ctx, next.Key(l.cfg.Cluster), rp.version, objstore.Bytes(body))
	if err != nil {
		l.segments.reload(p)
		return nil, err
	}
	if out == objstore.Other {
		l.segments.reload(p)
		// A process that was fenced meanwhile may still have listed a segment of durable records. That is no harm: the
		// next round sees it.
		return nil, fmt.Errorf("the manifest of %s-%d was written by another: %w", p.topic, p.id.Index, manifest.ErrConflict)
	}
	wrapped := l.segments.wrap(next, v, rp)
	l.segments.put(p.id, wrapped)
	return wrapped, nil
}

func (m *maintainer) newPageID() (manifest.ULID, manifest.Nonce, error) {
	n, err := manifest.NewNonce(rand.Reader)
	if err != nil {
		return manifest.ULID{}, n, err
	}
	id, err := newULID(m.l.cfg.Now())
	return id, n, err
}

// rolledTo drops the extents that the log segments of a manifest have replaced.
func (p *Partition) rolledTo(rp *rolledPartition) {
	size := int64(0)
	for i := range rp.segments {
		size += rp.segments[i].Size
	}
	for _, ref := range rp.m.Pages {
		size += ref.Bytes
	}
	p.mu.Lock()
	p.rolled, p.manifestV, p.rolledSize = int64(rp.m.RolledThrough), rp.m.Version, size
	p.start = max(p.start, min(int64(rp.m.LogStart), p.hw))
	dead := p.dropExtents(p.rolled)
	p.mu.Unlock()
	for i := range dead {
		releaseTail(dead[i].tail)
	}
}

// dropExtents takes the extents that end below an offset off the list. Callers hold p.mu.
func (p *Partition) dropExtents(below int64) []extent {
	n := 0
	for n < len(p.extents) && p.extents[n].last < below {
		p.bytes -= p.extents[n].size
		n++
	}
	dead := p.extents[:n:n]
	p.extents = slices.Clone(p.extents[n:])
	return dead
}

// alive counts, for each object, the bytes and sections that extents refer to.
func (l *Log) alive() map[*object]*rollup.ObjectStat {
	stats := make(map[*object]*rollup.ObjectStat)
	for _, p := range l.Partitions() {
		p.mu.Lock()
		for i := range p.extents {
			e := &p.extents[i]
			s := stats[e.obj]
			if s == nil {
				s = &rollup.ObjectStat{}
				stats[e.obj] = s
			}
			s.Alive += e.size
			s.Sections++
		}
		p.mu.Unlock()
	}
	return stats
}

// mergeObjects rewrites small objects and drops dead ones, epoch by epoch.
func (m *maintainer) mergeObjects(ctx context.Context, w *rollup.Worker) error {
	l := m.l
	alive := l.alive()
	l.objMu.Lock()
	epochs := slices.Clone(l.epochs)
	l.objMu.Unlock()
	var errs []error
	for i, e := range epochs {
		errs = append(errs, m.mergeEpoch(ctx, w, e, alive))
		if i < len(epochs)-1 {
			errs = append(errs, m.retire(ctx, e))
		}
	}
	return errors.Join(errs...)
}

func (m *maintainer) mergeEpoch(ctx context.Context, w *rollup.Worker, e *epochLog, alive map[*object]*rollup.ObjectStat) error {
	l := m.l
	l.objMu.Lock()
	var listed []*object
	if e.m != nil {
		for _, o := range e.objects {
			if o.m.To < e.m.MergedThrough {
				listed = append(listed, o)
			}
		}
	}
	l.objMu.Unlock()
	stats := make([]rollup.ObjectStat, len(listed))
	for i, o := range listed {
		if s := alive[o]; s != nil {
			stats[i] = *s
		}
		stats[i].Object, stats[i].WrittenMs = o.entry(), o.written
	}
	cfg := l.cfg.Maintenance.Merges
	cfg.Closed = e != l.own()
	var errs []error
	for _, run := range rollup.PlanMerges(stats, cfg, l.cfg.Now().UnixMilli()) {
		err := m.mergeRun(ctx, w, e, listed[run.From:run.To], run)
		if err == nil {
			continue
		}
		errs = append(errs, fmt.Errorf("merge of epoch %d: %w", e.epoch, err))
		if damaged := (*rollup.InputError)(nil); !errors.As(err, &damaged) {
			break // the bucket is away: the next round tries again
		}
	}
	return errors.Join(errs...)
}

// mergeRun carries out one run: the output is written, listed in the place of its inputs, and readers are moved to it.
func (m *maintainer) mergeRun(ctx context.Context, w *rollup.Worker, e *epochLog, objects []*object, run rollup.Run) error {
	l := m.l
	in := rollup.MergeInput{Epoch: e.epoch, Objects: make([]manifest.Object, len(objects))}
	for i, o := range objects {
		in.Objects[i] = o.entry()
	}
	if run.Drop {
		return m.replace(ctx, e, objects, in.Objects, nil)
	}
	refs := l.references(objects)
	in.Alive = func(p logid.Partition, base, _ logid.Offset) bool { return refs[extentRef{p, int64(base)}] }
	var err error
	if in.ULID, err = w.NewULID(); err != nil {
		return err
	}
	job, err := w.Declare(ctx, rollup.WorkMerge, []string{in.Output(l.cfg.Cluster)})
	if err != nil {
		return err
	}
	out, err := w.Merge(ctx, in)
	if err != nil {
		return err
	}
	var merged *object
	if out.Footer != nil {
		merged = l.newObjectOf(e.epoch, out.Object)
		merged.indexed, merged.written = true, l.cfg.Now().UnixMilli()
		l.cfg.Metrics.rolled("merged", out.Object.Size)
	}
	if err := m.replace(ctx, e, objects, in.Objects, merged); err != nil {
		return err
	}
	if merged != nil {
		l.moveReaders(objects, merged, out.Footer)
	}
	return w.Finish(ctx, job)
}

// extentRef names an extent by its partition and first offset.
type extentRef struct {
	p    logid.Partition
	base int64
}

// references lists the extents that refer to any of the objects.
func (l *Log) references(objects []*object) map[extentRef]bool {
	refs := make(map[extentRef]bool)
	in := make(map[*object]bool, len(objects))
	for _, o := range objects {
		in[o] = true
	}
	for _, p := range l.Partitions() {
		p.mu.Lock()
		for i := range p.extents {
			if in[p.extents[i].obj] {
				refs[extentRef{p.id, p.extents[i].base}] = true
			}
		}
		p.mu.Unlock()
	}
	return refs
}

// replace lists merged (nil: nothing) in the place of objects, and leaves these to the collector.
func (m *maintainer) replace(ctx context.Context, e *epochLog, objects []*object, old []manifest.Object, merged *object) error {
	l := m.l
	var with []manifest.Object
	if merged != nil {
		with = append(with, merged.entry())
	}
	if err := l.updateManifest(ctx, e, func(n *manifest.WAL) error { return n.Replace(old, with...) }); err != nil {
		return err
	}
	l.objMu.Lock()
	at := slices.Index(e.objects, objects[0])
	next := slices.Clone(e.objects[:at])
	if merged != nil {
		next = append(next, merged)
	}
	e.objects = append(next, e.objects[at+len(objects):]...)
	l.objMu.Unlock()
	for _, o := range objects {
		m.garbage.add(o.key)
	}
	return nil
}

// moveReaders makes the extents of the objects refer to the merged segment that replaced them. What is in memory stays.
func (l *Log) moveReaders(objects []*object, merged *object, f *wal.Footer) {
	byPart := make(map[logid.Partition][]extent)
	for i := range f.Sections {
		s := &f.Sections[i]
		id := logid.Partition{Topic: s.Topic, Index: s.Partition}
		byPart[id] = append(byPart[id], sectionExtent(merged, s))
	}
	gone := make(map[*object]bool, len(objects))
	for _, o := range objects {
		gone[o] = true
	}
	for id, sections := range byPart {
		if p := l.Partition(id); p != nil {
			p.moveReaders(gone, sections)
		}
	}
}

func (p *Partition) moveReaders(gone map[*object]bool, sections []extent) {
	p.mu.Lock()
	var dropped []tailBatch
	next := make([]extent, 0, len(p.extents))
	put := 0
	for i := range p.extents {
		e := &p.extents[i]
		if !gone[e.obj] {
			next = append(next, *e)
			continue
		}
		for put < len(sections) && sections[put].last < e.base {
			put++
		}
		if put >= len(sections) || sections[put].base > e.last {
			dropped = append(dropped, e.tail...) // its records are not in the merged segment: they were not alive
			continue
		}
		s := &sections[put]
		if n := len(next); n > 0 && next[n-1].obj == s.obj && next[n-1].pos == s.pos {
			// A further extent of the same section: its batches stay in memory only if all before them do.
			if next[n-1].tail != nil && e.tail != nil {
				next[n-1].tail = append(next[n-1].tail, e.tail...)
			} else {
				dropped = append(append(dropped, next[n-1].tail...), e.tail...)
				next[n-1].tail = nil
			}
			continue
		}
		first := *s
		first.tail = slices.Clone(e.tail)
		next = append(next, first)
	}
	p.extents = next
	p.mu.Unlock()
	releaseTail(dropped)
}

// retire tells the cluster that an older epoch's WAL holds nothing any more, and forgets it.
func (m *maintainer) retire(ctx context.Context, e *epochLog) error {
	l := m.l
	l.objMu.Lock()
	empty := e.m != nil && e.m.Fence != nil && len(e.objects) == 0
	l.objMu.Unlock()
	own := l.own()
	if !empty || own.m == nil || own.m.Checkpoint == nil || l.cfg.Maintenance.Retire == nil {
		return nil // what it holds, or the checkpoint in it, may still be needed
	}
	if err := l.cfg.Maintenance.Retire(ctx, e.epoch); err != nil {
		return fmt.Errorf("retire epoch %d: %w", e.epoch, err)
	}
	l.objMu.Lock()
	l.epochs = slices.DeleteFunc(l.epochs, func(x *epochLog) bool { return x == e })
	l.objMu.Unlock()
	return nil
}
