package feed

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

func testConfig() Config {
	return Config{
		Layout: `%v\n`, Topic: "t", Partition: 3, MaxRecordBytes: 1 << 20,
		Now: func() time.Time { return time.Unix(1, 0) },
	}
}

// readRecords reads a whole stream into one string a record: key "=" value, or the value where there are no keys.
func readRecords(t testing.TB, r io.Reader, cfg Config) (records []string, err error) {
	t.Helper()
	src, _, err := newSource(r, cfg)
	if err != nil {
		t.Fatal(err)
	}
	next := Number(1)
	for {
		c := &chunk{}
		if err := src.next(c); err != nil {
			if errors.Is(err, io.EOF) {
				err = nil
			}
			return records, err
		}
		if len(c.records) == 0 {
			t.Fatal("a chunk without records")
		}
		if c.first != next {
			t.Fatalf("chunk starts at %d, want %d", c.first, next)
		}
		next += Number(len(c.records))
		for i := range c.records {
			rec := &c.records[i]
			if n := c.number(rec); n != c.first+Number(i) {
				t.Fatalf("number %d, want %d", n, c.first+Number(i))
			}
			s := string(rec.Value)
			if rec.Key != nil {
				s = string(rec.Key) + "=" + s
			}
			if rec.Value == nil {
				s += "null"
			}
			records = append(records, s)
		}
	}
}

func TestLines(t *testing.T) {
	long := strings.Repeat("x", 3*chunkBytes)
	for _, tc := range []struct {
		name, layout, separator, in string
		want                        []string
		bad                         string
	}{
		{name: "empty stream"},
		{name: "lines", in: "a\nb\n", want: []string{"a", "b"}},
		{name: "last without end", in: "a\nb", want: []string{"a", "b"}},
		{name: "empty lines", in: "\n\na\n\n", want: []string{"", "", "a", ""}},
		{name: "bytes as they are", in: "a\r\n\x00\xff\n", want: []string{"a\r", "\x00\xff"}},
		{name: "longer than a chunk", in: "a\n" + long + "\nb\n", want: []string{"a", long, "b"}},
		{name: "more than a chunk's records", in: strings.Repeat("z\n", 3*chunkRecords), want: slicesRepeat("z", 3*chunkRecords)},
		{name: "other delimiter", layout: `%v\x00`, in: "a\nb\x00c\x00", want: []string{"a\nb", "c"}},
		{name: "long delimiter", layout: `%v--\n`, in: "a-\n--\nb--\n-", want: []string{"a-\n", "b", "-"}},
		{name: "keys", separator: "::", in: "k::v::w\n::v\nk::\n", want: []string{"k=v::w", "=v", "k="}},
		{name: "no separator", separator: ":", in: "k:v\nkv\nk:v\n", want: []string{"k=v"}, bad: `line 2: has no key separator ":"`},
		{name: "too long", in: "a\n" + strings.Repeat("x", 1<<20) + "\nb\n", want: []string{"a"}, bad: "line 2: 1048576 bytes or more do not fit"},
		{name: "too long without end", in: "a\n" + strings.Repeat("x", 8<<20), want: []string{"a"}, bad: "line 2: "},
		{name: "layout", layout: `%k %v\n`, in: "a b\nc d\n", want: []string{"a=b", "c=d"}},
		{name: "layout, last line without end", layout: `%k %v\n`, in: "a b\nc d", want: []string{"a=b", "c=d"}},
		{name: "layout, empty is not null", layout: `%k %v\n`, in: " \n", want: []string{"="}},
		{name: "layout, sized", layout: `%V{big16}%v`, in: "\x00\x02\n\n\x00\x00\x00\x01a", want: []string{"\n\n", "", "a"}},
		{name: "layout, cut off", layout: `%V{big16}%v\n`, in: "\x00\x01a\n\x00\x02b\n", want: []string{"a"}, bad: "record 2: the input ends in the middle"},
		{name: "layout, never ending", layout: `%k:%v\n`, in: "k:v\nk:" + strings.Repeat("x", 8<<20), want: []string{"k=v"}, bad: "record 2: longer than any record may be"},
		{name: "layout, too long", layout: `%k:%v\n`, in: "k:v\nk:" + strings.Repeat("x", 1<<20) + "\n", want: []string{"k=v"}, bad: "record 2: 1048577 bytes or more do not fit"},
		{name: "layout, not a number", layout: `%p %v\n`, in: "x v\n", bad: "record 1: "},
	} {
		for _, way := range []struct {
			name string
			wrap func(io.Reader) io.Reader
		}{
			{"whole", func(r io.Reader) io.Reader { return r }},
			{"halves", iotest.HalfReader},
			{"data with error", iotest.DataErrReader},
		} {
			t.Run(tc.name+"/"+way.name, func(t *testing.T) {
				cfg := testConfig()
				if tc.layout != "" {
					cfg.Layout = tc.layout
				}
				cfg.KeySeparator = tc.separator
				got, err := readRecords(t, way.wrap(strings.NewReader(tc.in)), cfg)
				compare(t, got, tc.want)
				if tc.bad == "" && err != nil || tc.bad != "" && (err == nil || !strings.Contains(err.Error(), tc.bad)) {
					t.Errorf("error %v, want %q", err, tc.bad)
				}
			})
		}
	}
}

func slicesRepeat(s string, n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = s
	}
	return out
}

