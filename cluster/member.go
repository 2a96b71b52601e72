package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"github.com/tierlog/tierlog/objstore"
	"github.com/tierlog/tierlog/tiered/logid"
	"github.com/tierlog/tierlog/tiered/manifest"
)

// Member is what a broker says of itself when it joins.
type Member struct {
	Node    NodeID
	Host    string // advertised to clients
	Port    int32
	Rack    string
	Version string
}

// Membership is this process's place in the cluster: one epoch and the lease that goes with it.
type Membership struct {
	log    *Log
	member Member
	epoch  logid.Epoch
	start  time.Time // of the monotonic clock; validUntil counts from here

	validUntil atomic.Int64 // nanoseconds after start until which the lease holds
	leaving    atomic.Bool
	fenced     chan struct{}
	fence      sync.Once

	mu      sync.Mutex
	lapsed  chan struct{} // closed while the lease is lapsed; guarded by mu
	renewed chan struct{} // closed while the lease holds; guarded by mu

	// Owned by the one Run.
	holder  *holder
	version objstore.Version // of the lease object as this process wrote it; empty: read it first
	running atomic.Bool

	ids chan idBlock // holds the one block of producer ids in use
}

// Join makes this process the broker of a node id. If that node id is live already, its older process is fenced at once.
// If brokers with other node ids are registered, their leases are watched: Join returns *BrokerAliveError as soon as one
// is renewed, and takes over when none was for the TTL. An orderly stop (Leave) makes that wait unnecessary.
//
// After Join, Run must be called soon to keep the lease. A Log joins at most once.
func (l *Log) Join(ctx context.Context, m Member) (*Membership, error) {
	if l.self.Load() != nil {
		return nil, errors.New("cluster: joined already")
	}
	id, err := uuid.NewRandomFromReader(l.cfg.Random)
	if err != nil {
		return nil, fmt.Errorf("draw an incarnation: %w", err)
	}
	for {
		if err := l.pollUntil(ctx); err != nil {
			return nil, err
		}
		removes, err := l.outlive(ctx, m.Node)
		if err != nil {
			return nil, err
		}
		sent := l.cfg.Now()
		slot, err := l.Propose(ctx, func(s *State) ([]Record, error) {
			if !sameEpochs(s, m.Node, removes) {
				return nil, errMembersChanged
			}
			return []Record{&BrokerJoined{
				Node: m.Node, Incarnation: id.String(), Host: m.Host, Port: m.Port, Rack: m.Rack, Version: m.Version, Removes: removes,
			}}, nil
		})
		switch {
		case errors.Is(err, errMembersChanged):
			continue
		case err != nil:
			return nil, fmt.Errorf("join the cluster: %w", err)
		}
		return l.joined(m, logid.Epoch(slot), sent), nil
	}
}

// pollUntil is Poll that waits for the store to be available.
func (l *Log) pollUntil(ctx context.Context) error {
	for n := 1; ; n++ {
		err := l.Poll(ctx)
		if !errors.Is(err, objstore.ErrUnavailable) {
			return err
		}
		l.cfg.Logger.WarnContext(ctx, "the metadata log can not be read; trying again", slog.Any("error", err))
		if werr := (objstore.Backoff{}).Wait(ctx, n); werr != nil {
			return errors.Join(werr, err)
		}
	}
}

// errMembersChanged: another broker joined or left while the leases were watched.
var errMembersChanged = errors.New("members changed")

func (l *Log) joined(m Member, e logid.Epoch, sent time.Time) *Membership {
	s := &Membership{
		log: l, member: m, epoch: e, start: sent, fenced: make(chan struct{}), holder: newHolder(l.cfg.LeaseTTL, l.cfg.RenewEvery, sent),
		lapsed: make(chan struct{}), renewed: make(chan struct{}), ids: make(chan idBlock, 1),
	}
	close(s.renewed)
	s.validUntil.Store(int64(s.holder.validUntil.Sub(s.start)))
	s.ids <- idBlock{}
	l.self.Store(s)
	s.observe(l.state)
	l.cfg.Logger.Info("joined", slog.Int("node", int(m.Node)), slog.Uint64("epoch", uint64(e)))
	return s
}

// sameEpochs reports whether the live epochs of other nodes are these.
func sameEpochs(s *State, own NodeID, epochs []logid.Epoch) bool {
	others := otherEpochs(s, own)
	if len(others) != len(epochs) {
		return false
	}
	for i := range others {
		if others[i].Epoch != epochs[i] {
			return false
		}
	}
	return true
}

// otherEpochs returns the live epochs of other nodes, ascending.
func otherEpochs(s *State, own NodeID) []WALEpoch {
	var out []WALEpoch
	for _, e := range s.Epochs() {
		if e.Live && e.Node != own {
			out = append(out, e)
		}
	}
	return out
}

