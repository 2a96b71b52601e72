package cluster

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tierlog/tierlog/objstore"
	"github.com/tierlog/tierlog/tiered/logid"
	"github.com/tierlog/tierlog/tiered/manifest"
	"github.com/tierlog/tierlog/tiered/slotlog"
)

// tailSize is how much of a slot's object is read at first; larger ones take a second request.
const tailSize = 16 << 10

// attemptTimeout bounds one attempt to win a slot, so that a request that hangs does not hold up the log.
const attemptTimeout = 15 * time.Second

// Log is the metadata log of one cluster and the state that it gives. All methods may be called concurrently.
type Log struct {
	cfg     Config
	cluster manifest.Cluster
	slots   *slotlog.Log
	state   *State

	// turn holds one token. Who took it owns the log's end: it alone appends, applies, changes the state, and calls the
	// subscribers, until it puts the token back.
	turn chan struct{}
	err  error // why the log can not go on; owned by the turn

	mu      sync.Mutex
	subs    []*subscriber // in order of subscription; copied on change; guarded by mu
	snaps   snapshots     // guarded by mu
	uploads sync.WaitGroup
	self    atomic.Pointer[Membership] // nil before Join
}

// Change is what one slot changed.
type Change struct {
	Slot    logid.Slot
	By      logid.Epoch // the proposer
	Records []Record
}

type subscriber struct{ fn func(Change) }

// Open reads the cluster's identity and its metadata log, and makes a cluster in a bucket that has none. It makes a
// number of requests that does not depend on the age of the cluster, as long as snapshots are there.
//
// Errors: ErrNoCluster (ReadOnly), ErrNewer, ErrCorrupt, and those of the store; objstore.ErrUnavailable and ErrUnknown
// pass, call again.
func Open(ctx context.Context, cfg Config) (*Log, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg.setDefaults()
	ctx = objstore.WithPurpose(ctx, objstore.PurposeMeta)
	l := &Log{cfg: cfg, state: NewState(), turn: make(chan struct{}, 1)}
	if err := l.identify(ctx); err != nil {
		return nil, err
	}
	slots, err := slotlog.New(slotlog.Config{
		Store: cfg.Store, TailSize: tailSize, Persist: objstore.Persist{Attempt: attemptTimeout, Log: cfg.Logger},
		Key: func(s logid.Slot) string {
			return manifest.Key{Kind: manifest.KeyMeta, Cluster: l.cluster.ID, Slot: s}.String()
		},
	})
	if err != nil {
		return nil, err
	}
	l.slots = slots
	if err := l.loadSnapshot(ctx); err != nil {
		return nil, err
	}
	if err := l.catchUp(ctx); err != nil {
		return nil, err
	}
	l.turn <- struct{}{}
	return l, nil
}

func (c *Config) setDefaults() {
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Random == nil {
		c.Random = rand.Reader
	}
	orDefault(&c.SnapshotEvery, DefaultSnapshotEvery)
	orDefault(&c.LeaseTTL, DefaultLeaseTTL)
	orDefault(&c.RenewEvery, DefaultRenewEvery)
	orDefault(&c.PollEvery, DefaultPollEvery)
}

// identify reads cluster.json, or creates it. Of several processes that create it at the same time one wins.
func (l *Log) identify(ctx context.Context) error {
	for {
		body, _, err := objstore.ReadAll(ctx, l.cfg.Store, manifest.ClusterKey, manifest.MaxBody)
		switch {
		case err == nil:
			return l.recognise(body)
		case !errors.Is(err, objstore.ErrNotFound):
			return fmt.Errorf("read the cluster's identity: %w", err)
		case l.cfg.ReadOnly:
			return ErrNoCluster
		}
		out, err := l.found(ctx)
		switch {
		case err != nil:
			return fmt.Errorf("create the cluster's identity: %w", err)
		case out == objstore.Mine:
			l.cfg.Logger.InfoContext(ctx, "cluster created", slog.String("cluster_id", l.cluster.ID.String()))
			return nil
		}
	}
}

func (l *Log) recognise(body []byte) error {
	c, err := manifest.DecodeCluster(body)
	if err != nil {
		return fmt.Errorf("%s: %w", manifest.ClusterKey, bodyError(err))
	}
	if c.Format > manifest.Format && !l.cfg.ReadOnly {
		return fmt.Errorf("%s: the bucket has format %d, this version writes %d and may only read it: %w",
			manifest.ClusterKey, c.Format, manifest.Format, ErrNewer)
	}
	l.cluster = *c
	return nil
}

