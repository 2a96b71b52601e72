package feed

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// fakeClient answers records in order, in batches, from another goroutine, reading them only then: memory that is used
// again too early shows as wrong content.
type fakeClient struct {
	batch  int
	answer func(n int, r *kgo.Record) error // n counts from 1
	silent bool                             // never answers until closed

	mu      sync.Mutex
	waiting []pending
	n       int
	stored  []string
	closed  bool
	work    sync.WaitGroup
}

type pending struct {
	ctx     context.Context
	r       *kgo.Record
	promise func(*kgo.Record, error)
}

func (f *fakeClient) Produce(ctx context.Context, r *kgo.Record, promise func(*kgo.Record, error)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.waiting = append(f.waiting, pending{ctx, r, promise})
	if len(f.waiting) == f.batch && !f.silent {
		f.send()
	}
}

// send answers what waits. f.mu is held.
func (f *fakeClient) send() {
	batch := f.waiting
	f.waiting = nil
	previous := make(chan struct{})
	f.work.Go(func() {
		<-previous
		f.mu.Lock()
		defer f.mu.Unlock()
		for _, p := range batch {
			f.n++
			var err error
			if f.answer != nil {
				err = f.answer(f.n, p.r)
			}
			if err == nil {
				f.stored = append(f.stored, string(p.r.Value))
			}
			f.mu.Unlock()
			p.promise(p.r, err)
			f.mu.Lock()
		}
	})
	close(previous)
}

func (f *fakeClient) Flush(ctx context.Context) error {
	f.mu.Lock()
	if !f.silent {
		f.send()
	}
	silent := f.silent
	f.mu.Unlock()
	if silent {
		<-ctx.Done()
		return ctx.Err()
	}
	f.work.Wait()
	return nil
}

func (f *fakeClient) Close() {
	f.mu.Lock()
	batch := f.waiting
	f.waiting, f.closed = nil, true
	f.mu.Unlock()
	f.work.Wait()
	for _, p := range batch {
		p.promise(p.r, kgo.ErrClientClosed)
	}
}

func numbers(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "line number %d\n", i+1)
	}
	return b.String()
}

// orderedClient is a fakeClient whose batches are answered one after the other.
func newFake(batch int) *fakeClient { return &fakeClient{batch: batch} }

func runSender(t *testing.T, f *fakeClient, in io.Reader, cfg Config) (Result, error) {
	t.Helper()
	s, err := NewSender(f, in, cfg)
	if err != nil {
		t.Fatal(err)
	}
	res, err := s.Run(t.Context(), time.Second)
	if !f.closed {
		t.Error("the client was not closed")
	}
	if res.Acked+res.Failed != res.Read {
		t.Errorf("%d acknowledged and %d failed of %d read: something is not accounted for", res.Acked, res.Failed, res.Read)
	}
	return res, err
}

func TestSenderSendsAll(t *testing.T) {
	const n = 300000 // More than all chunks together hold.
	for _, layout := range []string{`%v\n`, `%v{re#[^\n]*#}\n`} {
		n := n
		if layout != `%v\n` {
			n = 3 * layoutChunks
		}
		cfg := testConfig()
		cfg.Layout = layout
		in := numbers(n)
		f := newFake(1)
		f.batch = 1000
		res, err := runSender(t, f, strings.NewReader(in), cfg)
		if err != nil {
			t.Fatal(err)
		}
		if res.Read != int64(n) || res.Acked != int64(n) || res.FirstMissing != 0 || res.Bytes != int64(len(in)) {
			t.Errorf("%s: got %+v", layout, res)
		}
		slices.Sort(f.stored) // The fake's batches run in parallel.
		want := strings.Split(strings.TrimSuffix(in, "\n"), "\n")
		slices.Sort(want)
		compare(t, f.stored, want)
	}
}

func TestSenderStopsAtAFailure(t *testing.T) {
	refused := errors.New("refused")
	f := newFake(10)
	f.answer = func(_ int, r *kgo.Record) error {
		switch string(r.Value) {
		case "line number 20", "line number 21", "line number 25":
			return refused
		case "line number 26":
			return errors.New("another reason")
		}
		return nil
	}
	// The stream never ends by itself: only the failure does.
	in, feeder := io.Pipe()
	t.Cleanup(func() { _ = in.Close() })
	go func() {
		_, _ = io.WriteString(feeder, numbers(1000))
	}()
	res, err := runSender(t, f, in, testConfig())
	if !errors.Is(err, refused) {
		t.Errorf("got %v, want the record's error", err)
	}
	if res.FirstMissing != 20 || res.Failed != 4 {
		t.Errorf("got %+v", res)
	}
	var ranges []string
	for _, fl := range res.Failures {
		ranges = append(ranges, fmt.Sprintf("%d-%d %v", fl.First, fl.Last, fl.Err))
	}
	slices.Sort(ranges)
	want := []string{"20-21 refused", "25-25 refused", "26-26 another reason"}
	if !slices.Equal(ranges, want) {
		t.Errorf("got %q, want %q", ranges, want)
	}
}

