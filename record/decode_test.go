package record

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/snappy"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

const testLimit = 16 << 20

var codecNumbers = map[string]Codec{"none": None, "gzip": Gzip, "snappy": Snappy, "lz4": LZ4, "zstd": Zstd}

// simple is a record in a form that compares.
type simple struct {
	offset, ts int64
	key, value string
	headers    string
}

const null = "<null>"

func text(b []byte) string {
	if b == nil {
		return null
	}
	return string(b)
}

func simplify(b Batch, r Record) simple {
	var headers strings.Builder
	for _, h := range r.Headers {
		fmt.Fprintf(&headers, "%s=%s;", h.Key, text(h.Value))
	}
	return simple{b.Offset(r), b.Timestamp(r), text(r.Key), text(r.Value), headers.String()}
}

func decodeAll(t *testing.T, b Batch) []simple {
	t.Helper()
	if err := Check(b, Limits{}); err != nil {
		t.Fatalf("the batch itself: %v", err)
	}
	var got []simple
	if err := b.Records(testLimit, func(r Record) error {
		got = append(got, simplify(b, r))
		return nil
	}); err != nil {
		t.Fatalf("after %d records: %v", len(got), err)
	}
	return got
}

// compress replaces a batch's records.
func compress(t testing.TB, c Codec, records []byte, n int) Batch {
	t.Helper()
	var buf bytes.Buffer
	var err error
	switch c {
	case Gzip:
		w := gzip.NewWriter(&buf)
		_, err = w.Write(records)
		err = errors.Join(err, w.Close())
	case Snappy:
		buf.Write(snappy.Encode(nil, records))
	case LZ4:
		w := lz4.NewWriter(&buf)
		_, err = w.Write(records)
		err = errors.Join(err, w.Close())
	case Zstd:
		var w *zstd.Encoder
		if w, err = zstd.NewWriter(&buf); err == nil {
			_, err = w.Write(records)
			err = errors.Join(err, w.Close())
		}
	default:
		buf.Write(records)
	}
	if err != nil {
		t.Fatal(err)
	}
	return withRecords(c, buf.Bytes(), n)
}

// withRecords returns a batch of n records whose record bytes are given.
func withRecords(c Codec, body []byte, n int) Batch {
	b := plain(n, len(body))
	copy(b[HeaderSize:], body)
	b[22] = byte(c)
	return seal(b)
}

// encode returns records with the given timestamp deltas.
func encode(deltas ...int64) []byte {
	var out []byte
	for i, d := range deltas {
		body := []byte{0}
		body = binary.AppendVarint(body, d)
		body = binary.AppendVarint(body, int64(i))
		body = binary.AppendVarint(body, -1)
		body = append(binary.AppendVarint(body, 5), "value"...)
		body = binary.AppendVarint(body, 1)
		body = append(binary.AppendVarint(body, 1), 'h')
		body = binary.AppendVarint(body, -1)
		out = append(binary.AppendVarint(out, int64(len(body))), body...)
	}
	return out
}

func TestBatchesOfJavaDecode(t *testing.T) {
	var want []simple
	for i := range int64(150) {
		s := simple{1000 + i, 5000 + 10*i - 25*(i%5), fmt.Sprintf("key-%d", i), strings.Repeat(fmt.Sprintf("value-%d-", i), 100), ""}
		if i%3 == 0 {
			s.key = null
		}
		if i%7 == 0 {
			s.value = null
		}
		for h := range i % 4 {
			if h == 2 {
				s.headers += "h2=" + null + ";"
			} else {
				s.headers += fmt.Sprintf("h%d=x%d;", h, i)
			}
		}
		want = append(want, s)
	}
	files, err := filepath.Glob("testdata/java/*.batch")
	if err != nil || len(files) != 5 {
		t.Fatalf("files %v, %v", files, err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if c := Batch(b).Codec().String(); !strings.HasPrefix(filepath.Base(file), c) {
				t.Fatalf("codec %s", c)
			}
			for i, s := range decodeAll(t, b) {
				if s != want[i] {
					t.Fatalf("record %d: %+v, want %+v", i, s, want[i])
				}
			}
		})
	}
}

