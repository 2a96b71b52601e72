package wire

import (
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// Reply is the pending answer to one request. Its methods may be called by any goroutine. The first of Send,
// SendParts, SendNothing and Fail completes it; they report whether they were the one that did.
type Reply struct {
	req  Request
	next *Reply // the request after this one; owned by conn.mu, then by the writer

	state     replyState    // owned by conn.mu
	pipelined bool          // owned by conn.mu
	deadline  time.Time     // zero where none; owned by conn.mu
	late      func()        // called at the deadline; owned by conn.mu
	answer    answer        // set when completed; owned by conn.mu, then by the writer
	took      time.Duration // from the request being read to completion; owned likewise
	sent      int           // bytes of the response; owned by the writer
}

type replyState uint8

const (
	open  replyState = iota // to be completed
	ready                   // completed, in the connection's queue
	taken                   // handed to the writer, or given up: nothing that happens later matters
)

type answerKind uint8

const (
	answerMessage answerKind = iota
	answerParts
	answerNothing
	answerFail
)

type answer struct {
	kind    answerKind
	msg     kmsg.Response
	parts   [][]byte
	size    int // of the parts
	release func()
	err     error
}

// Pipeline lets the next requests of the connection be handled before this reply is completed. Responses keep their
// order. It has an effect only before Handle returns.
func (r *Reply) Pipeline() {
	c := r.req.Conn
	c.mu.Lock()
	r.pipelined = true
	c.mu.Unlock()
}

// OnDeadline has late called once, if the reply is not completed when d has passed since the request was received.
// It is called when all earlier responses have been written, possibly later than d, by a goroutine that must not be
// held up; it would complete the reply with a time-out. A completion that comes after has no effect.
func (r *Reply) OnDeadline(d time.Duration, late func()) {
	c := r.req.Conn
	c.mu.Lock()
	defer c.mu.Unlock()
	if r.state != open {
		return
	}
	r.deadline, r.late = r.req.Received.Add(d), late
	if c.head == r {
		c.nudge()
	}
}

// Send completes the reply with a message, which has its version set and is encoded when its turn comes: it must not
// be changed afterwards.
func (r *Reply) Send(msg kmsg.Response) bool {
	return r.complete(answer{kind: answerMessage, msg: msg})
}

// SendParts completes the reply with a response body in parts (what follows the response header). The parts must not
// change before release is called, which may be at once; release may be nil and must not block.
func (r *Reply) SendParts(parts [][]byte, release func()) bool {
	size := 0
	for _, p := range parts {
		size += len(p)
	}
	if size > math.MaxInt32-maxResponseHeader {
		return r.complete(answer{kind: answerFail, release: release, err: tooLarge(size)})
	}
	return r.complete(answer{kind: answerParts, parts: parts, size: size, release: release})
}

// SendNothing completes the reply of a request that has no response: produce with acks=0.
func (r *Reply) SendNothing() bool { return r.complete(answer{kind: answerNothing}) }

// Fail completes the reply by closing the connection, once the earlier replies are written.
func (r *Reply) Fail(err error) bool {
	if err == nil {
		err = errors.New("unspecified error")
	}
	return r.complete(answer{kind: answerFail, err: ending(ReasonHandler, err)})
}

func tooLarge(size int) error {
	return ending(ReasonHandler, fmt.Errorf("response of %d bytes does not fit a frame", size))
}

func (r *Reply) complete(a answer) bool {
	c := r.req.Conn
	took := c.srv.cfg.Now().Sub(r.req.Received)
	c.mu.Lock()
	if r.state != open {
		c.mu.Unlock()
		if a.release != nil {
			c.guard(a.release)
		}
		return false
	}
	r.state, r.answer, r.took, r.late = ready, a, took, nil
	if c.awaited == r {
		c.awaited = nil
		signal(c.resume)
	}
	if c.head != r {
		c.mu.Unlock()
		return true
	}
	if a.kind != answerNothing {
		signal(c.wake)
		c.mu.Unlock()
		return true
	}
	// Nothing to write and nobody before it: the writer need not know.
	c.head = r.next
	if c.head == nil {
		c.tail = nil
	}
	r.next, r.state = nil, taken
	c.written(1)
	c.nudge()
	c.mu.Unlock()
	c.observe(r, 0, true)
	return true
}

// signal wakes the one goroutine that waits on a channel of capacity one, now or when it comes to wait.
func signal(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}