func TestSenderStopsAtABadRecord(t *testing.T) {
	cfg := testConfig()
	cfg.KeySeparator = ":"
	f := newFake(1)
	res, err := runSender(t, f, strings.NewReader("a:1\nb:2\nc\nd:4\n"), cfg)
	var bad *BadRecord
	if !errors.As(err, &bad) || bad.Number != 3 || bad.Unit != "line" {
		t.Errorf("got %v", err)
	}
	if res.Acked != 2 || len(f.stored) != 2 {
		t.Errorf("got %+v, stored %q", res, f.stored)
	}
}

func TestSenderFailedReader(t *testing.T) {
	broken := errors.New("disk on fire")
	in, feeder := io.Pipe()
	go func() {
		_, _ = io.WriteString(feeder, "a\nb\n")
		_ = feeder.CloseWithError(broken)
	}()
	f := newFake(1)
	res, err := runSender(t, f, in, testConfig())
	if !errors.Is(err, broken) || res.Acked != 2 {
		t.Errorf("got %+v, %v", res, err)
	}
}

func TestSenderInterrupted(t *testing.T) {
	for _, silent := range []bool{false, true} {
		t.Run(fmt.Sprintf("silent=%v", silent), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				in, feeder := io.Pipe()
				go func() {
					_, _ = io.WriteString(feeder, numbers(25))
				}()
				f := newFake(10)
				f.silent = silent
				s, err := NewSender(f, in, testConfig())
				if err != nil {
					t.Fatal(err)
				}
				interrupted := errors.New("interrupted")
				ctx, cancel := context.WithCancelCause(t.Context())
				go func() {
					synctest.Wait() // All 25 are read and given to the client.
					cancel(interrupted)
				}()
				start := time.Now()
				res, err := s.Run(ctx, 5*time.Second)
				_ = feeder.Close()
				if !errors.Is(err, interrupted) || res.Read != 25 {
					t.Errorf("got %+v, %v", res, err)
				}
				took := time.Since(start)
				if !silent && (res.Acked != 25 || res.FirstMissing != 0 || took != 0) {
					t.Errorf("got %+v after %v: what was sent must be waited for", res, took)
				}
				if silent && (res.Acked != 0 || res.FirstMissing != 1 || took != 5*time.Second) {
					t.Errorf("got %+v after %v: a silent broker must not be waited for longer than the grace", res, took)
				}
			})
		})
	}
}

func TestSenderStalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := testConfig()
		cfg.Stall = time.Minute
		f := newFake(10)
		f.silent = true
		in, feeder := io.Pipe()
		go func() {
			time.Sleep(time.Hour) // Nothing to send is no stall.
			_, _ = io.WriteString(feeder, numbers(3))
		}()
		start := time.Now()
		res, err := runSender(t, f, in, cfg)
		_ = in.Close()
		if !errors.Is(err, ErrStalled) || res.FirstMissing != 1 || res.Failed != 3 {
			t.Errorf("got %+v, %v", res, err)
		}
		if took := time.Since(start) - time.Hour; took < time.Minute || took > time.Minute+10*time.Second {
			t.Errorf("stalled after %v", took)
		}
	})
}

func TestSenderDoesNotAllocatePerRecord(t *testing.T) {
	f := &discard{}
	s, err := NewSender(f, &endless{left: 64 << 20}, testConfig())
	if err != nil {
		t.Fatal(err)
	}
	var res Result
	allocs := testing.AllocsPerRun(1, func() {
		if res.Read == 0 {
			res, err = s.Run(t.Context(), time.Second)
		}
	})
	if err != nil || res.Acked < 500000 {
		t.Fatalf("got %+v, %v", res, err)
	}
	if allocs > float64(res.Acked)/100 {
		t.Errorf("%.0f allocations for %d records", allocs, res.Acked)
	}
}

// discard acknowledges at once.
type discard struct{}

func (*discard) Produce(_ context.Context, r *kgo.Record, promise func(*kgo.Record, error)) {
	promise(r, nil)
}
func (*discard) Flush(context.Context) error { return nil }
func (*discard) Close()                      {}

// endless is a stream of 100-byte lines.
type endless struct{ left int }

var hundred = []byte(strings.Repeat(strings.Repeat("x", 99)+"\n", 1000))

func (e *endless) Read(p []byte) (int, error) {
	if e.left <= 0 {
		return 0, io.EOF
	}
	n := copy(p, hundred)
	e.left -= n
	return n, nil
}

func BenchmarkSender(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		s, err := NewSender(&discard{}, &endless{left: 16 << 20}, testConfig())
		if err != nil {
			b.Fatal(err)
		}
		if _, err := s.Run(b.Context(), time.Second); err != nil {
			b.Fatal(err)
		}
	}
	b.SetBytes(16 << 20)
}