// TestBatchesOfFranzGoDecode takes the batches out of the produce requests of a real client.
func TestBatchesOfFranzGoDecode(t *testing.T) {
	var mu sync.Mutex
	var batches []Batch
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "t"))
	if err != nil {
		t.Fatal(err)
	}
	defer cluster.Close()
	cluster.ControlKey(0, func(req kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		mu.Lock()
		defer mu.Unlock()
		batches = append(batches, bytes.Clone(req.(*kmsg.ProduceRequest).Topics[0].Partitions[0].Records))
		return nil, nil, false
	})
	for name, codec := range map[string]kgo.CompressionCodec{
		"none": kgo.NoCompression(), "gzip": kgo.GzipCompression(), "snappy": kgo.SnappyCompression(),
		"lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression(),
	} {
		t.Run(name, func(t *testing.T) {
			batches = nil
			client, err := kgo.NewClient(kgo.SeedBrokers(cluster.ListenAddrs()...), kgo.ProducerBatchCompression(codec))
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			var records []*kgo.Record
			for i := range 500 {
				r := &kgo.Record{Topic: "t", Key: fmt.Append(nil, "k", i), Value: bytes.Repeat([]byte("franz"), 1+i%50)}
				if i%2 == 0 {
					r.Headers = []kgo.RecordHeader{{Key: "a", Value: []byte("b")}, {Key: "c"}}
				}
				if i%9 == 0 {
					r.Value = nil
				}
				records = append(records, r)
			}
			if err := client.ProduceSync(context.Background(), records...).FirstErr(); err != nil {
				t.Fatal(err)
			}
			i := 0
			for _, b := range batches {
				if b.Codec() != codecNumbers[name] {
					t.Fatalf("codec %s", b.Codec())
				}
				for _, s := range decodeAll(t, b) {
					r := records[i]
					i++
					headers := ""
					for _, h := range r.Headers {
						headers += h.Key + "=" + text(h.Value) + ";"
					}
					if s.key != text(r.Key) || s.value != text(r.Value) || s.headers != headers || s.ts != r.Timestamp.UnixMilli() {
						t.Fatalf("record %d: %+v, want %+v", i, s, r)
					}
				}
			}
			if i != len(records) {
				t.Fatalf("%d records of %d in %d batches", i, len(records), len(batches))
			}
		})
	}
}

