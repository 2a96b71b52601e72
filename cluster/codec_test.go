package cluster

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/tierlog/tierlog/tiered/logid"
	"github.com/tierlog/tierlog/tiered/manifest"
)

var testCluster = logid.ClusterID{7}

// allRecords holds one record of each kind with every field set.
func allRecords() []Record {
	return []Record{
		&BrokerJoined{Node: 1, Incarnation: "0b5c", Host: "h", Port: 9092, Rack: "r", Version: "v", Removes: []logid.Epoch{3, 5}},
		&BrokerRemoved{Epoch: 5, Left: true},
		&TopicCreated{Name: "orders", ID: id(1), Partitions: 3, Configs: map[string]string{"retention.ms": "5", "cleanup.policy": "delete"}},
		&PartitionsAdded{ID: id(1), Total: 4},
		&TopicConfigAltered{ID: id(1), Configs: map[string]string{"retention.ms": "6"}},
		&TopicDeleted{ID: id(1)},
		&BrokerConfigAltered{Node: AllNodes, Configs: map[string]string{"message.max.bytes": "7"}},
		&ProducerIDsAllocated{First: 1000, Count: 1000, To: 5},
		&EpochRetired{Epoch: 3},
	}
}

func testEntry() ([]byte, error) {
	return encodeEntry(entry{Cluster: testCluster, Slot: 42, By: 5, TimeMs: 1700000000000}, manifest.Nonce{1}, allRecords())
}

func testState() *State {
	s := NewState()
	for _, records := range [][]Record{
		{joinRecord(1)},
		{&TopicCreated{Name: "orders", ID: id(1), Partitions: 3, Configs: map[string]string{"retention.ms": "5"}}, &ProducerIDsAllocated{First: 0, Count: 1000, To: 1}},
		{joinRecord(2, 1), &BrokerConfigAltered{Node: AllNodes, Configs: map[string]string{"message.max.bytes": "7"}}},
		{&PartitionsAdded{ID: id(1), Total: 4}, &TopicCreated{Name: "paid", ID: id(2), Partitions: 1}},
	} {
		d := s.Begin()
		for _, r := range records {
			if err := d.Add(r); err != nil {
				panic(err)
			}
		}
		d.commit()
	}
	return s
}

func testLease() *leaseBody {
	return &leaseBody{Cluster: testCluster, Node: 1, Epoch: 5, Version: 9, TTLMs: 18000, Address: "h:9092", TimeMs: 1700000000000}
}

// The golden files are the formats of version 1: they must be read for ever. They change with a new format only.
func TestGoldenBodies(t *testing.T) {
	for name, make := range map[string]func() ([]byte, error){
		"record":   testEntry,
		"snapshot": func() ([]byte, error) { return encodeSnapshot(testState(), testCluster, manifest.Nonce{2}) },
		"lease":    func() ([]byte, error) { return testLease().encode(manifest.Nonce{3}) },
	} {
		got, err := make()
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join("testdata", name+".json")
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s is\n%swant\n%s", path, got, want)
		}
		if !json.Valid(got) {
			t.Errorf("%s is not JSON", path)
		}
	}
}

func TestEntryRoundTrip(t *testing.T) {
	body, err := testEntry()
	if err != nil {
		t.Fatal(err)
	}
	e, records, err := decodeEntry(body, testCluster, 42)
	if err != nil || e.By != 5 || e.TimeMs != 1700000000000 || !reflect.DeepEqual(records, allRecords()) {
		t.Errorf("decodeEntry = %+v, %+v, %v", e, records, err)
	}
	for _, r := range records {
		if reflect.TypeOf(newRecord(r.kind())) != reflect.TypeOf(r) {
			t.Errorf("newRecord(%q) is a %T", r.kind(), newRecord(r.kind()))
		}
	}
}

func TestSnapshotRoundTrip(t *testing.T) {
	s := testState()
	body, err := encodeSnapshot(s, testCluster, manifest.Nonce{2})
	if err != nil {
		t.Fatal(err)
	}
	back, err := decodeSnapshot(body, testCluster, s.slot)
	if err != nil {
		t.Fatal(err)
	}
	check(t, back)
	if a, b := encoding(t, s), encoding(t, back); a != b {
		t.Errorf("state\n%s\nbecame\n%s", a, b)
	}
}

