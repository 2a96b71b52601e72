package rollup_test

import (
	"context"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/tierlog/tierlog/objstore"
	"github.com/tierlog/tierlog/tiered/logid"
	"github.com/tierlog/tierlog/tiered/manifest"
	"github.com/tierlog/tierlog/tiered/rollup"
)

// sink reads what is created and forgets it, so that a benchmark measures the copying alone.
type sink struct {
	objstore.Store
	buf []byte
}

func (s *sink) Create(_ context.Context, _ string, body objstore.Payload) (objstore.Version, error) {
	_, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{body.Reader()}, s.buf)
	return "1", err
}

func BenchmarkMerge(b *testing.B) {
	r := rand.New(rand.NewPCG(61, 62))
	w := newWorld()
	for range 16 {
		w.flush(b, r, 1, parts(256), func() int { return 16 << 10 }) // 8 MiB of 32 KiB sections
	}
	work := newWorker(b, &sink{w.store, make([]byte, 256<<10)}, nil)
	in := rollup.MergeInput{Epoch: epoch, Objects: w.objects, ULID: manifest.ULID{1}, Alive: all}
	b.ReportAllocs()
	for b.Loop() {
		m, err := work.Merge(b.Context(), in)
		if err != nil {
			b.Fatal(err)
		}
		b.SetBytes(m.Object.Size)
	}
}

func BenchmarkWriteSegment(b *testing.B) {
	big := newWorld()
	r := rand.New(rand.NewPCG(63, 64))
	for range 128 {
		big.flush(b, r, 1, parts(1), func() int { return 500 << 10 })
	}
	work := newWorker(b, &sink{big.store, make([]byte, 256<<10)}, nil)
	extents := big.extents(parts(1)[0], true)
	p := rollup.SegmentPlan{Partition: parts(1)[0], Topic: "t", ULID: manifest.ULID{1}, Last: extents[len(extents)-1].Last, PrevEpoch: logid.NoLeaderEpoch, Extents: extents}
	b.ReportAllocs()
	for b.Loop() {
		out, err := work.WriteSegment(b.Context(), p, nil)
		if err != nil {
			b.Fatal(err)
		}
		b.SetBytes(out.Segment.Size)
	}
}