// found tries to create cluster.json.
func (l *Log) found(ctx context.Context) (objstore.Outcome, error) {
	id, err := logid.NewClusterID(l.cfg.Random)
	if err != nil {
		return objstore.Unknown, err
	}
	n, err := manifest.NewNonce(l.cfg.Random)
	if err != nil {
		return objstore.Unknown, err
	}
	c := manifest.Cluster{Nonce: n, ID: id, MinReader: manifest.Format, CreatedMs: l.cfg.Now().UnixMilli()}
	body, err := c.Encode()
	if err != nil {
		return objstore.Unknown, err
	}
	out, _, err := objstore.Put(ctx, l.cfg.Store, manifest.ClusterKey, objstore.Bytes(body))
	if out == objstore.Mine {
		c.Format = manifest.Format
		l.cluster = c
	}
	if out == objstore.Unknown {
		return out, err
	}
	return out, nil
}

// ClusterID returns the cluster's identity.
func (l *Log) ClusterID() logid.ClusterID { return l.cluster.ID }

// State returns the state, which follows the log.
func (l *Log) State() *State { return l.state }

// Self returns this process's membership; nil before Join.
func (l *Log) Self() *Membership { return l.self.Load() }

// take waits for the turn. It fails when the log can not go on.
func (l *Log) take(ctx context.Context) error {
	select {
	case <-l.turn:
	case <-ctx.Done():
		return ctx.Err()
	}
	if l.err != nil {
		defer l.release()
		return l.err
	}
	return nil
}

func (l *Log) release() { l.turn <- struct{}{} }

// Propose appends what build returns to the log and applies it. build is called with the state just before the slot, and
// called again on the new state whenever another broker wins the slot first; it must not call methods of Log. It may use
// State.Begin to check records one by one. When it returns no record nothing is written, and the state's slot is returned.
//
// When Propose returns nil the records are durable and applied, and every subscriber has seen them. Errors: build's own;
// those of Draft.Add for a record that is not allowed; ErrTooLarge; ErrFenced when this broker's epoch is over;
// ErrUnresolved when ctx ended, or the store failed, before the records' fate was known; ErrReadOnly; ErrCorrupt and
// ErrNewer when the log can not be followed any further.
func (l *Log) Propose(ctx context.Context, build func(*State) ([]Record, error)) (logid.Slot, error) {
	if l.cfg.ReadOnly {
		return 0, ErrReadOnly
	}
	ctx = objstore.WithPurpose(ctx, objstore.PurposeMeta)
	if err := l.take(ctx); err != nil {
		return 0, err
	}
	defer l.release()
	var next pending
	slot, err := l.slots.Append(ctx, l.state.slot+1,
		func(logid.Slot) (objstore.Payload, error) {
			var err error
			next, err = l.prepare(build)
			return next.body, err
		},
		func(o slotlog.Object) error { return l.applyObject(ctx, o) })
	switch {
	case errors.Is(err, errNothing):
		return l.state.slot, nil
	case errors.Is(err, slotlog.ErrUnresolved):
		return 0, fmt.Errorf("%w: %w", ErrUnresolved, err)
	case err != nil:
		return 0, err
	}
	l.commit(next.draft, next.by)
	l.snapshotIfDue(ctx)
	return slot, nil
}

// errNothing ends Append when there is nothing to propose.
var errNothing = errors.New("nothing to propose")

// pending is a proposal that is ready to be put at the next slot.
type pending struct {
	draft *Draft
	by    logid.Epoch
	body  objstore.Payload
}

