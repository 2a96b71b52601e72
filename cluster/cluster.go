// Package cluster is what the brokers of a bucket agree on: which brokers there are, which topics, who leads them, how
// they are configured, which producer ids are given out.
//
// Agreement is the metadata log: a slot log that every broker may append to, and a deterministic state machine over it.
// [Open] replays it (newest snapshot, then the slots after it); [Log.Propose] appends; [Log.Poll] follows; [State] answers
// reads from memory. [Log.Join] makes the process a broker with an epoch and a lease.
//
// Invariants:
//
//   - The state after a slot is a function of the slots up to it alone: no clock, no randomness, no map order.
//   - A record is checked against the state of the slot just before its own, by its proposer and by every reader, with
//     the same code; what is applied is always what was decoded from the slot's bytes.
//   - The records of one slot are applied together: readers see all of them or none.
//   - A broker epoch is the slot of the broker's joined record, hence unique for all time. At most one epoch of a node id
//     is live. A broker whose epoch is not live can propose nothing: it would have to win a slot after the one that
//     removed it, and it applies that one first.
//   - A leader epoch grows by one with every change of a partition's leader, and never shrinks.
//   - Slots are never deleted. Snapshots only save time: losing one, or all, loses nothing.
//   - Leases decide when a broker tries to take over, never whether that is safe; safety comes from fences and epochs.
//
// The formats are described in docs/format/metadata-log.md and docs/format/lease.md.
package cluster

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strconv"
	"time"

	"github.com/tierlog/tierlog/objstore"
	"github.com/tierlog/tierlog/tiered/logid"
)

// NodeID is a broker's number as the operator gives it; it outlives the broker's process.
type NodeID int32

// NoNode stands for "no broker", as Kafka's -1.
const NoNode NodeID = -1

// AllNodes is the node id under which the settings for all brokers are kept.
const AllNodes NodeID = -1

// String returns the decimal form.
func (n NodeID) String() string { return strconv.Itoa(int(n)) }

// ParseNodeID reads what String wrote for a broker: a number of at least zero.
func ParseNodeID(s string) (NodeID, error) {
	i, err := logid.ParseIndex(s)
	if err != nil {
		return NoNode, fmt.Errorf("node id %q: want a number from 0 to %d: %w", s, 1<<31-1, logid.ErrSyntax)
	}
	return NodeID(i), nil
}

// FirstSlot is the first slot of the metadata log. There is no slot 0, since epoch 0 means none.
const FirstSlot logid.Slot = 1

// Sentinels to decide on.
var (
	// ErrTopicExists: a topic of that name exists.
	ErrTopicExists = errors.New("topic exists")
	// ErrUnknownTopic: there is no topic of that name or id.
	ErrUnknownTopic = errors.New("unknown topic")
	// ErrInvalidTopic: the name can not be a topic's, or collides with one.
	ErrInvalidTopic = errors.New("invalid topic name")
	// ErrInvalidPartitions: the number of partitions is not allowed.
	ErrInvalidPartitions = errors.New("invalid number of partitions")
	// ErrUnknownBroker: the epoch, or the node, is not a live broker's.
	ErrUnknownBroker = errors.New("unknown broker")
	// ErrInvalidRecord: a record breaks a rule that only a bug can break.
	ErrInvalidRecord = errors.New("invalid record")
	// ErrTooLarge: the records do not fit in one slot. Propose fewer.
	ErrTooLarge = errors.New("too many records for one slot")
	// ErrFenced: this broker's epoch is over: another process took over its node id or removed it. It must stop.
	ErrFenced = errors.New("fenced: another broker process took over")
	// ErrLapsed: the broker could not renew its lease for so long that others may have taken over.
	ErrLapsed = errors.New("lease lapsed")
	// ErrUnresolved: a proposal's fate is not known; it may turn out to be applied. Propose again, on the new state.
	ErrUnresolved = errors.New("fate of the proposal is not known")
	// ErrNoCluster: the bucket holds no cluster.
	ErrNoCluster = errors.New("no cluster in this bucket")
	// ErrReadOnly: the log was opened for reading.
	ErrReadOnly = errors.New("metadata log is open for reading only")
	// ErrCorrupt: a slot of the metadata log is not what any version wrote there.
	ErrCorrupt = errors.New("corrupt metadata log")
	// ErrNewer: a newer version wrote it.
	ErrNewer = errors.New("written by a newer version")
)

