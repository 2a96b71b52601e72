package rollup

import (
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/tierlog/tierlog/objstore"
	"github.com/tierlog/tierlog/record"
	"github.com/tierlog/tierlog/tiered/logid"
	"github.com/tierlog/tierlog/tiered/manifest"
	"github.com/tierlog/tierlog/tiered/wal"
)

// MergeInput is a run to be carried out.
type MergeInput struct {
	Epoch   logid.Epoch
	Objects []manifest.Object // consecutive, in the manifest's order
	ULID    manifest.ULID     // of the output
	// Alive tells whether any record of the partition between the two offsets, both included, may still be read
	// from this object. It is called for each section.
	Alive func(p logid.Partition, base, last logid.Offset) bool
}

// Output returns the key of the merged segment, to be declared.
func (in MergeInput) Output(c logid.ClusterID) string { return in.object().Key(c, in.Epoch) }

func (in MergeInput) object() manifest.Object {
	return manifest.Object{Kind: manifest.ObjectMerged, From: in.Objects[0].From, To: in.Objects[len(in.Objects)-1].To, ULID: in.ULID}
}

// Merged is a merged segment in the bucket. Footer says where each partition's records are in it.
type Merged struct {
	Object manifest.Object
	Footer *wal.Footer // nil: nothing was alive, nothing was written
}

// Merge writes one merged segment of what is alive in the input's objects. It reads each object's footer with one
// request and objects of up to smallObject bytes with no other; the sections of the others are read when they are sent.
// An InputError names the object that made it impossible.
func (w *Worker) Merge(ctx context.Context, in MergeInput) (Merged, error) {
	ctx = objstore.WithPurpose(ctx, objstore.PurposeRollup)
	inputs, err := w.openInputs(ctx, in)
	if err != nil {
		return Merged{}, fmt.Errorf("merge: %w", err)
	}
	sections, err := collect(in, inputs)
	if err != nil {
		return Merged{}, fmt.Errorf("merge: %w", err)
	}
	if len(sections) == 0 {
		return Merged{}, nil
	}
	m, err := w.writeMerged(ctx, in, sections)
	if err != nil {
		return Merged{}, fmt.Errorf("merge: %w", err)
	}
	return m, nil
}

const (
	// smallObject is the size in bytes up to which an object is read whole, as its footer is asked for anyway.
	smallObject = wal.TailHint
	// maxSmall bounds the bytes of small objects that are held for one merge.
	maxSmall = 4 << 20
)

// input is one object of a run.
type input struct {
	key    string
	footer *wal.Footer
	whole  []byte // all its bytes, if it is small
}

// section is one that is alive.
type section struct {
	*wal.Section
	id logid.Partition
	in *input
}

// openInputs reads the footers.
func (w *Worker) openInputs(ctx context.Context, in MergeInput) ([]input, error) {
	inputs := make([]input, len(in.Objects))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(w.cfg.Reads)
	held := int64(0)
	for i, o := range in.Objects {
		whole := o.Size <= smallObject && held+o.Size <= maxSmall
		if whole {
			held += o.Size
		}
		g.Go(func() error {
			var err error
			inputs[i], err = w.openInput(ctx, in.Epoch, o, whole)
			return err
		})
	}
	return inputs, g.Wait()
}

func (w *Worker) openInput(ctx context.Context, epoch logid.Epoch, o manifest.Object, whole bool) (input, error) {
	i := input{key: o.Key(w.cfg.Cluster, epoch)}
	want := o.FooterSize
	if whole {
		want = o.Size
	}
	tail, err := w.readTail(ctx, i.key, o.Size, want)
	if err != nil {
		return i, err
	}
	f, need, err := wal.ParseTail(tail, o.Size)
	if err == nil && f == nil && need > want && need <= o.Size {
		// The manifest's line is wrong about the footer's size; the object knows better.
		if tail, err = w.readTail(ctx, i.key, o.Size, need); err != nil {
			return i, err
		}
		f, _, err = wal.ParseTail(tail, o.Size)
	}
	if err != nil {
		return i, &InputError{Key: i.key, Err: err}
	}
	kind := wal.Data
	if o.Kind == manifest.ObjectMerged {
		kind = wal.Merged
	}
	if f == nil || f.Header.Cluster != w.cfg.Cluster || f.Header.Epoch != epoch || f.Header.Kind != kind ||
		f.Header.Slot != o.From || f.Header.Through != o.To {
		return i, &InputError{Key: i.key, Err: fmt.Errorf("%w: its footer is that of another object", wal.ErrCorrupt)}
	}
	if i.footer = f; whole {
		i.whole = tail
	}
	return i, nil
}

// readTail reads the last n bytes of an object of size bytes.
func (w *Worker) readTail(ctx context.Context, key string, size, n int64) ([]byte, error) {
	tail := make([]byte, n)
	got, info, err := w.cfg.Store.ReadSuffix(ctx, key, tail)
	if err == nil && (info.Size != size || int64(got) != n) {
		err = fmt.Errorf("object of %d bytes, the manifest says %d: %w", info.Size, size, io.ErrUnexpectedEOF)
	}
	return tail, inputFailed(key, err)
}

