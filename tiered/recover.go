package tiered

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"math"
	mrand "math/rand/v2"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/tierlog/tierlog/objstore"
	"github.com/tierlog/tierlog/tiered/logid"
	"github.com/tierlog/tierlog/tiered/manifest"
	"github.com/tierlog/tierlog/tiered/wal"
)

// recoveredPartition is a partition's state as found in the bucket, until it is opened.
type recoveredPartition struct {
	start, next, rolled int64
	manifestV           uint64
	epochs              []EpochStart
	producers           map[int64]*producer
	extents             []extent
	bytes               int64
}

// restore takes over recovered state. Called before the partition is shared.
func (p *Partition) restore(r *recoveredPartition) {
	p.start, p.next, p.hw, p.rolled = r.start, r.next, r.next, r.rolled
	p.manifestV, p.epochs, p.producers, p.extents, p.bytes = r.manifestV, r.epochs, r.producers, r.extents, r.bytes
}

// recovery rebuilds a broker's state from the WALs of earlier epochs: the newest checkpoint, then the footers after it.
type recovery struct {
	l      *Log
	parts  map[logid.Partition]*recoveredPartition
	base   int // index in l.epochs of the epoch whose checkpoint is the newest
	from   logid.Slot
	nowMs  int64
	counts struct{ footers, replayed, setAside int }
}

// readAhead is how many footers are read at a time.
const readAhead = 16

// recoverEpochs reads what earlier epochs left, finishes and fences those that are not fenced, and leaves the state in
// l.recovered. previous are the live epochs before this broker's own, oldest first.
//
// The process of the last epoch may still be at work: until its manifest is swapped here, its maintenance may swap it,
// or take away what an older manifest names. Then what was read is out of date, and is read again.
func (l *Log) recoverEpochs(ctx context.Context, previous []logid.Epoch) error {
	ctx = objstore.WithPurpose(ctx, objstore.PurposeRecovery)
	var r *recovery
	for try := 1; ; try++ {
		var err error
		if r, err = l.readEpochs(ctx, previous); err == nil {
			break
		}
		if try == recoveryTries || !errors.Is(err, ErrFenced) && !errors.Is(err, objstore.ErrNotFound) {
			return err
		}
		l.cfg.Logger.InfoContext(ctx, "another process changed what is being recovered; reading it again", slog.Any("err", err))
	}
	l.epochs = append(l.epochs, &epochLog{epoch: l.cfg.Epoch})
	if err := r.replayLocal(ctx); err != nil {
		return fmt.Errorf("local files: %w", err)
	}
	l.recovered = r.parts
	l.cfg.Logger.InfoContext(ctx, "recovered", slog.Int("epochs", len(previous)), slog.Int("partitions", len(r.parts)),
		slog.Int("footers", r.counts.footers), slog.Int("replayed_batches", r.counts.replayed), slog.Int("set_aside_batches", r.counts.setAside))
	return nil
}

// recoveryTries is how often recovery starts over; each time the other process must have finished a round.
const recoveryTries = 10

