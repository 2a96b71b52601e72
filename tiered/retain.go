package tiered

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"

	"github.com/tierlog/tierlog/tiered/logid"
	"github.com/tierlog/tierlog/tiered/manifest"
	"github.com/tierlog/tierlog/tiered/retention"
)

// retain moves log starts as package retention plans it: the new starts become durable in a checkpoint, then readers
// see them, then log segments below them leave the manifests, and last their bytes go. It also forgets idle producers.
func (m *maintainer) retain(ctx context.Context) error {
	l := m.l
	if err := l.waitIndexed(ctx); err != nil {
		return err
	}
	now := l.cfg.Now()
	var stats []retention.PartitionStat
	var errs []error
	byID := make(map[logid.Partition]*Partition)
	for _, p := range l.Partitions() {
		p.expireProducers(now.Add(-l.cfg.ProducerExpiry).UnixMilli())
		s := p.Settings()
		if s.RetentionMs < 0 && s.RetentionBytes < 0 {
			continue
		}
		st, err := p.retentionStat(ctx, s)
		if err != nil {
			// One partition that cannot be looked at now does not keep the others.
			errs = append(errs, fmt.Errorf("retention of %s-%d: %w", p.topic, p.id.Index, err))
			continue
		}
		stats = append(stats, st)
		byID[p.id] = p
	}
	advances := retention.Plan(stats, now.UnixMilli())
	if len(advances) == 0 {
		return errors.Join(append(errs, m.dropDeleted(ctx))...)
	}
	starts := make(map[*Partition]int64, len(advances))
	for _, a := range advances {
		p := byID[a.Partition]
		starts[p] = int64(a.LogStart)
		l.cfg.Logger.InfoContext(ctx, "log start moves", slog.String("topic", p.topic), slog.Int("partition", int(p.id.Index)),
			slog.Int64("log_start", int64(a.LogStart)), slog.Int64("bytes", a.Bytes), slog.String("why", string(a.Why)))
	}
	if err := m.checkpoint(ctx, starts); err != nil {
		return err
	}
	for p := range starts {
		if err := m.dropSegments(ctx, p); err != nil {
			errs = append(errs, fmt.Errorf("retention of %s-%d: %w", p.topic, p.id.Index, err))
		}
	}
	return errors.Join(append(errs, m.dropDeleted(ctx), m.garbage.collect(ctx))...)
}

// retentionStat describes a partition's pieces, oldest first.
func (p *Partition) retentionStat(ctx context.Context, s Settings) (retention.PartitionStat, error) {
	p.mu.Lock()
	st := retention.PartitionStat{
		Partition: p.id, LogStart: logid.Offset(p.start), HighWatermark: logid.Offset(p.hw),
		RetentionMs: s.RetentionMs, RetentionBytes: s.RetentionBytes, Bytes: p.bytes,
	}
	extents := make([]retention.Piece, len(p.extents))
	for i := range p.extents {
		e := &p.extents[i]
		extents[i] = retention.Piece{Base: logid.Offset(e.base), Last: logid.Offset(e.last), Bytes: e.size, MaxTs: e.maxTs, WrittenMs: e.obj.written}
	}
	rolled, start := p.rolled, p.start
	p.mu.Unlock()
	var segments []retention.Piece
	if rolled > start {
		segs, err := p.log.segments.all(ctx, p, start)
		if err != nil {
			return st, err
		}
		for i := range segs {
			st.Bytes += segs[i].Size
			segments = append(segments, retention.Piece{Base: segs[i].Base, Last: segs[i].Last, Bytes: segs[i].Size, MaxTs: segs[i].MaxTimestamp})
		}
	}
	st.Pieces = chain(segments, extents)
	return st, nil
}

func chain(lists ...[]retention.Piece) iter.Seq[retention.Piece] {
	return func(yield func(retention.Piece) bool) {
		for _, l := range lists {
			for _, p := range l {
				if !yield(p) {
					return
				}
			}
		}
	}
}

