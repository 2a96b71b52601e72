package cache

import (
	"context"
	"sync/atomic"
	"testing"
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
		for range 2 {
			if !read(t, c, s, 1) {
				t.Errorf("bound %d: the block was kept", bound)
			}
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
