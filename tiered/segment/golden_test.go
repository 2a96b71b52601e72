package segment

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/tierlog/tierlog/record"
)

func readFile(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		if os.IsNotExist(err) {
			return nil
		}
		t.Fatal(err)
	}
	return b
}

// batchesOf describes the batches of a .log file.
func batchesOf(t testing.TB, log []byte) []Batch {
	t.Helper()
	var all []Batch
	for len(log) > 0 {
		raw, rest, err := record.Next(log)
		if err != nil {
			t.Fatalf("batch %d: %v", len(all), err)
		}
		b, err := BatchOf(raw)
		if err != nil {
			t.Fatal(err)
		}
		all, log = append(all, b), rest
	}
	return all
}

// intervals are the index.interval.bytes of the topics; see kafka_test.go.
var intervals = map[string]int{"small-0": 300, "txn-0": 300, "append-0": 300, "small": 300, "txn": 300, "append": 300}

// rebuild makes the files of every segment in a Kafka log folder from its .log file, and compares them with Kafka's.
func rebuild(t testing.TB, dir string) []Files {
	t.Helper()
	logs, err := filepath.Glob(filepath.Join(dir, "*"+LogSuffix))
	if err != nil || len(logs) == 0 {
		t.Fatalf("no .log file in %s, %v", dir, err)
	}
	producers, err := NewProducers(nil)
	if err != nil {
		t.Fatal(err)
	}
	var all []Files
	for _, path := range logs {
		base, suffix, err := ParseFileName(filepath.Base(path))
		if err != nil || suffix != LogSuffix {
			t.Fatal(err)
		}
		b, err := NewBuilder(Config{Base: base, IndexInterval: intervals[filepath.Base(dir)], Producers: producers})
		if err != nil {
			t.Fatal(err)
		}
		log := readFile(t, path)
		for _, batch := range batchesOf(t, log) {
			if err := b.Add(&batch); err != nil {
				t.Fatal(err)
			}
		}
		f := b.Finish()
		if f.Size != int64(len(log)) {
			t.Errorf("%s: size %d, want %d", path, f.Size, len(log))
		}
		for name, got := range map[string][]byte{
			FileName(base, IndexSuffix): f.Index, FileName(base, TimeIndexSuffix): f.TimeIndex,
			FileName(base, TxnIndexSuffix): f.TxnIndex, FileName(f.Last+1, SnapshotSuffix): f.Snapshot,
		} {
			// Kafka writes empty files and snapshots without entries, we do not.
			want := readFile(t, filepath.Join(dir, name))
			if entries, err := ParseSnapshot(want); err == nil && len(entries) == 0 {
				want = nil
			}
			if !bytes.Equal(got, want) {
				t.Errorf("%s: %s differs from Kafka's\n got %x\nwant %x", dir, name, got, want)
			}
		}
		all = append(all, f)
	}
	return all
}
