package tiered

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/tierlog/tierlog/objstore"
	"github.com/tierlog/tierlog/objstore/mem"
	"github.com/tierlog/tierlog/tiered/logid"
	"github.com/tierlog/tierlog/tiered/manifest"
	"github.com/tierlog/tierlog/tiered/rollup"
	"github.com/tierlog/tierlog/tiered/wal"
)

// until waits for a condition that another goroutine brings about.
func until(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !cond(); runtime.Gosched() {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}

// outcome waits for a commit.
func outcome(t *testing.T, done chan error) error {
	t.Helper()
	select {
	case err := <-done:
		return err
	case <-time.After(10 * time.Second):
		t.Fatal("the commit is never done")
		return nil
	}
}

// hooked is a bucket whose creates and lists tests step into; an error that a hook returns takes the place of the call.
type hooked struct {
	*mem.Store
	create func(context.Context, manifest.Key) error
	list   func() error
}

func (s *hooked) Create(ctx context.Context, key string, body objstore.Payload) (objstore.Version, error) {
	if k, err := manifest.ParseKey(key); err == nil && s.create != nil {
		if err := s.create(ctx, k); err != nil {
			return "", err
		}
	}
	return s.Store.Create(ctx, key, body)
}

func (s *hooked) List(ctx context.Context, prefix, after string, limit int) (objstore.Page, error) {
	if s.list != nil {
		if err := s.list(); err != nil {
			return objstore.Page{}, err
		}
	}
	return s.Store.List(ctx, prefix, after, limit)
}

func walKey(s logid.Slot) string {
	return manifest.Key{Kind: manifest.KeyWAL, Cluster: testCluster, Epoch: 1, Slot: s}.String()
}

func TestBatchIsListedForTheSealBeforeTheLocalFileTakesIt(t *testing.T) {
	cfg := testConfig(mem.New(), 1)
	cfg.DataDir = t.TempDir()
	l := mustOpen(t, cfg)
	p := openPart(l, 0)
	// A seal rotates the local files first. A batch that is in a file by then, but not listed, would miss the flight
	// after which the file is removed.
	l.local.mu.Lock()
	appended := make(chan chan error)
	go func() {
		_, done, _ := put(t, p, AcksLocal, sent{1, 100, -1, -1})
		appended <- done
	}()
	listed := func() bool {
		l.flush.mu.Lock()
		defer l.flush.mu.Unlock()
		return l.flush.pending > 0
	}
	for end := time.Now().Add(2 * time.Second); !listed() && time.Now().Before(end); {
		runtime.Gosched()
	}
	ok := listed()
	l.local.mu.Unlock()
	if err := outcome(t, <-appended); err != nil {
		t.Fatal(err)
	}
	if !ok {
		t.Fatal("the local file comes before the list of the next seal")
	}
}

func TestLocalFailureOfAClosedPartitionIsNoSuccess(t *testing.T) {
	cfg := testConfig(stuck{mem.New()}, 1)
	cfg.DataDir = t.TempDir()
	l := mustOpen(t, cfg)
	defer kill(l)
	p := openPart(l, 0)
	b, buf := mkBatch(l, 1, 100, -1, -1)
	defer buf.Release()
	if _, err := p.Append(b, buf, AcksNone, NewCommit(func(error) {})); err != nil {
		t.Fatal(err)
	}
	p.close()
	done := make(chan error, 1)
	c := NewCommit(func(err error) { done <- err })
	l.settle(localBatch{id: p.id, batch: b, buf: buf, commit: c})
	if err := outcome(t, done); err == nil {
		t.Fatal("acknowledged, though neither the disk nor the bucket has it")
	}
}

func TestLocalFileKeepsItsFramesAfterAFailedWrite(t *testing.T) {
	dir := t.TempDir()
	l := mustOpen(t, testConfig(mem.New(), 1))
	w := localWriter{f: &localFiles{dir: dir, log: slog.New(slog.DiscardHandler)}}
	defer w.closeFile()
	group := func(base int64) []localBatch {
		b, buf := mkBatch(l, 1, 100, -1, -1)
		b.SetOffsets(base, 1)
		return []localBatch{{id: logid.Partition{Topic: logid.TopicID{1}}, batch: b, buf: buf}}
	}
	if err := w.write(group(0)); err != nil {
		t.Fatal(err)
	}
	_ = w.file.Close() // the disk goes away for one write, and the attempt to repair the file fails too
	if err := w.write(group(1)); err == nil {
		t.Fatal("wrote to a closed file")
	}
	if err := w.write(group(2)); err != nil {
		t.Fatal(err)
	}
	got, err := readLocal(dir)
	if err != nil || len(got) != 2 || got[0].batch.BaseOffset() != 0 || got[1].batch.BaseOffset() != 2 {
		t.Fatalf("%d batches are left of 2 that were acknowledged, %v", len(got), err)
	}
}

func TestMergesWaitForTheFirstCheckpoint(t *testing.T) {
	store := mem.New()
	l := mustOpen(t, testConfig(store, 1))
	p := openPart(l, 0)
	l.Opened()
	mustPut(t, p, AcksAll, 1, 100)
	mustPut(t, p, AcksAll, 1, 100)
	round(t, l)
	for range 20 {
		mustPut(t, p, AcksAll, 1, 100)
	}
	kill(l)

	bad := &hooked{Store: store, list: func() error {
		return &objstore.Error{Op: "list", Kind: objstore.ErrUnavailable, Err: errors.New("away")}
	}}
	cfg := testConfig(bad, 2)
	cfg.Maintenance.Merges = rollup.MergeConfig{MinInputs: 2, Age: time.Nanosecond, Adopt: 1 << 30}
	l2 := mustOpen(t, cfg, 1)
	openPart(l2, 0)
	if err := l2.maint.do(t.Context(), l2.maint.start); err == nil {
		t.Fatal("the start of maintenance did not fail")
	}
	l2.Opened()
	// Nothing new was written: but what this broker knows must be written down before objects are rewritten.
	if err := l2.waitIndexed(t.Context()); err != nil {
		t.Fatal(err)
	}
	_ = l2.maint.do(t.Context(), l2.maint.round)
	kill(l2)

	l3 := mustOpen(t, testConfig(store, 3), 1, 2)
	p3 := openPart(l3, 0)
	l3.Opened()
	wantBases(t, readAll(t, p3, 0, 1000), 22, 1)
}

func TestFailedCheckpointIsWrittenInTheNextRound(t *testing.T) {
	fail := true
	store := &hooked{Store: mem.New()}
	store.create = func(_ context.Context, k manifest.Key) error {
		if k.Kind == manifest.KeyCheckpoint && fail {
			fail = false
			return &objstore.Error{Op: "create", Kind: objstore.ErrInvalid, Err: errors.New("refused")}
		}
		return nil
	}
	l := mustOpen(t, testConfig(store, 1))
	p := openPart(l, 0)
	l.Opened()
	mustPut(t, p, AcksAll, 1, 100)
	until(t, "maintenance knows of the flush", func() bool {
		l.maint.mu.Lock()
		defer l.maint.mu.Unlock()
		return l.maint.slots == 1
	})
	if err := l.maint.do(t.Context(), l.maint.round); err == nil {
		t.Fatal("the checkpoint did not fail")
	}
	round(t, l)
	if m := l.own().m; m == nil || m.Checkpoint == nil {
		t.Fatal("no checkpoint after a round that followed a failed one")
	}
}

func TestDamagedNewestObjectIsAStorageError(t *testing.T) {
	store := mem.New()
	l := mustOpen(t, testConfig(store, 1))
	p := openPart(l, 0)
	l.Opened()
	for range 3 {
		mustPut(t, p, AcksAll, 1, 100)
	}
	round(t, l)
	kill(l)
	if err := store.Delete(t.Context(), []string{walKey(2)}); err != nil {
		t.Fatal(err)
	}
	l2 := mustOpen(t, testConfig(store, 2), 1)
	p2 := openPart(l2, 0)
	l2.Opened()
	for range 2 {
		var out Slices
		if o, err := p2.Read(t.Context(), ReadRequest{Offset: 2, MaxBytes: 1000}, &out); !errors.Is(err, ErrStorage) {
			t.Fatalf("%d bytes and %v at an offset below the high watermark %d that cannot be read", out.Size, err, o.HighWatermark)
		}
		if _, err := p2.Read(t.Context(), ReadRequest{Offset: 1, MaxBytes: 1000}, &out); err != nil || out.Size != 161 {
			t.Fatalf("%d bytes, %v: a read passed over the hole", out.Size, err)
		}
		out.Release()
		mustPut(t, p2, AcksAll, 1, 100) // what follows in memory must not hide the hole
	}
}

func TestFencedWhileSealingFailsEveryCommit(t *testing.T) {
	cfg := testConfig(mem.New(), 1)
	cfg.Flush.Interval = time.Hour
	l := mustOpen(t, cfg)
	p, q := openPart(l, 0), openPart(l, 1)
	_, done1, err1 := put(t, p, AcksAll, sent{1, 100, -1, -1})
	_, done2, err2 := put(t, q, AcksAll, sent{1, 100, -1, -1})
	if err1 != nil || err2 != nil {
		t.Fatal(err1, err2)
	}
	q.mu.Lock() // the seal has taken p's batch and waits for q's
	l.flush.mu.Lock()
	l.flush.forced = true
	l.flush.mu.Unlock()
	l.flush.wake()
	until(t, "p's batch is taken", func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.pending == nil
	})
	go func() {
		l.flush.pubMu.Lock()
		defer l.flush.pubMu.Unlock()
		l.flush.abandon(ErrFenced)
	}()
	<-l.Failed()
	q.mu.Unlock()
	if err := outcome(t, done1); !errors.Is(err, ErrFenced) {
		t.Fatalf("first partition: %v", err)
	}
	if err := outcome(t, done2); !errors.Is(err, ErrFenced) {
		t.Fatalf("second partition: %v", err)
	}
	until(t, "all buffers are released", func() bool { return cfg.Pool.Live() == 0 })
}

