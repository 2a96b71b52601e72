package manifest

import (
	"errors"
	"math"
	"reflect"
	"strings"
	"testing"

	"github.com/tierlog/tierlog/tiered/logid"
)

func seg(base, last logid.Offset) Segment {
	return Segment{Base: base, Last: last, ULID: testULID(uint64(1000 + base)), Size: 1 << 20, IndexSize: 2048, TimeIndexSize: 3072, MaxTimestamp: int64(base)}
}

func TestPartitionValidate(t *testing.T) {
	for field, damage := range map[string]func(m *Partition){
		"topic name":               func(m *Partition) { m.Topic = "a/b" },
		"1 to 249":                 func(m *Partition) { m.Topic = strings.Repeat("a", 250) },
		"version":                  func(m *Partition) { m.Version = 0 },
		"topicId":                  func(m *Partition) { m.TopicID = logid.TopicID{} },
		"partition is -1":          func(m *Partition) { m.Index = -1 },
		"logStart":                 func(m *Partition) { m.LogStart = -1 },
		"rolledThrough is":         func(m *Partition) { m.RolledThrough = -1 },
		"not below rolledThrough":  func(m *Partition) { m.RolledThrough = 8999 },
		"pages[0]: offsets":        func(m *Partition) { m.Pages[0].Base = 3000 },
		"pages[0]: without":        func(m *Partition) { m.Pages[0].ULID = ULID{} },
		"pages[0]: count":          func(m *Partition) { m.Pages[0].Count = 0 },
		"pages[1] from":            func(m *Partition) { m.Pages = append(m.Pages, m.Pages[0]) },
		"does not follow the page": func(m *Partition) { m.Segments[0].Base = 2999 },
		"segments[0]: offsets":     func(m *Partition) { m.Segments[0].Last = 1 },
		"more apart":               func(m *Partition) { m.Segments[1].Last = math.MaxInt64; m.RolledThrough = math.MaxInt64 },
		"segments[1]: without":     func(m *Partition) { m.Segments[1].ULID = ULID{} },
		"segments[1]: size":        func(m *Partition) { m.Segments[1].Size = 1 << 31 },
		"a negative size":          func(m *Partition) { m.Segments[1].TxnIndexSize = -1 },
		"segments[1] from":         func(m *Partition) { m.Segments[1].Base = 5999; m.Segments[1].Epochs = nil },
		"epochs[1] is 2":           func(m *Partition) { m.Segments[0].Epochs[1].Epoch = 2 },
		"epochs[0] starts at 9000": func(m *Partition) { m.Segments[1].Epochs[0].Start = 9000 },
		"epochs[0] is -1":          func(m *Partition) { m.Segments[1].Epochs[0].Epoch = -1 },
		"leader epoch 3 starts":    func(m *Partition) { m.Segments[1].Epochs[0].Epoch = 3 },
	} {
		m := samplePartition()
		damage(m)
		if err := m.Validate(); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), field) {
			t.Errorf("%s: %v, want ErrInvalid that names it", field, err)
		}
		if _, err := m.Encode(); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: Encode: %v, want ErrInvalid", field, err)
		}
	}
}

