package history_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tierlog/tierlog/cache"
	"github.com/tierlog/tierlog/cluster"
	"github.com/tierlog/tierlog/membuf"
	"github.com/tierlog/tierlog/objstore"
	"github.com/tierlog/tierlog/objstore/mem"
	"github.com/tierlog/tierlog/record"
	"github.com/tierlog/tierlog/tiered"
	"github.com/tierlog/tierlog/tiered/history"
	"github.com/tierlog/tierlog/tiered/logid"
	"github.com/tierlog/tierlog/tiered/manifest"
	"github.com/tierlog/tierlog/tiered/rollup"
)

// bucket is a store that the real engine writes to, and what was acknowledged.
type bucket struct {
	t     *testing.T
	store *mem.Store
	maint tiered.MaintenanceConfig
	keep  int64               // retention.bytes, -1 for all
	want  map[string][]string // by TOPIC/PARTITION: values in offset order

	meta    *cluster.Log
	log     *tiered.Log
	pool    *membuf.Pool
	parts   map[string]*tiered.Partition
	process *mortal
}

// startMs is the timestamp of the first record; each one is a millisecond later.
const startMs = 1_800_000_000_000

func newBucket(t *testing.T) *bucket {
	return &bucket{t: t, store: mem.New(), want: make(map[string][]string), keep: -1, pool: membuf.NewPool(16 << 20)}
}

func (b *bucket) check(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

// mortal is a store as one broker process sees it: nothing of it reaches the bucket after die.
type mortal struct {
	objstore.Store
	mu   sync.RWMutex // held for reading during each write
	dead bool         // guarded by mu
}

func (m *mortal) die() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.dead = true
}

func (m *mortal) write(op, key string, do func() error) error {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if m.dead {
		return &objstore.Error{Op: op, Key: key, Kind: objstore.ErrDenied}
	}
	return do()
}

func (m *mortal) Create(ctx context.Context, key string, body objstore.Payload) (v objstore.Version, err error) {
	err = m.write("create", key, func() error { v, err = m.Store.Create(ctx, key, body); return err })
	return v, err
}

func (m *mortal) Swap(ctx context.Context, key string, old objstore.Version, body objstore.Payload) (v objstore.Version, err error) {
	err = m.write("swap", key, func() error { v, err = m.Store.Swap(ctx, key, old, body); return err })
	return v, err
}

func (m *mortal) Delete(ctx context.Context, keys []string) error {
	return m.write("delete", keys[0], func() error { return m.Store.Delete(ctx, keys) })
}

// start joins as a new broker epoch; the one before ends as by a crash.
func (b *bucket) start() {
	b.t.Helper()
	if b.process != nil {
		b.process.die()
	}
	process := &mortal{Store: b.store}
	b.process = process
	ctx := b.t.Context()
	var err error
	b.meta, err = cluster.Open(ctx, cluster.Config{Store: b.store, Now: time.Now})
	b.check(err)
	m, err := b.meta.Join(ctx, cluster.Member{Node: 1, Host: "localhost", Port: 9092})
	b.check(err)
	var previous []logid.Epoch
	for _, e := range b.meta.State().Epochs() {
		if e.Epoch != m.Epoch() {
			previous = append(previous, e.Epoch)
		}
	}
	blocks, err := cache.New[tiered.BlockID, *membuf.Buf](cache.Config{Bytes: 32 << 20, Prefetches: 2})
	b.check(err)
	log, err := tiered.Open(ctx, tiered.Config{
		Store: process, Cluster: b.meta.ClusterID(), Epoch: m.Epoch(), Pool: b.pool, Ingest: membuf.NewBudget(64 << 20),
		Cache: blocks, Now: time.Now, Logger: slog.New(slog.DiscardHandler), Maintenance: b.maint,
	}, previous)
	b.check(err)
	b.log = log
	b.t.Cleanup(func() {
		process.die()
		ended, cancel := context.WithCancel(context.Background())
		cancel()
		_ = log.Close(ended)
	})
	b.parts = make(map[string]*tiered.Partition)
	for _, topic := range b.meta.State().Topics() {
		b.open(topic)
	}
	b.log.Opened()
}

func (b *bucket) open(topic *cluster.Topic) {
	for i, p := range topic.Partitions {
		id := logid.Partition{Topic: topic.ID, Index: int32(i)}
		b.parts[fmt.Sprintf("%s/%d", topic.Name, i)] = b.log.OpenPartition(id, topic.Name, int32(p.LeaderEpoch),
			tiered.Settings{MaxMessageBytes: 8 << 20, RetentionMs: -1, RetentionBytes: b.keep, SegmentBytes: 1 << 20})
	}
}

