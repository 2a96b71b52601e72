package slotlog

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"

	"github.com/tierlog/tierlog/objstore"
	"github.com/tierlog/tierlog/tiered/logid"
)

// Object is what was read of one slot.
type Object struct {
	Slot logid.Slot
	Info objstore.Info
	// Data is the end of the object: its last Config.TailSize bytes, or all of it. The visitor may keep it.
	Data []byte
}

// Whole reports whether Data is the whole object.
func (o *Object) Whole() bool { return int64(len(o.Data)) == o.Info.Size }

// End is where a log ends.
type End struct {
	// Slot is the first missing slot, or the fence's.
	Slot  logid.Slot
	Fence *Object // nil when the log is open
}

// Walk calls visit with each object from slot from on, in order, until the first missing slot or the first fence, and
// returns where that is. It reads Config.ReadAhead slots at a time, so that up to that many reads find nothing.
// Passing failures of the store are retried until ctx ends; other errors, and those of visit, end the walk.
func (l *Log) Walk(ctx context.Context, from logid.Slot, visit func(Object) error) (End, error) {
	ctx, cancel := context.WithCancel(ctx)
	var reads sync.WaitGroup
	defer reads.Wait() // no request outlives the walk
	defer cancel()
	window := make([]chan probe, l.cfg.ReadAhead)
	ahead := func(s logid.Slot) {
		c := make(chan probe, 1)
		window[uint64(s)%uint64(len(window))] = c
		reads.Go(func() {
			o, ok, err := l.tail(ctx, s)
			c <- probe{o, ok, err}
		})
	}
	for i := range window {
		ahead(from + logid.Slot(i))
	}
	for s := from; ; s++ {
		p := <-window[uint64(s)%uint64(len(window))]
		switch {
		case p.err != nil:
			return End{}, p.err
		case !p.found:
			return End{Slot: s}, nil
		case p.o.Whole() && l.isFence(p.o.Data):
			return End{Slot: s, Fence: &p.o}, nil
		}
		ahead(s + logid.Slot(len(window)))
		if err := visit(p.o); err != nil {
			return End{}, err
		}
	}
}

// probe is the answer of one read of Walk.
type probe struct {
	o     Object
	found bool
	err   error
}

// Next reads one slot: found is false when nobody has won it yet. It makes one request when nothing fails, so that it
// is cheap to call again and again at the end of a log. Other errors are returned at once.
func (l *Log) Next(ctx context.Context, slot logid.Slot) (o Object, found bool, err error) {
	buf := make([]byte, l.cfg.TailSize)
	n, info, err := l.cfg.Store.ReadSuffix(ctx, l.cfg.Key(slot), buf)
	switch {
	case errors.Is(err, objstore.ErrNotFound):
		return Object{}, false, nil
	case err != nil:
		return Object{}, false, fmt.Errorf("read slot %d: %w", slot, err)
	}
	return Object{Slot: slot, Info: info, Data: buf[:n:n]}, true, nil
}

// tail is Next with retries of what passes.
func (l *Log) tail(ctx context.Context, slot logid.Slot) (o Object, found bool, err error) {
	err = l.persist(ctx, func() error {
		o, found, err = l.Next(ctx, slot)
		return err
	})
	return o, found, err
}

// Read returns the whole object of a slot that is won. Passing failures are retried until ctx ends.
func (l *Log) Read(ctx context.Context, slot logid.Slot) (Object, error) {
	o := Object{Slot: slot}
	err := l.persist(ctx, func() error {
		var err error
		o.Data, o.Info, err = objstore.ReadAll(ctx, l.cfg.Store, l.cfg.Key(slot), math.MaxInt32)
		return err
	})
	if err != nil {
		return Object{}, fmt.Errorf("read slot %d: %w", slot, err)
	}
	return o, nil
}

// Ended is the outcome of Fence.
type Ended struct {
	Slot logid.Slot // the fence's
	// Mine says that the fence is the caller's; otherwise another one had ended the log before.
	Mine bool
	// Found are the slots from the start of the walk to the fence: the log's objects, all of which count.
	Found []logid.Slot
}

// Fence ends the log: it walks up from a slot to the first missing one and creates the payload there. An object of the
// old writer that gets in first counts and is passed; a fence that is met is the end, whoever made it. When Fence returns
// nil nobody can ever add to the log. from must not lie behind the end: all slots before it must be known to exist.
// fence makes the payload for a slot, smaller than Config.TailSize.
func (l *Log) Fence(ctx context.Context, from logid.Slot, fence func(logid.Slot) objstore.Payload) (Ended, error) {
	var out Ended
	if l.cfg.IsFence == nil {
		return out, errors.New("slotlog: Fence in a log without IsFence")
	}
	end, err := l.Walk(ctx, from, func(o Object) error {
		out.Found = append(out.Found, o.Slot)
		return nil
	})
	if err != nil {
		return Ended{}, err
	}
	if end.Fence != nil {
		out.Slot = end.Slot
		return out, nil
	}
	for out.Slot = end.Slot; ; out.Slot++ {
		p := fence(out.Slot)
		if p.Size() >= int64(l.cfg.TailSize) {
			return Ended{}, fmt.Errorf("slotlog: a fence of %d bytes, want fewer than TailSize, %d", p.Size(), l.cfg.TailSize)
		}
		err := l.Put(ctx, out.Slot, p)
		var lost *LostError
		switch {
		case err == nil:
			out.Mine = true
			return out, nil
		case !errors.As(err, &lost):
			return Ended{}, err
		case lost.Fence:
			return out, nil
		}
		out.Found = append(out.Found, out.Slot)
	}
}
