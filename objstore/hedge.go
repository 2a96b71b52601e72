package objstore

import (
	"context"
	"errors"
	"fmt"
	"math/bits"
	"slices"
	"sync"
	"time"
)

// HedgeConfig says when WithHedge sends a slow call once more. The zero value is usable.
type HedgeConfig struct {
	// Min and Max bound how long a call may take before it is sent once more; between them it is twice what 95 % of the last
	// calls of its kind and size took. 0 means 20 ms and 2 s. Max also holds while too few were measured.
	Min, Max time.Duration
	// Share is how many calls may be sent twice, as a part of all; 0 means 0.05.
	Share float64
	// Reads and Creates say what is hedged.
	Reads, Creates bool
}

const (
	defaultHedgeMin   = 20 * time.Millisecond
	defaultHedgeMax   = 2 * time.Second
	defaultHedgeShare = 0.05
	hedgeWindow       = 128 // latencies remembered of each kind and size
	hedgeEnough       = 16  // latencies before they say something
	hedgeBurst        = 8   // calls that may be sent twice in a row
)

// Validate names the field that is out of range.
func (c HedgeConfig) Validate() error {
	switch {
	case c.Min < 0:
		return fmt.Errorf("hedge: min is %v, must not be negative", c.Min)
	case c.Max < 0 || c.Max > 0 && c.Max < c.Min:
		return fmt.Errorf("hedge: max is %v, must be at least min (%v)", c.Max, c.Min)
	case c.Share < 0 || c.Share > 1:
		return fmt.Errorf("hedge: share is %v, must be from 0 to 1", c.Share)
	}
	return nil
}

// WithHedge sends slow reads and creates once more; the first answer that decides counts. That is safe for a create because both
// have the same key and bytes, and only one can be applied: when one is told that the object exists while the other won, or may
// have, the call does not report ErrExists. Swaps are never sent twice.
//
// A call returns when both of its requests have returned: only then are the caller's buffers free. The slower one is
// cancelled, so a driver must return soon after its context ends.
func WithHedge(base Store, cfg HedgeConfig) Store {
	if cfg.Min == 0 {
		cfg.Min = defaultHedgeMin
	}
	if cfg.Max == 0 {
		cfg.Max = max(defaultHedgeMax, cfg.Min)
	}
	if cfg.Share == 0 {
		cfg.Share = defaultHedgeShare
	}
	return &hedgeStore{Store: base, cfg: cfg, classes: map[hedgeClass]*latencies{}, credit: hedgeBurst}
}

type hedgeStore struct {
	Store
	cfg HedgeConfig

	mu      sync.Mutex // guards what is below
	classes map[hedgeClass]*latencies
	credit  float64 // calls that may be sent twice
}

// hedgeClass groups calls whose latencies are alike.
type hedgeClass struct {
	op   string
	size int // log2 of the bytes
}

// latencies remembers the last ones of a class, in a ring.
type latencies struct {
	ring  []time.Duration
	next  int
	fresh int           // since p95 was computed
	p95   time.Duration // 0: not known yet
}

func (l *latencies) add(d time.Duration) {
	if len(l.ring) < hedgeWindow {
		l.ring = append(l.ring, d)
	} else {
		l.ring[l.next] = d
		l.next = (l.next + 1) % hedgeWindow
	}
	l.fresh++
	if l.fresh >= hedgeEnough {
		sorted := slices.Sorted(slices.Values(l.ring))
		l.p95, l.fresh = sorted[len(sorted)*95/100], 0
	}
}

// delay returns after how long a call is to be sent once more.
func (s *hedgeStore) delay(c hedgeClass) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.credit = min(s.credit+s.cfg.Share, hedgeBurst)
	l := s.classes[c]
	if l == nil || l.p95 == 0 {
		return s.cfg.Max
	}
	return min(max(2*l.p95, s.cfg.Min), s.cfg.Max)
}

func (s *hedgeStore) measured(c hedgeClass, d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.classes[c]
	if l == nil {
		l = &latencies{}
		s.classes[c] = l
	}
	l.add(d)
}

func (s *hedgeStore) spend() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.credit < 1 {
		return false
	}
	s.credit--
	return true
}

// leg is one of the two requests of a call.
type leg[T any] struct {
	sent  bool
	value T
	err   error
}