// collect returns the sections that are alive, by partition and in offset order.
func collect(in MergeInput, inputs []input) ([]section, error) {
	var out []section
	for i := range inputs {
		f := inputs[i].footer
		for j := range f.Sections {
			s := section{Section: &f.Sections[j], in: &inputs[i]}
			s.id = logid.Partition{Topic: s.Topic, Index: s.Partition}
			if in.Alive(s.id, logid.Offset(s.BaseOffset()), logid.Offset(s.LastOffset())) {
				out = append(out, s)
			}
		}
	}
	slices.SortStableFunc(out, func(a, b section) int { return a.id.Compare(b.id) })
	for i := 1; i < len(out); i++ {
		a, b := &out[i-1], &out[i]
		if a.id == b.id && (b.BaseOffset() <= a.LastOffset() || b.LeaderEpoch < a.LeaderEpoch) {
			return nil, &InputError{Key: b.in.key, Err: fmt.Errorf("%w: %s from offset %d under leader epoch %d follows %d under %d in %s",
				wal.ErrCorrupt, b.id, b.BaseOffset(), b.LeaderEpoch, a.LastOffset(), a.LeaderEpoch, a.in.key)}
		}
	}
	return out, nil
}

func (w *Worker) writeMerged(ctx context.Context, in MergeInput, sections []section) (Merged, error) {
	o := in.object()
	records := int64(0)
	for i := range sections {
		for j := range sections[i].Entries {
			records += int64(sections[i].Entries[j].LastOffsetDelta) + 1
		}
	}
	maxTs := int64(-1)
	for i := range sections {
		maxTs = max(maxTs, sections[i].MaxTimestamp())
	}
	o.Records, o.MaxTimestamp, o.MinTimestamp = records, maxTs, minTimestamp(in.Objects, maxTs)
	encoded, err := w.encode(in, sections)
	if err != nil {
		return Merged{}, err
	}
	head, tail := encoded.Parts[0], encoded.Parts[len(encoded.Parts)-1]
	footer, _, err := wal.ParseTail(tail, encoded.Size)
	if err != nil {
		return Merged{}, fmt.Errorf("the footer that was built: %w", err)
	}
	o.Size, o.FooterSize = encoded.Size, encoded.FooterSize
	s := w.newStream(ctx, head, spansOf(sections), tail, func() observer { return &sectionCheck{sections: sections} })
	defer s.close()
	s.crc, s.crcKnown = encoded.CRC, true
	if s.size != encoded.Size {
		return Merged{}, fmt.Errorf("%d bytes to write, the footer says %d", s.size, encoded.Size)
	}
	if err := w.put(ctx, o.Key(w.cfg.Cluster, in.Epoch), s); err != nil {
		return Merged{}, err
	}
	return Merged{Object: o, Footer: footer}, nil
}

// encode builds the header and footer. It takes the entries out of the sections, which have no use for them any more.
func (w *Worker) encode(in MergeInput, sections []section) (wal.Object, error) {
	var nonce [8]byte
	if _, err := io.ReadFull(w.cfg.Random, nonce[:]); err != nil {
		return wal.Object{}, fmt.Errorf("draw a nonce: %w", err)
	}
	o := in.object()
	b := wal.NewBuilder(wal.Header{
		Kind: wal.Merged, Cluster: w.cfg.Cluster, Epoch: in.Epoch, Slot: o.From, Through: o.To, Nonce: binary.BigEndian.Uint64(nonce[:]),
	})
	for i := range sections {
		s := &sections[i]
		if i == 0 || sections[i-1].id != s.id || sections[i-1].LeaderEpoch != s.LeaderEpoch {
			b.Section(s.Topic, s.Partition, s.LeaderEpoch)
		}
		b.Skip(s.Len, s.CRC)
		for _, e := range s.Entries {
			b.Entry(e)
		}
		s.Entries = nil
	}
	return b.Finish(), nil
}

// minTimestamp returns a lower bound for what is left of the objects.
func minTimestamp(objects []manifest.Object, maxTs int64) int64 {
	least := int64(-1)
	for _, o := range objects {
		if o.MinTimestamp >= 0 && (least < 0 || o.MinTimestamp < least) {
			least = o.MinTimestamp
		}
	}
	return min(least, maxTs)
}

func spansOf(sections []section) []span {
	spans := make([]span, len(sections))
	for i := range sections {
		s := &sections[i]
		spans[i] = span{size: s.Len, key: s.in.key, pos: s.Pos}
		if s.in.whole != nil {
			spans[i].mem = s.in.whole[s.Pos : s.Pos+s.Len]
		}
	}
	return spans
}

// sectionCheck is the observer of a merge: the bytes of each section must have the checksum that its footer says.
type sectionCheck struct {
	sections []section
	sum      uint32
	seen     int64 // bytes of the section
}

func (c *sectionCheck) see(i int, b []byte) error {
	s := &c.sections[i]
	c.sum = crc32.Update(c.sum, record.Castagnoli, b)
	if c.seen += int64(len(b)); c.seen < s.Len {
		return nil
	}
	sum := c.sum
	c.sum, c.seen = 0, 0
	if sum != s.CRC {
		return &InputError{Key: s.in.key, Err: fmt.Errorf("%w: section of %s at %d: CRC is %08x, the footer says %08x", wal.ErrCorrupt, s.id, s.Pos, sum, s.CRC)}
	}
	return nil
}
