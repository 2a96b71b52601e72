package membuf

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
)

func TestClassesHoldTheirSizeAndWasteLittle(t *testing.T) {
	last := -1
	for n := 1; n <= 1<<22; n += 97 {
		class, size := classOf(n)
		if size < n {
			t.Fatalf("class of %d bytes holds only %d", n, size)
		}
		if n > 1<<minClassBits && float64(size) > 1.26*float64(n) {
			t.Fatalf("class of %d bytes is %d: more than a quarter unused", n, size)
		}
		if class < last || class >= classes {
			t.Fatalf("class %d of %d bytes after class %d", class, n, last)
		}
		if c2, s2 := classOf(size); c2 != class || s2 != size {
			t.Fatalf("class size %d is not its own class: %d %d, want %d", size, c2, s2, class)
		}
		last = class
	}
	if c, s := classOf(1 << maxClassBits); c != classes-1 || s != 1<<maxClassBits {
		t.Fatalf("largest class: %d %d", c, s)
	}
	if c, _ := classOf(1<<maxClassBits + 1); c != -1 {
		t.Fatalf("oversized buffer has class %d", c)
	}
}

func TestLastReleaseRecyclesTheMemory(t *testing.T) {
	p := NewPool(1 << 20)
	b := p.Get(5000)
	first := &b.Bytes()[0]
	b.Retain()
	b.Release()
	if p.Kept() != 0 {
		t.Fatal("memory recycled while a reference is held")
	}
	b.Release()
	if p.Live() != 0 {
		t.Fatalf("live after the last release: %d", p.Live())
	}
	if again := p.Get(5100); &again.Bytes()[0] != first {
		t.Fatal("memory of the same class was not reused")
	}
	defer func() {
		if recover() == nil {
			t.Fatal("a release too many went unnoticed")
		}
	}()
	b.Release()
}

func TestPoolKeepsNoMoreThanItsBound(t *testing.T) {
	p := NewPool(10 << 10)
	var bufs []*Buf
	for range 8 {
		bufs = append(bufs, p.Get(4096))
	}
	for _, b := range bufs {
		b.Release()
	}
	if p.Kept() > 10<<10 || p.Kept() < 4096 {
		t.Fatalf("kept %d bytes, bound 10240", p.Kept())
	}
}

func TestBudgetServesWaitersInOrderAndOnCancel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBudget(100)
		ctx := t.Context()
		if err := b.Acquire(ctx, 80); err != nil {
			t.Fatal(err)
		}
		cctx, cancel := context.WithCancel(ctx)
		var got []string
		var mu sync.Mutex
		take := func(ctx context.Context, name string, n int64) {
			err := b.Acquire(ctx, n)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				name += " " + err.Error()
			}
			got = append(got, name)
		}
		go take(cctx, "large", 90)
		synctest.Wait()
		go take(ctx, "small", 10)
		synctest.Wait()
		if b.TryAcquire(1) {
			t.Fatal("overtook the waiters")
		}
		cancel() // the large one leaves: the small one fits
		synctest.Wait()
		if len(got) != 2 || b.Used() != 90 {
			t.Fatalf("after the cancel: %v, %d bytes used", got, b.Used())
		}
		b.Release(80)
		b.Release(10)
		if err := b.Acquire(ctx, 1000); err != nil { // larger than the limit: admitted alone
			t.Fatal(err)
		}
		if b.TryAcquire(1) {
			t.Fatal("admitted beside an oversized request")
		}
	})
}

func BenchmarkGetRelease(b *testing.B) {
	p := NewPool(1 << 30)
	b.ReportAllocs()
	for b.Loop() {
		p.Get(1 << 20).Release()
	}
}