// dropSegments takes log segments below the log start out of a partition's manifest.
func (m *maintainer) dropSegments(ctx context.Context, p *Partition) error {
	rp, err := m.l.segments.get(ctx, p)
	if err != nil {
		return err
	}
	start := p.Offsets().LogStart
	if rp.m == nil || int64(rp.m.LogStart) >= start {
		return nil
	}
	dies := len(rp.m.Pages) > 0 && int64(rp.m.Pages[0].Last) < start || len(rp.m.Segments) > 0 && int64(rp.m.Segments[0].Last) < start
	if !dies {
		return nil
	}
	var segs []manifest.Segment
	var pages []manifest.PageRef
	next, err := m.editPartition(ctx, p, rp, func(n *manifest.Partition) error {
		if err := n.AdvanceLogStart(logid.Offset(start)); err != nil {
			return err
		}
		segs, pages = n.DropDead()
		return nil
	})
	if err != nil {
		return err
	}
	size := int64(0)
	for _, s := range segs {
		m.garbage.add(m.segmentKeys(rp.m, s)...)
		size += s.Size
	}
	for _, ref := range pages {
		size += m.dropPage(ctx, rp, ref)
	}
	p.mu.Lock()
	p.manifestV = next.m.Version
	p.rolledSize -= size
	p.mu.Unlock()
	return nil
}

// dropPage leaves a page and its segments to the collector. A page that cannot be read any more leaves its segments
// behind as orphans, which bucket verify names.
func (m *maintainer) dropPage(ctx context.Context, rp *rolledPartition, ref manifest.PageRef) (size int64) {
	segs, err := m.l.segments.list(ctx, rp, int64(ref.Base))
	if err != nil {
		m.l.cfg.Logger.WarnContext(ctx, "page of a partition manifest cannot be read; its log segments stay", slog.Any("err", err))
		return 0
	}
	for i := range segs {
		m.garbage.add(m.segmentKeys(rp.m, segs[i].Segment)...)
		size += segs[i].Size
	}
	m.garbage.add(rp.m.PageKey(m.l.cfg.Cluster, ref))
	return size
}

// segmentKeys are the keys of a log segment's files.
func (m *maintainer) segmentKeys(p *manifest.Partition, s manifest.Segment) []string {
	var keys []string
	for _, f := range []manifest.FileKind{manifest.FileLog, manifest.FileIndex, manifest.FileTimeIndex, manifest.FileTxnIndex, manifest.FileSnapshot} {
		if s.FileSize(f) > 0 {
			keys = append(keys, p.SegmentKey(m.l.cfg.Cluster, s, f))
		}
	}
	return keys
}

// dropped notes a deleted partition, whose log segments are to go.
func (m *maintainer) dropped(p *Partition) {
	m.mu.Lock()
	m.deleted = append(m.deleted, p)
	m.mu.Unlock()
	m.wake() // soon: only this process knows what is to go
}

// dropDeleted leaves the log segments of deleted partitions to the collector.
func (m *maintainer) dropDeleted(ctx context.Context) error {
	m.mu.Lock()
	parts := m.deleted
	m.deleted = nil
	m.mu.Unlock()
	for i, p := range parts {
		if err := m.dropPartition(ctx, p); err != nil {
			m.mu.Lock()
			m.deleted = append(m.deleted, parts[i:]...)
			m.mu.Unlock()
			return err
		}
	}
	return nil
}

func (m *maintainer) dropPartition(ctx context.Context, p *Partition) error {
	p.mu.Lock()
	extents := p.extents
	p.extents, p.bytes = nil, 0
	rolled := p.rolled > 0 || p.manifestV > 0
	p.mu.Unlock()
	for i := range extents {
		releaseTail(extents[i].tail)
	}
	if !rolled {
		return nil
	}
	rp, err := m.l.segments.get(ctx, p)
	if err != nil {
		return err
	}
	if rp.m == nil {
		return nil
	}
	for _, ref := range rp.m.Pages {
		m.dropPage(ctx, rp, ref)
	}
	for _, s := range rp.m.Segments {
		m.garbage.add(m.segmentKeys(rp.m, s)...)
	}
	m.garbage.add(rp.m.Key(m.l.cfg.Cluster))
	m.l.segments.reload(p)
	return nil
}
