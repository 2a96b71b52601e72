package membuf

import (
	"context"
	"sync"
)

// Budget bounds the bytes that one use of memory may hold. Waiters are served in order.
type Budget struct {
	limit int64

	mu      sync.Mutex
	used    int64     // owned by mu
	waiters []*waiter // owned by mu, first come first served
}

type waiter struct {
	n     int64
	ready chan struct{}
}

// NewBudget returns a budget of limit bytes.
func NewBudget(limit int64) *Budget { return &Budget{limit: limit} }

// fits tells whether n more bytes may be taken now. Callers hold mu.
func (b *Budget) fits(n int64) bool { return b.used == 0 || b.used+n <= b.limit }

// Acquire takes n bytes, waiting until they fit or ctx is done.
func (b *Budget) Acquire(ctx context.Context, n int64) error {
	b.mu.Lock()
	if len(b.waiters) == 0 && b.fits(n) {
		b.used += n
		b.mu.Unlock()
		return nil
	}
	w := &waiter{n: n, ready: make(chan struct{})}
	b.waiters = append(b.waiters, w)
	b.mu.Unlock()
	select {
	case <-w.ready:
		return nil
	case <-ctx.Done():
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	select {
	case <-w.ready: // granted meanwhile: give it back
		b.used -= n
	default:
		for i := range b.waiters {
			if b.waiters[i] == w {
				b.waiters = append(b.waiters[:i], b.waiters[i+1:]...)
				break
			}
		}
	}
	b.grant()
	return ctx.Err()
}

// TryAcquire takes n bytes if they fit and nobody waits.
func (b *Budget) TryAcquire(n int64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.waiters) > 0 || !b.fits(n) {
		return false
	}
	b.used += n
	return true
}

// Release gives n bytes back.
func (b *Budget) Release(n int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.used -= n
	if b.used < 0 {
		panic("membuf: more released than acquired")
	}
	b.grant()
}

// grant serves the waiters that fit, in order. Callers hold mu.
func (b *Budget) grant() {
	for len(b.waiters) > 0 && b.fits(b.waiters[0].n) {
		w := b.waiters[0]
		b.waiters = b.waiters[1:]
		b.used += w.n
		close(w.ready)
	}
}

// Used returns the bytes held now, and Limit the bound.
func (b *Budget) Used() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.used
}

// Limit returns the budget's bound in bytes.
func (b *Budget) Limit() int64 { return b.limit }

// GetWithin is Get charged to a budget: it waits until the buffer's size class fits. The charge ends with the last Release.
func (p *Pool) GetWithin(ctx context.Context, b *Budget, n int) (*Buf, error) {
	_, size := classOf(n)
	if err := b.Acquire(ctx, int64(size)); err != nil {
		return nil, err
	}
	buf := p.Get(n)
	buf.budget = b
	return buf, nil
}
