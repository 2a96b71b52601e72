package manifest

import (
	"bytes"
	"encoding/binary"
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/tierlog/tierlog/tiered/logid"
)

var update = flag.Bool("update", false, "write the golden files anew")

// Fixed ids: the tests must give the same bytes every time.
var (
	testCluster = logid.ClusterID{0x10, 0x22, 0x33, 0x44, 0x55, 0x66, 0x47, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff, 0x01}
	testTopic   = logid.TopicID{0xab, 1, 2, 3, 4, 5, 0x46, 7, 0x88, 9, 10, 11, 12, 13, 14, 15}
	testPart    = logid.Partition{Topic: testTopic, Index: 3}
)

func testNonce(n uint64) Nonce {
	var v Nonce
	v[0] = 0xee
	binary.BigEndian.PutUint64(v[8:], n)
	return v
}

func testULID(n uint64) ULID {
	v := ULID{0x01, 0x9a, 0xbc, 0xde, 0xf0, 0x12}
	binary.BigEndian.PutUint64(v[8:], n)
	return v
}

// golden compares got with testdata/name: a change of the bytes is a change of the format.
func golden(t *testing.T, name string, got []byte) []byte {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s: the encoding changed\n got %q\nwant %q", name, got, want)
	}
	return want
}

func must[T any](t testing.TB) func(v T, err error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func sampleCluster() *Cluster {
	return &Cluster{Nonce: testNonce(1), ID: testCluster, MinReader: 1, CreatedMs: 1767225600000}
}

func sampleWAL() *WAL {
	return &WAL{
		Nonce: testNonce(2), Version: 17, Epoch: 42, Fence: new(logid.Slot(5000)), MergedThrough: 4097,
		Checkpoint: &CheckpointRef{Slot: 4096, ULID: testULID(1), Size: 70000},
		Objects: []Object{
			{Kind: ObjectMerged, From: 0, To: 1023, ULID: testULID(2), Size: 128 << 20, FooterSize: 40000, Records: 131072, MinTimestamp: 1767225600000, MaxTimestamp: 1767225900000},
			{Kind: ObjectWAL, From: 2000, To: 2000, Size: 8 << 20, FooterSize: 900, Records: 8192, MinTimestamp: -1, MaxTimestamp: -1},
			{Kind: ObjectMerged, From: 2001, To: 4096, ULID: testULID(3), Size: 100 << 20, FooterSize: 30000, Records: 100000, MinTimestamp: 1767225900001, MaxTimestamp: 1767226200000},
		},
	}
}

func samplePartition() *Partition {
	return &Partition{
		Nonce: testNonce(3), Version: 9, Topic: "orders", TopicID: testTopic, Index: 3, LogStart: 1500, RolledThrough: 9000,
		Pages: []PageRef{{Base: 0, Last: 2999, ULID: testULID(4), Count: 2, Bytes: 300, MaxTimestamp: 1767225600000}},
		Segments: []Segment{
			{
				Base: 3000, Last: 5999, ULID: testULID(5), Size: 256 << 20, IndexSize: 524288, TimeIndexSize: 786432, TxnIndexSize: 34, SnapshotSize: 80,
				MaxTimestamp: 1767225700000, Epochs: []EpochStart{{Epoch: 2, Start: 3000}, {Epoch: 3, Start: 4000}},
			},
			{Base: 6100, Last: 8999, ULID: testULID(6), Size: 1 << 20, IndexSize: 2048, TimeIndexSize: 3072, MaxTimestamp: -1, Epochs: []EpochStart{{Epoch: 5, Start: 6100}}},
		},
	}
}

func samplePage() *Page {
	return &Page{
		Nonce: testNonce(4), Topic: "orders", TopicID: testTopic, Index: 3, ULID: testULID(4),
		Segments: []Segment{
			{Base: 0, Last: 999, ULID: testULID(7), Size: 100, IndexSize: 8, TimeIndexSize: 12, MaxTimestamp: 1767225600000, Epochs: []EpochStart{{Epoch: 0, Start: 0}}},
			{Base: 1000, Last: 2999, ULID: testULID(8), Size: 200, IndexSize: 8, TimeIndexSize: 12, MaxTimestamp: 1767225599000},
		},
	}
}

func sampleJob() *Job {
	p := samplePartition()
	return &Job{
		Nonce: testNonce(5), Version: 1, ULID: testULID(9), Work: "rollup", Owner: "broker 1 epoch 42", StartedMs: 1767225600000, DeadlineMs: 1767226200000,
		Outputs: []string{p.SegmentKey(testCluster, p.Segments[0], FileLog), p.SegmentKey(testCluster, p.Segments[0], FileSnapshot)},
	}
}

func sampleDeletion() *Deletion {
	return &Deletion{
		Nonce: testNonce(6), ULID: testULID(10), Reason: "merged", NotBeforeMs: 1767225600000,
		Keys: []string{Key{Kind: KeyWAL, Cluster: testCluster, Epoch: 42, Slot: 7}.String()},
	}
}

func sampleCheckpoint() *Checkpoint {
	return &Checkpoint{
		Nonce: testNonce(7), Cluster: testCluster, Epoch: 42, Next: 4096,
		Partitions: []PartitionState{
			{Partition: logid.Partition{Topic: logid.TopicID{1}, Index: 0}},
			{
				Partition: testPart, LogStart: 1500, NextOffset: 9500, RolledThrough: 9000, ManifestVersion: 9,
				Epochs: []EpochStart{{Epoch: 0, Start: 0}, {Epoch: 2, Start: 3000}, {Epoch: 3, Start: 3000}},
				Producers: []ProducerState{
					{ID: 0, Epoch: 0, CoordinatorEpoch: -1, LastTimestamp: -1, TxnFirst: logid.NoOffset},
					{ID: 4000, Epoch: 7, CoordinatorEpoch: 12, LastTimestamp: 1767225900000, TxnFirst: 9400, Batches: []ProducerBatch{
						{BaseSeq: 2147483640, LastSeq: 3, BaseOffset: 9300, LastOffset: 9311, Timestamp: 1767225800000},
						{BaseSeq: 4, LastSeq: 4, BaseOffset: 9400, LastOffset: 9400, Timestamp: 1767225900000},
					}},
				},
				Aborted: []AbortedTxn{{ProducerID: 4000, First: 9100, Last: 9200, LastStable: 9100}, {ProducerID: 4001, First: 9000, Last: 9210, LastStable: 9211}},
			},
			{Partition: logid.Partition{Topic: testTopic, Index: 9}, LogStart: 5, NextOffset: 5, RolledThrough: 5},
		},
	}
}
