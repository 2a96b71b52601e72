// Package feed reads records from a byte stream and produces them to a Kafka broker at full speed.
//
// Invariants:
//
//   - Records are produced in the order in which they stand in the stream; within a partition they are stored in it.
//   - Every record that was read is accounted for once: acknowledged, or failed with its number in the stream.
//   - After the first failure nothing more is read or produced.
//   - A line is the bytes up to the delimiter, whatever they are; a last line without delimiter counts.
//   - Memory is bounded: by a fixed number of chunks, and by the client's buffer limit where records are long.
//   - A chunk's memory is used again only when the client is done with all of its records, and never after a failure.
package feed

import (
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// Number is the place of a record in the stream, counted from 1: a line number where a record is a line.
type Number int64

// Config says how the stream is read.
type Config struct {
	// Layout is in the grammar of kgo.RecordReader.
	Layout string
	// KeySeparator, if not empty, splits each line at its first occurrence into key and value. Layout must be "%v\n".
	KeySeparator string
	// Topic, Partition and Headers are given to every record. A topic or partition in the layout wins.
	Topic     string
	Partition int32
	Headers   []kgo.RecordHeader
	// MaxRecordBytes is the largest record batch the broker takes; a record that cannot fit in one ends the reading.
	MaxRecordBytes int
	// Stall ends a run in which records wait and none is acknowledged for that long. 0: never.
	// (The client's own timeout goes by the records' timestamps, which may be of long ago.)
	Stall time.Duration
	// Now stamps records whose layout has no timestamp.
	Now func() time.Time
}

// chunk is some consecutive records and the memory they stand in.
type chunk struct {
	buf     []byte
	records []kgo.Record
	first   Number // number of records[0]
	raw     int64  // bytes of the stream, delimiters included

	pending atomic.Int64 // records the client is not done with
	failed  atomic.Bool
	promise func(*kgo.Record, error) // made once, so that producing allocates nothing
}

// number returns the record's place in the stream. Used for failures only.
func (c *chunk) number(r *kgo.Record) Number {
	for i := range c.records {
		if &c.records[i] == r {
			return c.first + Number(i)
		}
	}
	return 0
}

// source reads chunks.
type source interface {
	// next fills c with at least one record. io.EOF says that the stream has ended.
	// Any other error is about the record after those returned before.
	next(c *chunk) error
}

// BadRecord says which record of the stream cannot be sent and why. Nothing at or after it was sent.
type BadRecord struct {
	Unit   string // "line" or "record"
	Number Number
	Err    error
}

func (e *BadRecord) Error() string { return fmt.Sprintf("%s %d: %v", e.Unit, e.Number, e.Err) }
func (e *BadRecord) Unwrap() error { return e.Err }

// TooLong says that a record does not fit into the largest batch that the broker takes.
type TooLong struct {
	Bytes int // of the record, or as many as were read of it
	Max   int
}

func (e *TooLong) Error() string {
	return fmt.Sprintf("%d bytes or more do not fit into the largest batch the topic takes (max.message.bytes is %d)", e.Bytes, e.Max)
}

// newSource returns the reader for a layout and what it calls a record.
func newSource(r io.Reader, cfg Config) (s source, unit string, err error) {
	if delim, ok := plainDelimiter(cfg.Layout); ok {
		return &lineSource{r: r, cfg: cfg, delim: delim, separator: []byte(cfg.KeySeparator), next1: 1}, "line", nil
	}
	if cfg.KeySeparator != "" {
		return nil, "", fmt.Errorf("a key separator goes with the layout %q only", `%v\n`)
	}
	s, err = newLayoutSource(r, cfg)
	return s, "record", err
}

// Check tells whether a layout is valid.
func Check(layout string) error {
	_, err := kgo.NewRecordReader(nil, layout)
	return err
}

// recordSize returns the bytes of a batch that holds only this record, as the client counts them.
func recordSize(r *kgo.Record) int {
	n := batchHeader + maxRecordHeader + len(r.Key) + len(r.Value)
	for _, h := range r.Headers {
		n += 2*maxVarint + len(h.Key) + len(h.Value)
	}
	return n
}

const (
	batchHeader = 61 // of a record batch v2
	maxVarint   = 5
	// Length, attributes, timestamp and offset deltas, key length, value length, number of headers.
	maxRecordHeader = maxVarint + 1 + 2 + 3*maxVarint
)
