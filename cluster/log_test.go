package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tierlog/tierlog/objstore"
	"github.com/tierlog/tierlog/objstore/objtest"
	"github.com/tierlog/tierlog/tiered/logid"
	"github.com/tierlog/tierlog/tiered/manifest"
)

// open opens the metadata log as a process would.
func open(t *testing.T, s objstore.Store, edit ...func(*Config)) *Log {
	t.Helper()
	l, err := tryOpen(t, s, edit...)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func tryOpen(t *testing.T, s objstore.Store, edit ...func(*Config)) (*Log, error) {
	t.Helper()
	cfg := Config{Store: s, Now: time.Now}
	for _, e := range edit {
		e(&cfg)
	}
	return Open(t.Context(), cfg)
}

func readOnly(c *Config) { c.ReadOnly = true }

// propose appends records that are known beforehand.
func propose(ctx context.Context, l *Log, records ...Record) (logid.Slot, error) {
	return l.Propose(ctx, func(*State) ([]Record, error) { return records, nil })
}

func mustPropose(t *testing.T, l *Log, records ...Record) logid.Slot {
	t.Helper()
	s, err := propose(t.Context(), l, records...)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func create(n int) *TopicCreated {
	return &TopicCreated{Name: fmt.Sprint("topic-", n), ID: id(n), Partitions: 1}
}

// keys returns the store's keys without the cluster's folder, those under prefix only.
func keys(l *Log, s *objtest.Mem, prefix string) []string {
	var out []string
	for _, k := range s.Keys() {
		if k = strings.TrimPrefix(k, l.ClusterID().String()+"/"); strings.HasPrefix(k, prefix) {
			out = append(out, k)
		}
	}
	return out
}

func TestConfigNamesTheBadField(t *testing.T) {
	mem := objtest.NewMem()
	for field, cfg := range map[string]Config{
		"Store":         {Now: time.Now},
		"Now":           {Store: mem},
		"SnapshotEvery": {Store: mem, Now: time.Now, SnapshotEvery: -1},
		"LeaseTTL":      {Store: mem, Now: time.Now, LeaseTTL: time.Second, RenewEvery: 600 * time.Millisecond},
		"RenewEvery":    {Store: mem, Now: time.Now, RenewEvery: 10 * time.Second},
		"PollEvery":     {Store: mem, Now: time.Now, PollEvery: -1},
	} {
		if _, err := Open(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("Open without a good %s: %v, want an error that names it", field, err)
		}
	}
	if _, err := Open(t.Context(), Config{Store: mem, Now: time.Now, LeaseTTL: 48 * time.Hour}); err == nil {
		t.Error("a lease of two days was accepted")
	}
	if n := len(mem.Keys()); n != 0 {
		t.Errorf("a refused Open left %d objects", n)
	}
}

func TestOpenCreatesOneCluster(t *testing.T) {
	mem := objtest.NewMem()
	if _, err := tryOpen(t, mem, readOnly); !errors.Is(err, ErrNoCluster) {
		t.Errorf("reading an empty bucket: %v, want ErrNoCluster", err)
	}
	ids := make([]logid.ClusterID, 8)
	var wg sync.WaitGroup
	for i := range ids {
		wg.Go(func() {
			l, err := tryOpen(t, mem)
			if err != nil {
				t.Error(err)
				return
			}
			ids[i] = l.ClusterID()
		})
	}
	wg.Wait()
	for _, c := range ids {
		if c != ids[0] || c.IsZero() {
			t.Errorf("cluster ids differ: %v", ids)
		}
	}
	if l := open(t, mem, readOnly); l.ClusterID() != ids[0] {
		t.Errorf("read %v, want %v", l.ClusterID(), ids[0])
	}
}

func TestOpenSeesThroughALostReply(t *testing.T) {
	for _, f := range []objtest.Fault{objtest.LostReply, objtest.OwnExists} {
		mem := objtest.NewMem()
		store := objtest.NewFaulty(mem, objtest.FaultConfig{Script: func(c objtest.Call) objtest.Fault {
			if c.Op == "create" {
				return f
			}
			return objtest.NoFault
		}})
		if l, err := tryOpen(t, store); err != nil || l.ClusterID() != open(t, mem).ClusterID() {
			t.Errorf("%v: %v", f, err)
		}
	}
}

func TestOpenRefusesWhatItCanNotRead(t *testing.T) {
	tamper := func(old, with string) objstore.Store {
		mem := objtest.NewMem()
		open(t, mem)
		mem.Tamper(manifest.ClusterKey, func(b []byte) []byte { return reframe(b, old, with) })
		return mem
	}
	newer := reframe2(`"format":1`, `"format":2`, `"minReader":1`, `"minReader":2`)
	mem := objtest.NewMem()
	open(t, mem)
	mem.Tamper(manifest.ClusterKey, newer)
	if _, err := tryOpen(t, mem); !errors.Is(err, ErrNewer) || !strings.Contains(err.Error(), manifest.ClusterKey) {
		t.Errorf("a newer bucket: %v, want ErrNewer that names the object", err)
	}
	readable := tamper(`"format":1`, `"format":2`)
	if _, err := tryOpen(t, readable); !errors.Is(err, ErrNewer) {
		t.Errorf("writing to a newer bucket: %v, want ErrNewer", err)
	}
	if _, err := tryOpen(t, readable, readOnly); err != nil {
		t.Errorf("reading a newer bucket that allows it: %v", err)
	}
	mem.Tamper(manifest.ClusterKey, func(b []byte) []byte { return b[:len(b)-9] })
	if _, err := tryOpen(t, mem); !errors.Is(err, ErrCorrupt) {
		t.Errorf("a truncated identity: %v, want ErrCorrupt", err)
	}
}

// reframe2 makes two replacements.
func reframe2(old1, with1, old2, with2 string) func([]byte) []byte {
	return func(b []byte) []byte { return reframe(reframe(b, old1, with1), old2, with2) }
}

func TestProposeAndFollow(t *testing.T) {
	mem := objtest.NewMem()
	a, b := open(t, mem), open(t, mem)
	var seen []Change
	stop := b.Subscribe(func(c Change) {
		if got := b.State().Slot(); got != c.Slot {
			t.Errorf("told of slot %d while the state is at %d", c.Slot, got)
		}
		seen = append(seen, c)
	})
	if s := mustPropose(t, a, create(1)); s != FirstSlot {
		t.Errorf("the first slot is %d", s)
	}
	mustPropose(t, a, create(2), create(3))
	if _, ok := b.State().Topic("topic-1"); ok {
		t.Error("the follower knows a topic before it polled")
	}
	if err := b.Poll(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(seen) != 2 || seen[0].Slot != 1 || seen[1].Slot != 2 || len(seen[1].Records) != 2 {
		t.Errorf("the follower was told %+v", seen)
	}
	// The follower's proposal is told before Propose returns; the first one learns by losing the slot.
	mustPropose(t, b, create(4))
	if len(seen) != 3 {
		t.Error("Propose returned before its subscriber was told")
	}
	stop()
	builds := 0
	s, err := a.Propose(t.Context(), func(s *State) ([]Record, error) {
		builds++
		if _, ok := s.Topic("topic-4"); ok != (builds == 2) {
			t.Errorf("build %d: topic-4 is known: %v", builds, ok)
		}
		return []Record{create(5)}, nil
	})
	if err != nil || s != 4 || builds != 2 {
		t.Errorf("Propose after a lost slot = %d, %v with %d builds; want slot 4 with 2", s, err, builds)
	}
	if err := b.Poll(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(seen) != 3 {
		t.Error("told after the subscription ended")
	}
	if x, y := encoding(t, a.state), encoding(t, b.state); x != y {
		t.Errorf("states differ:\n%s\n%s", x, y)
	}
	if got := keys(a, mem, "meta/"); !slices.Equal(got, []string{
		"meta/log/00000000000000000001", "meta/log/00000000000000000002", "meta/log/00000000000000000003", "meta/log/00000000000000000004",
	}) {
		t.Errorf("keys are %v", got)
	}
}

func TestProposeRefuses(t *testing.T) {
	mem := objtest.NewMem()
	l := open(t, mem)
	mustPropose(t, l, create(1))
	own := errors.New("own error")
	for _, c := range []struct {
		build func(*State) ([]Record, error)
		want  error
	}{
		{func(*State) ([]Record, error) { return []Record{create(2), create(1)}, nil }, ErrTopicExists},
		{func(*State) ([]Record, error) { return nil, own }, own},
		{func(*State) ([]Record, error) { return nil, nil }, nil},
		{func(*State) ([]Record, error) {
			return []Record{&BrokerConfigAltered{Configs: map[string]string{"a": strings.Repeat("x", manifest.MaxBody)}}}, nil
		}, ErrTooLarge},
	} {
		if _, err := l.Propose(t.Context(), c.build); !errors.Is(err, c.want) {
			t.Errorf("Propose = %v, want %v", err, c.want)
		}
	}
	if got := keys(l, mem, "meta/log/"); len(got) != 1 {
		t.Errorf("refused proposals left %v", got)
	}
	if _, ok := l.State().Topic("topic-2"); ok {
		t.Error("half of a refused proposal was applied")
	}
	if _, err := propose(t.Context(), open(t, mem, readOnly), create(3)); !errors.Is(err, ErrReadOnly) {
		t.Errorf("Propose of a reader = %v, want ErrReadOnly", err)
	}
}

// An object larger than what the walk reads at first is read whole.
func TestLargeSlots(t *testing.T) {
	mem := objtest.NewMem()
	a, b := open(t, mem), open(t, mem)
	mustPropose(t, a, &BrokerConfigAltered{Configs: map[string]string{"a": strings.Repeat("x", 3*tailSize)}})
	mustPropose(t, a, create(1))
	if err := b.Poll(t.Context()); err != nil || b.State().Slot() != 2 {
		t.Errorf("Poll = %v at slot %d", err, b.State().Slot())
	}
}

func TestUnresolvedProposal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := objtest.NewMem()
		open(t, mem)
		store := objtest.NewFaulty(mem, objtest.FaultConfig{Script: func(c objtest.Call) objtest.Fault {
			if c.Op == "create" && c.Attempt == 1 {
				return objtest.LateApply
			}
			if c.Op == "create" {
				return objtest.Status503
			}
			return objtest.NoFault
		}})
		l := open(t, store)
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		if _, err := propose(ctx, l, create(1)); !errors.Is(err, ErrUnresolved) || !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("Propose = %v, want ErrUnresolved", err)
		}
		if _, ok := l.State().Topic("topic-1"); ok {
			t.Error("a proposal of unknown fate was applied")
		}
		if store.ApplyLate(-1) != 1 {
			t.Fatal("nothing was under way")
		}
		// It turns up: the next proposal meets it and is checked against it.
		if _, err := propose(t.Context(), l, create(1)); !errors.Is(err, ErrTopicExists) {
			t.Errorf("Propose of the same topic = %v, want ErrTopicExists", err)
		}
		if got := l.State().Slot(); got != 1 {
			t.Errorf("state is at slot %d, want 1", got)
		}
	})
}

