package rollup_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/iotest"

	"github.com/tierlog/tierlog/membuf"
	"github.com/tierlog/tierlog/objstore"
	"github.com/tierlog/tierlog/tiered/manifest"
	"github.com/tierlog/tierlog/tiered/rollup"
)

// bodyStore hands the body of the create of one key to a function first.
type bodyStore struct {
	objstore.Store
	key    string
	create func(body objstore.Payload) error
}

func (s *bodyStore) Create(ctx context.Context, key string, body objstore.Payload) (objstore.Version, error) {
	if key == s.key {
		if err := s.create(body); err != nil {
			return "", &objstore.Error{Op: "create", Key: key, Kind: objstore.ErrUnknown, Err: err}
		}
	}
	return s.Store.Create(ctx, key, body)
}

// A store reads a payload as it likes: in pieces, again, from the middle, twice at once, or not to the end.
func TestPayloadsCanBeReadInAnyWay(t *testing.T) {
	r := rand.New(rand.NewPCG(31, 32))
	w := newWorld()
	for range 6 {
		w.flush(t, r, 1, parts(4), func() int { return r.IntN(400 << 10) })
	}
	id := parts(4)[2]
	want := joined(w.logs[id])
	read := func(body objstore.Payload) error {
		if body.Size() != int64(len(want)) {
			return errors.New("size")
		}
		if err := iotest.TestReader(body.Reader(), want); err != nil {
			return err
		}
		abandoned := make([]byte, 100)
		if _, err := io.ReadFull(body.Reader(), abandoned); err != nil {
			return err
		}
		back := body.Reader()
		if _, err := io.Copy(io.Discard, back); err != nil {
			return err
		}
		for _, at := range []int64{body.Size() - 10, 3, body.Size() / 2, 0} {
			if _, err := back.Seek(at, io.SeekStart); err != nil {
				return err
			}
			got, err := io.ReadAll(io.LimitReader(back, 1000))
			if err != nil || !bytes.Equal(got, want[at:min(at+1000, body.Size())]) {
				return errors.Join(err, errors.New("other bytes after a seek"))
			}
		}
		if _, err := back.Seek(-1, io.SeekStart); err == nil {
			return errors.New("a seek before the start went through")
		}
		var wg sync.WaitGroup
		errs := make([]error, 3)
		for i := range errs {
			wg.Go(func() {
				got, err := io.ReadAll(body.Reader())
				if err == nil && !bytes.Equal(got, want) {
					err = errors.New("other bytes in one of several readers")
				}
				errs[i] = err
			})
		}
		wg.Wait()
		return errors.Join(errs...)
	}
	pool := membuf.NewPool(64 << 20)
	var kept io.Reader
	s := &bodyStore{Store: w.store, create: func(body objstore.Payload) error {
		kept = body.Reader()
		_, _ = kept.Read(make([]byte, 10))
		return read(body)
	}}
	work := newWorker(t, s, func(c *rollup.Config) { c.Pool = pool })
	p := planOf(t, work, id, w.extents(id, false))
	s.key = p.Outputs(cluster)[0]
	out, err := work.WriteSegment(t.Context(), p, nil)
	if err != nil {
		t.Fatal(err)
	}
	checkSegment(t, w.store, p, out, w.logs[id])
	if live := pool.Live(); live != 0 {
		t.Errorf("%d bytes were not given back", live)
	}
	if _, err := kept.Read(make([]byte, 10)); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("a read after the write gives %v, want an error", err)
	}
}

// Neither passes at the same time, as a hedge makes them, nor attempts that failed midway take more
// memory than one write may.
func TestPayloadMemoryIsBoundedForAllReaders(t *testing.T) {
	r := rand.New(rand.NewPCG(37, 38))
	w := newWorld()
	for range 24 {
		w.flush(t, r, 1, parts(1), func() int { return 900 << 10 })
	}
	id := parts(1)[0]
	pool := membuf.NewPool(64 << 20)
	tries := 0
	s := &bodyStore{Store: w.store, create: func(body objstore.Payload) error {
		passes, part := []io.Reader{body.Reader(), body.Reader(), body.Reader()}, make([]byte, 1<<20)
		for i := range int(body.Size() >> 20) {
			for _, reader := range passes {
				if _, err := io.ReadFull(reader, part); err != nil {
					return err
				}
			}
			if live := pool.Live(); live > rollup.Memory {
				t.Errorf("%d bytes in memory after %d MiB of three passes, want at most %d", live, i+1, rollup.Memory)
			}
			if tries < 5 && i == 9 {
				tries++
				return errors.New("the connection broke")
			}
		}
		return nil
	}}
	work := newWorker(t, s, func(c *rollup.Config) { c.Pool = pool })
	p := planOf(t, work, id, w.extents(id, true))
	s.key = p.Outputs(cluster)[0]
	out, err := work.WriteSegment(t.Context(), p, nil)
	if err != nil {
		t.Fatal(err)
	}
	checkSegment(t, w.store, p, out, w.logs[id])
	if tries != 5 || pool.Live() != 0 {
		t.Errorf("%d attempts failed, %d bytes were not given back", tries, pool.Live())
	}
}

func TestAReadThatFailsEndsTheRun(t *testing.T) {
	r := rand.New(rand.NewPCG(33, 34))
	w := newWorld()
	for range 4 {
		w.flush(t, r, 1, parts(3), func() int { return 80 << 10 })
	}
	away := errors.New("away")
	for fail := 1; ; fail++ {
		var mu sync.Mutex
		reads := 0
		pool := membuf.NewPool(64 << 20)
		work := newWorker(t, w.store, func(c *rollup.Config) {
			c.Pool = pool
			c.Read = func(ctx context.Context, key string, pos int64, p []byte) error {
				mu.Lock()
				reads++
				n := reads
				mu.Unlock()
				if n == fail {
					return away
				}
				_, _, err := w.store.ReadAt(ctx, key, p, pos)
				return err
			}
		})
		in := rollup.MergeInput{Epoch: epoch, Objects: w.objects, ULID: ulidOf(t, work), Alive: all}
		in.ULID[15] = byte(fail)
		m, err := work.Merge(t.Context(), in)
		if live := pool.Live(); live != 0 {
			t.Errorf("%d bytes were not given back", live)
		}
		if fail > reads {
			if err != nil || fail == 1 {
				t.Fatalf("no read failed, %d reads: %v", reads, err)
			}
			check(t, w.store, m, w.logs)
			return
		}
		var in2 *rollup.InputError
		if !errors.Is(err, away) || errors.As(err, &in2) || exists(w.store, in.Output(cluster)) {
			t.Fatalf("read %d failed: %v", fail, err)
		}
	}
}

func TestAnEndedContextEndsTheRun(t *testing.T) {
	r := rand.New(rand.NewPCG(35, 36))
	w := newWorld()
	for range 4 {
		w.flush(t, r, 1, parts(3), func() int { return 80 << 10 })
	}
	ctx, cancel := context.WithCancel(t.Context())
	work := newWorker(t, w.store, func(c *rollup.Config) {
		c.Read = func(context.Context, string, int64, []byte) error { cancel(); return ctx.Err() }
	})
	_, err := work.Merge(ctx, rollup.MergeInput{Epoch: epoch, Objects: w.objects, ULID: manifest.ULID{1}, Alive: all})
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
}