func TestFencedLogKeepsBuffersThatAreBeingWritten(t *testing.T) {
	store := &hooked{Store: mem.New()}
	first, second, entered := make(chan struct{}), make(chan struct{}), make(chan struct{})
	store.create = func(_ context.Context, k manifest.Key) error {
		switch {
		case k.Kind == manifest.KeyWAL && k.Slot == 0:
			<-first
		case k.Kind == manifest.KeyWAL && k.Slot == 1:
			close(entered)
			<-second
		}
		return nil
	}
	fence := wal.EncodeFence(wal.Header{Cluster: testCluster, Epoch: 1, Slot: 0, Nonce: 1}, 2)
	if _, err := store.Store.Create(t.Context(), walKey(0), objstore.Bytes(fence)); err != nil {
		t.Fatal(err)
	}
	cfg := testConfig(store, 1)
	cfg.Flush.MaxBytes = 1
	l := mustOpen(t, cfg)
	p := openPart(l, 0)
	_, done1, _ := put(t, p, AcksAll, sent{1, 100, -1, -1})
	until(t, "the first batch is sealed", func() bool {
		l.flush.mu.Lock()
		defer l.flush.mu.Unlock()
		return l.flush.nextSlot == 1 && l.flush.pending == 0
	})
	_, done2, _ := put(t, p, AcksAll, sent{1, 100, -1, -1})
	<-entered
	close(first)
	if err := outcome(t, done1); !errors.Is(err, ErrFenced) {
		t.Fatal(err)
	}
	if err := outcome(t, done2); !errors.Is(err, ErrFenced) {
		t.Fatal(err)
	}
	live := cfg.Pool.Live()
	close(second)
	if live == 0 {
		t.Fatal("the memory of a write in flight was given back")
	}
	until(t, "the buffer is released", func() bool { return cfg.Pool.Live() == 0 })
}

