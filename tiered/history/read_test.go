package history_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tierlog/tierlog/objstore"
	"github.com/tierlog/tierlog/record"
	"github.com/tierlog/tierlog/tiered"
	"github.com/tierlog/tierlog/tiered/history"
	"github.com/tierlog/tierlog/tiered/logid"
	"github.com/tierlog/tierlog/tiered/manifest"
)

// values reads a partition from an offset on; every batch must be whole and follow the one before.
func values(t *testing.T, r *history.Reader, topic string, index int32, from int64) []string {
	t.Helper()
	var got []string
	next := int64(-1)
	err := r.Read(t.Context(), topic, index, logid.Offset(from), func(b record.Batch) error {
		if next >= 0 && b.BaseOffset() != next {
			t.Fatalf("batch at offset %d, want %d", b.BaseOffset(), next)
		}
		next = b.LastOffset() + 1
		return b.Records(history.MaxRecords, func(rec record.Record) error {
			if b.Offset(rec) >= from {
				got = append(got, string(rec.Value))
			}
			return nil
		})
	})
	if err != nil {
		t.Fatalf("read %s/%d from %d: %v", topic, index, from, err)
	}
	return got
}

func TestReadGivesWhatWasAcknowledged(t *testing.T) {
	b := rolled(t)
	for _, chunk := range []int{0, 1000, 61} {
		cfg := b.config()
		cfg.ChunkBytes = chunk
		r, err := history.Open(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		for part, want := range b.want {
			topic, _, _ := strings.Cut(part, "/")
			index := int32(part[len(part)-1] - '0')
			bounds, err := r.Bounds(t.Context(), topic, index)
			if err != nil || bounds.Start != 0 || bounds.End != logid.Offset(len(want)) {
				t.Fatalf("%s has bounds %+v, %v; want 0 to %d", part, bounds, err, len(want))
			}
			step := int64(13)
			if chunk < 1000 {
				step = 97
			}
			for from := int64(0); from <= int64(len(want)); from += step {
				if got := values(t, r, topic, index, from); !slices.Equal(got, want[from:]) {
					t.Fatalf("%s from %d with chunks of %d: %d records, want %d", part, from, chunk, len(got), len(want[from:]))
				}
				if chunk == 61 {
					break
				}
			}
		}
	}
}

func TestReadEndsWhereItIsTold(t *testing.T) {
	b := newBucket(t)
	b.start()
	b.topic("a", 1)
	for range 5 {
		b.put("a/0", 2, 20)
	}
	r := b.reader()
	n := 0
	count := func(record.Batch) error {
		if n++; n == 2 {
			return history.ErrStop
		}
		return nil
	}
	if err := r.Read(t.Context(), "a", 0, 0, count); err != nil || n != 2 {
		t.Fatalf("%d batches, %v", n, err)
	}
	own := errors.New("own")
	if err := r.Read(t.Context(), "a", 0, 0, func(record.Batch) error { return own }); !errors.Is(err, own) {
		t.Fatalf("got %v", err)
	}
	b.put("a/0", 1, 20)
	if got := values(t, r, "a", 0, 0); len(got) != 10 {
		t.Fatalf("%d records before Reload, want 10", len(got))
	}
	b.check(r.Reload(t.Context()))
	if got := values(t, r, "a", 0, 0); len(got) != 11 {
		t.Fatalf("%d records after Reload, want 11", len(got))
	}
	for _, p := range []struct {
		topic string
		index int32
	}{{"b", 0}, {"a", 1}, {"a", -1}} {
		if err := r.Read(t.Context(), p.topic, p.index, 0, count); !errors.Is(err, history.ErrUnknown) {
			t.Fatalf("%+v: %v", p, err)
		}
	}
}

func TestOffsetForTime(t *testing.T) {
	b := rolled(t)
	r := b.reader()
	end := int64(len(b.want["orders/0"]))
	for _, c := range []struct{ ms, want int64 }{
		{0, 0}, {startMs, 0}, {startMs + 1, 1}, {startMs + 137, 137}, {startMs + end - 1, end - 1}, {startMs + end, end},
	} {
		got, err := r.OffsetForTime(t.Context(), "orders", 0, c.ms)
		if err != nil || int64(got) != c.want {
			t.Errorf("time %d: offset %d, %v; want %d", c.ms-startMs, got, err, c.want)
		}
	}
}

// A reader that opened before rollup, merging and collection finds what they left in the place of what it knows.
func TestReadWhileObjectsAreReplaced(t *testing.T) {
	b := newBucket(t)
	b.maint.RoundSlots = 1 << 20
	b.start()
	b.topic("a", 1)
	for range 30 {
		b.put("a/0", 10, 9_000)
	}
	old := b.reader()
	b.maint.RoundSlots, b.maint.Grace = 1, 1
	b.stop()
	b.start()
	b.eventually("the first WAL object is collected", func() bool {
		b.put("a/0", 1, 100_000)
		first := false
		for _, key := range b.store.Keys() {
			k, err := manifest.ParseKey(key)
			first = first || err == nil && k.Kind == manifest.KeyWAL && k.Slot == 0 && k.Epoch == 1
		}
		return !first
	})
	// What has meanwhile been rolled up may come along.
	if got := values(t, old, "a", 0, 0); len(got) < 300 || len(got) > len(b.want["a/0"]) || !slices.Equal(got, b.want["a/0"][:len(got)]) {
		t.Fatalf("%d records, want 300 at least", len(got))
	}
}

// One damaged object keeps nobody from reading the others, and is not passed over in silence.
func TestReadWithADamagedFooter(t *testing.T) {
	b := newBucket(t)
	b.start()
	b.topic("a", 2)
	b.put("a/0", 1, 10)
	b.put("a/1", 1, 10)
	b.put("a/0", 1, 10)
	key := manifest.Key{Kind: manifest.KeyWAL, Cluster: b.meta.ClusterID(), Epoch: b.meta.Self().Epoch(), Slot: 1}.String()
	if !b.store.Tamper(key, func(data []byte) []byte { return data[:len(data)-1] }) {
		t.Fatalf("no object %s in %v", key, b.store.Keys())
	}
	r := b.reader()
	n := 0
	err := r.Read(t.Context(), "a", 0, 0, func(record.Batch) error { n++; return nil })
	if n != 2 || !errors.Is(err, history.ErrCorrupt) || !strings.Contains(err.Error(), key) {
		t.Fatalf("%d batches, %v", n, err)
	}
}

func TestReadRefusesADamagedBatch(t *testing.T) {
	b := newBucket(t)
	b.start()
	b.topic("a", 1)
	b.put("a/0", 1, 1000)
	for _, key := range b.store.Keys() {
		if k, err := manifest.ParseKey(key); err == nil && k.Kind == manifest.KeyWAL {
			b.store.Tamper(key, func(data []byte) []byte { data[500] ^= 4; return data })
		}
	}
	err := b.reader().Read(t.Context(), "a", 0, 0, func(record.Batch) error { t.Fatal("a damaged batch was passed on"); return nil })
	if !errors.Is(err, history.ErrCorrupt) || errors.Is(err, objstore.ErrNotFound) {
		t.Fatalf("got %v", err)
	}
}

// Records below the log start are gone, wherever their bytes still are.
func TestReadStartsAtTheLogStart(t *testing.T) {
	b := newBucket(t)
	b.keep = 1 << 20
	b.maint = tiered.MaintenanceConfig{RoundSlots: 1, RetentionInterval: 10 * time.Millisecond, Grace: time.Hour}
	b.start()
	b.topic("a", 1)
	for range 40 {
		b.put("a/0", 10, 9_000)
	}
	var start logid.Offset
	b.eventually("the log start moves", func() bool {
		bounds, err := b.reader().Bounds(t.Context(), "a", 0)
		b.check(err)
		start = bounds.Start
		return start > 0
	})
	b.stop()
	r := b.reader()
	bounds, err := r.Bounds(t.Context(), "a", 0)
	if err != nil || bounds.Start < start || bounds.End != 400 {
		t.Fatalf("bounds %+v, %v", bounds, err)
	}
	var first int64 = -1
	err = r.Read(t.Context(), "a", 0, 0, func(batch record.Batch) error {
		if first < 0 {
			first = batch.BaseOffset()
		}
		return nil
	})
	if err != nil || first != int64(bounds.Start) {
		t.Fatalf("the first batch is at %d, %v; want the log start %d", first, err, bounds.Start)
	}
	if problems, _, _ := verify(t, b.store, b, false); len(problems) > 0 {
		t.Fatalf("problems: %v", problems)
	}
}

// The index only saves time: without it the records are found all the same.
func TestReadWithADamagedIndex(t *testing.T) {
	b := rolled(t)
	b.stop()
	for i, key := range b.store.Keys() {
		if k, err := manifest.ParseKey(key); err == nil && k.File == manifest.FileIndex {
			if i%2 == 0 {
				b.check(b.store.Delete(t.Context(), []string{key}))
			} else {
				b.store.Tamper(key, func(data []byte) []byte { clear(data); return data })
			}
		}
	}
	cfg := b.config()
	cfg.ChunkBytes = 10_000 // so that it is worth looking at an index
	r, err := history.Open(t.Context(), cfg)
	b.check(err)
	for _, from := range []int64{50, 100, 200} {
		if got := values(t, r, "orders", 0, from); !slices.Equal(got, b.want["orders/0"][from:]) {
			t.Fatalf("from %d: %d records", from, len(got))
		}
	}
}
