package slotlog_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tierlog/tierlog/objstore"
	"github.com/tierlog/tierlog/objstore/objtest"
	"github.com/tierlog/tierlog/tiered/logid"
	"github.com/tierlog/tierlog/tiered/slotlog"
)

func key(s logid.Slot) string { return "log/" + s.Key() }

func isFence(head []byte) bool { return bytes.Contains(head, []byte("fence")) }

// open returns a log of small reads over the store.
func open(t *testing.T, s objstore.Store) *slotlog.Log {
	t.Helper()
	l, err := slotlog.New(slotlog.Config{Store: s, Key: key, IsFence: isFence, TailSize: 128, Persist: objstore.Persist{Backoff: objstore.Backoff{First: time.Millisecond, Max: 10 * time.Millisecond}}})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func fence(by string) func(logid.Slot) objstore.Payload {
	return func(logid.Slot) objstore.Payload { return objtest.Body("fence by " + by) }
}

// bodies returns what the log holds: the rest of each body after its nonce.
func bodies(t *testing.T, l *slotlog.Log, from logid.Slot) ([]string, slotlog.End) {
	t.Helper()
	var out []string
	end, err := l.Walk(t.Context(), from, func(o slotlog.Object) error {
		if want := from + logid.Slot(len(out)); o.Slot != want {
			t.Errorf("visited slot %d, want %d", o.Slot, want)
		}
		out = append(out, rest(o.Data))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out, end
}

// rest strips the nonce that objtest.Body puts first.
func rest(b []byte) string {
	s := string(b)
	return s[strings.LastIndexByte(s, ' ')+1:]
}

// collector gathers the reports of a Writer.
type collector struct {
	mu    sync.Mutex
	slots []logid.Slot
	errs  []error
}

func (c *collector) done(s logid.Slot) func(error) {
	return func(err error) {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.slots = append(c.slots, s)
		c.errs = append(c.errs, err)
	}
}

func put(t *testing.T, w *slotlog.Writer, c *collector, text string) {
	t.Helper()
	s := w.Next()
	if err := w.Put(t.Context(), s, objtest.Body(text), c.done(s)); err != nil {
		t.Fatalf("put slot %d: %v", s, err)
	}
}

func TestConfigNamesTheBadField(t *testing.T) {
	mem := objtest.NewMem()
	for field, cfg := range map[string]slotlog.Config{
		"Store":     {Key: key},
		"Key":       {Store: mem},
		"TailSize":  {Store: mem, Key: key, TailSize: slotlog.HeadSize - 1},
		"InFlight":  {Store: mem, Key: key, InFlight: -1},
		"ReadAhead": {Store: mem, Key: key, ReadAhead: -1},
		"first":     {Store: mem, Key: key, Persist: objstore.Persist{Backoff: objstore.Backoff{First: -1}}},
	} {
		if _, err := slotlog.New(cfg); err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("New without a good %s = %v, want an error that names it", field, err)
		}
	}
}

func TestWriterReportsInSlotOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		// Earlier slots take longer, so that they finish last.
		store := objtest.NewFaulty(objtest.NewMem(), objtest.FaultConfig{Before: func(_ context.Context, c objtest.Call) error {
			if c.Op == "create" {
				s, err := logid.ParseSlot(strings.TrimPrefix(c.Key, "log/"))
				if err != nil {
					return err
				}
				time.Sleep(time.Duration(10-s) * time.Second)
			}
			return nil
		}})
		l := open(t, store)
		w := l.NewWriter(1)
		var c collector
		begin := time.Now()
		for i := range 4 {
			put(t, w, &c, fmt.Sprint("x", i))
		}
		if d := time.Since(begin); d != 0 {
			t.Errorf("four puts waited %v, want none", d)
		}
		put(t, w, &c, "x4")
		if d := time.Since(begin); d != 9*time.Second {
			t.Errorf("the fifth put was admitted after %v, want 9s, when the first slot was reported", d)
		}
		w.Wait()
		if want := []logid.Slot{1, 2, 3, 4, 5}; !slices.Equal(c.slots, want) {
			t.Errorf("reports for %v, want %v", c.slots, want)
		}
		if err := errors.Join(c.errs...); err != nil {
			t.Error(err)
		}
		if got, end := bodies(t, l, 1); !slices.Equal(got, []string{"x0", "x1", "x2", "x3", "x4"}) || end.Slot != 6 || end.Fence != nil {
			t.Errorf("log holds %v, ends at %d", got, end.Slot)
		}
	})
}

