package objtest

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/tierlog/tierlog/objstore"
)

func testReadRanges(t *testing.T, s objstore.Store) {
	ctx := t.Context()
	data := pattern(10_000)
	_, err := s.Create(ctx, "r", objstore.Bytes(data))
	noError(t, err)
	for _, c := range []struct{ off, length, want int }{
		{0, 10_000, 10_000},
		{0, 1, 1},
		{0, 10_001, 10_000},
		{0, 50_000, 10_000},
		{9_999, 1, 1},
		{9_999, 2, 1},
		{9_990, 100, 10},
		{5_000, 1_000, 1_000},
		{5_000, 0, 0},
		{10_000, 1, 0},
		{10_000, 0, 0},
		{10_001, 1, 0},
		{1 << 40, 10, 0},
	} {
		p := bytes.Repeat([]byte{0xEE}, c.length)
		n, info, err := s.ReadAt(ctx, "r", p, int64(c.off))
		if err != nil || n != c.want || info.Size != 10_000 || info.Version == "" {
			t.Errorf("read %d bytes at %d: n = %d, %+v, %v; want n = %d", c.length, c.off, n, info, err, c.want)
			continue
		}
		if n > 0 && !bytes.Equal(p[:n], data[c.off:c.off+n]) {
			t.Errorf("read %d bytes at %d: wrong bytes", c.length, c.off)
		}
	}
	_, _, err = s.ReadAt(ctx, "r", make([]byte, 1), -1)
	wantKind(t, err, objstore.ErrInvalid)

	_, err = s.Create(ctx, "empty", objstore.Bytes())
	noError(t, err)
	for _, off := range []int64{0, 1} {
		n, info, err := s.ReadAt(ctx, "empty", make([]byte, 10), off)
		if n != 0 || info.Size != 0 || err != nil || info.Version == "" {
			t.Errorf("read of an empty object at %d: %d, %+v, %v", off, n, info, err)
		}
	}
}

func testReadSuffix(t *testing.T, s objstore.Store) {
	ctx := t.Context()
	data := pattern(5_000)
	_, err := s.Create(ctx, "r", objstore.Bytes(data))
	noError(t, err)
	for _, length := range []int{1, 100, 4_999, 5_000, 5_001, 100_000} {
		p := make([]byte, length)
		n, info, err := s.ReadSuffix(ctx, "r", p)
		want := min(length, 5_000)
		if err != nil || n != want || info.Size != 5_000 || info.Version == "" {
			t.Errorf("suffix of %d: n = %d, %+v, %v", length, n, info, err)
			continue
		}
		if !bytes.Equal(p[:n], data[5_000-want:]) {
			t.Errorf("suffix of %d: wrong bytes", length)
		}
	}
	_, _, err = s.ReadSuffix(ctx, "r", nil)
	wantKind(t, err, objstore.ErrInvalid)
	_, err = s.Create(ctx, "empty", objstore.Bytes())
	noError(t, err)
	n, info, err := s.ReadSuffix(ctx, "empty", make([]byte, 10))
	if n != 0 || info.Size != 0 || err != nil {
		t.Errorf("suffix of an empty object: %d, %+v, %v", n, info, err)
	}
}

func testReadMissing(t *testing.T, s objstore.Store) {
	ctx := t.Context()
	create(t, s, "folder/object")
	for _, key := range []string{"none", "no/such/folder", "folder/objec", "folder/object2", "folder"} {
		_, _, err := s.ReadAt(ctx, key, make([]byte, 8), 0)
		wantKind(t, err, objstore.ErrNotFound)
		wantOp(t, err, "read", key)
		_, _, err = s.ReadAt(ctx, key, nil, 0)
		wantKind(t, err, objstore.ErrNotFound)
		_, _, err = s.ReadSuffix(ctx, key, make([]byte, 8))
		wantKind(t, err, objstore.ErrNotFound)
		_, err = s.Head(ctx, key)
		wantKind(t, err, objstore.ErrNotFound)
		wantOp(t, err, "head", key)
	}
}