func TestFenceFoundByMaintenanceFailsPendingCommits(t *testing.T) {
	cfg := testConfig(mem.New(), 1)
	cfg.Flush.Interval = time.Hour
	l := mustOpen(t, cfg)
	p, q := openPart(l, 0), openPart(l, 1)
	_, done1, err1 := put(t, p, AcksAll, sent{1, 100, -1, -1})
	_, done2, err2 := put(t, q, AcksAll, sent{1, 100, -1, -1})
	if err1 != nil || err2 != nil {
		t.Fatal(err1, err2)
	}
	l.ClosePartition(q.id) // its topic is deleted: what is pending must still get an answer
	l.maint.logged(t.Context(), func(context.Context) error { return ErrFenced })
	for _, done := range []chan error{done1, done2} {
		if err := outcome(t, done); !errors.Is(err, ErrFenced) {
			t.Fatal(err)
		}
	}
}

func TestOrderlyStopKeepsTheLocalFileOfALateBatch(t *testing.T) {
	store := &hooked{Store: mem.New()}
	cfg := testConfig(store, 1)
	cfg.DataDir = t.TempDir()
	cfg.Flush.Interval = time.Hour
	l := mustOpen(t, cfg)
	p := openPart(l, 0)
	l.Opened()
	mustPut(t, p, AcksLocal, 1, 100)
	store.create = func(_ context.Context, k manifest.Key) error {
		if k.Kind == manifest.KeyCheckpoint {
			store.create = nil
			mustPut(t, p, AcksLocal, 1, 100) // acknowledged after the last flush of the stop
		}
		return nil
	}
	_ = l.Close(t.Context())
	cfg2 := testConfig(store, 2)
	cfg2.DataDir = cfg.DataDir
	l2 := mustOpen(t, cfg2, 1)
	p2 := openPart(l2, 0)
	l2.Opened()
	wantBases(t, readAll(t, p2, 0, 1000), 2, 1)
}

