package tiered

import (
	"context"
	"errors"
	"fmt"
	"sort"
	"sync"

	"github.com/tierlog/tierlog/objstore"
)

// ReadRequest asks for batches from an offset on.
type ReadRequest struct {
	Offset   int64
	MaxBytes int  // of whole batches
	OneMore  bool // return the first batch even if it is larger than MaxBytes
}

// Read adds whole batches to out, the first of them holding the asked offset or the next that exists, and returns the
// partition's bounds. Nothing at or beyond the high watermark is returned; at the high watermark nothing is added.
// Errors: ErrOutOfRange, ErrFenced, ErrClosed, ErrStorage (this partition cannot be read now).
func (p *Partition) Read(ctx context.Context, r ReadRequest, out *Slices) (Offsets, error) {
	for try := 0; ; try++ {
		o, err := p.read(ctx, r, out)
		if err == nil || try > 0 || !errors.Is(err, objstore.ErrNotFound) {
			return o, err
		}
		// The object was replaced while it was being read: look again where the records are now.
		p.log.segments.reload(p)
	}
}

func (p *Partition) read(ctx context.Context, r ReadRequest, out *Slices) (Offsets, error) {
	p.mu.Lock()
	o := p.offsets()
	if err := p.writable(); err != nil {
		p.mu.Unlock()
		return o, err
	}
	if r.Offset < p.start || r.Offset > p.hw {
		p.mu.Unlock()
		return o, fmt.Errorf("%w: offset %d of %s-%d, log start %d, high watermark %d", ErrOutOfRange, r.Offset, p.topic, p.id.Index, o.LogStart, o.HighWatermark)
	}
	if r.Offset == p.hw || r.MaxBytes <= 0 && !r.OneMore {
		p.mu.Unlock()
		return o, nil
	}
	if r.Offset < p.rolled {
		p.mu.Unlock()
		return o, p.readRolled(ctx, r, out)
	}
	i := p.find(r.Offset)
	if i == len(p.extents) || p.extents[i].base > r.Offset {
		edge := i == len(p.extents) || i == 0
		if indexed := p.log.isIndexed(); edge && (!indexed || !p.rolledKnown) {
			p.mu.Unlock()
			if err := p.learn(ctx, indexed); err != nil {
				return o, err
			}
			return p.read(ctx, r, out)
		}
		if i == len(p.extents) || p.log.damaged.Load() > 0 {
			p.mu.Unlock()
			return o, fmt.Errorf("%w: offset %d of %s-%d may be in an object that cannot be read", ErrStorage, r.Offset, p.topic, p.id.Index)
		}
	}
	if p.extents[i].tail != nil {
		p.readTail(i, r, out)
		p.mu.Unlock()
		return o, nil
	}
	cold := p.coldRun(i, r.MaxBytes)
	p.mu.Unlock()
	return o, p.readCold(ctx, cold, r, out)
}

// learn completes what is known of where the partition's records are: the extents, or else the log segments that were
// listed just before a crash, after the last checkpoint.
func (p *Partition) learn(ctx context.Context, indexed bool) error {
	if indexed {
		return p.learnRolled(ctx)
	}
	if err := p.log.waitIndexed(ctx); err != nil {
		return fmt.Errorf("%w: %w", ErrStorage, err)
	}
	return nil
}

// hole tells whether records may be missing before extent i: then a read must end there, not pass over them. Callers
// hold p.mu.
func (p *Partition) hole(i int) bool {
	return p.log.damaged.Load() > 0 && p.extents[i].base > p.extents[i-1].last+1
}

// learnRolled compares the partition with its manifest, once.
func (p *Partition) learnRolled(ctx context.Context) error {
	rp, err := p.log.segments.get(ctx, p)
	if err != nil {
		return err
	}
	if rp.m != nil && int64(rp.m.RolledThrough) > p.Offsets().rolled {
		p.rolledTo(rp)
	}
	p.mu.Lock()
	p.rolledKnown = true
	p.mu.Unlock()
	return nil
}

// readTail adds batches from memory. Callers hold p.mu.
func (p *Partition) readTail(i int, r ReadRequest, out *Slices) {
	left := r.MaxBytes
	one := r.OneMore
	for first := i; i < len(p.extents) && p.extents[i].tail != nil && (i == first || !p.hole(i)); i++ {
		tail := p.extents[i].tail
		j := sort.Search(len(tail), func(j int) bool { return tail[j].batch.LastOffset() >= r.Offset })
		for ; j < len(tail); j++ {
			n := len(tail[j].batch)
			if n > left && !one {
				return
			}
			out.add(tail[j].batch, tail[j].buf)
			left, one = left-n, false
		}
	}
}

// coldExtent is what a read outside the lock needs of an extent.
type coldExtent struct {
	src        *source
	obj        *object        // nil for a log segment
	seg        *rolledSegment // nil for an object
	base, last int64
	pos, size  int64
}

// coldRun returns the extents from i on that a read of maxBytes may touch. Callers hold p.mu.
func (p *Partition) coldRun(i, maxBytes int) []coldExtent {
	var run []coldExtent
	for bytes := int64(0); i < len(p.extents) && len(run) < 64; i++ {
		e := &p.extents[i]
		if e.tail != nil || len(run) > 0 && p.hole(i) {
			break
		}
		run = append(run, coldExtent{src: &e.obj.source, obj: e.obj, base: e.base, last: e.last, pos: e.pos, size: e.size})
		if bytes += e.size; bytes > int64(maxBytes)+BlockSize {
			break
		}
	}
	return run
}

// readCold adds batches from cached blocks of bucket objects.
func (p *Partition) readCold(ctx context.Context, run []coldExtent, r ReadRequest, out *Slices) error {
	left, one := r.MaxBytes, r.OneMore
	for i := range run {
		e := &run[i]
		if e.last < r.Offset {
			continue
		}
		pos, err := p.log.seek(ctx, e, r.Offset, &p.hints)
		if err != nil {
			return partial(out, err)
		}
		sc := scanner{l: p.log, src: e.src, pos: pos, end: e.pos + e.size}
		full, err := sc.copyFrom(ctx, r.Offset, &left, &one, out)
		p.hints.store(e.src.id, sc.next, sc.pos)
		sc.close()
		if err != nil {
			return partial(out, err)
		}
		if full {
			p.log.prefetch(e.src, e.src.blockAt(sc.pos)+1)
			return nil
		}
		if i+1 < len(run) {
			p.log.prefetch(run[i+1].src, run[i+1].src.blockAt(run[i+1].pos))
		}
	}
	return nil
}

// partial hides an error behind bytes that were read before it: the next read will meet it at its start.
func partial(out *Slices, err error) error {
	if out.Size > 0 {
		return nil
	}
	return err
}

// hints remember where the last cold reads of a partition ended, so that the next ones need no search.
type hints struct {
	mu sync.Mutex
	at [4]struct {
		object uint64
		offset int64
		pos    int64
	}
	turn uint8
}

func (h *hints) store(object uint64, offset, pos int64) {
	if offset <= 0 {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.turn = (h.turn + 1) % uint8(len(h.at))
	h.at[h.turn].object, h.at[h.turn].offset, h.at[h.turn].pos = object, offset, pos
}

func (h *hints) find(object uint64, offset int64) (pos int64, ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for i := range h.at {
		if h.at[i].object == object && h.at[i].offset == offset {
			return h.at[i].pos, true
		}
	}
	return 0, false
}
