package objstore

import (
	"context"
	"fmt"

	"golang.org/x/time/rate"
)

// LimitConfig bounds what is asked of a store at once. A zero field means no bound.
type LimitConfig struct {
	// Reads is how many reads, heads and lists may be in progress.
	Reads int
	// Writes is how many creates, swaps and deletes may be in progress.
	Writes int
	// Background is how many calls of maintenance (rollup, retention, garbage collection) may be in progress, of both
	// kinds together: they must leave room for producers and consumers.
	Background int
	// PerSecond is how many calls may start per second, a second's worth of them at once.
	PerSecond float64
}

// Validate names the field that is out of range.
func (c LimitConfig) Validate() error {
	for _, f := range []struct {
		name  string
		value float64
	}{
		{"reads", float64(c.Reads)},
		{"writes", float64(c.Writes)},
		{"background", float64(c.Background)},
		{"per second", c.PerSecond},
	} {
		if f.value < 0 {
			return fmt.Errorf("limit: %s is %v, must not be negative", f.name, f.value)
		}
	}
	return nil
}

// WithLimit makes calls wait while there are too many. A call whose context ends while it waits did nothing.
func WithLimit(base Store, cfg LimitConfig) Store {
	s := &limitStore{Store: base, reads: tokens(cfg.Reads), writes: tokens(cfg.Writes), background: tokens(cfg.Background)}
	if cfg.PerSecond > 0 {
		s.rate = rate.NewLimiter(rate.Limit(cfg.PerSecond), max(1, int(cfg.PerSecond)))
	}
	return s
}

// limitStore holds a token per call in progress; a nil channel does not bound.
type limitStore struct {
	Store
	reads, writes, background chan struct{}
	rate                      *rate.Limiter
}

func tokens(n int) chan struct{} {
	if n == 0 {
		return nil
	}
	return make(chan struct{}, n)
}

func isBackground(p Purpose) bool {
	return p == PurposeRollup || p == PurposeRetention || p == PurposeGC
}

// enter waits for the call's turn. It takes background's token first: who waits for that keeps nobody else waiting.
func (s *limitStore) enter(ctx context.Context, kind chan struct{}) (leave func(), err error) {
	var background chan struct{}
	if isBackground(PurposeOf(ctx)) {
		background = s.background
	}
	if err := take(ctx, background); err != nil {
		return nil, err
	}
	if err := take(ctx, kind); err != nil {
		giveBack(background)
		return nil, err
	}
	leave = func() {
		giveBack(kind)
		giveBack(background)
	}
	if s.rate != nil {
		if err := s.rate.Wait(ctx); err != nil {
			leave()
			return nil, err
		}
	}
	return leave, nil
}

func take(ctx context.Context, c chan struct{}) error {
	if c == nil {
		return nil
	}
	select {
	case c <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func giveBack(c chan struct{}) {
	if c != nil {
		<-c
	}
}

func (s *limitStore) ReadAt(ctx context.Context, key string, p []byte, off int64) (int, Info, error) {
	leave, err := s.enter(ctx, s.reads)
	if err != nil {
		return 0, Info{}, &Error{Op: "read", Key: key, Kind: ErrUnavailable, Err: err}
	}
	defer leave()
	return s.Store.ReadAt(ctx, key, p, off)
}

func (s *limitStore) ReadSuffix(ctx context.Context, key string, p []byte) (int, Info, error) {
	leave, err := s.enter(ctx, s.reads)
	if err != nil {
		return 0, Info{}, &Error{Op: "read", Key: key, Kind: ErrUnavailable, Err: err}
	}
	defer leave()
	return s.Store.ReadSuffix(ctx, key, p)
}

func (s *limitStore) Head(ctx context.Context, key string) (Info, error) {
	leave, err := s.enter(ctx, s.reads)
	if err != nil {
		return Info{}, &Error{Op: "head", Key: key, Kind: ErrUnavailable, Err: err}
	}
	defer leave()
	return s.Store.Head(ctx, key)
}

func (s *limitStore) Create(ctx context.Context, key string, body Payload) (Version, error) {
	leave, err := s.enter(ctx, s.writes)
	if err != nil {
		return "", &Error{Op: "create", Key: key, Kind: ErrUnknown, Err: err}
	}
	defer leave()
	return s.Store.Create(ctx, key, body)
}

func (s *limitStore) Swap(ctx context.Context, key string, old Version, body Payload) (Version, error) {
	leave, err := s.enter(ctx, s.writes)
	if err != nil {
		return "", &Error{Op: "swap", Key: key, Kind: ErrUnknown, Err: err}
	}
	defer leave()
	return s.Store.Swap(ctx, key, old, body)
}

func (s *limitStore) Delete(ctx context.Context, keys []string) error {
	leave, err := s.enter(ctx, s.writes)
	if err != nil {
		key := ""
		if len(keys) > 0 {
			key = keys[0]
		}
		return &Error{Op: "delete", Key: key, Kind: ErrUnavailable, Err: err}
	}
	defer leave()
	return s.Store.Delete(ctx, keys)
}

func (s *limitStore) List(ctx context.Context, prefix, after string, limit int) (Page, error) {
	leave, err := s.enter(ctx, s.reads)
	if err != nil {
		return Page{}, &Error{Op: "list", Key: prefix, Kind: ErrUnavailable, Err: err}
	}
	defer leave()
	return s.Store.List(ctx, prefix, after, limit)
}
