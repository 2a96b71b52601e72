package objstore_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tierlog/tierlog/objstore"
	"github.com/tierlog/tierlog/objstore/objtest"
)

func textLog(w io.Writer) *slog.Logger { return slog.New(slog.NewTextHandler(w, nil)) }

// full is a stack with every decorator in use.
func full(base objstore.Store, o objstore.Observer) objstore.Store {
	return objstore.Stack(base, objstore.StackConfig{
		Observer: o,
		Limit:    objstore.LimitConfig{Reads: 8, Writes: 8, Background: 4, PerSecond: 100_000},
		Hedge:    objstore.HedgeConfig{Reads: true, Creates: true, Min: time.Millisecond, Share: 1},
	})
}

func TestStackConformance(t *testing.T) {
	objtest.Conformance(t, func(*testing.T) objstore.Store { return full(objtest.NewMem(), &objstore.Counter{}) })
}

func TestStackConfigValidate(t *testing.T) {
	if err := (objstore.StackConfig{}).Validate(); err != nil {
		t.Error(err)
	}
	for want, cfg := range map[string]objstore.StackConfig{
		"limit: reads is -1":      {Limit: objstore.LimitConfig{Reads: -1}},
		"limit: per second is -2": {Limit: objstore.LimitConfig{PerSecond: -2}},
		"hedge: max is 1ms":       {Hedge: objstore.HedgeConfig{Min: time.Second, Max: time.Millisecond}},
		"hedge: share is 2":       {Hedge: objstore.HedgeConfig{Share: 2}},
		"retry: attempts is -1":   {Retry: objstore.RetryConfig{Attempts: -1}},
		"backoff: first is -1ns":  {Retry: objstore.RetryConfig{Backoff: objstore.Backoff{First: -1}}},
	} {
		if err := cfg.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
}

// TestStackUnderFaults lets several writers append their names to one object by read-modify-replace, over a bad network and
// through all decorators: every name must be there once.
func TestStackUnderFaults(t *testing.T) {
	seed := objtest.Seed(t)
	synctest.Test(t, func(t *testing.T) {
		rates := map[objtest.Fault]float64{}
		for f := objtest.LostReply; f <= objtest.Slow; f++ {
			rates[f] = 0.05
		}
		mem := objtest.NewMem()
		faulty := objtest.NewFaulty(mem, objtest.FaultConfig{Seed: seed, Rates: rates, Late: 300 * time.Millisecond})
		s := full(faulty, &objstore.Counter{})
		if out, _, err := objstore.PutUntil(t.Context(), s, "list", objtest.Body(""), objstore.Persist{}); out != objstore.Mine {
			t.Fatal(out, err)
		}
		const writers, each = 4, 25
		var wg sync.WaitGroup
		for w := range writers {
			wg.Go(func() {
				for i := range each {
					appendName(t, s, fmt.Sprintf("<%d.%d>", w, i))
				}
			})
		}
		wg.Wait()
		faulty.ApplyLate(-1)
		data, _, err := objstore.ReadAll(t.Context(), mem, "list", 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		for w := range writers {
			for i := range each {
				if n := strings.Count(string(data), fmt.Sprintf("<%d.%d>", w, i)); n != 1 {
					t.Errorf("writer %d's entry %d is there %d times", w, i, n)
				}
			}
		}
		if err := faulty.Close(); err != nil {
			t.Error(err)
		}
	})
}

func appendName(t *testing.T, s objstore.Store, name string) {
	for {
		data, info, err := objstore.ReadAll(t.Context(), s, "list", 1<<20)
		if errors.Is(err, objstore.ErrUnavailable) {
			continue
		}
		if err != nil {
			t.Error(err)
			return
		}
		if strings.Contains(string(data), name) {
			return // applied, and then replaced by another writer
		}
		r := objstore.Replacement{Old: info.Version, Body: objtest.Body(string(data[33:]) + name)}
		out, _, err := objstore.ReplaceUntil(t.Context(), s, "list", r, objstore.Persist{})
		if out == objstore.Unknown {
			t.Error(err)
		}
		if out != objstore.Other {
			return
		}
	}
}

// slowStore waits before calls, and records how many are in progress.
type slowStore struct {
	objstore.Store
	wait      time.Duration
	now, most atomic.Int64
}

func (s *slowStore) pause(ctx context.Context) error {
	n := s.now.Add(1)
	defer s.now.Add(-1)
	for m := s.most.Load(); n > m && !s.most.CompareAndSwap(m, n); m = s.most.Load() {
	}
	timer := time.NewTimer(s.wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *slowStore) Head(ctx context.Context, key string) (objstore.Info, error) {
	if err := s.pause(ctx); err != nil {
		return objstore.Info{}, err
	}
	return s.Store.Head(ctx, key)
}

func (s *slowStore) Create(ctx context.Context, key string, body objstore.Payload) (objstore.Version, error) {
	if err := s.pause(ctx); err != nil {
		return "", err
	}
	return s.Store.Create(ctx, key, body)
}

func TestLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		base := &slowStore{Store: objtest.NewMem(), wait: time.Second}
		s := objstore.WithLimit(base, objstore.LimitConfig{Reads: 3, Writes: 2, Background: 1})
		run := func(ctx context.Context, n int, call func(context.Context, int)) time.Duration {
			base.most.Store(0)
			start := time.Now()
			var wg sync.WaitGroup
			for i := range n {
				wg.Go(func() { call(ctx, i) })
			}
			wg.Wait()
			return time.Since(start)
		}
		head := func(ctx context.Context, _ int) { _, _ = s.Head(ctx, "k") }
		create := func(ctx context.Context, i int) { _, _ = s.Create(ctx, fmt.Sprint(i), objtest.Body("")) }
		if d := run(t.Context(), 9, head); d != 3*time.Second || base.most.Load() != 3 {
			t.Errorf("9 reads took %v, %d at once", d, base.most.Load())
		}
		if d := run(t.Context(), 4, create); d != 2*time.Second || base.most.Load() != 2 {
			t.Errorf("4 writes took %v, %d at once", d, base.most.Load())
		}
		rollup := objstore.WithPurpose(t.Context(), objstore.PurposeRollup)
		if d := run(rollup, 3, head); d != 3*time.Second || base.most.Load() != 1 {
			t.Errorf("3 reads in the background took %v, %d at once", d, base.most.Load())
		}
		var wg sync.WaitGroup
		wg.Go(func() { run(rollup, 5, create) })
		synctest.Wait()
		start := time.Now()
		if create(t.Context(), 100); time.Since(start) != time.Second {
			t.Errorf("a write waited %v behind those in the background", time.Since(start))
		}
		wg.Wait()
	})
}

