// Package slotlog orders objects in a bucket: slot N of a log is won by exactly one create-only PUT.
//
// A log is a key for each slot and nothing else; what the objects hold is the caller's business. A log with one writer
// (the WAL of a broker epoch) uses [Writer], and is ended for ever by [Log.Fence]. A log with many writers (the metadata
// log) uses [Log.Append]. Both are read with [Log.Walk].
//
// Invariants:
//
//   - A won slot's bytes never change, and no slot is ever freed: nothing here deletes or swaps.
//   - The log is the unbroken run of slots before the first missing one or the first fence; later objects are orphans.
//   - Success means that the bucket holds this caller's bytes at that slot and, for a Writer, at every earlier slot of it.
//   - A lost reply is not a lost race: the same bytes go to the same key until it is known whose they are.
//   - The end is found by walking up, never by listing.
//
// Every payload must hold a random nonce within its first objstore.IdentitySize bytes.
package slotlog

import (
	"context"
	"errors"
	"fmt"

	"github.com/tierlog/tierlog/objstore"
	"github.com/tierlog/tierlog/tiered/logid"
)

// HeadSize is how many leading bytes of an occupant are reported to the loser of a slot.
const HeadSize = 128

// Sentinels to decide on.
var (
	// ErrUnresolved: it is not known whether the payload is at the slot. It may turn up there later; until the slot is
	// read or written again nothing after it may be used.
	ErrUnresolved = errors.New("fate of the slot is not known")
	// ErrBroken: an earlier slot of the Writer failed, so that this one does not count, whether it was written or not.
	ErrBroken = errors.New("an earlier slot failed")
)

// LostError says that another writer's object is at the slot: for a Writer, that it is fenced.
type LostError struct {
	Slot logid.Slot
	Head []byte // the occupant's first bytes, at most HeadSize
	// Fence says that the occupant is a fence: the log has ended.
	Fence bool
}

func (e *LostError) Error() string {
	if e.Fence {
		return fmt.Sprintf("slot %d holds a fence", e.Slot)
	}
	return fmt.Sprintf("slot %d holds another writer's object", e.Slot)
}

// Config describes a log. Store and Key must be set.
type Config struct {
	Store objstore.Store
	// Key returns the key of a slot. Different slots have different keys.
	Key func(logid.Slot) string
	// IsFence recognises a fence by the first bytes of an object (all of it, or at least HeadSize of them). Nil: there
	// are none in this log.
	IsFence func(head []byte) bool
	// TailSize is how many bytes Walk reads of the end of each object; at least HeadSize. 0 means 64 KiB.
	// Every fence must be smaller.
	TailSize int
	// InFlight is how many slots a Writer puts at a time; 0 means 4.
	InFlight int
	// ReadAhead is how many slots Walk reads at a time; 0 means 8.
	ReadAhead int
	// Persist says how attempts are repeated: of puts until the winner is known, of reads while the store is unavailable.
	Persist objstore.Persist
}

// Defaults of Config.
const (
	defaultTailSize  = 64 << 10
	defaultInFlight  = 4
	defaultReadAhead = 8
)

// Validate names the first field that is not allowed.
func (c *Config) Validate() error {
	switch {
	case c.Store == nil:
		return errors.New("slotlog: Store is nil, want a store")
	case c.Key == nil:
		return errors.New("slotlog: Key is nil, want a function")
	case c.TailSize != 0 && c.TailSize < HeadSize:
		return fmt.Errorf("slotlog: TailSize is %d, want 0 or at least %d", c.TailSize, HeadSize)
	case c.InFlight < 0:
		return fmt.Errorf("slotlog: InFlight is %d, want at least 0", c.InFlight)
	case c.ReadAhead < 0:
		return fmt.Errorf("slotlog: ReadAhead is %d, want at least 0", c.ReadAhead)
	case c.Persist.Validate() != nil:
		return fmt.Errorf("slotlog: Persist: %w", c.Persist.Validate())
	}
	return nil
}

// Log is one slot log. It holds no state but its configuration; all methods may be called concurrently.
type Log struct{ cfg Config }

// New returns the log that cfg describes. It makes no request.
func New(cfg Config) (*Log, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	orDefault(&cfg.TailSize, defaultTailSize)
	orDefault(&cfg.InFlight, defaultInFlight)
	orDefault(&cfg.ReadAhead, defaultReadAhead)
	return &Log{cfg: cfg}, nil
}

func orDefault(field *int, value int) {
	if *field == 0 {
		*field = value
	}
}

// Put brings the payload to the slot: it repeats the same bytes under the same key, pausing between attempts, until it is
// known whose bytes are there. It returns nil when they are the payload's, *LostError when they are another's, and
// ErrUnresolved with the last error when ctx ends first or the store says that it can never work.
func (l *Log) Put(ctx context.Context, slot logid.Slot, p objstore.Payload) error {
	out, _, err := objstore.PutUntil(ctx, l.cfg.Store, l.cfg.Key(slot), p, l.cfg.Persist)
	switch out {
	case objstore.Mine:
		return nil
	case objstore.Other:
		return l.lost(ctx, slot)
	default:
		return fmt.Errorf("slot %d: %w: %w", slot, ErrUnresolved, err)
	}
}

// lost reads who won the slot.
func (l *Log) lost(ctx context.Context, slot logid.Slot) error {
	var head [HeadSize]byte
	n := 0
	err := l.persist(ctx, func() error {
		var err error
		n, _, err = l.cfg.Store.ReadAt(ctx, l.cfg.Key(slot), head[:], 0)
		return err
	})
	if err != nil {
		return fmt.Errorf("slot %d is lost; read the winner: %w", slot, err)
	}
	return &LostError{Slot: slot, Head: head[:n:n], Fence: l.isFence(head[:n])}
}

// persist repeats a read while the store is unavailable.
func (l *Log) persist(ctx context.Context, read func() error) error {
	for n := 1; ; n++ {
		err := read()
		if err == nil || !errors.Is(err, objstore.ErrUnavailable) {
			return err
		}
		if werr := l.cfg.Persist.Wait(ctx, n); werr != nil {
			return errors.Join(werr, err)
		}
	}
}

func (l *Log) isFence(head []byte) bool { return l.cfg.IsFence != nil && l.cfg.IsFence(head) }

// Append puts a payload at the first free slot from next on, for a log of many writers. build makes the payload for a
// slot; an error of it ends Append and is returned. For each slot that another writer has won, lost is called with its
// whole object, and build anew for the slot after it, since what was lost may change what is to be written.
// It returns the slot that was won; ErrUnresolved as Put does.
func (l *Log) Append(ctx context.Context, next logid.Slot, build func(logid.Slot) (objstore.Payload, error), lost func(Object) error) (logid.Slot, error) {
	for ; ; next++ {
		p, err := build(next)
		if err != nil {
			return 0, err
		}
		err = l.Put(ctx, next, p)
		if !Fenced(err) {
			return next, err
		}
		o, err := l.Read(ctx, next)
		if err != nil {
			return 0, err
		}
		if err := lost(o); err != nil {
			return 0, err
		}
	}
}
