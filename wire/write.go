package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"net"
	"os"
	"time"
)

const (
	// maxResponseHeader is a length, a correlation id and an empty section of tagged fields.
	maxResponseHeader = 9
	// Responses in parts up to copyLimit are copied, so that many leave with one write; larger ones are not.
	copyLimit = 8 << 10
	// Larger output buffers are not kept between writes.
	keepOut = 32 << 10
	keepVec = 1 << 10
)

// writer is the writing half of a connection; its fields are owned by the goroutine of writeLoop.
type writer struct {
	c     *Conn
	out   []byte      // encoded responses and headers
	cut   int         // what of out is in vec already
	vec   [][]byte    // pieces to write, where out alone is not all
	rest  net.Buffers // what of vec is not written
	timer *time.Timer // for the head's deadline, nil before the first
	until time.Time   // the write deadline in force
}

// errWritten ends the writer after the last response.
var errWritten = errors.New("all responses are written")

// writeLoop writes responses until the connection ends, then gives up what is left.
func (c *Conn) writeLoop() {
	err := c.out.run()
	if c.out.timer != nil {
		c.out.timer.Stop()
	}
	c.mu.Lock()
	if !errors.Is(err, errWritten) {
		c.because(err)
	}
	c.noWriter = true
	left := c.head
	c.head, c.tail = nil, nil
	var dropped []*Reply
	for r := left; r != nil; r = r.next {
		dropped = append(dropped, r)
		r.state, r.late = taken, nil
	}
	c.mu.Unlock()
	for _, r := range dropped {
		c.retire(r, 0, false)
	}
	c.drain()
	c.cancel(err)
}

func (w *writer) run() error {
	c := w.c
	for {
		first, late, err := w.take()
		switch {
		case err != nil:
			return err
		case first != nil:
			if err := w.write(first); err != nil {
				return err
			}
		case late != nil:
			c.guard(late)
		default:
			w.wait()
		}
	}
}

// wait returns when the head of the queue may have changed.
func (w *writer) wait() {
	var passed <-chan time.Time
	if w.timer != nil {
		passed = w.timer.C
	}
	select {
	case <-w.c.wake:
	case <-passed:
		w.c.mu.Lock()
		w.c.timerAt = time.Time{}
		w.c.mu.Unlock()
	case <-w.c.ctx.Done():
	}
}

// take removes the completed replies at the head of the queue, up to the first large one, as a list. Where there is
// none it returns the head's deadline function if that is due. An error ends the connection.
func (w *writer) take() (first *Reply, late func(), err error) {
	c := w.c
	c.mu.Lock()
	defer c.mu.Unlock()
	h := c.head
	switch {
	case c.killed:
		return nil, nil, c.cause
	case h == nil && c.readEnd != nil:
		return nil, nil, errWritten
	case h == nil:
		return nil, nil, nil
	case h.state == open && c.readEnd != nil && peerLeft(c.readEnd):
		return nil, nil, errWritten // nobody waits for it
	case h.state == open:
		return nil, w.due(h), nil
	case h.answer.kind == answerFail:
		return nil, nil, h.answer.err
	}
	last := h
	for r := h; r != nil && r.state == ready && r.answer.kind != answerFail; r = r.next {
		r.state, last = taken, r
		if r.answer.size > copyLimit {
			break
		}
	}
	c.head, last.next = last.next, nil
	if c.head == nil {
		c.tail = nil
	}
	return h, nil, nil
}

func peerLeft(err error) bool {
	reason := reasonOf(err)
	return reason == ReasonPeer || reason == ReasonNetwork
}

// due returns the deadline function of an open reply if it is due; else it sees to it that the timer fires by then.
// A timer that fires too early does no harm: replies that are completed in time leave it as it is. Callers hold mu.
func (w *writer) due(r *Reply) func() {
	if r.late == nil {
		return nil
	}
	left := r.deadline.Sub(w.c.srv.cfg.Now())
	if left <= 0 {
		late := r.late
		r.late = nil
		return late
	}
	if at := w.c.timerAt; at.IsZero() || r.deadline.Before(at) {
		if w.timer == nil {
			w.timer = time.NewTimer(left)
		} else {
			w.timer.Reset(left)
		}
		w.c.timerAt = r.deadline
	}
	return nil
}

