package bench

import (
	"math/bits"
	"time"
)

const (
	// halfBits is how many bits of a value a bucket keeps: its width is at most 1/128 of the value.
	halfBits = 7
	half     = 1 << halfBits
)

// Histogram counts durations in buckets that grow with the value. It is not safe for concurrent use.
type Histogram struct {
	counts [(64 - halfBits) * half]uint64
	n      uint64
	sum    float64 // nanoseconds
	max    time.Duration
}

// Record counts one duration; a negative one counts as zero.
func (h *Histogram) Record(d time.Duration) {
	d = max(d, 0)
	h.counts[bucket(uint64(d))]++
	h.n++
	h.sum += float64(d)
	h.max = max(h.max, d)
}

// Merge adds what other has counted.
func (h *Histogram) Merge(other *Histogram) {
	for i, c := range other.counts {
		h.counts[i] += c
	}
	h.n += other.n
	h.sum += other.sum
	h.max = max(h.max, other.max)
}

// Count returns how many durations were recorded.
func (h *Histogram) Count() int64 { return int64(h.n) }

// Quantile returns the least duration that at least the fraction q of all does not exceed, at most 1/128 too high.
func (h *Histogram) Quantile(q float64) time.Duration {
	if h.n == 0 {
		return 0
	}
	rank := uint64(q * float64(h.n))
	if float64(rank) < q*float64(h.n) || rank == 0 {
		rank++
	}
	var seen uint64
	for i, c := range h.counts {
		if seen += c; seen >= rank {
			return min(time.Duration(upper(i)), h.max)
		}
	}
	return h.max
}

// Latency summarizes the histogram; nil without samples.
func (h *Histogram) Latency(from string) *Latency {
	if h.n == 0 {
		return nil
	}
	ms := func(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
	return &Latency{
		Samples: h.Count(), Mean: h.sum / float64(h.n) / float64(time.Millisecond),
		P50: ms(h.Quantile(0.5)), P90: ms(h.Quantile(0.9)), P99: ms(h.Quantile(0.99)), P999: ms(h.Quantile(0.999)),
		Max: ms(h.max), From: from,
	}
}

// bucket returns the bucket of a value: one for each value below 2*half, then half of them for each power of two.
func bucket(v uint64) int {
	shift := max(0, bits.Len64(v)-halfBits-1)
	return shift*half + int(v>>shift)
}

// upper returns the largest value in a bucket.
func upper(i int) uint64 {
	shift := max(0, i/half-1)
	return (uint64(i-shift*half)+1)<<shift - 1
}
