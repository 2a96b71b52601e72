package wire

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// memListener is a listener in memory, for tests in a synctest bubble.
type memListener struct {
	conns  chan net.Conn
	errs   chan error
	closed chan struct{}
	once   sync.Once
}

func newMemListener() *memListener {
	return &memListener{conns: make(chan net.Conn, 16), errs: make(chan error, 16), closed: make(chan struct{})}
}

func (l *memListener) Accept() (net.Conn, error) {
	select { // closed goes first
	case <-l.closed:
		return nil, net.ErrClosed
	default:
	}
	select {
	case c := <-l.conns:
		return c, nil
	case err := <-l.errs:
		return nil, err
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *memListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l *memListener) Addr() net.Addr { return memAddr("listener:1") }

// dial returns the client's end of a connection whose directions hold window bytes each.
func (l *memListener) dial(addr string, window int) *memConn {
	client, server := memPipe(addr, window)
	l.conns <- server
	return client
}

type memAddr string

func (memAddr) Network() string  { return "mem" }
func (a memAddr) String() string { return string(a) }

// memConn is one end of a connection in memory that buffers like a socket and can be half closed.
type memConn struct {
	in, out *stream
	remote  net.Addr

	mu     sync.Mutex
	writes int // calls of Write
}

func memPipe(addr string, window int) (client, server *memConn) {
	a, b := newStream(window), newStream(window)
	return &memConn{in: a, out: b, remote: memAddr("listener:1")}, &memConn{in: b, out: a, remote: memAddr(addr)}
}

func (c *memConn) Read(p []byte) (int, error) { return c.in.read(p) }

func (c *memConn) Write(p []byte) (int, error) {
	c.mu.Lock()
	c.writes++
	c.mu.Unlock()
	return c.out.write(p)
}

func (c *memConn) writeCalls() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.writes
}

// Close resets the connection where input is unread, as TCP does: the peer loses what it has not read.
func (c *memConn) Close() error {
	unread := c.in.close(true)
	c.out.close(false)
	if unread {
		c.out.reset()
	}
	return nil
}

func (c *memConn) CloseWrite() error {
	c.out.close(false)
	return nil
}

func (c *memConn) LocalAddr() net.Addr  { return memAddr("local:1") }
func (c *memConn) RemoteAddr() net.Addr { return c.remote }

func (c *memConn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

func (c *memConn) SetReadDeadline(t time.Time) error {
	return c.in.deadline(&c.in.readBy, t)
}

func (c *memConn) SetWriteDeadline(t time.Time) error {
	return c.out.deadline(&c.out.writeBy, t)
}

// stream is one direction.
type stream struct {
	window int

	mu      sync.Mutex
	changed *sync.Cond
	buf     []byte
	ended   bool // no more writes
	deaf    bool // no more reads
	broken  bool // reset by the writer
	readBy  due
	writeBy due
}

type due struct {
	at    time.Time
	timer *time.Timer
}

func (d due) passed() bool { return !d.at.IsZero() && !time.Now().Before(d.at) }

func newStream(window int) *stream {
	s := &stream{window: window}
	s.changed = sync.NewCond(&s.mu)
	return s
}

func (s *stream) read(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		switch {
		case s.deaf:
			return 0, net.ErrClosed
		case s.readBy.passed():
			return 0, os.ErrDeadlineExceeded
		case s.broken:
			return 0, syscall.ECONNRESET
		case len(s.buf) > 0:
			n := copy(p, s.buf)
			s.buf = s.buf[n:]
			s.changed.Broadcast()
			return n, nil
		case s.ended:
			return 0, io.EOF
		}
		s.changed.Wait()
	}
}

func (s *stream) write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for {
		switch {
		case s.ended:
			return n, net.ErrClosed
		case s.deaf:
			return n, syscall.EPIPE
		case s.writeBy.passed():
			return n, os.ErrDeadlineExceeded
		}
		m := min(len(p)-n, s.window-len(s.buf))
		s.buf = append(s.buf, p[n:n+m]...)
		n += m
		if m > 0 {
			s.changed.Broadcast()
		}
		if n == len(p) {
			return n, nil
		}
		s.changed.Wait()
	}
}

// close ends one end's part in the stream and tells whether bytes are left in it.
func (s *stream) close(reader bool) (left bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if reader {
		s.deaf = true
	} else {
		s.ended = true
	}
	for _, d := range []*due{&s.readBy, &s.writeBy} {
		if d.timer != nil {
			d.timer.Stop()
		}
	}
	s.changed.Broadcast()
	return len(s.buf) > 0
}

func (s *stream) reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.buf, s.broken = nil, true
	s.changed.Broadcast()
}

func (s *stream) deadline(d *due, t time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
	if s.deaf || (s.ended && d == &s.writeBy) {
		return net.ErrClosed
	}
	if d.at = t; !t.IsZero() {
		d.timer = time.AfterFunc(time.Until(t), s.changed.Broadcast)
	}
	s.changed.Broadcast()
	return nil
}
