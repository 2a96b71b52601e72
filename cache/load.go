package cache

import "context"

// Prefetch loads a block ahead, in the background, and returns at once. It does nothing and returns false if the block
// is there or being loaded, or as many loads ahead are running as may. A failure is forgotten; a Get that came to wait for
// the load gets it.
func (c *Cache[K, V]) Prefetch(key K, load Loader[V]) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || c.flights[key] != nil || c.protected.Contains(key) || c.probation.Contains(key) {
		return false
	}
	if c.ahead >= c.prefetches {
		c.stats.Refused++
		return false
	}
	c.ahead++
	c.stats.Prefetches++
	f := c.start(context.Background(), key, load)
	f.ahead = true
	return true
}

// join makes the caller a waiter of the key's load and starts it if need be. Callers hold c.mu.
func (c *Cache[K, V]) join(ctx context.Context, key K, load Loader[V]) (*flight[V], error) {
	if c.closed {
		return nil, ErrClosed
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	c.stats.Misses++
	f := c.flights[key]
	if f == nil {
		// The load outlives this reader if others wait for it too, but keeps the values of its context.
		f = c.start(context.WithoutCancel(ctx), key, load)
	}
	f.waiters++
	return f, nil
}

// start begins a load. Callers hold c.mu, so that the load cannot settle before they have marked it theirs.
func (c *Cache[K, V]) start(ctx context.Context, key K, load Loader[V]) *flight[V] {
	ctx, cancel := context.WithCancel(ctx)
	f := &flight[V]{cancel: cancel, done: make(chan struct{})}
	c.flights[key] = f
	c.stats.Loads++
	c.running.Go(func() {
		defer cancel()
		v, err := load(ctx)
		c.settle(key, f, v, err)
	})
	return f
}

// leave takes back a waiter whose context ended. It returns false if the load has settled: then the waiter owns a
// reference already.
func (c *Cache[K, V]) leave(key K, f *flight[V]) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if f.settled {
		return false
	}
	if f.waiters--; f.waiters == 0 && !f.ahead {
		// Later readers start anew rather than wait for a load that is being stopped.
		delete(c.flights, key)
		f.cancel()
	}
	return true
}

// settle hands a loaded block, or the error, to the waiters and keeps the block.
func (c *Cache[K, V]) settle(key K, f *flight[V], v V, err error) {
	c.mu.Lock()
	var dropped []V
	if c.closed {
		if err == nil {
			dropped = append(dropped, v)
		}
		var none V
		v, err = none, ErrClosed
	}
	abandoned := c.flights[key] != f
	if !abandoned {
		delete(c.flights, key)
	}
	if f.ahead {
		c.ahead--
	}
	if err == nil {
		for range f.waiters {
			v.Retain()
		}
		dropped = c.keep(key, f, v, abandoned)
	} else if !abandoned && !c.closed {
		c.stats.LoadErrors++
	}
	f.val, f.err, f.settled = v, err, true
	c.mu.Unlock()
	// First make room, then let the waiters have what needed it.
	release(dropped)
	close(f.done)
}

// keep puts a block into the cache with the loader's reference, or returns it among those to be released. Callers
// hold c.mu.
func (c *Cache[K, V]) keep(key K, f *flight[V], v V, abandoned bool) []V {
	size := v.Size()
	if abandoned || size > c.bound {
		return []V{v}
	}
	again := c.exorcise(key)
	dropped := c.room(size)
	c.stats.Bytes += size
	e := &entry[V]{val: v, size: size, unread: f.ahead && f.waiters == 0}
	if again {
		c.protect(key, e)
	} else {
		c.enter(key, e)
	}
	return dropped
}
