package manifest

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"hash/crc32"
	"math"
	"reflect"
	"strings"
	"testing"

	"github.com/tierlog/tierlog/objstore"
	"github.com/tierlog/tierlog/tiered/logid"
)

// resum puts the right checksum at the end.
func resum(b []byte) []byte {
	n := len(b) - checkpointSum
	return binary.BigEndian.AppendUint32(bytes.Clone(b[:n]), crc32.Checksum(b[:n], castagnoli))
}

func TestCheckpointRoundTripAndGolden(t *testing.T) {
	want := sampleCheckpoint()
	b := must[[]byte](t)(want.Encode())
	text := golden(t, "checkpoint.hex", []byte(hex.Dump(b)))
	if len(text) == 0 || !bytes.Contains(b[:objstore.IdentitySize], want.Nonce[:]) {
		t.Error("the nonce is not among the first bytes")
	}
	ref := CheckpointRef{Slot: 4096, ULID: testULID(1), Size: int64(len(b))}
	got := must[*Checkpoint](t)(DecodeCheckpoint(b, testCluster, 42, ref))
	if !reflect.DeepEqual(got, want) {
		t.Errorf("decode gives\n%+v, want\n%+v", got, want)
	}
	if p := got.Find(testPart); p == nil || p.NextOffset != 9500 {
		t.Errorf("Find = %+v", p)
	}
	if p := got.Find(logid.Partition{Topic: testTopic, Index: 4}); p != nil {
		t.Errorf("Find of another partition = %+v", p)
	}
	if got.Key(ref.ULID) != ref.Key(testCluster, 42) {
		t.Errorf("keys %q and %q differ", got.Key(ref.ULID), ref.Key(testCluster, 42))
	}
	ref.Slot++
	for name, err := range map[string]error{
		"cluster": second(DecodeCheckpoint(b, logid.ClusterID{9}, 42, CheckpointRef{Slot: 4096})),
		"epoch":   second(DecodeCheckpoint(b, testCluster, 43, CheckpointRef{Slot: 4096})),
		"slot":    second(DecodeCheckpoint(b, testCluster, 42, ref)),
	} {
		if !errors.Is(err, ErrCorrupt) {
			t.Errorf("the checkpoint of another %s: %v, want ErrCorrupt", name, err)
		}
	}
}

func TestCheckpointExtremes(t *testing.T) {
	c := &Checkpoint{Nonce: testNonce(1), Cluster: testCluster, Epoch: math.MaxUint64, Next: math.MaxUint64, Partitions: []PartitionState{
		{
			Partition: logid.Partition{Topic: testTopic, Index: math.MaxInt32}, LogStart: math.MaxInt64, NextOffset: math.MaxInt64,
			RolledThrough: math.MaxInt64, ManifestVersion: math.MaxUint64,
			Epochs: []EpochStart{{Epoch: math.MaxInt32, Start: math.MaxInt64}},
			Producers: []ProducerState{{
				ID: math.MaxInt64, Epoch: math.MinInt16, CoordinatorEpoch: math.MinInt32, LastTimestamp: math.MaxInt64, TxnFirst: math.MaxInt64 - 1,
				Batches: []ProducerBatch{{BaseSeq: math.MaxInt32, LastSeq: 0, BaseOffset: 0, LastOffset: math.MaxInt64, Timestamp: math.MinInt64}},
			}},
			Aborted: []AbortedTxn{{ProducerID: math.MaxInt64, First: 0, Last: math.MaxInt64, LastStable: math.MaxInt64}},
		},
	}}
	got := must[*Checkpoint](t)(ParseCheckpoint(must[[]byte](t)(c.Encode())))
	if !reflect.DeepEqual(got, c) {
		t.Errorf("decode gives\n%+v, want\n%+v", got, c)
	}
	empty := &Checkpoint{Nonce: testNonce(1), Cluster: testCluster}
	b := must[[]byte](t)(empty.Encode())
	if got := must[*Checkpoint](t)(ParseCheckpoint(b)); !reflect.DeepEqual(got, empty) || len(b) != checkpointHeader+checkpointSum {
		t.Errorf("an empty one takes %d bytes and decodes as %+v", len(b), got)
	}
}

func TestCheckpointCorruption(t *testing.T) {
	good := must[[]byte](t)(sampleCheckpoint().Encode())
	for i := range good {
		bad := bytes.Clone(good)
		bad[i] ^= 1 << (i % 8)
		if _, err := ParseCheckpoint(bad); !errors.Is(err, ErrCorrupt) {
			t.Fatalf("bit flipped in byte %d: %v", i, err)
		}
		if _, err := ParseCheckpoint(good[:i]); !errors.Is(err, ErrCorrupt) {
			t.Fatalf("truncated to %d bytes: %v", i, err)
		}
		// With a checksum that fits, damage gives ErrCorrupt, ErrNewer, or another checkpoint that is valid.
		c, err := ParseCheckpoint(resum(bad))
		switch {
		case err == nil:
			if c.Validate() != nil {
				t.Fatalf("byte %d: an invalid checkpoint is accepted", i)
			}
		case !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrNewer):
			t.Fatalf("byte %d: %v", i, err)
		}
	}
	newer := bytes.Clone(good)
	newer[9] = 2
	var fe *FormatError
	if _, err := ParseCheckpoint(resum(newer)); !errors.As(err, &fe) || fe.Got != 2 || !errors.Is(err, ErrNewer) {
		t.Errorf("format 2: %v, want ErrNewer", err)
	}
	for name, edit := range map[string]func(b []byte) []byte{
		"too many partitions":   func(b []byte) []byte { binary.BigEndian.PutUint32(b[12:], math.MaxUint32); return b },
		"one more partition":    func(b []byte) []byte { b[15]++; return b },
		"one partition less":    func(b []byte) []byte { b[15]--; return b },
		"bytes after the last":  func(b []byte) []byte { return append(b, 0) },
		"reserved bytes in use": func(b []byte) []byte { b[11] = 1; return b },
		"zero nonce":            func(b []byte) []byte { clear(b[16:32]); return b },
		"a long varint":         func(b []byte) []byte { return append(b[:80:80], append([]byte{0x81, 0x00}, b[81:]...)...) },
	} {
		if _, err := ParseCheckpoint(resum(edit(bytes.Clone(good)))); !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), "checkpoint: ") {
			t.Errorf("%s: %v, want ErrCorrupt", name, err)
		}
	}
}

