package objtest_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tierlog/tierlog/objstore"
	"github.com/tierlog/tierlog/objstore/objtest"
)

// scripted returns a store whose first call of each op and key suffers the fault, and what is behind it.
func scripted(fault objtest.Fault) (*objtest.Faulty, *objtest.Mem) {
	base := objtest.NewMem()
	return objtest.NewFaulty(base, objtest.FaultConfig{Script: func(c objtest.Call) objtest.Fault {
		if c.Attempt == 1 {
			return fault
		}
		return objtest.NoFault
	}}), base
}

func TestConformanceWithoutFaults(t *testing.T) {
	objtest.Conformance(t, func(*testing.T) objstore.Store {
		return objtest.NewFaulty(objtest.NewMem(), objtest.FaultConfig{})
	})
	objtest.Conformance(t, func(*testing.T) objstore.Store {
		return objtest.NewRecorder(objtest.NewMem(), objtest.RecorderConfig{})
	})
}

// TestFaultyCreate says for each fault what a create answers, whether it was applied, and what Put makes of it.
func TestFaultyCreate(t *testing.T) {
	for _, c := range []struct {
		fault   objtest.Fault
		kind    error
		applied bool
	}{
		{objtest.NoFault, nil, true},
		{objtest.LostReply, objstore.ErrUnknown, true},
		{objtest.LostRequest, objstore.ErrUnknown, false},
		{objtest.LateApply, objstore.ErrUnknown, false},
		{objtest.Busy, objstore.ErrBusy, false},
		{objtest.OwnExists, objstore.ErrExists, true},
		{objtest.Status503, objstore.ErrUnknown, false},
		{objtest.Truncated, nil, true},
	} {
		t.Run(c.fault.String(), func(t *testing.T) {
			s, base := scripted(c.fault)
			body := objtest.Body("x")
			_, err := s.Create(t.Context(), "k", body)
			if !errors.Is(err, c.kind) || (err != nil) != (c.kind != nil) {
				t.Errorf("create: %v, want %v", err, c.kind)
			}
			if err != nil && !errors.Is(err, objtest.ErrInjected) {
				t.Errorf("%v does not say that it was injected", err)
			}
			if n, _ := base.Size(); (n == 1) != c.applied {
				t.Errorf("applied = %v, want %v", n == 1, c.applied)
			}
			s, _ = scripted(c.fault)
			out, _, err := objstore.Put(t.Context(), s, "k", body)
			for out == objstore.Unknown && err != nil {
				out, _, err = objstore.Put(t.Context(), s, "k", body)
			}
			if out != objstore.Mine {
				t.Errorf("put = %v, %v", out, err)
			}
		})
	}
}

func TestLateApply(t *testing.T) {
	s, base := scripted(objtest.LateApply)
	ctx := t.Context()
	data := []byte("first 0123456789")
	_, err := s.Create(ctx, "k", objstore.Bytes(data))
	if !errors.Is(err, objstore.ErrUnknown) {
		t.Fatal(err)
	}
	copy(data, "buffer used anew") // allowed once the call has returned
	if _, err := s.Create(ctx, "l", objstore.Bytes([]byte("late too"))); !errors.Is(err, objstore.ErrUnknown) {
		t.Fatal(err)
	}
	if n, _ := base.Size(); n != 0 || s.Late() != 2 {
		t.Fatalf("%d objects, %d late", n, s.Late())
	}
	if _, err := s.Create(ctx, "l", objstore.Bytes([]byte("in time"))); err != nil {
		t.Fatal(err)
	}
	if s.ApplyLate(1) != 1 || s.Late() != 1 || s.ApplyLate(-1) != 1 || s.ApplyLate(-1) != 0 {
		t.Error("wrong number of late calls")
	}
	for key, want := range map[string]string{"k": "first 0123456789", "l": "in time"} {
		got, _, err := objstore.ReadAll(ctx, base, key, 100)
		if err != nil || string(got) != want {
			t.Errorf("%s holds %q, %v; want %q", key, got, err, want)
		}
	}
}

func TestLateApplyByTimer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		base := objtest.NewMem()
		s := objtest.NewFaulty(base, objtest.FaultConfig{
			Late: time.Minute, Rates: map[objtest.Fault]float64{objtest.LateApply: 1},
		})
		if _, err := s.Create(t.Context(), "k", objtest.Body("")); !errors.Is(err, objstore.ErrUnknown) {
			t.Fatal(err)
		}
		time.Sleep(59 * time.Second)
		synctest.Wait()
		if n, _ := base.Size(); n != 0 {
			t.Error("applied too early")
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if n, _ := base.Size(); n != 1 || s.Late() != 0 {
			t.Error("not applied")
		}
	})
}

func TestSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		base := objtest.NewMem()
		s := objtest.NewFaulty(base, objtest.FaultConfig{
			Slow: time.Minute, Rates: map[objtest.Fault]float64{objtest.Slow: 1},
		})
		start := time.Now()
		if _, err := s.Create(t.Context(), "k", objtest.Body("")); err != nil {
			t.Fatal(err)
		}
		if d := time.Since(start); d < 30*time.Second || d > 90*time.Second {
			t.Errorf("took %v", d)
		}
		applied := 0
		for i := range 100 {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			_, err := s.Create(ctx, fmt.Sprint(i), objtest.Body(""))
			cancel()
			if !errors.Is(err, objstore.ErrUnknown) || !errors.Is(err, context.DeadlineExceeded) {
				t.Fatal(err)
			}
			if _, err := base.Head(t.Context(), fmt.Sprint(i)); err == nil {
				applied++
			}
		}
		if applied < 20 || applied > 80 {
			t.Errorf("%d of 100 timed out calls were applied, want about half", applied)
		}
	})
}

func TestTruncated(t *testing.T) {
	s, _ := scripted(objtest.Truncated)
	want := bytes.Repeat([]byte("x"), 100)
	if _, err := s.Create(t.Context(), "k", objstore.Bytes(want)); err != nil {
		t.Fatal(err)
	}
	p := make([]byte, 100)
	n, _, err := s.ReadAt(t.Context(), "k", p, 0)
	if n != 0 || !errors.Is(err, objstore.ErrUnavailable) || bytes.Equal(p, want) {
		t.Errorf("read %d, %v", n, err)
	}
	n, _, err = s.ReadAt(t.Context(), "k", p, 0)
	if n != 100 || err != nil || !bytes.Equal(p, want) {
		t.Errorf("second read %d, %v", n, err)
	}
}

// TestSeeded: the same seed gives the same faults, whatever the order of the calls; another seed gives others; rates hold.
func TestSeeded(t *testing.T) {
	run := func(seed uint64, reverse bool) map[string]string {
		rates := map[objtest.Fault]float64{
			objtest.LostReply: 0.1, objtest.LostRequest: 0.1, objtest.Busy: 0.1, objtest.Reset: 0.1, objtest.Status500: 0.1,
		}
		s := objtest.NewFaulty(objtest.NewMem(), objtest.FaultConfig{Seed: seed, Rates: rates})
		results := map[string]string{}
		for i := range 1000 {
			if reverse {
				i = 999 - i
			}
			key := fmt.Sprintf("k%d", i%500)
			_, err := s.Create(t.Context(), key, objtest.Body(""))
			results[fmt.Sprint(key, len(results[key]) > 0)] += fmt.Sprint(err)
		}
		counts := s.Counts()
		for f := range rates {
			if counts[f] < 60 || counts[f] > 140 {
				t.Errorf("seed %d: %v happened %d times, want about 100", seed, f, counts[f])
			}
		}
		return results
	}
	seed := objtest.Seed(t)
	first := run(seed, false)
	if !maps.Equal(first, run(seed, true)) {
		t.Error("the same seed gave other faults")
	}
	if maps.Equal(first, run(seed+1, false)) {
		t.Error("another seed gave the same faults")
	}
}

func TestHooksAndCut(t *testing.T) {
	killed := errors.New("killed")
	base := objtest.NewMem()
	var mu sync.Mutex
	var calls []string
	kill := ""
	s := objtest.NewFaulty(base, objtest.FaultConfig{
		Before: func(_ context.Context, c objtest.Call) error {
			mu.Lock()
			defer mu.Unlock()
			calls = append(calls, fmt.Sprintf("%s %s %s %d", c.Purpose, c.Op, c.Key, c.Attempt))
			if kill == "before" {
				return killed
			}
			return nil
		},
		After: func(context.Context, objtest.Call, error) error {
			if kill == "after" {
				return killed
			}
			return nil
		},
	})
	ctx := objstore.WithPurpose(t.Context(), objstore.PurposeWAL)
	kill = "before"
	if _, err := s.Create(ctx, "k", objtest.Body("")); !errors.Is(err, killed) || !errors.Is(err, objstore.ErrUnknown) {
		t.Error(err)
	}
	if n, _ := base.Size(); n != 0 {
		t.Error("applied though killed before")
	}
	kill = "after"
	if _, err := s.Create(ctx, "k", objtest.Body("")); !errors.Is(err, killed) || !errors.Is(err, objstore.ErrUnknown) {
		t.Error(err)
	}
	if n, _ := base.Size(); n != 1 {
		t.Error("not applied though killed after")
	}
	kill = ""
	if err := s.Delete(ctx, []string{"a", "b"}); err != nil {
		t.Error(err)
	}
	want := []string{"wal create k 1", "wal create k 2", "wal delete a 1"}
	if fmt.Sprint(calls) != fmt.Sprint(want) {
		t.Errorf("calls are %q, want %q", calls, want)
	}
	s.Cut()
	if _, err := s.Create(ctx, "l", objtest.Body("")); !errors.Is(err, objstore.ErrUnknown) {
		t.Error(err)
	}
	if _, err := s.Head(ctx, "k"); !errors.Is(err, objstore.ErrUnavailable) {
		t.Error(err)
	}
	s.Heal()
	if _, err := s.Head(ctx, "k"); err != nil {
		t.Error(err)
	}
	if _, err := base.Head(ctx, "l"); !errors.Is(err, objstore.ErrNotFound) {
		t.Error("a cut store applied a create")
	}
}

