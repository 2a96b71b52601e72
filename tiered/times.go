package tiered

import (
	"context"
	"fmt"

	"github.com/tierlog/tierlog/record"
)

// maxRecords bounds what is decompressed to find a timestamp inside one batch, in bytes.
const maxRecords = 256 << 20

// OffsetForTime returns the first offset whose record has a timestamp of at least ts (ms), and that timestamp; -1 and
// -1 if there is none (ListOffsets, KIP-79).
func (p *Partition) OffsetForTime(ctx context.Context, ts int64) (offset, timestamp int64, err error) {
	found, foundTs := int64(-1), int64(-1)
	err = p.eachRun(ctx, func(maxTs int64) bool { return maxTs >= ts }, func(b record.Batch) (bool, error) {
		if b.MaxTimestamp() < ts {
			return true, nil
		}
		o, t, ok, err := record.OffsetForTime(b, ts, maxRecords)
		if err != nil || !ok {
			return err == nil, err
		}
		found, foundTs = o, t
		return false, nil
	})
	return found, foundTs, err
}

// MaxTimestampOffset returns the offset of the first record with the largest timestamp, and that timestamp; -1 and -1
// if there are no records (KIP-734).
func (p *Partition) MaxTimestampOffset(ctx context.Context) (offset, timestamp int64, err error) {
	best := int64(-1)
	if err := p.eachRun(ctx, func(maxTs int64) bool { best = max(best, maxTs); return false }, nil); err != nil {
		return -1, -1, err
	}
	if best < 0 {
		return -1, -1, nil
	}
	return p.OffsetForTime(ctx, best)
}

// timedRun is a run of batches with the largest timestamp in it.
type timedRun struct {
	base, last, maxTs int64
}

// runs lists the partition's log segments and extents that are not wholly below the log start.
func (p *Partition) runs(ctx context.Context) ([]timedRun, error) {
	p.mu.Lock()
	rolled, start := p.rolled, p.start
	p.mu.Unlock()
	var out []timedRun
	if rolled > start {
		segs, err := p.log.segments.all(ctx, p, start)
		if err != nil {
			return nil, err
		}
		for i := range segs {
			out = append(out, timedRun{base: int64(segs[i].Base), last: int64(segs[i].Last), maxTs: segs[i].MaxTimestamp})
		}
	}
	if err := p.log.waitIndexed(ctx); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrStorage, err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range p.extents {
		if e := &p.extents[i]; e.last >= p.start {
			out = append(out, timedRun{base: e.base, last: e.last, maxTs: e.maxTs})
		}
	}
	return out, nil
}

// eachRun calls visit for the batches of every run whose largest timestamp want accepts, in offset order, until visit
// returns false.
func (p *Partition) eachRun(ctx context.Context, want func(maxTs int64) bool, visit func(record.Batch) (bool, error)) error {
	runs, err := p.runs(ctx)
	if err != nil {
		return err
	}
	for _, r := range runs {
		if !want(r.maxTs) {
			continue
		}
		more, err := p.eachBatch(ctx, max(r.base, p.Offsets().LogStart), r.last, visit)
		if err != nil || !more {
			return err
		}
	}
	return nil
}

// eachBatch calls visit for the batches that hold the offsets from base to last.
func (p *Partition) eachBatch(ctx context.Context, base, last int64, visit func(record.Batch) (bool, error)) (more bool, err error) {
	for base <= last {
		var out Slices
		if _, err := p.Read(ctx, ReadRequest{Offset: base, MaxBytes: 1 << 20, OneMore: true}, &out); err != nil {
			return false, err
		}
		flat := make([]byte, 0, out.Size)
		for _, part := range out.Parts {
			flat = append(flat, part...)
		}
		out.Release()
		if len(flat) == 0 {
			return true, nil
		}
		for len(flat) > 0 && base <= last {
			b, rest, err := record.Next(flat)
			if err != nil {
				return false, fmt.Errorf("%w: %w", ErrStorage, err)
			}
			if more, err := visit(b); err != nil || !more {
				return false, err
			}
			base, flat = b.LastOffset()+1, rest
		}
	}
	return true, nil
}
