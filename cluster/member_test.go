package cluster

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tierlog/tierlog/objstore"
	"github.com/tierlog/tierlog/objstore/objtest"
	"github.com/tierlog/tierlog/tiered/logid"
)

// running is a broker process of a test.
type running struct {
	*Membership
	log   *Log
	store *objtest.Faulty
	stop  context.CancelFunc
	done  chan error // the result of Run
}

func member(n NodeID) Member {
	return Member{Node: n, Host: fmt.Sprint("host-", n), Port: 9092, Version: "test"}
}

// start opens the log over a network of its own, joins and runs.
func start(t *testing.T, mem *objtest.Mem, n NodeID) *running {
	t.Helper()
	r := &running{store: objtest.NewFaulty(mem, objtest.FaultConfig{})}
	r.log = open(t, r.store)
	m, err := r.log.Join(t.Context(), member(n))
	if err != nil {
		t.Fatal(err)
	}
	r.run(t, m)
	return r
}

func (r *running) run(t *testing.T, m *Membership) {
	r.Membership = m
	var ctx context.Context
	ctx, r.stop = context.WithCancel(t.Context())
	r.done = make(chan error, 1)
	go func() { r.done <- m.Run(ctx) }()
	t.Cleanup(r.stop)
}

// end stops the process without leaving.
func (r *running) end(t *testing.T) {
	t.Helper()
	r.stop()
	if err := <-r.done; err != nil && !errors.Is(err, ErrFenced) {
		t.Errorf("Run = %v", err)
	}
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func TestSameNodeTakesOverAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := objtest.NewMem()
		old := start(t, mem, 1)
		mustPropose(t, old.log, create(1))
		time.Sleep(20 * time.Second)
		begin := time.Now()
		young := start(t, mem, 1)
		if d := time.Since(begin); d != 0 {
			t.Errorf("the same node waited %v, want none", d)
		}
		if young.Epoch() <= old.Epoch() {
			t.Errorf("epoch %d after %d", young.Epoch(), old.Epoch())
		}
		// The old process learns it by its next poll, a second at most, and proposes nothing before that either.
		if err := old.Serving(); err != nil {
			t.Errorf("the old process knows too early: %v", err)
		}
		if _, err := propose(t.Context(), old.log, create(2)); !errors.Is(err, ErrFenced) {
			t.Errorf("a proposal of the old process = %v, want ErrFenced", err)
		}
		time.Sleep(DefaultPollEvery)
		synctest.Wait()
		if !closed(old.Fenced()) || !errors.Is(old.Serving(), ErrFenced) {
			t.Errorf("the old process is not fenced: %v", old.Serving())
		}
		if err := <-old.done; !errors.Is(err, ErrFenced) {
			t.Errorf("Run of the old process = %v, want ErrFenced", err)
		}
		if _, err := old.NextProducerID(t.Context()); !errors.Is(err, ErrFenced) {
			t.Errorf("producer id of the old process: %v, want ErrFenced", err)
		}
		if err := old.Leave(t.Context()); err != nil {
			t.Errorf("Leave of a fenced process = %v", err)
		}
		time.Sleep(time.Minute)
		if young.Serving() != nil || closed(young.Fenced()) {
			t.Errorf("the young process does not serve: %v", young.Serving())
		}
		topic, _ := young.log.State().Topic("topic-1")
		if p := topic.Partitions[0]; p.Leader != 1 || p.BrokerEpoch != young.Epoch() || p.LeaderEpoch != 1 {
			t.Errorf("the partition is %+v", p)
		}
		young.end(t)
	})
}

func TestOtherNodeIsRefusedWhileAlive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := objtest.NewMem()
		first := start(t, mem, 1)
		time.Sleep(7 * time.Second)
		second := open(t, mem)
		begin := time.Now()
		_, err := second.Join(t.Context(), member(2))
		var alive *BrokerAliveError
		if !errors.As(err, &alive) || alive.Broker.Node != 1 || alive.Own != 2 {
			t.Fatalf("Join = %v, want *BrokerAliveError of node 1", err)
		}
		for _, part := range []string{"broker 1", "host-1:9092", "stop it first", "node id 1"} {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("%q does not say %q", err, part)
			}
		}
		if d := time.Since(begin); d > DefaultRenewEvery+time.Second {
			t.Errorf("the refusal took %v, want about a renewal", d)
		}
		if first.Serving() != nil {
			t.Errorf("the first broker: %v", first.Serving())
		}
		if b := first.log.State().Brokers(); len(b) != 1 || b[0].Node != 1 {
			t.Errorf("brokers are %+v", b)
		}
		first.end(t)
	})
}