func TestDecompressIsBounded(t *testing.T) {
	const size = 16 << 20
	zeros := make([]byte, size)
	for c := None; c <= Zstd; c++ {
		b := compress(t, c, zeros, 1)
		out, err := Decompress(b, size)
		if err != nil || !bytes.Equal(out, zeros) {
			t.Fatalf("%s: %d bytes, %v", c, len(out), err)
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for _, limit := range []int{0, 1, 1000, 1 << 20} {
			if _, err := Decompress(b, limit); !errors.Is(err, ErrTooLarge) {
				t.Fatalf("%s, limit %d: %v", c, limit, err)
			}
		}
		runtime.ReadMemStats(&after)
		if got := after.TotalAlloc - before.TotalAlloc; got > 24<<20 { // zstd's window is 8 MiB
			t.Errorf("%s: %d bytes allocated to find 16 MiB too large", c, got)
		}
		if _, err := Decompress(b, size-1); !errors.Is(err, ErrTooLarge) {
			t.Fatalf("%s, one byte over the limit: %v", c, err)
		}
	}
}

func TestXerialFraming(t *testing.T) {
	block := func(s string) []byte {
		enc := snappy.Encode(nil, []byte(s))
		return append(binary.BigEndian.AppendUint32(nil, uint32(len(enc))), enc...)
	}
	head := append(slices.Clone(xerial), 0, 0, 0, 1, 0, 0, 0, 1)
	for _, tc := range []struct {
		name  string
		in    []byte
		limit int
		want  string
		err   error
	}{
		{"two blocks", slices.Concat(head, block("hello "), block("world")), 11, "hello world", nil},
		{"no block", head, 10, "", nil},
		{"over the limit together", slices.Concat(head, block("hello "), block("world")), 10, "", ErrTooLarge},
		{"head cut", head[:15], 10, "", ErrCorrupt},
		{"length cut", append(slices.Clone(head), 0, 0), 10, "", ErrCorrupt},
		{"block cut", slices.Concat(head, block("hello")[:8]), 10, "", ErrCorrupt},
		{"negative length", append(slices.Clone(head), 0xff, 0xff, 0xff, 0xff, 1, 2), 10, "", ErrCorrupt},
		{"block claims 1 GiB", append(slices.Clone(head), 0, 0, 0, 6, 0x80, 0x80, 0x80, 0x80, 0x04, 0), 1 << 30, "", ErrCorrupt},
	} {
		t.Run(tc.name, func(t *testing.T) {
			out, err := Decompress(withRecords(Snappy, tc.in, 1), tc.limit)
			if string(out) != tc.want || !errors.Is(err, tc.err) || (err == nil) != (tc.err == nil) {
				t.Fatalf("%q, %v; want %q, %v", out, err, tc.want, tc.err)
			}
			if strings.Contains(tc.name, "GiB") && !strings.Contains(err.Error(), "impossible") {
				t.Fatalf("memory was allocated for it: %v", err)
			}
		})
	}
}

func TestLargeZstdWindows(t *testing.T) {
	records := make([]byte, 40<<20)
	for i := range records {
		records[i] = byte(i * i >> 9)
	}
	for _, window := range []int{1 << 20, 8 << 20, 32 << 20, 128 << 20} {
		var buf bytes.Buffer
		w, err := zstd.NewWriter(&buf, zstd.WithWindowSize(window))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(records); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		out, err := Decompress(withRecords(Zstd, buf.Bytes(), 1), len(records))
		if err != nil || !bytes.Equal(out, records) {
			t.Fatalf("window %d: %d bytes, %v", window, len(out), err)
		}
	}
	huge := []byte{0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x98, 0x01, 0x00, 0x00} // a window of 512 MiB, an empty block
	if _, err := Decompress(withRecords(Zstd, huge, 1), 100); !errors.Is(err, ErrCorrupt) {
		t.Fatalf("window of 512 MiB: %v", err)
	}
}

// A pooled decoder that met garbage works again, and every cut of compressed records is noticed.
func TestDamagedRecordsAreCorrupt(t *testing.T) {
	records := encode(make([]int64, 200)...)
	for c := None; c <= Zstd; c++ {
		good := compress(t, c, records, 200)
		each := func(b Batch) error { return b.Records(testLimit, func(Record) error { return nil }) }
		for cut := range len(good) - HeaderSize {
			b := withRecords(c, good[HeaderSize:HeaderSize+cut], 200)
			if err := each(b); !errors.Is(err, ErrCorrupt) {
				t.Fatalf("%s cut to %d of %d bytes: %v", c, cut, len(good)-HeaderSize, err)
			}
			if out, err := Decompress(b, testLimit); c != None && !errors.Is(err, ErrCorrupt) {
				t.Fatalf("%s cut to %d of %d bytes: decompresses to %d bytes, %v", c, cut, len(good)-HeaderSize, len(out), err)
			}
		}
		if err := each(withRecords(c, bytes.Repeat([]byte{0xa5}, 100), 200)); !errors.Is(err, ErrCorrupt) {
			t.Fatalf("%s garbage: %v", c, err)
		}
		if err := each(good); err != nil {
			t.Fatalf("%s after garbage: %v", c, err)
		}
	}
	if _, err := Decompress(withRecords(5, nil, 1), 10); !errors.Is(err, ErrCodec) {
		t.Fatalf("codec 5: %v", err)
	}
}

func TestMalformedRecords(t *testing.T) {
	v := func(parts ...any) []byte { // bytes as they are, ints as varints
		var b []byte
		for _, p := range parts {
			switch p := p.(type) {
			case int:
				b = binary.AppendVarint(b, int64(p))
			case string:
				b = append(b, p...)
			}
		}
		return b
	}
	rec := func(parts ...any) []byte {
		body := v(parts...)
		return append(v(len(body)), body...)
	}
	good := rec("\x00", 0, 0, 1, "k", 1, "v", 0)
	for _, tc := range []struct {
		name  string
		in    []byte
		count int32
		ok    bool
	}{
		{"good", good, 1, true},
		{"none", nil, 0, true},
		{"attributes are ignored", rec("\xff", 0, 0, -1, -1, 0), 1, true},
		{"negative timestamp delta", rec("\x00", -1000, 0, -1, -1, 0), 1, true},
		{"gaps between offsets", slices.Concat(rec("\x00", 0, 3, -1, -1, 0), rec("\x00", 0, 9, -1, -1, 0)), 2, true},
		{"empty header key", rec("\x00", 0, 0, -1, -1, 1, 0, 0), 1, true},
		{"too few", good, 2, false},
		{"too many", slices.Concat(good, good), 1, false},
		{"offset repeats", slices.Concat(good, good), 2, false},
		{"offset goes back", slices.Concat(rec("\x00", 0, 9, -1, -1, 0), rec("\x00", 0, 3, -1, -1, 0)), 2, false},
		{"negative offset", rec("\x00", 0, -1, -1, -1, 0), 1, false},
		{"offset beyond 32 bits", rec("\x00", 0, math.MaxInt32+1, -1, -1, 0), 1, false},
		{"empty record", v(0), 1, false},
		{"negative length", v(-5, "xxxxx"), 1, false},
		{"length beyond the end", v(100, "xxxxx"), 1, false},
		{"endless varint", bytes.Repeat([]byte{0xff}, 20), 1, false},
		{"key length -2", rec("\x00", 0, 0, -2, -1, 0), 1, false},
		{"key beyond the record", rec("\x00", 0, 0, 9, "k", 1, "v", 0), 1, false},
		{"value beyond the record", slices.Concat(rec("\x00", 0, 0, 1, "k", 20, "v", 0), good), 2, false},
		{"no headers", rec("\x00", 0, 0, -1, -1), 1, false},
		{"negative header count", rec("\x00", 0, 0, -1, -1, -1), 1, false},
		{"huge header count", rec("\x00", 0, 0, -1, -1, math.MaxInt32), 1, false},
		{"null header key", rec("\x00", 0, 0, -1, -1, 1, -1, 0), 1, false},
		{"header value cut", rec("\x00", 0, 0, -1, -1, 1, 1, "h", 5, "v"), 1, false},
		{"bytes after the headers", rec("\x00", 0, 0, -1, -1, 0, "x"), 1, false},
		{"fields beyond the length", v(3, "\x00", 0, 0, -1, -1, 0), 1, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			n := int32(0)
			err := Each(tc.in, tc.count, func(Record) error { n++; return nil })
			if tc.ok && (err != nil || n != tc.count) {
				t.Fatalf("%d records, %v", n, err)
			}
			if !tc.ok && !errors.Is(err, ErrCorrupt) {
				t.Fatalf("%d records, %v, want ErrCorrupt", n, err)
			}
		})
	}
}