func TestPartitionEdits(t *testing.T) {
	m := &Partition{Nonce: testNonce(1), Version: 1, Topic: "t", TopicID: testTopic, Index: 3}
	steps := []struct {
		name string
		edit func(m *Partition) error
		want error
	}{
		{"rollup that starts late", func(m *Partition) error { return m.Append(1, 10, seg(1, 9)) }, ErrConflict},
		{"rollup of nothing", func(m *Partition) error { return m.Append(0, 0) }, ErrConflict},
		{"rollup", func(m *Partition) error { return m.Append(0, 100, seg(0, 49), seg(50, 90)) }, nil},
		{"the same rollup again", func(m *Partition) error { return m.Append(0, 100, seg(0, 49), seg(50, 90)) }, ErrConflict},
		{"rollup into the past", func(m *Partition) error { return m.Append(100, 200, seg(95, 199)) }, ErrInvalid},
		{"rollup beyond its range", func(m *Partition) error { return m.Append(100, 200, seg(100, 200)) }, ErrInvalid},
		{"rollup without records", func(m *Partition) error { return m.Append(100, 200) }, nil},
		{"rollup on", func(m *Partition) error { return m.Append(200, 300, seg(200, 299)) }, nil},
		{"replace nothing", func(m *Partition) error { return m.Replace(nil) }, ErrConflict},
		{"replace what is not there", func(m *Partition) error { return m.Replace([]Segment{seg(0, 48)}) }, ErrConflict},
		{"replace what is not in a row", func(m *Partition) error { return m.Replace([]Segment{seg(0, 49), seg(200, 299)}) }, ErrConflict},
		{"replace outside", func(m *Partition) error { return m.Replace([]Segment{seg(50, 90)}, seg(49, 90)) }, ErrInvalid},
		{"replace", func(m *Partition) error { return m.Replace([]Segment{seg(0, 49), seg(50, 90)}, seg(3, 80)) }, nil},
		{"log start", func(m *Partition) error { return m.AdvanceLogStart(250) }, nil},
		{"log start back", func(m *Partition) error { return m.AdvanceLogStart(249) }, ErrConflict},
		{"drop", func(m *Partition) error {
			segs, pages := m.DropDead()
			if len(segs) != 1 || segs[0].Base != 3 || len(pages) != 0 || len(m.Segments) != 1 {
				t.Errorf("DropDead gives %+v, %+v and leaves %+v", segs, pages, m.Segments)
			}
			return nil
		}, nil},
		{"log start beyond all", func(m *Partition) error { return m.AdvanceLogStart(5000) }, nil},
		{"drop the last", func(m *Partition) error { return m.Replace([]Segment{seg(200, 299)}) }, nil},
		{"rollup below the log start", func(m *Partition) error { return m.Append(300, 400, seg(300, 399)) }, nil},
	}
	for i, s := range steps {
		next := m.Next(testNonce(uint64(2 + i)))
		before := m.Next(next.Nonce)
		err := s.edit(next)
		switch {
		case s.want == nil && err != nil, s.want != nil && !errors.Is(err, s.want):
			t.Fatalf("%s: %v, want %v", s.name, err, s.want)
		case s.want != nil && !reflect.DeepEqual(next, before):
			t.Fatalf("%s failed and changed the manifest to %+v", s.name, next)
		case s.want == nil:
			if err := m.CheckNext(next); err != nil {
				t.Fatalf("%s: CheckNext: %v", s.name, err)
			}
			m = next
		}
	}
	if m.RolledThrough != 400 || m.LogStart != 5000 || len(m.Segments) != 1 {
		t.Errorf("in the end %+v", m)
	}
}

func TestPartitionCheckNext(t *testing.T) {
	m := samplePartition()
	for name, damage := range map[string]func(n *Partition){
		"partition":     func(n *Partition) { n.Index++ },
		"version":       func(n *Partition) { n.Version++ },
		"nonce":         func(n *Partition) { n.Nonce = m.Nonce },
		"logStart":      func(n *Partition) { n.LogStart-- },
		"rolledThrough": func(n *Partition) { n.RolledThrough-- },
		"reaches over":  func(n *Partition) { n.RolledThrough = 9999; n.Segments[1].Last = 9500 },
	} {
		n := m.Next(testNonce(99))
		damage(n)
		if err := m.CheckNext(n); !errors.Is(err, ErrConflict) || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v, want ErrConflict that names it", name, err)
		}
	}
	n := m.Next(testNonce(99))
	if err := m.CheckNext(n); err != nil {
		t.Error(err)
	}
	n.Pages[0].Count, n.Segments[0].Size, n.Segments[0].Epochs[0].Epoch = 7, 7, 1
	if !reflect.DeepEqual(m, samplePartition()) {
		t.Error("editing the next manifest changed the last one")
	}
}

func TestFind(t *testing.T) {
	m := samplePartition()
	for off, want := range map[logid.Offset]int{0: 0, 3000: 0, 5999: 0, 6000: 1, 6100: 1, 8999: 1, 9000: 2} {
		if got := FirstSegment(m.Segments, off); got != want {
			t.Errorf("FirstSegment(%d) = %d, want %d", off, got, want)
		}
	}
	for off, want := range map[logid.Offset]int{0: 0, 2999: 0, 3000: 1} {
		if got := FirstPage(m.Pages, off); got != want {
			t.Errorf("FirstPage(%d) = %d, want %d", off, got, want)
		}
	}
	s := m.Segments[0]
	var sum int64
	for _, f := range []FileKind{FileLog, FileIndex, FileTimeIndex, FileTxnIndex, FileSnapshot, "x"} {
		sum += s.FileSize(f)
	}
	if sum != s.Size+s.IndexSize+s.TimeIndexSize+s.TxnIndexSize+s.SnapshotSize || !s.HasTxnIndex() || !s.HasSnapshot() || m.Segments[1].HasTxnIndex() {
		t.Errorf("sizes of files add up to %d", sum)
	}
}