func TestOtherNodeTakesOverWhenGone(t *testing.T) {
	for _, c := range []struct {
		name    string
		end     func(*testing.T, *running)
		atLeast time.Duration
	}{
		{"killed", func(t *testing.T, r *running) { r.end(t) }, DefaultLeaseTTL},
		{"left", func(t *testing.T, r *running) {
			if err := r.Leave(t.Context()); err != nil {
				t.Fatal(err)
			}
			if err := <-r.done; err != nil || !closed(r.Fenced()) {
				t.Errorf("Run after Leave = %v, want nil", err)
			}
		}, 0},
		{"cut off", func(_ *testing.T, r *running) { r.store.Cut() }, DefaultLeaseTTL},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				mem := objtest.NewMem()
				first := start(t, mem, 1)
				mustPropose(t, first.log, create(1))
				time.Sleep(12 * time.Second)
				c.end(t, first)
				begin := time.Now()
				second := start(t, mem, 2)
				d := time.Since(begin)
				if d < c.atLeast || d > c.atLeast+3*time.Second {
					t.Errorf("the takeover took %v, want about %v", d, c.atLeast)
				}
				if err := first.Serving(); err == nil {
					t.Error("the first broker still serves")
				}
				if e := second.log.State().Epochs(); len(e) != 2 || e[0].Live || !e[1].Live {
					t.Errorf("epochs are %+v", e)
				}
				first.store.Heal()
				time.Sleep(5 * time.Second)
				if c.name == "cut off" && !closed(first.Fenced()) {
					t.Error("the first broker did not learn that it is fenced")
				}
				second.end(t)
				first.stop()
			})
		})
	}
}

// A broker that registers while another one's lease is watched makes the observer begin anew.
func TestMembersChangeWhileWatched(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := objtest.NewMem()
		first := start(t, mem, 1)
		first.end(t)
		again := make(chan *running, 1)
		go func() {
			time.Sleep(DefaultLeaseTTL - time.Second)
			again <- start(t, mem, 1)
		}()
		_, err := open(t, mem).Join(t.Context(), member(2))
		var alive *BrokerAliveError
		if !errors.As(err, &alive) || alive.Broker.Node != 1 {
			t.Errorf("Join = %v, want *BrokerAliveError of node 1", err)
		}
		(<-again).end(t)
	})
}

func TestLeaseLapsesAndRecovers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, objtest.NewMem(), 1)
		time.Sleep(11 * time.Second) // the last renewal was at 10 s
		lapsed := r.Lapsed()
		if closed(lapsed) || !closed(r.Renewed()) {
			t.Fatal("a lease that is renewed lapsed")
		}
		r.store.Cut()
		time.Sleep(DefaultLeaseTTL - 2*time.Second)
		synctest.Wait()
		if closed(lapsed) || r.Serving() != nil {
			t.Errorf("the lease lapsed before the TTL: %v", r.Serving())
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if !closed(lapsed) || !errors.Is(r.Serving(), ErrLapsed) {
			t.Errorf("the lease did not lapse: %v", r.Serving())
		}
		renewed := r.Renewed()
		if closed(renewed) {
			t.Error("Renewed is closed while the lease is lapsed")
		}
		time.Sleep(time.Minute)
		r.store.Heal()
		time.Sleep(DefaultRenewEvery)
		synctest.Wait()
		if !closed(renewed) || r.Serving() != nil || closed(r.Lapsed()) || closed(r.Fenced()) {
			t.Errorf("the lease did not recover: %v", r.Serving())
		}
		r.end(t)
	})
}

// The lease counts from before a renewal was sent, not from when its answer came: an observer may have seen it at once.
func TestSlowRenewalCountsFromItsStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := objtest.NewFaulty(objtest.NewMem(), objtest.FaultConfig{After: func(_ context.Context, c objtest.Call, err error) error {
			if c.Op == "swap" {
				time.Sleep(4 * time.Second)
			}
			return err
		}})
		r := &running{store: store, log: open(t, store)}
		m, err := r.log.Join(t.Context(), member(1))
		if err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		r.run(t, m)
		time.Sleep(9500 * time.Millisecond) // one swap was sent at 5 s and answered at 9 s
		store.Cut()
		time.Sleep(DefaultLeaseTTL - 5*time.Second) // until 22.5 s
		if err := m.Serving(); err != nil {
			t.Errorf("after %v: %v, want a lease until 23s", time.Since(begin), err)
		}
		time.Sleep(500 * time.Millisecond)
		if err := m.Serving(); !errors.Is(err, ErrLapsed) {
			t.Errorf("after %v: %v, want ErrLapsed", time.Since(begin), err)
		}
		r.end(t)
	})
}

