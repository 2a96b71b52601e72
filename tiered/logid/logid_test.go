package logid_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"math"
	"strings"
	"testing"

	"github.com/tierlog/tierlog/tiered/logid"
)

func TestNumbersRoundTrip(t *testing.T) {
	for _, v := range []uint64{0, 1, 9, 10, 1<<63 - 1, math.MaxUint64} {
		e, s := logid.Epoch(v), logid.Slot(v)
		for _, text := range []string{e.String(), e.Key()} {
			if got, err := logid.ParseEpoch(text); err != nil || got != e {
				t.Errorf("ParseEpoch(%q) = %v, %v; want %v", text, got, err, e)
			}
		}
		for _, text := range []string{s.String(), s.Key()} {
			if got, err := logid.ParseSlot(text); err != nil || got != s {
				t.Errorf("ParseSlot(%q) = %v, %v; want %v", text, got, err, s)
			}
		}
		if len(s.Key()) != logid.KeyWidth {
			t.Errorf("Slot(%d).Key() = %q: %d digits", v, s.Key(), len(s.Key()))
		}
	}
	for _, v := range []logid.Offset{logid.NoOffset, 0, 7, math.MaxInt64} {
		if got, err := logid.ParseOffset(v.String()); err != nil || got != v {
			t.Errorf("ParseOffset(%q) = %v, %v", v, got, err)
		}
	}
	if got, want := logid.Offset(1234567).Key(), "00000000000001234567"; got != want {
		t.Errorf("Key = %q, want %q", got, want)
	}
	for _, v := range []logid.LeaderEpoch{logid.NoLeaderEpoch, 0, math.MaxInt32} {
		if got, err := logid.ParseLeaderEpoch(v.String()); err != nil || got != v {
			t.Errorf("ParseLeaderEpoch(%q) = %v, %v", v, got, err)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	unsigned := []string{"", "-1", "+1", " 1", "1 ", "0x1", "01", "1_0", "18446744073709551616", "000000000000000000000", strings.Repeat("9", 1000)}
	for _, s := range unsigned {
		if v, err := logid.ParseSlot(s); !errors.Is(err, logid.ErrSyntax) {
			t.Errorf("ParseSlot(%q) = %v, %v; want ErrSyntax", s, v, err)
		}
		if v, err := logid.ParseEpoch(s); !errors.Is(err, logid.ErrSyntax) {
			t.Errorf("ParseEpoch(%q) = %v, %v; want ErrSyntax", s, v, err)
		}
	}
	for _, s := range []string{"", "-2", "-0", "-01", "9223372036854775808"} {
		if v, err := logid.ParseOffset(s); !errors.Is(err, logid.ErrSyntax) {
			t.Errorf("ParseOffset(%q) = %v, %v; want ErrSyntax", s, v, err)
		}
	}
	for _, s := range []string{"", "-2", "2147483648"} {
		if v, err := logid.ParseLeaderEpoch(s); !errors.Is(err, logid.ErrSyntax) {
			t.Errorf("ParseLeaderEpoch(%q) = %v, %v; want ErrSyntax", s, v, err)
		}
	}
	for _, s := range []string{"", "AAAAAAAAAAAAAAAAAAAAA", "AAAAAAAAAAAAAAAAAAAAAB", "AAAAAAAAAAAAAAAAAAAA==", "AAAAAAAAAAAAAAAAAAAA+A", "AAAAAAAAAAAAAAAAAAAA\nA"} {
		if v, err := logid.ParseTopicID(s); !errors.Is(err, logid.ErrSyntax) {
			t.Errorf("ParseTopicID(%q) = %v, %v; want ErrSyntax", s, v, err)
		}
	}
	id := "AAAAAAAAAAAAAAAAAAAAAA"
	for _, s := range []string{"", id, id + "-", id + "--1", id + "_1", id + "-01", id + "-2147483648", id + "-00000000000000000001"} {
		if v, err := logid.ParsePartition(s); !errors.Is(err, logid.ErrSyntax) {
			t.Errorf("ParsePartition(%q) = %v, %v; want ErrSyntax", s, v, err)
		}
	}
}

// The texts are Kafka's: Uuid.toString of these bytes.
func TestTopicIDText(t *testing.T) {
	id := logid.TopicID{0xfb, 0xff, 0xbf, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13}
	const text = "-_-_AQIDBAUGBwgJCgsMDQ"
	if got := id.String(); got != text {
		t.Fatalf("String = %q, want %q", got, text)
	}
	got, err := logid.ParseTopicID(text)
	if err != nil || got != id {
		t.Fatalf("ParseTopicID = %v, %v", got, err)
	}
	if !(logid.TopicID{}).IsZero() || id.IsZero() {
		t.Error("IsZero is wrong")
	}
	b, err := json.Marshal(map[logid.TopicID]logid.TopicID{id: id})
	if err != nil || string(b) != `{"`+text+`":"`+text+`"}` {
		t.Fatalf("JSON = %s, %v", b, err)
	}
	var back map[logid.TopicID]logid.TopicID
	if err := json.Unmarshal(b, &back); err != nil || back[id] != id {
		t.Fatalf("JSON back = %v, %v", back, err)
	}
}

func TestNewIDsAreKafkaSafe(t *testing.T) {
	// 0xf8..0xfb as the first byte would make the text start with '-'.
	src := bytes.NewReader(append(bytes.Repeat([]byte{0xfa}, 16), bytes.Repeat([]byte{0xff}, 16)...))
	id, err := logid.NewTopicID(src)
	if err != nil || id[0] != 0xff || id[6] != 0x4f || id[8] != 0xbf {
		t.Fatalf("NewTopicID = %x, %v", id, err)
	}
	if c, err := logid.NewClusterID(src); err == nil {
		t.Fatalf("NewClusterID from an exhausted source = %v", c)
	}
	c := logid.ClusterID(id)
	if got, err := logid.ParseClusterID(c.String()); err != nil || got != c || c.IsZero() {
		t.Fatalf("ParseClusterID = %v, %v", got, err)
	}
	b, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	var back logid.ClusterID
	if err := json.Unmarshal(b, &back); err != nil || back != c {
		t.Fatalf("JSON back = %v, %v", back, err)
	}
	if err := json.Unmarshal([]byte(`"nope"`), &back); !errors.Is(err, logid.ErrSyntax) {
		t.Fatalf("JSON of a bad id: %v", err)
	}
}

func TestPartitionRoundTripAndOrder(t *testing.T) {
	a := logid.Partition{Topic: logid.TopicID{1}, Index: 2}
	b := logid.Partition{Topic: logid.TopicID{1}, Index: 10}
	c := logid.Partition{Topic: logid.TopicID{0xff}, Index: 0}
	for _, p := range []logid.Partition{a, b, c} {
		if got, err := logid.ParsePartition(p.String()); err != nil || got != p {
			t.Errorf("ParsePartition(%q) = %v, %v", p, got, err)
		}
	}
	if a.Compare(b) >= 0 || b.Compare(c) >= 0 || c.Compare(a) <= 0 || a.Compare(logid.Partition{Topic: a.Topic, Index: a.Index}) != 0 {
		t.Error("Compare is not by topic id, then index")
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"0", "-1", "00000000000000000001", "18446744073709551615", "AAAAAAAAAAAAAAAAAAAAAA", "AAAAAAAAAAAAAAAAAAAAAA-3"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if v, err := logid.ParseSlot(s); err == nil && v.String() != s && v.Key() != s {
			t.Errorf("ParseSlot(%q) = %v writes neither form back", s, v)
		}
		if v, err := logid.ParseOffset(s); err == nil && v.String() != s && v.Key() != s {
			t.Errorf("ParseOffset(%q) = %v writes neither form back", s, v)
		}
		if v, err := logid.ParseTopicID(s); err == nil && v.String() != s {
			t.Errorf("ParseTopicID(%q) writes %q", s, v)
		}
		if v, err := logid.ParsePartition(s); err == nil && v.String() != s {
			t.Errorf("ParsePartition(%q) writes %q", s, v)
		}
	})
}