// frame returns a body of this package's kinds with these fields.
func frame(t *testing.T, k manifest.Kind, fields string) []byte {
	t.Helper()
	b, err := manifest.EncodeBody(k, manifest.Nonce{1}, json.RawMessage(fields))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestDecodeEntryRefuses(t *testing.T) {
	head := `{"cluster":"` + testCluster.String() + `","slot":42,"timeMs":1,"records":[`
	for name, c := range map[string]struct {
		fields string
		want   error
	}{
		"another slot":     {strings.Replace(head, "42", "43", 1) + `]}`, ErrCorrupt},
		"another cluster":  {strings.Replace(head, testCluster.String(), logid.ClusterID{8}.String(), 1) + `]}`, ErrCorrupt},
		"unknown field":    {head + `],"more":1}`, ErrCorrupt},
		"unknown kind":     {head + `{"topicPainted":{}}]}`, ErrCorrupt},
		"reserved kind":    {head + `{"aclCreated":{}}]}`, ErrNewer},
		"no kind":          {head + `{}]}`, ErrCorrupt},
		"two kinds":        {head + `{"topicDeleted":{},"epochRetired":{}}]}`, ErrCorrupt},
		"null":             {head + `{"epochRetired":null}]}`, ErrCorrupt},
		"record not known": {head + `{"epochRetired":{"epoch":1,"more":1}}]}`, ErrCorrupt},
		"record not right": {head + `{"brokerConfigAltered":{"node":-9}}]}`, ErrCorrupt},
		"wrong type":       {head + `{"epochRetired":{"epoch":"x"}}]}`, ErrCorrupt},
	} {
		if _, _, err := decodeEntry(frame(t, kindEntry, c.fields), testCluster, 42); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	good, err := testEntry()
	if err != nil {
		t.Fatal(err)
	}
	for i := range good {
		bad := bytes.Clone(good)
		bad[i] ^= 4
		if _, _, err := decodeEntry(bad, testCluster, 42); !errors.Is(err, ErrCorrupt) {
			t.Errorf("bit flipped in byte %d: %v, want ErrCorrupt", i, err)
		}
		if _, _, err := decodeEntry(good[:i], testCluster, 42); !errors.Is(err, ErrCorrupt) {
			t.Errorf("cut to %d bytes: %v, want ErrCorrupt", i, err)
		}
	}
	newer := reframe(good, `"format":1`, `"format":2`)
	if _, _, err := decodeEntry(newer, testCluster, 42); !errors.Is(err, ErrNewer) {
		t.Errorf("format 2: %v, want ErrNewer", err)
	}
}

func TestDecodeSnapshotRefuses(t *testing.T) {
	head := `{"cluster":"` + testCluster.String() + `","slot":9,"nextProducerId":0`
	topic := func(name string, n int, runs string) string {
		return `{"name":"` + name + `","id":"` + id(n).String() + `","created":1,"partitions":` + runs + `}`
	}
	for name, fields := range map[string]string{
		"another slot":        strings.Replace(head, "9", "8", 1) + `}`,
		"producer ids":        strings.Replace(head, `Id":0`, `Id":-1`, 1) + `}`,
		"epochs unsorted":     head + `,"epochs":[{"epoch":3,"node":1},{"epoch":2,"node":1}]}`,
		"epoch of the future": head + `,"epochs":[{"epoch":10,"node":1}]}`,
		"broker not live":     head + `,"epochs":[{"epoch":3,"node":1}],"brokers":[{"node":1,"epoch":3,"incarnation":"i","host":"h","port":1}]}`,
		"settings twice":      head + `,"brokerConfigs":[{"node":1,"configs":{"a":"1"}},{"node":1,"configs":{"a":"1"}}]}`,
		"settings empty":      head + `,"brokerConfigs":[{"node":1,"configs":{}}]}`,
		"topic twice":         head + `,"topics":[` + topic("a", 1, "[[1,-1,0,0]]") + "," + topic("a", 2, "[[1,-1,0,0]]") + `]}`,
		"topic id twice":      head + `,"topics":[` + topic("a", 1, "[[1,-1,0,0]]") + "," + topic("b", 1, "[[1,-1,0,0]]") + `]}`,
		"topic without id":    head + `,"topics":[` + strings.Replace(topic("a", 1, "[[1,-1,0,0]]"), id(1).String(), logid.TopicID{}.String(), 1) + `]}`,
		"bad topic name":      head + `,"topics":[` + topic("a b", 1, "[[1,-1,0,0]]") + `]}`,
		"no partitions":       head + `,"topics":[` + topic("a", 1, "[]") + `]}`,
		"empty run":           head + `,"topics":[` + topic("a", 1, "[[0,-1,0,0]]") + `]}`,
		"huge run":            head + `,"topics":[` + topic("a", 1, "[[9223372036854775807,-1,0,0]]") + `]}`,
		"leader out of range": head + `,"topics":[` + topic("a", 1, "[[1,4294967296,0,0]]") + `]}`,
		"unknown field":       head + `,"more":1}`,
	} {
		if _, err := decodeSnapshot(frame(t, kindSnapshot, fields), testCluster, 9); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %v, want ErrCorrupt", name, err)
		}
	}
	if _, err := decodeSnapshot(frame(t, kindSnapshot, head+`}`), testCluster, 9); err != nil {
		t.Errorf("an empty snapshot: %v", err)
	}
}

func TestLeaseRoundTrip(t *testing.T) {
	b, err := testLease().encode(manifest.Nonce{3})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := decodeLease(b, testCluster, 1); err != nil || *got != *testLease() {
		t.Errorf("decodeLease = %+v, %v", got, err)
	}
	if _, err := decodeLease(b, testCluster, 2); !errors.Is(err, ErrCorrupt) {
		t.Errorf("lease of another node: %v, want ErrCorrupt", err)
	}
}

func FuzzDecodeEntry(f *testing.F) {
	if b, err := testEntry(); err == nil {
		f.Add(fields(b))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		_, records, err := decodeEntry(wrap(kindEntry, b), testCluster, 42)
		if err != nil {
			if !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrNewer) {
				t.Errorf("decodeEntry: %v, want ErrCorrupt or ErrNewer", err)
			}
			return
		}
		again, err := encodeEntry(entry{Cluster: testCluster, Slot: 42}, manifest.Nonce{1}, records)
		if err != nil {
			t.Fatal(err)
		}
		if _, back, err := decodeEntry(again, testCluster, 42); err != nil || len(back) != len(records) {
			t.Errorf("decoded %d records, again %d, %v", len(records), len(back), err)
		}
		d := NewState().Begin()
		for _, r := range records {
			_ = d.Add(r) // must not panic
		}
		d.commit()
		check(t, d.state)
	})
}