func TestWriterSeesThroughFaults(t *testing.T) {
	for _, f := range []objtest.Fault{
		objtest.LostReply, objtest.LostRequest, objtest.Busy, objtest.OwnExists, objtest.Status500, objtest.Status503, objtest.Reset, objtest.LateApply,
	} {
		t.Run(f.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				mem := objtest.NewMem()
				store := objtest.NewFaulty(mem, objtest.FaultConfig{Seed: 1, Late: 3 * time.Millisecond, Script: func(c objtest.Call) objtest.Fault {
					if c.Op == "create" && c.Attempt <= 2 {
						return f
					}
					return objtest.NoFault
				}})
				w := open(t, store).NewWriter(0)
				var c collector
				for i := range 10 {
					put(t, w, &c, fmt.Sprint(i))
				}
				w.Wait()
				if err := errors.Join(c.errs...); err != nil || len(c.errs) != 10 {
					t.Fatalf("%d reports: %v", len(c.errs), err)
				}
				got, _ := bodies(t, open(t, mem), 0)
				if want := []string{"0", "1", "2", "3", "4", "5", "6", "7", "8", "9"}; !slices.Equal(got, want) {
					t.Errorf("log holds %v", got)
				}
				time.Sleep(time.Minute) // let what is late arrive: it must not change anything
				if after, _ := bodies(t, open(t, mem), 0); !slices.Equal(after, got) {
					t.Errorf("log held %v, then %v", got, after)
				}
			})
		})
	}
}

func TestWriterLosesToFence(t *testing.T) {
	mem := objtest.NewMem()
	l := open(t, mem)
	w := l.NewWriter(0)
	var c collector
	put(t, w, &c, "a")
	put(t, w, &c, "b")
	w.Wait()
	end, err := l.Fence(t.Context(), 0, fence("taker"))
	if err != nil || end.Slot != 2 || !end.Mine || !slices.Equal(end.Found, []logid.Slot{0, 1}) {
		t.Fatalf("Fence = %+v, %v", end, err)
	}
	var first error
	if err := w.Put(t.Context(), 2, objtest.Body("zombie"), func(err error) { first = err }); err != nil {
		t.Fatal(err)
	}
	w.Wait()
	var lost *slotlog.LostError
	if !errors.As(first, &lost) || lost.Slot != 2 || !lost.Fence || !bytes.Contains(lost.Head, []byte("fence by taker")) || !slotlog.Fenced(first) {
		t.Fatalf("zombie's put = %v (%+v)", first, lost)
	}
	if err := w.Put(t.Context(), 3, objtest.Body("zombie"), func(error) { t.Error("done called") }); !errors.Is(err, slotlog.ErrBroken) || !slotlog.Fenced(err) {
		t.Errorf("put after the fence = %v, want ErrBroken with the cause", err)
	}
	if w.Err() == nil {
		t.Error("Err is nil after a fence")
	}
	if got, end := bodies(t, l, 0); !slices.Equal(got, []string{"a", "b"}) || end.Slot != 2 || end.Fence == nil {
		t.Errorf("log holds %v, ends at %d", got, end.Slot)
	}
}

// A slot that fails breaks the ones after it that were in flight, even if their own PUT succeeded.
func TestFailureBreaksLaterSlots(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := objtest.NewFaulty(objtest.NewMem(), objtest.FaultConfig{Script: func(c objtest.Call) objtest.Fault {
			if c.Op == "create" && c.Key == key(1) {
				return objtest.Status503
			}
			return objtest.NoFault
		}})
		w := open(t, store).NewWriter(0)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		var c collector
		for s := range logid.Slot(4) {
			if err := w.Put(ctx, s, objtest.Body("x"), c.done(s)); err != nil {
				t.Fatal(err)
			}
		}
		w.Wait()
		if len(c.errs) != 4 || c.errs[0] != nil || !errors.Is(c.errs[1], slotlog.ErrUnresolved) || !errors.Is(c.errs[1], context.DeadlineExceeded) {
			t.Fatalf("reports: %v", c.errs)
		}
		for _, err := range c.errs[2:] {
			if !errors.Is(err, slotlog.ErrBroken) || !errors.Is(err, slotlog.ErrUnresolved) {
				t.Errorf("later slot: %v, want ErrBroken with the cause", err)
			}
		}
	})
}

func TestPutRefusesWrongSlot(t *testing.T) {
	w := open(t, objtest.NewMem()).NewWriter(5)
	for _, s := range []logid.Slot{4, 6} {
		if err := w.Put(t.Context(), s, objtest.Body("x"), func(error) { t.Error("done called") }); err == nil {
			t.Errorf("put at slot %d of a writer at 5 was accepted", s)
		}
	}
}

