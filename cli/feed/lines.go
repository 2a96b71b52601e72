package feed

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/twmb/franz-go/pkg/kgo"
)

const (
	// chunkBytes is how much of the stream one chunk holds, unless a single line is longer.
	chunkBytes = 256 << 10
	// chunkRecords bounds a chunk's records, so that short lines do not make their bookkeeping large.
	chunkRecords = 2048
	// maxEmptyReads is how often a reader may return neither bytes nor an error.
	maxEmptyReads = 100
)

// plainDelimiter tells whether the layout is a value up to a literal delimiter, the case worth being fast.
func plainDelimiter(layout string) ([]byte, bool) {
	rest, ok := strings.CutPrefix(layout, "%v")
	if !ok || rest == "" || strings.ContainsAny(rest, "%{") {
		return nil, false
	}
	var delim []byte
	for rest != "" {
		if rest[0] != '\\' {
			delim = append(delim, rest[0])
			rest = rest[1:]
			continue
		}
		switch {
		case len(rest) >= 2 && strings.IndexByte("tnr\\", rest[1]) >= 0:
			delim = append(delim, map[byte]byte{'t': '\t', 'n': '\n', 'r': '\r', '\\': '\\'}[rest[1]])
			rest = rest[2:]
		case len(rest) >= 4 && rest[1] == 'x':
			n, err := strconv.ParseUint(rest[2:4], 16, 8)
			if err != nil {
				return nil, false
			}
			delim = append(delim, byte(n))
			rest = rest[4:]
		default:
			return nil, false
		}
	}
	return delim, true
}

// lineSource cuts the stream at a delimiter. Values and keys are slices of the chunk's buffer.
type lineSource struct {
	r         io.Reader
	cfg       Config
	delim     []byte
	separator []byte // between key and value; empty: no keys
	next1     Number // of the next record
	// tail is what was read after the last record of the previous chunk; it stands in that chunk's buffer,
	// which nothing overwrites before the next call of next.
	tail []byte
	err  error // what the reader ended with
}

func (s *lineSource) next(c *chunk) error {
	if need := max(chunkBytes, len(s.tail)); cap(c.buf) < need {
		c.buf = make([]byte, need)
	}
	c.buf = c.buf[:cap(c.buf)]
	n := copy(c.buf, s.tail) // Also right if the tail stands in this very buffer.
	s.tail = nil
	c.records, c.first, c.raw = c.records[:0], s.next1, 0
	searched := 0
	for empty := 0; ; {
		used, err := s.split(c, c.buf[:n], searched)
		if err != nil || len(c.records) > 0 {
			s.tail, c.raw = c.buf[used:n], int64(used)
			if len(c.records) > 0 && err != nil {
				s.err, err, s.tail = err, nil, nil // First those before it.
			}
			return err
		}
		if s.err != nil {
			return s.last(c, n)
		}
		searched = max(0, n-len(s.delim)+1)
		if n == len(c.buf) {
			if n > s.cfg.MaxRecordBytes {
				return s.bad(&TooLong{Bytes: n, Max: s.cfg.MaxRecordBytes})
			}
			c.buf = append(c.buf, make([]byte, len(c.buf))...)
			c.buf = c.buf[:cap(c.buf)]
		}
		m, err := s.r.Read(c.buf[n:])
		n += m
		s.err = err
		if m > 0 {
			empty = 0
		} else if empty++; err == nil && empty > maxEmptyReads {
			s.err = io.ErrNoProgress
		}
	}
}

// last ends the stream: with the line that has no delimiter, if there is one.
func (s *lineSource) last(c *chunk, n int) error {
	if n > 0 && errors.Is(s.err, io.EOF) {
		c.raw = int64(n)
		return s.add(c, c.buf[:n:n])
	}
	return s.err
}

// split adds the whole lines in b to the chunk and returns how many bytes they took. No delimiter ends before searched.
func (s *lineSource) split(c *chunk, b []byte, searched int) (used int, err error) {
	for len(c.records) < chunkRecords {
		i := bytes.Index(b[max(used, searched):], s.delim)
		if i < 0 {
			break
		}
		end := max(used, searched) + i
		if err := s.add(c, b[used:end:end]); err != nil {
			return used, err
		}
		used = end + len(s.delim)
	}
	return used, nil
}

// add appends one line to the chunk's records.
func (s *lineSource) add(c *chunk, line []byte) error {
	var key []byte
	if len(s.separator) > 0 {
		i := bytes.Index(line, s.separator)
		if i < 0 {
			return s.bad(fmt.Errorf("has no key separator %q", s.separator))
		}
		key, line = line[:i:i], line[i+len(s.separator):]
	}
	if len(c.records) == cap(c.records) {
		c.records = append(make([]kgo.Record, 0, max(64, 2*cap(c.records))), c.records...)
	}
	c.records = c.records[:len(c.records)+1]
	r := &c.records[len(c.records)-1]
	*r = kgo.Record{Key: key, Value: line, Headers: s.cfg.Headers, Topic: s.cfg.Topic, Partition: s.cfg.Partition}
	if n := recordSize(r); n > s.cfg.MaxRecordBytes {
		c.records = c.records[:len(c.records)-1]
		return s.bad(&TooLong{Bytes: len(key) + len(line), Max: s.cfg.MaxRecordBytes})
	}
	s.next1++
	return nil
}

func (s *lineSource) bad(err error) error { return &BadRecord{"line", s.next1, err} }
