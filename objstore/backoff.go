package objstore

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"
)

// Backoff says how long to wait between attempts: First, then twice as long each time up to Max, each less a random part
// of up to a half. The zero value means 50 ms to 2 s.
type Backoff struct {
	// First is the longest wait after the first attempt; 0 means 50 ms.
	First time.Duration
	// Max bounds the waits; 0 means 2 s.
	Max time.Duration
	// Jitter returns what part of the random half to wait, 0 to 1; nil means a random one. Simulations make it repeatable.
	Jitter func() float64
}

// Defaults of Backoff.
const (
	defaultFirstWait = 50 * time.Millisecond
	defaultMaxWait   = 2 * time.Second
)

// Validate names the field that is out of range.
func (b Backoff) Validate() error {
	switch {
	case b.First < 0:
		return fmt.Errorf("backoff: first is %v, must not be negative", b.First)
	case b.Max < 0:
		return fmt.Errorf("backoff: max is %v, must not be negative", b.Max)
	}
	return nil
}

// Delay returns how long to wait after the n-th attempt, n from 1.
func (b Backoff) Delay(n int) time.Duration {
	d, longest := b.First, b.Max
	if d == 0 {
		d = defaultFirstWait
	}
	if longest == 0 {
		longest = defaultMaxWait
	}
	for ; n > 1 && d < longest; n-- {
		d *= 2
	}
	d = min(d, longest)
	jitter := rand.Float64
	if b.Jitter != nil {
		jitter = b.Jitter
	}
	return d/2 + time.Duration(jitter()*float64(d-d/2))
}

// Wait sleeps for Delay(n), or until the context ends: then it returns the context's error.
func (b Backoff) Wait(ctx context.Context, n int) error {
	timer := time.NewTimer(b.Delay(n))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
