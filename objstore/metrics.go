package objstore

import (
	"context"
	"errors"
	"maps"
	"sync"
	"time"
)

// Observer is told of every call that reaches a store. It may be called concurrently and must not block.
type Observer interface {
	// Observe says that a call of op for purpose p took d and ended with outcome, one of the results of OutcomeOf. bytes is what a
	// read returned or what a write that succeeded wrote.
	Observe(op string, p Purpose, outcome string, bytes int64, d time.Duration)
}

// OutcomeOf names a call's error for metrics: "ok", or the kind of the error.
func OutcomeOf(err error) string {
	if err == nil {
		return "ok"
	}
	for _, k := range []struct {
		kind error
		name string
	}{
		{ErrNotFound, "not_found"},
		{ErrExists, "exists"},
		{ErrChanged, "changed"},
		{ErrBusy, "busy"},
		{context.Canceled, "canceled"},
		{ErrUnknown, "unknown"},
		{ErrUnavailable, "unavailable"},
		{ErrDenied, "denied"},
		{ErrNoBucket, "no_bucket"},
		{ErrInvalid, "invalid"},
		{ErrNoSpace, "no_space"},
	} {
		if errors.Is(err, k.kind) {
			return k.name
		}
	}
	return "other"
}

// WithMetrics tells o of every call.
func WithMetrics(base Store, o Observer) Store { return &metricsStore{Store: base, o: o} }

type metricsStore struct {
	Store
	o Observer
}

func (s *metricsStore) tell(ctx context.Context, op string, start time.Time, bytes int64, err error) {
	if err != nil {
		bytes = 0
	}
	s.o.Observe(op, PurposeOf(ctx), OutcomeOf(err), bytes, time.Since(start))
}

func (s *metricsStore) ReadAt(ctx context.Context, key string, p []byte, off int64) (int, Info, error) {
	start := time.Now()
	n, info, err := s.Store.ReadAt(ctx, key, p, off)
	s.tell(ctx, "read", start, int64(n), err)
	return n, info, err
}

func (s *metricsStore) ReadSuffix(ctx context.Context, key string, p []byte) (int, Info, error) {
	start := time.Now()
	n, info, err := s.Store.ReadSuffix(ctx, key, p)
	s.tell(ctx, "read", start, int64(n), err)
	return n, info, err
}

func (s *metricsStore) Head(ctx context.Context, key string) (Info, error) {
	start := time.Now()
	info, err := s.Store.Head(ctx, key)
	s.tell(ctx, "head", start, 0, err)
	return info, err
}

func (s *metricsStore) Create(ctx context.Context, key string, body Payload) (Version, error) {
	start := time.Now()
	v, err := s.Store.Create(ctx, key, body)
	s.tell(ctx, "create", start, body.Size(), err)
	return v, err
}

func (s *metricsStore) Swap(ctx context.Context, key string, old Version, body Payload) (Version, error) {
	start := time.Now()
	v, err := s.Store.Swap(ctx, key, old, body)
	s.tell(ctx, "swap", start, body.Size(), err)
	return v, err
}

func (s *metricsStore) Delete(ctx context.Context, keys []string) error {
	start := time.Now()
	err := s.Store.Delete(ctx, keys)
	s.tell(ctx, "delete", start, 0, err)
	return err
}

func (s *metricsStore) List(ctx context.Context, prefix, after string, limit int) (Page, error) {
	start := time.Now()
	page, err := s.Store.List(ctx, prefix, after, limit)
	s.tell(ctx, "list", start, 0, err)
	return page, err
}

// Counter is an Observer that counts, for tests and budgets. The zero value is ready.
type Counter struct {
	mu     sync.Mutex
	counts Counts // guarded by mu
}

// CountKey is what calls are counted by.
type CountKey struct {
	Op      string
	Purpose Purpose
	Outcome string
}

// Count is how many calls there were, and their bytes.
type Count struct {
	Requests int64
	Bytes    int64
}

// Counts is a state of a Counter.
type Counts map[CountKey]Count

// Observe implements Observer.
func (c *Counter) Observe(op string, p Purpose, outcome string, bytes int64, _ time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.counts == nil {
		c.counts = Counts{}
	}
	k := CountKey{Op: op, Purpose: p, Outcome: outcome}
	n := c.counts[k]
	c.counts[k] = Count{Requests: n.Requests + 1, Bytes: n.Bytes + bytes}
}

// Snapshot returns what was counted so far.
func (c *Counter) Snapshot() Counts {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.counts == nil {
		return Counts{}
	}
	return maps.Clone(c.counts)
}

// Sub returns what was counted since an earlier snapshot.
func (n Counts) Sub(earlier Counts) Counts {
	d := Counts{}
	for k, v := range n {
		e := earlier[k]
		if v != e {
			d[k] = Count{Requests: v.Requests - e.Requests, Bytes: v.Bytes - e.Bytes}
		}
	}
	return d
}

// Total adds up the counts that match k; an empty field of k matches all.
func (n Counts) Total(k CountKey) Count {
	var t Count
	for have, v := range n {
		if (k.Op == "" || k.Op == have.Op) && (k.Purpose == "" || k.Purpose == have.Purpose) && (k.Outcome == "" || k.Outcome == have.Outcome) {
			t.Requests += v.Requests
			t.Bytes += v.Bytes
		}
	}
	return t
}

// Observers tells each of several observers.
type Observers []Observer

// Observe implements Observer.
func (o Observers) Observe(op string, p Purpose, outcome string, bytes int64, d time.Duration) {
	for _, one := range o {
		one.Observe(op, p, outcome, bytes, d)
	}
}
