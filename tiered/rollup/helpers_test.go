package rollup_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"hash/crc32"
	"io"
	"log/slog"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/tierlog/tierlog/objstore"
	"github.com/tierlog/tierlog/objstore/objtest"
	"github.com/tierlog/tierlog/record"
	"github.com/tierlog/tierlog/tiered/logid"
	"github.com/tierlog/tierlog/tiered/manifest"
	"github.com/tierlog/tierlog/tiered/rollup"
	"github.com/tierlog/tierlog/tiered/wal"
)

var (
	cluster = logid.ClusterID{0xc1, 2, 3, 4, 5, 6, 0x47, 8, 0x89, 10, 11, 12, 13, 14, 15, 16}
	topicA  = logid.TopicID{0xa, 1}
)

const epoch logid.Epoch = 7

// seeded makes a source of bytes that a test can repeat.
func seeded(seed uint64) io.Reader { return rand.NewChaCha8([32]byte{byte(seed)}) }

// quick are waits that tests need not sit through.
var quick = objstore.Backoff{First: time.Microsecond, Max: time.Microsecond}

func newWorker(t testing.TB, s objstore.Store, edit func(*rollup.Config)) *rollup.Worker {
	t.Helper()
	now := time.UnixMilli(1_800_000_000_000)
	cfg := rollup.Config{
		Store: s, Cluster: cluster, Owner: "test", Backoff: quick, Random: seeded(1),
		Now: func() time.Time { return now }, Logger: slog.New(slog.DiscardHandler),
	}
	if edit != nil {
		edit(&cfg)
	}
	w, err := rollup.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func ulidOf(t testing.TB, w *rollup.Worker) manifest.ULID {
	t.Helper()
	id, err := w.NewULID()
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// noise is what records are made of.
var noise = func() []byte {
	b := make([]byte, 64<<10)
	_, _ = io.ReadFull(seeded(9), b)
	return b
}()

// spec describes a batch.
type spec struct {
	base     int64
	records  int
	size     int // bytes after the header
	epoch    int32
	ts       int64
	producer int64 // 0: none
	seq      int32
	txn      bool
	marker   bool // an abort marker
}

func batchOf(r *rand.Rand, s spec) record.Batch {
	body := make([]byte, s.size)
	for at := 0; at < len(body); {
		at += copy(body[at:], noise[r.IntN(len(noise)/2):])
	}
	attrs := uint16(0)
	if s.txn || s.marker {
		attrs |= 0x10
	}
	if s.marker {
		attrs |= 0x20
		// One record: length, attributes, timestamp and offset deltas, key {version 0, abort}, value {version 0, coordinator 3}, headers.
		body = []byte{16 << 1, 0, 0, 0, 4 << 1, 0, 0, 0, 0, 6 << 1, 0, 0, 0, 0, 0, 3, 0}
		s.records = 1
	}
	b := make(record.Batch, record.HeaderSize, record.HeaderSize+len(body))
	b = append(b, body...)
	be := binary.BigEndian
	be.PutUint32(b[8:], uint32(len(b)-record.PrefixSize))
	b[16] = 2
	be.PutUint16(b[21:], attrs)
	be.PutUint32(b[23:], uint32(s.records-1))
	be.PutUint64(b[27:], uint64(s.ts))
	be.PutUint64(b[35:], uint64(s.ts))
	be.PutUint64(b[43:], ^uint64(0))
	be.PutUint16(b[51:], 0xffff)
	be.PutUint32(b[53:], ^uint32(0))
	if s.producer != 0 {
		be.PutUint64(b[43:], uint64(s.producer))
		be.PutUint16(b[51:], 2)
		if !s.marker {
			be.PutUint32(b[53:], uint32(s.seq))
		}
	}
	be.PutUint32(b[57:], uint32(s.records))
	be.PutUint32(b[17:], crc32.Checksum(b[21:], record.Castagnoli))
	b.SetOffsets(s.base, s.epoch)
	return b
}

// sect is one section to be put into an object.
type sect struct {
	id      logid.Partition
	epoch   int32
	batches []record.Batch
}

// putObject writes a WAL object (from == to) or a merged segment, and returns its line and footer.
func putObject(t testing.TB, s objstore.Store, from, to logid.Slot, sections ...sect) (manifest.Object, *wal.Footer) {
	t.Helper()
	h := wal.Header{Kind: wal.Data, Cluster: cluster, Epoch: epoch, Slot: from, Through: to, Nonce: uint64(from) + 99}
	o := manifest.Object{Kind: manifest.ObjectWAL, From: from, To: to, MinTimestamp: -1, MaxTimestamp: -1}
	if from != to {
		h.Kind, o.Kind, o.ULID = wal.Merged, manifest.ObjectMerged, manifest.ULID{1, byte(from)}
	}
	b := wal.NewBuilder(h)
	for _, x := range sections {
		b.Section(x.id.Topic, x.id.Index, x.epoch)
		for _, batch := range x.batches {
			b.Batch(batch)
			o.Records += int64(batch.NumRecords())
			if ts := batch.MaxTimestamp(); ts >= 0 {
				if o.MinTimestamp < 0 || ts < o.MinTimestamp {
					o.MinTimestamp = ts
				}
				o.MaxTimestamp = max(o.MaxTimestamp, ts)
			}
		}
	}
	e := b.Finish()
	o.Size, o.FooterSize = e.Size, e.FooterSize
	if _, err := s.Create(context.Background(), o.Key(cluster, epoch), objstore.Bytes(e.Parts...)); err != nil {
		t.Fatal(err)
	}
	f, _, err := wal.ParseTail(e.Parts[len(e.Parts)-1], e.Size)
	if err != nil {
		t.Fatal(err)
	}
	return o, f
}

// world is a WAL of random objects, and what each partition's log is.
type world struct {
	store   *objtest.Mem
	objects []manifest.Object
	footers []*wal.Footer
	logs    map[logid.Partition][]record.Batch
	next    map[logid.Partition]int64
}

func newWorld() *world {
	return &world{store: objtest.NewMem(), logs: map[logid.Partition][]record.Batch{}, next: map[logid.Partition]int64{}}
}

// flush adds a WAL object with a section for each of the partitions. size gives the bytes of the records in a batch.
func (w *world) flush(t testing.TB, r *rand.Rand, leader int32, parts []logid.Partition, size func() int) {
	t.Helper()
	var sections []sect
	for _, id := range parts {
		s := sect{id: id, epoch: leader}
		for range 1 + r.IntN(3) {
			n := 1 + r.IntN(9)
			b := batchOf(r, spec{
				base: w.next[id], records: n, size: size(), epoch: leader, ts: 1_700_000_000_000 + w.next[id],
				producer: int64(r.IntN(3)), seq: int32(w.next[id]),
			})
			w.next[id] += int64(n)
			s.batches = append(s.batches, b)
			w.logs[id] = append(w.logs[id], b)
		}
		sections = append(sections, s)
	}
	slot := logid.Slot(len(w.objects) + 1)
	o, f := putObject(t, w.store, slot, slot, sections...)
	w.objects, w.footers = append(w.objects, o), append(w.footers, f)
}

// extents lists a partition's sections in all objects.
func (w *world) extents(id logid.Partition, withCRC bool) []rollup.Extent {
	var out []rollup.Extent
	for i, f := range w.footers {
		for j := range f.Sections {
			s := &f.Sections[j]
			if s.Topic != id.Topic || s.Partition != id.Index {
				continue
			}
			out = append(out, rollup.Extent{
				Base: logid.Offset(s.BaseOffset()), Last: logid.Offset(s.LastOffset()), Epoch: logid.LeaderEpoch(s.LeaderEpoch), MaxTs: s.MaxTimestamp(),
				Key: w.objects[i].Key(cluster, epoch), Pos: s.Pos, Len: s.Len, CRC: s.CRC, HasCRC: withCRC,
			})
		}
	}
	return out
}

func joined(batches []record.Batch) []byte {
	var b []byte
	for _, x := range batches {
		b = append(b, x...)
	}
	return b
}

func readAll(t testing.TB, s objstore.Store, key string) []byte {
	t.Helper()
	b, _, err := objstore.ReadAll(context.Background(), s, key, 1<<30)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// exists tells whether the store has the key.
func exists(s objstore.Store, key string) bool {
	_, err := s.Head(context.Background(), key)
	return err == nil
}

func all(logid.Partition, logid.Offset, logid.Offset) bool { return true }

// damage overwrites one byte of an object.
func damage(t testing.TB, s *objtest.Mem, key string, at int64) {
	t.Helper()
	b := bytes.Clone(readAll(t, s, key))
	b[at] ^= 0x40
	_, info, err := objstore.ReadAll(context.Background(), s, key, 1<<30)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Swap(context.Background(), key, info.Version, objstore.Bytes(b)); err != nil {
		t.Fatal(err)
	}
}