// testReadDuringSwaps swaps states that are each one byte repeated, while readers read whole objects.
func testReadDuringSwaps(t *testing.T, s objstore.Store) {
	const swaps, size = 20, 300_000
	ctx := t.Context()
	state := func(i int) *objstore.Parts { return objstore.Bytes(bytes.Repeat([]byte{byte(i)}, size+i)) }
	v, err := s.Create(ctx, "s", state(0))
	noError(t, err)
	var done atomic.Bool
	var versions sync.Map // version -> its byte
	versions.Store(v, byte(0))
	var wg sync.WaitGroup
	type seen struct {
		version objstore.Version
		fill    byte
	}
	results := make(chan seen, 1<<16)
	for r := range 3 {
		wg.Go(func() {
			p := make([]byte, size+1000)
			for !done.Load() {
				got, err := readOnce(s, t, p, r)
				if err != nil {
					t.Error(err)
					return
				}
				select {
				case results <- seen{got.Version, p[0]}:
				default:
				}
			}
		})
	}
	for i := 1; i <= swaps && !t.Failed(); i++ {
		v, err = s.Swap(ctx, "s", v, state(i))
		if err != nil {
			t.Errorf("swap %d: %v", i, err)
			break
		}
		versions.Store(v, byte(i))
	}
	done.Store(true)
	wg.Wait()
	close(results)
	for r := range results {
		if fill, ok := versions.Load(r.version); !ok || fill != r.fill {
			t.Errorf("bytes %d were read under version %q, which has %v", r.fill, r.version, fill)
		}
	}
}

// readOnce reads the object of testReadDuringSwaps, whole or its end, and checks that it saw one state.
func readOnce(s objstore.Store, t *testing.T, p []byte, reader int) (objstore.Info, error) {
	read := func() (int, objstore.Info, error) { return s.ReadAt(t.Context(), "s", p, 0) }
	if reader == 0 {
		read = func() (int, objstore.Info, error) { return s.ReadSuffix(t.Context(), "s", p) }
	}
	n, info, err := read()
	if err != nil {
		return info, err
	}
	if int64(n) != info.Size || n != 300_000+int(p[0]) {
		return info, fmt.Errorf("read %d of %d bytes of state %d", n, info.Size, p[0])
	}
	if bytes.Count(p[:n], p[:1]) != n {
		return info, errors.New("one read returned bytes of two states")
	}
	return info, nil
}

// testLargePayload writes 9 MiB in many parts of odd sizes, one of them empty.
func testLargePayload(t *testing.T, s objstore.Store) {
	ctx := t.Context()
	data := pattern(9 << 20)
	var parts [][]byte
	for i, rest := 0, data; len(rest) > 0; i++ {
		n := min(len(rest), (i*997)%6000)
		parts, rest = append(parts, rest[:n]), rest[n:]
	}
	if len(parts) < 3000 {
		t.Fatalf("only %d parts", len(parts))
	}
	sum := crc32.Checksum(data, crc32.MakeTable(crc32.Castagnoli))
	for _, c := range []struct {
		key  string
		body objstore.Payload
	}{
		{"large/plain", objstore.Bytes(parts...)},
		{"large/checked", objstore.Bytes(parts...).WithCRC32C(sum)},
	} {
		v, err := s.Create(ctx, c.key, c.body)
		noError(t, err)
		got, info := readAll(t, s, c.key)
		if !bytes.Equal(got, data) || info.Version != v {
			t.Errorf("%s: read back %d bytes that differ", c.key, len(got))
		}
	}
	p := make([]byte, 1<<20)
	n, _, err := s.ReadAt(ctx, "large/plain", p, 5<<20+77)
	noError(t, err)
	if n != len(p) || !bytes.Equal(p, data[5<<20+77:6<<20+77]) {
		t.Errorf("range in the middle: %d bytes, or wrong ones", n)
	}
	v, err := s.Head(ctx, "large/plain")
	noError(t, err)
	_, err = s.Swap(ctx, "large/plain", v.Version, objstore.Bytes(parts[:2000]...))
	noError(t, err)
	if got, _ := readAll(t, s, "large/plain"); !bytes.Equal(got, data[:len(got)]) || len(got) >= len(data) {
		t.Error("swap of a large object: wrong bytes")
	}
}

// testPayloadEdges sends empty payloads and empty parts, and the same payload twice.
func testPayloadEdges(t *testing.T, s objstore.Store) {
	ctx := t.Context()
	for i, parts := range [][][]byte{
		{},
		{nil},
		{{}, {}, {}},
		{{}, []byte("a"), {}, []byte("b"), {}},
		{[]byte("a"), {}},
	} {
		var want []byte
		for _, p := range parts {
			want = append(want, p...)
		}
		body := objstore.Bytes(parts...)
		for j := range 2 {
			key := fmt.Sprintf("edge/%d/%d", i, j)
			_, err := s.Create(ctx, key, body)
			noError(t, err)
			if got, info := readAll(t, s, key); !bytes.Equal(got, want) || info.Size != int64(len(want)) {
				t.Errorf("%s: read %q, want %q", key, got, want)
			}
		}
	}
}

// pattern returns n bytes that differ from place to place.
func pattern(n int) []byte {
	b := make([]byte, n)
	x := uint32(2463534242)
	for i := range b {
		x ^= x << 13
		x ^= x >> 17
		x ^= x << 5
		b[i] = byte(x)
	}
	return b
}
