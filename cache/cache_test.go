package cache

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
)

// block is a Value that notices a wrong reference count.
type block struct {
	key  int
	size int64
	refs atomic.Int64
	live *atomic.Int64 // blocks not released for the last time
}

func (b *block) Size() int64 { return b.size }

func (b *block) Retain() {
	if b.refs.Add(1) < 2 {
		panic("retained after the last release")
	}
}

func (b *block) Release() {
	switch n := b.refs.Add(-1); {
	case n < 0:
		panic("released too often")
	case n == 0:
		b.live.Add(-1)
	}
}

// source makes blocks of a fixed size and counts loads.
type source struct {
	size  int64
	live  atomic.Int64
	loads atomic.Int64
}

func (s *source) load(key int) Loader[*block] {
	return func(context.Context) (*block, error) {
		s.loads.Add(1)
		return s.block(key), nil
	}
}

func (s *source) block(key int) *block {
	b := &block{key: key, size: s.size, live: &s.live}
	b.refs.Store(1)
	s.live.Add(1)
	return b
}

func newCache(t testing.TB, cfg Config) *Cache[int, *block] {
	t.Helper()
	c, err := New[int, *block](cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// read gets a block, checks that it is the right one and lets it go. It reports whether that took a load.
func read(t testing.TB, c *Cache[int, *block], s *source, key int) (loaded bool) {
	t.Helper()
	before := s.loads.Load()
	b, err := c.Get(t.Context(), key, s.load(key))
	if err != nil || b.key != key || b.refs.Load() < 1 {
		t.Fatalf("Get(%d) = %+v, %v", key, b, err)
	}
	b.Release()
	return s.loads.Load() != before
}

func check(t testing.TB, c *Cache[int, *block]) {
	t.Helper()
	if err := c.Check(); err != nil {
		t.Fatal(err)
	}
}

func TestGetLoadsOnceAndEvictsTheOldest(t *testing.T) {
	s := &source{size: 10}
	c := newCache(t, Config{Bytes: 40})
	for key := range 4 {
		if !read(t, c, s, key) || read(t, c, s, key) {
			t.Fatalf("block %d: not loaded exactly once", key)
		}
	}
	read(t, c, s, 4)
	check(t, c)
	want := Stats{Hits: 4, Misses: 5, Loads: 5, Evictions: 1, Bytes: 40, Blocks: 4}
	if got := c.Stats(); got != want {
		t.Errorf("stats %+v, want %+v", got, want)
	}
	if _, ok := c.Lookup(0); ok {
		t.Error("the oldest block is still there")
	}
	b, ok := c.Lookup(4)
	if !ok || b.key != 4 {
		t.Fatalf("Lookup(4) = %v, %v", b, ok)
	}
	if got := s.live.Load(); got != 4 {
		t.Errorf("%d blocks alive, want 4", got)
	}
	c.Close()
	if got := s.live.Load(); got != 1 {
		t.Errorf("%d blocks alive after Close, want the one that is held", got)
	}
	b.Release()
	if got := s.live.Load(); got != 0 {
		t.Errorf("%d blocks alive at the end", got)
	}
}

// A block that a reader holds outlives its eviction, and the cache does not count it any more.
func TestEvictedBlockLivesWhileHeld(t *testing.T) {
	s := &source{size: 10}
	c := newCache(t, Config{Bytes: 10})
	held, err := c.Get(t.Context(), 1, s.load(1))
	if err != nil {
		t.Fatal(err)
	}
	read(t, c, s, 2)
	if got := held.refs.Load(); got != 1 {
		t.Errorf("the held block has %d references, want the reader's", got)
	}
	if got := c.Stats().Bytes; got != 10 {
		t.Errorf("%d bytes in the cache, want 10", got)
	}
	held.Release()
	if got := s.live.Load(); got != 1 {
		t.Errorf("%d blocks alive, want 1", got)
	}
}

func TestBlockLargerThanTheCacheIsHandedOver(t *testing.T) {
	s := &source{size: 100}
	for _, bound := range []int64{0, 99} {
		c := newCache(t, Config{Bytes: bound})
		if !read(t, c, s, 1) || !read(t, c, s, 1) {
			t.Errorf("bound %d: the block was kept", bound)
		}
		check(t, c)
		if got := s.live.Load(); got != 0 {
			t.Errorf("bound %d: %d blocks alive", bound, got)
		}
	}
}

func TestConfigValidate(t *testing.T) {
	for _, cfg := range []Config{{Bytes: -1}, {Prefetches: -1}} {
		if _, err := New[int, *block](cfg); err == nil {
			t.Errorf("New(%+v) succeeds", cfg)
		}
	}
}

// The rule of the package comment: a scan of ten times the cache, whose reader takes each block in four pieces, while a
// hot set of half the cache is read all the time. Not one hot block may be loaded twice once it is protected.
func TestScanDoesNotEvictTheHotSet(t *testing.T) {
	const blocks, hot = 64, 32
	s := &source{size: 1000}
	c := newCache(t, Config{Bytes: blocks * 1000})
	scan := 1000
	step := func() {
		for range 4 {
			read(t, c, s, scan)
		}
		scan++
	}
	// Warm up: the hot blocks are read in turn, one for each scanned block, until all were promoted.
	for i := range 3 * hot {
		read(t, c, s, i%hot)
		step()
	}
	check(t, c)
	if got := c.Stats().Protected; got != hot*1000 {
		t.Fatalf("%d bytes protected after the warm-up, want the hot set's %d", got, hot*1000)
	}
	reloads := 0
	for i := range 10 * blocks {
		if read(t, c, s, i%hot) {
			reloads++
		}
		step()
	}
	check(t, c)
	if reloads != 0 {
		t.Errorf("%d of %d reads of the hot set had to load", reloads, 10*blocks)
	}
	if got := c.Stats(); got.Protected != hot*1000 {
		t.Errorf("%d bytes protected: the scan got in", got.Protected)
	}
	// Even without being read, protected blocks survive another scan.
	for range 10 * blocks {
		step()
	}
	for key := range hot {
		if read(t, c, s, key) {
			t.Errorf("hot block %d was lost to a scan", key)
		}
	}
	if got, want := s.loads.Load(), int64(scan-1000+hot); got < want || got > want+hot {
		t.Errorf("%d loads for %d blocks", got, want)
	}
}

// What was hot once gives way to what is hot now.
func TestHotSetChanges(t *testing.T) {
	const blocks = 64
	s := &source{size: 1000}
	c := newCache(t, Config{Bytes: blocks * 1000})
	for round := range 4 {
		base := round * 1000
		for i := range 400 {
			read(t, c, s, base+i%40)
			read(t, c, s, base+500+i)
		}
		check(t, c)
		for key := range 40 {
			if read(t, c, s, base+key) {
				t.Errorf("round %d: hot block %d is not in memory", round, key)
			}
		}
	}
}

func TestResize(t *testing.T) {
	s := &source{size: 10}
	c := newCache(t, Config{Bytes: 1000})
	for i := range 300 {
		read(t, c, s, i%50)
		read(t, c, s, 1000+i)
	}
	if got := c.Stats(); got.Bytes != 1000 || got.Protected == 0 {
		t.Fatalf("stats before: %+v", got)
	}
	for _, bound := range []int64{500, 95, 10, 0, -5, 200} {
		c.Resize(bound)
		check(t, c)
		if got := c.Stats().Bytes; got > max(bound, 0) || got != 10*s.live.Load() {
			t.Errorf("Resize(%d) leaves %d bytes, %d blocks alive", bound, got, s.live.Load())
		}
	}
	for i := range 20 {
		read(t, c, s, i)
	}
	if got := c.Stats().Bytes; got != 200 {
		t.Errorf("%d bytes after growing to 200", got)
	}
}

func TestOneLoadForManyReaders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &source{size: 10}
		c := newCache(t, Config{Bytes: 100})
		defer c.Close()
		gate := make(chan struct{})
		var wg sync.WaitGroup
		for range 100 {
			wg.Go(func() {
				b, err := c.Get(t.Context(), 1, func(context.Context) (*block, error) {
					s.loads.Add(1)
					<-gate
					return s.block(1), nil
				})
				if err != nil || b.key != 1 {
					t.Errorf("Get = %v, %v", b, err)
					return
				}
				b.Release()
			})
		}
		synctest.Wait() // all wait for the load
		if got := c.Stats(); got.Loads != 1 || got.Misses != 100 || got.Loading != 1 {
			t.Errorf("stats while loading: %+v", got)
		}
		close(gate)
		wg.Wait()
		if s.loads.Load() != 1 {
			t.Errorf("%d loads", s.loads.Load())
		}
		check(t, c)
		if b, ok := c.Lookup(1); !ok || b.refs.Load() != 2 {
			t.Error("the block is not in memory with the cache's and this reference")
		} else {
			b.Release()
		}
	})
}

