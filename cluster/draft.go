package cluster

import (
	"fmt"
	"maps"
	"slices"

	"github.com/tierlog/tierlog/tiered/logid"
)

// Draft is the next slot in the making: records that are checked one after the other, each against the state that the
// earlier ones give, without changing the state. Begin one inside the build function of Propose only.
type Draft struct {
	state   *State // only read until commit, by the owner of the log's turn
	slot    logid.Slot
	records []Record

	// What differs from the state. A nil topic or map is deleted, an empty collision free.
	topics     map[string]*Topic
	byID       map[logid.TopicID]*Topic
	collisions map[string]string
	configs    map[NodeID]map[string]string
	partitions int
	// Small enough to be copied whole on their first change.
	brokers map[NodeID]*Broker
	epochs  []WALEpoch
	nextPID int64
	joined  bool // the slot is some broker's epoch already
}

// Begin starts a draft of the slot after the state's.
func (s *State) Begin() *Draft {
	return &Draft{
		state: s, slot: s.slot + 1, brokers: s.brokers, epochs: s.epochs, nextPID: s.nextPID, partitions: s.partitions,
	}
}

// Slot returns the slot that the draft is for, if no other proposal gets in first.
func (d *Draft) Slot() logid.Slot { return d.slot }

// Records returns what was added.
func (d *Draft) Records() []Record { return d.records }

// Topic returns the topic of that name as the draft has it.
func (d *Draft) Topic(name string) (*Topic, bool) {
	if t, ok := d.topics[name]; ok {
		return t, t != nil
	}
	t, ok := d.state.topics[name]
	return t, ok
}

// TopicByID returns the topic of that id as the draft has it.
func (d *Draft) TopicByID(id logid.TopicID) (*Topic, bool) {
	if t, ok := d.byID[id]; ok {
		return t, t != nil
	}
	t, ok := d.state.byID[id]
	return t, ok
}

// Add checks a record and, when it is allowed, makes it part of the draft; otherwise the draft stays as it was.
// Errors wrap a sentinel of this package; those about topics are *TopicError.
func (d *Draft) Add(r Record) error {
	if err := r.check(); err != nil {
		return err
	}
	if err := d.apply(r); err != nil {
		return err
	}
	d.records = append(d.records, r)
	return nil
}

func (d *Draft) apply(r Record) error {
	switch r := r.(type) {
	case *BrokerJoined:
		return d.join(r)
	case *BrokerRemoved:
		return d.remove(r)
	case *TopicCreated:
		return d.create(r)
	case *PartitionsAdded:
		return d.grow(r)
	case *TopicConfigAltered:
		return d.configure(r)
	case *TopicDeleted:
		return d.drop(r)
	case *BrokerConfigAltered:
		d.setConfigs(r)
		return nil
	case *ProducerIDsAllocated:
		return d.allocate(r)
	case *EpochRetired:
		return d.retire(r)
	default:
		return fmt.Errorf("%T: no such record: %w", r, ErrInvalidRecord)
	}
}

func (d *Draft) join(r *BrokerJoined) error {
	if d.joined {
		return invalid(r, "a second broker in one slot, whose number would be the epoch of both")
	}
	ends := slices.Clone(r.Removes)
	for _, e := range ends {
		if b := findEpoch(d.brokers, e); b == nil || b.Node == r.Node {
			return fmt.Errorf("%s: removes epoch %d, which is no other node's live epoch: %w", r.kind(), e, ErrUnknownBroker)
		}
	}
	if old := d.brokers[r.Node]; old != nil {
		ends = append(ends, old.Epoch)
	}
	for _, e := range ends {
		d.end(e)
	}
	epoch := logid.Epoch(d.slot)
	d.joined = true
	d.brokers = maps.Clone(d.brokers)
	d.brokers[r.Node] = &Broker{
		Node: r.Node, Epoch: epoch, Incarnation: r.Incarnation, Host: r.Host, Port: r.Port, Rack: r.Rack, Version: r.Version,
	}
	d.epochs = append(slices.Clone(d.epochs), WALEpoch{Epoch: epoch, Node: r.Node, Live: true})
	d.reassign(func(Partition) bool { return true }, r.Node, epoch)
	return nil
}