// write writes the responses of a list of replies and retires them, whether that succeeds or not. One that cannot be
// encoded ends the connection after those before it.
func (w *writer) write(first *Reply) error {
	c := w.c
	var err error
	bad := first // the first reply that is not written
	for ; bad != nil && err == nil; bad = bad.next {
		if err = w.encode(bad); err != nil {
			break
		}
	}
	if failed := w.flush(); failed != nil {
		c.kill(failed)
		err, bad = failed, first
	}
	now := c.srv.cfg.Now()
	c.active.Store(now.UnixNano())
	n, sent := 0, true
	for r := first; r != nil; n++ {
		next := r.next
		r.next = nil
		sent = sent && r != bad
		c.retire(r, now.Sub(r.req.Received)-r.took, sent)
		r = next
	}
	c.mu.Lock()
	c.written(n)
	c.mu.Unlock()
	return err
}

// retire ends a request: its response is written, or never will be. The writer has it alone.
func (c *Conn) retire(r *Reply, wait time.Duration, sent bool) {
	release := r.answer.release
	r.answer = answer{}
	if release != nil {
		c.guard(release)
	}
	c.observe(r, wait, sent)
}

// encode appends the response to out, or large parts to vec.
func (w *writer) encode(r *Reply) (err error) {
	at := len(w.out)
	defer func() {
		if v := recover(); v != nil {
			err = recovered(v) // a message that cannot be encoded is the handler's fault
		}
		if err != nil {
			w.out = w.out[:at]
		}
	}()
	a := &r.answer
	if a.kind == answerNothing {
		return nil
	}
	w.out = append(w.out, 0, 0, 0, 0)
	w.out = binary.BigEndian.AppendUint32(w.out, uint32(r.req.CorrelationID))
	if w.c.srv.apis.flexibleResponse(r.req.Key, r.req.Version) {
		w.out = append(w.out, 0) // no tagged fields
	}
	inPlace := a.kind == answerParts && a.size > copyLimit
	if a.kind == answerMessage {
		w.out = a.msg.AppendTo(w.out)
	} else if !inPlace {
		for _, p := range a.parts {
			w.out = append(w.out, p...)
		}
	}
	size := len(w.out) - at - 4
	if inPlace {
		size += a.size
	}
	if size > math.MaxInt32 {
		return tooLarge(size)
	}
	binary.BigEndian.PutUint32(w.out[at:], uint32(size))
	r.sent = size + 4
	if inPlace {
		w.place(a.parts)
	}
	return nil
}

// place puts what out holds and then the parts into vec.
func (w *writer) place(parts [][]byte) {
	w.vec = append(w.vec, w.out[w.cut:len(w.out):len(w.out)])
	w.cut = len(w.out)
	for _, p := range parts {
		if len(p) > 0 {
			w.vec = append(w.vec, p)
		}
	}
}

// flush writes out and vec and empties them.
func (w *writer) flush() error {
	var err error
	if len(w.vec) == 0 {
		if len(w.out) > 0 {
			err = w.push(w.writeOut)
		}
	} else {
		if w.cut < len(w.out) {
			w.vec = append(w.vec, w.out[w.cut:])
		}
		w.rest = w.vec
		err = w.push(w.writeVec)
	}
	clear(w.vec)
	w.rest, w.vec, w.out, w.cut = nil, w.vec[:0], w.out[:0], 0
	if cap(w.out) > keepOut {
		w.out = nil
	}
	if cap(w.vec) > keepVec {
		w.vec = nil
	}
	return err
}

// writeOut and writeVec write what is left; they return the bytes that were written, and what is left by then.
func (w *writer) writeOut() (n int64, left bool, err error) {
	m, err := w.c.nc.Write(w.out[w.cut:])
	w.cut += m
	return int64(m), w.cut < len(w.out), err
}

func (w *writer) writeVec() (n int64, left bool, err error) {
	n, err = w.rest.WriteTo(w.c.nc)
	return n, len(w.rest) > 0, err
}

// push calls write until nothing is left, as long as the peer takes something within the write timeout. The deadline
// is moved only when half of it has passed; one that passes too early is told by the time this write has taken.
func (w *writer) push(write func() (int64, bool, error)) error {
	timeout, now := w.c.srv.cfg.WriteTimeout, w.c.srv.cfg.Now()
	moved := now // when bytes were last known to have left
	if w.until.Sub(now) < timeout/2 {
		if err := w.writeUntil(now.Add(timeout)); err != nil {
			return err
		}
	}
	for {
		n, left, err := write()
		if !left {
			return nil
		}
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		}
		now := w.c.srv.cfg.Now()
		if n > 0 {
			moved = now
		} else if now.Sub(moved) >= timeout {
			return ending(ReasonSlow, fmt.Errorf("the peer has read nothing of its responses for %v", now.Sub(moved).Round(time.Second)))
		}
		if err := w.writeUntil(moved.Add(timeout)); err != nil {
			return err
		}
	}
}

func (w *writer) writeUntil(t time.Time) error {
	w.until = t
	return w.c.nc.SetWriteDeadline(t)
}
