// Package cache keeps blocks of immutable objects in memory: bounded in bytes, one load per block however many readers
// ask for it, and a long scan does not push out what is read again and again.
//
// # Which blocks stay
//
// A loaded block enters probation. When it is read again after at least an eighth of the cache's bytes has entered since,
// it moves to the protected part. Reads before that are taken for one reader that takes the block in several pieces,
// and change nothing. A block that was loaded ahead enters anew with its first read. Room is made by dropping the oldest
// block of probation; its key is remembered until as many bytes as the cache holds were dropped after it, and if it is
// loaded again by then, it is protected at once. The protected part takes at most three quarters of the bytes; above that
// its least recently read block goes back to probation as the newest.
//
// Hence a scan competes only for what is not protected. As long as the protected blocks fit into three quarters, no scan of
// any length drops one; blocks that come to be read again and again take the place of those that no longer are.
//
// Invariants:
//
//   - The blocks in the cache add up to at most the bound. What readers still hold of dropped blocks comes on top.
//   - At most one load of a key runs that anybody waits for. A failed load reaches all its waiters and is not kept.
//   - A load stops when nobody waits for it any more, not when the reader that started it goes away.
//   - The cache holds exactly one reference to each of its blocks; each successful Get gives the caller one more.
//   - No lock is held while a block is loaded, waited for or released.
//
// There is one lock. It is held for a map look-up and a list move, some 100 ns for a block of a megabyte or more, and
// in exchange the bound and the order are those of the whole cache also when it holds few blocks.
package cache

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

// ErrClosed says that the cache was closed before or while the block was asked for.
var ErrClosed = errors.New("cache is closed")

// The shares of the bound; see the package comment.
const (
	protectedShare = 0.75
	settleShare    = 0.125
)

// Value is a reference-counted block. Size must not change; Retain and Release may be called concurrently.
type Value interface {
	Size() int64 // bytes of memory that it occupies
	Retain()
	Release()
}

// Config sizes a cache.
type Config struct {
	Bytes      int64 // bound of the blocks' sizes; 0 caches nothing, but still loads each block once at a time
	Prefetches int   // loads ahead that may run at the same time; 0 loads nothing ahead
}

// Validate names the first field that is not allowed.
func (c Config) Validate() error {
	switch {
	case c.Bytes < 0:
		return fmt.Errorf("cache: Bytes is %d, want at least 0", c.Bytes)
	case c.Prefetches < 0:
		return fmt.Errorf("cache: Prefetches is %d, want at least 0", c.Prefetches)
	}
	return nil
}

// Loader reads a block and returns it with one reference for the cache. Its context carries the values of the reader's
// that started it and ends when nobody wants the block any more.
type Loader[V Value] func(context.Context) (V, error)

// Stats are counts since the start, and the present state.
type Stats struct {
	Hits       int64 // Gets answered from memory
	Misses     int64 // Gets that had to wait for a load, their own or another's
	Loads      int64 // loads started, also ahead
	LoadErrors int64 // loads that failed; those that were given up are not counted
	Evictions  int64 // blocks dropped to make room
	Prefetches int64 // loads started ahead
	Refused    int64 // loads ahead not started because too many were running
	Wasted     int64 // blocks loaded ahead and dropped before anybody read them
	Bytes      int64 // in the cache now
	Protected  int64 // bytes of these that are protected
	Blocks     int   // in the cache now
	Loading    int   // loads running now
}

// Cache holds blocks by key. Its methods may be called concurrently.
type Cache[K comparable, V Value] struct {
	prefetches int

	mu        sync.Mutex // owns all below
	bound     int64
	probation *simplelru.LRU[K, *entry[V]]
	protected *simplelru.LRU[K, *entry[V]]
	ghosts    *simplelru.LRU[K, int64] // sizes of blocks that were read and dropped
	ghostly   int64                    // sum of these, at most bound
	flights   map[K]*flight[V]
	entered   int64 // bytes that ever entered probation
	ahead     int   // loads ahead that are running
	closed    bool
	stats     Stats

	running sync.WaitGroup // goroutines that load
}

