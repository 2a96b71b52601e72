package main

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
)

// header is one header of a record; a nil value is null.
type header struct {
	key   string
	value []byte
}

// record is what a client writes or reads. A nil key or value is null, which is not the same as empty.
type record struct {
	partition int32
	offset    int64 // what a reader reports; a writer ignores it
	timestamp int64 // milliseconds; noTimestamp where the client cannot choose or show it
	key       []byte
	value     []byte
	headers   []header
}

const noTimestamp = -1

// features say what a client can express. The zero value is the least.
type features struct {
	binary      bool // keys and values of any bytes; otherwise lines of text
	headers     bool
	oneHeader   bool // the same header for all records of a partition, and no other
	manyHeaders bool // more than one header of the same name, and an order
	nullHeaders bool // header values that are null
	emptyHeader bool // header values that are empty, as distinct from null
	nullKey     bool
	nullValue   bool
	empty       bool // empty keys and values, as distinct from null
	timestamps  bool
}

// everything is what a full client can express.
var everything = features{
	binary: true, headers: true, manyHeaders: true, nullHeaders: true, emptyHeader: true,
	nullKey: true, nullValue: true, empty: true, timestamps: true,
}

// firstTimestamp is an arbitrary time in the past, in milliseconds.
const firstTimestamp = 1_700_000_000_000

// dataset makes n records over the partitions, the same for the same seed.
func dataset(seed uint64, n, partitions int, f features) []record {
	rng := rand.New(rand.NewPCG(seed, 1))
	text := func(size int) []byte {
		b := make([]byte, size)
		for i := range b {
			if f.binary {
				b[i] = byte(rng.Uint32())
			} else {
				b[i] = 'a' + byte(rng.IntN(26))
			}
		}
		return b
	}
	records := make([]record, n)
	for i := range records {
		r := record{partition: int32(rng.IntN(partitions)), timestamp: noTimestamp}
		if f.timestamps {
			r.timestamp = firstTimestamp + int64(i*7+rng.IntN(20)) // not in order, as from several sources
		}
		r.key = text(1 + rng.IntN(20))
		r.value = fmt.Appendf(nil, "record %d ", i)
		switch rng.IntN(10) {
		case 0:
			r.value = append(r.value, bytes.Repeat([]byte("compressible "), rng.IntN(1000))...)
		case 1:
			r.value = append(r.value, text(rng.IntN(20_000))...)
		case 2:
			if f.empty {
				r.value = []byte{}
			}
		case 3:
			if f.nullValue {
				r.value = nil
			}
		case 4:
			if f.nullKey {
				r.key = nil
			}
		case 5:
			if f.empty {
				r.key = []byte{}
			}
		default:
			r.value = append(r.value, text(rng.IntN(200))...)
		}
		switch {
		case f.oneHeader:
			r.headers = []header{{"partition", fmt.Appendf(nil, "p%d", r.partition)}}
		case f.headers:
			r.headers = headers(rng.IntN(6), text, f)
		}
		records[i] = r
	}
	return records
}

func headers(kind int, text func(int) []byte, f features) []header {
	one := header{"trace-id", text(16)}
	switch {
	case kind < 2:
		return nil
	case kind == 2 && f.manyHeaders:
		return []header{{"b", text(1)}, {"a", text(2)}, {"b", text(3)}}
	case kind == 3 && f.nullHeaders:
		return []header{one, {"null", nil}}
	case kind == 4 && f.emptyHeader:
		return []header{one, {"empty", []byte{}}}
	default:
		return []header{one}
	}
}

// compare says how got, in any order of partitions, differs from what was written in order.
// What features cannot tell apart counts as equal.
func compare(wrote, got []record, f features) error {
	if len(got) != len(wrote) {
		return fmt.Errorf("wrote %d records, read %d", len(wrote), len(got))
	}
	byPartition := map[int32][]record{}
	for _, r := range got {
		byPartition[r.partition] = append(byPartition[r.partition], r)
	}
	next := map[int32]int{}
	for i, w := range wrote {
		at := next[w.partition]
		next[w.partition]++
		if at >= len(byPartition[w.partition]) {
			return fmt.Errorf("partition %d: only %d records", w.partition, at)
		}
		g := byPartition[w.partition][at]
		if g.offset != int64(at) {
			return fmt.Errorf("partition %d: record %d has offset %d", w.partition, at, g.offset)
		}
		if err := same(w, g, f); err != nil {
			return fmt.Errorf("record %d (partition %d, offset %d): %w", i, w.partition, at, err)
		}
	}
	return nil
}

