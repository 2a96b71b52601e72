// Package rollup rewrites what the WAL of a broker left behind: many small objects become few merged segments, and a
// partition's records become log segments, exact Apache Kafka files. Plans are pure functions of what is live; a Worker
// carries them out over a bucket. It runs in the broker and in functions alike and knows neither.
//
// Invariants:
//
//   - An output has a name that is never used again, is written create-only, and is declared in a job record first. It
//     is listed by nobody here: a run that fails or dies at any point leaves garbage, never a wrong or missing record.
//   - Every byte that is copied was checked: sections against the checksum in their object's footer, batches against
//     their own. A damaged input gives an InputError that names the object, and no output.
//   - A merged segment holds exactly the sections that the caller calls alive, in offset order, one for each partition and
//     leader epoch. A log segment's .log file is the concatenation of the partition's batches.
//   - The bytes of records held in memory are bounded by Memory for each output being written, whatever its size.
//
// docs/decisions/2026-11-23-merge-policy.md says why the plans are as they are.
package rollup

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/tierlog/tierlog/membuf"
	"github.com/tierlog/tierlog/objstore"
	"github.com/tierlog/tierlog/tiered/logid"
	"github.com/tierlog/tierlog/tiered/manifest"
	"github.com/tierlog/tierlog/tiered/wal"
)

// Config is what a Worker needs.
type Config struct {
	Store   objstore.Store
	Cluster logid.ClusterID
	// Read fills p with the object's bytes from pos on. Nil: Store. A broker serves it from its memory or cache.
	Read func(ctx context.Context, key string, pos int64, p []byte) error
	// Pool is where the memory for copying comes from. Nil: a pool of the worker's own.
	Pool *membuf.Pool
	// Reads is how many reads one output may have in flight (default 8).
	Reads int
	// Backoff says how long to wait between two attempts of a write.
	Backoff objstore.Backoff
	// Owner is who runs the jobs, for people who read the job records.
	Owner string
	// ProducerExpiry is producer.id.expiration.ms: after so long a producer is left out of .snapshot files (default 24 hours).
	ProducerExpiry time.Duration
	// Deadline is how long after its start a job may still be listed (default an hour).
	Deadline time.Duration

	Now     func() time.Time
	Random  io.Reader                     // nil: crypto/rand
	NewULID func() (manifest.ULID, error) // nil: from Now and Random
	Logger  *slog.Logger
}

// Validate names the first field that is not allowed and sets the defaults.
func (c *Config) Validate() error {
	switch {
	case c.Store == nil || c.Now == nil || c.Logger == nil:
		return errors.New("rollup: Store, Now and Logger are required")
	case c.Cluster.IsZero():
		return errors.New("rollup: Cluster is zero")
	case c.Reads < 0 || c.Reads > maxReads:
		return fmt.Errorf("rollup: Reads is %d, allowed are 0 (for %d) to %d", c.Reads, defaultReads, maxReads)
	case c.Backoff.Validate() != nil:
		return fmt.Errorf("rollup: %w", c.Backoff.Validate())
	case c.ProducerExpiry < 0:
		return fmt.Errorf("rollup: ProducerExpiry is %v, allowed are 0 (for %v) and more", c.ProducerExpiry, defaultExpiry)
	case c.Deadline < 0:
		return fmt.Errorf("rollup: Deadline is %v, allowed are 0 (for %v) and more", c.Deadline, defaultDeadline)
	}
	if c.Read == nil {
		c.Read = c.readStore
	}
	if c.Pool == nil {
		c.Pool = membuf.NewPool(Memory)
	}
	if c.Reads == 0 {
		c.Reads = defaultReads
	}
	if c.ProducerExpiry == 0 {
		c.ProducerExpiry = defaultExpiry
	}
	if c.Deadline == 0 {
		c.Deadline = defaultDeadline
	}
	if c.Owner == "" {
		c.Owner = "rollup"
	}
	if c.Random == nil {
		c.Random = rand.Reader
	}
	if c.NewULID == nil {
		c.NewULID = c.newULID
	}
	return nil
}

const (
	defaultReads    = 8
	maxReads        = 64
	defaultDeadline = time.Hour
	defaultExpiry   = 24 * time.Hour
)

func (c *Config) newULID() (manifest.ULID, error) {
	id, err := ulid.New(ulid.Timestamp(c.Now()), c.Random)
	return manifest.ULID(id), err
}

func (c *Config) readStore(ctx context.Context, key string, pos int64, p []byte) error {
	n, _, err := c.Store.ReadAt(ctx, key, p, pos)
	if err == nil && n < len(p) {
		err = fmt.Errorf("%d bytes at %d, expected %d: %w", n, pos, len(p), io.ErrUnexpectedEOF)
	}
	return err
}

// Worker carries plans out. Its methods may be called concurrently.
type Worker struct {
	cfg Config
}

// New returns a worker.
func New(cfg Config) (*Worker, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	return &Worker{cfg: cfg}, nil
}

// NewULID returns a name for an output. It is never used again, also when the output is not written.
func (w *Worker) NewULID() (manifest.ULID, error) {
	id, err := w.cfg.NewULID()
	if err != nil {
		return id, fmt.Errorf("rollup: name an output: %w", err)
	}
	return id, nil
}

// InputError says that an input cannot be used: it is damaged (wal.ErrCorrupt), of a newer format, or gone
// (objstore.ErrNotFound). The run is to be given up; running it again gives the same error.
type InputError struct {
	Key string // the object
	Err error
}

func (e *InputError) Error() string { return fmt.Sprintf("input %s: %v", e.Key, e.Err) }

// Unwrap returns the cause.
func (e *InputError) Unwrap() error { return e.Err }

// inputFailed says what a failed read of an object means: gone or cut short for good, or nothing that a later run
// would not survive.
func inputFailed(key string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, io.ErrUnexpectedEOF):
		return &InputError{Key: key, Err: fmt.Errorf("%w: %w", wal.ErrCorrupt, err)}
	case errors.Is(err, objstore.ErrNotFound), errors.Is(err, wal.ErrCorrupt), errors.Is(err, wal.ErrNewer):
		return &InputError{Key: key, Err: err}
	default:
		return fmt.Errorf("read %s: %w", key, err)
	}
}
