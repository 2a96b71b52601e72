package manifest

import (
	"errors"
	"strings"
	"testing"

	"github.com/tierlog/tierlog/tiered/logid"
)

const testClusterText = "ECIzRFVmR4iZqrvM3e7_AQ"

var keyTable = []struct {
	key  Key
	text string
}{
	{Key{Kind: KeyCluster}, "cluster.json"},
	{Key{Kind: KeyMeta, Cluster: testCluster, Slot: 7}, testClusterText + "/meta/log/00000000000000000007"},
	{Key{Kind: KeyMetaSnapshot, Cluster: testCluster, Slot: 7}, testClusterText + "/meta/snapshot/00000000000000000007"},
	{Key{Kind: KeyLease, Cluster: testCluster, Broker: 12}, testClusterText + "/lease/12"},
	{Key{Kind: KeyWAL, Cluster: testCluster, Epoch: 42, Slot: 7}, testClusterText + "/wal/00000000000000000042/00000000000000000007"},
	{Key{Kind: KeyWALManifest, Cluster: testCluster, Epoch: 42}, testClusterText + "/wal/00000000000000000042/manifest.json"},
	{Key{Kind: KeyCheckpoint, Cluster: testCluster, Epoch: 42, Slot: 9, ULID: testULID(1)}, testClusterText + "/wal/00000000000000000042/checkpoint/00000000000000000009-01KAYDXW0J0000000000000001"},
	{Key{Kind: KeyMerged, Cluster: testCluster, Epoch: 42, Slot: 9, To: 11, ULID: testULID(1)}, testClusterText + "/wal/00000000000000000042/merged/00000000000000000009-00000000000000000011-01KAYDXW0J0000000000000001"},
	{Key{Kind: KeyPartitionManifest, Cluster: testCluster, Topic: "a.b-c_D", Partition: testPart}, testClusterText + "/topics/a.b-c_D.qwECAwQFRgeICQoLDA0ODw/3/manifest.json"},
	{Key{Kind: KeyPage, Cluster: testCluster, Topic: "t", Partition: testPart, Base: 1, Last: 2, ULID: testULID(1)}, testClusterText + "/topics/t.qwECAwQFRgeICQoLDA0ODw/3/pages/00000000000000000001-00000000000000000002-01KAYDXW0J0000000000000001.json"},
	{Key{Kind: KeySegmentFile, Cluster: testCluster, Topic: "t", Partition: testPart, Base: 1, ULID: testULID(1), File: FileLog, FileBase: 1}, testClusterText + "/topics/t.qwECAwQFRgeICQoLDA0ODw/3/00000000000000000001-01KAYDXW0J0000000000000001/00000000000000000001.log"},
	{Key{Kind: KeySegmentFile, Cluster: testCluster, Topic: "t", Partition: testPart, Base: 1, ULID: testULID(1), File: FileSnapshot, FileBase: 5}, testClusterText + "/topics/t.qwECAwQFRgeICQoLDA0ODw/3/00000000000000000001-01KAYDXW0J0000000000000001/00000000000000000005.snapshot"},
	{Key{Kind: KeyJob, Cluster: testCluster, ULID: testULID(1)}, testClusterText + "/job/01KAYDXW0J0000000000000001"},
	{Key{Kind: KeyDeletion, Cluster: testCluster, Date: "2026-01-31", ULID: testULID(1)}, testClusterText + "/gc/2026-01-31/01KAYDXW0J0000000000000001"},
}

func TestKeys(t *testing.T) {
	for _, c := range keyTable {
		if got := c.key.String(); got != c.text {
			t.Errorf("key of kind %d is\n%s, want\n%s", c.key.Kind, got, c.text)
		}
		if got, err := ParseKey(c.text); err != nil || got != c.key {
			t.Errorf("ParseKey(%q) = %+v, %v; want %+v", c.text, got, err, c.key)
		}
		if !strings.HasPrefix(c.text, Prefix(testCluster, c.key.Kind)) {
			t.Errorf("%q is not listed under %q", c.text, Prefix(testCluster, c.key.Kind))
		}
		// Damage of any one byte must not give another object of the same kind and name in silence.
		for i := range c.text {
			if got, err := ParseKey(c.text[:i] + "!" + c.text[i+1:]); err == nil {
				t.Errorf("%q with byte %d damaged parses as %+v", c.text, i, got)
			}
		}
	}
	p := samplePartition()
	if got, want := p.Key(testCluster), PartitionPrefix(testCluster, "orders", testPart)+"manifest.json"; got != want {
		t.Errorf("Partition.Key = %q, want %q", got, want)
	}
	if got := p.SegmentKey(testCluster, p.Segments[0], FileSnapshot); !strings.HasSuffix(got, "/00000000000000006000.snapshot") {
		t.Errorf("the snapshot of offsets 3000 to 5999 is at %q", got)
	}
	if !strings.HasPrefix(sampleWAL().Key(testCluster), WALPrefix(testCluster, 42)) {
		t.Error("the manifest of an epoch is not under its prefix")
	}
	if got := sampleDeletion().Key(testCluster); !strings.Contains(got, "/gc/2026-01-01/") {
		t.Errorf("deletion at %q", got)
	}
}

