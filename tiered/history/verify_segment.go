package history

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/tierlog/tierlog/objstore"
	"github.com/tierlog/tierlog/record"
	"github.com/tierlog/tierlog/tiered/logid"
	"github.com/tierlog/tierlog/tiered/manifest"
	"github.com/tierlog/tierlog/tiered/segment"
)

// partitions checks the manifests and log segments of all partitions, and where their offsets are.
func (v *verifier) partitions(ctx context.Context) error {
	l := &loader{store: v.cfg.Store, cluster: v.census.cluster, fault: v.fault}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(verifiers)
	for _, t := range v.meta.State().Topics() {
		v.census.live[t.ID] = true
		for i := range t.Partitions {
			p := part{t.Name, logid.Partition{Topic: t.ID, Index: int32(i)}}
			m, segments, err := v.manifest(ctx, l, p)
			if err != nil {
				return errors.Join(err, g.Wait())
			}
			v.offsets(p, m, segments)
			for _, s := range segments {
				g.Go(func() error { return v.logSegment(gctx, l, m, s) })
			}
		}
	}
	return g.Wait()
}

// manifest reads a partition's manifest with its pages.
func (v *verifier) manifest(ctx context.Context, l *loader, p part) (*manifest.Partition, []manifest.Segment, error) {
	for range reloads {
		m, err := l.partitionManifest(ctx, p)
		if err != nil {
			return nil, nil, err
		}
		segments, err := l.segments(ctx, m)
		if errors.Is(err, errMoved) {
			continue
		}
		if err != nil {
			return nil, nil, err
		}
		if m != nil {
			v.seen.Objects.Add(1 + int64(len(m.Pages)))
			v.census.addPlan(m, segments)
			return m, segments, nil
		}
		key := (&manifest.Partition{Topic: p.name, TopicID: p.id.Topic, Index: p.id.Index}).Key(l.cluster)
		if c := v.view.checkpoint; c != nil {
			if s := c.Find(p.id); s != nil && s.ManifestVersion > 0 {
				v.problem(key, "it is missing or cannot be used, and the checkpoint knows its version %d: %d offsets are out of reach", s.ManifestVersion, s.RolledThrough-s.LogStart)
			}
		}
		return nil, nil, nil
	}
	return nil, nil, fmt.Errorf("the manifest of %v changes faster than it can be read", p)
}

// logSegment checks the files of a log segment.
func (v *verifier) logSegment(ctx context.Context, l *loader, m *manifest.Partition, s manifest.Segment) error {
	named := func(ctx context.Context) (bool, error) {
		now, err := l.partitionManifest(ctx, part{m.Topic, m.ID()})
		if err != nil || now == nil {
			return false, err
		}
		all, err := l.segments(ctx, now)
		return slices.ContainsFunc(all, func(o manifest.Segment) bool { return o.ULID == s.ULID }), err
	}
	for _, f := range segmentFiles {
		size := s.FileSize(f)
		if size == 0 {
			continue
		}
		v.seen.Objects.Add(1)
		if err := v.exists(ctx, m.SegmentKey(l.cluster, s, f), size, named); err != nil {
			return err
		}
	}
	if v.opts.Fast {
		return nil
	}
	c, err := v.sideFiles(ctx, l, m, &s)
	if err != nil {
		return err
	}
	key := m.SegmentKey(l.cluster, s, manifest.FileLog)
	err = c.log(ctx, key)
	if errors.Is(err, objstore.ErrNotFound) {
		return nil // reported where it was looked for, if it is still named
	}
	return v.outcome(key, bare(err, key))
}

// segmentCheck follows the batches of a .log file through the files beside it.
type segmentCheck struct {
	v    *verifier
	s    *manifest.Segment
	keys map[manifest.FileKind]string

	offsets *segment.OffsetIndex
	times   *segment.TimeIndex
	aborted segment.TxnIndex
	// at are the next entries of the three.
	at struct{ offset, time, txn int }

	next   int64 // offset
	maxTs  int64
	epoch  int32
	epochs []manifest.EpochStart // still to come
}

// sideFiles reads and parses the small files of a log segment. One that is damaged is reported and left out.
func (v *verifier) sideFiles(ctx context.Context, l *loader, m *manifest.Partition, s *manifest.Segment) (*segmentCheck, error) {
	c := &segmentCheck{v: v, s: s, keys: make(map[manifest.FileKind]string), next: int64(s.Base), maxTs: -1, epoch: -1, epochs: s.Epochs}
	for _, f := range segmentFiles[1:] {
		c.keys[f] = m.SegmentKey(l.cluster, *s, f)
		if s.FileSize(f) == 0 {
			continue
		}
		b, _, err := objstore.ReadAll(ctx, v.cfg.Store, c.keys[f], s.FileSize(f))
		if errors.Is(err, objstore.ErrNotFound) || errors.Is(err, objstore.ErrInvalid) {
			continue // reported as missing or of another size
		}
		if err != nil {
			return nil, err
		}
		v.seen.Bytes.Add(int64(len(b)))
		if err := c.parse(f, b); err != nil {
			v.problem(c.keys[f], "%v", err)
		}
	}
	return c, nil
}

func (c *segmentCheck) parse(f manifest.FileKind, b []byte) (err error) {
	base, last := int64(c.s.Base), int64(c.s.Last)
	switch f {
	case manifest.FileIndex:
		c.offsets, err = segment.ParseOffsetIndex(b, base, c.s.Size)
	case manifest.FileTimeIndex:
		c.times, err = segment.ParseTimeIndex(b, base, last)
	case manifest.FileTxnIndex:
		c.aborted, err = segment.ParseTxnIndex(b, base, last)
	default:
		var entries []segment.ProducerEntry
		if entries, err = segment.ParseSnapshot(b); err != nil {
			return err
		}
		for _, e := range entries {
			if e.LastOffset > last || e.TxnFirst > last {
				return fmt.Errorf("producer %d is at offset %d, the segment ends at %d: %w", e.ID, max(e.LastOffset, e.TxnFirst), last, segment.ErrCorrupt)
			}
		}
	}
	return err
}

