package objtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"testing"

	"github.com/tierlog/tierlog/objstore"
)

// Conformance runs the contract of objstore.Store against a driver. open must return an empty store (for a bucket
// that is shared: under a prefix of its own) and register its own clean-up; the suite closes it.
func Conformance(t *testing.T, open func(t *testing.T) objstore.Store) {
	for _, c := range []struct {
		name string
		test func(*testing.T, objstore.Store)
	}{
		{"create", testCreate},
		{"create-concurrently", testCreateConcurrently},
		{"swap", testSwap},
		{"swap-concurrently", testSwapConcurrently},
		{"swap-counter", testSwapCounter},
		{"read-ranges", testReadRanges},
		{"read-suffix", testReadSuffix},
		{"read-missing", testReadMissing},
		{"read-during-swaps", testReadDuringSwaps},
		{"large-payload", testLargePayload},
		{"payload-edges", testPayloadEdges},
		{"put", testPut},
		{"put-concurrently", testPutConcurrently},
		{"replace", testReplace},
		{"delete", testDelete},
		{"delete-many", testDeleteMany},
		{"create-after-delete", testCreateAfterDelete},
		{"list-order", testListOrder},
		{"list-paging", testListPaging},
		{"list-after-write", testListAfterWrite},
		{"odd-keys", testOddKeys},
		{"invalid-keys", testInvalidKeys},
		{"cancelled", testCancelled},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := open(t)
			defer func() {
				if err := s.Close(); err != nil {
					t.Errorf("close: %v", err)
				}
			}()
			c.test(t, s)
		})
	}
}

func testCreate(t *testing.T, s objstore.Store) {
	ctx := t.Context()
	v, err := s.Create(ctx, "a/b/c", objstore.Bytes([]byte("one")))
	noError(t, err)
	if v == "" {
		t.Fatal("create returned an empty version")
	}
	info, err := s.Head(ctx, "a/b/c")
	noError(t, err)
	if info.Key != "a/b/c" || info.Size != 3 || info.Version != v {
		t.Errorf("head = %+v, want key a/b/c, size 3, version %q", info, v)
	}
	if info.Modified.IsZero() {
		t.Error("head has no modification time")
	}
	got, info := readAll(t, s, "a/b/c")
	if string(got) != "one" || info.Version != v || info.Key != "a/b/c" {
		t.Errorf("read %q of %+v, want one, version %q", got, info, v)
	}
	_, err = s.Create(ctx, "a/b/c", objstore.Bytes([]byte("two")))
	wantKind(t, err, objstore.ErrExists)
	wantOp(t, err, "create", "a/b/c")
	if got, info := readAll(t, s, "a/b/c"); string(got) != "one" || info.Version != v {
		t.Errorf("after a refused create: %q, version %q", got, info.Version)
	}
}

const racers = 32

func testCreateConcurrently(t *testing.T, s objstore.Store) {
	for round := range 4 {
		key := fmt.Sprintf("race/%d/slot", round)
		versions, errs := race(func(i int) (objstore.Version, error) {
			return s.Create(t.Context(), key, racerBody(i))
		})
		winner := oneWinner(t, errs, objstore.ErrExists)
		got, info := readAll(t, s, key)
		if want := payload(t, racerBody(winner)); !bytes.Equal(got, want) || info.Version != versions[winner] {
			t.Errorf("round %d: object is not the winner's: %d bytes, version %q", round, len(got), info.Version)
		}
	}
}

func testSwap(t *testing.T, s objstore.Store) {
	ctx := t.Context()
	_, err := s.Swap(ctx, "m", "no-such-version", Body("x"))
	wantKind(t, err, objstore.ErrChanged)
	if _, err := s.Head(ctx, "m"); !errors.Is(err, objstore.ErrNotFound) {
		t.Fatalf("swap of a missing key made it: %v", err)
	}
	v1, err := s.Create(ctx, "m", Body("1"))
	noError(t, err)
	body := Body("22")
	v2, err := s.Swap(ctx, "m", v1, body)
	noError(t, err)
	if v2 == v1 || v2 == "" {
		t.Fatalf("version after swap is %q, before %q", v2, v1)
	}
	got, info := readAll(t, s, "m")
	if !bytes.Equal(got, payload(t, body)) || info.Version != v2 || info.Size != body.Size() {
		t.Errorf("after swap: %q, %+v", got, info)
	}
	_, err = s.Swap(ctx, "m", v1, Body("3"))
	wantKind(t, err, objstore.ErrChanged)
	wantOp(t, err, "swap", "m")
	if got, _ := readAll(t, s, "m"); !bytes.Equal(got, payload(t, body)) {
		t.Errorf("a refused swap changed the object to %q", got)
	}
	noError(t, s.Delete(ctx, []string{"m"}))
	_, err = s.Swap(ctx, "m", v2, Body("4"))
	wantKind(t, err, objstore.ErrChanged)
}

