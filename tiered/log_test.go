package tiered

import (
	"context"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"log/slog"
	"testing"
	"time"

	"github.com/tierlog/tierlog/cache"
	"github.com/tierlog/tierlog/membuf"
	"github.com/tierlog/tierlog/objstore"
	"github.com/tierlog/tierlog/objstore/mem"
	"github.com/tierlog/tierlog/record"
	"github.com/tierlog/tierlog/tiered/logid"
	"github.com/tierlog/tierlog/tiered/manifest"
)

var testCluster = logid.ClusterID{7}

// testConfig is a log's config over a store; change what a test needs.
func testConfig(s objstore.Store, epoch logid.Epoch) Config {
	blocks, err := cache.New[BlockID, *membuf.Buf](cache.Config{Bytes: 64 << 20, Prefetches: 2})
	if err != nil {
		panic(err)
	}
	return Config{
		Store: s, Cluster: testCluster, Epoch: epoch, Pool: membuf.NewPool(16 << 20), Ingest: membuf.NewBudget(64 << 20),
		Cache: blocks, Now: time.Now, Logger: slog.New(slog.DiscardHandler),
	}
}

func mustOpen(t *testing.T, cfg Config, previous ...logid.Epoch) *Log {
	t.Helper()
	l, err := Open(t.Context(), cfg, previous)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		if l.ctx.Err() != nil {
			cancel() // killed: it must not write any more
		}
		defer cancel()
		_ = l.Close(ctx)
	})
	return l
}

// kill stops a log as a crash would: nothing is flushed and nothing written down.
func kill(l *Log) {
	l.cancel()
	l.tasks.Wait()
	l.unlock()
}

func openPart(l *Log, index int32) *Partition {
	return l.OpenPartition(logid.Partition{Topic: logid.TopicID{1}, Index: index}, "topic1", int32(l.cfg.Epoch),
		Settings{MaxMessageBytes: 1 << 20, RetentionMs: -1, RetentionBytes: -1, SegmentBytes: 1 << 20})
}

// mkBatch makes a batch of n opaque records in a pool buffer, as wire hands them over.
func mkBatch(l *Log, n, size int, pid int64, seq int32) (record.Batch, *membuf.Buf) {
	buf := l.cfg.Pool.Get(record.HeaderSize + size)
	b := record.Batch(buf.Bytes())
	clear(b)
	be := binary.BigEndian
	be.PutUint32(b[8:], uint32(len(b)-record.PrefixSize))
	b[16] = 2
	be.PutUint32(b[23:], uint32(n-1))
	now := uint64(time.Now().UnixMilli())
	be.PutUint64(b[27:], now)
	be.PutUint64(b[35:], now)
	be.PutUint64(b[43:], uint64(pid))
	if pid >= 0 {
		be.PutUint32(b[53:], uint32(seq))
	}
	be.PutUint32(b[57:], uint32(n))
	for i := record.HeaderSize; i < len(b); i++ {
		b[i] = byte(i + n)
	}
	be.PutUint32(b[17:], crc32.Checksum(b[21:], record.Castagnoli))
	return b, buf
}

// sent is a batch of n records and size bytes, from a producer or from none (-1).
type sent struct {
	n, size int
	pid     int64
	seq     int32
}

// put appends one batch and returns its base offset and a channel with the commit's outcome.
func put(t *testing.T, p *Partition, acks Acks, x sent) (int64, chan error, error) {
	t.Helper()
	b, buf := mkBatch(p.log, x.n, x.size, x.pid, x.seq)
	defer buf.Release()
	done := make(chan error, 1)
	c := NewCommit(func(err error) { done <- err })
	a, err := p.Append(b, buf, acks, c)
	c.Seal()
	return a.BaseOffset, done, err
}

func mustPut(t *testing.T, p *Partition, acks Acks, n, size int) int64 {
	t.Helper()
	base, done, err := put(t, p, acks, sent{n, size, -1, -1})
	if err == nil {
		err = <-done
	}
	if err != nil {
		t.Fatal(err)
	}
	return base
}

