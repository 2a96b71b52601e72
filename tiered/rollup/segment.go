package rollup

import (
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/tierlog/tierlog/objstore"
	"github.com/tierlog/tierlog/record"
	"github.com/tierlog/tierlog/tiered/logid"
	"github.com/tierlog/tierlog/tiered/manifest"
	"github.com/tierlog/tierlog/tiered/segment"
	"github.com/tierlog/tierlog/tiered/wal"
)

// Written is a log segment in the bucket.
type Written struct {
	// Segment is its line for the partition's manifest.
	Segment manifest.Segment
	// Producers is the state after it: what the next segment begins with.
	Producers []segment.ProducerEntry
}

// Outputs returns the keys that WriteSegment may create, to be declared. The plan's ULID must be set.
func (p SegmentPlan) Outputs(c logid.ClusterID) []string {
	var keys []string
	for _, f := range []manifest.FileKind{manifest.FileLog, manifest.FileIndex, manifest.FileTimeIndex, manifest.FileTxnIndex, manifest.FileSnapshot} {
		keys = append(keys, p.key(c, f))
	}
	return keys
}

func (p SegmentPlan) key(c logid.ClusterID, f manifest.FileKind) string {
	m := manifest.Partition{Topic: p.Topic, TopicID: p.Partition.Topic, Index: p.Partition.Index}
	return m.SegmentKey(c, manifest.Segment{Base: p.base(), Last: p.Last, ULID: p.ULID}, f)
}

func (p SegmentPlan) base() logid.Offset { return max(p.From, p.Extents[0].Base) }

// ProducersAfter returns the state of a partition's producers after a log segment: what the next one begins with. Those
// that did nothing for Config.ProducerExpiry are left out. Before the first segment there is none.
func (w *Worker) ProducersAfter(ctx context.Context, m *manifest.Partition, s manifest.Segment) ([]segment.ProducerEntry, error) {
	if !s.HasSnapshot() {
		return nil, nil
	}
	ctx = objstore.WithPurpose(ctx, objstore.PurposeRollup)
	key := m.SegmentKey(w.cfg.Cluster, s, manifest.FileSnapshot)
	b, _, err := objstore.ReadAll(ctx, w.cfg.Store, key, s.SnapshotSize)
	if err != nil {
		return nil, inputFailed(key, err)
	}
	entries, err := segment.ParseSnapshot(b)
	if err != nil {
		return nil, &InputError{Key: key, Err: err}
	}
	p, err := segment.NewProducers(entries)
	if err != nil {
		return nil, &InputError{Key: key, Err: err}
	}
	p.Expire(w.cfg.Now().Add(-w.cfg.ProducerExpiry).UnixMilli())
	return p.Entries(), nil
}

// WriteSegment writes the log segment's files. before is the state of the producers at its begin, see ProducersAfter.
//
// The segment may end before the plan's Last where Kafka's formats cannot hold all of its one extent. It has no
// .snapshot then, and what follows the returned Last is to be planned again.
func (w *Worker) WriteSegment(ctx context.Context, p SegmentPlan, before []segment.ProducerEntry) (Written, error) {
	ctx = objstore.WithPurpose(ctx, objstore.PurposeRollup)
	out, err := w.writeSegment(ctx, &p, before)
	if err != nil {
		return Written{}, fmt.Errorf("log segment of %s-%d from offset %d: %w", p.Topic, p.Partition.Index, p.From, err)
	}
	return out, nil
}

func (w *Worker) writeSegment(ctx context.Context, p *SegmentPlan, before []segment.ProducerEntry) (Written, error) {
	if p.ULID.IsZero() || len(p.Extents) == 0 {
		return Written{}, errors.New("the plan has no ULID or no extents")
	}
	if _, err := segment.NewProducers(before); err != nil {
		return Written{}, err
	}
	extents, err := w.clip(ctx, p)
	if err != nil {
		return Written{}, err
	}
	done := &segmentResult{}
	s := w.newStream(ctx, nil, extentSpans(extents), nil, func() observer { return newSegmentPass(p, extents, before, done) })
	defer s.close()
	s.crc, s.crcKnown = extentsCRC(extents)
	if s.size > math.MaxInt32 {
		return Written{}, fmt.Errorf("%d bytes, a log segment has at most %d", s.size, math.MaxInt32)
	}
	if err := w.put(ctx, p.key(w.cfg.Cluster, manifest.FileLog), s); err != nil {
		return Written{}, err
	}
	files, producers := done.get()
	if files == nil {
		return Written{}, errors.New("the store took the .log file without reading all of it")
	}
	if logid.Offset(files.Last) != p.Last {
		files.Snapshot = nil // its name says another offset than was declared
	}
	if err := w.putSideFiles(ctx, p, files); err != nil {
		return Written{}, err
	}
	return Written{Segment: p.line(files), Producers: producers}, nil
}