// readEpochs reads and fences the earlier epochs once.
func (l *Log) readEpochs(ctx context.Context, previous []logid.Epoch) (*recovery, error) {
	l.epochs = make([]*epochLog, len(previous), len(previous)+1)
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(readAhead)
	for i, e := range previous {
		g.Go(func() error {
			w, err := l.loadEpoch(gctx, e)
			l.epochs[i] = w
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	r := &recovery{l: l, parts: make(map[logid.Partition]*recoveredPartition), base: -1, nowMs: l.cfg.Now().UnixMilli()}
	if err := r.loadCheckpoint(ctx); err != nil {
		return nil, err
	}
	for i, w := range l.epochs {
		if i < r.base {
			continue
		}
		if err := r.applyEpoch(ctx, i, w); err != nil {
			return nil, fmt.Errorf("recover epoch %d: %w", w.epoch, err)
		}
	}
	return r, nil
}

// loadEpoch reads an epoch's manifest, if it ever wrote one.
func (l *Log) loadEpoch(ctx context.Context, e logid.Epoch) (*epochLog, error) {
	w := &epochLog{epoch: e}
	key := (&manifest.WAL{Epoch: e}).Key(l.cfg.Cluster)
	body, info, err := objstore.ReadAll(ctx, l.cfg.Store, key, manifest.MaxBody)
	if errors.Is(err, objstore.ErrNotFound) {
		return w, nil
	}
	if err != nil {
		return nil, err
	}
	if w.m, err = manifest.DecodeWAL(body, e); err != nil {
		return nil, fmt.Errorf("%s: %w", key, err)
	}
	w.version, w.next = info.Version, w.m.MergedThrough
	for _, o := range w.m.Objects {
		w.objects = append(w.objects, l.newObjectOf(e, o))
	}
	return w, nil
}

// loadCheckpoint reads the newest checkpoint of all epochs.
func (r *recovery) loadCheckpoint(ctx context.Context) error {
	for i, w := range slices.Backward(r.l.epochs) {
		if w.m == nil || w.m.Checkpoint == nil {
			continue
		}
		ref := *w.m.Checkpoint
		key := ref.Key(r.l.cfg.Cluster, w.epoch)
		body, _, err := objstore.ReadAll(ctx, r.l.cfg.Store, key, math.MaxInt32)
		if err != nil {
			return fmt.Errorf("checkpoint: %w", err)
		}
		c, err := manifest.DecodeCheckpoint(body, r.l.cfg.Cluster, w.epoch, ref)
		if err != nil {
			return fmt.Errorf("checkpoint %s: %w", key, err)
		}
		r.base, r.from = i, c.Next
		for j := range c.Partitions {
			s := &c.Partitions[j]
			r.parts[s.Partition] = fromCheckpoint(s)
		}
		return nil
	}
	return nil
}

func fromCheckpoint(s *manifest.PartitionState) *recoveredPartition {
	p := &recoveredPartition{
		start: int64(s.LogStart), next: int64(s.NextOffset), rolled: int64(s.RolledThrough), manifestV: s.ManifestVersion,
	}
	for _, e := range s.Epochs {
		p.epochs = append(p.epochs, EpochStart{Epoch: int32(e.Epoch), Start: int64(e.Start)})
	}
	if len(s.Producers) > 0 {
		p.producers = make(map[int64]*producer, len(s.Producers))
	}
	for _, ps := range s.Producers {
		st := &producer{epoch: ps.Epoch, seenMs: ps.LastTimestamp}
		for _, b := range ps.Batches {
			st.batches = append(st.batches, sequenced{
				baseSeq: b.BaseSeq, lastSeq: b.LastSeq, base: int64(b.BaseOffset), last: int64(b.LastOffset), timestamp: b.Timestamp,
			})
		}
		p.producers[ps.ID] = st
	}
	return p
}

// applyEpoch replays what the checkpoint does not cover of one epoch, and ends the epoch with a fence if nobody has.
func (r *recovery) applyEpoch(ctx context.Context, i int, w *epochLog) error {
	from := logid.Slot(0)
	if i == r.base {
		from = r.from
	}
	listed := slices.IndexFunc(w.objects, func(o *object) bool { return o.m.From >= from })
	if listed >= 0 {
		if err := r.applyListed(ctx, w.objects[listed:]); err != nil {
			return err
		}
	}
	if w.m != nil && w.m.Fence != nil && w.m.MergedThrough == *w.m.Fence {
		return nil
	}
	next, fenced, err := r.walk(ctx, w, max(from, w.next))
	if err != nil {
		return err
	}
	if !fenced {
		if next, err = r.end(ctx, w, next); err != nil {
			return err
		}
	}
	return r.l.sealEpoch(ctx, w, next)
}

// applyListed replays the footers of objects that the manifest lists.
func (r *recovery) applyListed(ctx context.Context, objects []*object) error {
	for len(objects) > 0 {
		group := objects[:min(readAhead, len(objects))]
		objects = objects[len(group):]
		footers := make([]*wal.Footer, len(group))
		g, gctx := errgroup.WithContext(ctx)
		for i, o := range group {
			g.Go(func() (err error) {
				footers[i], _, err = r.l.readFooter(gctx, o.key, o.m.FooterSize)
				return err
			})
		}
		if err := g.Wait(); err != nil {
			return err
		}
		for i, o := range group {
			r.apply(o, footers[i])
		}
	}
	return nil
}

// walk replays the WAL objects from a slot on, several reads at a time, up to the first missing slot or the fence.
func (r *recovery) walk(ctx context.Context, w *epochLog, from logid.Slot) (end logid.Slot, fenced bool, err error) {
	for window := 1; ; window = readAhead {
		footers, errs := make([]*wal.Footer, window), make([]error, window)
		first := from
		var g sync.WaitGroup
		for i := range window {
			g.Go(func() { footers[i], _, errs[i] = r.l.readFooter(ctx, r.slotKey(w.epoch, first+logid.Slot(i)), 0) })
		}
		g.Wait()
		for i, f := range footers {
			// What was read ahead beyond the end of the log does not count, whatever it is.
			switch {
			case errors.Is(errs[i], objstore.ErrNotFound):
				return from, false, nil
			case errs[i] != nil:
				return 0, false, errs[i]
			}
			if f.Header.Epoch != w.epoch || f.Header.Slot != from {
				return 0, false, fmt.Errorf("%w: object at slot %d of epoch %d says slot %d of epoch %d", wal.ErrCorrupt, from, w.epoch, f.Header.Slot, f.Header.Epoch)
			}
			if f.Header.Kind == wal.Fence {
				return from, true, nil
			}
			r.applySlot(w, f)
			from++
		}
	}
}

func (r *recovery) slotKey(e logid.Epoch, s logid.Slot) string {
	return manifest.Key{Kind: manifest.KeyWAL, Cluster: r.l.cfg.Cluster, Epoch: e, Slot: s}.String()
}

// applySlot replays a WAL object that no manifest lists yet.
func (r *recovery) applySlot(w *epochLog, f *wal.Footer) {
	o := r.l.newObjectOf(w.epoch, manifest.Object{
		Kind: manifest.ObjectWAL, From: f.Header.Slot, To: f.Header.Slot, Size: f.Size, FooterSize: f.FooterSize,
		MinTimestamp: -1, MaxTimestamp: -1,
	})
	for i := range f.Sections {
		for _, e := range f.Sections[i].Entries {
			o.records += int64(e.LastOffsetDelta) + 1
		}
		o.noteTime(f.Sections[i].MaxTimestamp())
	}
	w.objects = append(w.objects, o)
	w.next = f.Header.Slot + 1
	r.apply(o, f)
}

// apply replays one object's footer.
func (r *recovery) apply(o *object, f *wal.Footer) {
	r.counts.footers++
	o.indexed = true
	for i := range f.Sections {
		s := &f.Sections[i]
		id := logid.Partition{Topic: s.Topic, Index: s.Partition}
		p := r.parts[id]
		if p == nil {
			p = &recoveredPartition{}
			r.parts[id] = p
		}
		if s.LastOffset() < p.next { // replayed already: a slot that both a checkpoint and the walk cover
			continue
		}
		p.extents = append(p.extents, sectionExtent(o, s))
		p.bytes += s.Len
		p.next = s.LastOffset() + 1
		if n := len(p.epochs); n == 0 || p.epochs[n-1].Epoch < s.LeaderEpoch {
			p.epochs = append(p.epochs, EpochStart{Epoch: s.LeaderEpoch, Start: s.BaseOffset()})
		}
		for j := range s.Entries {
			p.recordProducer(&s.Entries[j], r.nowMs)
		}
	}
}

func sectionExtent(o *object, s *wal.Section) extent {
	return extent{base: s.BaseOffset(), last: s.LastOffset(), maxTs: s.MaxTimestamp(), obj: o, pos: s.Pos, size: s.Len, epoch: s.LeaderEpoch, crc: s.CRC}
}

func (p *recoveredPartition) recordProducer(e *wal.Entry, nowMs int64) {
	tmp := Partition{producers: p.producers, hw: p.next}
	tmp.recordProducer(e, nowMs)
	p.producers = tmp.producers
}

// end fences the epoch in its first missing slot. The fence is create-only: an object that got in first is replayed,
// and another's fence ends the epoch as well.
func (r *recovery) end(ctx context.Context, w *epochLog, next logid.Slot) (end logid.Slot, err error) {
	for ; ; next++ {
		err := r.l.putSlot(objstore.WithPurpose(ctx, objstore.PurposeWAL), r.slotKey(w.epoch, next), objstore.Bytes(r.fence(w.epoch, next)))
		if err == nil {
			return next, nil
		}
		if !errors.Is(err, ErrFenced) {
			return 0, err
		}
		f, _, err := r.l.readFooter(ctx, r.slotKey(w.epoch, next), 0)
		if err != nil {
			return 0, err
		}
		if f.Header.Kind == wal.Fence {
			return next, nil
		}
		r.applySlot(w, f)
	}
}

func (r *recovery) fence(e logid.Epoch, s logid.Slot) []byte {
	return wal.EncodeFence(wal.Header{Cluster: r.l.cfg.Cluster, Epoch: e, Slot: s, Nonce: mrand.Uint64()}, r.l.cfg.Epoch)
}

// sealEpoch writes the fenced epoch's manifest: every object that is not listed yet is adopted where it is.
func (l *Log) sealEpoch(ctx context.Context, w *epochLog, fence logid.Slot) error {
	return l.updateManifest(ctx, w, func(m *manifest.WAL) error {
		if fence > m.MergedThrough {
			if err := m.Merge(m.MergedThrough, fence, unlisted(w, m.MergedThrough, fence)...); err != nil {
				return err
			}
		}
		return m.SetFence(fence)
	})
}

// unlisted returns the manifest lines of the objects in the slots from <= slot < through.
func unlisted(w *epochLog, from, through logid.Slot) []manifest.Object {
	var out []manifest.Object
	for _, o := range w.objects {
		if o.m.From >= from && o.m.To < through {
			out = append(out, o.entry())
		}
	}
	return out
}

// updateManifest swaps an epoch's manifest for an edited one. This broker is its only writer: losing the swap to
// another means that somebody took over, so it is ErrFenced.
func (l *Log) updateManifest(ctx context.Context, w *epochLog, edit func(*manifest.WAL) error) error {
	ctx = objstore.WithPurpose(ctx, objstore.PurposeManifest)
	nonce, err := manifest.NewNonce(rand.Reader)
	if err != nil {
		return err
	}
	l.objMu.Lock()
	old, version := w.m, w.version
	l.objMu.Unlock()
	next := &manifest.WAL{Nonce: nonce, Version: 1, Epoch: w.epoch}
	if old != nil {
		next = old.Next(nonce)
	}
	if err := edit(next); err != nil {
		return fmt.Errorf("manifest of epoch %d: %w", w.epoch, err)
	}
	body, err := next.Encode()
	if err != nil {
		return fmt.Errorf("manifest of epoch %d: %w", w.epoch, err)
	}
	key := next.Key(l.cfg.Cluster)
	out, v, err := l.write(ctx, key, version, objstore.Bytes(body))
	switch {
	case err != nil:
		return err
	case out == objstore.Other:
		return fmt.Errorf("%w: %s was written by another", ErrFenced, key)
	}
	l.objMu.Lock()
	w.m, w.version = next, v
	l.objMu.Unlock()
	return nil
}

// write creates key (version empty) or swaps it, trying again until the outcome is certain.
func (l *Log) write(ctx context.Context, key string, version objstore.Version, body objstore.Payload) (objstore.Outcome, objstore.Version, error) {
	persist := objstore.Persist{Log: l.cfg.Logger}
	if version == "" {
		return objstore.PutUntil(ctx, l.cfg.Store, key, body, persist)
	}
	return objstore.ReplaceUntil(ctx, l.cfg.Store, key, objstore.Replacement{Old: version, Body: body}, persist)
}