// readAll reads from an offset to the high watermark and returns the base offsets of the batches.
func readAll(t *testing.T, p *Partition, from int64, max int) []int64 {
	t.Helper()
	var bases []int64
	for {
		var out Slices
		o, err := p.Read(t.Context(), ReadRequest{Offset: from, MaxBytes: max, OneMore: true}, &out)
		if err != nil {
			t.Fatalf("read at %d: %v", from, err)
		}
		if out.Size == 0 {
			if from != o.HighWatermark {
				t.Fatalf("nothing at %d, high watermark %d", from, o.HighWatermark)
			}
			return bases
		}
		var flat []byte
		for _, part := range out.Parts {
			flat = append(flat, part...)
		}
		if len(flat) != out.Size {
			t.Fatalf("parts of %d bytes, size says %d", len(flat), out.Size)
		}
		for len(flat) > 0 {
			b, rest, err := record.Next(flat)
			if err != nil {
				t.Fatal(err)
			}
			if err := b.VerifyCRC(); err != nil {
				t.Fatal(err)
			}
			bases = append(bases, b.BaseOffset())
			from, flat = b.LastOffset()+1, rest
		}
		out.Release()
	}
}

func wantBases(t *testing.T, got []int64, n int, step int64) {
	t.Helper()
	if len(got) != n {
		t.Fatalf("%d batches, want %d", len(got), n)
	}
	for i := range got {
		if got[i] != int64(i)*step {
			t.Fatalf("batch %d at offset %d, want %d", i, got[i], int64(i)*step)
		}
	}
}

func TestAcknowledgedIsReadableFromMemoryAndBucket(t *testing.T) {
	store := mem.New()
	cfg := testConfig(store, 1)
	cfg.TailBytes = 40 << 10 // most of it must come from the bucket
	l := mustOpen(t, cfg)
	p := openPart(l, 0)
	l.Opened()
	for i := range 200 {
		if base := mustPut(t, p, AcksAll, 3, 1000); base != int64(i)*3 {
			t.Fatalf("batch %d got offset %d", i, base)
		}
	}
	wantBases(t, readAll(t, p, 0, 5000), 200, 3)
	got := readAll(t, p, 301, 1) // in the middle of a batch: that batch comes first
	if len(got) != 100 || got[0] != 300 {
		t.Fatalf("from the middle: %d batches from %v", len(got), got[0])
	}
	var out Slices
	if _, err := p.Read(t.Context(), ReadRequest{Offset: 601, MaxBytes: 1}, &out); !errors.Is(err, ErrOutOfRange) {
		t.Fatalf("beyond the end: %v", err)
	}
}

func TestRestartAfterCrashAndAfterOrderlyStop(t *testing.T) {
	store := mem.New()
	want := 0
	var previous []logid.Epoch
	for epoch := logid.Epoch(1); epoch <= 6; epoch++ {
		l := mustOpen(t, testConfig(store, epoch), previous...)
		p := openPart(l, 0)
		l.Opened()
		if o := p.Offsets(); o.HighWatermark != int64(want)*2 {
			t.Fatalf("epoch %d: high watermark %d, want %d", epoch, o.HighWatermark, want*2)
		}
		for range 10 {
			mustPut(t, p, AcksAll, 2, 500)
			want++
		}
		wantBases(t, readAll(t, p, 0, 3000), want, 2)
		if epoch == 3 {
			// A checkpoint in the middle: the next start must not need the footers before it.
			l.maint.logged(t.Context(), l.maint.round)
			mustPut(t, p, AcksAll, 2, 500)
			want++
		}
		if epoch%2 == 0 {
			if err := l.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
		} else {
			kill(l)
		}
		previous = append(previous, epoch)
	}
}