func TestFailureReachesAllWaitersAndIsNotKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &source{size: 10}
		c := newCache(t, Config{Bytes: 100})
		defer c.Close()
		boom := errors.New("boom")
		gate := make(chan struct{})
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() {
				_, err := c.Get(t.Context(), 1, func(context.Context) (*block, error) {
					<-gate
					return nil, boom
				})
				if !errors.Is(err, boom) {
					t.Errorf("Get: %v, want boom", err)
				}
			})
		}
		synctest.Wait()
		close(gate)
		wg.Wait()
		if got := c.Stats(); got.LoadErrors != 1 || got.Loads != 1 || got.Blocks != 0 || got.Loading != 0 {
			t.Errorf("stats after the failure: %+v", got)
		}
		if !read(t, c, s, 1) {
			t.Error("the failure was kept")
		}
	})
}

type ctxKey struct{}

// The reader that started a load goes away; the others get the block, and the load sees the values of the first context.
func TestCancelledReaderDoesNotFailOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &source{size: 10}
		c := newCache(t, Config{Bytes: 100})
		defer c.Close()
		gate := make(chan struct{})
		load := func(ctx context.Context) (*block, error) {
			if ctx.Value(ctxKey{}) != "first" {
				t.Error("the load lost the values of its context")
			}
			select {
			case <-gate:
				s.loads.Add(1)
				return s.block(1), nil
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
		first, cancel := context.WithCancelCause(context.WithValue(t.Context(), ctxKey{}, "first"))
		gone := errors.New("gone")
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := c.Get(first, 1, load); !errors.Is(err, gone) {
				t.Errorf("the cancelled reader: %v", err)
			}
		})
		synctest.Wait()
		wg.Go(func() {
			b, err := c.Get(t.Context(), 1, load)
			if err != nil {
				t.Errorf("the second reader: %v", err)
				return
			}
			b.Release()
		})
		synctest.Wait()
		cancel(gone)
		synctest.Wait()
		close(gate)
		wg.Wait()
		if s.loads.Load() != 1 || c.Stats().Loads != 1 {
			t.Errorf("%d loads", c.Stats().Loads)
		}
		if _, err := c.Get(first, 2, load); !errors.Is(err, gone) {
			t.Errorf("a miss under an ended context: %v", err)
		}
	})
}

