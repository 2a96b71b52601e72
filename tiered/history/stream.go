package history

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/tierlog/tierlog/objstore"
	"github.com/tierlog/tierlog/record"
)

// span is a byte range of an object.
type span struct {
	key       string
	pos, size int64
}

// chunk is one read under way. done is closed when buf and err are set.
type chunk struct {
	span int // index of its span
	off  int64
	buf  []byte
	err  error
	done chan struct{}
}

// stream reads spans one after the other, a bounded number of bytes ahead. Use it from one goroutine, and close it.
type stream struct {
	read   func(key string, p []byte, off int64) error
	cancel context.CancelFunc
	spans  []span
	size   int // of a chunk
	limit  int // bytes to be read ahead

	next  int   // span of the next chunk to be asked for
	off   int64 // in that span
	ahead []*chunk
	bytes int // of ahead
	free  [][]byte

	at   int    // span of mem
	mem  []byte // what is read and not yet taken
	pos  int64  // of mem in the object
	hold []byte // the whole buffer of mem
	join []byte // holds a batch that chunks share
}

func newStream(ctx context.Context, cfg *Config, spans []span) *stream {
	ctx, cancel := context.WithCancel(ctx)
	return &stream{
		read:   func(key string, p []byte, off int64) error { return readFull(ctx, cfg.Store, key, p, off) },
		cancel: cancel, spans: spans, size: cfg.ChunkBytes, limit: cfg.ChunkBytes * cfg.ReadAhead, at: -1,
	}
}

// close ends the reads ahead and waits for them.
func (s *stream) close() {
	s.cancel()
	for _, c := range s.ahead {
		<-c.done
	}
	s.ahead = nil
}

// fill keeps reads under way.
func (s *stream) fill() {
	for len(s.ahead) < lookups && s.bytes < s.limit && s.next < len(s.spans) {
		sp := s.spans[s.next]
		n := int(min(int64(s.size), sp.size-s.off))
		if n <= 0 {
			s.next, s.off = s.next+1, 0
			continue
		}
		c := &chunk{span: s.next, off: sp.pos + s.off, buf: s.buffer(n), done: make(chan struct{})}
		s.off += int64(n)
		s.bytes += n
		s.ahead = append(s.ahead, c)
		go func() {
			defer close(c.done)
			c.err = s.read(sp.key, c.buf, c.off)
		}()
	}
}

func (s *stream) buffer(n int) []byte {
	for len(s.free) > 0 {
		b := s.free[len(s.free)-1]
		s.free = s.free[:len(s.free)-1]
		if cap(b) >= n {
			return b[:n]
		}
	}
	return make([]byte, n)
}

// readFull reads exactly len(p) bytes.
func readFull(ctx context.Context, store objstore.Store, key string, p []byte, off int64) error {
	n, info, err := store.ReadAt(ctx, key, p, off)
	if err != nil {
		return err
	}
	if n < len(p) {
		return fmt.Errorf("%w: it has %d bytes, at least %d are expected: truncated", ErrCorrupt, info.Size, off+int64(len(p)))
	}
	return nil
}

// more replaces mem, which is used up, by the next chunk. io.EOF at the end of the span.
func (s *stream) more() error {
	if s.hold != nil {
		s.free = append(s.free, s.hold)
		s.hold, s.mem = nil, nil
	}
	s.fill()
	if len(s.ahead) == 0 || s.ahead[0].span != s.at {
		return io.EOF
	}
	c := s.ahead[0]
	<-c.done
	s.ahead = s.ahead[1:]
	s.bytes -= len(c.buf)
	if c.err != nil {
		return fmt.Errorf("%s: %w", s.spans[s.at].key, c.err)
	}
	s.hold, s.mem, s.pos = c.buf, c.buf, c.off
	s.fill()
	return nil
}

// batch returns the next batch of span i and its position in the object; the one before is not valid any more. It is
// io.EOF at the span's end. Spans must be read in order and to their ends. The checksum is not checked.
func (s *stream) batch(i int) (b record.Batch, pos int64, err error) {
	s.at = i
	if len(s.mem) == 0 {
		if err := s.more(); err != nil {
			return nil, s.pos, err
		}
	}
	pos, s.join = s.pos, s.join[:0]
	left := s.spans[i].pos + s.spans[i].size - pos
	corrupt := func(format string, args ...any) error {
		return fmt.Errorf("%s: byte %d: %w: %s", s.spans[i].key, pos, ErrCorrupt, fmt.Sprintf(format, args...))
	}
	if left < record.HeaderSize {
		return nil, pos, corrupt("%d bytes are left, a batch has at least %d", left, record.HeaderSize)
	}
	head := record.Batch(s.mem)
	if len(head) < record.HeaderSize {
		if err := s.gather(record.HeaderSize); err != nil {
			return nil, pos, err
		}
		head = s.join
	}
	size := head.Size()
	if head.Magic() != 2 || size < record.HeaderSize || int64(size) > left || head.LastOffsetDelta() < 0 {
		return nil, pos, corrupt("no batch: magic %d, length %d with %d bytes left, last offset delta %d", head.Magic(), size, left, head.LastOffsetDelta())
	}
	if len(s.join) == 0 && len(s.mem) >= size {
		b = record.Batch(s.mem[:size:size])
		s.skip(size)
		return b, pos, nil
	}
	if err := s.gather(size); err != nil {
		return nil, pos, err
	}
	return s.join, pos, nil
}

// gather moves bytes to join until it holds n. There must be as many in the span.
func (s *stream) gather(n int) error {
	s.join = slices.Grow(s.join, n-len(s.join))
	for len(s.join) < n {
		if len(s.mem) == 0 {
			err := s.more()
			if errors.Is(err, io.EOF) {
				err = fmt.Errorf("%s: %w: it ends early", s.spans[s.at].key, ErrCorrupt)
			}
			if err != nil {
				return err
			}
		}
		take := min(n-len(s.join), len(s.mem))
		s.join = append(s.join, s.mem[:take]...)
		s.skip(take)
	}
	return nil
}

func (s *stream) skip(n int) {
	s.mem = s.mem[n:]
	s.pos += int64(n)
}
