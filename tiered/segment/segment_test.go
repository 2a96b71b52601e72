package segment

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// The folders under testdata were written by Apache Kafka; see kafka_test.go.
func TestKafkaGoldens(t *testing.T) {
	for _, topic := range []string{"small", "txn", "quiet", "append"} {
		t.Run(topic, func(t *testing.T) {
			dir := filepath.Join("testdata", topic)
			files := rebuild(t, dir)
			if len(files) != 1 {
				t.Fatalf("%d segments", len(files))
			}
			f := files[0]
			log := readFile(t, filepath.Join(dir, FileName(0, LogSuffix)))
			batches := batchesOf(t, log)
			checkLookups(t, f, batches)
		})
	}
}

// checkLookups compares every lookup with what a walk through the batches finds.
func checkLookups(t *testing.T, f Files, batches []Batch) {
	t.Helper()
	offsets, err := ParseOffsetIndex(f.Index, f.Base, f.Size)
	if err != nil {
		t.Fatal(err)
	}
	times, err := ParseTimeIndex(f.TimeIndex, f.Base, f.Last)
	if err != nil {
		t.Fatal(err)
	}
	starts := map[int64]*Batch{}
	pos := int64(0)
	for i := range batches {
		starts[pos] = &batches[i]
		pos += int64(batches[i].Length)
	}
	for o := f.Base; o <= f.Last; o++ {
		e := offsets.Lookup(o)
		at := starts[e.Position]
		if at == nil || e.Position > 0 && (at.LastOffset() != e.Offset || e.Offset > o) {
			t.Fatalf("offset %d: entry %+v, batch there %+v", o, e, at)
		}
	}
	for _, b := range batches {
		for _, ts := range []int64{b.MaxTimestamp - 1, b.MaxTimestamp, b.MaxTimestamp + 1} {
			first := slices.IndexFunc(batches, func(b Batch) bool { return b.MaxTimestamp >= ts })
			at := starts[PositionForTime(times, offsets, ts)]
			if at == nil || first >= 0 && at.BaseOffset > batches[first].BaseOffset {
				t.Fatalf("time %d: search starts at %+v, after the batch at offset %d", ts, at, batches[first].BaseOffset)
			}
		}
	}
	last, ok := times.Last()
	if !ok || last.Timestamp != f.MaxTimestamp || last.Offset != f.MaxTimestampOffset {
		t.Errorf("last time entry %+v, %v; the segment's largest is %d at %d", last, ok, f.MaxTimestamp, f.MaxTimestampOffset)
	}
	if got := times.Lookup(math.MinInt64); got.Offset != f.Base {
		t.Errorf("before all times: %+v", got)
	}
	if got := offsets.Lookup(math.MaxInt64); offsets.Len() > 0 && got != offsets.At(offsets.Len()-1) {
		t.Errorf("beyond the last offset: %+v", got)
	}
}

// What the producers of the golden did: see transactions in kafka_test.go.
func TestTransactions(t *testing.T) {
	dir := filepath.Join("testdata", "txn")
	aborted, err := ParseTxnIndex(readFile(t, filepath.Join(dir, FileName(0, TxnIndexSuffix))), 0, 17)
	if err != nil || len(aborted) != 4 {
		t.Fatalf("ParseTxnIndex = %+v, %v", aborted, err)
	}
	entries, err := ParseSnapshot(readFile(t, filepath.Join(dir, FileName(18, SnapshotSuffix))))
	if err != nil || len(entries) != 3 {
		t.Fatalf("ParseSnapshot = %+v, %v", entries, err)
	}
	open := 0
	for _, e := range entries {
		if e.TxnFirst >= 0 {
			open++
		}
	}
	p, err := NewProducers(entries)
	if err != nil || open != 1 || p.LastStable(18) != 17 {
		t.Errorf("%d open transactions, last stable offset %d, %v", open, p.LastStable(18), err)
	}
	// Readers must learn of each aborted transaction that overlaps, and may stop where nothing later can.
	for _, c := range []struct {
		from, upper int64
		want        int
		done        bool
	}{{0, 1, 0, true}, {0, 18, 4, false}, {6, 7, 1, true}, {10, 13, 1, true}, {15, 18, 0, false}, {5, 6, 1, true}, {0, 8, 3, true}} {
		got, done := aborted.Collect(c.from, c.upper)
		if len(got) != c.want || done != c.done {
			t.Errorf("Collect(%d, %d) = %+v, %v; want %d, %v", c.from, c.upper, got, done, c.want, c.done)
		}
	}
	if again := EncodeSnapshot(entries); !bytes.Equal(again, readFile(t, filepath.Join(dir, FileName(18, SnapshotSuffix)))) {
		t.Error("the snapshot does not encode as it was")
	}
}

