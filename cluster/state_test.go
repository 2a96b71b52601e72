package cluster

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/tierlog/tierlog/objstore/objtest"
	"github.com/tierlog/tierlog/tiered/logid"
)

// id returns a topic id that holds n.
func id(n int) logid.TopicID { return logid.TopicID{0: 1, 14: byte(n >> 8), 15: byte(n)} }

func joinRecord(n NodeID, removes ...logid.Epoch) *BrokerJoined {
	return &BrokerJoined{Node: n, Incarnation: "i", Host: "h", Port: 9092, Removes: removes}
}

// apply applies one slot of records to a state.
func apply(t *testing.T, s *State, records ...Record) {
	t.Helper()
	d := s.Begin()
	for _, r := range records {
		if err := d.Add(r); err != nil {
			t.Fatalf("slot %d: %v", d.Slot(), err)
		}
	}
	d.commit()
	check(t, s)
}

// check verifies what must hold of every state.
func check(t *testing.T, s *State) {
	t.Helper()
	partitions := 0
	for name, topic := range s.topics {
		partitions += len(topic.Partitions)
		if topic.Name != name || s.byID[topic.ID] != topic || s.collisions[collisionKey(name)] != name {
			t.Errorf("topic %q: the indexes disagree", name)
		}
		for i, p := range topic.Partitions {
			if b := s.brokers[p.Leader]; (p.Leader == NoNode) != (p.BrokerEpoch == 0) || (b == nil && p.Leader != NoNode) || (b != nil && b.Epoch != p.BrokerEpoch) {
				t.Errorf("topic %q partition %d is led by node %d with epoch %d, which is no live broker", name, i, p.Leader, p.BrokerEpoch)
			}
		}
	}
	if len(s.byID) != len(s.topics) || len(s.collisions) != len(s.topics) || partitions != s.partitions {
		t.Errorf("%d topics by name, %d by id, %d collision keys; %d partitions, counted %d", len(s.topics), len(s.byID), len(s.collisions), partitions, s.partitions)
	}
	for i, e := range s.epochs {
		if b := s.live(e.Epoch); e.Live != (b != nil) || (b != nil && b.Node != e.Node) || (i > 0 && s.epochs[i-1].Epoch >= e.Epoch) {
			t.Errorf("epochs %+v do not fit the brokers", s.epochs)
		}
	}
	for n, b := range s.brokers {
		if b.Node != n || !slices.Contains(s.epochs, WALEpoch{Epoch: b.Epoch, Node: n, Live: true}) {
			t.Errorf("broker %d has no live epoch", n)
		}
	}
}