func FuzzDecodeSnapshot(f *testing.F) {
	if b, err := encodeSnapshot(testState(), testCluster, manifest.Nonce{1}); err == nil {
		f.Add(fields(b))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := decodeSnapshot(wrap(kindSnapshot, b), testCluster, 4)
		if err != nil {
			if !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrNewer) {
				t.Errorf("decodeSnapshot: %v, want ErrCorrupt or ErrNewer", err)
			}
			return
		}
		again, err := encodeSnapshot(s, testCluster, manifest.Nonce{1})
		if err != nil {
			t.Fatal(err)
		}
		back, err := decodeSnapshot(again, testCluster, 4)
		if err != nil || encoding(t, back) != encoding(t, s) {
			t.Errorf("a snapshot that was read does not read back: %v", err)
		}
	})
}

func FuzzDecodeLease(f *testing.F) {
	if b, err := testLease().encode(manifest.Nonce{1}); err == nil {
		f.Add(fields(b))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := decodeLease(wrap(kindLease, b), testCluster, 1)
		if err == nil && time.Duration(l.TTLMs)*time.Millisecond < 0 {
			t.Errorf("a lease of %d ms was accepted", l.TTLMs)
		}
		if err != nil && !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrNewer) {
			t.Errorf("decodeLease: %v, want ErrCorrupt or ErrNewer", err)
		}
	})
}
