package wire

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/tierlog/tierlog/membuf"
)

const (
	readBuffer = 8 << 10
	// Produce frames up to smallFrame share chunks, larger ones have a buffer of their own. A chunk is kept while any
	// of its frames is, so chunks start small and grow only as long as they are used up quickly.
	smallFrame = readBuffer
	minChunk   = 4 << 10
	maxChunk   = 32 << 10
	// tick is how often a busy connection looks for stalls and unused chunks, at most.
	tick = 2 * time.Second
)

// reader is the reading half of a connection; its fields are owned by the connection's goroutine.
//
// Deadlines cost little: a busy connection has one that passes every tick, whatever is going on, and only then looks
// what happened since. An idle one sleeps until its idle timeout.
type reader struct {
	c   *Conn
	buf *bufio.Reader // reads through Read below

	chunk     *membuf.Buf // where small produce frames go, nil if none; one reference
	free      []byte      // the unused end of the chunk
	chunkSize int         // of the next chunk

	clientID string // of the last request: connections seldom change it

	armed  arming
	inBody bool      // a frame's length was read and its body was not
	moved  bool      // bytes arrived since the last tick
	move   time.Time // the last tick at which they had
	frames uint64    // read so far
	seen   uint64    // frames at the last tick
}

type arming uint8

const (
	unarmed arming = iota
	ticking        // the read deadline is the next tick
	idling         // the read deadline is the idle timeout
)

func (c *Conn) readLoop() error {
	for {
		if err := c.room(); err != nil {
			return err
		}
		r, err := c.in.next()
		if err != nil {
			return err
		}
		if err := c.handle(r); err != nil {
			return err
		}
	}
}

// room waits until another reply may be pending.
func (c *Conn) room() error {
	for {
		if c.reading.Err() != nil {
			return context.Cause(c.reading)
		}
		c.mu.Lock()
		ok := c.pending < c.srv.cfg.MaxPending
		c.wantRoom = !ok
		c.mu.Unlock()
		if ok {
			return nil
		}
		select {
		case <-c.resume:
		case <-c.reading.Done():
		}
	}
}

// handle gives the request to the handler and returns when the next one may be read.
func (c *Conn) handle(r *Reply) error {
	if !c.push(r) {
		c.in.giveBack(&r.req)
		return errDraining
	}
	err := c.call(r)
	c.in.giveBack(&r.req)
	if err != nil {
		r.complete(answer{kind: answerFail, err: err})
		return err
	}
	return c.settle(r)
}

func (c *Conn) call(r *Reply) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = recovered(v)
		}
	}()
	if err := c.srv.cfg.Handler.Handle(c.ctx, &r.req, r); err != nil {
		return ending(ReasonHandler, err)
	}
	return nil
}

// settle waits until the reply is completed, unless it may be overtaken by the next requests.
func (c *Conn) settle(r *Reply) error {
	for {
		c.mu.Lock()
		done := r.state != open || r.pipelined
		if !done {
			c.awaited = r
		}
		c.mu.Unlock()
		if done {
			return nil
		}
		select {
		case <-c.resume:
		case <-c.ctx.Done():
			return context.Cause(c.ctx)
		}
	}
}

// next reads a frame.
func (in *reader) next() (*Reply, error) {
	size, err := in.size()
	if err != nil {
		return nil, err
	}
	in.inBody = true
	defer func() { in.inBody = false }()
	start, err := in.buf.Peek(4 + minFrame)
	if err != nil {
		return nil, in.broken(err)
	}
	r := &Reply{}
	r.req.Conn, r.req.size = in.c, size+4
	r.req.Key = int16(binary.BigEndian.Uint16(start[4:]))
	r.req.Version = int16(binary.BigEndian.Uint16(start[6:]))
	if r.req.Unsupported, err = in.c.srv.apis.lookup(r.req.Key, r.req.Version); err != nil {
		return nil, ending(ReasonUnsupported, err)
	}
	if _, err := in.buf.Discard(4); err != nil {
		return nil, in.broken(err)
	}
	return r, in.fill(&r.req, size)
}

// size reads the length of the next frame without consuming it.
func (in *reader) size() (int, error) {
	start, err := in.buf.Peek(4)
	if err != nil {
		if errors.Is(err, io.EOF) && len(start) == 0 {
			return 0, errPeerClosed
		}
		return 0, in.broken(err)
	}
	size := int32(binary.BigEndian.Uint32(start))
	if size < minFrame || int(size) > in.c.srv.cfg.MaxRequestBytes {
		start, _ = in.buf.Peek(min(in.buf.Buffered(), 16))
		return 0, ending(ReasonMalformed, fmt.Errorf("frame length %d, allowed are %d to %d: it looks like %s (first bytes %x)",
			size, minFrame, in.c.srv.cfg.MaxRequestBytes, looksLike(start), start))
	}
	return int(size), nil
}

// broken explains an error in the middle of a frame.
func (in *reader) broken(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return ending(ReasonNetwork, errors.New("the connection ended in the middle of a request"))
	}
	return err
}

// fill reads the frame of size bytes into memory within the budget and parses its header.
func (in *reader) fill(req *Request, size int) error {
	frame, err := in.space(req, size)
	if err != nil {
		return err
	}
	if _, err = io.ReadFull(in.buf, frame); err != nil {
		err = in.broken(err)
	} else {
		err = in.parse(req, frame)
	}
	if err != nil {
		in.giveBack(req)
	}
	return err
}

