package history

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"

	"github.com/tierlog/tierlog/objstore"
	"github.com/tierlog/tierlog/record"
	"github.com/tierlog/tierlog/tiered/logid"
)

// ErrStop ends Read early: a callback returns it, and Read returns nil.
var ErrStop = errors.New("stop")

// Read calls fn with the batches of a partition from the one that holds an offset on, up to the end that Open or Reload
// found, or a little beyond where records have been rolled up since. An offset below the partition's start is the start; the first batch may begin before the offset, and the caller
// drops the records before it. Control batches (transaction markers) are passed too. fn must not keep the batch.
// Errors: ErrUnknown, ErrCorrupt, those of the store, and fn's own.
func (r *Reader) Read(ctx context.Context, topic string, index int32, from logid.Offset, fn func(record.Batch) error) error {
	p, err := r.partition(topic, index)
	if err != nil {
		return err
	}
	ctx = objstore.WithPurpose(ctx, objstore.PurposeHistory)
	err = r.read(ctx, p, int64(from), fn)
	if errors.Is(err, ErrStop) {
		return nil
	}
	return err
}

func (r *Reader) read(ctx context.Context, p part, from int64, fn func(record.Batch) error) error {
	next, end := from, int64(-1)
	for try := 0; ; {
		pl, err := r.plan(ctx, p)
		if err == nil {
			if end < 0 {
				end = pl.end
			}
			before := next
			next, err = r.readPlan(ctx, pl, max(next, pl.start), end, fn)
			if bad := r.current().faults; err == nil && len(bad) > 0 {
				return fmt.Errorf("records of %v may be missing: %w: %w", p, ErrCorrupt, bad[0])
			}
			if next > before {
				try = 0
			}
		}
		if err == nil || !r.replaced(err) || try == reloads {
			return err
		}
		try++
		if err := r.Reload(ctx); err != nil {
			return err
		}
	}
}

// replaced tells whether an error may be because a live broker replaced an object.
func (r *Reader) replaced(err error) bool {
	return errors.Is(err, objstore.ErrNotFound) && !errors.Is(err, ErrCorrupt) || errors.Is(err, errMoved)
}

// readPlan passes on the batches of a plan from next up to end, and returns the offset after the last one.
func (r *Reader) readPlan(ctx context.Context, pl *plan, next, end int64, fn func(record.Batch) error) (int64, error) {
	pieces, err := r.from(ctx, pl.pieces, next)
	if err != nil {
		return next, err
	}
	spans := make([]span, len(pieces))
	for i, p := range pieces {
		spans[i] = span{key: p.key, pos: p.pos, size: p.size}
	}
	s := newStream(ctx, &r.cfg, spans)
	defer s.close()
	for i := range spans {
		for {
			b, pos, err := s.batch(i)
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return next, err
			}
			if b.LastOffset() < next {
				continue
			}
			if b.BaseOffset() >= end {
				return next, nil
			}
			if err := b.VerifyCRC(); err != nil {
				return next, fmt.Errorf("%s: byte %d: %w: %w", spans[i].key, pos, ErrCorrupt, err)
			}
			if err := fn(b); err != nil {
				return next, err
			}
			next = b.LastOffset() + 1
		}
	}
	return next, nil
}

// OffsetForTime returns the offset of the first record at or after a time in Unix milliseconds, or the end if there is
// none. Where timestamps are not in order, later records may be older.
func (r *Reader) OffsetForTime(ctx context.Context, topic string, index int32, ms int64) (logid.Offset, error) {
	p, err := r.partition(topic, index)
	if err != nil {
		return logid.NoOffset, err
	}
	ctx = objstore.WithPurpose(ctx, objstore.PurposeHistory)
	pl, err := r.plan(ctx, p)
	if err != nil {
		return logid.NoOffset, err
	}
	from := pl.end
	for i := range pl.pieces {
		if pl.pieces[i].maxTs >= ms && pl.pieces[i].last >= pl.start {
			from = max(pl.start, pl.pieces[i].base)
			break
		}
	}
	found := pl.end
	err = r.read(ctx, p, from, func(b record.Batch) error {
		if b.MaxTimestamp() < ms || b.Control() {
			return nil
		}
		return b.Records(MaxRecords, func(rec record.Record) error {
			if at := b.Offset(rec); at >= pl.start && b.Timestamp(rec) >= ms {
				found = at
				return ErrStop
			}
			return nil
		})
	})
	if err != nil && !errors.Is(err, ErrStop) {
		return logid.NoOffset, err
	}
	return logid.Offset(found), nil
}

// MaxRecords bounds the bytes that one batch may decompress to.
const MaxRecords = math.MaxInt32
