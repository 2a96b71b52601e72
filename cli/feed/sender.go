package feed

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

const (
	// lineChunks bounds the memory of a stream of lines: 32 MiB of lines, and at most as much of bookkeeping.
	lineChunks = 128
	// layoutChunks bounds the records of other layouts; their bytes are bounded by the client.
	layoutChunks = 8192
	// maxKept is the largest buffer that is used again.
	maxKept = 4 * chunkBytes
	// maxFailures is how many ranges of failed records are kept; more are only counted.
	maxFailures = 100
	// readAhead is how many chunks are read before they can be produced.
	readAhead = 4
)

// Producer is the part of kgo.Client that sends records.
type Producer interface {
	Produce(ctx context.Context, r *kgo.Record, promise func(*kgo.Record, error))
	Flush(ctx context.Context) error
	Close()
}

// Failure is a run of records with consecutive numbers that failed for the same reason.
type Failure struct {
	First, Last Number
	Err         error
}

// Result says what became of the records.
type Result struct {
	Unit     string // what a record is called: "line" or "record"
	Read     int64  // records given to the client
	Acked    int64  // records acknowledged, as the client's acks setting has it
	Bytes    int64  // of the stream, in chunks that are acknowledged whole
	Failed   int64
	Failures []Failure // the first ones
	// FirstMissing is the first record read that was not acknowledged, 0 if all were: all before it were.
	FirstMissing Number
}

// ErrStalled says that no record was acknowledged for as long as Config.Stall.
var ErrStalled = errors.New("no record was acknowledged for too long")

// Sender produces the records of one stream.
type Sender struct {
	client Producer
	cfg    Config
	src    source
	unit   string
	free   chan *chunk // nil entries stand for chunks not yet made

	given, acked atomic.Int64   // records
	bytes        atomic.Int64   // of chunks acknowledged whole
	open         sync.WaitGroup // chunks given to the client
	failing      chan struct{}  // closed at the first failure

	mu       sync.Mutex // guards what follows
	failed   int64
	failures []Failure
	missing  Number
}

// NewSender returns a sender that reads r. It owns the client from now on: Run closes it.
func NewSender(client Producer, r io.Reader, cfg Config) (*Sender, error) {
	src, unit, err := newSource(r, cfg)
	if err != nil {
		return nil, err
	}
	s := &Sender{client: client, cfg: cfg, src: src, unit: unit, failing: make(chan struct{})}
	n := layoutChunks
	if unit == "line" {
		n = lineChunks
	}
	s.free = make(chan *chunk, n)
	for range n {
		s.free <- nil
	}
	return s, nil
}

// Progress returns what is acknowledged so far. It may be called at any time.
func (s *Sender) Progress() (records, bytes int64) { return s.acked.Load(), s.bytes.Load() }

// Run reads and produces until the stream ends, a record is bad, one fails, or ctx ends. Then it waits until the client
// is done with everything that was produced, but after the end of ctx for no longer than grace.
// The error says why it stopped before the stream's end: a BadRecord, the first failure, the reader's error, or the
// cause of ctx's end.
func (s *Sender) Run(ctx context.Context, grace time.Duration) (Result, error) {
	sendCtx, abort := context.WithCancelCause(context.WithoutCancel(ctx))
	defer abort(nil)
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(grace, func() { abort(context.Cause(ctx)) }) })
	defer stop()
	if s.cfg.Stall > 0 {
		go s.watch(sendCtx, abort)
	}

	err := s.produceAll(ctx, sendCtx)
	if ferr := s.client.Flush(sendCtx); ferr != nil && err == nil {
		err = context.Cause(sendCtx)
	}
	s.client.Close() // Fails what is left.
	s.open.Wait()
	return s.result(err)
}

// stallChecks is how often in the time of Stall it is looked whether there was progress.
const stallChecks = 20

// watch aborts a run that has stalled.
func (s *Sender) watch(ctx context.Context, abort context.CancelCauseFunc) {
	tick := time.NewTicker(max(s.cfg.Stall/stallChecks, time.Millisecond))
	defer tick.Stop()
	last, idle := int64(0), 0
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		if acked := s.acked.Load(); acked != last || s.given.Load() == acked {
			last, idle = acked, 0
		} else if idle++; idle > stallChecks {
			abort(ErrStalled)
			return
		}
	}
}

// produceAll hands every record to the client.
func (s *Sender) produceAll(ctx, sendCtx context.Context) error {
	chunks := make(chan *chunk, readAhead)
	var readErr error // Set before chunks is closed.
	quit := make(chan struct{})
	defer close(quit)
	go func() {
		defer close(chunks)
		readErr = s.readAll(chunks, quit)
	}()
	for {
		select { // Stopping goes first.
		case <-s.failing:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		default:
		}
		select {
		case <-s.failing:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-sendCtx.Done():
			return context.Cause(sendCtx)
		case c, ok := <-chunks:
			if !ok {
				return readErr
			}
			s.produce(sendCtx, c)
		}
	}
}

// readAll reads chunks as they come free, until the stream ends or quit is closed.
func (s *Sender) readAll(chunks chan<- *chunk, quit <-chan struct{}) error {
	for {
		var c *chunk
		select {
		case c = <-s.free:
		case <-quit:
			return nil
		}
		if c == nil {
			c = &chunk{}
			c.promise = func(r *kgo.Record, err error) { s.done(c, r, err) }
		}
		switch err := s.src.next(c); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			if _, bad := errors.AsType[*BadRecord](err); bad {
				return err
			}
			return fmt.Errorf("read the input: %w", err)
		}
		select {
		case chunks <- c:
		case <-quit:
			return nil
		}
	}
}

func (s *Sender) produce(ctx context.Context, c *chunk) {
	s.open.Add(1)
	s.given.Add(int64(len(c.records)))
	c.pending.Store(int64(len(c.records)))
	records, promise, now := c.records, c.promise, s.cfg.Now()
	for i := range records {
		r := &records[i]
		if r.Timestamp.IsZero() {
			r.Timestamp = now
		}
		s.client.Produce(ctx, r, promise) // The last one may end the chunk's life at once: c is not touched after it.
	}
}

// done is called by the client once for every record.
func (s *Sender) done(c *chunk, r *kgo.Record, err error) {
	if err != nil {
		c.failed.Store(true)
		s.fail(c.number(r), err)
	} else {
		s.acked.Add(1)
	}
	if c.pending.Add(-1) > 0 {
		return
	}
	if !c.failed.Load() {
		s.bytes.Add(c.raw)
		if cap(c.buf) > maxKept {
			c.buf = nil // Long lines are rare: their memory is not kept.
		}
		s.free <- c
	}
	s.open.Done()
}

func (s *Sender) fail(n Number, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failed++; s.failed == 1 {
		close(s.failing)
	}
	if s.missing == 0 || n < s.missing {
		s.missing = n
	}
	for i := range s.failures {
		f := &s.failures[i]
		if f.Err.Error() == err.Error() && f.First-1 <= n && n <= f.Last+1 {
			f.First, f.Last = min(f.First, n), max(f.Last, n)
			return
		}
	}
	if len(s.failures) < maxFailures {
		s.failures = append(s.failures, Failure{n, n, err})
	}
}

func (s *Sender) result(err error) (Result, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	res := Result{
		Unit: s.unit, Read: s.given.Load(), Acked: s.acked.Load(), Bytes: s.bytes.Load(),
		Failed: s.failed, Failures: s.failures, FirstMissing: s.missing,
	}
	if err == nil && len(s.failures) > 0 {
		err = s.failures[0].Err
	}
	return res, err
}