func TestFencePassesLateObjects(t *testing.T) {
	mem := objtest.NewMem()
	plain := open(t, mem)
	w := plain.NewWriter(0)
	var c collector
	put(t, w, &c, "a")
	w.Wait()
	// The old writer's next slots get in between the fencer's walk and its own create.
	store := objtest.NewFaulty(mem, objtest.FaultConfig{Before: func(_ context.Context, call objtest.Call) error {
		if call.Op == "create" && call.Attempt == 1 && w.Next() < 3 {
			put(t, w, &c, "late")
			w.Wait()
		}
		return nil
	}})
	end, err := open(t, store).Fence(t.Context(), 0, fence("taker"))
	if err != nil || end.Slot != 3 || !end.Mine || !slices.Equal(end.Found, []logid.Slot{0, 1, 2}) {
		t.Fatalf("Fence = %+v, %v", end, err)
	}
	if err := errors.Join(c.errs...); err != nil {
		t.Errorf("what the fence passed was acknowledged: %v", err)
	}
}

func TestFenceMeetsOrphans(t *testing.T) {
	mem := objtest.NewMem()
	l := open(t, mem)
	for _, s := range []logid.Slot{0, 2, 3} { // slot 1 is missing: its PUT was in flight when the writer died
		if err := l.Put(t.Context(), s, objtest.Body("x")); err != nil {
			t.Fatal(err)
		}
	}
	end, err := l.Fence(t.Context(), 0, fence("taker"))
	if err != nil || end.Slot != 1 || !slices.Equal(end.Found, []logid.Slot{0}) {
		t.Fatalf("Fence = %+v, %v; want the first missing slot, 1", end, err)
	}
	if _, end := bodies(t, l, 0); end.Slot != 1 || end.Fence == nil {
		t.Errorf("log ends at %d, want the fence at 1", end.Slot)
	}
	again, err := l.Fence(t.Context(), 0, fence("another"))
	if err != nil || again.Slot != 1 || again.Mine {
		t.Errorf("second Fence = %+v, %v; want the first one's", again, err)
	}
}

func TestFenceRefusesLargeAndUnrecognised(t *testing.T) {
	l := open(t, objtest.NewMem())
	large := func(logid.Slot) objstore.Payload { return objtest.Body("fence" + strings.Repeat("x", 200)) }
	if _, err := l.Fence(t.Context(), 0, large); err == nil || !strings.Contains(err.Error(), "TailSize") {
		t.Errorf("a fence that Walk can not recognise: %v", err)
	}
	many, err := slotlog.New(slotlog.Config{Store: objtest.NewMem(), Key: key})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := many.Fence(t.Context(), 0, fence("x")); err == nil {
		t.Error("Fence in a log without fences was accepted")
	}
}

func TestWalkOfLargeObjects(t *testing.T) {
	l := open(t, objtest.NewMem())
	text := strings.Repeat("y", 1000) + "tail"
	if err := l.Put(t.Context(), 7, objtest.Body(text)); err != nil {
		t.Fatal(err)
	}
	_, err := l.Walk(t.Context(), 7, func(o slotlog.Object) error {
		if o.Whole() || len(o.Data) != 128 || !bytes.HasSuffix(o.Data, []byte("ytail")) {
			t.Errorf("tail is %q", o.Data)
		}
		whole, err := l.Read(t.Context(), o.Slot)
		if err == nil && (!whole.Whole() || rest(whole.Data) != text) {
			t.Errorf("whole object has %d bytes", len(whole.Data))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	stop := errors.New("stop")
	if _, err := l.Walk(t.Context(), 7, func(slotlog.Object) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("Walk = %v, want the visitor's error", err)
	}
}

func TestReadsSurviveAnUnavailableStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := objtest.NewFaulty(objtest.NewMem(), objtest.FaultConfig{Script: func(c objtest.Call) objtest.Fault {
			if c.Op == "read" && c.Attempt%3 != 0 {
				return objtest.Reset
			}
			return objtest.NoFault
		}})
		l := open(t, store)
		for s := range logid.Slot(20) {
			if err := l.Put(t.Context(), s, objtest.Body(s.String())); err != nil {
				t.Fatal(err)
			}
		}
		if got, end := bodies(t, l, 0); len(got) != 20 || end.Slot != 20 {
			t.Errorf("walked %d slots to %d", len(got), end.Slot)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		store.Cut()
		if _, err := l.Walk(ctx, 0, func(slotlog.Object) error { return nil }); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Walk of a store that is gone = %v, want the context's error", err)
		}
	})
}

// Two fencers and the old writer race, over a network that loses, repeats and delays. Exactly one history may come out:
// what was acknowledged to the writer is before the fence, both fencers see the same end, and nothing later moves it.
func TestConcurrentFencersAndWriter(t *testing.T) {
	base := objtest.Seed(t)
	for i := range uint64(300) {
		synctest.Test(t, func(t *testing.T) { race(t, base+i) })
		if t.Failed() {
			t.Fatalf("seed %d", base+i)
		}
	}
}