// TopicError says which topic a sentinel is about, and why.
type TopicError struct {
	Kind   error // ErrTopicExists, ErrUnknownTopic, ErrInvalidTopic or ErrInvalidPartitions
	Topic  string
	Detail string // may be empty
}

func (e *TopicError) Error() string {
	if e.Detail == "" {
		return fmt.Sprintf("topic %q: %v", clip(e.Topic), e.Kind)
	}
	return fmt.Sprintf("topic %q: %v: %s", clip(e.Topic), e.Kind, e.Detail)
}

// Unwrap returns the sentinel.
func (e *TopicError) Unwrap() error { return e.Kind }

// BrokerAliveError says that a broker with another node id serves this bucket.
type BrokerAliveError struct {
	Broker Broker // the one that is alive
	Own    NodeID // the one that wanted to join
}

func (e *BrokerAliveError) Error() string {
	return fmt.Sprintf("broker %d at %s serves this bucket and renews its lease, and this version runs one broker per bucket: "+
		"stop it first, or start this one with node id %d (it has %d) to take over from it at once",
		e.Broker.Node, e.Broker.Address(), e.Broker.Node, e.Own)
}

// Config is what Open needs. Store must be set.
type Config struct {
	Store  objstore.Store
	Logger *slog.Logger // nil: discard
	// Now is the clock: its monotonic part measures leases, its wall part is only shown to people. Must be set.
	Now func() time.Time
	// Random is where ids and nonces come from; nil means crypto/rand.Reader.
	Random io.Reader
	// ReadOnly opens an existing cluster without ever writing.
	ReadOnly bool
	// SnapshotEvery is how many slots lie between two snapshots; 0 means 64.
	SnapshotEvery int
	// LeaseTTL is how long a lease holds without renewal; 0 means 18 s. RenewEvery is the time between two renewals; 0
	// means 5 s. At least two renewals must fit in the TTL.
	LeaseTTL, RenewEvery time.Duration
	// PollEvery is the time between two looks for a new slot; 0 means 1 s.
	PollEvery time.Duration
}

// Defaults of Config.
const (
	DefaultSnapshotEvery = 64
	DefaultLeaseTTL      = 18 * time.Second
	DefaultRenewEvery    = 5 * time.Second
	DefaultPollEvery     = time.Second
)

// Validate names the first field that is not allowed.
func (c *Config) Validate() error {
	ttl, every := c.LeaseTTL, c.RenewEvery
	orDefault(&ttl, DefaultLeaseTTL)
	orDefault(&every, DefaultRenewEvery)
	switch {
	case c.Store == nil:
		return errors.New("cluster: Store is nil, want a store")
	case c.Now == nil:
		return errors.New("cluster: Now is nil, want a clock")
	case c.SnapshotEvery < 0:
		return fmt.Errorf("cluster: SnapshotEvery is %d, want at least 0", c.SnapshotEvery)
	case ttl > maxTTL:
		return fmt.Errorf("cluster: LeaseTTL is %v, want at most %v", ttl, maxTTL)
	case every < 0 || ttl < 2*every:
		return fmt.Errorf("cluster: LeaseTTL is %v and RenewEvery %v, want a TTL of at least twice the renewal", ttl, every)
	case c.PollEvery < 0:
		return fmt.Errorf("cluster: PollEvery is %v, want at least 0", c.PollEvery)
	}
	return nil
}

func orDefault[T int | time.Duration](field *T, value T) {
	if *field == 0 {
		*field = value
	}
}

// clip keeps hostile input out of error texts.
func clip(s string) string {
	const most = 256
	if len(s) > most {
		return s[:most] + "..."
	}
	return s
}