// entry is a block in the cache. Owned by Cache.mu, but for val's reference count.
type entry[V Value] struct {
	val     V
	size    int64
	entered int64 // Cache.entered when it last entered probation
	unread  bool  // loaded ahead and not read so far
}

// flight is a load that is running. Owned by Cache.mu until done is closed, constant after that.
type flight[V Value] struct {
	cancel  context.CancelFunc
	waiters int  // Gets that wait
	ahead   bool // started by Prefetch: goes on without waiters
	// settled says that val and err are final; then each waiter owns one reference to val.
	settled bool
	val     V
	err     error
	done    chan struct{}
}

// New returns an empty cache.
func New[K comparable, V Value](cfg Config) (*Cache[K, V], error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	c := &Cache[K, V]{prefetches: cfg.Prefetches, bound: cfg.Bytes, flights: make(map[K]*flight[V])}
	// The lists count entries; the bound in bytes is kept by room.
	var err error
	if c.probation, err = simplelru.NewLRU[K, *entry[V]](math.MaxInt, nil); err != nil {
		return nil, err
	}
	if c.protected, err = simplelru.NewLRU[K, *entry[V]](math.MaxInt, nil); err != nil {
		return nil, err
	}
	if c.ghosts, err = simplelru.NewLRU[K, int64](math.MaxInt, nil); err != nil {
		return nil, err
	}
	return c, nil
}

// Get returns the block with a reference for the caller, loading it if it is neither in memory nor being loaded. It returns
// early with the context's error when ctx ends; the load goes on as long as others wait for it.
func (c *Cache[K, V]) Get(ctx context.Context, key K, load Loader[V]) (V, error) {
	c.mu.Lock()
	if v, ok := c.hit(key); ok {
		c.mu.Unlock()
		return v, nil
	}
	f, err := c.join(ctx, key, load)
	c.mu.Unlock()
	if err != nil {
		var none V
		return none, err
	}
	select {
	case <-f.done:
	case <-ctx.Done():
		if c.leave(key, f) {
			var none V
			return none, context.Cause(ctx)
		}
		<-f.done // settled already: closed any moment
	}
	return f.val, f.err
}

// Lookup returns the block with a reference for the caller if it is in memory.
func (c *Cache[K, V]) Lookup(key K) (V, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	v, ok := c.hit(key)
	if !ok {
		c.stats.Misses++
	}
	return v, ok
}

// hit finds a block, notes that it was read and retains it. Callers hold c.mu.
func (c *Cache[K, V]) hit(key K) (v V, ok bool) {
	e, ok := c.protected.Get(key)
	if !ok {
		if e, ok = c.probation.Peek(key); !ok {
			return v, false
		}
		c.reread(key, e)
	}
	e.unread = false
	c.stats.Hits++
	e.val.Retain()
	return e.val, true
}

// reread promotes a block of probation if this read says more than that its reader is not through with it.
func (c *Cache[K, V]) reread(key K, e *entry[V]) {
	if e.unread {
		c.probation.Get(key) // makes it the newest
		e.entered = c.entered
		return
	}
	if c.entered-e.entered < c.share(settleShare) {
		return
	}
	c.probation.Remove(key)
	c.protect(key, e)
}

// protect puts a block into the protected part.
func (c *Cache[K, V]) protect(key K, e *entry[V]) {
	c.protected.Add(key, e)
	c.stats.Protected += e.size
	c.demote()
}

// demote keeps the protected part within its share.
func (c *Cache[K, V]) demote() {
	for c.stats.Protected > c.share(protectedShare) {
		key, e, ok := c.protected.RemoveOldest()
		if !ok {
			return
		}
		c.stats.Protected -= e.size
		c.enter(key, e)
	}
}

// enter makes e the newest block of probation.
func (c *Cache[K, V]) enter(key K, e *entry[V]) {
	c.entered += e.size
	e.entered = c.entered
	c.probation.Add(key, e)
}

func (c *Cache[K, V]) share(s float64) int64 { return int64(float64(c.bound) * s) }