// putSideFiles writes the files that are not empty.
func (w *Worker) putSideFiles(ctx context.Context, p *SegmentPlan, f *segment.Files) error {
	for _, file := range []struct {
		kind manifest.FileKind
		body []byte
	}{
		{manifest.FileIndex, f.Index},
		{manifest.FileTimeIndex, f.TimeIndex},
		{manifest.FileTxnIndex, f.TxnIndex},
		{manifest.FileSnapshot, f.Snapshot},
	} {
		if len(file.body) == 0 {
			continue
		}
		if err := w.put(ctx, p.key(w.cfg.Cluster, file.kind), objstore.Bytes(file.body)); err != nil {
			return err
		}
	}
	return nil
}

// line is the segment's entry in the manifest.
func (p SegmentPlan) line(f *segment.Files) manifest.Segment {
	s := manifest.Segment{
		Base: p.base(), Last: logid.Offset(f.Last), ULID: p.ULID, Size: f.Size,
		IndexSize: int64(len(f.Index)), TimeIndexSize: int64(len(f.TimeIndex)),
		TxnIndexSize: int64(len(f.TxnIndex)), SnapshotSize: int64(len(f.Snapshot)), MaxTimestamp: f.MaxTimestamp,
	}
	for _, e := range f.Epochs {
		if epoch := logid.LeaderEpoch(e.Epoch); epoch > p.PrevEpoch {
			s.Epochs = append(s.Epochs, manifest.EpochStart{Epoch: epoch, Start: logid.Offset(e.Start)})
		}
	}
	return s
}

func extentSpans(extents []Extent) []span {
	spans := make([]span, len(extents))
	for i, e := range extents {
		spans[i] = span{size: e.Len, key: e.Key, pos: e.Pos}
	}
	return spans
}

// extentsCRC returns the checksum of all extents after one another, if those of all are known.
func extentsCRC(extents []Extent) (sum uint32, known bool) {
	for _, e := range extents {
		if !e.HasCRC {
			return 0, false
		}
		sum = record.CombineCRC(sum, e.CRC, e.Len)
	}
	return sum, true
}

// clip returns the plan's extents without the batches before From, and of a single extent without those that do not fit
// into a segment. Both are rare; only they need the footer of an object.
func (w *Worker) clip(ctx context.Context, p *SegmentPlan) ([]Extent, error) {
	extents := append([]Extent(nil), p.Extents...)
	first := &extents[0]
	fits := len(extents) > 1 || int64(first.Last-p.base()) <= math.MaxInt32 && first.Len <= math.MaxInt32
	if first.Base >= p.From && fits {
		return extents, nil
	}
	s, err := w.findSection(ctx, p.Partition, first)
	if err != nil {
		return nil, err
	}
	pos, e := s.Pos, *first
	e.Len, e.HasCRC = 0, false
	for _, entry := range s.Entries {
		switch {
		case entry.BaseOffset < int64(p.From):
		case entry.LastOffset()-int64(p.base()) > math.MaxInt32 || e.Len+int64(entry.Length) > math.MaxInt32:
			if e.Len > 0 && !fits {
				extents[0] = e
				return extents, nil
			}
			return nil, &InputError{Key: first.Key, Err: fmt.Errorf("%w: the batch at offset %d does not fit into a log segment", wal.ErrCorrupt, entry.BaseOffset)}
		default:
			if e.Len == 0 {
				e.Pos, e.Base = pos, logid.Offset(entry.BaseOffset)
			}
			e.Len, e.Last = e.Len+int64(entry.Length), logid.Offset(entry.LastOffset())
		}
		pos += int64(entry.Length)
	}
	if e.Len == 0 {
		return nil, &InputError{Key: first.Key, Err: fmt.Errorf("%w: no batch of %s from offset %d to %d", wal.ErrCorrupt, p.Partition, p.From, first.Last)}
	}
	extents[0] = e
	return extents, nil
}

// findSection returns the section that an extent stands for.
func (w *Worker) findSection(ctx context.Context, id logid.Partition, e *Extent) (*wal.Section, error) {
	f, err := w.readFooter(ctx, e.Key)
	if err != nil {
		return nil, err
	}
	for i := range f.Sections {
		s := &f.Sections[i]
		if s.Pos == e.Pos && s.Len == e.Len && s.Topic == id.Topic && s.Partition == id.Index {
			return s, nil
		}
	}
	return nil, &InputError{Key: e.Key, Err: fmt.Errorf("%w: no section of %s at %d+%d", wal.ErrCorrupt, id, e.Pos, e.Len)}
}

// readFooter reads the footer of an object of which nothing but the key is known.
func (w *Worker) readFooter(ctx context.Context, key string) (*wal.Footer, error) {
	for want := int64(wal.TailHint); ; {
		tail := make([]byte, want)
		n, info, err := w.cfg.Store.ReadSuffix(ctx, key, tail)
		if err != nil {
			return nil, inputFailed(key, err)
		}
		f, need, err := wal.ParseTail(tail[:n], info.Size)
		switch {
		case err != nil:
			return nil, &InputError{Key: key, Err: err}
		case f != nil:
			return f, nil
		case need <= int64(n):
			return nil, &InputError{Key: key, Err: fmt.Errorf("%w: its footer cannot be read", wal.ErrCorrupt)}
		}
		want = need
	}
}