func TestDuplicatesAnswerTheirFirstOffsetAcrossRestarts(t *testing.T) {
	store := mem.New()
	l := mustOpen(t, testConfig(store, 1))
	p := openPart(l, 0)
	l.Opened()
	seq := int32(0)
	for range 8 {
		_, done, err := put(t, p, AcksAll, sent{4, 100, 42, seq})
		if err == nil {
			err = <-done
		}
		if err != nil {
			t.Fatal(err)
		}
		seq += 4
	}
	check := func(p *Partition) {
		t.Helper()
		for back := int32(1); back <= 5; back++ {
			base, done, err := put(t, p, AcksAll, sent{4, 100, 42, seq - 4*back})
			if err != nil || <-done != nil || base != int64(seq-4*back) {
				t.Fatalf("duplicate of sequence %d: offset %d, %v", seq-4*back, base, err)
			}
		}
		if _, _, err := put(t, p, AcksAll, sent{4, 100, 42, seq + 4}); !errors.Is(err, ErrOutOfOrderSequence) {
			t.Fatalf("gap: %v", err)
		}
		if o := p.Offsets(); o.LogEnd != int64(seq) {
			t.Fatalf("log end %d, want %d: a duplicate was appended", o.LogEnd, seq)
		}
	}
	check(p)
	kill(l)
	l2 := mustOpen(t, testConfig(store, 2), 1)
	p2 := openPart(l2, 0)
	l2.Opened()
	check(p2)
	if err := l2.waitIndexed(t.Context()); err != nil {
		t.Fatal(err)
	}
	l2.maint.logged(t.Context(), l2.maint.start)
	kill(l2)
	l3 := mustOpen(t, testConfig(store, 3), 1, 2)
	p3 := openPart(l3, 0)
	check(p3)
}

func TestFencedLogAcknowledgesNothing(t *testing.T) {
	store := mem.New()
	old := mustOpen(t, testConfig(store, 1))
	p := openPart(old, 0)
	old.Opened()
	mustPut(t, p, AcksAll, 1, 100)
	l := mustOpen(t, testConfig(store, 2), 1)
	np := openPart(l, 0)
	mustPut(t, np, AcksAll, 1, 100)
	_, done, err := put(t, p, AcksAll, sent{1, 100, -1, -1})
	if err == nil {
		err = <-done
	}
	if !errors.Is(err, ErrFenced) {
		t.Fatalf("the older log answered %v", err)
	}
	<-old.Failed()
	var out Slices
	if _, err := p.Read(t.Context(), ReadRequest{Offset: 0, MaxBytes: 100}, &out); !errors.Is(err, ErrFenced) {
		t.Fatalf("the older log still reads: %v", err)
	}
	wantBases(t, readAll(t, np, 0, 100), 2, 1)
}

func TestAcksOneIsFinishedFromTheLocalDisk(t *testing.T) {
	store := mem.New()
	dir := t.TempDir()
	cfg := testConfig(stuck{store}, 1)
	cfg.DataDir = dir
	l := mustOpen(t, cfg)
	p := openPart(l, 0)
	q := openPart(l, 1)
	for range 20 {
		mustPut(t, p, AcksLocal, 1, 100) // acknowledged although the bucket takes nothing
		mustPut(t, q, AcksLocal, 2, 100)
	}
	if o := p.Offsets(); o.HighWatermark != 0 {
		t.Fatalf("high watermark %d before anything is durable", o.HighWatermark)
	}
	kill(l)
	cfg2 := testConfig(store, 2)
	cfg2.DataDir = dir
	l2 := mustOpen(t, cfg2, 1)
	wantBases(t, readAll(t, openPart(l2, 0), 0, 1000), 20, 1)
	wantBases(t, readAll(t, openPart(l2, 1), 0, 1000), 20, 2)
}

// stuck is a bucket whose WAL writes never finish.
type stuck struct{ objstore.Store }

func (s stuck) Create(ctx context.Context, key string, body objstore.Payload) (objstore.Version, error) {
	if k, err := manifest.ParseKey(key); err == nil && k.Kind == manifest.KeyWAL {
		<-ctx.Done()
		return "", &objstore.Error{Op: "create", Key: key, Kind: objstore.ErrUnknown, Err: ctx.Err()}
	}
	return s.Store.Create(ctx, key, body)
}
