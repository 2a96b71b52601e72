package tiered

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sort"
	"sync"

	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/sync/singleflight"

	"github.com/tierlog/tierlog/objstore"
	"github.com/tierlog/tierlog/tiered/logid"
	"github.com/tierlog/tierlog/tiered/manifest"
)

// segmentIndex finds log segments and positions in them. What it holds is a copy of immutable objects and of the
// partition manifests, of which this broker is the only writer.
type segmentIndex struct {
	l      *Log
	flight singleflight.Group

	mu    sync.Mutex
	parts map[logid.Partition]*rolledPartition // owned by mu

	sparse *lru.Cache[uint64, sparseIndex]     // by source id
	pages  *lru.Cache[string, []rolledSegment] // by key
}

// rolledPartition is a partition's manifest as last read or written. It is not changed, only replaced.
type rolledPartition struct {
	m        *manifest.Partition
	version  objstore.Version
	segments []rolledSegment
}

// rolledSegment is a log segment and the source of its .log file.
type rolledSegment struct {
	manifest.Segment
	log *source
}

// sparseIndex holds, for each section of an object (by its position), some batches' offsets and positions in order.
type sparseIndex map[int64][]point

type point struct{ offset, pos int64 }

// sparseStep is the distance of points in bytes.
const sparseStep = 256 << 10

func newSegmentIndex(l *Log) (*segmentIndex, error) {
	sparse, err := lru.New[uint64, sparseIndex](512)
	if err != nil {
		return nil, err
	}
	pages, err := lru.New[string, []rolledSegment](64)
	if err != nil {
		return nil, err
	}
	return &segmentIndex{l: l, parts: make(map[logid.Partition]*rolledPartition), sparse: sparse, pages: pages}, nil
}

// get returns a partition's manifest, reading it if need be. A partition without one gets an empty one.
func (x *segmentIndex) get(ctx context.Context, p *Partition) (*rolledPartition, error) {
	x.mu.Lock()
	rp := x.parts[p.id]
	x.mu.Unlock()
	if rp != nil {
		return rp, nil
	}
	v, err, _ := x.flight.Do(p.id.String(), func() (any, error) {
		rp, err := x.load(context.WithoutCancel(ctx), p)
		if err != nil {
			return nil, err
		}
		x.put(p.id, rp)
		return rp, nil
	})
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrStorage, err)
	}
	return v.(*rolledPartition), nil
}

func (x *segmentIndex) put(id logid.Partition, rp *rolledPartition) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.parts[id] = rp
}

// reload forgets a partition's manifest, so that the next reader reads it again.
func (x *segmentIndex) reload(p *Partition) {
	x.mu.Lock()
	defer x.mu.Unlock()
	delete(x.parts, p.id)
}

func (x *segmentIndex) load(ctx context.Context, p *Partition) (*rolledPartition, error) {
	m := &manifest.Partition{Topic: p.topic, TopicID: p.id.Topic, Index: p.id.Index}
	body, info, err := objstore.ReadAll(objstore.WithPurpose(ctx, objstore.PurposeFetch), x.l.cfg.Store, m.Key(x.l.cfg.Cluster), manifest.MaxBody)
	if errors.Is(err, objstore.ErrNotFound) {
		return &rolledPartition{}, nil
	}
	if err != nil {
		return nil, err
	}
	if m, err = manifest.DecodePartition(body, p.id); err != nil {
		return nil, fmt.Errorf("manifest of %s-%d: %w", p.topic, p.id.Index, err)
	}
	return x.wrap(m, info.Version, nil), nil
}

// wrap gives the manifest's segments their sources, keeping those of segments that old has as well.
func (x *segmentIndex) wrap(m *manifest.Partition, v objstore.Version, old *rolledPartition) *rolledPartition {
	known := make(map[manifest.ULID]*source)
	if old != nil {
		for i := range old.segments {
			known[old.segments[i].ULID] = old.segments[i].log
		}
	}
	return &rolledPartition{m: m, version: v, segments: x.sources(m, m.Segments, known)}
}

func (x *segmentIndex) sources(m *manifest.Partition, segs []manifest.Segment, known map[manifest.ULID]*source) []rolledSegment {
	out := make([]rolledSegment, len(segs))
	for i, s := range segs {
		src := known[s.ULID]
		if src == nil {
			v := newSource(m.SegmentKey(x.l.cfg.Cluster, s, manifest.FileLog), s.Size)
			src = &v
		}
		out[i] = rolledSegment{Segment: s, log: src}
	}
	return out
}

// list returns the segments that hold offset and what follows, of the page or root that has it.
func (x *segmentIndex) list(ctx context.Context, rp *rolledPartition, offset int64) ([]rolledSegment, error) {
	if rp.m == nil {
		return nil, nil
	}
	i := manifest.FirstPage(rp.m.Pages, logid.Offset(offset))
	if i >= len(rp.m.Pages) {
		segs := rp.segments
		return segs[manifest.FirstSegment(rp.m.Segments, logid.Offset(offset)):], nil
	}
	ref := rp.m.Pages[i]
	key := rp.m.PageKey(x.l.cfg.Cluster, ref)
	segs, ok := x.pages.Get(key)
	if !ok {
		body, _, err := objstore.ReadAll(objstore.WithPurpose(ctx, objstore.PurposeFetch), x.l.cfg.Store, key, manifest.MaxBody)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrStorage, err)
		}
		pg, err := manifest.DecodePage(body, rp.m.ID(), ref)
		if err != nil {
			return nil, fmt.Errorf("%w: page %s: %w", ErrStorage, key, err)
		}
		segs = x.sources(rp.m, pg.Segments, nil)
		x.pages.Add(key, segs)
	}
	j := sort.Search(len(segs), func(j int) bool { return int64(segs[j].Last) >= offset })
	return segs[j:], nil
}