func same(w, g record, f features) error {
	if f.timestamps && w.timestamp != noTimestamp && w.timestamp != g.timestamp {
		return fmt.Errorf("timestamp %d, wrote %d", g.timestamp, w.timestamp)
	}
	if !sameBytes(w.key, g.key, f.empty) {
		return fmt.Errorf("key %s, wrote %s", show(g.key), show(w.key))
	}
	if !sameBytes(w.value, g.value, f.empty) {
		return fmt.Errorf("value %s, wrote %s", show(g.value), show(w.value))
	}
	if !f.headers {
		return nil
	}
	if len(w.headers) != len(g.headers) {
		return fmt.Errorf("%d headers, wrote %d", len(g.headers), len(w.headers))
	}
	for i, h := range w.headers {
		if h.key != g.headers[i].key || !sameBytes(h.value, g.headers[i].value, f.emptyHeader) {
			return fmt.Errorf("header %d is %q=%s, wrote %q=%s", i, g.headers[i].key, show(g.headers[i].value), h.key, show(h.value))
		}
	}
	return nil
}

// sameBytes is exact where null and empty can be told apart.
func sameBytes(a, b []byte, exact bool) bool {
	return (!exact || (a == nil) == (b == nil)) && bytes.Equal(a, b)
}

func show(b []byte) string {
	if b == nil {
		return "null"
	}
	if len(b) > 40 {
		return fmt.Sprintf("%q... (%d bytes)", b[:40], len(b))
	}
	return fmt.Sprintf("%q", b)
}

// ends returns the end offset of each partition once the records are written.
func ends(records []record, partitions int) []int64 {
	e := make([]int64, partitions)
	for _, r := range records {
		e[r.partition]++
	}
	return e
}

// The exchange format: a record a line, tab between partition, offset, timestamp, key, value and headers. Bytes are in
// base64, null is "-"; headers are name:value pairs with commas between them.

func encodeBytes(b []byte) string {
	if b == nil {
		return "-"
	}
	return base64.StdEncoding.EncodeToString(b)
}

func decodeBytes(s string) ([]byte, error) {
	if s == "-" {
		return nil, nil
	}
	b, err := base64.StdEncoding.DecodeString(s)
	if b == nil {
		b = []byte{}
	}
	return b, err
}

func (r record) line() string {
	hs := make([]string, len(r.headers))
	for i, h := range r.headers {
		hs[i] = encodeBytes([]byte(h.key)) + ":" + encodeBytes(h.value)
	}
	return fmt.Sprintf("%d\t%d\t%d\t%s\t%s\t%s", r.partition, r.offset, r.timestamp, encodeBytes(r.key), encodeBytes(r.value), strings.Join(hs, ","))
}

func parseLine(line string) (record, error) {
	fields := strings.Split(line, "\t")
	if len(fields) != 6 {
		return record{}, fmt.Errorf("%d fields in %q, want 6", len(fields), line)
	}
	var r record
	p, err1 := strconv.ParseInt(fields[0], 10, 32)
	off, err2 := strconv.ParseInt(fields[1], 10, 64)
	ts, err3 := strconv.ParseInt(fields[2], 10, 64)
	key, err4 := decodeBytes(fields[3])
	value, err5 := decodeBytes(fields[4])
	if err := errors.Join(err1, err2, err3, err4, err5); err != nil {
		return record{}, fmt.Errorf("line %q: %w", line, err)
	}
	r.partition, r.offset, r.timestamp, r.key, r.value = int32(p), off, ts, key, value
	for pair := range strings.SplitSeq(fields[5], ",") {
		if pair == "" {
			continue
		}
		k, v, _ := strings.Cut(pair, ":")
		kb, err1 := decodeBytes(k)
		vb, err2 := decodeBytes(v)
		if err := errors.Join(err1, err2); err != nil {
			return record{}, fmt.Errorf("header %q: %w", pair, err)
		}
		r.headers = append(r.headers, header{string(kb), vb})
	}
	return r, nil
}

func writeRecords(path string, records []record) error {
	var b bytes.Buffer
	for _, r := range records {
		b.WriteString(r.line())
		b.WriteByte('\n')
	}
	return os.WriteFile(path, b.Bytes(), 0o644)
}

func readRecords(path string) ([]record, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // only read
	var records []record
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		r, err := parseLine(lines.Text())
		if err != nil {
			return nil, err
		}
		records = append(records, r)
	}
	return records, lines.Err()
}