// A load that nobody waits for is stopped; a later reader does not get its cancellation.
func TestAbandonedLoadStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &source{size: 10}
		c := newCache(t, Config{Bytes: 100})
		defer c.Close()
		finish := make(chan struct{})
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() {
			_, err := c.Get(ctx, 1, func(ctx context.Context) (*block, error) {
				<-ctx.Done()
				<-finish // slow to stop, and succeeds after all
				return s.block(1), nil
			})
			if !errors.Is(err, context.Canceled) {
				t.Errorf("the cancelled reader: %v", err)
			}
		})
		synctest.Wait()
		cancel()
		wg.Wait()
		if !read(t, c, s, 1) {
			t.Error("a later reader did not load anew")
		}
		close(finish)
		synctest.Wait()
		check(t, c)
		if got := s.live.Load(); got != 1 {
			t.Errorf("%d blocks alive: the abandoned load's block leaked or took the place of the other", got)
		}
		if got := c.Stats(); got.LoadErrors != 0 || got.Loads != 2 || got.Loading != 0 {
			t.Errorf("stats %+v", got)
		}
	})
}

func TestPrefetchIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &source{size: 10}
		c := newCache(t, Config{Bytes: 100, Prefetches: 2})
		defer c.Close()
		gate := make(chan struct{})
		slow := func(key int) Loader[*block] {
			return func(ctx context.Context) (*block, error) {
				<-gate
				return s.load(key)(ctx)
			}
		}
		if !c.Prefetch(1, slow(1)) || !c.Prefetch(2, slow(2)) {
			t.Fatal("two loads ahead were not started")
		}
		if c.Prefetch(3, slow(3)) || c.Prefetch(1, slow(1)) {
			t.Error("a third load ahead, or a second of one block, was started")
		}
		// A reader joins a load ahead, and its going away does not stop it.
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := c.Get(ctx, 1, slow(1)); !errors.Is(err, context.Canceled) {
				t.Errorf("the cancelled reader: %v", err)
			}
		})
		synctest.Wait()
		cancel()
		wg.Wait()
		close(gate)
		synctest.Wait()
		if read(t, c, s, 1) || read(t, c, s, 2) {
			t.Error("a block loaded ahead is not in memory")
		}
		if c.Prefetch(1, slow(1)) {
			t.Error("a block in memory was loaded ahead")
		}
		if !c.Prefetch(3, func(context.Context) (*block, error) { return nil, errors.New("boom") }) {
			t.Error("no load ahead although none is running")
		}
		synctest.Wait()
		if !read(t, c, s, 3) {
			t.Error("a failed load ahead was kept")
		}
		check(t, c)
		want := Stats{Hits: 2, Misses: 2, Loads: 4, LoadErrors: 1, Prefetches: 3, Refused: 1, Bytes: 30, Blocks: 3}
		if got := c.Stats(); got != want {
			t.Errorf("stats %+v, want %+v", got, want)
		}
	})
}