// A process that was suspended must not serve when it wakes up, before any of its goroutines has run.
func TestServingAfterSuspension(t *testing.T) {
	now := time.Unix(0, 0)
	l := open(t, objtest.NewMem(), func(c *Config) { c.Now = func() time.Time { return now } })
	m, err := l.Join(t.Context(), member(1))
	if err != nil {
		t.Fatal(err)
	}
	now = now.Add(DefaultLeaseTTL - 1)
	if err := m.Serving(); err != nil {
		t.Errorf("just before the TTL: %v", err)
	}
	now = now.Add(1)
	if err := m.Serving(); !errors.Is(err, ErrLapsed) {
		t.Errorf("at the TTL: %v, want ErrLapsed", err)
	}
}

func TestJoinWaitsForTheStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := objtest.NewFaulty(objtest.NewMem(), objtest.FaultConfig{})
		l := open(t, store)
		store.Cut()
		time.AfterFunc(time.Minute, store.Heal)
		if m, err := l.Join(t.Context(), member(1)); err != nil || m.Serving() != nil {
			t.Errorf("Join = %v", err)
		}
		store.Cut()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := open(t, objtest.NewMem()).Join(ctx, member(1)); err != nil {
			t.Error(err)
		}
		l.self.Store(nil)
		if _, err := l.Join(ctx, member(1)); !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, objstore.ErrUnavailable) {
			t.Errorf("Join of a store that stays away = %v, want both the context's error and the store's", err)
		}
	})
}

func TestJoinTwice(t *testing.T) {
	l := open(t, objtest.NewMem())
	if _, err := l.Join(t.Context(), Member{Node: 1}); !errors.Is(err, ErrInvalidRecord) {
		t.Errorf("a member without an address: %v, want ErrInvalidRecord", err)
	}
	m, err := l.Join(t.Context(), member(1))
	if err != nil || l.Self() != m || m.Node() != 1 || m.Epoch() != 1 {
		t.Fatalf("Join = %+v, %v", m, err)
	}
	if _, err := l.Join(t.Context(), member(1)); err == nil {
		t.Error("a second Join of one log was accepted")
	}
}

func TestProducerIDs(t *testing.T) {
	mem := objtest.NewMem()
	seen := map[int64]bool{}
	slots := 0
	for range 2 { // the rest of the first process's block is never used
		l := open(t, mem)
		m, err := l.Join(t.Context(), member(1))
		if err != nil {
			t.Fatal(err)
		}
		before := l.State().Slot()
		var mu sync.Mutex
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for range 300 {
					n, err := m.NextProducerID(t.Context())
					mu.Lock()
					if err != nil || n < 0 || seen[n] {
						t.Errorf("NextProducerID = %d, %v; seen before: %v", n, err, seen[n])
					}
					seen[n] = true
					mu.Unlock()
				}
			})
		}
		wg.Wait()
		slots += int(l.State().Slot() - before)
	}
	if len(seen) != 2400 || slots != 4 {
		t.Errorf("%d ids took %d slots, want 2400 and 4", len(seen), slots)
	}
}

// What an idle broker asks of the bucket in an hour.
func TestIdleRequestBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		counts := map[string]int{}
		store := objtest.NewFaulty(objtest.NewMem(), objtest.FaultConfig{Before: func(ctx context.Context, c objtest.Call) error {
			mu.Lock()
			defer mu.Unlock()
			counts[string(objstore.PurposeOf(ctx))+" "+c.Op]++
			return nil
		}})
		r := &running{store: store, log: open(t, store)}
		m, err := r.log.Join(t.Context(), member(1))
		if err != nil {
			t.Fatal(err)
		}
		r.run(t, m)
		time.Sleep(30 * time.Second)
		mu.Lock()
		clear(counts)
		mu.Unlock()
		time.Sleep(time.Hour)
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		if w, r := counts["lease swap"], counts["meta read"]; w > 750 || w < 700 || r > 3700 || r < 3500 || len(counts) != 2 {
			t.Errorf("an idle hour makes %v; want at most 750 lease writes, 3700 metadata reads, nothing else", counts)
		}
		r.end(t)
	})
}

