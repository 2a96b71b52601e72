package record

import (
	"encoding/binary"
	"errors"
	"math"
)

// Record is one decoded record of a batch. Its slices are parts of the bytes it was decoded from; Headers is reused
// for the next record.
type Record struct {
	TimestampDelta int64 // ms after the batch's BaseTimestamp
	OffsetDelta    int32 // after the batch's BaseOffset
	Key            []byte
	Value          []byte // Key and Value are nil where null
	Headers        []Header
}

// Header is a header of a record.
type Header struct {
	Key   []byte
	Value []byte // nil where null
}

// Offset returns the offset of a record of the batch.
func (b Batch) Offset(r Record) int64 { return b.BaseOffset() + int64(r.OffsetDelta) }

// Timestamp returns the timestamp of a record of the batch in milliseconds.
func (b Batch) Timestamp(r Record) int64 {
	if b.LogAppendTime() {
		return b.MaxTimestamp()
	}
	return b.BaseTimestamp() + r.TimestampDelta
}

// Records decompresses the batch, at most to limit bytes, and calls fn for each record until it returns an error,
// which Records returns.
func (b Batch) Records(limit int, fn func(Record) error) error {
	records, err := Decompress(b, limit)
	if err != nil {
		return err
	}
	return Each(records, b.NumRecords(), fn)
}

// Each decodes count uncompressed records and calls fn for each until it returns an error, which Each returns as it
// is. Bytes that are not exactly count records with growing offsets are ErrCorrupt; fn has then been called for the
// good ones before.
func Each(records []byte, count int32, fn func(Record) error) error {
	var r Record
	last := int32(-1)
	rest := records
	for i := range count {
		size, body, ok := varint(rest)
		if !ok || size < 0 || size > int64(len(body)) {
			return bad(ErrCorrupt, "record %d of %d: length %d with %d bytes left", i, count, size, len(body))
		}
		rest = body[size:]
		if !r.decode(body[:size:size]) || r.OffsetDelta <= last {
			return bad(ErrCorrupt, "record %d of %d is malformed (%d bytes, offset delta %d after %d)", i, count, size, r.OffsetDelta, last)
		}
		last = r.OffsetDelta
		if err := fn(r); err != nil {
			return err
		}
	}
	if len(rest) > 0 {
		return bad(ErrCorrupt, "%d bytes follow the last of %d records", len(rest), count)
	}
	return nil
}

// decode reads the record whose bytes are exactly b. Record attributes are unused in magic 2, any value is allowed.
func (r *Record) decode(b []byte) bool {
	headers := r.Headers[:0]
	*r = Record{Headers: headers, OffsetDelta: -1}
	if len(b) == 0 {
		return false
	}
	var ok bool
	if r.TimestampDelta, b, ok = varint(b[1:]); !ok {
		return false
	}
	delta, b, ok := varint(b)
	if !ok || delta < 0 || delta > math.MaxInt32 {
		return false
	}
	r.OffsetDelta = int32(delta)
	if r.Key, b, ok = nullable(b); !ok {
		return false
	}
	if r.Value, b, ok = nullable(b); !ok {
		return false
	}
	n, b, ok := varint(b)
	if !ok || n < 0 || n > int64(len(b))/2 { // a header takes two bytes at least
		return false
	}
	for range n {
		var h Header
		if h.Key, b, ok = nullable(b); !ok || h.Key == nil {
			return false
		}
		if h.Value, b, ok = nullable(b); !ok {
			return false
		}
		r.Headers = append(r.Headers, h)
	}
	return len(b) == 0
}

// nullable reads a length and that many bytes; length -1 is nil.
func nullable(b []byte) (v, rest []byte, ok bool) {
	n, b, ok := varint(b)
	switch {
	case !ok || n < -1 || n > int64(len(b)):
		return nil, nil, false
	case n < 0:
		return nil, b, true
	}
	return b[:n:n], b[n:], true
}

// varint reads a zigzag varint.
func varint(b []byte) (v int64, rest []byte, ok bool) {
	v, n := binary.Varint(b)
	if n <= 0 {
		return 0, nil, false
	}
	return v, b[n:], true
}

// OffsetForTime returns the offset and the timestamp of the first record with a timestamp of at least ts (ms); ok is
// false where there is none. The records are decompressed, at most to limit bytes, unless the header decides.
func OffsetForTime(b Batch, ts int64, limit int) (offset, timestamp int64, ok bool, err error) {
	if b.MaxTimestamp() < ts || b.NumRecords() == 0 {
		return 0, 0, false, nil
	}
	if b.LogAppendTime() { // all records have the same timestamp
		return b.BaseOffset(), b.MaxTimestamp(), true, nil
	}
	err = b.Records(limit, func(r Record) error {
		if t := b.Timestamp(r); t >= ts {
			offset, timestamp, ok = b.Offset(r), t, true
			return errFound
		}
		return nil
	})
	if ok {
		return offset, timestamp, true, nil
	}
	return 0, 0, false, err
}

// errFound ends a search.
var errFound = errors.New("found")