// Proposers over bad networks: every topic that was acknowledged is there once, in one order that all agree on.
func TestConcurrentProposers(t *testing.T) {
	base := objtest.Seed(t)
	for i := range uint64(20) {
		synctest.Test(t, func(t *testing.T) { proposers(t, base+i) })
		if t.Failed() {
			t.Fatalf("seed %d", base+i)
		}
	}
}

func proposers(t *testing.T, seed uint64) {
	const brokers, each = 3, 15
	mem := objtest.NewMem()
	open(t, mem)
	logs := make([]*Log, brokers)
	acked := make([]map[logid.TopicID]logid.Slot, brokers)
	var wg sync.WaitGroup
	for n := range logs {
		store := objtest.NewFaulty(mem, objtest.FaultConfig{
			Seed: seed*10 + uint64(n), Slow: 20 * time.Millisecond, Late: 500 * time.Millisecond,
			Rates: map[objtest.Fault]float64{
				objtest.LostReply: .1, objtest.LateApply: .05, objtest.OwnExists: .1, objtest.Busy: .1, objtest.Status503: .1, objtest.Slow: .3,
			},
			Only: func(c objtest.Call) bool { return strings.Contains(c.Key, "/meta/log/") },
		})
		logs[n] = open(t, store, func(c *Config) { c.SnapshotEvery = 8 })
		acked[n] = map[logid.TopicID]logid.Slot{}
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(seed, uint64(n)))
			for i := range each {
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(1+rng.IntN(1000))*time.Millisecond)
				r := create(1 + n*each + i)
				if s, err := propose(ctx, logs[n], r); err == nil {
					acked[n][r.ID] = s
				} else if !errors.Is(err, ErrUnresolved) && !errors.Is(err, context.DeadlineExceeded) {
					t.Error(err)
				}
				cancel()
			}
		})
	}
	wg.Wait()
	for _, l := range logs {
		if err := l.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
	time.Sleep(time.Minute) // what is late arrives
	want := open(t, mem)
	check(t, want.state)
	for n, l := range logs {
		for l.state.Slot() < want.state.Slot() {
			if err := l.Poll(t.Context()); err != nil && !errors.Is(err, objstore.ErrUnavailable) {
				t.Fatal(err)
			}
		}
		if a, b := encoding(t, l.state), encoding(t, want.state); a != b {
			t.Errorf("broker %d has\n%s\nthe bucket gives\n%s", n, a, b)
		}
		for topic, slot := range acked[n] {
			if got, ok := want.State().TopicByID(topic); !ok || got.Created != slot {
				t.Errorf("topic %v was acknowledged at slot %d, the log has %+v", topic, slot, got)
			}
		}
	}
	// The same without any snapshot.
	for _, k := range keys(want, mem, "meta/snapshot/") {
		if err := mem.Delete(t.Context(), []string{want.ClusterID().String() + "/" + k}); err != nil {
			t.Fatal(err)
		}
	}
	if a, b := encoding(t, open(t, mem).state), encoding(t, want.state); a != b {
		t.Errorf("replayed from slot 1:\n%s\nfrom a snapshot:\n%s", a, b)
	}
}

