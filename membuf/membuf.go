// Package membuf owns the broker's large memory: reference-counted buffers in size classes that are reused
// rather than returned to the system, and byte budgets that bound what each use may hold.
//
// A request frame is read into a Buf; the record batches inside it become the hot segment, the body of the bucket
// write and the tail that fetches are served from, each holding a reference. The memory is reused when the last
// reference goes. Reuse matters: the first touch of a fresh page costs more than all other work on the path.
//
// Invariants:
//
//   - A Buf's bytes are valid while its holder has a reference; Release by the last holder recycles them.
//   - Retain is only called by a holder of a reference. References never go below zero (it panics).
//   - A Budget's use is the sum of what was acquired and not yet released; it exceeds the limit only by one
//     request that is larger than the limit itself, admitted when nothing else is held.
package membuf

import (
	"math/bits"
	"sync"
	"sync/atomic"
)

const (
	minClassBits = 12 // 4 KiB
	maxClassBits = 27 // 128 MiB; larger buffers are not pooled
	stepBits     = 2  // four classes to each power of two: at most 25 % unused
	classes      = (maxClassBits-minClassBits)<<stepBits + 1
)

// classOf returns the smallest class holding n bytes and its size, or -1 and n where n is not pooled.
func classOf(n int) (class, size int) {
	if n <= 1<<minClassBits {
		return 0, 1 << minClassBits
	}
	if n > 1<<maxClassBits {
		return -1, n
	}
	top := bits.Len(uint(n-1)) - 1 // n-1 is in [1<<top, 2<<top)
	step := 1 << (top - stepBits)
	k := (n - 1 - 1<<top) / step // 0..3
	return (top-minClassBits)<<stepBits + k + 1, 1<<top + (k+1)*step
}

// Pool hands out buffers. The zero value is not usable; see NewPool.
type Pool struct {
	maxFree int64 // bytes kept for reuse at most

	mu   sync.Mutex
	free [classes][][]byte // owned by mu
	kept int64             // bytes in free; owned by mu

	live atomic.Int64 // bytes handed out
}

// NewPool returns a pool that keeps at most maxFree bytes for reuse.
func NewPool(maxFree int64) *Pool { return &Pool{maxFree: maxFree} }

// Get returns a buffer of n bytes with one reference. Its content is undefined.
func (p *Pool) Get(n int) *Buf {
	class, size := classOf(n)
	var mem []byte
	if class >= 0 {
		p.mu.Lock()
		if l := len(p.free[class]); l > 0 {
			mem = p.free[class][l-1]
			p.free[class][l-1] = nil
			p.free[class] = p.free[class][:l-1]
			p.kept -= int64(size)
		}
		p.mu.Unlock()
	}
	if mem == nil {
		mem = make([]byte, size)
	}
	p.live.Add(int64(size))
	b := &Buf{mem: mem, n: n, pool: p, class: class}
	b.refs.Store(1)
	return b
}

func (p *Pool) put(class int, mem []byte) {
	p.live.Add(-int64(len(mem)))
	if class < 0 {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.kept+int64(len(mem)) > p.maxFree {
		return
	}
	p.kept += int64(len(mem))
	p.free[class] = append(p.free[class], mem)
}

// Live returns the bytes handed out and not yet given back.
func (p *Pool) Live() int64 { return p.live.Load() }

// Kept returns the bytes held for reuse.
func (p *Pool) Kept() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.kept
}

// Trim gives the memory held for reuse back to the garbage collector.
func (p *Pool) Trim() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.free = [classes][][]byte{}
	p.kept = 0
}

// Buf is a reference-counted buffer of a Pool.
type Buf struct {
	mem    []byte
	n      int
	class  int
	pool   *Pool
	budget *Budget
	refs   atomic.Int32
}

// Bytes returns the buffer's n bytes; the caller must hold a reference while it uses them.
func (b *Buf) Bytes() []byte { return b.mem[:b.n:b.n] }

// Size returns the bytes of memory behind the buffer, its size class.
func (b *Buf) Size() int64 { return int64(len(b.mem)) }

// Retain adds a reference.
func (b *Buf) Retain() {
	if b.refs.Add(1) < 2 {
		panic("membuf: retain of a released buffer")
	}
}

// Release drops a reference; the last one recycles the memory.
func (b *Buf) Release() {
	switch n := b.refs.Add(-1); {
	case n > 0:
		return
	case n < 0:
		panic("membuf: buffer released more often than retained")
	}
	mem := b.mem
	b.mem = nil
	b.pool.put(b.class, mem)
	if b.budget != nil {
		b.budget.Release(int64(len(mem)))
	}
}
