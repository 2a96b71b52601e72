package slotlog

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/tierlog/tierlog/objstore"
	"github.com/tierlog/tierlog/tiered/logid"
)

// Writer puts payloads at consecutive slots of a log that no other writer appends to; a fence is the only thing that it
// can lose a slot to. After the first slot that fails nothing of it counts any more, and it stays broken: resolve the
// slot with the same bytes under a new Writer, or fence the log.
type Writer struct {
	log    *Log
	admit  chan struct{} // one token for each slot in flight
	report sync.WaitGroup

	mu   sync.Mutex
	next logid.Slot    // guarded by mu
	err  error         // the first failure in slot order, guarded by mu
	last chan struct{} // closed when the slot before next is reported, guarded by mu
}

// NewWriter returns a writer whose first slot is next.
func (l *Log) NewWriter(next logid.Slot) *Writer {
	done := make(chan struct{})
	close(done)
	return &Writer{log: l, admit: make(chan struct{}, l.cfg.InFlight), next: next, last: done}
}

// Next returns the slot that the next Put must name.
func (w *Writer) Next() logid.Slot {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.next
}

// Err returns the failure that broke the writer, or nil.
func (w *Writer) Err() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}

// Put starts to bring the payload to the slot, which must be Next. It waits while Config.InFlight slots are under way and
// returns once the attempt is started; an error means that it was not, and done will not be called.
//
// done is called exactly once, after the done of every earlier slot has returned: with nil when the bucket holds the
// payload and everything before it; with *LostError when the writer is fenced; with ErrUnresolved when ctx ended before
// the slot's fate was known; with ErrBroken and the cause when an earlier slot failed. ctx governs all attempts.
func (w *Writer) Put(ctx context.Context, slot logid.Slot, p objstore.Payload, done func(error)) error {
	select {
	case w.admit <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	earlier, own, err := w.take(slot)
	if err != nil {
		<-w.admit
		return err
	}
	w.report.Go(func() {
		err := w.log.Put(ctx, slot, p)
		<-earlier
		done(w.settle(slot, err))
		close(own)
		<-w.admit
	})
	return nil
}

// take assigns the slot and chains its report to that of the slot before.
func (w *Writer) take(slot logid.Slot) (earlier, own chan struct{}, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		return nil, nil, fmt.Errorf("slot %d: %w: %w", slot, ErrBroken, w.err)
	}
	if slot != w.next {
		return nil, nil, fmt.Errorf("slotlog: put at slot %d, want %d", slot, w.next)
	}
	earlier, own = w.last, make(chan struct{})
	w.next, w.last = slot+1, own
	return earlier, own, nil
}

// settle turns a slot's own result into what counts, given the earlier ones.
func (w *Writer) settle(slot logid.Slot, err error) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		return fmt.Errorf("slot %d: %w: %w", slot, ErrBroken, w.err)
	}
	w.err = err
	return err
}

// Wait returns when every Put that was started has been reported. No Put may start meanwhile.
func (w *Writer) Wait() { w.report.Wait() }

// Fenced reports whether err says that a fence or another writer ended the log for the caller.
func Fenced(err error) bool {
	var lost *LostError
	return errors.As(err, &lost)
}