// room drops blocks until the cache holds at most bound-size bytes and returns them, to be released without the lock.
func (c *Cache[K, V]) room(size int64) []V {
	var dropped []V
	for c.stats.Bytes > c.bound-size {
		key, e, ok := c.probation.RemoveOldest()
		if !ok {
			if key, e, ok = c.protected.RemoveOldest(); !ok {
				break
			}
			c.stats.Protected -= e.size
		}
		c.stats.Bytes -= e.size
		c.stats.Evictions++
		if e.unread {
			c.stats.Wasted++
		} else {
			c.haunt(key, e.size)
		}
		dropped = append(dropped, e.val)
	}
	return dropped
}

// haunt remembers a dropped block.
func (c *Cache[K, V]) haunt(key K, size int64) {
	c.ghosts.Add(key, size)
	c.ghostly += size
	c.forget()
}

// forget drops the oldest ghosts above the bound.
func (c *Cache[K, V]) forget() {
	for c.ghostly > c.bound {
		_, n, _ := c.ghosts.RemoveOldest()
		c.ghostly -= n
	}
}

// exorcise forgets a dropped block and reports whether it was remembered.
func (c *Cache[K, V]) exorcise(key K) bool {
	size, ok := c.ghosts.Peek(key)
	if ok {
		c.ghosts.Remove(key)
		c.ghostly -= size
	}
	return ok
}

func release[V Value](vals []V) {
	for _, v := range vals {
		v.Release()
	}
}

// Resize changes the bound, and drops what is above the new one.
func (c *Cache[K, V]) Resize(bytes int64) {
	c.mu.Lock()
	c.bound = max(bytes, 0)
	c.demote()
	dropped := c.room(0)
	c.forget()
	c.mu.Unlock()
	release(dropped)
}

// Stats returns the counts so far.
func (c *Cache[K, V]) Stats() Stats {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.stats
	s.Blocks, s.Loading = c.probation.Len()+c.protected.Len(), len(c.flights)
	return s
}

// Close stops all loads, waits for them and drops all blocks. Gets that wait, and later ones, fail with ErrClosed.
func (c *Cache[K, V]) Close() {
	c.mu.Lock()
	c.closed = true
	for _, f := range c.flights {
		f.cancel()
	}
	c.mu.Unlock()
	c.running.Wait()

	c.mu.Lock()
	vals := append(values(c.probation), values(c.protected)...)
	c.probation.Purge()
	c.protected.Purge()
	c.ghosts.Purge()
	c.ghostly = 0
	c.stats.Bytes, c.stats.Protected = 0, 0
	c.mu.Unlock()
	release(vals)
}

func values[K comparable, V Value](l *simplelru.LRU[K, *entry[V]]) []V {
	vals := make([]V, 0, l.Len())
	for _, e := range l.Values() {
		vals = append(vals, e.val)
	}
	return vals
}

// Check returns an error that says which invariant of the cache's bookkeeping does not hold. For tests.
func (c *Cache[K, V]) Check() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	var all, protected, ghostly int64
	for _, n := range c.ghosts.Values() {
		ghostly += n
	}
	for _, e := range c.protected.Values() {
		protected += e.size
	}
	for _, e := range c.probation.Values() {
		all += e.size
	}
	all += protected
	switch {
	case all != c.stats.Bytes || protected != c.stats.Protected:
		return fmt.Errorf("counted %d bytes, %d of them protected; there are %d, %d", c.stats.Bytes, c.stats.Protected, all, protected)
	case all > c.bound:
		return fmt.Errorf("%d bytes, more than the bound %d", all, c.bound)
	case protected > c.share(protectedShare):
		return fmt.Errorf("%d protected bytes, more than %d", protected, c.share(protectedShare))
	case ghostly != c.ghostly || ghostly > c.bound:
		return fmt.Errorf("counted %d bytes of dropped blocks, there are %d, the bound is %d", c.ghostly, ghostly, c.bound)
	case c.ahead < 0 || c.ahead > c.prefetches:
		return fmt.Errorf("%d loads ahead, want 0 to %d", c.ahead, c.prefetches)
	}
	for _, k := range c.protected.Keys() {
		if c.probation.Contains(k) {
			return fmt.Errorf("block %v is in both parts", k)
		}
	}
	for _, k := range c.ghosts.Keys() {
		if c.probation.Contains(k) || c.protected.Contains(k) {
			return fmt.Errorf("block %v is there and remembered as dropped", k)
		}
	}
	return nil
}
