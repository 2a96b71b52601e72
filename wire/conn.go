package wire

import (
	"bufio"
	"context"
	"net"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"
)

// lingerTimeout bounds the wait for the peer's close after the last response of a connection that the server closes.
const lingerTimeout = time.Second

// Conn is one client's connection.
type Conn struct {
	// State belongs to the handler, which may use it during Handle. Package wire does not touch it.
	State any

	srv *Server
	nc  net.Conn

	// ctx is done when no more responses are written; its cause says why.
	ctx    context.Context
	cancel context.CancelCauseFunc
	// reading is done when no further frame is to be read; also with ctx.
	reading     context.Context
	stopReading context.CancelCauseFunc

	in  reader
	out writer

	wake   chan struct{} // tells the writer that the head of the queue changed
	resume chan struct{} // tells the reader that there is room, or that the awaited reply is completed
	active atomic.Int64  // time of the last request or response, Unix nanoseconds

	mu       sync.Mutex
	head     *Reply    // oldest reply that the writer did not take; owned by mu
	tail     *Reply    // owned by mu
	pending  int       // replies not written, with those the writer took; owned by mu
	awaited  *Reply    // the reader waits for its completion; owned by mu
	wantRoom bool      // the reader waits for pending to fall; owned by mu
	readEnd  error     // why the reader stopped, nil while it runs; owned by mu
	draining bool      // read deadlines are no longer set; owned by mu
	timerAt  time.Time // when the writer will look at the head without being woken, or zero; owned by mu
	noWriter bool      // the writer has ended; owned by mu
	killed   bool      // the socket is closed; owned by mu
	cause    error     // why the connection ends, the first reason found; owned by mu
}

func newConn(ctx context.Context, s *Server, nc net.Conn) *Conn {
	c := &Conn{srv: s, nc: nc, wake: make(chan struct{}, 1), resume: make(chan struct{}, 1)}
	c.ctx, c.cancel = context.WithCancelCause(context.WithoutCancel(ctx)) // serve ends it with ctx
	c.reading, c.stopReading = context.WithCancelCause(c.ctx)
	c.in.c, c.out.c = c, c
	c.in.buf = bufio.NewReaderSize(&c.in, readBuffer)
	c.in.chunkSize = minChunk
	c.active.Store(s.cfg.Now().UnixNano())
	return c
}

// RemoteAddr returns the peer's address.
func (c *Conn) RemoteAddr() net.Addr { return c.nc.RemoteAddr() }

// LocalAddr returns the address the peer connected to.
func (c *Conn) LocalAddr() net.Addr { return c.nc.LocalAddr() }

// Close gives the connection up: replies that are not written are dropped.
func (c *Conn) Close(err error) { c.kill(ending(ReasonHandler, err)) }

// serve runs the connection until both directions have ended. ctx is the one it was made with.
func (c *Conn) serve(ctx context.Context) {
	stop := context.AfterFunc(ctx, func() { c.kill(errKilled) })
	defer stop()
	wrote := make(chan struct{})
	go func() {
		defer close(wrote)
		c.writeLoop()
	}()
	err := c.readLoop()
	c.in.dropChunk()
	c.mu.Lock()
	c.because(err)
	c.readEnd = err
	signal(c.wake)
	c.mu.Unlock()
	<-wrote
	c.mu.Lock()
	lingering := !c.killed && !peerLeft(c.cause)
	c.mu.Unlock()
	if lingering {
		c.linger()
	}
	c.kill(err)
	c.srv.logEnd(context.WithoutCancel(ctx), c, c.cause) // set before, never changed
	c.srv.cfg.Observer.ConnectionClosed(reasonOf(c.cause))
}

// because keeps the first reason for the connection's end. Callers hold mu.
func (c *Conn) because(err error) {
	if c.cause == nil {
		c.cause = err
	}
}

// kill closes the connection at once. What is queued is given up by the writer.
func (c *Conn) kill(err error) {
	c.mu.Lock()
	c.because(err)
	c.killed = true
	c.mu.Unlock()
	c.cancel(err)
	_ = c.nc.Close()
}

// drain has the reader stop before the next frame, and the connection close when pending replies are written.
func (c *Conn) drain() {
	c.stopReading(errDraining)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.draining = true
	_ = c.nc.SetReadDeadline(time.Unix(1, 0)) // long past: a blocked read returns
}

// readUntil sets the read deadline, unless the connection is draining.
func (c *Conn) readUntil(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.draining {
		return errDraining
	}
	return c.nc.SetReadDeadline(t)
}

// linger lets the peer read the last responses: closing a TCP connection with unread input would reset it, and what
// the peer has not read yet would be lost.
func (c *Conn) linger() {
	half, ok := c.nc.(interface{ CloseWrite() error })
	if !ok || half.CloseWrite() != nil || c.nc.SetReadDeadline(c.srv.cfg.Now().Add(lingerTimeout)) != nil {
		return
	}
	buf := make([]byte, 4096)
	for {
		if _, err := c.nc.Read(buf); err != nil {
			return
		}
	}
}

// push appends the reply to the queue. It reports false where nobody would write it.
func (c *Conn) push(r *Reply) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.noWriter {
		return false
	}
	if c.tail == nil {
		c.head = r
	} else {
		c.tail.next = r
	}
	c.tail = r
	c.pending++
	return true
}

// written counts n replies as written. Callers hold mu.
func (c *Conn) written(n int) {
	c.pending -= n
	if c.wantRoom {
		c.wantRoom = false
		signal(c.resume)
	}
}

// nudge wakes the writer if the head needs it: because it is completed, or its deadline comes before the timer.
// Callers hold mu.
func (c *Conn) nudge() {
	h := c.head
	if h == nil {
		if c.readEnd != nil {
			signal(c.wake)
		}
		return
	}
	if h.state == ready || (h.late != nil && (c.timerAt.IsZero() || h.deadline.Before(c.timerAt))) {
		signal(c.wake)
	}
}

// observe reports a request's end.
func (c *Conn) observe(r *Reply, wait time.Duration, sent bool) {
	s := Sample{Key: r.req.Key, Version: r.req.Version, BytesIn: r.req.size, Handle: r.took, Wait: wait, Sent: sent}
	if sent {
		s.BytesOut = r.sent
	}
	c.srv.cfg.Observer.RequestDone(s)
}

// guard runs a function of the handler's; a panic ends the connection only.
func (c *Conn) guard(f func()) {
	defer func() {
		if v := recover(); v != nil {
			c.kill(recovered(v))
		}
	}()
	f()
}

// recovered turns a panic into the error that ends the connection. It is called by the deferred function.
func recovered(v any) error {
	return ending(ReasonPanic, &panicError{value: v, stack: debug.Stack()})
}