// twice sends the first request, and the second one too if the first takes too long. It returns when both are done. decides tells
// whether a result needs no other; it ends the other request.
func twice[T any](ctx context.Context, s *hedgeStore, c hedgeClass, send [2]func(context.Context) (T, error), decides func(error) bool) (first, second leg[T]) {
	ctx1, cancel1 := context.WithCancel(ctx)
	defer cancel1()
	ctx2, cancel2 := context.WithCancel(ctx)
	defer cancel2()
	done := make(chan leg[T], 1)
	start := time.Now()
	timer := time.AfterFunc(s.delay(c), func() {
		var l leg[T]
		if s.spend() {
			l.sent = true
			l.value, l.err = send[1](ctx2)
			if decides(l.err) {
				cancel1()
			}
		}
		done <- l
	})
	first.sent = true
	first.value, first.err = send[0](ctx1)
	if first.err == nil {
		s.measured(c, time.Since(start))
	}
	if timer.Stop() {
		return first, leg[T]{}
	}
	if decides(first.err) {
		cancel2()
	}
	second = <-done
	if second.sent && second.err == nil && first.err != nil {
		s.measured(c, time.Since(start)) // at least that long; else slow times would never count
	}
	return first, second
}

// Create implements Store.
func (s *hedgeStore) Create(ctx context.Context, key string, body Payload) (Version, error) {
	if !s.cfg.Creates {
		return s.Store.Create(ctx, key, body)
	}
	send := func(ctx context.Context) (Version, error) { return s.Store.Create(ctx, key, body) }
	class := hedgeClass{op: "create", size: bits.Len64(uint64(body.Size()))}
	won := func(err error) bool { return err == nil }
	first, second := twice(ctx, s, class, [2]func(context.Context) (Version, error){send, send}, won)
	switch {
	case first.err == nil || !second.sent:
		return first.value, first.err
	case second.err == nil:
		return second.value, nil
	}
	return "", bothFailed(first.err, second.err)
}

// bothFailed says what is known when neither request of a create was told that it won. An unknown outcome of one outweighs what
// the other was told: that the object exists may be the first one's doing. A certain ErrExists outweighs the rest.
func bothFailed(first, second error) error {
	for _, kind := range []error{ErrUnknown, ErrExists} {
		for _, err := range []error{first, second} {
			if errors.Is(err, kind) {
				return err
			}
		}
	}
	return first
}

type readResult struct {
	n    int
	info Info
}

// ReadAt implements Store.
func (s *hedgeStore) ReadAt(ctx context.Context, key string, p []byte, off int64) (int, Info, error) {
	if !s.cfg.Reads {
		return s.Store.ReadAt(ctx, key, p, off)
	}
	return s.read(ctx, p, func(ctx context.Context, p []byte) (readResult, error) {
		n, info, err := s.Store.ReadAt(ctx, key, p, off)
		return readResult{n, info}, err
	})
}

// ReadSuffix implements Store.
func (s *hedgeStore) ReadSuffix(ctx context.Context, key string, p []byte) (int, Info, error) {
	if !s.cfg.Reads {
		return s.Store.ReadSuffix(ctx, key, p)
	}
	return s.read(ctx, p, func(ctx context.Context, p []byte) (readResult, error) {
		n, info, err := s.Store.ReadSuffix(ctx, key, p)
		return readResult{n, info}, err
	})
}

// read gives the second request a buffer of its own.
func (s *hedgeStore) read(ctx context.Context, p []byte, read func(context.Context, []byte) (readResult, error)) (int, Info, error) {
	var other []byte
	send := [2]func(context.Context) (readResult, error){
		func(ctx context.Context) (readResult, error) { return read(ctx, p) },
		func(ctx context.Context) (readResult, error) {
			other = make([]byte, len(p))
			return read(ctx, other)
		},
	}
	// Anything but a passing failure is an answer.
	answered := func(err error) bool { return !errors.Is(err, ErrUnavailable) }
	first, second := twice(ctx, s, hedgeClass{op: "read", size: bits.Len(uint(len(p)))}, send, answered)
	if answered(first.err) || !second.sent || !answered(second.err) {
		return first.value.n, first.value.info, first.err
	}
	copy(p, other[:second.value.n])
	return second.value.n, second.value.info, second.err
}