func TestCheckpointValidate(t *testing.T) {
	for field, damage := range map[string]func(c *Checkpoint){
		"nonce":                 func(c *Checkpoint) { c.Nonce = Nonce{} },
		"cluster":               func(c *Checkpoint) { c.Cluster = logid.ClusterID{} },
		"follows":               func(c *Checkpoint) { c.Partitions[2] = c.Partitions[1] },
		"one is negative":       func(c *Checkpoint) { c.Partitions[1].NextOffset = -1 },
		"leader epoch 2":        func(c *Checkpoint) { c.Partitions[1].Epochs[2].Epoch = 2 },
		"leader epoch 3":        func(c *Checkpoint) { c.Partitions[1].Epochs[2].Start = 2999 },
		"producer 0":            func(c *Checkpoint) { c.Partitions[1].Producers[1].ID = 0 },
		"transaction is -2":     func(c *Checkpoint) { c.Partitions[1].Producers[1].TxnFirst = -2 },
		"batches are 6":         func(c *Checkpoint) { c.Partitions[1].Producers[1].Batches = make([]ProducerBatch, 6) },
		"batch of sequences -1": func(c *Checkpoint) { c.Partitions[1].Producers[1].Batches[0].BaseSeq = -1 },
		"batch at offset":       func(c *Checkpoint) { c.Partitions[1].Producers[1].Batches[1].BaseOffset = 9311 },
		"aborted transaction":   func(c *Checkpoint) { c.Partitions[1].Aborted[0].First = 9201 },
		"then at 9200":          func(c *Checkpoint) { c.Partitions[1].Aborted[1].Last = 9200 },
	} {
		c := sampleCheckpoint()
		damage(c)
		if _, err := c.Encode(); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), field) {
			t.Errorf("%s: %v, want ErrInvalid that names it", field, err)
		}
	}
}

func TestCheckpointSort(t *testing.T) {
	want := sampleCheckpoint()
	c := sampleCheckpoint()
	for i, j := 0, len(c.Partitions)-1; i < j; i, j = i+1, j-1 {
		c.Partitions[i], c.Partitions[j] = c.Partitions[j], c.Partitions[i]
	}
	p := &c.Partitions[1]
	p.Producers[0], p.Producers[1] = p.Producers[1], p.Producers[0]
	p.Aborted[0], p.Aborted[1] = p.Aborted[1], p.Aborted[0]
	if _, err := c.Encode(); !errors.Is(err, ErrInvalid) {
		t.Errorf("an unsorted checkpoint: %v, want ErrInvalid", err)
	}
	c.Sort()
	if !reflect.DeepEqual(c, want) {
		t.Errorf("Sort gives %+v", c)
	}
}

// bigCheckpoint is of a broker with 10,000 partitions, two producers in each.
func bigCheckpoint() *Checkpoint {
	c := &Checkpoint{Nonce: testNonce(1), Cluster: testCluster, Epoch: 42, Next: 1 << 20}
	for i := range int32(10000) {
		next := logid.Offset(1e6 + int64(i)*977)
		p := PartitionState{
			Partition: logid.Partition{Topic: logid.TopicID{byte(i / 2500)}, Index: i}, LogStart: next / 2, NextOffset: next, RolledThrough: next - 5000, ManifestVersion: 7,
			Epochs: []EpochStart{{Epoch: 0, Start: 0}, {Epoch: 4, Start: next / 3}},
		}
		for id := range int64(2) {
			s := ProducerState{ID: 1000 + id + int64(i)*3, LastTimestamp: 1767225600000, CoordinatorEpoch: -1, TxnFirst: logid.NoOffset}
			for k := range logid.Offset(5) {
				base := next - 100*(5-k)
				s.Batches = append(s.Batches, ProducerBatch{BaseSeq: int32(base), LastSeq: int32(base) + 99, BaseOffset: base, LastOffset: base + 99, Timestamp: 1767225600000 - int64(5-k)})
			}
			p.Producers = append(p.Producers, s)
		}
		c.Partitions = append(c.Partitions, p)
	}
	return c
}

func TestCheckpointIsCompact(t *testing.T) {
	c := bigCheckpoint()
	b := must[[]byte](t)(c.Encode())
	if per := len(b) / len(c.Partitions); per > 200 {
		t.Errorf("%d bytes for each partition with two producers of five batches", per)
	}
	if got := must[*Checkpoint](t)(ParseCheckpoint(b)); !reflect.DeepEqual(got, c) {
		t.Error("10,000 partitions do not decode as they were")
	}
}

func BenchmarkCheckpoint(b *testing.B) {
	c := bigCheckpoint()
	body := must[[]byte](b)(c.Encode())
	b.Run("encode", func(b *testing.B) {
		b.ReportAllocs()
		b.SetBytes(int64(len(body)))
		for b.Loop() {
			if _, err := c.Encode(); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("decode", func(b *testing.B) {
		b.ReportAllocs()
		b.SetBytes(int64(len(body)))
		for b.Loop() {
			if _, err := ParseCheckpoint(body); err != nil {
				b.Fatal(err)
			}
		}
	})
}
