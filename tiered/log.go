// Package tiered is the log of one broker: record batches go into the hot segment, sealed hot segments into the
// bucket as WAL objects, and readers get them from memory, from cached blocks of bucket objects, or from the bucket.
//
// Invariants:
//
//   - A partition's offsets are assigned under its lock, and its batches enter the WAL in that order.
//   - The high watermark covers only batches whose WAL object, and every earlier slot, is durable in the bucket.
//     Nothing at or above it is ever returned to a reader.
//   - A Commit succeeds only after the high watermark of every partition it wrote to covers its batches (acks=all),
//     or after the local file has them (acks=1).
//   - When a slot is lost to a fence, every commit in that slot and after it fails, no later one succeeds, and the
//     log serves no reads.
//   - Extents of a partition are sorted and do not overlap; together with its log segments they cover every record
//     between the log start and the high watermark.
//
// Ownership: a Partition's fields belong to its mutex, the flush pipeline's to flusher.mu, the list of live objects to
// Log.objMu. Locks are taken in the order Partition.mu, flusher.mu; none is held across I/O.
package tiered

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tierlog/tierlog/cache"
	"github.com/tierlog/tierlog/membuf"
	"github.com/tierlog/tierlog/objstore"
	"github.com/tierlog/tierlog/tiered/logid"
)

// Errors that callers decide on.
var (
	// ErrFenced: another broker process took this log over. It serves nothing any more.
	ErrFenced = errors.New("log fenced by another broker")
	// ErrClosed: the log or partition was closed in order.
	ErrClosed = errors.New("log closed")
	// ErrOutOfRange: the offset is below the log start or beyond the high watermark.
	ErrOutOfRange = errors.New("offset out of range")
	// ErrStorage: the bytes of this partition cannot be read now: a missing or damaged object, or the bucket is away.
	ErrStorage = errors.New("storage error")
)

// BlockSize is the unit of cached reads in bytes: one ranged GET each.
const BlockSize = 4 << 20

// Config is what a log needs. Zero fields get the defaults that are named.
type Config struct {
	Store   objstore.Store
	Cluster logid.ClusterID
	Epoch   logid.Epoch // this process's broker epoch

	// DataDir holds the local files of the hot segment, for acks=1. Empty: acks=1 waits for the bucket.
	DataDir string
	Flush   FlushConfig

	Pool      *membuf.Pool
	Ingest    *membuf.Budget // what the buffers of produce requests are charged to
	TailBytes int64          // durable batches kept in memory for readers (default 256 MiB)
	Cache     *cache.Cache[BlockID, *membuf.Buf]

	ProducerExpiry time.Duration // producer.id.expiration.ms (default 24 h)
	Maintenance    MaintenanceConfig

	Now     func() time.Time
	Logger  *slog.Logger
	Metrics *Metrics // may be nil
}

// FlushConfig says when the hot segment is sealed.
type FlushConfig struct {
	MaxBytes int64 // flush.max.bytes: seal at this size (default 8 MiB)
	// Interval is how long batches gather before a flush while no full one is due. Zero means group commit: a flush
	// starts as soon as none is in flight, as suits a directory.
	Interval time.Duration
	// PutsPerSecond bounds flushes that are not full (a cost setting); 0 is unlimited. Burst is how many may follow
	// each other at once after a quiet time.
	PutsPerSecond float64
	Burst         int
	MaxInFlight   int // PUTs in flight (default 4)
}

func (c *Config) setDefaults() error {
	if c.Store == nil || c.Pool == nil || c.Ingest == nil || c.Cache == nil || c.Logger == nil || c.Now == nil {
		return errors.New("tiered: Store, Pool, Ingest, Cache, Logger and Now are required")
	}
	def := func(v *int64, d int64) {
		if *v <= 0 {
			*v = d
		}
	}
	def(&c.TailBytes, 256<<20)
	def(&c.Flush.MaxBytes, 8<<20)
	if c.Flush.MaxInFlight <= 0 {
		c.Flush.MaxInFlight = 4
	}
	if c.Flush.Burst <= 0 {
		c.Flush.Burst = 1
	}
	if c.ProducerExpiry <= 0 {
		c.ProducerExpiry = 24 * time.Hour
	}
	c.Maintenance.setDefaults()
	return nil
}