// The first read of a block loaded ahead is its only use so far: it does not make a scan's block a hot one.
func TestBlocksLoadedAheadAreNotHot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &source{size: 10}
		c := newCache(t, Config{Bytes: 160, Prefetches: 4})
		defer c.Close()
		for key := range 200 {
			c.Prefetch(key+4, s.load(key+4))
			synctest.Wait()
			read(t, c, s, key)
			read(t, c, s, key)
		}
		check(t, c)
		if got := c.Stats(); got.Protected != 0 || got.Wasted != 0 || got.Prefetches != 200 {
			t.Errorf("after a scan with read-ahead: %+v", got)
		}
		c.Resize(0)
		if got := c.Stats().Wasted; got != 4 {
			t.Errorf("%d blocks loaded ahead in vain, want 4", got)
		}
	})
}

func TestClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &source{size: 10}
		c := newCache(t, Config{Bytes: 100, Prefetches: 1})
		read(t, c, s, 9)
		stuck := func(ctx context.Context) (*block, error) {
			<-ctx.Done()
			return s.block(1), nil // too late
		}
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := c.Get(t.Context(), 1, stuck); !errors.Is(err, ErrClosed) {
				t.Errorf("Get while closing: %v", err)
			}
		})
		c.Prefetch(2, stuck)
		synctest.Wait()
		c.Close()
		wg.Wait()
		if _, err := c.Get(t.Context(), 1, s.load(1)); !errors.Is(err, ErrClosed) {
			t.Errorf("Get after Close: %v", err)
		}
		if c.Prefetch(1, s.load(1)) {
			t.Error("Prefetch after Close starts a load")
		}
		check(t, c)
		if got := s.live.Load(); got != 0 {
			t.Errorf("%d blocks alive after Close", got)
		}
		c.Close()
	})
}

