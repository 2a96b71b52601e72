package history

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sort"

	"github.com/tierlog/tierlog/objstore"
	"github.com/tierlog/tierlog/tiered/logid"
	"github.com/tierlog/tierlog/tiered/manifest"
	"github.com/tierlog/tierlog/tiered/segment"
)

// part is a partition with its topic's name.
type part struct {
	name string
	id   logid.Partition
}

func (p part) String() string { return fmt.Sprintf("%s/%d", p.name, p.id.Index) }

// piece is a run of a partition's batches in one object.
type piece struct {
	key        string
	pos, size  int64 // bytes of the object
	base, last int64
	maxTs      int64
	segment    *manifest.Segment // of a log segment's .log file
	section    *section          // otherwise
}

// plan says where a partition's records are.
type plan struct {
	part
	manifest   *manifest.Partition // nil if there is none
	pieces     []piece             // in offset order; the first may begin below start
	start, end int64
}

// plan finds a partition's pieces under the current view.
func (r *Reader) plan(ctx context.Context, p part) (*plan, error) {
	ctx = objstore.WithPurpose(ctx, objstore.PurposeHistory)
	l := &loader{store: r.cfg.Store, cluster: r.ClusterID(), fault: strict}
	return l.plan(ctx, r.current(), p)
}

// plan reads a partition's manifest and joins it with a view that is not newer.
func (l *loader) plan(ctx context.Context, v *view, p part) (*plan, error) {
	pl := &plan{part: p}
	var segments []manifest.Segment
	for try := 0; ; try++ {
		m, err := l.partitionManifest(ctx, p)
		if err != nil {
			return nil, err
		}
		pl.manifest = m
		if segments, err = l.segments(ctx, m); err == nil {
			break
		}
		if !errors.Is(err, errMoved) || try == reloads {
			return nil, err
		}
	}
	var state *manifest.PartitionState
	if v.checkpoint != nil {
		state = v.checkpoint.Find(p.id)
	}
	if state != nil {
		pl.start, pl.end = int64(state.LogStart), int64(state.NextOffset)
	}
	covered := int64(0)
	if m := pl.manifest; m != nil {
		pl.start = max(pl.start, int64(m.LogStart))
		covered = int64(m.RolledThrough)
		for i := range segments {
			pl.addSegment(l.cluster, &segments[i])
		}
	}
	pl.end = max(pl.end, covered)
	for i := range v.sections[p.id] {
		s := &v.sections[p.id][i]
		if s.last < max(covered, pl.start) {
			continue
		}
		pl.pieces = append(pl.pieces, piece{key: s.obj.key, pos: s.pos, size: s.size, base: s.base, last: s.last, maxTs: s.maxTs, section: s})
		covered = s.last + 1
		pl.end = max(pl.end, covered)
	}
	pl.start = min(pl.start, pl.end)
	return pl, nil
}

func (pl *plan) addSegment(c logid.ClusterID, s *manifest.Segment) {
	if int64(s.Last) < pl.start {
		return
	}
	pl.pieces = append(pl.pieces, piece{
		key: pl.manifest.SegmentKey(c, *s, manifest.FileLog), size: s.Size, base: int64(s.Base), last: int64(s.Last),
		maxTs: s.MaxTimestamp, segment: s,
	})
}

// partitionManifest returns a partition's manifest, nil if there is none or it was noted as faulty.
func (l *loader) partitionManifest(ctx context.Context, p part) (*manifest.Partition, error) {
	key := (&manifest.Partition{Topic: p.name, TopicID: p.id.Topic, Index: p.id.Index}).Key(l.cluster)
	body, _, err := objstore.ReadAll(ctx, l.store, key, manifest.MaxBody)
	if errors.Is(err, objstore.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, l.failed(key, err)
	}
	m, err := manifest.DecodePartition(body, p.id)
	if err != nil {
		return nil, l.fault(key, err)
	}
	return m, nil
}

// segments returns all log segments of a manifest, with those of its pages.
func (l *loader) segments(ctx context.Context, m *manifest.Partition) ([]manifest.Segment, error) {
	if m == nil {
		return nil, nil
	}
	var all []manifest.Segment
	for _, ref := range m.Pages {
		key := m.PageKey(l.cluster, ref)
		body, _, err := objstore.ReadAll(ctx, l.store, key, manifest.MaxBody)
		var pg *manifest.Page
		if err == nil {
			pg, err = manifest.DecodePage(body, m.ID(), ref)
		}
		switch {
		case err == nil:
			all = append(all, pg.Segments...)
		case errors.Is(err, objstore.ErrNotFound):
			if err := l.pageMoved(ctx, m, ref); err != nil {
				return nil, err
			}
		default:
			if err := l.failed(key, err); err != nil {
				return nil, err
			}
		}
	}
	return append(all, m.Segments...), nil
}

// pageMoved decides about a page that is not there.
func (l *loader) pageMoved(ctx context.Context, m *manifest.Partition, ref manifest.PageRef) error {
	now, err := l.partitionManifest(ctx, part{m.Topic, m.ID()})
	if err != nil {
		return err
	}
	if now == nil || now.Version != m.Version {
		return errMoved
	}
	return l.fault(m.PageKey(l.cluster, ref), fmt.Errorf("%w: the manifest names it, and it is not there: %w", ErrCorrupt, objstore.ErrNotFound))
}

// from drops the pieces that end below an offset and moves the first one's begin near to it.
func (r *Reader) from(ctx context.Context, pieces []piece, offset int64) ([]piece, error) {
	i := sort.Search(len(pieces), func(i int) bool { return pieces[i].last >= offset })
	pieces = append([]piece(nil), pieces[i:]...)
	if len(pieces) == 0 || pieces[0].base >= offset || pieces[0].size <= int64(r.cfg.ChunkBytes) {
		return pieces, nil
	}
	p := &pieces[0]
	at, err := r.seek(ctx, p, offset)
	if err != nil {
		return nil, err
	}
	p.size -= at - p.pos
	p.pos = at
	return pieces, nil
}

// seek returns a position in the object at or before the batch that holds an offset.
func (r *Reader) seek(ctx context.Context, p *piece, offset int64) (int64, error) {
	if s := p.segment; s != nil {
		if s.IndexSize == 0 {
			return p.pos, nil
		}
		key := p.key[:len(p.key)-len(manifest.FileLog)] + string(manifest.FileIndex)
		b, _, err := objstore.ReadAll(ctx, r.cfg.Store, key, s.IndexSize)
		if err != nil && !isDamage(err) {
			return 0, fmt.Errorf("%s: %w", key, err)
		}
		if err == nil {
			var x *segment.OffsetIndex
			if x, err = segment.ParseOffsetIndex(b, p.base, p.size); err == nil {
				return x.Lookup(offset).Position, nil
			}
		}
		// The index only saves time.
		r.cfg.Logger.WarnContext(ctx, "an index cannot be used; the log segment is read from its begin", slog.String("key", key), slog.Any("error", err))
		return p.pos, nil
	}
	f, err := readFooter(ctx, r.cfg.Store, p.key, p.section.obj.FooterSize)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", p.key, err)
	}
	for i := range f.Sections {
		s := &f.Sections[i]
		if s.Pos != p.pos {
			continue
		}
		at := s.Pos
		for j := range s.Entries {
			if s.Entries[j].LastOffset() >= offset {
				break
			}
			at += int64(s.Entries[j].Length)
		}
		return at, nil
	}
	return p.pos, nil
}