// Ten thousand log segments: the root stays small, nothing is lost, and a page is read back only as what it is.
func TestSpill(t *testing.T) {
	const segments = 10000
	m := &Partition{Nonce: testNonce(1), Version: 1, Topic: strings.Repeat("n", 249), TopicID: testTopic, Index: 3}
	pages := map[ULID]*Page{}
	ids := uint64(0)
	newID := func() (ULID, Nonce, error) {
		ids++
		return testULID(ids), testNonce(1000 + ids), nil
	}
	for i := range logid.Offset(segments) {
		s := seg(i*1000, i*1000+900)
		s.Epochs = []EpochStart{{Epoch: logid.LeaderEpoch(i), Start: s.Base}}
		next := m.Next(testNonce(uint64(2 + i)))
		if err := next.Append(i*1000, (i+1)*1000, s); err != nil {
			t.Fatal(err)
		}
		// Spilling every time would be slow only because this encodes each root.
		if i%100 == 99 {
			moved := must[[]Page](t)(next.Spill(RootLimit, newID))
			for _, p := range moved {
				b := must[[]byte](t)(p.Encode())
				ref := next.Pages[FirstPage(next.Pages, p.Segments[0].Base)]
				got := must[*Page](t)(DecodePage(b, testPart, ref))
				if !reflect.DeepEqual(got, &p) || len(b) > RootLimit+1024 {
					t.Fatalf("page of %d bytes, %d segments", len(b), len(p.Segments))
				}
				pages[p.ULID] = got
			}
			if b := must[[]byte](t)(next.Encode()); len(b) > RootLimit {
				t.Fatalf("root of %d bytes after %d segments", len(b), i)
			} else if len(moved) > 0 && len(b) > RootLimit/2+1024 {
				t.Fatalf("root of %d bytes right after a spill", len(b))
			}
		}
		if err := m.CheckNext(next); err != nil {
			t.Fatal(err)
		}
		m = next
	}
	var all []Segment
	for _, ref := range m.Pages {
		all = append(all, pages[ref.ULID].Segments...)
	}
	all = append(all, m.Segments...)
	if len(all) != segments || validateSegments(all) != nil {
		t.Fatalf("%d segments in %d pages and the root, want %d in order", len(all), len(m.Pages), segments)
	}
	if n := len(m.Pages); n < 10 || n > 40 {
		t.Errorf("%d pages for %d segments", n, segments)
	}
	// Retention drops whole pages.
	next := m.Next(testNonce(77777))
	if err := next.AdvanceLogStart(5_000_000); err != nil {
		t.Fatal(err)
	}
	segs, dropped := next.DropDead()
	if len(segs) != 0 || len(dropped) == 0 || dropped[len(dropped)-1].Last >= 5_000_000 || next.Pages[0].Last < 5_000_000 {
		t.Errorf("dropped %d segments and %d pages", len(segs), len(dropped))
	}
	if err := next.Validate(); err != nil {
		t.Error(err)
	}
}

func TestSpillKeepsTheRootWhenNamesRunOut(t *testing.T) {
	m := samplePartition()
	boom := errors.New("boom")
	if _, err := m.Spill(100, func() (ULID, Nonce, error) { return ULID{}, Nonce{}, boom }); !errors.Is(err, boom) {
		t.Errorf("Spill: %v", err)
	}
	if !reflect.DeepEqual(m, samplePartition()) {
		t.Error("a failed Spill changed the root")
	}
	pages, err := m.Spill(RootLimit, nil)
	if len(pages) != 0 || err != nil {
		t.Errorf("a small root spills %d pages, %v", len(pages), err)
	}
}

func BenchmarkPartitionRoot(b *testing.B) {
	m := &Partition{Nonce: testNonce(1), Version: 1, Topic: "t", TopicID: testTopic, Index: 3}
	var segs []Segment
	for i := range logid.Offset(700) {
		segs = append(segs, seg(i*1000, i*1000+900))
	}
	if err := m.Append(0, 700_000, segs...); err != nil {
		b.Fatal(err)
	}
	body := must[[]byte](b)(m.Encode())
	b.Run("encode", func(b *testing.B) {
		b.ReportAllocs()
		b.SetBytes(int64(len(body)))
		for b.Loop() {
			if _, err := m.Encode(); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("decode", func(b *testing.B) {
		b.ReportAllocs()
		b.SetBytes(int64(len(body)))
		for b.Loop() {
			if _, err := DecodePartition(body, testPart); err != nil {
				b.Fatal(err)
			}
		}
	})
}