// BlockID names one block of one bucket object in the cache.
type BlockID struct {
	Object uint64 // process-wide number of the object, see source
	Block  int64
}

// Log is one broker's log. Open it, then OpenPartition what the broker leads.
type Log struct {
	cfg   Config
	flush *flusher
	local *localFiles // nil without a data dir

	mu    sync.RWMutex
	parts map[logid.Partition]*Partition // owned by mu

	objMu  sync.Mutex
	epochs []*epochLog // live WALs, oldest first, the last is this broker's own; owned by objMu

	recovered map[logid.Partition]*recoveredPartition // state found at start, until its partition is opened; owned by mu
	indexed   chan struct{}                           // closed when the footers of all live objects are in the extents
	damaged   atomic.Int64                            // live objects whose footers cannot be read

	tail     tailMemory // owned by flusher.pubMu
	segments *segmentIndex
	maint    *maintainer

	ctx    context.Context // ends with Close: what background work runs under
	cancel context.CancelFunc
	tasks  sync.WaitGroup

	dirLock *os.File // lock on the data dir

	failOnce sync.Once
	failed   chan struct{} // closed when the log is fenced
	failure  atomic.Pointer[error]
}

// Failed is closed when the log was fenced; Err then says why.
func (l *Log) Failed() <-chan struct{} { return l.failed }

// Err returns why the log serves nothing any more, or nil.
func (l *Log) Err() error {
	if p := l.failure.Load(); p != nil {
		return *p
	}
	return nil
}

// fail ends the log for good.
func (l *Log) fail(err error) {
	l.failOnce.Do(func() {
		l.failure.Store(&err)
		close(l.failed)
		l.mu.RLock()
		defer l.mu.RUnlock()
		for _, p := range l.parts {
			p.wake()
		}
	})
}

// Partition returns an open partition, or nil.
func (l *Log) Partition(id logid.Partition) *Partition {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.parts[id]
}

// Partitions returns all open partitions, in no order.
func (l *Log) Partitions() []*Partition {
	l.mu.RLock()
	defer l.mu.RUnlock()
	out := make([]*Partition, 0, len(l.parts))
	for _, p := range l.parts {
		out = append(out, p)
	}
	return out
}

// OpenPartition makes a partition writable and readable under the given leader epoch, with the state that recovery
// found. It does no I/O. topic is its topic's name, for keys and messages.
func (l *Log) OpenPartition(id logid.Partition, topic string, leaderEpoch int32, s Settings) *Partition {
	l.mu.Lock()
	defer l.mu.Unlock()
	if p := l.parts[id]; p != nil {
		p.settings.Store(&s)
		return p
	}
	p := &Partition{log: l, id: id, topic: topic, leaderEpoch: leaderEpoch}
	p.settings.Store(&s)
	if r := l.recovered[id]; r != nil {
		p.restore(r)
		delete(l.recovered, id)
	}
	p.beginEpoch(leaderEpoch)
	l.parts[id] = p
	return p
}

// ClosePartition forgets a partition whose topic was deleted: waiting fetches wake, later calls fail with ErrClosed.
// Its records become garbage for maintenance.
func (l *Log) ClosePartition(id logid.Partition) {
	l.mu.Lock()
	p := l.parts[id]
	delete(l.parts, id)
	l.mu.Unlock()
	if p != nil {
		p.close()
		l.maint.dropped(p)
	}
}

// Flush seals what is pending and returns when everything appended before the call is durable.
func (l *Log) Flush(ctx context.Context) error {
	if err := l.flush.drain(ctx); err != nil {
		return fmt.Errorf("flush: %w", err)
	}
	return nil
}

// Close stops the log in order: flush, a last checkpoint, and the end of all background work. Appends that come
// later fail with ErrClosed.
func (l *Log) Close(ctx context.Context) error {
	err := l.Flush(ctx)
	if err == nil && l.Err() == nil && l.ctx.Err() == nil {
		err = l.maint.checkpointNow(ctx)
	}
	late := l.flush.stop()
	l.cancel()
	l.tasks.Wait()
	defer l.unlock()
	if l.local != nil {
		// Unless all is in the bucket, the files are what the next start finishes the epoch with.
		err = errors.Join(err, l.local.close(err == nil && l.Err() == nil && late == 0))
	}
	return err
}
