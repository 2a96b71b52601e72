package rollup_test

import (
	"bytes"
	"context"
	"math"
	"math/rand/v2"
	"reflect"
	"testing"

	"github.com/tierlog/tierlog/membuf"
	"github.com/tierlog/tierlog/objstore"
	"github.com/tierlog/tierlog/objstore/objtest"
	"github.com/tierlog/tierlog/record"
	"github.com/tierlog/tierlog/tiered/logid"
	"github.com/tierlog/tierlog/tiered/manifest"
	"github.com/tierlog/tierlog/tiered/rollup"
	"github.com/tierlog/tierlog/tiered/segment"
	"github.com/tierlog/tierlog/tiered/wal"
)

// planOf makes a plan of all extents, without asking the planner.
func planOf(t *testing.T, w *rollup.Worker, id logid.Partition, extents []rollup.Extent) rollup.SegmentPlan {
	t.Helper()
	return rollup.SegmentPlan{
		Partition: id, Topic: "orders", ULID: ulidOf(t, w), From: extents[0].Base, Last: extents[len(extents)-1].Last,
		PrevEpoch: logid.NoLeaderEpoch, Extents: extents,
	}
}

// fileOf returns a file of a segment, nil if there is none.
func fileOf(t *testing.T, s *objtest.Mem, p rollup.SegmentPlan, line manifest.Segment, f manifest.FileKind) []byte {
	t.Helper()
	m := manifest.Partition{Topic: p.Topic, TopicID: p.Partition.Topic, Index: p.Partition.Index}
	key := m.SegmentKey(cluster, line, f)
	if !exists(s, key) {
		if n := line.FileSize(f); n != 0 {
			t.Errorf("%s: not there, the line says %d bytes", key, n)
		}
		return nil
	}
	b := readAll(t, s, key)
	if int64(len(b)) != line.FileSize(f) {
		t.Errorf("%s has %d bytes, the line says %d", key, len(b), line.FileSize(f))
	}
	return b
}