func race(t *testing.T, seed uint64) {
	mem := objtest.NewMem()
	network := func(n uint64) objstore.Store {
		return objtest.NewFaulty(mem, objtest.FaultConfig{
			Seed: seed*10 + n, Slow: 20 * time.Millisecond, Late: 30 * time.Millisecond,
			Rates: map[objtest.Fault]float64{
				objtest.LostReply: .1, objtest.LostRequest: .1, objtest.LateApply: .1, objtest.Busy: .05, objtest.OwnExists: .05,
				objtest.Status500: .05, objtest.Reset: .05, objtest.Slow: .3,
			},
		})
	}
	var acked []logid.Slot
	var ends [2]slotlog.Ended
	var wg sync.WaitGroup
	wg.Go(func() {
		w := open(t, network(0)).NewWriter(0)
		for s := range logid.Slot(40) {
			err := w.Put(t.Context(), s, objtest.Body("w"+s.String()), func(err error) {
				if err == nil {
					acked = append(acked, s)
				}
			})
			if err != nil {
				break
			}
		}
		w.Wait()
	})
	for i := range ends {
		wg.Go(func() {
			time.Sleep(time.Duration(seed*7%40+uint64(i)) * time.Millisecond)
			var err error
			if ends[i], err = open(t, network(uint64(1+i))).Fence(t.Context(), 0, fence(fmt.Sprint(i))); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	time.Sleep(time.Minute) // what is late arrives
	if ends[0].Slot != ends[1].Slot || !slices.Equal(ends[0].Found, ends[1].Found) || (ends[0].Mine && ends[1].Mine) {
		t.Errorf("fencers disagree: %+v and %+v", ends[0], ends[1])
	}
	got, end := bodies(t, open(t, mem), 0)
	if end.Slot != ends[0].Slot || end.Fence == nil || len(got) != int(end.Slot) {
		t.Errorf("log ends at %d with %d objects, fencers said %d", end.Slot, len(got), ends[0].Slot)
	}
	for i, s := range acked {
		if s != logid.Slot(i) || s >= end.Slot {
			t.Errorf("slot %d was acknowledged as number %d of a log that ends at %d", s, i, end.Slot)
		}
	}
	for i, b := range got {
		if b != "w"+fmt.Sprint(i) {
			t.Errorf("slot %d holds %q", i, b)
		}
	}
}

func TestAppendOfManyWriters(t *testing.T) {
	base := objtest.Seed(t)
	for i := range uint64(50) {
		synctest.Test(t, func(t *testing.T) { appendRace(t, base+i) })
		if t.Failed() {
			t.Fatalf("seed %d", base+i)
		}
	}
}

func appendRace(t *testing.T, seed uint64) {
	const writers, each = 4, 8
	mem := objtest.NewMem()
	histories := make([][]string, writers)
	var wg sync.WaitGroup
	for n := range writers {
		wg.Go(func() {
			l := open(t, objtest.NewFaulty(mem, objtest.FaultConfig{
				Seed: seed*10 + uint64(n), Slow: 5 * time.Millisecond, Late: 10 * time.Millisecond,
				Rates: map[objtest.Fault]float64{objtest.LostReply: .1, objtest.LateApply: .1, objtest.OwnExists: .1, objtest.Busy: .1, objtest.Slow: .3},
			}))
			next := logid.Slot(1)
			for i := range each {
				text := fmt.Sprintf("%d/%d", n, i)
				s, err := l.Append(t.Context(), next,
					func(logid.Slot) (objstore.Payload, error) { return objtest.Body(text), nil },
					func(o slotlog.Object) error {
						histories[n] = append(histories[n], rest(o.Data))
						return nil
					})
				if err != nil {
					t.Error(err)
					return
				}
				histories[n] = append(histories[n], text)
				next = s + 1
			}
		})
	}
	wg.Wait()
	got, _ := bodies(t, open(t, mem), 1)
	if len(got) != writers*each {
		t.Errorf("%d objects, want %d: %v", len(got), writers*each, got)
	}
	for n, h := range histories {
		if !slices.Equal(h, got[:len(h)]) {
			t.Errorf("writer %d saw %v, the log holds %v", n, h, got)
		}
	}
}

func TestAppendEndsWithBuildsAndLostsErrors(t *testing.T) {
	l := open(t, objtest.NewMem())
	if err := l.Put(t.Context(), 1, objtest.Body("x")); err != nil {
		t.Fatal(err)
	}
	stop := errors.New("stop")
	ok := func(logid.Slot) (objstore.Payload, error) { return objtest.Body("y"), nil }
	if _, err := l.Append(t.Context(), 1, ok, func(slotlog.Object) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("Append = %v, want the error of lost", err)
	}
	if _, err := l.Append(t.Context(), 1, func(logid.Slot) (objstore.Payload, error) { return nil, stop }, nil); !errors.Is(err, stop) {
		t.Errorf("Append = %v, want the error of build", err)
	}
}