func (d *Draft) remove(r *BrokerRemoved) error {
	if findEpoch(d.brokers, r.Epoch) == nil {
		return fmt.Errorf("%s: epoch %d is not live: %w", r.kind(), r.Epoch, ErrUnknownBroker)
	}
	d.end(r.Epoch)
	d.reassign(func(p Partition) bool { return p.BrokerEpoch == r.Epoch }, NoNode, 0)
	return nil
}

// end takes a live epoch off the brokers; its WAL stays.
func (d *Draft) end(e logid.Epoch) {
	b := findEpoch(d.brokers, e)
	d.brokers = maps.Clone(d.brokers)
	delete(d.brokers, b.Node)
	d.epochs = slices.Clone(d.epochs)
	for i := range d.epochs {
		if d.epochs[i].Epoch == e {
			d.epochs[i].Live = false
		}
	}
}

// reassign gives the partitions that match to a leader. Each change of leader is a new leader epoch; no leader is none.
func (d *Draft) reassign(match func(Partition) bool, n NodeID, e logid.Epoch) {
	for t := range d.all() {
		next := slices.Clone(t.Partitions)
		changed := false
		for i, p := range next {
			if !match(p) {
				continue
			}
			changed = true
			if n != NoNode {
				p.LeaderEpoch++
			}
			p.Leader, p.BrokerEpoch = n, e
			next[i] = p
		}
		if changed {
			u := *t
			u.Partitions = next
			d.put(&u)
		}
	}
}

// all yields every topic of the draft as it was when the loop began; the loop may put topics.
func (d *Draft) all() func(yield func(*Topic) bool) {
	return func(yield func(*Topic) bool) {
		for _, t := range maps.Clone(d.topics) {
			if t != nil && !yield(t) {
				return
			}
		}
		for name, t := range d.state.topics {
			if _, ok := d.topics[name]; ok {
				continue
			}
			if !yield(t) {
				return
			}
		}
	}
}

func (d *Draft) create(r *TopicCreated) error {
	if _, ok := d.Topic(r.Name); ok {
		return &TopicError{Kind: ErrTopicExists, Topic: r.Name}
	}
	if other := d.collision(r.Name); other != "" {
		return &TopicError{
			Kind: ErrInvalidTopic, Topic: r.Name,
			Detail: fmt.Sprintf("it collides with %q: names that differ in '.' and '_' only are not allowed", other),
		}
	}
	if _, ok := d.TopicByID(r.ID); ok {
		return invalid(r, "id %s is taken", r.ID)
	}
	p := Partition{Leader: NoNode}
	if b := d.latest(); b != nil {
		p.Leader, p.BrokerEpoch = b.Node, b.Epoch
	}
	t := &Topic{Name: r.Name, ID: r.ID, Partitions: slices.Repeat([]Partition{p}, int(r.Partitions)), Configs: maps.Clone(r.Configs), Created: d.slot}
	d.partitions += len(t.Partitions)
	d.put(t)
	return nil
}

// collision returns the topic whose name is too much like this one, or nothing.
func (d *Draft) collision(name string) string {
	key := collisionKey(name)
	if other, ok := d.collisions[key]; ok {
		return other
	}
	return d.state.collisions[key]
}

// latest returns the live broker that joined last.
func (d *Draft) latest() *Broker {
	var last *Broker
	for _, b := range d.brokers {
		if last == nil || b.Epoch > last.Epoch {
			last = b
		}
	}
	return last
}

func (d *Draft) grow(r *PartitionsAdded) error {
	t, err := d.known(r.ID)
	if err != nil {
		return err
	}
	have := len(t.Partitions)
	if int(r.Total) <= have {
		return &TopicError{
			Kind: ErrInvalidPartitions, Topic: t.Name,
			Detail: fmt.Sprintf("it has %d partitions, %d would not be an increase", have, r.Total),
		}
	}
	p := Partition{Leader: NoNode}
	if b := d.latest(); b != nil {
		p.Leader, p.BrokerEpoch = b.Node, b.Epoch
	}
	u := *t
	u.Partitions = make([]Partition, r.Total)
	copy(u.Partitions, t.Partitions)
	for i := have; i < len(u.Partitions); i++ {
		u.Partitions[i] = p
	}
	d.partitions += len(u.Partitions) - have
	d.put(&u)
	return nil
}

