package feed

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/twmb/franz-go/pkg/kgo"
)

// encodedFactor is how much longer a record may be in the stream than on the wire (hex, white space in JSON).
const encodedFactor = 4

// layoutSource reads records in any layout of kgo.RecordReader, one a chunk: the next one may be long in coming.
type layoutSource struct {
	cfg     Config
	limited *limitedReader
	reader  *kgo.RecordReader
	// Whether the layout has these. The client's reader makes an empty key or value null; here empty is empty.
	headers, keys, values bool
	next1                 Number // of the next record
	err                   error
}

func newLayoutSource(r io.Reader, cfg Config) (*layoutSource, error) {
	s := &layoutSource{cfg: cfg, limited: &limitedReader{r: r}, next1: 1}
	s.headers, s.keys, s.values = HasVerb(cfg.Layout, 'h'), HasVerb(cfg.Layout, 'k'), HasVerb(cfg.Layout, 'v')
	s.limited.endLine = strings.HasSuffix(cfg.Layout, `\n`) || strings.HasSuffix(cfg.Layout, "\n")
	var err error
	s.reader, err = kgo.NewRecordReader(s.limited, cfg.Layout)
	return s, err
}

// HasVerb tells whether a layout has the given verb outside of a header specification.
func HasVerb(layout string, verb byte) bool {
	for i := 0; i+1 < len(layout); i++ {
		if layout[i] == '\\' {
			i++
			continue
		}
		if layout[i] != '%' {
			continue
		}
		i++
		if layout[i] == verb {
			return true
		}
		if escaped := strings.IndexByte("%{}", layout[i]) >= 0; !escaped && i+1 < len(layout) && layout[i+1] == '{' {
			i += closingBrace(layout[i+1:]) + 1
		}
	}
	return false
}

// closingBrace returns where the brace that s starts with is closed.
func closingBrace(s string) int {
	depth := 0
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '%', '\\':
			i++
		case '{':
			depth++
		case '}':
			if depth--; depth == 0 {
				return i
			}
		}
	}
	return len(s)
}

func (s *layoutSource) next(c *chunk) error {
	if s.err != nil {
		return s.err
	}
	if c.records == nil {
		c.records = make([]kgo.Record, 1)
	}
	c.records[0] = kgo.Record{Headers: s.cfg.Headers, Topic: s.cfg.Topic, Partition: s.cfg.Partition}
	r := &c.records[0]
	before := s.limited.read
	s.limited.left = encodedFactor*s.cfg.MaxRecordBytes + chunkBytes
	err := s.reader.ReadRecordInto(r)
	if errors.Is(err, io.EOF) {
		return err
	}
	if s.keys && r.Key == nil {
		r.Key = []byte{}
	}
	if s.values && r.Value == nil {
		r.Value = []byte{}
	}
	if s.headers {
		r.Headers = append(r.Headers, s.cfg.Headers...)
	}
	if err == nil && recordSize(r) > s.cfg.MaxRecordBytes {
		err = &TooLong{Bytes: len(r.Key) + len(r.Value), Max: s.cfg.MaxRecordBytes}
	}
	if err != nil {
		if errors.Is(err, io.ErrUnexpectedEOF) {
			err = errors.New("the input ends in the middle of it")
		}
		s.err = &BadRecord{"record", s.next1, fmt.Errorf("%w (input format %s)", err, strings.TrimSpace(s.cfg.Layout))}
		return s.err
	}
	c.first, c.raw = s.next1, s.limited.read-before
	s.next1++
	return nil
}

// limitedReader ends a record that never ends, and ends the last line if it must.
type limitedReader struct {
	r       io.Reader
	left    int // bytes that may still be read for the record
	read    int64
	endLine bool // the layout ends with a line feed, so the stream is made to
	last    byte // the last byte read
}

func (l *limitedReader) Read(p []byte) (int, error) {
	if l.left <= 0 {
		return 0, errors.New("longer than any record may be")
	}
	n, err := l.r.Read(p)
	l.left -= n
	l.read += int64(n)
	if n > 0 {
		l.last = p[n-1]
		if errors.Is(err, io.EOF) {
			return n, nil // It comes again.
		}
	}
	if n == 0 && errors.Is(err, io.EOF) && l.endLine && l.read > 0 && l.last != '\n' {
		l.last, p[0] = '\n', '\n'
		return 1, nil
	}
	return n, err
}