func (b *bucket) topic(name string, partitions int32) {
	b.t.Helper()
	id, err := b.meta.NewTopicID()
	b.check(err)
	_, err = b.meta.Propose(b.t.Context(), func(*cluster.State) ([]cluster.Record, error) {
		return []cluster.Record{&cluster.TopicCreated{Name: name, ID: id, Partitions: partitions}}, nil
	})
	b.check(err)
	topic, _ := b.meta.State().Topic(name)
	b.open(topic)
}

// put appends n records of some size in one batch and waits until they are durable.
func (b *bucket) put(part string, n, size int) {
	b.t.Helper()
	values := make([]string, n)
	for i := range values {
		head := fmt.Sprintf("%s record %d ", part, len(b.want[part])+i)
		values[i] = head + strings.Repeat(string(rune('a'+i%26)), max(0, size-len(head)))
	}
	raw := batchOf(values, startMs+int64(len(b.want[part])))
	buf := b.pool.Get(len(raw))
	defer buf.Release()
	copy(buf.Bytes(), raw)
	done := make(chan error, 1)
	c := tiered.NewCommit(func(err error) { done <- err })
	_, err := b.parts[part].Append(record.Batch(buf.Bytes()), buf, tiered.AcksAll, c)
	c.Seal()
	b.check(err)
	b.check(<-done)
	b.want[part] = append(b.want[part], values...)
}

// batchOf encodes records with values, a millisecond apart.
func batchOf(values []string, baseMs int64) []byte {
	b := make([]byte, record.HeaderSize)
	for i, v := range values {
		var r []byte
		r = append(r, 0)
		r = binary.AppendVarint(r, int64(i)) // timestamp delta
		r = binary.AppendVarint(r, int64(i)) // offset delta
		r = binary.AppendVarint(r, -1)       // no key
		r = binary.AppendVarint(r, int64(len(v)))
		r = append(r, v...)
		r = binary.AppendVarint(r, 0) // no headers
		b = append(binary.AppendVarint(b, int64(len(r))), r...)
	}
	be := binary.BigEndian
	be.PutUint32(b[8:], uint32(len(b)-record.PrefixSize))
	b[16] = 2
	be.PutUint32(b[23:], uint32(len(values)-1))
	be.PutUint64(b[27:], uint64(baseMs))
	be.PutUint64(b[35:], uint64(baseMs+int64(len(values)-1)))
	for i := 43; i < 57; i++ {
		b[i] = 0xff // no producer
	}
	be.PutUint32(b[57:], uint32(len(values)))
	be.PutUint32(b[17:], crc32.Checksum(b[21:], record.Castagnoli))
	return b
}

// stop ends the log in order.
func (b *bucket) stop() {
	b.t.Helper()
	b.check(b.log.Close(b.t.Context()))
}

// eventually waits for something that the engine does in the background.
func (b *bucket) eventually(what string, cond func() bool) {
	b.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !cond(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			b.t.Fatalf("%s: not in 20 s; the bucket has %d objects", what, len(b.store.Keys()))
		}
	}
}

// count returns how many objects of a kind there are.
func (b *bucket) count(kind manifest.KeyKind, file manifest.FileKind) int {
	n := 0
	for _, key := range b.store.Keys() {
		if k, err := manifest.ParseKey(key); err == nil && k.Kind == kind && k.File == file {
			n++
		}
	}
	return n
}

func (b *bucket) config() history.Config {
	return history.Config{Store: b.store, Now: time.Now}
}

func (b *bucket) reader() *history.Reader {
	b.t.Helper()
	r, err := history.Open(b.t.Context(), b.config())
	b.check(err)
	return r
}

// rolled writes a bucket that has everything: several epochs, log segments, merged segments, and a WAL tail.
func rolled(t *testing.T) *bucket {
	b := newBucket(t)
	b.maint.RoundSlots = 1
	b.maint.Grace = time.Hour
	b.maint.Merges = rollup.MergeConfig{Age: 1, MinInputs: 4}
	b.start()
	b.topic("orders", 2)
	b.topic("quiet", 1)
	for i := range 30 {
		b.put("orders/0", 10, 9_000)
		b.put("orders/1", 3, 100)
		if i%7 == 0 {
			b.put("quiet/0", 1, 50)
		}
	}
	b.eventually("log segments and merged segments", func() bool {
		b.put("orders/0", 10, 9_000) // which wakes the maintenance
		b.put("orders/1", 3, 100)
		return b.count(manifest.KeySegmentFile, manifest.FileLog) >= 2 && b.count(manifest.KeyMerged, "") >= 1
	})
	b.start() // after a crash
	b.maint.RoundSlots = 1 << 20
	b.put("orders/0", 5, 300_000)
	b.put("quiet/0", 2, 50)
	b.stop()
	b.start()
	b.put("orders/0", 4, 1000)
	b.put("orders/1", 4, 1000)
	return b
}