func TestRepeatedAcksOneBatchWaitsForItsOriginal(t *testing.T) {
	l := mustOpen(t, testConfig(stuck{mem.New()}, 1)) // without a data dir, acks=1 waits for the bucket
	defer kill(l)
	p := openPart(l, 0)
	for range 2 {
		_, done, err := put(t, p, AcksLocal, sent{1, 100, 7, 0})
		if err != nil {
			t.Fatal(err)
		}
		select {
		case err := <-done:
			t.Fatalf("acknowledged with %v while nothing holds the batch", err)
		default:
		}
	}
}

func TestDamagedOrphanBeyondTheEndDoesNotStopRecovery(t *testing.T) {
	store := mem.New()
	l := mustOpen(t, testConfig(store, 1))
	p := openPart(l, 0)
	for range 3 {
		mustPut(t, p, AcksAll, 1, 100)
	}
	kill(l)
	if _, err := store.Create(t.Context(), walKey(5), objstore.Bytes([]byte(strings.Repeat("x", 500)))); err != nil {
		t.Fatal(err)
	}
	l2 := mustOpen(t, testConfig(store, 2), 1)
	wantBases(t, readAll(t, openPart(l2, 0), 0, 1000), 3, 1)
}

func TestReplayOfTheLocalDiskAdoptsNoOrphans(t *testing.T) {
	store := &hooked{Store: mem.New()}
	entered := make(chan logid.Slot, 10)
	store.create = func(ctx context.Context, k manifest.Key) error {
		if k.Kind == manifest.KeyWAL && k.Slot != 1 {
			entered <- k.Slot
			<-ctx.Done()
			return &objstore.Error{Op: "create", Kind: objstore.ErrUnknown, Err: ctx.Err()}
		}
		return nil
	}
	cfg := testConfig(store, 1)
	cfg.DataDir = t.TempDir()
	cfg.Flush.MaxBytes = 1
	l := mustOpen(t, cfg)
	p, q := openPart(l, 0), openPart(l, 1)
	_, _, err := put(t, p, AcksAll, sent{1, 100, 42, 0}) // slot 0: never arrives
	if err != nil {
		t.Fatal(err)
	}
	<-entered
	if _, _, err = put(t, p, AcksAll, sent{1, 100, 42, 1}); err != nil { // slot 1: arrives
		t.Fatal(err)
	}
	until(t, "slot 1 is in the bucket", func() bool {
		_, err := store.Head(t.Context(), walKey(1))
		return err == nil
	})
	mustPut(t, q, AcksLocal, 1, 100)
	kill(l)

	cfg2 := testConfig(store.Store, 2)
	cfg2.DataDir = cfg.DataDir
	l2 := mustOpen(t, cfg2, 1)
	p2, q2 := openPart(l2, 0), openPart(l2, 1)
	l2.Opened()
	wantBases(t, readAll(t, q2, 0, 1000), 1, 1)
	// The producer got no answer and sends both again: they must come out in order, once.
	for seq := range int32(2) {
		base, done, err := put(t, p2, AcksAll, sent{1, 100, 42, seq})
		if err == nil {
			err = outcome(t, done)
		}
		if err != nil || base != int64(seq) {
			t.Fatalf("sequence %d: offset %d, %v", seq, base, err)
		}
	}
	wantBases(t, readAll(t, p2, 0, 1000), 2, 1)
	kill(l2)
	cfg3 := testConfig(store.Store, 3)
	cfg3.DataDir = cfg.DataDir
	l3 := mustOpen(t, cfg3, 1, 2)
	p3, q3 := openPart(l3, 0), openPart(l3, 1)
	l3.Opened()
	wantBases(t, readAll(t, p3, 0, 1000), 2, 1)
	wantBases(t, readAll(t, q3, 0, 1000), 1, 1)
}

func TestLocalFilesOfAnEpochThatIsLongOverAreSetAside(t *testing.T) {
	store := mem.New()
	cfg := testConfig(stuck{store}, 1)
	cfg.DataDir = t.TempDir()
	l := mustOpen(t, cfg)
	mustPut(t, openPart(l, 0), AcksLocal, 1, 100)
	kill(l)

	l2 := mustOpen(t, testConfig(store, 2), 1) // another machine takes over
	p2 := openPart(l2, 0)
	l2.Opened()
	mustPut(t, p2, AcksAll, 1, 100)
	round(t, l2)
	kill(l2)

	cfg3 := testConfig(store, 3)
	cfg3.DataDir = cfg.DataDir
	mustOpen(t, cfg3, 1, 2)
	hot, err := filepath.Glob(filepath.Join(cfg.DataDir, "hot", "*.set-aside"))
	if err != nil || len(hot) != 1 {
		t.Fatalf("set aside: %v, %v; records that only this disk had must not be passed over in silence", hot, err)
	}
}