func TestProducers(t *testing.T) {
	p, err := NewProducers([]ProducerEntry{{ID: 9, Epoch: 1, LastSequence: -1, LastOffset: -1, CoordinatorEpoch: 3, TxnFirst: 50, Timestamp: 5}})
	if err != nil {
		t.Fatal(err)
	}
	data := func(id int64, epoch int16, base int64, seq int32, txn bool) *Batch {
		return &Batch{BaseOffset: base, LastOffsetDelta: 9, Length: 100, MaxTimestamp: 1000 + base, ProducerID: id, ProducerEpoch: epoch, BaseSequence: seq, Transactional: txn}
	}
	marker := func(id int64, epoch int16, at int64, m Marker) *Batch {
		return &Batch{BaseOffset: at, Length: 78, MaxTimestamp: 1000 + at, ProducerID: id, ProducerEpoch: epoch, BaseSequence: -1, Control: true, Transactional: true, Marker: m, CoordinatorEpoch: 7}
	}
	apply := func(b *Batch, want *AbortedTxn) {
		t.Helper()
		a, aborted := p.Apply(b)
		if aborted != (want != nil) || want != nil && a != *want {
			t.Errorf("Apply(%+v) = %+v, %v; want %+v", b, a, aborted, want)
		}
	}
	apply(data(-1, -1, 90, -1, false), nil)
	apply(data(4, 0, 100, math.MaxInt32-4, false), nil)
	apply(data(5, 2, 110, 0, true), nil)
	apply(data(5, 2, 120, 10, true), nil)
	apply(marker(4, 0, 130, AbortMarker), nil) // of a transaction without records here
	// The marker comes with a new epoch: the batches of the old one are forgotten, the transaction ends.
	apply(marker(5, 3, 131, AbortMarker), &AbortedTxn{ProducerID: 5, First: 110, Last: 131, LastStable: 50})
	apply(data(5, 3, 132, 0, true), nil)
	apply(marker(9, 1, 142, CommitMarker), nil)
	apply(marker(5, 3, 143, NoMarker), nil)
	if got := p.LastStable(150); got != 132 {
		t.Errorf("last stable offset %d, want 132", got)
	}
	want := []ProducerEntry{
		{ID: 4, Epoch: 0, LastSequence: 4, LastOffset: 109, OffsetDelta: 9, Timestamp: 1130, CoordinatorEpoch: 7, TxnFirst: -1},
		{ID: 5, Epoch: 3, LastSequence: 9, LastOffset: 141, OffsetDelta: 9, Timestamp: 1143, CoordinatorEpoch: 7, TxnFirst: 132},
		{ID: 9, Epoch: 1, LastSequence: -1, LastOffset: -1, OffsetDelta: 0, Timestamp: 1142, CoordinatorEpoch: 7, TxnFirst: -1},
	}
	if got := p.Entries(); !reflect.DeepEqual(got, want) {
		t.Errorf("entries\n%+v, want\n%+v", got, want)
	}
	p.Expire(1143)
	if got := p.Entries(); len(got) != 1 || got[0].ID != 5 {
		t.Errorf("after expiry %+v", got)
	}
	if got, err := ParseSnapshot(EncodeSnapshot(want)); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("ParseSnapshot = %+v, %v", got, err)
	}
	if _, err := NewProducers(append(want, want[0])); !errors.Is(err, ErrCorrupt) {
		t.Errorf("a producer listed twice: %v", err)
	}
}

