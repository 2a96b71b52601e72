package bench

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

func TestHistogramQuantiles(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1)) //nolint:gosec // test data
	for _, n := range []int{1, 2, 3, 100, 10000} {
		h, all := &Histogram{}, make([]time.Duration, n)
		var sum float64
		for i := range all {
			all[i] = time.Duration(rng.ExpFloat64() * float64(time.Millisecond))
			if i%10 == 0 {
				all[i] = time.Duration(rng.IntN(300)) // Small ones have a bucket each.
			}
			h.Record(all[i])
			sum += float64(all[i])
		}
		slices.Sort(all)
		for _, q := range []float64{0, 0.001, 0.5, 0.9, 0.99, 0.999, 1} {
			rank := max(1, int(q*float64(n)))
			if float64(rank) < q*float64(n) {
				rank++
			}
			want, got := all[rank-1], h.Quantile(q)
			if got < want || float64(got) > float64(want)*(1+1.0/half) {
				t.Errorf("n %d q %g: got %d, exact %d", n, q, got, want)
			}
		}
		l := h.Latency("here")
		if l.Samples != int64(n) || l.Max != float64(all[n-1])/1e6 || l.From != "here" {
			t.Errorf("got %+v", l)
		}
		if mean := sum / float64(n) / 1e6; l.Mean < mean*0.999999 || l.Mean > mean*1.000001 {
			t.Errorf("mean %g, want %g", l.Mean, mean)
		}
	}
}

func TestHistogramBuckets(t *testing.T) {
	last := -1
	for _, v := range []uint64{0, 1, 127, 128, 255, 256, 257, 511, 512, 1 << 20, 1<<20 + 1<<13, 1 << 40, 1<<63 - 1} {
		b := bucket(v)
		if b < last || b >= len(Histogram{}.counts) {
			t.Errorf("%d is in bucket %d, after %d", v, b, last)
		}
		last = b
		if up := upper(b); up < v || bucket(up) != b || bucket(up+1) == b && up+1 > up {
			t.Errorf("%d: bucket %d ends at %d", v, b, up)
		}
	}
}

func TestHistogramEdges(t *testing.T) {
	h := &Histogram{}
	if h.Quantile(0.5) != 0 || h.Latency("") != nil {
		t.Error("an empty histogram has a latency")
	}
	h.Record(-time.Second)
	other := &Histogram{}
	other.Record(time.Second)
	h.Merge(other)
	if h.Count() != 2 || h.Quantile(0.5) != 0 || h.Quantile(1) != time.Second {
		t.Errorf("got %d, %v, %v", h.Count(), h.Quantile(0.5), h.Quantile(1))
	}
}

func TestPayload(t *testing.T) {
	for _, kind := range []string{"random", "text"} {
		for _, compressed := range []bool{false, true} {
			for _, size := range []int{0, 1, 100, 5000} {
				p, err := NewPayload(kind, size, compressed)
				if err != nil {
					t.Fatal(err)
				}
				a, b := p.at(0, size), p.at(1, size)
				if len(a) != size || cap(b) != size {
					t.Errorf("%s %v: %d bytes of %d, capacity %d", kind, compressed, len(a), size, cap(b))
				}
				if size > 1 && compressed == slices.Equal(a, b) {
					t.Errorf("%s: compressed %v, equal %v", kind, compressed, slices.Equal(a, b))
				}
				_ = p.at(1<<40, size)
			}
		}
	}
	if _, err := NewPayload("poetry", 1, false); err == nil {
		t.Error("an unknown kind was accepted")
	}
}