func compare(t *testing.T, got, want []string) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d records, want %d", len(got), len(want))
	}
	for i := range got {
		if got[i] != want[i] {
			t.Fatalf("record %d is %.100q, want %.100q", i+1, got[i], want[i])
		}
	}
}

func TestReaderErrors(t *testing.T) {
	broken := errors.New("disk on fire")
	got, err := readRecords(t, io.MultiReader(strings.NewReader("a\nb\nhalf"), iotest.ErrReader(broken)), testConfig())
	compare(t, got, []string{"a", "b"})
	if !errors.Is(err, broken) {
		t.Errorf("got %v, want the reader's error", err)
	}
	if _, err = readRecords(t, stuckReader{}, testConfig()); !errors.Is(err, io.ErrNoProgress) {
		t.Errorf("got %v, want io.ErrNoProgress", err)
	}
}

type stuckReader struct{}

func (stuckReader) Read([]byte) (int, error) { return 0, nil }

func TestEveryRecordIsComplete(t *testing.T) {
	cfg := testConfig()
	cfg.Headers = []kgo.RecordHeader{{Key: "h", Value: []byte("1")}}
	for _, layout := range []string{`%v\n`, `%v;\n`, `%v{re#[^\n]*#}\n`} {
		cfg.Layout = layout
		src, _, err := newSource(strings.NewReader("value;\n"), cfg)
		if err != nil {
			t.Fatal(err)
		}
		c := &chunk{}
		if err := src.next(c); err != nil {
			t.Fatal(err)
		}
		r := c.records[0]
		if r.Topic != "t" || r.Partition != 3 || len(r.Headers) != 1 || !strings.HasPrefix(string(r.Value), "value") {
			t.Errorf("%s: got %+v", layout, r)
		}
	}
	cfg.Layout = `%t %p %H%h{%k=%v;}%v\n`
	src, _, err := newSource(strings.NewReader("other 7 1a=b;val\nother 8 0val\n"), cfg)
	if err != nil {
		t.Fatal(err)
	}
	for i, headers := range []int{2, 1} {
		c := &chunk{}
		if err := src.next(c); err != nil {
			t.Fatal(err)
		}
		if r := c.records[0]; r.Topic != "other" || int(r.Partition) != 7+i || len(r.Headers) != headers || string(r.Value) != "val" {
			t.Errorf("got %+v", r)
		}
	}
}

func TestPlainDelimiter(t *testing.T) {
	for layout, want := range map[string]string{
		`%v\n`: "\n", "%v\n": "\n", `%v\t\r\\`: "\t\r\\", `%v\x00\xff`: "\x00\xff", `%vEND`: "END", `%vé`: "é",
	} {
		if got, ok := plainDelimiter(layout); !ok || string(got) != want {
			t.Errorf("%q: got %q, %v, want %q", layout, got, ok, want)
		}
	}
	for _, layout := range []string{``, `%v`, `%k%v\n`, `%v%k`, `%v{hex}\n`, `%v\q`, `%v\x0`, `%v\xzz`, `%v\`, ` %v\n`, `%v%%`} {
		if got, ok := plainDelimiter(layout); ok {
			t.Errorf("%q: got %q, want it left to the client's reader", layout, got)
		}
	}
}

func TestHasVerb(t *testing.T) {
	for layout, want := range map[string]bool{
		`%p`: true, `%v %p{big32}\n`: true, `{%p:%v}\n`: true, `%v{hex}%p`: true, `%H%h{%k=%v }%p`: true, `%{%p`: true,
		`%v\n`: false, `p`: false, `%%p`: false, `\%p`: false, `%H%h{%p}%v`: false, `%v{re#%p#}`: false, `%`: false, `%v{p`: false,
	} {
		if got := HasVerb(layout, 'p'); got != want {
			t.Errorf("%q: got %v, want %v", layout, got, want)
		}
	}
}

func TestKeySeparatorNeedsLines(t *testing.T) {
	cfg := testConfig()
	cfg.Layout, cfg.KeySeparator = `%k %v\n`, ":"
	if _, _, err := newSource(strings.NewReader(""), cfg); err == nil {
		t.Error("a key separator was accepted with another layout")
	}
}

// FuzzLines compares the line reader with a plain split, whatever way the bytes come in.
func FuzzLines(f *testing.F) {
	f.Add([]byte("a\nbc\n\nd"), []byte("\n"), uint64(1))
	f.Add([]byte("a--b-\n--"), []byte("--"), uint64(2))
	f.Fuzz(func(t *testing.T, in, delim []byte, seed uint64) {
		if len(delim) == 0 || len(delim) > 8 {
			return
		}
		cfg := testConfig()
		cfg.Layout = "%v"
		for _, b := range delim {
			cfg.Layout += fmt.Sprintf(`\x%02x`, b)
		}
		var want []string
		for rest := in; len(rest) > 0; {
			line, after, _ := bytes.Cut(rest, delim)
			want, rest = append(want, string(line)), after
		}
		rng := rand.New(rand.NewPCG(seed, 0)) //nolint:gosec // a test's choice of sizes
		got, err := readRecords(t, &raggedReader{bytes.NewReader(in), rng}, cfg)
		if err != nil {
			t.Fatal(err)
		}
		compare(t, got, want)
	})
}

// raggedReader returns any number of bytes at a time, also none.
type raggedReader struct {
	r   io.Reader
	rng *rand.Rand
}

func (r *raggedReader) Read(p []byte) (int, error) { return r.r.Read(p[:r.rng.IntN(min(len(p), 7)+1)]) }
