package segment

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"path/filepath"
	"testing"

	"github.com/tierlog/tierlog/record"
)

// resum puts the right checksum into a snapshot.
func resum(b []byte) []byte {
	if len(b) >= snapshotHeader {
		binary.BigEndian.PutUint32(b[2:], crc32.Checksum(b[snapshotSumFrom:], record.Castagnoli))
	}
	return b
}

func addGoldens(f *testing.F, suffix string) {
	for _, topic := range []string{"small", "txn", "quiet", "append"} {
		paths, err := filepath.Glob(filepath.Join("testdata", topic, "*"+suffix))
		if err != nil {
			f.Fatal(err)
		}
		for _, p := range paths {
			f.Add(readFile(f, p))
		}
	}
}

func onlyCorrupt(t *testing.T, err error) {
	t.Helper()
	if err != nil && !errors.Is(err, ErrCorrupt) {
		t.Errorf("%v is no ErrCorrupt", err)
	}
}

func FuzzOffsetIndex(f *testing.F) {
	addGoldens(f, IndexSuffix)
	f.Fuzz(func(t *testing.T, b []byte) {
		x, err := ParseOffsetIndex(b, 0, 1<<31)
		onlyCorrupt(t, err)
		if err != nil {
			return
		}
		for i := range x.Len() {
			e := x.At(i)
			if got := x.Lookup(e.Offset); got != e {
				t.Errorf("Lookup(%d) = %+v, want %+v", e.Offset, got, e)
			}
			if got := x.Lookup(e.Offset - 1); got.Position >= e.Position && e.Position > 0 {
				t.Errorf("Lookup(%d) = %+v, not before %+v", e.Offset-1, got, e)
			}
		}
	})
}

func FuzzTimeIndex(f *testing.F) {
	addGoldens(f, TimeIndexSuffix)
	f.Fuzz(func(t *testing.T, b []byte) {
		x, err := ParseTimeIndex(b, 0, 1<<31)
		onlyCorrupt(t, err)
		if err != nil {
			return
		}
		for i := range x.Len() {
			if e := x.At(i); x.Lookup(e.Timestamp) != e {
				t.Errorf("Lookup(%d) = %+v, want %+v", e.Timestamp, x.Lookup(e.Timestamp), e)
			}
		}
	})
}

func FuzzTxnIndex(f *testing.F) {
	addGoldens(f, TxnIndexSuffix)
	f.Fuzz(func(t *testing.T, b []byte) {
		x, err := ParseTxnIndex(b, 0, 1<<62)
		onlyCorrupt(t, err)
		if err != nil {
			return
		}
		var again []byte
		for _, a := range x {
			again = AppendAborted(again, a)
		}
		if !bytes.Equal(again, b) {
			t.Errorf("encoded again: %x, want %x", again, b)
		}
		x.Collect(0, 1<<62)
	})
}

func FuzzSnapshot(f *testing.F) {
	addGoldens(f, SnapshotSuffix)
	f.Fuzz(func(t *testing.T, b []byte) {
		_, err := ParseSnapshot(b)
		onlyCorrupt(t, err)
		b = resum(bytes.Clone(b))
		entries, err := ParseSnapshot(b)
		onlyCorrupt(t, err)
		if err != nil {
			return
		}
		if again := EncodeSnapshot(entries); len(again) != len(b) {
			t.Errorf("encoded again: %x, want %x", again, b)
		}
		if p, err := NewProducers(entries); err == nil && len(p.Entries()) != len(entries) {
			t.Errorf("%d producers of %d entries", len(p.Entries()), len(entries))
		}
	})
}

func FuzzMarker(f *testing.F) {
	f.Add([]byte{32, 0, 0, 0, 8, 0, 0, 0, 1, 12, 0, 0, 0, 0, 0, 7, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		_, _, err := parseMarker(b)
		onlyCorrupt(t, err)
	})
}

// The files of any batches that the builder takes are readable, and find every batch.
func FuzzBuilder(f *testing.F) {
	f.Add([]byte("0123456789abcdef0123456789"), uint16(100))
	f.Fuzz(func(t *testing.T, steps []byte, interval uint16) {
		b, err := NewBuilder(Config{Base: 5, IndexInterval: int(interval)})
		if err != nil {
			t.Fatal(err)
		}
		var batches []Batch
		next := int64(5)
		for len(steps) >= 4 && len(batches) < 200 {
			batch := Batch{
				BaseOffset: next + int64(steps[0]&3), LastOffsetDelta: int32(steps[1]), Length: 61 + 16*int32(steps[2]),
				MaxTimestamp: 1000 + int64(int8(steps[3])), ProducerID: -1,
			}
			if err := b.Add(&batch); err != nil {
				t.Fatal(err)
			}
			batches = append(batches, batch)
			next, steps = batch.LastOffset()+1, steps[4:]
		}
		if len(batches) > 0 {
			checkLookups(t, b.Finish(), batches)
		}
	})
}

func BenchmarkBuilder(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		x, err := NewBuilder(Config{})
		if err != nil {
			b.Fatal(err)
		}
		batch := Batch{LastOffsetDelta: 9, Length: 16 << 10, ProducerID: -1}
		for range 16 << 10 { // 256 MiB
			batch.MaxTimestamp++
			if err := x.Add(&batch); err != nil {
				b.Fatal(err)
			}
			batch.BaseOffset += 10
		}
		x.Finish()
	}
}