func TestEachStopsWithTheCallersError(t *testing.T) {
	stop := errors.New("stop")
	n := 0
	if err := Each(encode(0, 0, 0), 3, func(Record) error { n++; return stop }); err != stop || n != 1 { //nolint:errorlint // The very same error.
		t.Fatalf("%d calls, %v", n, err)
	}
}

func TestOffsetForTime(t *testing.T) {
	// Base timestamp 1000, so times 1000, 1500, 1200, 2000, 1700; max timestamp 2000.
	records := encode(0, 500, 200, 1000, 700)
	for c := None; c <= Zstd; c++ {
		b := compress(t, c, records, 5)
		b.SetOffsets(100, 1)
		for _, tc := range []struct {
			ts, offset, found int64
			ok                bool
		}{
			{0, 100, 1000, true},
			{-5, 100, 1000, true},
			{1000, 100, 1000, true},
			{1001, 101, 1500, true},
			{1500, 101, 1500, true},
			{1501, 103, 2000, true},
			{2000, 103, 2000, true},
			{2001, 0, 0, false},
			{math.MaxInt64, 0, 0, false},
		} {
			offset, found, ok, err := OffsetForTime(b, tc.ts, testLimit)
			if err != nil || offset != tc.offset || found != tc.found || ok != tc.ok {
				t.Fatalf("%s at %d: %d %d %v %v, want %+v", c, tc.ts, offset, found, ok, err, tc)
			}
		}
	}
	b := compress(t, Gzip, records, 5)
	b.SetOffsets(100, 1)
	b.SetLogAppendTime(7777)
	if offset, found, ok, err := OffsetForTime(b, 7000, 1); offset != 100 || found != 7777 || !ok || err != nil {
		t.Fatalf("LogAppendTime: %d %d %v %v", offset, found, ok, err)
	}
	if _, _, ok, err := OffsetForTime(b, 7778, 1); ok || err != nil {
		t.Fatalf("LogAppendTime, later: %v %v", ok, err)
	}
	if err := b.Records(testLimit, func(r Record) error {
		if b.Timestamp(r) != 7777 {
			t.Fatalf("timestamp %d of a LogAppendTime batch", b.Timestamp(r))
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	lying := compress(t, None, encode(0, 1, 2), 3) // the header says 2000
	if _, _, ok, err := OffsetForTime(lying, 1500, testLimit); ok || err != nil {
		t.Fatalf("no record at the header's max timestamp: %v %v", ok, err)
	}
	if _, _, _, err := OffsetForTime(compress(t, Zstd, records, 5), 1001, 10); !errors.Is(err, ErrTooLarge) {
		t.Fatalf("over the limit: %v", err)
	}
}

func FuzzEach(f *testing.F) {
	f.Add(encode(0, 5, -7), int32(3))
	f.Add([]byte{}, int32(0))
	f.Add(bytes.Repeat([]byte{0xff}, 30), int32(2))
	f.Fuzz(func(t *testing.T, records []byte, count int32) {
		n, size := int32(0), 0
		err := Each(records, count, func(r Record) error {
			n++
			size += len(r.Key) + len(r.Value)
			for _, h := range r.Headers {
				size += len(h.Key) + len(h.Value)
			}
			return nil
		})
		if size > len(records) || n > max(count, 0) || (err == nil && n != max(count, 0)) {
			t.Fatalf("%d records of %d with %d bytes from %d, %v", n, count, size, len(records), err)
		}
	})
}

func FuzzDecompress(f *testing.F) {
	for c := None; c <= Zstd; c++ {
		f.Add(byte(c), []byte(compress(f, c, encode(0, 5, -7), 3)[HeaderSize:]))
	}
	f.Add(byte(Snappy), slices.Concat(xerial, []byte{0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 3, 1, 0, 'x'}))
	f.Fuzz(func(t *testing.T, codec byte, body []byte) {
		const limit = 1 << 20
		out, err := Decompress(withRecords(Codec(codec&7), body, 3), limit)
		if len(out) > limit || (err != nil && out != nil) {
			t.Fatalf("%d bytes, %v", len(out), err)
		}
		if err != nil && !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrTooLarge) && !errors.Is(err, ErrCodec) {
			t.Fatalf("unexpected error %v", err)
		}
	})
}

func BenchmarkEach(b *testing.B) {
	records := encode(make([]int64, 1000)...)
	b.SetBytes(int64(len(records)))
	b.ReportAllocs()
	for b.Loop() {
		if err := Each(records, 1000, func(Record) error { return nil }); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDecompress(b *testing.B) {
	records := encode(make([]int64, 5000)...)
	for c := Gzip; c <= Zstd; c++ {
		batch := compress(b, c, records, 5000)
		b.Run(c.String(), func(b *testing.B) {
			b.SetBytes(int64(len(records)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := Decompress(batch, testLimit); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