func TestLimitCancelled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		base := &slowStore{Store: objtest.NewMem(), wait: time.Hour}
		s := objstore.WithLimit(base, objstore.LimitConfig{Reads: 1, Writes: 1, Background: 1})
		var wg sync.WaitGroup
		wg.Go(func() { _, _ = s.Head(t.Context(), "k") })
		wg.Go(func() { _, _ = s.Create(t.Context(), "k", objtest.Body("")) })
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := s.Create(ctx, "l", objtest.Body("")); !errors.Is(err, objstore.ErrUnknown) || !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		for _, err := range []error{
			second(s.Head(ctx, "l")), s.Delete(ctx, []string{"l"}), second(s.List(ctx, "", "", 0)),
		} {
			if !errors.Is(err, objstore.ErrUnavailable) || !errors.Is(err, context.DeadlineExceeded) {
				t.Error(err)
			}
		}
		if _, err := s.Head(objstore.WithPurpose(ctx, objstore.PurposeGC), "l"); !errors.Is(err, objstore.ErrUnavailable) {
			t.Error(err)
		}
		wg.Wait()
		if base.most.Load() != 2 {
			t.Errorf("%d calls at once", base.most.Load())
		}
		// All tokens are back.
		ctx, cancel = context.WithTimeout(objstore.WithPurpose(t.Context(), objstore.PurposeGC), time.Second)
		defer cancel()
		if _, err := s.List(ctx, "", "", 0); err != nil {
			t.Error(err)
		}
	})
}