// outlive watches the leases of all brokers with other node ids and returns their epochs once they are all gone.
func (l *Log) outlive(ctx context.Context, own NodeID) ([]logid.Epoch, error) {
	others := otherEpochs(l.state, own)
	epochs := make([]logid.Epoch, len(others))
	g, gctx := errgroup.WithContext(ctx)
	for i, e := range others {
		epochs[i] = e.Epoch
		g.Go(func() error {
			b, ok := l.state.Broker(e.Node)
			if !ok || b.Epoch != e.Epoch {
				return nil
			}
			l.cfg.Logger.WarnContext(ctx, "another broker is registered in this bucket; waiting to see whether it is alive",
				slog.Int("node", int(b.Node)), slog.String("address", b.Address()), slog.Duration("ttl", l.cfg.LeaseTTL))
			return l.watch(gctx, b, own)
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	return epochs, nil
}

// watch returns nil when the broker's lease stays as it is for the TTL, and *BrokerAliveError when it changes.
func (l *Log) watch(ctx context.Context, b Broker, own NodeID) error {
	ctx = objstore.WithPurpose(ctx, objstore.PurposeLease)
	every := min(time.Second, l.cfg.LeaseTTL/8)
	o := observer{ttl: l.cfg.LeaseTTL}
	for {
		sent := l.cfg.Now()
		id, ttl, err := l.sight(ctx, b.Node)
		switch {
		case err == nil:
			v := o.observe(sent, id, ttl)
			o.received(l.cfg.Now())
			if v == alive {
				return &BrokerAliveError{Broker: b, Own: own}
			}
			if v == gone {
				return nil
			}
		case !errors.Is(err, objstore.ErrUnavailable):
			return err
		}
		if err := pause(ctx, every); err != nil {
			return err
		}
	}
}

// sight reads a lease and returns a text that differs for every lease object. A lease that can not be decoded still
// shows that somebody writes.
func (l *Log) sight(ctx context.Context, n NodeID) (string, time.Duration, error) {
	body, info, err := objstore.ReadAll(ctx, l.cfg.Store, l.leaseKey(n), manifest.MaxBody)
	if errors.Is(err, objstore.ErrNotFound) {
		return "", 0, nil
	}
	if err != nil {
		return "", 0, fmt.Errorf("read the lease of node %d: %w", n, err)
	}
	var ttl time.Duration
	if b, err := decodeLease(body, l.cluster.ID, n); err == nil {
		ttl = time.Duration(b.TTLMs) * time.Millisecond
	}
	return string(info.Version) + " " + string(body), ttl, nil
}

func (l *Log) leaseKey(n NodeID) string {
	return manifest.Key{Kind: manifest.KeyLease, Cluster: l.cluster.ID, Broker: int32(n)}.String()
}

// pause waits, or returns ctx's error when it ends first.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// Epoch returns this process's broker epoch.
func (m *Membership) Epoch() logid.Epoch { return m.epoch }

// Node returns this process's node id.
func (m *Membership) Node() NodeID { return m.member.Node }

// Fenced is closed once this epoch is over: superseded, removed, or left. Nothing brings it back.
func (m *Membership) Fenced() <-chan struct{} { return m.fenced }

// Lapsed returns a channel that is closed when the lease ends without a renewal. When it is renewed again later, Lapsed
// returns a new one; see Renewed.
func (m *Membership) Lapsed() <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.lapsed
}

// Renewed returns a channel that is closed while the lease holds. After it lapsed, Renewed returns one that is closed when
// it holds again.
func (m *Membership) Renewed() <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.renewed
}

// Serving returns nil while this process may serve: its lease holds and it is not fenced. Otherwise it returns ErrFenced
// or ErrLapsed. It compares the lease with the clock, so that it is right also just after the process was suspended.
func (m *Membership) Serving() error {
	select {
	case <-m.fenced:
		return ErrFenced
	default:
	}
	if int64(m.log.cfg.Now().Sub(m.start)) >= m.validUntil.Load() {
		return ErrLapsed
	}
	return nil
}

// observe learns from the state whether this epoch is over. The caller owns the log's turn, or nobody proposes yet.
func (m *Membership) observe(s *State) {
	if b, ok := s.Broker(m.member.Node); !ok || b.Epoch != m.epoch {
		m.fence.Do(func() { close(m.fenced) })
	}
}

// Leave ends this epoch in the log, so that the next broker need not wait. Call it last, when all is flushed. It closes
// Fenced, and ends Run, which then returns nil.
func (m *Membership) Leave(ctx context.Context) error {
	m.leaving.Store(true)
	_, err := m.log.Propose(ctx, func(*State) ([]Record, error) {
		return []Record{&BrokerRemoved{Epoch: m.epoch, Left: true}}, nil
	})
	if errors.Is(err, ErrFenced) {
		return nil
	}
	return err
}

// producerBlock is how many producer ids are allocated at a time.
const producerBlock = 1000

// idBlock holds the producer ids from next to end-1.
type idBlock struct{ next, end int64 }

// NextProducerID returns a producer id that nobody ever got. Once in a thousand calls it writes to the log.
func (m *Membership) NextProducerID(ctx context.Context) (int64, error) {
	var b idBlock
	select {
	case b = <-m.ids:
	case <-ctx.Done():
		return -1, ctx.Err()
	}
	defer func() { m.ids <- b }()
	if b.next == b.end {
		var first int64
		_, err := m.log.Propose(ctx, func(s *State) ([]Record, error) {
			first = s.NextProducerID()
			return []Record{&ProducerIDsAllocated{First: first, Count: producerBlock, To: m.epoch}}, nil
		})
		if err != nil {
			return -1, fmt.Errorf("allocate producer ids: %w", err)
		}
		b = idBlock{first, first + producerBlock}
	}
	id := b.next
	b.next++
	return id, nil
}

// NewTopicID draws the id of a new topic.
func (l *Log) NewTopicID() (logid.TopicID, error) { return logid.NewTopicID(l.cfg.Random) }
