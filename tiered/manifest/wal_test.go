package manifest

import (
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/tierlog/tierlog/tiered/logid"
)

func walObject(from, to logid.Slot) Object {
	return Object{Kind: ObjectMerged, From: from, To: to, ULID: testULID(uint64(100 + from)), Size: 100, FooterSize: 10, Records: 1, MinTimestamp: 1, MaxTimestamp: 2}
}

func TestWALValidate(t *testing.T) {
	for field, damage := range map[string]func(m *WAL){
		"version":                 func(m *WAL) { m.Version = 0 },
		"beyond the fence 5000":   func(m *WAL) { m.MergedThrough = 5001 },
		"checkpoint slot 5001":    func(m *WAL) { m.Checkpoint.Slot = 5001 },
		"checkpoint has ulid":     func(m *WAL) { m.Checkpoint.ULID = ULID{} },
		"and size 0":              func(m *WAL) { m.Checkpoint.Size = 0 },
		"objects[0]: kind":        func(m *WAL) { m.Objects[0].Kind = "x" },
		"objects[0]: to":          func(m *WAL) { m.Objects[0].From = 2000 },
		"objects[1]: a WAL":       func(m *WAL) { m.Objects[1].ULID = testULID(1) },
		"without ulid":            func(m *WAL) { m.Objects[2].ULID = ULID{} },
		"objects[2]: size":        func(m *WAL) { m.Objects[2].Size = 0 },
		"footerSize":              func(m *WAL) { m.Objects[2].FooterSize = m.Objects[2].Size + 1 },
		"records":                 func(m *WAL) { m.Objects[2].Records = -1 },
		"minTimestamp":            func(m *WAL) { m.Objects[2].MinTimestamp = 1 << 60 },
		"does not follow":         func(m *WAL) { m.Objects[2].From = 2000 },
		"not below mergedThrough": func(m *WAL) { m.MergedThrough = 4096 },
	} {
		m := sampleWAL()
		damage(m)
		if err := m.Validate(); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), field) {
			t.Errorf("%s: %v, want ErrInvalid that names it", field, err)
		}
		if _, err := m.Encode(); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: Encode: %v, want ErrInvalid", field, err)
		}
	}
}

func TestWALEdits(t *testing.T) {
	m := &WAL{Nonce: testNonce(1), Version: 1, Epoch: 5}
	steps := []struct {
		name string
		edit func(m *WAL) error
		want error // nil: done
	}{
		{"merge that starts late", func(m *WAL) error { return m.Merge(1, 2, walObject(1, 1)) }, ErrConflict},
		{"merge of nothing", func(m *WAL) error { return m.Merge(0, 0) }, ErrConflict},
		{"merge", func(m *WAL) error { return m.Merge(0, 10, walObject(0, 4), walObject(6, 9)) }, nil},
		{"the same merge again", func(m *WAL) error { return m.Merge(0, 10, walObject(0, 4), walObject(6, 9)) }, ErrConflict},
		{"merge into the past", func(m *WAL) error { return m.Merge(10, 12, walObject(9, 11)) }, ErrInvalid},
		{"merge beyond its range", func(m *WAL) error { return m.Merge(10, 12, walObject(10, 12)) }, ErrInvalid},
		{"merge without live data", func(m *WAL) error { return m.Merge(10, 12) }, nil},
		{"merge on", func(m *WAL) error { return m.Merge(12, 20, walObject(12, 19)) }, nil},
		{"replace nothing", func(m *WAL) error { return m.Replace(nil, walObject(0, 1)) }, ErrConflict},
		{"replace what is not there", func(m *WAL) error { return m.Replace([]Object{walObject(0, 3)}) }, ErrConflict},
		{"replace what is not in a row", func(m *WAL) error { return m.Replace([]Object{walObject(0, 4), walObject(12, 19)}) }, ErrConflict},
		{"replace more than there is", func(m *WAL) error { return m.Replace([]Object{walObject(12, 19), walObject(20, 20)}) }, ErrConflict},
		{"replace outside", func(m *WAL) error { return m.Replace([]Object{walObject(0, 4)}, walObject(0, 5)) }, ErrInvalid},
		{"replace", func(m *WAL) error { return m.Replace([]Object{walObject(0, 4), walObject(6, 9)}, walObject(1, 9)) }, nil},
		{"drop", func(m *WAL) error { return m.Replace([]Object{walObject(1, 9)}) }, nil},
		{"checkpoint", func(m *WAL) error { return m.SetCheckpoint(CheckpointRef{Slot: 7, ULID: testULID(1), Size: 1}) }, nil},
		{"older checkpoint", func(m *WAL) error { return m.SetCheckpoint(CheckpointRef{Slot: 6, ULID: testULID(2), Size: 1}) }, ErrConflict},
		{"checkpoint without name", func(m *WAL) error { return m.SetCheckpoint(CheckpointRef{Slot: 8, Size: 1}) }, ErrInvalid},
		{"fence below mergedThrough", func(m *WAL) error { return m.SetFence(19) }, ErrInvalid},
		{"fence", func(m *WAL) error { return m.SetFence(25) }, nil},
		{"fence again", func(m *WAL) error { return m.SetFence(25) }, nil},
		{"another fence", func(m *WAL) error { return m.SetFence(26) }, ErrConflict},
		{"merge beyond the fence", func(m *WAL) error { return m.Merge(20, 26) }, ErrInvalid},
		{"merge up to the fence", func(m *WAL) error { return m.Merge(20, 25) }, nil},
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
			got, err := DecodeWAL(must[[]byte](t)(next.Encode()), 5)
			if err != nil || !reflect.DeepEqual(got, next) {
				// An emptied list decodes as no list.
				if err != nil || len(next.Objects) != 0 || len(got.Objects) != 0 {
					t.Fatalf("%s: decode gives %+v, %v; want %+v", s.name, got, err, next)
				}
			}
			m = next
		}
	}
	if m.MergedThrough != 25 || len(m.Objects) != 1 || *m.Fence != 25 || m.Checkpoint.Slot != 7 {
		t.Errorf("in the end %+v", m)
	}
}

func TestWALCheckNext(t *testing.T) {
	m := sampleWAL()
	for name, damage := range map[string]func(n *WAL){
		"epoch":         func(n *WAL) { n.Epoch++ },
		"version":       func(n *WAL) { n.Version++ },
		"nonce":         func(n *WAL) { n.Nonce = m.Nonce },
		"fence":         func(n *WAL) { n.Fence = nil },
		"mergedThrough": func(n *WAL) { n.MergedThrough-- },
		"checkpoint":    func(n *WAL) { n.Checkpoint.Slot-- },
	} {
		n := m.Next(testNonce(99))
		damage(n)
		if err := m.CheckNext(n); !errors.Is(err, ErrConflict) || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v, want ErrConflict that names it", name, err)
		}
	}
	if err := m.CheckNext(m.Next(testNonce(99))); err != nil {
		t.Error(err)
	}
}

// Next must not share memory with what it was made from.
func TestWALNextIsACopy(t *testing.T) {
	m := sampleWAL()
	n := m.Next(testNonce(99))
	*n.Fence, n.Checkpoint.Slot, n.Objects[0].Size = 1, 1, 1
	if !reflect.DeepEqual(m, sampleWAL()) {
		t.Error("editing the next manifest changed the last one")
	}
}