// A directory store holds at most 255 bytes between two slashes.
func TestLongTopicNamesFitAFileName(t *testing.T) {
	for _, n := range []int{199, 200, 201, 249} {
		name := strings.Repeat("x", n)
		k := Key{Kind: KeyPartitionManifest, Cluster: testCluster, Topic: name, Partition: testPart}
		text := k.String()
		for part := range strings.SplitSeq(text, "/") {
			if len(part) > 255 {
				t.Errorf("name of %d bytes gives a part of %d bytes", n, len(part))
			}
		}
		got, err := ParseKey(text)
		if err != nil || got.Topic != TopicPart(name) || got.String() != text {
			t.Errorf("ParseKey of a name of %d bytes = %+v, %v", n, got, err)
		}
	}
	if TopicPart(strings.Repeat("x", 200)) == TopicPart(strings.Repeat("x", 201)) {
		t.Error("a cut name looks like a whole one")
	}
}

func TestParseKeyRefuses(t *testing.T) {
	for _, s := range []string{
		"", "/", "cluster.jso", "x/cluster.json", testClusterText, testClusterText + "/", testClusterText + "/meta", testClusterText + "/meta/log/7",
		testClusterText + "/meta/log/00000000000000000007/", testClusterText + "/lease/-1", testClusterText + "/lease/012",
		testClusterText + "/wal/42/00000000000000000007", testClusterText + "/gc/2026-02-30/01KAYDXW0J0000000000000001",
		testClusterText + "/gc/2026-02-03/01kaydxw0j0000000000000001", testClusterText + "/topics/..qwECAwQFRgeICQoLDA0ODw/3/manifest.json",
		testClusterText + "/topics/t.qwECAwQFRgeICQoLDA0ODw/03/manifest.json", testClusterText + "/topics/a~.qwECAwQFRgeICQoLDA0ODw/3/manifest.json",
		testClusterText + "/topics/t.qwECAwQFRgeICQoLDA0ODw/3/00000000000000000001-01KAYDXW0J0000000000000001/00000000000000000001.exe",
		testClusterText + "/topics/t.qwECAwQFRgeICQoLDA0ODw/3/-1-01KAYDXW0J0000000000000001/00000000000000000001.log",
	} {
		if k, err := ParseKey(s); !errors.Is(err, logid.ErrSyntax) {
			t.Errorf("ParseKey(%q) = %+v, %v; want ErrSyntax", s, k, err)
		}
	}
}

func FuzzParseKey(f *testing.F) {
	for _, c := range keyTable {
		f.Add(c.text)
	}
	f.Fuzz(func(t *testing.T, s string) {
		k, err := ParseKey(s)
		if err != nil {
			if !errors.Is(err, logid.ErrSyntax) {
				t.Errorf("ParseKey(%q): %v is no ErrSyntax", s, err)
			}
			return
		}
		if k.String() != s {
			t.Errorf("ParseKey(%q) writes %q", s, k)
		}
	})
}

func TestNonceAndULIDText(t *testing.T) {
	for _, s := range []string{"", strings.Repeat("g", 32), strings.Repeat("A", 32), strings.Repeat("0", 31)} {
		if _, err := ParseNonce(s); !errors.Is(err, logid.ErrSyntax) {
			t.Errorf("ParseNonce(%q): %v", s, err)
		}
	}
	n := testNonce(77)
	if got, err := ParseNonce(n.String()); err != nil || got != n {
		t.Errorf("ParseNonce(%q) = %v, %v", n, got, err)
	}
	if _, err := NewNonce(strings.NewReader("short")); err == nil {
		t.Error("NewNonce from an exhausted source succeeds")
	}
	for _, s := range []string{"", "01KAYDXW0J000000000000000", "01kaydxw0j0000000000000001", "81KAYDXW0J0000000000000001", "01KAYDXW0J000000000000000U"} {
		if _, err := ParseULID(s); !errors.Is(err, logid.ErrSyntax) {
			t.Errorf("ParseULID(%q): %v", s, err)
		}
	}
}
