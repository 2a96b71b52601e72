package tiered

import "sync/atomic"

// Commit is the outcome of one produce request: it is done when each batch that was appended under it is committed,
// and its owner called Seal. It fails as a whole when the log is fenced.
type Commit struct {
	pending atomic.Int64 // batches not yet committed, plus one until Seal
	failure atomic.Pointer[error]
	done    func(error)
}

// NewCommit returns a commit that calls done exactly once, from any goroutine; done must not block.
func NewCommit(done func(error)) *Commit {
	c := &Commit{done: done}
	c.pending.Store(1)
	return c
}

// Seal says that no further batch is appended under the commit.
func (c *Commit) Seal() { c.finish(nil) }

func (c *Commit) add() { c.pending.Add(1) }

func (c *Commit) finish(err error) {
	if err != nil {
		c.failure.CompareAndSwap(nil, &err)
	}
	if c.pending.Add(-1) != 0 {
		return
	}
	if p := c.failure.Load(); p != nil {
		c.done(*p)
		return
	}
	c.done(nil)
}