func testSwapConcurrently(t *testing.T, s objstore.Store) {
	v, err := s.Create(t.Context(), "m", Body("start"))
	noError(t, err)
	for round := range 4 {
		versions, errs := race(func(i int) (objstore.Version, error) {
			return s.Swap(t.Context(), "m", v, racerBody(round*racers+i))
		})
		winner := oneWinner(t, errs, objstore.ErrChanged)
		got, info := readAll(t, s, "m")
		if want := payload(t, racerBody(round*racers+winner)); !bytes.Equal(got, want) || info.Version != versions[winner] {
			t.Errorf("round %d: object is not the winner's: %d bytes, version %q", round, len(got), info.Version)
		}
		v = versions[winner]
	}
}

// testSwapCounter increments a number by read-modify-swap from several writers: no increment may be lost.
func testSwapCounter(t *testing.T, s objstore.Store) {
	const writers, each = 4, 8
	_, err := s.Create(t.Context(), "n", objstore.Bytes(counterBody(0)))
	noError(t, err)
	errs := make(chan error, writers)
	for range writers {
		go func() {
			errs <- func() error {
				for range each {
					if err := increment(t.Context(), s, "n"); err != nil {
						return err
					}
				}
				return nil
			}()
		}()
	}
	for range writers {
		noError(t, <-errs)
	}
	got, _ := readAll(t, s, "n")
	if n := counterValue(got); n != writers*each {
		t.Errorf("counter is %d, want %d", n, writers*each)
	}
}

func increment(ctx context.Context, s objstore.Store, key string) error {
	for {
		data, info, err := objstore.ReadAll(ctx, s, key, 1<<10)
		if err != nil {
			return err
		}
		out, _, err := objstore.Replace(ctx, s, key, info.Version, objstore.Bytes(counterBody(counterValue(data)+1)))
		switch {
		case out == objstore.Mine:
			return nil
		case out == objstore.Unknown && !errors.Is(err, objstore.ErrBusy):
			return err
		}
	}
}

func counterBody(n int) []byte { return fmt.Appendf(nil, "%s %d", nonce(), n) }

func counterValue(b []byte) (n int) {
	_, _ = fmt.Sscanf(string(b[33:]), "%d", &n)
	return n
}

func testPut(t *testing.T, s objstore.Store) {
	ctx := t.Context()
	mine := Body("mine")
	out, v, err := objstore.Put(ctx, s, "p", mine)
	if out != objstore.Mine || err != nil || v == "" {
		t.Fatalf("put = %v, %q, %v", out, v, err)
	}
	out, v2, err := objstore.Put(ctx, s, "p", mine)
	if out != objstore.Mine || err != nil || v2 != v {
		t.Errorf("same put again = %v, %q, %v; want mine, %q", out, v2, err, v)
	}
	out, v2, err = objstore.Put(ctx, s, "p", Body("mine"))
	if out != objstore.Other || err != nil || v2 != v {
		t.Errorf("put of another body = %v, %q, %v; want other, %q", out, v2, err, v)
	}
	if got, _ := readAll(t, s, "p"); !bytes.Equal(got, payload(t, mine)) {
		t.Errorf("object is %q", got)
	}
}

func testPutConcurrently(t *testing.T, s objstore.Store) {
	var mu sync.Mutex
	count := map[objstore.Outcome]int{}
	_, _ = race(func(i int) (objstore.Version, error) {
		out, v, err := objstore.Put(t.Context(), s, "p", racerBody(i/2)) // two racers share a body, as a hedge does
		for errors.Is(err, objstore.ErrBusy) {
			out, v, err = objstore.Put(t.Context(), s, "p", racerBody(i/2))
		}
		mu.Lock()
		defer mu.Unlock()
		count[out]++
		return v, err
	})
	if count[objstore.Mine] != 2 || count[objstore.Other] != racers-2 {
		t.Errorf("outcomes %v, want 2 mine and %d other", count, racers-2)
	}
}

