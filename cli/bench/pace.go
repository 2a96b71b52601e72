package bench

import (
	"context"
	"time"
)

// pacer says when each record of one producer is due. Times are since the start of the run.
type pacer struct {
	first, every time.Duration
	now          func() time.Duration
}

// newPacer shares rate between producers: producer i sends every producers-th record.
func newPacer(rate float64, i, producers int, now func() time.Duration) pacer {
	every := float64(time.Second) / rate
	return pacer{first: time.Duration(every * float64(i)), every: time.Duration(every * float64(producers)), now: now}
}

// due returns when the n-th record of this producer is due.
func (p pacer) due(n int64) time.Duration { return p.first + time.Duration(n)*p.every }

// wait returns when the time has come, or ctx ends.
func (p pacer) wait(ctx context.Context, due time.Duration) error {
	d := due - p.now()
	if d <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
