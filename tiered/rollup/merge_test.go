package rollup_test

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/tierlog/tierlog/membuf"
	"github.com/tierlog/tierlog/objstore"
	"github.com/tierlog/tierlog/objstore/objtest"
	"github.com/tierlog/tierlog/record"
	"github.com/tierlog/tierlog/tiered/logid"
	"github.com/tierlog/tierlog/tiered/manifest"
	"github.com/tierlog/tierlog/tiered/rollup"
	"github.com/tierlog/tierlog/tiered/wal"
)

// parts are partitions in the order of sections.
func parts(n int) []logid.Partition {
	var out []logid.Partition
	for i := range n {
		out = append(out, logid.Partition{Topic: topicA, Index: int32(i)})
	}
	return out
}

// some returns about half of the partitions, in order.
func some(r *rand.Rand, of []logid.Partition) []logid.Partition {
	var out []logid.Partition
	for _, p := range of {
		if r.IntN(2) == 0 {
			out = append(out, p)
		}
	}
	if len(out) == 0 {
		out = append(out, of[0])
	}
	return out
}

// check compares a merged segment in the store with the batches that it must hold.
func check(t *testing.T, s objstore.Store, m rollup.Merged, want map[logid.Partition][]record.Batch) {
	t.Helper()
	b := readAll(t, s, m.Object.Key(cluster, epoch))
	f, _, err := wal.ParseTail(b, int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	if h, err := wal.ParseHeader(b); err != nil || h != f.Header || h.Kind != wal.Merged || h.Slot != m.Object.From || h.Through != m.Object.To {
		t.Fatalf("header %+v, %v", h, err)
	}
	if f.Size != m.Object.Size || f.FooterSize != m.Object.FooterSize || f.Header != m.Footer.Header || len(f.Sections) != len(m.Footer.Sections) {
		t.Fatalf("footer of %d+%d bytes and %d sections, the answer says %d+%d and %d", f.Size, f.FooterSize, len(f.Sections),
			m.Object.Size, m.Object.FooterSize, len(m.Footer.Sections))
	}
	records, prev := int64(0), (*wal.Section)(nil)
	got := map[logid.Partition][]byte{}
	for i := range f.Sections {
		s := &f.Sections[i]
		if err := wal.VerifySection(s, b[s.Pos:s.Pos+s.Len]); err != nil {
			t.Fatal(err)
		}
		id := logid.Partition{Topic: s.Topic, Index: s.Partition}
		if prev != nil {
			p := logid.Partition{Topic: prev.Topic, Index: prev.Partition}
			if c := p.Compare(id); c > 0 || c == 0 && prev.LeaderEpoch >= s.LeaderEpoch {
				t.Fatalf("section of %v under %d follows %v under %d", id, s.LeaderEpoch, p, prev.LeaderEpoch)
			}
		}
		got[id] = append(got[id], b[s.Pos:s.Pos+s.Len]...)
		prev = s
	}
	for id, batches := range want {
		if !bytes.Equal(got[id], joined(batches)) {
			t.Fatalf("%v has %d bytes, want the %d of its %d batches", id, len(got[id]), len(joined(batches)), len(batches))
		}
		for _, x := range batches {
			records += int64(x.NumRecords())
		}
		delete(got, id)
	}
	if len(got) != 0 || records != m.Object.Records {
		t.Fatalf("%d partitions too many, %d records, the line says %d", len(got), records, m.Object.Records)
	}
}

func TestMergeHoldsEveryBatchInOrder(t *testing.T) {
	sizes := map[string]func(r *rand.Rand) func() int{
		"small objects, read whole": func(r *rand.Rand) func() int { return func() int { return r.IntN(300) } },
		"objects over several windows": func(r *rand.Rand) func() int {
			return func() int { return r.IntN(900 << 10) }
		},
		"mixed": func(r *rand.Rand) func() int {
			return func() int {
				if r.IntN(20) == 0 {
					return 200 << 10
				}
				return r.IntN(2000)
			}
		},
	}
	for name, size := range sizes {
		t.Run(name, func(t *testing.T) {
			r := rand.New(rand.NewPCG(1, 2))
			w := newWorld()
			for i := range 12 {
				w.flush(t, r, int32(i/5), some(r, parts(6)), size(r)) // the leader epoch grows twice
			}
			pool := membuf.NewPool(64 << 20)
			work := newWorker(t, w.store, func(c *rollup.Config) { c.Pool = pool })
			in := rollup.MergeInput{Epoch: epoch, Objects: w.objects, ULID: ulidOf(t, work), Alive: all}
			m, err := work.Merge(t.Context(), in)
			if err != nil {
				t.Fatal(err)
			}
			check(t, w.store, m, w.logs)
			if live := pool.Live(); live != 0 {
				t.Errorf("%d bytes were not given back", live)
			}
			// What was merged merges again, with what came after it.
			w.flush(t, r, 3, parts(6), size(r))
			in = rollup.MergeInput{Epoch: epoch, Objects: []manifest.Object{m.Object, w.objects[12]}, ULID: ulidOf(t, work), Alive: all}
			if m, err = work.Merge(t.Context(), in); err != nil {
				t.Fatal(err)
			}
			check(t, w.store, m, w.logs)
		})
	}
}

func TestMergeLeavesOutWhatIsDead(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	w := newWorld()
	for range 6 {
		w.flush(t, r, 1, parts(4), func() int { return r.IntN(2000) })
	}
	dead := parts(4)[2]
	start := logid.Offset(w.logs[parts(4)[0]][4].BaseOffset())
	work := newWorker(t, w.store, nil)
	in := rollup.MergeInput{Epoch: epoch, Objects: w.objects, ULID: ulidOf(t, work), Alive: func(p logid.Partition, base, last logid.Offset) bool {
		if last < base {
			t.Errorf("asked for offsets %d to %d", base, last)
		}
		return p != dead && (p != parts(4)[0] || last >= start)
	}}
	m, err := work.Merge(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	want := map[logid.Partition][]record.Batch{}
	for _, f := range w.footers {
		for j := range f.Sections {
			s := &f.Sections[j]
			id := logid.Partition{Topic: s.Topic, Index: s.Partition}
			if id == dead || id == parts(4)[0] && logid.Offset(s.LastOffset()) < start {
				continue
			}
			for _, b := range w.logs[id] {
				if b.BaseOffset() >= s.BaseOffset() && b.LastOffset() <= s.LastOffset() {
					want[id] = append(want[id], b)
				}
			}
		}
	}
	check(t, w.store, m, want)
	if m.Object.MinTimestamp < 0 || m.Object.MinTimestamp > m.Object.MaxTimestamp {
		t.Errorf("timestamps %d to %d", m.Object.MinTimestamp, m.Object.MaxTimestamp)
	}

	in.Alive = func(logid.Partition, logid.Offset, logid.Offset) bool { return false }
	in.ULID = ulidOf(t, work)
	m, err = work.Merge(t.Context(), in)
	if err != nil || m.Footer != nil || exists(w.store, in.Output(cluster)) {
		t.Fatalf("merge of nothing: %+v, %v", m, err)
	}
}

func TestMergeMemoryIsBounded(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	w := newWorld()
	for range 10 {
		w.flush(t, r, 1, parts(40), func() int { return 50 << 10 }) // 40 MiB
	}
	pool := membuf.NewPool(64 << 20)
	most, reads := int64(0), 0
	work := newWorker(t, w.store, func(c *rollup.Config) {
		c.Pool, c.Reads = pool, 1 // one read at a time: the hook needs no lock
		c.Read = func(ctx context.Context, key string, pos int64, p []byte) error {
			most = max(most, pool.Live())
			reads++
			_, _, err := w.store.ReadAt(ctx, key, p, pos)
			return err
		}
	})
	m, err := work.Merge(t.Context(), rollup.MergeInput{Epoch: epoch, Objects: w.objects, ULID: ulidOf(t, work), Alive: all})
	if err != nil {
		t.Fatal(err)
	}
	check(t, w.store, m, w.logs)
	// The buffers of the pool are up to a quarter larger than what is asked for.
	if limit := int64(rollup.Memory) * 5 / 4; most > limit || most == 0 {
		t.Errorf("%d bytes in memory, want at most %d", most, limit)
	}
	if windows := m.Object.Size>>22 + 1; int64(reads) > windows*int64(len(w.objects)+8) {
		t.Errorf("%d reads for %d windows of %d objects: neighbours are not read together", reads, windows, len(w.objects))
	}
}

// inputError is what a damaged or missing input must give, naming the object.
func inputError(t *testing.T, err error, key string, cause error) {
	t.Helper()
	var in *rollup.InputError
	if !errors.As(err, &in) || in.Key != key || !errors.Is(err, cause) {
		t.Fatalf("got %v, want an InputError of %s with %v", err, key, cause)
	}
}

func TestMergeOfADamagedInputWritesNothing(t *testing.T) {
	for name, size := range map[string]int{"small": 500, "large": 60 << 10} {
		t.Run(name, func(t *testing.T) {
			r := rand.New(rand.NewPCG(7, 8))
			w := newWorld()
			for range 4 {
				w.flush(t, r, 1, parts(3), func() int { return size })
			}
			o := w.objects[2]
			key := o.Key(cluster, epoch)
			places := []int64{wal.HeaderSize, o.Size / 2, o.Size - o.FooterSize - 1, o.Size - o.FooterSize, o.Size - 5}
			for _, at := range places {
				damage(t, w.store, key, at)
				work := newWorker(t, w.store, nil)
				in := rollup.MergeInput{Epoch: epoch, Objects: w.objects, ULID: ulidOf(t, work), Alive: all}
				_, err := work.Merge(t.Context(), in)
				inputError(t, err, key, wal.ErrCorrupt)
				if exists(w.store, in.Output(cluster)) {
					t.Fatal("an output was written")
				}
				damage(t, w.store, key, at) // whole again
			}
			if err := w.store.Delete(t.Context(), []string{key}); err != nil {
				t.Fatal(err)
			}
			work := newWorker(t, w.store, nil)
			_, err := work.Merge(t.Context(), rollup.MergeInput{Epoch: epoch, Objects: w.objects, ULID: ulidOf(t, work), Alive: all})
			inputError(t, err, key, objstore.ErrNotFound)
		})
	}
}

func TestMergeRefusesObjectsThatDoNotFollowEachOther(t *testing.T) {
	r := rand.New(rand.NewPCG(9, 9))
	s := objtest.NewMem()
	id := parts(1)[0]
	a, _ := putObject(t, s, 1, 1, sect{id, 1, []record.Batch{batchOf(r, spec{base: 10, records: 5, size: 10, epoch: 1})}})
	b, _ := putObject(t, s, 2, 2, sect{id, 1, []record.Batch{batchOf(r, spec{base: 14, records: 5, size: 10, epoch: 1})}})
	work := newWorker(t, s, nil)
	_, err := work.Merge(t.Context(), rollup.MergeInput{Epoch: epoch, Objects: []manifest.Object{a, b}, ULID: ulidOf(t, work), Alive: all})
	inputError(t, err, b.Key(cluster, epoch), wal.ErrCorrupt)
	// The manifest's line must be that of the object at its key.
	b.From, b.To = 1, 1
	wrong := a
	wrong.Size++
	_, err = work.Merge(t.Context(), rollup.MergeInput{Epoch: epoch, Objects: []manifest.Object{wrong}, ULID: ulidOf(t, work), Alive: all})
	inputError(t, err, a.Key(cluster, epoch), wal.ErrCorrupt)
}