func TestSnapshots(t *testing.T) {
	mem := objtest.NewMem()
	l := open(t, mem, func(c *Config) { c.SnapshotEvery = 10 })
	for i := range 55 {
		mustPropose(t, l, create(i+1))
		l.uploads.Wait()
	}
	if got := keys(l, mem, "meta/snapshot/"); !slices.Equal(got, []string{
		"meta/snapshot/00000000000000000030", "meta/snapshot/00000000000000000040", "meta/snapshot/00000000000000000050",
	}) {
		t.Errorf("snapshots are %v, want the last three", got)
	}
	if got := keys(l, mem, "meta/log/"); len(got) != 55 {
		t.Errorf("%d slots, want all 55: slots are never deleted", len(got))
	}
	// A start reads the newest snapshot and the slots after it, no more.
	reads := map[string]int{}
	var mu sync.Mutex
	counting := func() objstore.Store {
		clear(reads)
		return objtest.NewFaulty(mem, objtest.FaultConfig{Before: func(_ context.Context, c objtest.Call) error {
			mu.Lock()
			defer mu.Unlock()
			reads[c.Op+" "+strings.TrimPrefix(c.Key, l.ClusterID().String()+"/")]++
			return nil
		}})
	}
	again := open(t, counting(), readOnly)
	if a, b := encoding(t, again.state), encoding(t, l.state); a != b {
		t.Errorf("restored\n%s\nwant\n%s", a, b)
	}
	mu.Lock()
	for call := range reads {
		if strings.HasPrefix(call, "read meta/log/") && call < "read meta/log/00000000000000000051" {
			t.Errorf("start made the request %q", call)
		}
	}
	if n := len(reads); n > 16 {
		t.Errorf("start made %d requests: %v", n, slices.Sorted(maps.Keys(reads)))
	}
	mu.Unlock()

	// One that can not be used costs time only.
	newest := l.snapshotKey(50)
	mem.Tamper(newest, func(b []byte) []byte { b[len(b)/2] ^= 1; return b })
	mem.Tamper(l.snapshotKey(40), func(b []byte) []byte { return b[:20] })
	if a, b := encoding(t, open(t, mem, readOnly).state), encoding(t, l.state); a != b {
		t.Errorf("with corrupt snapshots\n%s\nwant\n%s", a, b)
	}
	mem.Tamper(newest, func([]byte) []byte { return nil })
	mem.Tamper(l.snapshotKey(30), func(b []byte) []byte { return reframe(b, `"format":1`, `"format":2`) })
	if _, err := tryOpen(t, mem); !errors.Is(err, ErrNewer) {
		t.Errorf("a snapshot of a newer version: %v, want ErrNewer", err)
	}
}