func TestBuilderRefuses(t *testing.T) {
	for _, cfg := range []Config{{Base: -1}, {IndexInterval: -1}} {
		if _, err := NewBuilder(cfg); err == nil {
			t.Errorf("NewBuilder(%+v) succeeds", cfg)
		}
	}
	b, err := NewBuilder(Config{Base: 100})
	if err != nil {
		t.Fatal(err)
	}
	good := Batch{BaseOffset: 100, LastOffsetDelta: 4, Length: 61, MaxTimestamp: -1, ProducerID: -1}
	if err := b.Add(&good); err != nil {
		t.Fatal(err)
	}
	for name, damage := range map[string]func(b *Batch){
		"length":         func(b *Batch) { b.Length = 60 },
		"delta":          func(b *Batch) { b.LastOffsetDelta = -1 },
		"overlap":        func(b *Batch) { b.BaseOffset = 104 },
		"overflow":       func(b *Batch) { b.BaseOffset = math.MaxInt64 - 1 },
		"offset too far": func(b *Batch) { b.BaseOffset = 100 + math.MaxInt32 - 3 },
		"size":           func(b *Batch) { b.Length = math.MaxInt32 - 60 },
	} {
		bad := good
		bad.BaseOffset = 105
		damage(&bad)
		if err := b.Add(&bad); err == nil {
			t.Errorf("%s: %+v is accepted", name, bad)
		}
	}
	far := good
	far.BaseOffset, far.LeaderEpoch = 100+math.MaxInt32-4, 3
	if !b.Fits(&far) {
		t.Error("the farthest offset does not fit")
	}
	if err := b.Add(&far); err != nil {
		t.Error(err)
	}
	f := b.Finish()
	if f.Last != 100+math.MaxInt32 || f.Size != 122 || b.Size() != 122 || f.MaxTimestamp != -1 || len(f.TimeIndex) != 0 || f.Snapshot != nil {
		t.Errorf("files %+v", f)
	}
	if want := []EpochStart{{0, 100}, {3, far.BaseOffset}}; !slices.Equal(f.Epochs, want) {
		t.Errorf("leader epochs %+v, want %+v", f.Epochs, want)
	}
}

func TestParseRefusesDamage(t *testing.T) {
	u32 := func(vs ...uint32) (b []byte) {
		for _, v := range vs {
			b = binary.BigEndian.AppendUint32(b, v)
		}
		return b
	}
	txn := func(as ...AbortedTxn) (b []byte) {
		for _, a := range as {
			b = AppendAborted(b, a)
		}
		return b
	}
	sum := func(b []byte) []byte { return resum(bytes.Clone(b)) }
	snap := EncodeSnapshot([]ProducerEntry{{ID: 1, LastSequence: -1, LastOffset: -1, TxnFirst: -1}})
	index := func(b []byte) error { _, err := ParseOffsetIndex(b, 1000, 5000); return err }
	times := func(b []byte) error { _, err := ParseTimeIndex(b, 1000, 1999); return err }
	txns := func(b []byte) error { _, err := ParseTxnIndex(b, 1000, 1999); return err }
	snaps := func(b []byte) error { _, err := ParseSnapshot(b); return err }
	for _, c := range []struct {
		name, want string
		err        error
	}{
		{"index cut off", "4 more than whole entries", index(u32(1, 1, 2))},
		{"index offsets", "index byte 8", index(u32(5, 1, 5, 2))},
		{"index positions", "index byte 8", index(u32(5, 1, 6, 1))},
		{"index below the base", "index byte 0", index(u32(math.MaxUint32, 1))},
		{"index beyond the log", "index byte 8", index(u32(5, 1, 6, 5000))},
		{"index with zeros at the end", "index byte 8", index(u32(5, 1, 0, 0))},
		{"timeindex cut off", "8 more than whole entries", times(u32(0, 1))},
		{"timeindex times", "timeindex byte 12", times(u32(0, 9, 1, 0, 9, 2))},
		{"timeindex offsets", "timeindex byte 12", times(u32(0, 9, 1, 0, 10, 1))},
		{"timeindex beyond the segment", "timeindex byte 0", times(u32(0, 9, 1000))},
		{"txnindex cut off", "33 more than whole entries", txns(txn(AbortedTxn{})[:33])},
		{"txnindex version", "txnindex byte 0: version 1", txns(append([]byte{0, 1}, make([]byte, 32)...))},
		{"txnindex offsets", "txnindex byte 0", txns(txn(AbortedTxn{First: 1001, Last: 1000}))},
		{"txnindex beyond the segment", "txnindex byte 0", txns(txn(AbortedTxn{First: 1, Last: 999}))},
		{"txnindex order", "txnindex byte 34", txns(txn(AbortedTxn{First: 1, Last: 1005}, AbortedTxn{First: 1, Last: 1005}))},
		{"snapshot cut off", "shorter than its header", snaps(snap[:9])},
		{"snapshot version", "snapshot byte 0", snaps(append([]byte{0, 2}, snap[2:]...))},
		{"snapshot checksum", "snapshot byte 2", snaps(append(bytes.Clone(snap[:len(snap)-1]), 7))},
		{"snapshot count", "snapshot byte 6", snaps(sum(snap[:len(snap)-1]))},
		{"snapshot field", "snapshot byte 10", snaps(EncodeSnapshot([]ProducerEntry{{ID: -1}}))},
	} {
		if !errors.Is(c.err, ErrCorrupt) || !strings.Contains(c.err.Error(), c.want) {
			t.Errorf("%s: %v, want ErrCorrupt that says %q", c.name, c.err, c.want)
		}
	}
	for name, err := range map[string]error{"index": index(nil), "timeindex": times(nil), "txnindex": txns(nil)} {
		if err != nil {
			t.Errorf("an empty %s: %v", name, err)
		}
	}
	empty, err := ParseTimeIndex(nil, 1000, 1999)
	if err != nil {
		t.Fatal(err)
	}
	if e, ok := empty.Last(); ok || e.Timestamp != -1 {
		t.Errorf("last entry of an empty timeindex: %+v, %v", e, ok)
	}
}