// all returns the partition's log segments that hold from or later offsets, with those of pages.
func (x *segmentIndex) all(ctx context.Context, p *Partition, from int64) ([]rolledSegment, error) {
	rp, err := x.get(ctx, p)
	if err != nil {
		return nil, err
	}
	var out []rolledSegment
	for {
		segs, err := x.list(ctx, rp, from)
		if err != nil || len(segs) == 0 {
			return out, err
		}
		out = append(out, segs...)
		from = int64(segs[len(segs)-1].Last) + 1
	}
}

// readRolled adds batches from log segments.
func (p *Partition) readRolled(ctx context.Context, r ReadRequest, out *Slices) error {
	x := p.log.segments
	rp, err := x.get(ctx, p)
	if err != nil {
		return err
	}
	segs, err := x.list(ctx, rp, r.Offset)
	if err != nil {
		return err
	}
	if len(segs) == 0 {
		return fmt.Errorf("%w: offset %d of %s-%d is in no log segment", ErrStorage, r.Offset, p.topic, p.id.Index)
	}
	run := make([]coldExtent, 0, 2)
	for i := 0; i < len(segs) && i < 2; i++ {
		run = append(run, segs[i].extent())
	}
	return p.readCold(ctx, run, r, out)
}

func (s *rolledSegment) extent() coldExtent {
	return coldExtent{src: s.log, seg: s, base: int64(s.Base), last: int64(s.Last), size: s.Size}
}

// seek returns a position at or before the batch that holds offset.
func (l *Log) seek(ctx context.Context, e *coldExtent, offset int64, h *hints) (int64, error) {
	if offset <= e.base || e.size <= BlockSize {
		return e.pos, nil
	}
	if h != nil {
		if pos, ok := h.find(e.src.id, offset); ok {
			return pos, nil
		}
	}
	if e.obj != nil && e.obj.m.Kind == manifest.ObjectWAL {
		return e.pos, nil // a few blocks, which a sequential reader reads anyway: a footer would be a request more
	}
	idx, ok := l.segments.sparse.Get(e.src.id)
	if !ok {
		var err error
		if idx, err = l.segments.loadSparse(ctx, e); err != nil {
			return 0, fmt.Errorf("%w: %w", ErrStorage, err)
		}
		l.segments.sparse.Add(e.src.id, idx)
	}
	points := idx[e.pos]
	i := sort.Search(len(points), func(i int) bool { return points[i].offset > offset })
	if i == 0 {
		return e.pos, nil
	}
	return points[i-1].pos, nil
}

// loadSparse builds an object's sparse index from its footer, or a log segment's from its .index file.
func (x *segmentIndex) loadSparse(ctx context.Context, e *coldExtent) (sparseIndex, error) {
	ctx = objstore.WithPurpose(ctx, objstore.PurposeFetch)
	if e.seg != nil {
		return x.loadOffsetIndex(ctx, e)
	}
	f, _, err := x.l.readFooter(ctx, e.src.key, e.obj.m.FooterSize)
	if err != nil {
		return nil, err
	}
	idx := make(sparseIndex)
	for i := range f.Sections {
		s := &f.Sections[i]
		var points []point
		pos, last := s.Pos, s.Pos
		for j := range s.Entries {
			if pos-last >= sparseStep {
				points = append(points, point{offset: s.Entries[j].BaseOffset, pos: pos})
				last = pos
			}
			pos += int64(s.Entries[j].Length)
		}
		if len(points) > 0 {
			idx[s.Pos] = points
		}
	}
	return idx, nil
}

func (x *segmentIndex) loadOffsetIndex(ctx context.Context, e *coldExtent) (sparseIndex, error) {
	if e.seg.IndexSize == 0 {
		return sparseIndex{}, nil
	}
	key := indexKey(e.src.key, manifest.FileIndex)
	b, _, err := objstore.ReadAll(ctx, x.l.cfg.Store, key, e.seg.IndexSize)
	if err != nil {
		return nil, err
	}
	var points []point
	for last := int64(0); len(b) >= 8; b = b[8:] {
		rel, pos := int64(binary.BigEndian.Uint32(b)), int64(binary.BigEndian.Uint32(b[4:]))
		if pos-last >= sparseStep && pos < e.size {
			points = append(points, point{offset: e.base + rel, pos: pos})
			last = pos
		}
	}
	return sparseIndex{0: points}, nil
}

// indexKey is the key of another file of the log segment whose .log file is at key.
func indexKey(key string, f manifest.FileKind) string {
	return key[:len(key)-len(manifest.FileLog)] + string(f)
}