// Whatever the delays of the network are: when the store answers the read by which an observer concludes that a holder is
// gone, the holder's lease is over. (It may renew right after that: then the log decides.) Clocks run at one speed here,
// but start anywhere.
func TestObserverIsSlowerThanHolder(t *testing.T) {
	base := objtest.Seed(t)
	taken := 0
	for i := range uint64(2000) {
		rng := rand.New(rand.NewPCG(base+i, 3))
		ms := func(n int) time.Duration { return time.Duration(rng.IntN(n)) * time.Millisecond }
		const ttl, every = 18 * time.Second, 5 * time.Second
		origin := time.Unix(1000, 0)
		offset := ms(1e9) // between the two clocks
		h := newHolder(ttl, every, origin)
		// Renewals: sent, applied and answered at some time, or lost.
		type write struct {
			applied time.Time
			id      string
		}
		writes := []write{{origin, "0"}}
		// The holder may serve from known to until.
		type term struct{ known, until time.Time }
		terms := []term{{origin, h.validUntil}}
		for now, n := origin, 0; n < 12; n++ {
			now = maxTime(now, h.next)
			id := fmt.Sprint(h.attempt())
			applied := now.Add(ms(4000))
			answered := applied.Add(ms(4000))
			switch rng.IntN(4) {
			case 0: // never applied, or too late to count
				h.failed(answered)
			case 1: // applied, the answer lost
				writes = append(writes, write{applied, id})
				h.failed(answered)
			default:
				writes = append(writes, write{applied, id})
				h.renewed(now)
				terms = append(terms, term{answered, h.validUntil})
			}
			now = answered
		}
		o := observer{ttl: ttl}
		for now := origin.Add(ms(60000)); ; now = now.Add(time.Second + ms(3000)) {
			seenAt := now.Add(ms(2000))
			received := seenAt.Add(ms(2000))
			id := ""
			for _, w := range writes {
				if !w.applied.After(seenAt) {
					id = w.id
				}
			}
			v := o.observe(now.Add(offset), id, ttl)
			o.received(received.Add(offset))
			if v == gone {
				taken++
				for _, w := range terms {
					if !w.known.After(seenAt) && seenAt.Before(w.until) {
						t.Fatalf("seed %d: gone at %v, the holder's lease lasts until %v", base+i, seenAt.Sub(origin), w.until.Sub(origin))
					}
				}
			}
			if v != watching {
				break
			}
			now = received
		}
	}
	if taken < 100 {
		t.Errorf("only %d of 2000 runs came to a takeover", taken)
	}
}

func maxTime(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// Processes of two node ids come, go, are cut off and suspended over a bad network. At any time at most one of them both
// serves and has a live epoch; all agree on the history.
func TestMembershipSimulation(t *testing.T) {
	base := objtest.Seed(t)
	joins := 0
	for i := range uint64(15) {
		synctest.Test(t, func(t *testing.T) { joins += simulate(t, base+i) })
		if t.Failed() {
			t.Fatalf("seed %d", base+i)
		}
	}
	if joins < 30 {
		t.Errorf("only %d joins in all runs", joins)
	}
}

// simulate returns how many times a process joined.
func simulate(t *testing.T, seed uint64) int {
	mem := objtest.NewMem()
	open(t, mem)
	var mu sync.Mutex
	var members []*Membership
	joins := 0
	var wg sync.WaitGroup
	for n := range 2 {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(seed, uint64(n)))
			for life := range 6 {
				store := objtest.NewFaulty(mem, objtest.FaultConfig{
					Seed: seed*100 + uint64(10*n+life), Slow: 300 * time.Millisecond, Late: 3 * time.Second,
					Rates: map[objtest.Fault]float64{objtest.LostReply: .05, objtest.LateApply: .03, objtest.Status503: .05, objtest.Slow: .3, objtest.Reset: .03},
				})
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(20+rng.IntN(100))*time.Second)
				l, err := Open(ctx, Config{Store: store, Now: time.Now})
				if err != nil {
					cancel()
					continue
				}
				m, err := l.Join(ctx, member(NodeID(n)))
				if err == nil {
					mu.Lock()
					joins++
					members = append(members, m)
					mu.Unlock()
					if rng.IntN(3) == 0 {
						time.AfterFunc(time.Duration(rng.IntN(30))*time.Second, store.Cut)
					}
					_ = m.Run(ctx) // ends by the time-out or a fence
					if rng.IntN(2) == 0 {
						lctx, lcancel := context.WithTimeout(t.Context(), time.Second)
						_ = m.Leave(lctx) // may fail: then the lease tells
						lcancel()
					}
				}
				cancel()
				_ = l.Close(t.Context())
				time.Sleep(time.Duration(rng.IntN(20)) * time.Second)
			}
		})
	}
	ended := make(chan struct{})
	go func() { wg.Wait(); close(ended) }()
	truth := open(t, mem)
	for !closed(ended) {
		time.Sleep(250 * time.Millisecond)
		if err := truth.Poll(t.Context()); err != nil {
			t.Fatal(err)
		}
		mu.Lock()
		live := map[logid.Epoch]bool{}
		for _, m := range members {
			if m.Serving() == nil && truth.State().Live(m.Epoch()) {
				live[m.Epoch()] = true
			}
		}
		mu.Unlock()
		if len(live) > 1 {
			t.Errorf("several brokers serve: %v", live)
		}
	}
	time.Sleep(time.Minute)
	if err := truth.Poll(t.Context()); err != nil {
		t.Fatal(err)
	}
	check(t, truth.state)
	if a, b := encoding(t, truth.state), encoding(t, open(t, mem).state); a != b {
		t.Errorf("followed:\n%s\nread anew:\n%s", a, b)
	}
	return joins
}
