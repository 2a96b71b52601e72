package objstore

import (
	"context"
	"errors"
	"fmt"
	"sync"
)

// RetryConfig says how WithRetry repeats what failed for a passing reason. The zero value is usable.
type RetryConfig struct {
	Backoff
	// Attempts is how often a call is tried in all; 0 means 5, 1 means no retry.
	Attempts int
	// Budget is how many retries may be made in a row by all calls together; 0 means 100. Ten calls that succeed earn
	// one back, so that a store that is down is not asked five times as often.
	Budget int
}

const (
	defaultAttempts = 5
	defaultBudget   = 100
	callsPerRetry   = 10 // that have to succeed to earn one
)

// Validate names the field that is out of range.
func (c RetryConfig) Validate() error {
	switch {
	case c.Attempts < 0:
		return fmt.Errorf("retry: attempts is %d, must not be negative", c.Attempts)
	case c.Budget < 0:
		return fmt.Errorf("retry: budget is %d, must not be negative", c.Budget)
	}
	return c.Backoff.Validate()
}

// WithRetry repeats reads, lists and deletes that end with ErrUnavailable. Creates and swaps go through as they are:
// what their failure means is for Put and Replace to find out.
func WithRetry(base Store, cfg RetryConfig) Store {
	if cfg.Attempts == 0 {
		cfg.Attempts = defaultAttempts
	}
	if cfg.Budget == 0 {
		cfg.Budget = defaultBudget
	}
	return &retryStore{Store: base, cfg: cfg, left: callsPerRetry * cfg.Budget}
}

type retryStore struct {
	Store
	cfg RetryConfig

	mu   sync.Mutex
	left int // of the budget, in parts of a retry that one call earns; guarded by mu
}

func (s *retryStore) do(ctx context.Context, f func() error) error {
	for n := 1; ; n++ {
		err := f()
		if !errors.Is(err, ErrUnavailable) {
			s.earn()
			return err
		}
		if n == s.cfg.Attempts || ctx.Err() != nil || !s.spend() {
			return err
		}
		if s.cfg.Wait(ctx, n) != nil {
			return err
		}
	}
}

func (s *retryStore) earn() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.left = min(s.left+1, callsPerRetry*s.cfg.Budget)
}

func (s *retryStore) spend() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.left < callsPerRetry {
		return false
	}
	s.left -= callsPerRetry
	return true
}

func (s *retryStore) ReadAt(ctx context.Context, key string, p []byte, off int64) (n int, info Info, err error) {
	err = s.do(ctx, func() error {
		n, info, err = s.Store.ReadAt(ctx, key, p, off)
		return err
	})
	return n, info, err
}

func (s *retryStore) ReadSuffix(ctx context.Context, key string, p []byte) (n int, info Info, err error) {
	err = s.do(ctx, func() error {
		n, info, err = s.Store.ReadSuffix(ctx, key, p)
		return err
	})
	return n, info, err
}

func (s *retryStore) Head(ctx context.Context, key string) (info Info, err error) {
	err = s.do(ctx, func() error {
		info, err = s.Store.Head(ctx, key)
		return err
	})
	return info, err
}

func (s *retryStore) Delete(ctx context.Context, keys []string) error {
	return s.do(ctx, func() error { return s.Store.Delete(ctx, keys) })
}

func (s *retryStore) List(ctx context.Context, prefix, after string, limit int) (page Page, err error) {
	err = s.do(ctx, func() error {
		page, err = s.Store.List(ctx, prefix, after, limit)
		return err
	})
	return page, err
}