func (d *Draft) configure(r *TopicConfigAltered) error {
	t, err := d.known(r.ID)
	if err != nil {
		return err
	}
	u := *t
	u.Configs = maps.Clone(r.Configs)
	d.put(&u)
	return nil
}

func (d *Draft) drop(r *TopicDeleted) error {
	t, err := d.known(r.ID)
	if err != nil {
		return err
	}
	d.partitions -= len(t.Partitions)
	d.overlay()
	d.topics[t.Name], d.byID[t.ID], d.collisions[collisionKey(t.Name)] = nil, nil, ""
	return nil
}

func (d *Draft) setConfigs(r *BrokerConfigAltered) {
	if d.configs == nil {
		d.configs = map[NodeID]map[string]string{}
	}
	d.configs[r.Node] = nil
	if len(r.Configs) > 0 {
		d.configs[r.Node] = maps.Clone(r.Configs)
	}
}

func (d *Draft) allocate(r *ProducerIDsAllocated) error {
	if r.First != d.nextPID {
		return invalid(r, "first is %d, want %d", r.First, d.nextPID)
	}
	if findEpoch(d.brokers, r.To) == nil {
		return fmt.Errorf("%s: epoch %d is not live: %w", r.kind(), r.To, ErrUnknownBroker)
	}
	next := r.First + int64(r.Count)
	if next < 0 {
		return invalid(r, "no producer ids are left")
	}
	d.nextPID = next
	return nil
}

func (d *Draft) retire(r *EpochRetired) error {
	at := slices.IndexFunc(d.epochs, func(e WALEpoch) bool { return e.Epoch == r.Epoch })
	if at < 0 || d.epochs[at].Live {
		return fmt.Errorf("%s: epoch %d is live or not known: %w", r.kind(), r.Epoch, ErrUnknownBroker)
	}
	d.epochs = slices.Delete(slices.Clone(d.epochs), at, at+1)
	return nil
}

func (d *Draft) known(id logid.TopicID) (*Topic, error) {
	if t, ok := d.TopicByID(id); ok {
		return t, nil
	}
	return nil, &TopicError{Kind: ErrUnknownTopic, Topic: id.String()}
}

func (d *Draft) put(t *Topic) {
	d.overlay()
	d.topics[t.Name], d.byID[t.ID], d.collisions[collisionKey(t.Name)] = t, t, t.Name
}

func (d *Draft) overlay() {
	if d.topics == nil {
		d.topics, d.byID, d.collisions = map[string]*Topic{}, map[logid.TopicID]*Topic{}, map[string]string{}
	}
}

// commit makes the draft the state. Readers see all of it or nothing.
func (d *Draft) commit() {
	s := d.state
	s.mu.Lock()
	defer s.mu.Unlock()
	s.slot = d.slot
	if d.topics != nil {
		s.sorted = nil
	}
	merge(s.topics, d.topics, func(t *Topic) bool { return t == nil })
	merge(s.byID, d.byID, func(t *Topic) bool { return t == nil })
	merge(s.collisions, d.collisions, func(name string) bool { return name == "" })
	merge(s.configs, d.configs, func(m map[string]string) bool { return m == nil })
	s.brokers, s.epochs, s.nextPID, s.partitions = d.brokers, d.epochs, d.nextPID, d.partitions
}

// merge copies what differs into m; gone entries are deleted.
func merge[K comparable, V any](m, differs map[K]V, gone func(V) bool) {
	for k, v := range differs {
		if gone(v) {
			delete(m, k)
		} else {
			m[k] = v
		}
	}
}

func findEpoch(brokers map[NodeID]*Broker, e logid.Epoch) *Broker {
	for _, b := range brokers {
		if b.Epoch == e {
			return b
		}
	}
	return nil
}