// checkSegment compares the files of the first segment of a log with the batches, and with what package segment makes of them.
func checkSegment(t *testing.T, s *objtest.Mem, p rollup.SegmentPlan, out rollup.Written, batches []record.Batch) {
	t.Helper()
	line := out.Segment
	if got := fileOf(t, s, p, line, manifest.FileLog); !bytes.Equal(got, joined(batches)) {
		t.Fatalf(".log of %d bytes differs from the batches' %d", len(got), len(joined(batches)))
	}
	state, err := segment.NewProducers(nil)
	if err != nil {
		t.Fatal(err)
	}
	b, err := segment.NewBuilder(segment.Config{Base: int64(line.Base), Producers: state})
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range batches {
		d, err := segment.BatchOf(x)
		if err != nil {
			t.Fatal(err)
		}
		if err := b.Add(&d); err != nil {
			t.Fatal(err)
		}
	}
	f := b.Finish()
	if int64(line.Last) != f.Last || line.MaxTimestamp != f.MaxTimestamp || !reflect.DeepEqual(out.Producers, state.Entries()) {
		t.Errorf("line %+v with %d producers, want last offset %d, largest timestamp %d and %d producers", line, len(out.Producers), f.Last, f.MaxTimestamp, len(state.Entries()))
	}
	if line.Last != p.Last {
		f.Snapshot = nil
	}
	for kind, want := range map[manifest.FileKind][]byte{
		manifest.FileIndex: f.Index, manifest.FileTimeIndex: f.TimeIndex, manifest.FileTxnIndex: f.TxnIndex, manifest.FileSnapshot: f.Snapshot,
	} {
		if got := fileOf(t, s, p, line, kind); !bytes.Equal(got, want) {
			t.Errorf(".%s has %d bytes, want %d", kind, len(got), len(want))
		}
	}
	m := manifest.Partition{Version: 1, Topic: p.Topic, TopicID: p.Partition.Topic, Index: p.Partition.Index, RolledThrough: line.Last + 1, Segments: []manifest.Segment{line}}
	if err := m.Validate(); err != nil {
		t.Errorf("the manifest refuses the line: %v", err)
	}
	declared := map[string]bool{}
	for _, k := range p.Outputs(cluster) {
		declared[k] = true
	}
	page, err := s.List(t.Context(), manifest.Prefix(cluster, manifest.KeySegmentFile), "", 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range page.Objects {
		if !declared[o.Key] {
			t.Errorf("%s was not declared", o.Key)
		}
	}
}

func TestSegmentIsTheBatchesByteForByte(t *testing.T) {
	for _, withCRC := range []bool{false, true} {
		r := rand.New(rand.NewPCG(11, 12))
		w := newWorld()
		for i := range 30 {
			// Some batches are larger than a window, some sections smaller than a batch header's neighbourhood.
			w.flush(t, r, int32(i/8), parts(2), func() int {
				if r.IntN(20) == 0 {
					return 5 << 20
				}
				return r.IntN(9000)
			})
		}
		id := parts(2)[1]
		pool := membuf.NewPool(64 << 20)
		work := newWorker(t, w.store, func(c *rollup.Config) { c.Pool = pool })
		p := planOf(t, work, id, w.extents(id, withCRC))
		out, err := work.WriteSegment(t.Context(), p, nil)
		if err != nil {
			t.Fatal(err)
		}
		checkSegment(t, w.store, p, out, w.logs[id])
		if want := 4; len(out.Segment.Epochs) != want || out.Segment.Epochs[0] != (manifest.EpochStart{Epoch: 0, Start: 0}) {
			t.Errorf("epochs %+v, want %d that start with 0 at 0", out.Segment.Epochs, want)
		}
		if live := pool.Live(); live != 0 {
			t.Errorf("%d bytes were not given back", live)
		}
	}
}

func TestSegmentsFollowEachOther(t *testing.T) {
	r := rand.New(rand.NewPCG(13, 14))
	w := newWorld()
	id := parts(1)[0]
	for i := range 40 {
		w.flush(t, r, int32(i/10), parts(1), func() int { return 2000 })
	}
	work := newWorker(t, w.store, nil)
	plans := rollup.PlanSegments([]rollup.PartitionStat{{
		Partition: id, Topic: "orders", RolledEpoch: logid.NoLeaderEpoch, SegmentBytes: 50_000, Bytes: 1 << 20, Count: 40, Extents: w.extents(id, true),
	}}, rollup.SegmentConfig{Min: 1}, 0)
	if len(plans) < 3 {
		t.Fatalf("%d plans", len(plans))
	}
	m := &manifest.Partition{Version: 1, Nonce: manifest.Nonce{1}, Topic: "orders", TopicID: id.Topic, Index: id.Index}
	var log []byte
	var before []segment.ProducerEntry
	for i, p := range plans {
		p.ULID = ulidOf(t, work)
		out, err := work.WriteSegment(t.Context(), p, before)
		if err != nil {
			t.Fatal(err)
		}
		log = append(log, fileOf(t, w.store, p, out.Segment, manifest.FileLog)...)
		if err := m.Append(p.From, out.Segment.Last+1, out.Segment); err != nil {
			t.Fatalf("segment %d: %v", i, err)
		}
		// The state after a segment is also in its snapshot: a later process goes on from there.
		if before, err = work.ProducersAfter(t.Context(), m, out.Segment); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(before, out.Producers) && len(before) != 0 {
			t.Errorf("snapshot of segment %d has %+v, want %+v", i, before, out.Producers)
		}
	}
	rest := len(joined(w.logs[id])) - len(log)
	if !bytes.HasPrefix(joined(w.logs[id]), log) || rest >= 50_000 {
		t.Errorf("the segments' %d bytes are not the log's first but for %d", len(log), rest)
	}
}

func TestSegmentOfTransactions(t *testing.T) {
	r := rand.New(rand.NewPCG(15, 16))
	s := objtest.NewMem()
	id := parts(1)[0]
	batches := []record.Batch{
		batchOf(r, spec{base: 5, records: 2, size: 100, epoch: 1, ts: 50, producer: 9, seq: 4, txn: true}),
		batchOf(r, spec{base: 7, records: 1, size: 100, epoch: 1, ts: -1}),
		batchOf(r, spec{base: 8, epoch: 1, ts: 51, producer: 9, marker: true}),
	}
	// A segment needs no more of an object than the range where the records are.
	key := manifest.Object{Kind: manifest.ObjectWAL, From: 1, To: 1}.Key(cluster, epoch)
	if _, err := s.Create(t.Context(), key, objstore.Bytes([]byte("before"), joined(batches), []byte("after"))); err != nil {
		t.Fatal(err)
	}
	work := newWorker(t, s, nil)
	p := planOf(t, work, id, []rollup.Extent{{Base: 5, Last: 8, Epoch: 1, Key: key, Pos: 6, Len: int64(len(joined(batches)))}})
	p.From, p.PrevEpoch = 0, 1 // an earlier segment has the epoch's begin
	out, err := work.WriteSegment(t.Context(), p, nil)
	if err != nil {
		t.Fatal(err)
	}
	checkSegment(t, s, p, out, batches)
	if out.Segment.Base != 5 || out.Segment.TxnIndexSize != 34 || !out.Segment.HasSnapshot() || len(out.Segment.Epochs) != 0 {
		t.Errorf("line %+v: want base 5, one aborted transaction, a snapshot and no epoch", out.Segment)
	}
}

// A merge may have joined what is in a log segment already with what is not.
func TestSegmentBeginsWithinASection(t *testing.T) {
	r := rand.New(rand.NewPCG(17, 18))
	w := newWorld()
	for range 5 {
		w.flush(t, r, 1, parts(3), func() int { return r.IntN(3000) })
	}
	id := parts(3)[1]
	work := newWorker(t, w.store, nil)
	m, err := work.Merge(t.Context(), rollup.MergeInput{Epoch: epoch, Objects: w.objects, ULID: ulidOf(t, work), Alive: all})
	if err != nil {
		t.Fatal(err)
	}
	merged := &world{store: w.store, objects: []manifest.Object{m.Object}, footers: []*wal.Footer{m.Footer}}
	for i, b := range w.logs[id] {
		p := planOf(t, work, id, merged.extents(id, true))
		p.From = logid.Offset(b.BaseOffset())
		out, err := work.WriteSegment(t.Context(), p, nil)
		if err != nil {
			t.Fatal(err)
		}
		checkLog(t, w.store, p, out, w.logs[id][i:])
		if out.Segment.Base != p.From {
			t.Errorf("base is %d, want %d", out.Segment.Base, p.From)
		}
	}
	p := planOf(t, work, id, merged.extents(id, true))
	p.From = p.Last + 1
	_, err = work.WriteSegment(t.Context(), p, nil)
	inputError(t, err, p.Extents[0].Key, wal.ErrCorrupt)
}

func checkLog(t *testing.T, s *objtest.Mem, p rollup.SegmentPlan, out rollup.Written, batches []record.Batch) {
	t.Helper()
	if got := fileOf(t, s, p, out.Segment, manifest.FileLog); !bytes.Equal(got, joined(batches)) {
		t.Fatalf(".log of %d bytes differs from the batches' %d", len(got), len(joined(batches)))
	}
}

// Compressed batches may say that they hold any number of records: two are too far apart for one segment.
func TestSegmentEndsWhereItsOffsetsDoNotFit(t *testing.T) {
	r := rand.New(rand.NewPCG(19, 20))
	s := objtest.NewMem()
	id := parts(1)[0]
	var batches []record.Batch
	for i := range 3 {
		batches = append(batches, batchOf(r, spec{base: int64(i) * math.MaxInt32, records: math.MaxInt32, size: 100, epoch: 1, ts: 1, producer: 4}))
	}
	o, f := putObject(t, s, 1, 1, sect{id, 1, batches})
	w := &world{store: s, objects: []manifest.Object{o}, footers: []*wal.Footer{f}}
	work := newWorker(t, s, nil)
	stat := rollup.PartitionStat{
		Partition: id, Topic: "orders", RolledEpoch: logid.NoLeaderEpoch, SegmentBytes: 1, Bytes: 1 << 20, Count: 1, Extents: w.extents(id, true),
	}
	for i := range batches {
		plans := rollup.PlanSegments([]rollup.PartitionStat{stat}, rollup.SegmentConfig{}, 0)
		if len(plans) != 1 {
			t.Fatalf("%d plans", len(plans))
		}
		plans[0].ULID = ulidOf(t, work)
		out, err := work.WriteSegment(t.Context(), plans[0], nil)
		if err != nil {
			t.Fatal(err)
		}
		checkLog(t, s, plans[0], out, batches[i:i+1])
		stat.RolledThrough = out.Segment.Last + 1
		if last := i == len(batches)-1; out.Segment.HasSnapshot() != last {
			t.Errorf("segment %d: snapshot of %d bytes", i, out.Segment.SnapshotSize)
		}
	}
}

func TestSegmentOfADamagedInputWritesNothing(t *testing.T) {
	r := rand.New(rand.NewPCG(21, 22))
	w := newWorld()
	for range 3 {
		w.flush(t, r, 1, parts(2), func() int { return 700 })
	}
	id := parts(2)[0]
	bad := w.extents(id, false)[1]
	for at := bad.Pos; at < bad.Pos+bad.Len; at += 1 + at%7 {
		damage(t, w.store, bad.Key, at)
		work := newWorker(t, w.store, nil)
		p := planOf(t, work, id, w.extents(id, true))
		_, err := work.WriteSegment(t.Context(), p, nil)
		inputError(t, err, bad.Key, wal.ErrCorrupt)
		for _, k := range p.Outputs(cluster) {
			if exists(w.store, k) {
				t.Fatalf("byte %d damaged: %s was written", at, k)
			}
		}
		// Without the section's checksum the batches' own and the extents still find it.
		p = planOf(t, work, id, w.extents(id, false))
		_, err = work.WriteSegment(t.Context(), p, nil)
		inputError(t, err, bad.Key, wal.ErrCorrupt)
		damage(t, w.store, bad.Key, at)
	}
	// Where offsets have gaps, only the section's checksum tells a wrong one.
	s, gap := objtest.NewMem(), sect{id: id, epoch: 1}
	for i := range 3 {
		gap.batches = append(gap.batches, batchOf(r, spec{base: int64(i) * 100, records: 2, size: 50, epoch: 1}))
	}
	o, f := putObject(t, s, 1, 1, gap)
	holes := &world{store: s, objects: []manifest.Object{o}, footers: []*wal.Footer{f}}
	key := o.Key(cluster, epoch)
	damage(t, s, key, f.Sections[0].Pos+int64(len(gap.batches[0]))+7) // 100 becomes 36
	work := newWorker(t, s, nil)
	_, err := work.WriteSegment(t.Context(), planOf(t, work, id, holes.extents(id, true)), nil)
	inputError(t, err, key, wal.ErrCorrupt)

	extents := w.extents(id, true)
	for name, edit := range map[string]func(e *rollup.Extent){
		"base":   func(e *rollup.Extent) { e.Base-- },
		"last":   func(e *rollup.Extent) { e.Last++ },
		"epoch":  func(e *rollup.Extent) { e.Epoch++ },
		"length": func(e *rollup.Extent) { e.Len-- },
		"place":  func(e *rollup.Extent) { e.Pos++ },
	} {
		work := newWorker(t, w.store, nil)
		p := planOf(t, work, id, append([]rollup.Extent(nil), extents...))
		edit(&p.Extents[1])
		p.Extents[1].HasCRC = false
		if _, err := work.WriteSegment(t.Context(), p, nil); err == nil {
			t.Errorf("an extent with a wrong %s was written", name)
		}
	}
}

func TestSegmentMemoryIsBounded(t *testing.T) {
	r := rand.New(rand.NewPCG(23, 24))
	w := newWorld()
	for range 24 {
		w.flush(t, r, 1, parts(1), func() int { return 900 << 10 })
	}
	id := parts(1)[0]
	pool := membuf.NewPool(64 << 20)
	most := int64(0)
	work := newWorker(t, w.store, func(c *rollup.Config) {
		c.Pool, c.Reads = pool, 1
		c.Read = func(ctx context.Context, key string, pos int64, p []byte) error {
			most = max(most, pool.Live())
			_, _, err := w.store.ReadAt(ctx, key, p, pos)
			return err
		}
	})
	p := planOf(t, work, id, w.extents(id, true))
	out, err := work.WriteSegment(t.Context(), p, nil)
	if err != nil {
		t.Fatal(err)
	}
	checkSegment(t, w.store, p, out, w.logs[id])
	if most > rollup.Memory || most == 0 {
		t.Errorf("%d bytes in memory, want at most %d", most, rollup.Memory)
	}
}
