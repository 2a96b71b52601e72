package cache

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
)

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
			return s.load(1)(ctx) // too late
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
