package cluster

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/tierlog/tierlog/tiered/logid"
)

// State is what the metadata log says up to a slot. All methods may be called concurrently; a lookup is a map access
// under a read lock. What they return is never changed afterwards: treat it as read-only.
//
// Only the owner of the log's turn (see Log) changes it, by Draft.commit, so that the owner itself may read it unlocked.
type State struct {
	mu   sync.RWMutex
	base // guarded by mu
	// sorted holds the topics by name, or is nil when it must be made anew; guarded by mu.
	sorted []*Topic
}

// base is the plain data of a State.
type base struct {
	slot       logid.Slot
	topics     map[string]*Topic
	byID       map[logid.TopicID]*Topic
	collisions map[string]string // collisionKey of each topic's name -> name
	partitions int               // of all topics
	brokers    map[NodeID]*Broker
	epochs     []WALEpoch // ascending
	configs    map[NodeID]map[string]string
	nextPID    int64
}

// Topic is a topic at one state of the log. It is immutable; a change makes a new one.
type Topic struct {
	Name       string
	ID         logid.TopicID
	Partitions []Partition       // by index
	Configs    map[string]string // overrides
	Created    logid.Slot
}

// Partition says who leads a partition.
type Partition struct {
	Leader      NodeID // NoNode: nobody
	LeaderEpoch logid.LeaderEpoch
	BrokerEpoch logid.Epoch // the leader's; 0 without one
}

// WALEpoch is a broker epoch whose WAL may hold records.
type WALEpoch struct {
	Epoch logid.Epoch `json:"epoch"`
	Node  NodeID      `json:"node"`
	// Live says that its broker has not been removed.
	Live bool `json:"live,omitempty"`
}

// NewState returns the state before the first slot.
func NewState() *State {
	return &State{base: base{
		topics: map[string]*Topic{}, byID: map[logid.TopicID]*Topic{}, collisions: map[string]string{},
		brokers: map[NodeID]*Broker{}, configs: map[NodeID]map[string]string{},
	}}
}

// Slot returns the last slot that is applied; 0 when there is none.
func (s *State) Slot() logid.Slot {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.slot
}

// Topic returns the topic of that name.
func (s *State) Topic(name string) (*Topic, bool) {
	s.mu.RLock()
	t, ok := s.topics[name]
	s.mu.RUnlock()
	return t, ok
}

// TopicByID returns the topic of that id.
func (s *State) TopicByID(id logid.TopicID) (*Topic, bool) {
	s.mu.RLock()
	t, ok := s.byID[id]
	s.mu.RUnlock()
	return t, ok
}

// Topics returns all topics, sorted by name.
func (s *State) Topics() []*Topic {
	s.mu.RLock()
	sorted := s.sorted
	s.mu.RUnlock()
	if sorted != nil {
		return sorted
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sorted == nil {
		s.sorted = slices.SortedFunc(maps.Values(s.topics), func(a, b *Topic) int { return strings.Compare(a.Name, b.Name) })
	}
	return s.sorted
}

// Count returns how many topics and partitions there are.
func (s *State) Count() (topics, partitions int) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return len(s.topics), s.partitions
}

// Brokers returns the live brokers, sorted by node id.
func (s *State) Brokers() []Broker {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.sortedBrokers()
}

func (b *base) sortedBrokers() []Broker {
	out := make([]Broker, 0, len(b.brokers))
	for _, v := range b.brokers {
		out = append(out, *v)
	}
	slices.SortFunc(out, func(a, b Broker) int { return cmp.Compare(a.Node, b.Node) })
	return out
}

// Broker returns the live broker of that node id.
func (s *State) Broker(n NodeID) (Broker, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if b, ok := s.brokers[n]; ok {
		return *b, true
	}
	return Broker{}, false
}

// Live reports whether the epoch is a live broker's.
func (s *State) Live(e logid.Epoch) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.live(e) != nil
}

// live returns the live broker of that epoch, or nil.
func (b *base) live(e logid.Epoch) *Broker {
	for _, v := range b.brokers {
		if v.Epoch == e {
			return v
		}
	}
	return nil
}

// Epochs returns the epochs whose WAL may hold records that are still needed, ascending: live ones and those not retired.
func (s *State) Epochs() []WALEpoch {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.epochs
}

// BrokerConfigs returns the settings altered at run time for all brokers, and for this node id.
func (s *State) BrokerConfigs(n NodeID) (all, own map[string]string) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	all = s.configs[AllNodes]
	if n != AllNodes {
		own = s.configs[n]
	}
	return all, own
}

// NextProducerID returns the first producer id that no block holds.
func (s *State) NextProducerID() int64 {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.nextPID
}