func (in *reader) parse(req *Request, frame []byte) error {
	h, body, err := parseHeader(frame, in.c.srv.apis.flexibleRequest(req.Key, req.Version))
	if err != nil && !req.Unsupported {
		return ending(ReasonMalformed, err)
	}
	if in.clientID != string(h.clientID) {
		in.clientID = string(h.clientID)
	}
	req.CorrelationID, req.ClientID, req.Body = h.correlationID, in.clientID, body
	req.Received = in.c.srv.cfg.Now()
	in.c.active.Store(req.Received.UnixNano())
	in.frames++
	return nil
}

// space returns memory for a frame: part of a Buf for Produce, else ordinary memory. Large frames other than Produce
// have a budget of their own, and small ones, at most one for each connection, have none: heartbeats and fetches do
// not wait for producers.
func (in *reader) space(req *Request, size int) ([]byte, error) {
	if req.Key == keyProduce {
		return in.produceSpace(req, size)
	}
	if size > smallFrame {
		if err := in.c.srv.cfg.OtherBudget.Acquire(in.c.reading, int64(size)); err != nil {
			return nil, context.Cause(in.c.reading)
		}
		req.charged = int64(size)
		in.moved = true // the wait, if any, was ours
	}
	return make([]byte, size), nil
}

// produceSpace waits until the budget has room. A connection that waits holds no chunk, or those who wait might block
// each other with memory that nobody uses.
func (in *reader) produceSpace(req *Request, size int) ([]byte, error) {
	if size > smallFrame {
		in.dropChunk()
		buf, err := in.get(size)
		if err != nil {
			return nil, err
		}
		req.Buf = buf
		return buf.Bytes(), nil
	}
	if len(in.free) < size {
		if in.chunk != nil {
			in.chunkSize = min(2*in.chunkSize, maxChunk)
		}
		in.dropChunk()
		buf, err := in.get(max(in.chunkSize, size))
		if err != nil {
			return nil, err
		}
		in.chunk, in.free = buf, buf.Bytes()
	}
	frame := in.free[:size:size]
	in.free = in.free[size:]
	in.chunk.Retain()
	req.Buf = in.chunk
	return frame, nil
}

func (in *reader) get(n int) (*membuf.Buf, error) {
	cfg := &in.c.srv.cfg
	buf, err := cfg.Pool.GetWithin(in.c.reading, cfg.Budget, n)
	if err != nil {
		return nil, context.Cause(in.c.reading)
	}
	in.moved = true
	return buf, nil
}

// giveBack ends the use of the memory that space returned.
func (in *reader) giveBack(req *Request) {
	if req.Buf != nil {
		req.Buf.Release()
	} else if req.charged > 0 {
		in.c.srv.cfg.OtherBudget.Release(req.charged)
	}
}

func (in *reader) dropChunk() {
	if in.chunk != nil {
		in.chunk.Release()
		in.chunk, in.free = nil, nil
	}
}

// middle tells whether the peer owes the rest of a frame.
func (in *reader) middle() bool { return in.inBody || in.buf.Buffered() > 0 }

// Read reads from the socket on behalf of buf, keeping the time-outs.
func (in *reader) Read(p []byte) (int, error) {
	for {
		if err := in.arm(); err != nil {
			return 0, err
		}
		n, err := in.c.nc.Read(p)
		if n > 0 {
			in.moved = true
			return n, nil // an error will come again
		}
		if err == nil || !errors.Is(err, os.ErrDeadlineExceeded) {
			return n, err
		}
		if err := in.expired(); err != nil {
			return 0, err
		}
	}
}

// arm sets a read deadline where none that is early enough is set.
func (in *reader) arm() error {
	switch {
	case in.armed == ticking:
		return nil
	case in.middle() || in.chunk != nil:
		now := in.c.srv.cfg.Now()
		in.moved, in.move = false, now
		return in.nextTick(now)
	case in.armed == unarmed:
		return in.sleep(in.c.srv.cfg.Now())
	}
	return nil
}

func (in *reader) nextTick(now time.Time) error {
	in.armed, in.seen = ticking, in.frames
	return in.c.readUntil(now.Add(min(tick, in.c.srv.cfg.BodyTimeout/4)))
}

// sleep sets the deadline to the idle timeout.
func (in *reader) sleep(from time.Time) error {
	in.armed = idling
	if in.c.srv.cfg.IdleTimeout < 0 {
		return in.c.readUntil(time.Time{})
	}
	return in.c.readUntil(from.Add(in.c.srv.cfg.IdleTimeout))
}

// expired decides what a passed read deadline means.
func (in *reader) expired() error {
	if in.c.reading.Err() != nil {
		return context.Cause(in.c.reading)
	}
	cfg, now := &in.c.srv.cfg, in.c.srv.cfg.Now()
	if in.middle() {
		if in.moved {
			in.moved, in.move = false, now
		} else if now.Sub(in.move) >= cfg.BodyTimeout {
			return ending(ReasonStalled, fmt.Errorf("no byte for %v in the middle of a request", now.Sub(in.move).Round(time.Second)))
		}
		return in.nextTick(now)
	}
	if in.frames != in.seen {
		return in.nextTick(now)
	}
	in.dropChunk()
	in.chunkSize = minChunk
	return in.idle(now)
}

// idle ends a connection on which nothing happens.
func (in *reader) idle(now time.Time) error {
	cfg := &in.c.srv.cfg
	if cfg.IdleTimeout < 0 {
		return in.sleep(now)
	}
	in.c.mu.Lock()
	pending := in.c.pending
	in.c.mu.Unlock()
	last := time.Unix(0, in.c.active.Load())
	switch {
	case pending > 0:
		return in.sleep(now)
	case now.Sub(last) >= cfg.IdleTimeout:
		return ending(ReasonIdle, fmt.Errorf("idle for %v", now.Sub(last).Round(time.Second)))
	}
	return in.sleep(last)
}