// TestPutUnderFaults drives Put and Replace over a bad network: Mine and Other must be true.
func TestPutUnderFaults(t *testing.T) {
	seed := objtest.Seed(t)
	rates := map[objtest.Fault]float64{}
	for f := objtest.LostReply; f <= objtest.Truncated; f++ {
		rates[f] = 0.08
	}
	base := objtest.NewMem()
	s := objtest.NewFaulty(base, objtest.FaultConfig{Seed: seed, Rates: rates})
	for slot := range 200 {
		key := fmt.Sprintf("slot/%d", slot)
		bodies := []*objstore.Parts{objtest.Body("a"), objtest.Body("b"), objtest.Body("c")}
		outs := make([]objstore.Outcome, len(bodies))
		for round := range 100 {
			for i, body := range bodies {
				if outs[i] == objstore.Unknown {
					outs[i], _, _ = objstore.Put(t.Context(), s, key, body)
				}
			}
			if round%3 == 2 {
				s.ApplyLate(1)
			}
		}
		s.ApplyLate(-1)
		got, _, err := objstore.ReadAll(t.Context(), base, key, 100)
		if err != nil {
			t.Fatal(err)
		}
		for i, body := range bodies {
			mine := make([]byte, body.Size())
			_, _ = body.Reader().Read(mine)
			if want := bytes.Equal(mine, got); outs[i] == objstore.Unknown || want != (outs[i] == objstore.Mine) {
				t.Fatalf("%s: writer %d was told %v, its bytes are there: %v", key, i, outs[i], want)
			}
		}
	}
	if len(s.Counts()) < 9 {
		t.Errorf("only %v happened", s.Counts())
	}
}

func TestRecorder(t *testing.T) {
	r := objtest.NewRecorder(objtest.NewMem(), objtest.RecorderConfig{
		NoSizes: func(c objtest.Call) bool { return c.Op == "swap" },
		Skip:    func(c objtest.Call) bool { return c.Purpose == objstore.PurposeLease },
		Names:   map[string]string{"my-cluster": "CLUSTER"},
	})
	ctx := objstore.WithPurpose(t.Context(), objstore.PurposeManifest)
	v, err := r.Create(ctx, "my-cluster/wal/7/checkpoint/3-01ARZ3NDEKTSV4RRFFQ69G5FAV", objtest.Body("x"))
	if err != nil {
		t.Fatal(err)
	}
	r.Note("phase %d", 2)
	_, _ = r.Swap(ctx, "my-cluster/wal/7/checkpoint/3-01ARZ3NDEKTSV4RRFFQ69G5FAV", v, objtest.Body("y"))
	_, _ = r.Create(t.Context(), "topics/name.AbCdEfGhIjKlMnOpQrStUv/0/0f8fad5b-d9cb-469f-a165-70867728950e", objstore.Bytes())
	_, _ = r.Create(t.Context(), "topics/name.AbCdEfGhIjKlMnOpQrStUv/0/0f8fad5b-d9cb-469f-a165-70867728950e", objstore.Bytes())
	_, _ = r.Create(ctx, "wal/00000000000000000003/d41d8cd98f00b204e9800998ecf8427e", objstore.Bytes())
	_, _, _ = r.ReadAt(ctx, "none", make([]byte, 3), 0)
	_, _, _ = r.ReadSuffix(ctx, "wal/00000000000000000003/d41d8cd98f00b204e9800998ecf8427e", make([]byte, 3))
	_, _ = r.Head(objstore.WithPurpose(ctx, objstore.PurposeLease), "none")
	_, _ = r.List(ctx, "topics/", "", 0)
	_ = r.Delete(ctx, []string{"a", "b"})
	r.Golden(t, "recorder.golden")
}
