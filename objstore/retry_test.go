package objstore_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tierlog/tierlog/objstore"
	"github.com/tierlog/tierlog/objstore/objtest"
)

// failing returns a store whose calls of op fail n times, and what counts the requests.
func failing(op string, n int, fault objtest.Fault) (objstore.Store, *objstore.Counter) {
	counter := &objstore.Counter{}
	faulty := objtest.NewFaulty(objtest.NewMem(), objtest.FaultConfig{Script: func(c objtest.Call) objtest.Fault {
		if c.Op == op && c.Attempt <= n {
			return fault
		}
		return objtest.NoFault
	}})
	return objstore.WithMetrics(faulty, counter), counter
}

func requests(c *objstore.Counter, op string) int64 {
	return c.Snapshot().Total(objstore.CountKey{Op: op}).Requests
}

func TestRetry(t *testing.T) {
	calls := map[string]func(context.Context, objstore.Store) error{
		"read": func(ctx context.Context, s objstore.Store) error {
			_, _, err := s.ReadAt(ctx, "k", make([]byte, 1), 0)
			return err
		},
		"head":   func(ctx context.Context, s objstore.Store) error { _, err := s.Head(ctx, "k"); return err },
		"list":   func(ctx context.Context, s objstore.Store) error { _, err := s.List(ctx, "k", "", 0); return err },
		"delete": func(ctx context.Context, s objstore.Store) error { return s.Delete(ctx, []string{"k"}) },
		"create": func(ctx context.Context, s objstore.Store) error {
			_, err := s.Create(ctx, "l", objtest.Body(""))
			return err
		},
		"swap": func(ctx context.Context, s objstore.Store) error {
			_, err := s.Swap(ctx, "k", "1", objtest.Body(""))
			return err
		},
	}
	for op, call := range calls {
		t.Run(op, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				base, counter := failing(op, 3, objtest.Status503)
				s := objstore.WithRetry(base, objstore.RetryConfig{})
				if op != "create" {
					if _, err := s.Create(t.Context(), "k", objtest.Body("")); err != nil {
						t.Fatal(err)
					}
				}
				err := call(t.Context(), s)
				if op == "create" || op == "swap" {
					if !errors.Is(err, objstore.ErrUnknown) {
						t.Errorf("%v, want it unknown: a decorator must not retry it", err)
					}
					return
				}
				if err != nil || requests(counter, op) != 4 {
					t.Errorf("%v after %d requests", err, requests(counter, op))
				}
			})
		})
	}
}

func TestRetryGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		base, counter := failing("head", 1000, objtest.Status503)
		s := objstore.WithRetry(base, objstore.RetryConfig{Attempts: 3, Budget: 5})
		start := time.Now()
		_, err := s.Head(t.Context(), "k")
		if !errors.Is(err, objstore.ErrUnavailable) || requests(counter, "head") != 3 {
			t.Errorf("%v after %d requests", err, requests(counter, "head"))
		}
		if d := time.Since(start); d < 75*time.Millisecond || d > 150*time.Millisecond {
			t.Errorf("waited %v in all, want 50 and 100 ms less up to a half", d)
		}
		for range 10 {
			_, _ = s.Head(t.Context(), "k")
		}
		if n := requests(counter, "head"); n != 11+5 {
			t.Errorf("11 calls made %d requests with a budget of 5 retries", n)
		}
		for range 10 {
			_, _ = s.List(t.Context(), "", "", 0) // ten that succeed earn one retry
		}
		_, _ = s.Head(t.Context(), "k")
		if n := requests(counter, "head"); n != 11+5+2 {
			t.Errorf("%d requests after one retry was earned", n)
		}
	})
}

func TestRetryStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		base, counter := failing("head", 1000, objtest.Status503)
		s := objstore.WithRetry(base, objstore.RetryConfig{Attempts: 100})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		_, err := s.Head(ctx, "k")
		if !errors.Is(err, objstore.ErrUnavailable) || time.Since(start) != time.Second {
			t.Errorf("%v after %v", err, time.Since(start))
		}
		before := requests(counter, "head")
		if _, err := s.Head(ctx, "k"); err == nil || requests(counter, "head") != before+1 {
			t.Errorf("a call whose context has ended was retried: %v", err)
		}
		base, counter = failing("none", 0, objtest.NoFault)
		s = objstore.WithRetry(base, objstore.RetryConfig{})
		if _, err := s.Head(t.Context(), "k"); !errors.Is(err, objstore.ErrNotFound) || requests(counter, "head") != 1 {
			t.Errorf("a missing object was asked for %d times: %v", requests(counter, "head"), err)
		}
	})
}

func TestBackoff(t *testing.T) {
	most := objstore.Backoff{Jitter: func() float64 { return 1 }}
	least := objstore.Backoff{Jitter: func() float64 { return 0 }}
	for n, want := range map[int]time.Duration{1: 50, 2: 100, 3: 200, 4: 400, 6: 1600, 7: 2000, 8: 2000, 1000: 2000} {
		if d := most.Delay(n); d != want*time.Millisecond {
			t.Errorf("longest wait after attempt %d is %v", n, d)
		}
		if d := least.Delay(n); d != want*time.Millisecond/2 {
			t.Errorf("shortest wait after attempt %d is %v", n, d)
		}
	}
}

