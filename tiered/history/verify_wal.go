package history

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/tierlog/tierlog/objstore"
	"github.com/tierlog/tierlog/record"
	"github.com/tierlog/tierlog/tiered/logid"
	"github.com/tierlog/tierlog/tiered/manifest"
	"github.com/tierlog/tierlog/tiered/wal"
)

// inFlight is how many objects may follow a missing slot: those that a broker was writing at the time of a crash.
const inFlight = 16

// wals checks the manifests, fences and objects of all epochs.
func (v *verifier) wals(ctx context.Context) error {
	l := &loader{store: v.cfg.Store, cluster: v.census.cluster, fault: v.fault}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(verifiers)
	for _, e := range v.view.epochs {
		if err := v.epoch(ctx, e); err != nil {
			return errors.Join(err, g.Wait())
		}
		for i := range e.objects {
			o := &e.objects[i]
			g.Go(func() error { return v.object(gctx, l, e, o) })
		}
	}
	return g.Wait()
}

// epoch checks what a WAL consists of.
func (v *verifier) epoch(ctx context.Context, e *epoch) error {
	c := v.census.cluster
	manifestKey := (&manifest.WAL{Epoch: e.Epoch}).Key(c)
	beyond := v.census.beyond[e.Epoch]
	switch {
	case e.manifest != nil:
		v.seen.Objects.Add(1)
		if e.manifest.Checkpoint != nil {
			if err := v.checkpoint(ctx, e, *e.manifest.Checkpoint); err != nil {
				return err
			}
		}
	case v.census.merged[e.Epoch] > 0 || v.census.checkpoints[e.Epoch] > 1 || v.sealed(e):
		v.problem(manifestKey, "it is missing or cannot be used, and it named %d checkpoints and %d merged segments",
			v.census.checkpoints[e.Epoch], v.census.merged[e.Epoch])
	case v.census.checkpoints[e.Epoch] > 0:
		v.note(manifestKey, "it is missing, and there is a first checkpoint: the broker is about to write it, or ended before it could")
	}
	if e.fenced {
		return v.fence(ctx, e)
	}
	next := slotKey(c, e.Epoch, e.end)
	switch {
	case beyond > inFlight:
		v.problem(next, "it is missing, and %d objects follow it: their records cannot be reached", beyond)
	case beyond > 0 && !e.Live:
		v.note(next, "it is missing, and %d objects follow it that were in flight when the broker ended: they were never acknowledged", beyond)
	}
	if !e.Live {
		v.note(next, "the WAL has no fence yet: the next broker that starts writes it")
	}
	return nil
}

// sealed tells whether a broker that came later has recovered an epoch, and so has written its manifest.
func (v *verifier) sealed(e *epoch) bool {
	for _, later := range v.view.epochs {
		if later.Epoch > e.Epoch && later.manifest != nil && later.manifest.Checkpoint != nil {
			return true
		}
	}
	return false
}

// checkpoint checks the checkpoint that an epoch's manifest names, also where a later epoch has a newer one.
func (v *verifier) checkpoint(ctx context.Context, e *epoch, ref manifest.CheckpointRef) error {
	key := ref.Key(v.census.cluster, e.Epoch)
	body, _, err := objstore.ReadAll(ctx, v.cfg.Store, key, math.MaxInt32)
	if errors.Is(err, objstore.ErrNotFound) {
		l := &loader{store: v.cfg.Store, cluster: v.census.cluster, fault: v.fault}
		err = l.moved(ctx, e, key, func(m *manifest.WAL) bool { return m.Checkpoint != nil && *m.Checkpoint == ref })
		if errors.Is(err, errMoved) {
			return nil
		}
		return err
	}
	if err == nil {
		_, err = manifest.DecodeCheckpoint(body, v.census.cluster, e.Epoch, ref)
	}
	v.seen.Objects.Add(1)
	return v.outcome(key, err)
}

// fence checks that the end of a WAL is where it must be.
func (v *verifier) fence(ctx context.Context, e *epoch) error {
	key := slotKey(v.census.cluster, e.Epoch, e.end)
	f, err := readFooter(ctx, v.cfg.Store, key, fenceSize)
	if errors.Is(err, objstore.ErrNotFound) {
		v.problem(key, "the fence is missing: it must never be deleted")
		return nil
	}
	if err == nil && (f.Header.Kind != wal.Fence || f.Header.Epoch != e.Epoch || f.Header.Slot != e.end || f.Header.Cluster != v.census.cluster) {
		err = fmt.Errorf("%w: it is a %v of slot %d of epoch %d, want the fence", wal.ErrCorrupt, f.Header.Kind, f.Header.Slot, f.Header.Epoch)
	}
	if err != nil {
		return v.outcome(key, err)
	}
	v.seen.Objects.Add(1)
	return nil
}

// object checks one object, with Fast only what its size says.
func (v *verifier) object(ctx context.Context, l *loader, e *epoch, o *object) error {
	named := func(ctx context.Context) (bool, error) {
		err := l.moved(ctx, e, o.key, func(m *manifest.WAL) bool {
			return slices.Contains(m.Objects, o.Object) || !o.listed && o.From >= m.MergedThrough
		})
		if errors.Is(err, errMoved) {
			return false, nil
		}
		return true, err
	}
	v.seen.Objects.Add(1)
	if o.listed {
		if err := v.exists(ctx, o.key, o.Size, named); err != nil {
			return err
		}
	}
	if v.opts.Fast {
		return nil
	}
	err := v.records(ctx, o)
	if errors.Is(err, objstore.ErrNotFound) {
		_, err = named(ctx) // which reports it if it is still named
		return err
	}
	return v.outcome(o.key, err)
}