func second[T any](_ T, err error) error { return err }

func TestLimitPerSecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := objstore.WithLimit(objtest.NewMem(), objstore.LimitConfig{PerSecond: 10})
		start := time.Now()
		for range 60 {
			_, _ = s.Head(t.Context(), "k")
		}
		if d := time.Since(start).Round(time.Millisecond); d != 5*time.Second {
			t.Errorf("60 calls at 10 per second after a burst of 10 took %v", d)
		}
	})
}

func TestMetrics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var one, two objstore.Counter
		base := &slowStore{Store: objtest.NewMem(), wait: time.Second}
		var took []time.Duration
		s := objstore.WithMetrics(base, objstore.Observers{&one, &two, observer(func(d time.Duration) { took = append(took, d) })})
		wal := objstore.WithPurpose(t.Context(), objstore.PurposeWAL)
		body := objtest.Body("12345")
		_, _ = s.Create(wal, "k", body)
		earlier := one.Snapshot()
		_, _ = s.Create(wal, "k", body)
		_, _, _ = s.ReadAt(t.Context(), "k", make([]byte, 10), 35)
		_, _, _ = s.ReadSuffix(t.Context(), "k", make([]byte, 10))
		_, _, _ = s.ReadAt(t.Context(), "none", make([]byte, 10), 35)
		_, _ = s.Swap(wal, "k", "?", body)
		_ = s.Delete(wal, []string{"a", "b"})
		_, _ = s.List(wal, "", "", 0)
		want := objstore.Counts{
			{Op: "create", Purpose: "wal", Outcome: "exists"}:         {Requests: 1},
			{Op: "read", Purpose: "unassigned", Outcome: "ok"}:        {Requests: 2, Bytes: 13},
			{Op: "read", Purpose: "unassigned", Outcome: "not_found"}: {Requests: 1},
			{Op: "swap", Purpose: "wal", Outcome: "changed"}:          {Requests: 1},
			{Op: "delete", Purpose: "wal", Outcome: "ok"}:             {Requests: 1},
			{Op: "list", Purpose: "wal", Outcome: "ok"}:               {Requests: 1},
		}
		if got := one.Snapshot().Sub(earlier); !reflect.DeepEqual(got, want) {
			t.Errorf("counted %v, want %v", got, want)
		}
		if got := two.Snapshot().Total(objstore.CountKey{Op: "create"}); got != (objstore.Count{Requests: 2, Bytes: body.Size()}) {
			t.Errorf("creates: %+v", got)
		}
		if got := two.Snapshot().Total(objstore.CountKey{Purpose: "wal", Outcome: "ok"}).Requests; got != 3 {
			t.Errorf("%d ok for wal", got)
		}
		if took[0] != time.Second || took[2] != 0 {
			t.Errorf("durations %v", took)
		}
	})
}

type observer func(d time.Duration)

func (o observer) Observe(_ string, _ objstore.Purpose, _ string, _ int64, d time.Duration) { o(d) }

func TestOutcomeOf(t *testing.T) {
	for want, err := range map[string]error{
		"ok":          nil,
		"not_found":   objstore.ErrNotFound,
		"busy":        &objstore.Error{Kind: objstore.ErrBusy},
		"unknown":     &objstore.Error{Kind: objstore.ErrUnknown, Err: io.ErrUnexpectedEOF},
		"canceled":    &objstore.Error{Kind: objstore.ErrUnavailable, Err: context.Canceled},
		"unavailable": &objstore.Error{Kind: objstore.ErrUnavailable, Err: context.DeadlineExceeded},
		"no_space":    fmt.Errorf("wrapped: %w", objstore.ErrNoSpace),
		"other":       io.EOF,
	} {
		if got := objstore.OutcomeOf(err); got != want {
			t.Errorf("%v is %q, want %q", err, got, want)
		}
	}
}