// prepare makes the next slot's body. The draft is made of the decoded body, so that what is applied here is what every
// reader applies.
func (l *Log) prepare(build func(*State) ([]Record, error)) (pending, error) {
	var by logid.Epoch
	if m := l.self.Load(); m != nil {
		if by = m.epoch; l.state.live(by) == nil {
			return pending{}, ErrFenced
		}
	}
	records, err := build(l.state)
	if err != nil {
		return pending{}, err
	}
	if len(records) == 0 {
		return pending{}, errNothing
	}
	slot := l.state.slot + 1
	if _, err := l.draft(records); err != nil {
		return pending{}, err
	}
	n, err := manifest.NewNonce(l.cfg.Random)
	if err != nil {
		return pending{}, err
	}
	body, err := encodeEntry(entry{Cluster: l.cluster.ID, Slot: slot, By: by, TimeMs: l.cfg.Now().UnixMilli()}, n, records)
	if err != nil {
		return pending{}, err
	}
	if _, records, err = decodeEntry(body, l.cluster.ID, slot); err != nil {
		return pending{}, fmt.Errorf("proposal does not read back: %w", err)
	}
	d, err := l.draft(records)
	return pending{draft: d, by: by, body: objstore.Bytes(body)}, err
}

func (l *Log) draft(records []Record) (*Draft, error) {
	d := l.state.Begin()
	for _, r := range records {
		if err := d.Add(r); err != nil {
			return nil, err
		}
	}
	return d, nil
}

// applyObject applies what another broker wrote at the next slot. An object that can not be applied stops the log: the
// state can not be known any further.
func (l *Log) applyObject(ctx context.Context, o slotlog.Object) error {
	if !o.Whole() {
		whole, err := l.slots.Read(ctx, o.Slot)
		if err != nil {
			return err
		}
		o = whole
	}
	e, records, err := decodeEntry(o.Data, l.cluster.ID, o.Slot)
	if err != nil {
		return l.stop(o.Slot, err)
	}
	d, err := l.draft(records)
	if err != nil {
		return l.stop(o.Slot, fmt.Errorf("%w: it does not follow from the slots before it: %w", ErrCorrupt, err))
	}
	l.commit(d, e.By)
	return nil
}

func (l *Log) stop(slot logid.Slot, err error) error {
	l.err = fmt.Errorf("metadata log slot %d (%s): %w", slot, manifest.Key{Kind: manifest.KeyMeta, Cluster: l.cluster.ID, Slot: slot}, err)
	return l.err
}

// commit applies a draft and tells everybody.
func (l *Log) commit(d *Draft, by logid.Epoch) {
	d.commit()
	if m := l.self.Load(); m != nil {
		m.observe(l.state)
	}
	l.mu.Lock()
	subs := l.subs
	l.mu.Unlock()
	for _, s := range subs {
		s.fn(Change{Slot: d.slot, By: by, Records: d.records})
	}
}

// Subscribe has fn called with every change from now on, in slot order, from one goroutine at a time, after the state
// has it and before the Propose that made it returns. fn must return soon and must not call methods of Log other than
// State. The returned function ends the subscription; a call under way may still be running when it returns.
func (l *Log) Subscribe(fn func(Change)) (cancel func()) {
	s := &subscriber{fn: fn}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.subs = append(slices.Clone(l.subs), s)
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.subs = slices.DeleteFunc(slices.Clone(l.subs), func(o *subscriber) bool { return o == s })
	}
}

// Poll applies what other brokers appended. When there is nothing it makes one GET that finds nothing.
// An error of the store passes; one of ErrCorrupt or ErrNewer stays.
func (l *Log) Poll(ctx context.Context) error {
	ctx = objstore.WithPurpose(ctx, objstore.PurposeMeta)
	if err := l.take(ctx); err != nil {
		return err
	}
	defer l.release()
	o, found, err := l.slots.Next(ctx, l.state.slot+1)
	if err != nil || !found {
		return err
	}
	if err := l.applyObject(ctx, o); err != nil {
		return err
	}
	return l.catchUp(ctx)
}

// catchUp applies everything from the state's slot on. The caller owns the turn.
func (l *Log) catchUp(ctx context.Context) error {
	_, err := l.slots.Walk(ctx, l.state.slot+1, func(o slotlog.Object) error { return l.applyObject(ctx, o) })
	return err
}

// Close writes a snapshot if one is worth it and waits for those under way. The log must not be used afterwards.
// It does not leave the cluster; see Membership.Leave.
func (l *Log) Close(ctx context.Context) error {
	ctx = objstore.WithPurpose(ctx, objstore.PurposeMeta)
	if err := l.take(ctx); err != nil {
		l.uploads.Wait()
		return nil //nolint:nilerr // a log that can not go on has nothing to write down
	}
	l.finalSnapshot(ctx)
	l.release()
	l.uploads.Wait()
	return nil
}