// log reads the .log file.
func (c *segmentCheck) log(ctx context.Context, key string) error {
	s := newStream(ctx, &c.v.cfg, []span{{key: key, size: c.s.Size}})
	defer s.close()
	for {
		b, pos, err := s.batch(0)
		if errors.Is(err, io.EOF) {
			return c.end()
		}
		if err != nil {
			return err
		}
		if err := b.VerifyCRC(); err != nil {
			return fmt.Errorf("%w: byte %d: %w", ErrCorrupt, pos, err)
		}
		if b.BaseOffset() < c.next {
			return fmt.Errorf("%w: byte %d: batch at offset %d, at least %d is expected", ErrCorrupt, pos, b.BaseOffset(), c.next)
		}
		if err := c.batch(b, pos); err != nil {
			return err
		}
		c.next = b.LastOffset() + 1
		c.v.seen.count(b)
	}
}

// batch checks one batch against the manifest's line and the indexes.
func (c *segmentCheck) batch(b record.Batch, pos int64) error {
	if e := b.LeaderEpoch(); e < c.epoch {
		return fmt.Errorf("%w: byte %d: leader epoch %d after %d", ErrCorrupt, pos, e, c.epoch)
	}
	c.epoch = b.LeaderEpoch()
	if len(c.epochs) > 0 && b.LastOffset() >= int64(c.epochs[0].Start) {
		if want := c.epochs[0]; int64(want.Start) != b.BaseOffset() || int32(want.Epoch) != c.epoch {
			return fmt.Errorf("%w: byte %d: offset %d has leader epoch %d, the manifest says that epoch %d starts at offset %d",
				ErrCorrupt, pos, b.BaseOffset(), c.epoch, want.Epoch, want.Start)
		}
		c.epochs = c.epochs[1:]
	}
	c.maxTs = max(c.maxTs, b.MaxTimestamp())
	c.offsetEntries(b, pos)
	c.timeEntries(b)
	return c.abortedEntries(b)
}

func (c *segmentCheck) offsetEntries(b record.Batch, pos int64) {
	if c.offsets == nil {
		return
	}
	for ; c.at.offset < c.offsets.Len(); c.at.offset++ {
		e := c.offsets.At(c.at.offset)
		if e.Position > pos {
			return
		}
		if e.Position != pos || e.Offset != b.LastOffset() {
			c.v.problem(c.keys[manifest.FileIndex], "entry %d says offset %d at byte %d of the log; the batch there ends with offset %d and begins at byte %d",
				c.at.offset, e.Offset, e.Position, b.LastOffset(), pos)
			c.offsets = nil
			return
		}
	}
}

func (c *segmentCheck) timeEntries(b record.Batch) {
	if c.times == nil {
		return
	}
	for ; c.at.time < c.times.Len(); c.at.time++ {
		e := c.times.At(c.at.time)
		if e.Offset > b.LastOffset() {
			return
		}
		if e.Offset != b.LastOffset() || e.Timestamp != c.maxTs {
			c.v.problem(c.keys[manifest.FileTimeIndex], "entry %d says time %d at offset %d; the largest time up to offset %d is %d",
				c.at.time, e.Timestamp, e.Offset, b.LastOffset(), c.maxTs)
			c.times = nil
			return
		}
	}
}

func (c *segmentCheck) abortedEntries(b record.Batch) error {
	for ; c.at.txn < len(c.aborted) && c.aborted[c.at.txn].Last <= b.LastOffset(); c.at.txn++ {
		a := c.aborted[c.at.txn]
		meta, err := segment.BatchOf(b)
		if err != nil {
			return fmt.Errorf("%w: %w", ErrCorrupt, err)
		}
		if a.Last != meta.LastOffset() || meta.Marker != segment.AbortMarker || meta.ProducerID != a.ProducerID {
			c.v.problem(c.keys[manifest.FileTxnIndex], "entry %d says that producer %d aborted at offset %d; there is no such marker", c.at.txn, a.ProducerID, a.Last)
		}
	}
	return nil
}

// end checks what only the end of the file shows.
func (c *segmentCheck) end() error {
	switch {
	case c.next-1 != int64(c.s.Last):
		return fmt.Errorf("%w: the last offset is %d, the manifest says %d", ErrCorrupt, c.next-1, c.s.Last)
	case c.maxTs != c.s.MaxTimestamp:
		return fmt.Errorf("%w: the largest timestamp is %d, the manifest says %d", ErrCorrupt, c.maxTs, c.s.MaxTimestamp)
	case len(c.epochs) > 0:
		return fmt.Errorf("%w: no batch of leader epoch %d, which the manifest says starts at offset %d", ErrCorrupt, c.epochs[0].Epoch, c.epochs[0].Start)
	}
	if c.offsets != nil && c.at.offset < c.offsets.Len() {
		e := c.offsets.At(c.at.offset)
		c.v.problem(c.keys[manifest.FileIndex], "entry %d says offset %d at byte %d of the log; no batch begins there", c.at.offset, e.Offset, e.Position)
	}
	if c.times != nil {
		if e, ok := c.times.Last(); ok && e.Timestamp != c.maxTs {
			c.v.problem(c.keys[manifest.FileTimeIndex], "its last entry says time %d, the largest one is %d", e.Timestamp, c.maxTs)
		}
	}
	return nil
}