// records reads a whole object and checks it against its footer.
func (v *verifier) records(ctx context.Context, o *object) error {
	f, err := readFooter(ctx, v.cfg.Store, o.key, o.FooterSize)
	if err != nil {
		return err
	}
	head := make([]byte, wal.HeaderSize)
	if err := readFull(ctx, v.cfg.Store, o.key, head, 0); err != nil {
		return err
	}
	h, err := wal.ParseHeader(head)
	if err != nil {
		return err
	}
	if h != f.Header {
		return fmt.Errorf("%w: its header and its footer are of different objects", wal.ErrCorrupt)
	}
	spans := make([]span, len(f.Sections))
	for i := range f.Sections {
		spans[i] = span{key: o.key, pos: f.Sections[i].Pos, size: f.Sections[i].Len}
	}
	s := newStream(ctx, &v.cfg, spans)
	defer s.close()
	n := int64(0)
	for i := range f.Sections {
		if err := v.section(s, i, &f.Sections[i]); err != nil {
			return fmt.Errorf("records of %s: %w", v.nameOf(&f.Sections[i]), bare(err, o.key))
		}
		for j := range f.Sections[i].Entries {
			n += f.Sections[i].Entries[j].LastOffset() - f.Sections[i].Entries[j].BaseOffset + 1
		}
	}
	v.seen.Bytes.Add(f.FooterSize + wal.HeaderSize)
	if o.listed && n != o.Records {
		v.note(o.key, "it has %d records, the manifest says %d", n, o.Records)
	}
	return nil
}

// nameOf returns TOPIC/PARTITION of a section, with the topic's id if it was deleted.
func (v *verifier) nameOf(s *wal.Section) string {
	if t, ok := v.meta.State().TopicByID(s.Topic); ok {
		return part{name: t.Name, id: logid.Partition{Topic: s.Topic, Index: s.Partition}}.String()
	}
	return fmt.Sprintf("partition %d of the deleted topic %v", s.Partition, s.Topic)
}

// bare takes the key off the front of an error whose object is named anyway.
func bare(err error, key string) error {
	if inner, ok := err.(interface{ Unwrap() error }); ok && inner.Unwrap() != nil {
		if err.Error() == key+": "+inner.Unwrap().Error() {
			return inner.Unwrap()
		}
	}
	return err
}

// section checks the batches of one section.
func (v *verifier) section(s *stream, i int, sec *wal.Section) error {
	sum := uint32(0)
	for j := 0; ; j++ {
		b, pos, err := s.batch(i)
		if errors.Is(err, io.EOF) {
			if j != len(sec.Entries) {
				return fmt.Errorf("%w: %d batches, the footer says %d", wal.ErrCorrupt, j, len(sec.Entries))
			}
			break
		}
		if err != nil {
			return err
		}
		if j >= len(sec.Entries) {
			return fmt.Errorf("%w: byte %d: more batches than the footer says, %d", wal.ErrCorrupt, pos, len(sec.Entries))
		}
		if got := wal.EntryOf(b); got != sec.Entries[j] || b.LeaderEpoch() != sec.LeaderEpoch {
			return fmt.Errorf("%w: byte %d: batch %d is not the one that the footer describes: offset %d with %d bytes, want offset %d with %d",
				wal.ErrCorrupt, pos, j, got.BaseOffset, got.Length, sec.Entries[j].BaseOffset, sec.Entries[j].Length)
		}
		if err := b.VerifyCRC(); err != nil {
			return fmt.Errorf("%w: byte %d: %w", wal.ErrCorrupt, pos, err)
		}
		sum = record.CombineCRC(sum, b.FullCRC(), int64(len(b)))
		v.seen.count(b)
	}
	if sum != sec.CRC {
		return fmt.Errorf("%w: CRC is %08x, the footer says %08x", wal.ErrCorrupt, sum, sec.CRC)
	}
	return nil
}

// offsets checks that the pieces of a partition follow each other. Offsets that are missing are a note: a log may have
// gaps. Two objects with the same record are a problem.
func (v *verifier) offsets(p part, m *manifest.Partition, segments []manifest.Segment) {
	start, floor, durable := int64(0), int64(0), int64(0)
	if v.view.checkpoint != nil {
		if s := v.view.checkpoint.Find(p.id); s != nil {
			start, durable = int64(s.LogStart), int64(s.NextOffset)
		}
	}
	if m != nil {
		start, floor = max(start, int64(m.LogStart)), int64(m.RolledThrough)
	}
	covered := start
	for i := range segments {
		s := &segments[i]
		if int64(s.Last) < start {
			continue
		}
		v.gap(p, covered, int64(s.Base))
		covered = int64(s.Last) + 1
	}
	v.gap(p, covered, floor)
	floor = max(floor, start)
	covered = max(covered, floor)
	for i := range v.view.sections[p.id] {
		s := &v.view.sections[p.id][i]
		if s.last < floor {
			continue
		}
		if base := max(s.base, floor); base < covered {
			v.problem(s.obj.key, "its records of %v from offset %d to %d overlap those of an earlier object, which end at %d", p, base, s.last, covered-1)
		}
		v.gap(p, covered, s.base)
		covered = max(covered, s.last+1)
	}
	if covered < durable {
		v.problem(p.String(), "the offsets from %d to %d are in no object, and the checkpoint says that they are durable", covered, durable-1)
	}
}

func (v *verifier) gap(p part, from, to int64) {
	if from < to {
		v.note(p.String(), "no records at the offsets from %d to %d", from, to-1)
	}
}