// encoding returns a text that two states share only when they are equal.
func encoding(t *testing.T, s *State) string {
	t.Helper()
	b, err := json.Marshal(s.snapshot(logid.ClusterID{1}))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestTopicNames(t *testing.T) {
	for _, name := range []string{"a", "A-z_0.9", "...", "__consumer_offsets", strings.Repeat("x", 249)} {
		if err := CheckTopicName(name); err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
	for _, name := range []string{"", ".", "..", "a b", "a/b", "ä", "a\x00", "a~", strings.Repeat("x", 250)} {
		var bad *TopicError
		if err := CheckTopicName(name); !errors.Is(err, ErrInvalidTopic) || !errors.As(err, &bad) || bad.Topic != name {
			t.Errorf("%q: %v, want ErrInvalidTopic", name, err)
		}
	}
}

func TestNodeIDs(t *testing.T) {
	for _, n := range []NodeID{0, 1, 1<<31 - 1} {
		if got, err := ParseNodeID(n.String()); err != nil || got != n {
			t.Errorf("ParseNodeID(%q) = %v, %v", n.String(), got, err)
		}
	}
	for _, s := range []string{"", "-1", "01", "2147483648", "x"} {
		if n, err := ParseNodeID(s); !errors.Is(err, logid.ErrSyntax) {
			t.Errorf("ParseNodeID(%q) = %v, %v; want ErrSyntax", s, n, err)
		}
	}
}

func TestTopicLife(t *testing.T) {
	s := NewState()
	apply(t, s, joinRecord(1))
	apply(t, s,
		&TopicCreated{Name: "b", ID: id(1), Partitions: 2, Configs: map[string]string{"retention.ms": "5"}},
		&TopicCreated{Name: "a", ID: id(2), Partitions: 1})
	b, ok := s.Topic("b")
	want := Partition{Leader: 1, BrokerEpoch: 1}
	if !ok || b.Created != 2 || !slices.Equal(b.Partitions, []Partition{want, want}) || b.Configs["retention.ms"] != "5" {
		t.Errorf("topic b is %+v", b)
	}
	if names := topicNames(s); !slices.Equal(names, []string{"a", "b"}) {
		t.Errorf("topics are %v", names)
	}
	apply(t, s, &PartitionsAdded{ID: id(1), Total: 3}, &TopicConfigAltered{ID: id(1)})
	if again, _ := s.TopicByID(id(1)); len(again.Partitions) != 3 || again.Configs != nil || len(b.Partitions) != 2 || b.Configs == nil {
		t.Errorf("topic b became %+v; before it was %+v", again, b)
	}
	if topics, partitions := s.Count(); topics != 2 || partitions != 4 {
		t.Errorf("counted %d topics, %d partitions", topics, partitions)
	}
	// Deleted and created again in one slot: another topic of the same name.
	apply(t, s, &TopicDeleted{ID: id(1)}, &TopicCreated{Name: "b", ID: id(3), Partitions: 1})
	if _, ok := s.TopicByID(id(1)); ok {
		t.Error("the deleted topic is still found by its id")
	}
	if b, _ := s.Topic("b"); b.ID != id(3) {
		t.Errorf("topic b has id %v", b.ID)
	}
	apply(t, s, &TopicDeleted{ID: id(3)})
	if names := topicNames(s); !slices.Equal(names, []string{"a"}) {
		t.Errorf("topics are %v", names)
	}
}

func topicNames(s *State) []string {
	var names []string
	for _, t := range s.Topics() {
		names = append(names, t.Name)
	}
	return names
}

func TestBrokersTakeOver(t *testing.T) {
	s := NewState()
	apply(t, s, &TopicCreated{Name: "early", ID: id(1), Partitions: 1}) // slot 1: before any broker
	if p := s.topics["early"].Partitions[0]; p != (Partition{Leader: NoNode}) {
		t.Errorf("without a broker the partition is %+v", p)
	}
	apply(t, s, joinRecord(1)) // 2
	if p := s.topics["early"].Partitions[0]; p != (Partition{Leader: 1, LeaderEpoch: 1, BrokerEpoch: 2}) {
		t.Errorf("after the first join the partition is %+v", p)
	}
	apply(t, s, &TopicCreated{Name: "new", ID: id(2), Partitions: 1}, joinRecord(1)) // 3: same node, in one slot with a topic
	if p := s.topics["early"].Partitions[0]; p != (Partition{Leader: 1, LeaderEpoch: 2, BrokerEpoch: 3}) {
		t.Errorf("after the node's second join the partition is %+v", p)
	}
	if p := s.topics["new"].Partitions[0]; p != (Partition{Leader: 1, LeaderEpoch: 1, BrokerEpoch: 3}) {
		t.Errorf("the topic of the same slot is %+v", p)
	}
	apply(t, s, joinRecord(7, 3)) // 4
	want := []WALEpoch{{Epoch: 2, Node: 1}, {Epoch: 3, Node: 1}, {Epoch: 4, Node: 7, Live: true}}
	if got := s.Epochs(); !slices.Equal(got, want) {
		t.Errorf("epochs are %+v, want %+v", got, want)
	}
	if b := s.Brokers(); len(b) != 1 || b[0].Node != 7 || b[0].Address() != "h:9092" || s.Live(3) || !s.Live(4) {
		t.Errorf("brokers are %+v", b)
	}
	apply(t, s, &BrokerRemoved{Epoch: 4, Left: true}) // 5
	if p := s.topics["early"].Partitions[0]; p != (Partition{Leader: NoNode, LeaderEpoch: 3}) {
		t.Errorf("after the broker left the partition is %+v", p)
	}
	if _, ok := s.Broker(7); ok {
		t.Error("the broker that left is still there")
	}
	apply(t, s, joinRecord(7), &EpochRetired{Epoch: 2}) // 6
	if p := s.topics["early"].Partitions[0]; p != (Partition{Leader: 7, LeaderEpoch: 4, BrokerEpoch: 6}) {
		t.Errorf("after the return the partition is %+v", p)
	}
	if got := s.Epochs(); len(got) != 3 || got[0].Epoch != 3 {
		t.Errorf("epochs are %+v, want 2 retired", got)
	}
}

func TestSettingsAndProducerIDs(t *testing.T) {
	s := NewState()
	apply(t, s, joinRecord(1), &ProducerIDsAllocated{First: 0, Count: 1000, To: 1})
	apply(t, s, &ProducerIDsAllocated{First: 1000, Count: 5, To: 1}, &BrokerConfigAltered{Node: AllNodes, Configs: map[string]string{"a": "1"}},
		&BrokerConfigAltered{Node: 1, Configs: map[string]string{"a": "2"}})
	if n := s.NextProducerID(); n != 1005 {
		t.Errorf("next producer id is %d, want 1005", n)
	}
	if all, own := s.BrokerConfigs(1); all["a"] != "1" || own["a"] != "2" {
		t.Errorf("settings are %v and %v", all, own)
	}
	if all, own := s.BrokerConfigs(2); all["a"] != "1" || own != nil {
		t.Errorf("settings of another node are %v and %v", all, own)
	}
	apply(t, s, &BrokerConfigAltered{Node: 1})
	if _, own := s.BrokerConfigs(1); own != nil || len(s.configs) != 1 {
		t.Errorf("settings after their removal: %v", s.configs)
	}
}

func TestDraftRefuses(t *testing.T) {
	s := NewState()
	apply(t, s, joinRecord(1))
	apply(t, s, joinRecord(2))
	apply(t, s, &TopicCreated{Name: "a.b", ID: id(1), Partitions: 3}, &BrokerRemoved{Epoch: 2})
	before := encoding(t, s)
	for name, c := range map[string]struct {
		records []Record // all but the last are allowed
		want    error
	}{
		"topic exists":          {[]Record{&TopicCreated{Name: "a.b", ID: id(9), Partitions: 1}}, ErrTopicExists},
		"exists in the draft":   {[]Record{&TopicCreated{Name: "x", ID: id(8), Partitions: 1}, &TopicCreated{Name: "x", ID: id(9), Partitions: 1}}, ErrTopicExists},
		"name collides":         {[]Record{&TopicCreated{Name: "a_b", ID: id(9), Partitions: 1}}, ErrInvalidTopic},
		"collides in the draft": {[]Record{&TopicCreated{Name: "x.y", ID: id(8), Partitions: 1}, &TopicCreated{Name: "x_y", ID: id(9), Partitions: 1}}, ErrInvalidTopic},
		"bad name":              {[]Record{&TopicCreated{Name: "a b", ID: id(9), Partitions: 1}}, ErrInvalidTopic},
		"id is taken":           {[]Record{&TopicCreated{Name: "x", ID: id(1), Partitions: 1}}, ErrInvalidRecord},
		"no id":                 {[]Record{&TopicCreated{Name: "x", Partitions: 1}}, ErrInvalidRecord},
		"no partitions":         {[]Record{&TopicCreated{Name: "x", ID: id(9)}}, ErrInvalidPartitions},
		"too many partitions":   {[]Record{&TopicCreated{Name: "x", ID: id(9), Partitions: MaxPartitions + 1}}, ErrInvalidPartitions},
		"config not text":       {[]Record{&TopicCreated{Name: "x", ID: id(9), Partitions: 1, Configs: map[string]string{"a": "\xff"}}}, ErrInvalidRecord},
		"config without name":   {[]Record{&TopicConfigAltered{ID: id(1), Configs: map[string]string{"": "x"}}}, ErrInvalidRecord},
		"unknown to grow":       {[]Record{&PartitionsAdded{ID: id(9), Total: 4}}, ErrUnknownTopic},
		"no growth":             {[]Record{&PartitionsAdded{ID: id(1), Total: 3}}, ErrInvalidPartitions},
		"unknown to alter":      {[]Record{&TopicConfigAltered{ID: id(9)}}, ErrUnknownTopic},
		"unknown to delete":     {[]Record{&TopicDeleted{ID: id(9)}}, ErrUnknownTopic},
		"deleted in the draft":  {[]Record{&TopicDeleted{ID: id(1)}, &TopicDeleted{ID: id(1)}}, ErrUnknownTopic},
		"two joins":             {[]Record{joinRecord(3), joinRecord(4)}, ErrInvalidRecord},
		"removes what is gone":  {[]Record{joinRecord(3, 2)}, ErrUnknownBroker},
		"removes its own node":  {[]Record{joinRecord(1, 1)}, ErrUnknownBroker},
		"removes unsorted":      {[]Record{joinRecord(3, 2, 1)}, ErrInvalidRecord},
		"no host":               {[]Record{&BrokerJoined{Node: 1, Incarnation: "i", Port: 1}}, ErrInvalidRecord},
		"no incarnation":        {[]Record{&BrokerJoined{Node: 1, Host: "h", Port: 1}}, ErrInvalidRecord},
		"bad port":              {[]Record{&BrokerJoined{Node: 1, Incarnation: "i", Host: "h", Port: 65536}}, ErrInvalidRecord},
		"bad node":              {[]Record{joinRecord(-1)}, ErrInvalidRecord},
		"removed already":       {[]Record{&BrokerRemoved{Epoch: 2}}, ErrUnknownBroker},
		"retired while live":    {[]Record{&EpochRetired{Epoch: 1}}, ErrUnknownBroker},
		"retired twice":         {[]Record{&EpochRetired{Epoch: 2}, &EpochRetired{Epoch: 2}}, ErrUnknownBroker},
		"bad settings node":     {[]Record{&BrokerConfigAltered{Node: -2}}, ErrInvalidRecord},
		"ids with a gap":        {[]Record{&ProducerIDsAllocated{First: 1, Count: 1, To: 1}}, ErrInvalidRecord},
		"ids to a dead broker":  {[]Record{&ProducerIDsAllocated{First: 0, Count: 1, To: 2}}, ErrUnknownBroker},
		"no ids":                {[]Record{&ProducerIDsAllocated{To: 1}}, ErrInvalidRecord},
	} {
		d := s.Begin()
		for i, r := range c.records {
			err := d.Add(r)
			if last := i == len(c.records)-1; last != errors.Is(err, c.want) || !last && err != nil {
				t.Errorf("%s: record %d: %v, want %v for the last one", name, i, err, c.want)
			}
		}
		if len(d.Records()) != len(c.records)-1 {
			t.Errorf("%s: the draft has %d records, want those that were allowed", name, len(d.Records()))
		}
	}
	if after := encoding(t, s); after != before {
		t.Errorf("drafts that were not committed changed the state:\n%s\n%s", before, after)
	}
	check(t, s)
}

// randomRecords returns records for the next slot, most of which are allowed.
func randomRecords(rng *rand.Rand, s *State, next *int) []Record {
	var out []Record
	for range 1 + rng.IntN(4) {
		topic := id(1 + rng.IntN(max(*next, 1)))
		switch rng.IntN(9) {
		case 0:
			r := joinRecord(NodeID(rng.IntN(3)))
			for _, e := range s.Epochs() {
				if e.Live && e.Node != r.Node && rng.IntN(2) == 0 {
					r.Removes = append(r.Removes, e.Epoch)
				}
			}
			out = append(out, r)
		case 1:
			for _, e := range s.Epochs() {
				if rng.IntN(3) == 0 {
					out = append(out, &BrokerRemoved{Epoch: e.Epoch})
				}
			}
		case 2, 3:
			*next++
			out = append(out, &TopicCreated{Name: fmt.Sprintf("t%d.%d", rng.IntN(40), rng.IntN(2)), ID: id(*next), Partitions: 1 + rng.Int32N(5), Configs: randomConfigs(rng)})
		case 4:
			out = append(out, &PartitionsAdded{ID: topic, Total: 1 + rng.Int32N(20)})
		case 5:
			out = append(out, &TopicConfigAltered{ID: topic, Configs: randomConfigs(rng)})
		case 6:
			out = append(out, &TopicDeleted{ID: topic})
		case 7:
			out = append(out, &BrokerConfigAltered{Node: NodeID(rng.IntN(4) - 1), Configs: randomConfigs(rng)})
		default:
			for _, e := range s.Epochs() {
				if rng.IntN(3) == 0 {
					out = append(out, &EpochRetired{Epoch: e.Epoch})
				}
				if rng.IntN(3) == 0 {
					out = append(out, &ProducerIDsAllocated{First: s.NextProducerID(), Count: 1 + rng.Int32N(2000), To: e.Epoch})
				}
			}
		}
	}
	return out
}

func randomConfigs(rng *rand.Rand) map[string]string {
	m := map[string]string{}
	for range rng.IntN(3) {
		m[fmt.Sprint("k", rng.IntN(5))] = fmt.Sprint(rng.IntN(100), "<ü&\u2028>")
	}
	return m
}

// Two replicas that get the same bytes, one of them by way of a snapshot in the middle, have equal states.
func TestReplicasAgree(t *testing.T) {
	base := objtest.Seed(t)
	for i := range uint64(50) {
		seed := base + i
		rng := rand.New(rand.NewPCG(seed, 1))
		c := logid.ClusterID{9}
		proposer, replica := NewState(), NewState()
		next, refused := 0, 0
		for range 150 {
			d := proposer.Begin()
			for _, r := range randomRecords(rng, proposer, &next) {
				if d.Add(r) != nil {
					refused++
				}
			}
			if len(d.Records()) == 0 {
				continue
			}
			body, err := encodeEntry(entry{Cluster: c, Slot: d.Slot()}, [16]byte{1}, d.Records())
			if err != nil {
				t.Fatal(err)
			}
			slot := d.Slot()
			d.commit()
			check(t, proposer)
			_, records, err := decodeEntry(body, c, slot)
			if err != nil {
				t.Fatalf("seed %d slot %d: %v\n%s", seed, slot, err, body)
			}
			apply(t, replica, records...)
			if a, b := encoding(t, proposer), encoding(t, replica); a != b {
				t.Fatalf("seed %d slot %d: states differ:\n%s\n%s", seed, slot, a, b)
			}
			if rng.IntN(20) == 0 { // the replica restarts from a snapshot
				b, err := encodeSnapshot(replica, c, [16]byte{2})
				if err != nil {
					t.Fatal(err)
				}
				if replica, err = decodeSnapshot(b, c, slot); err != nil {
					t.Fatalf("seed %d slot %d: %v", seed, slot, err)
				}
			}
		}
		if topics, _ := proposer.Count(); topics == 0 || refused == 0 {
			t.Errorf("seed %d: %d topics, %d records refused: the run tested little", seed, topics, refused)
		}
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}