// Readers, loads that fail, cancellations, read-ahead and changes of the bound, all at once. Whatever the order,
// the counts must add up at the end and no block may leak or be touched after its last release.
func TestConcurrentUse(t *testing.T) {
	const readers, rounds, keys = 8, 4000, 64
	s := &source{size: 10}
	c := newCache(t, Config{Bytes: 200, Prefetches: 3})
	var mu sync.Mutex
	loading := make(map[int]context.Context) // the newest load of each block, while it runs
	boom := errors.New("boom")
	load := func(key int, fail bool) Loader[*block] {
		return func(ctx context.Context) (*block, error) {
			// A load that was given up, perhaps before it got here, may overlap with the next one; any other may not.
			mu.Lock()
			if ctx.Err() == nil {
				if other := loading[key]; other != nil && other.Err() == nil {
					t.Errorf("a second load of block %d", key)
				}
				loading[key] = ctx
			}
			mu.Unlock()
			defer func() {
				mu.Lock()
				defer mu.Unlock()
				if loading[key] == ctx {
					delete(loading, key)
				}
			}()
			if fail {
				return nil, boom
			}
			return s.load(key)(ctx)
		}
	}
	var gets, good, failed, cancelled atomic.Int64
	var wg sync.WaitGroup
	for r := range readers {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(1, uint64(r)))
			for i := range rounds {
				key := rnd.IntN(keys)
				ctx, cancel := context.WithCancel(t.Context())
				switch rnd.IntN(8) {
				case 0:
					ahead := rnd.IntN(keys)
					c.Prefetch(ahead, load(ahead, false))
				case 1:
					go cancel()
				}
				gets.Add(1)
				b, err := c.Get(ctx, key, load(key, i%16 == 0))
				cancel()
				switch {
				case err == nil:
					good.Add(1)
					if b.refs.Load() < 1 {
						t.Errorf("block %d without reference", key)
					}
					b.Release()
				case errors.Is(err, boom):
					failed.Add(1)
				case errors.Is(err, context.Canceled):
					cancelled.Add(1)
				default:
					t.Errorf("Get(%d): %v", key, err)
				}
				if i%1000 == 0 {
					c.Resize(int64(100 + rnd.IntN(200)))
				}
			}
		})
	}
	wg.Wait()
	check(t, c)
	if good.Load()+failed.Load()+cancelled.Load() != gets.Load() || good.Load() == 0 || failed.Load() == 0 {
		t.Errorf("%d Gets: %d good, %d failed, %d cancelled", gets.Load(), good.Load(), failed.Load(), cancelled.Load())
	}
	c.Close()
	if got := c.Stats(); got.Loading != 0 || got.Hits+got.Misses > gets.Load() {
		t.Errorf("stats %+v after %d Gets", got, gets.Load())
	}
	if got := s.live.Load(); got != 0 {
		t.Errorf("%d blocks leaked", got)
	}
}

func TestHitDoesNotAllocate(t *testing.T) {
	s := &source{size: 10}
	c := newCache(t, Config{Bytes: 1000})
	load := s.load(1)
	read(t, c, s, 1)
	ctx := t.Context()
	if n := testing.AllocsPerRun(100, func() {
		b, err := c.Get(ctx, 1, load)
		if err != nil {
			t.Fatal(err)
		}
		b.Release()
	}); n != 0 {
		t.Errorf("a hit allocates %v times", n)
	}
}

func BenchmarkHit(b *testing.B) {
	for _, protected := range []bool{false, true} {
		b.Run(fmt.Sprintf("protected=%v", protected), func(b *testing.B) {
			s := &source{size: 1000}
			c := newCache(b, Config{Bytes: 64000})
			for i := range 64 {
				read(b, c, s, i)
				if protected {
					read(b, c, s, i%8)
				}
			}
			loads := make([]Loader[*block], 8)
			for i := range loads {
				loads[i] = s.load(i)
				read(b, c, s, i)
			}
			ctx := b.Context()
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				v, err := c.Get(ctx, i&7, loads[i&7])
				if err != nil {
					b.Fatal(err)
				}
				v.Release()
				i++
			}
		})
	}
}

func BenchmarkHitParallel(b *testing.B) {
	s := &source{size: 1000}
	c := newCache(b, Config{Bytes: 64000})
	load := s.load(1)
	read(b, c, s, 1)
	ctx := b.Context()
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			v, err := c.Get(ctx, 1, load)
			if err != nil {
				b.Error(err)
				return
			}
			v.Release()
		}
	})
}

func BenchmarkMiss(b *testing.B) {
	s := &source{size: 1000}
	c := newCache(b, Config{Bytes: 64000})
	ctx := b.Context()
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		v, err := c.Get(ctx, i, s.load(i))
		if err != nil {
			b.Fatal(err)
		}
		v.Release()
		i++
	}
}