func TestCloseWritesASnapshot(t *testing.T) {
	mem := objtest.NewMem()
	for start := range 3 {
		l := open(t, mem)
		for i := range 10 {
			mustPropose(t, l, create(1+10*start+i))
		}
		if err := l.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	l := open(t, mem, readOnly)
	if got := keys(l, mem, "meta/snapshot/"); len(got) != 3 || !strings.HasSuffix(got[2], "30") {
		t.Errorf("snapshots are %v", got)
	}
}

// A failed upload is not the end: the proposal stands, and a later snapshot serves.
func TestSnapshotFailureIsHarmless(t *testing.T) {
	mem := objtest.NewMem()
	var logged bytes.Buffer
	store := objtest.NewFaulty(mem, objtest.FaultConfig{Script: func(c objtest.Call) objtest.Fault {
		if strings.Contains(c.Key, "/snapshot/") && strings.HasSuffix(c.Key, "2") {
			return objtest.Status503
		}
		return objtest.NoFault
	}})
	l := open(t, store, func(c *Config) { c.SnapshotEvery, c.Logger = 2, textLogger(&logged) })
	for i := range 4 {
		mustPropose(t, l, create(i+1))
		l.uploads.Wait()
	}
	if got := keys(l, mem, "meta/snapshot/"); len(got) != 1 || !strings.HasSuffix(got[0], "3") {
		t.Errorf("snapshots are %v, want one of slot 3, tried again after the failure", got)
	}
	if !strings.Contains(logged.String(), "snapshot") {
		t.Errorf("the failure was not logged: %s", logged.String())
	}
}

func TestCorruptSlotStopsTheLog(t *testing.T) {
	for name, c := range map[string]struct {
		tamper func([]byte) []byte
		want   error
	}{
		"flipped":        {func(b []byte) []byte { b[100] ^= 1; return b }, ErrCorrupt},
		"truncated":      {func(b []byte) []byte { return b[:50] }, ErrCorrupt},
		"empty":          {func([]byte) []byte { return nil }, ErrCorrupt},
		"not a sequel":   {func(b []byte) []byte { return reframe(b, id(2).String(), id(1).String()) }, ErrCorrupt},
		"newer":          {func(b []byte) []byte { return reframe(b, `"format":1`, `"format":2`) }, ErrNewer},
		"newer record":   {func(b []byte) []byte { return reframe(b, `{"topicCreated"`, `{"aclCreated"`) }, ErrNewer},
		"another slot's": {func(b []byte) []byte { return reframe(b, `"slot":2`, `"slot":3`) }, ErrCorrupt},
	} {
		mem := objtest.NewMem()
		a, b := open(t, mem), open(t, mem)
		mustPropose(t, a, create(1))
		mustPropose(t, a, create(2))
		key := manifest.Key{Kind: manifest.KeyMeta, Cluster: a.ClusterID(), Slot: 2}.String()
		mem.Tamper(key, c.tamper)
		err := b.Poll(t.Context())
		if !errors.Is(err, c.want) || !strings.Contains(err.Error(), key) {
			t.Errorf("%s: Poll = %v, want %v that names the object", name, err, c.want)
		}
		if _, err := propose(t.Context(), b, create(3)); !errors.Is(err, c.want) {
			t.Errorf("%s: Propose = %v, want %v", name, err, c.want)
		}
		if _, ok := b.State().Topic("topic-1"); !ok || b.State().Slot() != 1 {
			t.Errorf("%s: the state before the slot is gone", name)
		}
		if err := b.Close(t.Context()); err != nil {
			t.Errorf("%s: Close = %v", name, err)
		}
		if _, err := tryOpen(t, mem); !errors.Is(err, c.want) {
			t.Errorf("%s: Open = %v, want %v", name, err, c.want)
		}
	}
}

func TestStoreErrorsPass(t *testing.T) {
	mem := objtest.NewMem()
	store := objtest.NewFaulty(mem, objtest.FaultConfig{})
	l := open(t, store)
	store.Cut()
	if err := l.Poll(t.Context()); !errors.Is(err, objstore.ErrUnavailable) {
		t.Errorf("Poll of a store that is gone = %v, want ErrUnavailable", err)
	}
	if _, err := tryOpen(t, store); !errors.Is(err, objstore.ErrUnavailable) {
		t.Errorf("Open of a store that is gone = %v, want ErrUnavailable", err)
	}
	store.Heal()
	mustPropose(t, l, create(1))
	failing := Config{Store: mem, Now: time.Now, Random: io.MultiReader()}
	if o, err := Open(t.Context(), failing); err != nil {
		t.Error(err)
	} else if _, err := propose(t.Context(), o, create(2)); err == nil {
		t.Error("a proposal without randomness was made")
	}
}