func TestFileNames(t *testing.T) {
	for _, suffix := range []string{LogSuffix, IndexSuffix, TimeIndexSuffix, TxnIndexSuffix, SnapshotSuffix} {
		name := FileName(1234, suffix)
		if len(name) != 20+len(suffix) {
			t.Errorf("FileName = %q", name)
		}
		if o, s, err := ParseFileName(name); err != nil || o != 1234 || s != suffix {
			t.Errorf("ParseFileName(%q) = %d, %q, %v", name, o, s, err)
		}
	}
	for _, name := range []string{"", "1.log", "00000000000000001234", "00000000000000001234.exe", "-0000000000000001234.log", "99999999999999999999.log", "00000000000000001234.log.swap"} {
		if _, _, err := ParseFileName(name); !errors.Is(err, ErrCorrupt) {
			t.Errorf("ParseFileName(%q): %v", name, err)
		}
	}
}

func TestParseMarker(t *testing.T) {
	// length, attributes, timestamp delta, offset delta, key length, key, value length, value, headers
	rec := func(kind byte, value ...byte) []byte {
		return append([]byte{32, 0, 0, 0, 8, 0, 0, 0, kind}, append(value, 0)...)
	}
	value := []byte{12, 0, 0, 0, 0, 0, 7}
	for kind, want := range map[byte]Marker{0: AbortMarker, 1: CommitMarker} {
		m, epoch, err := parseMarker(rec(kind, value...))
		if err != nil || m != want || epoch != 7 {
			t.Errorf("kind %d: %v, %d, %v", kind, m, epoch, err)
		}
	}
	if m, _, err := parseMarker(rec(9)); err != nil || m != NoMarker {
		t.Errorf("another kind: %v, %v", m, err)
	}
	whole := rec(0, value...)
	for i := range len(whole) - 1 {
		if _, _, err := parseMarker(whole[:i]); !errors.Is(err, ErrCorrupt) {
			t.Errorf("cut to %d bytes: %v", i, err)
		}
	}
	for _, b := range [][]byte{rec(0, 2, 0), rec(0, 1), {32, 0, 0, 0, 4, 0, 0}, {32, 0, 0, 0, 7, 0, 0}} {
		if _, _, err := parseMarker(b); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%x: %v", b, err)
		}
	}
}
