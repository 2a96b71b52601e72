// Package history reads a bucket without a broker: every record that was ever acknowledged and is not expired, what is
// live and how large it is, and whether all of it is sound. It only reads; a live broker may be at work at the same time.
//
// A partition's records are in its log segments, then in sections of WAL objects and merged segments. [Open] reads what
// says where they are; [Reader.Read] streams them; [Verify] reads everything.
//
// Invariants:
//
//   - Read passes on whole batches in offset order, each once and each with its CRC checked, from the one that holds the
//     offset asked for to the durable end that Open or Reload found, or to a later one.
//   - The WALs are read before the manifest of a partition is: what rollup moves from the one to the other in between is
//     then seen twice, and passed on once; never missed.
//   - Where a named object is gone, a broker has replaced it: what names it is read again. Only when it is still named is
//     that an error.
//   - A damaged object keeps nobody from reading the others. While there is one whose records cannot be told, Read passes
//     on all it can and then fails.
//   - Memory is bounded: a few chunks for each Read or Verify, some sixty bytes for each section of a live object, and for
//     Take and Verify the bucket's listing.
//
// The WAL of an epoch is the unbroken run of its slots before the first missing one or the fence. What a live broker has
// in flight beyond that is not acknowledged to anybody.
package history

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/tierlog/tierlog/cluster"
	"github.com/tierlog/tierlog/objstore"
	"github.com/tierlog/tierlog/tiered/logid"
)

// Errors to decide on.
var (
	// ErrUnknown: there is no such topic or partition.
	ErrUnknown = errors.New("unknown topic or partition")
	// ErrCorrupt: an object is not what its writer wrote, or one that is named is missing.
	ErrCorrupt = errors.New("corrupt object")
)

// Config is what Open needs. Store and Now must be set.
type Config struct {
	Store objstore.Store
	Now   func() time.Time
	// Logger gets what is odd but no error; nil: discard.
	Logger *slog.Logger
	// ChunkBytes is how much is read at a time; 0 means 4 MiB. ReadAhead is how many chunks are read at a time; 0 means 4.
	ChunkBytes int
	ReadAhead  int
}

const (
	defaultChunk     = 4 << 20
	defaultReadAhead = 4
	// lookups is how many small objects are read at a time.
	lookups = 16
)

// Validate names the first field that is not allowed.
func (c *Config) Validate() error {
	switch {
	case c.Store == nil:
		return errors.New("history: Store is nil, want a store")
	case c.Now == nil:
		return errors.New("history: Now is nil, want a clock")
	case c.ChunkBytes < 0:
		return fmt.Errorf("history: ChunkBytes is %d, want at least 0", c.ChunkBytes)
	case c.ReadAhead < 0:
		return fmt.Errorf("history: ReadAhead is %d, want at least 0", c.ReadAhead)
	}
	return nil
}

func (c *Config) setDefaults() {
	if c.ChunkBytes == 0 {
		c.ChunkBytes = defaultChunk
	}
	if c.ReadAhead == 0 {
		c.ReadAhead = defaultReadAhead
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
}

// Reader reads the history of one cluster. All methods may be called concurrently.
type Reader struct {
	cfg  Config
	meta *cluster.Log

	mu   sync.Mutex
	view *view // what is live; replaced by Reload, never changed; guarded by mu
}

// Open reads the metadata log, and the manifests and footers of the WALs. Errors: cluster.ErrNoCluster, cluster.ErrNewer,
// cluster.ErrCorrupt, manifest.ErrNewer, wal.ErrNewer, ErrCorrupt, and those of the store.
func Open(ctx context.Context, cfg Config) (*Reader, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg.setDefaults()
	ctx = objstore.WithPurpose(ctx, objstore.PurposeHistory)
	meta, err := cluster.Open(ctx, cluster.Config{Store: cfg.Store, Logger: cfg.Logger, Now: cfg.Now, ReadOnly: true})
	if err != nil {
		return nil, err
	}
	r := &Reader{cfg: cfg, meta: meta}
	return r, r.load(ctx)
}

// Reload sees what brokers have written since Open.
func (r *Reader) Reload(ctx context.Context) error {
	ctx = objstore.WithPurpose(ctx, objstore.PurposeHistory)
	if err := r.meta.Poll(ctx); err != nil {
		return err
	}
	return r.load(ctx)
}

func (r *Reader) load(ctx context.Context) error {
	var bad faults
	v, err := loadView(ctx, &r.cfg, r.meta, bad.note)
	if err != nil {
		return err
	}
	v.faults = bad.errs
	for _, err := range v.faults {
		r.cfg.Logger.WarnContext(ctx, "an object cannot be used; its records are missing", slog.Any("error", err))
	}
	r.mu.Lock()
	r.view = v
	r.mu.Unlock()
	return nil
}

func (r *Reader) current() *view {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.view
}

// ClusterID returns the cluster's identity.
func (r *Reader) ClusterID() logid.ClusterID { return r.meta.ClusterID() }

// Topics returns the topics that exist, sorted by name.
func (r *Reader) Topics() []*cluster.Topic { return r.meta.State().Topics() }

// Partitions returns how many partitions a topic has.
func (r *Reader) Partitions(topic string) (int32, error) {
	t, ok := r.meta.State().Topic(topic)
	if !ok {
		return 0, fmt.Errorf("topic %q: %w", topic, ErrUnknown)
	}
	return int32(len(t.Partitions)), nil
}

// partition finds a partition by name and number.
func (r *Reader) partition(topic string, index int32) (part, error) {
	n, err := r.Partitions(topic)
	if err != nil {
		return part{}, err
	}
	if index < 0 || index >= n {
		return part{}, fmt.Errorf("topic %q has partitions 0 to %d, not %d: %w", topic, n-1, index, ErrUnknown)
	}
	t, ok := r.meta.State().Topic(topic)
	if !ok {
		return part{}, fmt.Errorf("topic %q: %w", topic, ErrUnknown)
	}
	return part{name: topic, id: logid.Partition{Topic: t.ID, Index: index}}, nil
}

// Bounds says which offsets a partition has.
type Bounds struct {
	Start logid.Offset // the first one that is not expired
	End   logid.Offset // the one after the last durable record
}

// Bounds returns the offsets of a partition that can be read.
func (r *Reader) Bounds(ctx context.Context, topic string, index int32) (Bounds, error) {
	p, err := r.partition(topic, index)
	if err != nil {
		return Bounds{}, err
	}
	pl, err := r.plan(ctx, p)
	if err != nil {
		return Bounds{}, err
	}
	return Bounds{Start: logid.Offset(pl.start), End: logid.Offset(pl.end)}, nil
}