func TestPutUntil(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, fault := range []objtest.Fault{objtest.LostReply, objtest.LostRequest, objtest.Busy, objtest.Status500, objtest.OwnExists} {
			base, counter := failing("create", 7, fault)
			out, v, err := objstore.PutUntil(t.Context(), base, "k", objtest.Body(""), objstore.Persist{})
			if out != objstore.Mine || err != nil || v == "" {
				t.Errorf("%v: %v, %q, %v after %d requests", fault, out, v, err, requests(counter, "create"))
			}
			out, _, err = objstore.PutUntil(t.Context(), base, "k", objtest.Body(""), objstore.Persist{})
			if out != objstore.Other || err != nil {
				t.Errorf("%v: second writer: %v, %v", fault, out, err)
			}
		}
	})
}

func TestPutUntilEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		base, _ := failing("create", 1<<30, objtest.Status503)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		out, _, err := objstore.PutUntil(ctx, base, "k", objtest.Body(""), objstore.Persist{})
		if out != objstore.Unknown || !errors.Is(err, objstore.ErrUnknown) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v, %v", out, err)
		}
		start := time.Now()
		out, _, err = objstore.PutUntil(t.Context(), base, "bad//key", objtest.Body(""), objstore.Persist{})
		if out != objstore.Unknown || err == nil {
			t.Errorf("%v, %v", out, err)
		}
		if !errors.Is(err, objstore.ErrInvalid) && time.Since(start) > 0 {
			t.Errorf("an invalid key was tried again: %v", err)
		}
	})
}

// denied refuses creates a number of times.
type denied struct {
	objstore.Store
	left int
}

func (d *denied) Create(ctx context.Context, key string, body objstore.Payload) (objstore.Version, error) {
	if d.left--; d.left >= 0 {
		return "", &objstore.Error{Op: "create", Key: key, Kind: objstore.ErrDenied}
	}
	return d.Store.Create(ctx, key, body)
}

func TestPutUntilCredentialsAreRepaired(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log strings.Builder
		s := &denied{Store: objtest.NewMem(), left: 3}
		out, _, err := objstore.PutUntil(t.Context(), s, "some/key", objtest.Body(""), objstore.Persist{Log: textLog(&log)})
		if out != objstore.Mine || err != nil {
			t.Errorf("%v, %v", out, err)
		}
		if n := strings.Count(log.String(), "access denied"); n != 3 || !strings.Contains(log.String(), "key=some/key attempt=3") {
			t.Errorf("log is:\n%s", log.String())
		}
	})
}

// TestPutUntilAttempt: an attempt that hangs is ended and repeated.
func TestPutUntilAttempt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := objtest.NewFaulty(objtest.NewMem(), objtest.FaultConfig{
			Slow: time.Hour,
			Script: func(c objtest.Call) objtest.Fault {
				if c.Op == "create" && c.Attempt < 3 {
					return objtest.Slow
				}
				return objtest.NoFault
			},
		})
		start := time.Now()
		out, _, err := objstore.PutUntil(t.Context(), s, "k", objtest.Body(""), objstore.Persist{Attempt: 3 * time.Second})
		if out != objstore.Mine || err != nil || time.Since(start) > 7*time.Second {
			t.Errorf("%v, %v after %v", out, err, time.Since(start))
		}
	})
}

func TestReplaceUntil(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, fault := range []objtest.Fault{objtest.LostReply, objtest.LostRequest, objtest.Busy, objtest.Status500, objtest.OwnExists} {
			base, _ := failing("swap", 5, fault)
			v, err := base.Create(t.Context(), "k", objtest.Body("1"))
			if err != nil {
				t.Fatal(err)
			}
			body := objtest.Body("2")
			out, v2, err := objstore.ReplaceUntil(t.Context(), base, "k", objstore.Replacement{Old: v, Body: body}, objstore.Persist{})
			if out != objstore.Mine || err != nil || v2 == v {
				t.Errorf("%v: %v, %q, %v", fault, out, v2, err)
			}
			out, v3, err := objstore.ReplaceUntil(t.Context(), base, "k", objstore.Replacement{Old: v, Body: objtest.Body("3")}, objstore.Persist{})
			if out != objstore.Other || err != nil || v3 != v2 {
				t.Errorf("%v: second writer: %v, %q, %v", fault, out, v3, err)
			}
			if err := base.Delete(t.Context(), []string{"k"}); err != nil {
				t.Fatal(err)
			}
			out, _, err = objstore.ReplaceUntil(t.Context(), base, "k", objstore.Replacement{Old: v, Body: objtest.Body("4")}, objstore.Persist{})
			if out != objstore.Unknown || !errors.Is(err, objstore.ErrChanged) {
				t.Errorf("%v: object is gone: %v, %v", fault, out, err)
			}
		}
	})
}

// TestReplaceUntilReadFails: a refused swap whose occupant can not be read for a while is not the end.
func TestReplaceUntilReadFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := objtest.NewFaulty(objtest.NewMem(), objtest.FaultConfig{Script: func(c objtest.Call) objtest.Fault {
			switch {
			case c.Op == "swap" && c.Attempt == 1:
				return objtest.LostReply
			case c.Op == "read" && c.Attempt <= 4:
				return objtest.Status503
			}
			return objtest.NoFault
		}})
		v, err := s.Create(t.Context(), "k", objtest.Body("1"))
		if err != nil {
			t.Fatal(err)
		}
		out, _, err := objstore.ReplaceUntil(t.Context(), s, "k", objstore.Replacement{Old: v, Body: objtest.Body("2")}, objstore.Persist{})
		if out != objstore.Mine || err != nil {
			t.Errorf("%v, %v", out, err)
		}
	})
}