func testReplace(t *testing.T, s objstore.Store) {
	ctx := t.Context()
	out, _, err := objstore.Replace(ctx, s, "r", "gone", Body("0"))
	if out != objstore.Unknown || !errors.Is(err, objstore.ErrChanged) {
		t.Errorf("replace of a missing key = %v, %v", out, err)
	}
	v1, err := s.Create(ctx, "r", Body("1"))
	noError(t, err)
	second := Body("2")
	out, v2, err := objstore.Replace(ctx, s, "r", v1, second)
	if out != objstore.Mine || err != nil || v2 == v1 {
		t.Fatalf("replace = %v, %q, %v", out, v2, err)
	}
	out, v, err := objstore.Replace(ctx, s, "r", v1, second)
	if out != objstore.Mine || err != nil || v != v2 {
		t.Errorf("same replace again = %v, %q, %v; want mine, %q", out, v, err, v2)
	}
	out, v, err = objstore.Replace(ctx, s, "r", v1, Body("2"))
	if out != objstore.Other || err != nil || v != v2 {
		t.Errorf("replace with another body = %v, %q, %v; want other, %q", out, v, err, v2)
	}
}

func testDelete(t *testing.T, s objstore.Store) {
	ctx := t.Context()
	noError(t, s.Delete(ctx, nil))
	noError(t, s.Delete(ctx, []string{"never/was"}))
	create(t, s, "d/1", "d/2", "d/3")
	noError(t, s.Delete(ctx, []string{"d/1", "d/missing", "d/3", "d/3"}))
	_, err := s.Head(ctx, "d/1")
	wantKind(t, err, objstore.ErrNotFound)
	_, _, err = s.ReadAt(ctx, "d/3", make([]byte, 1), 0)
	wantKind(t, err, objstore.ErrNotFound)
	wantKeys(t, s, "d/", "d/2")
}

func testDeleteMany(t *testing.T, s objstore.Store) {
	const n = 1100
	keys := make([]string, n)
	for i := range keys {
		keys[i] = fmt.Sprintf("many/%03d/%05d", i%7, i)
	}
	create(t, s, keys...)
	create(t, s, "many/keep")
	noError(t, s.Delete(t.Context(), append(slices.Clone(keys), "many/never")))
	wantKeys(t, s, "many/", "many/keep")
}

func testCreateAfterDelete(t *testing.T, s objstore.Store) {
	ctx := t.Context()
	v1, err := s.Create(ctx, "x/y", Body("1"))
	noError(t, err)
	noError(t, s.Delete(ctx, []string{"x/y"}))
	v2, err := s.Create(ctx, "x/y", Body("2"))
	noError(t, err)
	if v1 == v2 {
		t.Errorf("a new object has its predecessor's version %q", v1)
	}
	_, err = s.Swap(ctx, "x/y", v1, Body("3"))
	wantKind(t, err, objstore.ErrChanged)
}

// race runs f in racers goroutines that start together.
func race(f func(i int) (objstore.Version, error)) ([]objstore.Version, []error) {
	versions, errs := make([]objstore.Version, racers), make([]error, racers)
	var wg sync.WaitGroup
	start := make(chan struct{})
	for i := range racers {
		wg.Go(func() {
			<-start
			versions[i], errs[i] = f(i)
			for errors.Is(errs[i], objstore.ErrBusy) {
				versions[i], errs[i] = f(i)
			}
		})
	}
	close(start)
	wg.Wait()
	return versions, errs
}

// racerBody is the same for the same i, and large enough to be written in pieces.
func racerBody(i int) *objstore.Parts {
	head := fmt.Appendf(nil, "%032x", i)
	return objstore.Bytes(head, bytes.Repeat([]byte{byte(i)}, 1000+i), bytes.Repeat(head, 300))
}

func oneWinner(t *testing.T, errs []error, lost error) int {
	t.Helper()
	winner := -1
	for i, err := range errs {
		switch {
		case err == nil && winner >= 0:
			t.Fatalf("racers %d and %d both won", winner, i)
		case err == nil:
			winner = i
		case !errors.Is(err, lost):
			t.Fatalf("racer %d: %v, want %v", i, err, lost)
		}
	}
	if winner < 0 {
		t.Fatal("nobody won")
	}
	return winner
}

func noError(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantKind(t *testing.T, err, kind error) {
	t.Helper()
	if !errors.Is(err, kind) {
		t.Fatalf("error is %v, want %v", err, kind)
	}
}

func wantOp(t *testing.T, err error, op, key string) {
	t.Helper()
	var e *objstore.Error
	if !errors.As(err, &e) || e.Op != op || e.Key != key {
		t.Errorf("error %v does not say %s of %q", err, op, key)
	}
}

func payload(t *testing.T, p objstore.Payload) []byte {
	t.Helper()
	b, err := io.ReadAll(p.Reader())
	noError(t, err)
	return b
}

func readAll(t *testing.T, s objstore.Store, key string) ([]byte, objstore.Info) {
	t.Helper()
	b, info, err := objstore.ReadAll(t.Context(), s, key, 64<<20)
	noError(t, err)
	return b, info
}
