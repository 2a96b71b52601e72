package cache

import (
	"fmt"
	"testing"
)

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
