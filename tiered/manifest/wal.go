package manifest

import (
	"slices"

	"github.com/tierlog/tierlog/tiered/logid"
)

// WAL is the body of wal/<epoch>/manifest.json: where the records of one broker epoch are.
//
// Slots from MergedThrough on are at wal/<epoch>/<slot>, up to the first fence. Slots below it are in Objects, except
// for those of which nothing is alive any more.
type WAL struct {
	Nonce   Nonce       `json:"-"`
	Version uint64      `json:"version"` // 1 for the first body at its key, then one more each time
	Epoch   logid.Epoch `json:"epoch"`
	// Fence is the slot of the fence, once it is known: the log is the slots below it.
	Fence *logid.Slot `json:"fence,omitempty"`
	// MergedThrough is the first slot that is not accounted for in Objects.
	MergedThrough logid.Slot `json:"mergedThrough"`
	// Checkpoint is the newest one, if there is any.
	Checkpoint *CheckpointRef `json:"checkpoint,omitempty"`
	// Objects are sorted and do not overlap: Objects[i].To < Objects[i+1].From, and all lie below MergedThrough.
	Objects []Object `json:"objects,omitempty"`
}

// CheckpointRef names a checkpoint.
type CheckpointRef struct {
	Slot logid.Slot `json:"slot"` // Checkpoint.Next of that checkpoint
	ULID ULID       `json:"ulid"`
	Size int64      `json:"size"` // bytes
}

// Key returns the key of the checkpoint.
func (r CheckpointRef) Key(c logid.ClusterID, e logid.Epoch) string {
	return Key{Kind: KeyCheckpoint, Cluster: c, Epoch: e, Slot: r.Slot, ULID: r.ULID}.String()
}

// ObjectKind says where the bytes of an Object are.
type ObjectKind string

// The kinds of objects.
const (
	ObjectWAL    ObjectKind = "wal"    // a WAL object that was adopted where it is; From equals To
	ObjectMerged ObjectKind = "merged" // a merged segment
)

// Object is a WAL object or merged segment that is alive.
type Object struct {
	Kind       ObjectKind `json:"kind"`
	From       logid.Slot `json:"from"`          // first slot in it
	To         logid.Slot `json:"to"`            // last slot in it, at least From
	ULID       ULID       `json:"ulid,omitzero"` // of a merged segment
	Size       int64      `json:"size"`          // bytes
	FooterSize int64      `json:"footerSize"`    // bytes at its end that hold footer and trailer
	Records    int64      `json:"records"`
	// MinTimestamp and MaxTimestamp bound the record timestamps in it, in Unix milliseconds; -1 for none.
	MinTimestamp int64 `json:"minTimestamp"`
	MaxTimestamp int64 `json:"maxTimestamp"`
}

// Key returns the key of the object.
func (o Object) Key(c logid.ClusterID, e logid.Epoch) string {
	if o.Kind == ObjectWAL {
		return Key{Kind: KeyWAL, Cluster: c, Epoch: e, Slot: o.From}.String()
	}
	return Key{Kind: KeyMerged, Cluster: c, Epoch: e, Slot: o.From, To: o.To, ULID: o.ULID}.String()
}

func (o Object) validate() error {
	switch {
	case o.Kind != ObjectWAL && o.Kind != ObjectMerged:
		return invalid("kind is %q, want wal or merged", clip(string(o.Kind)))
	case o.To < o.From:
		return invalid("to is %d, below from %d", o.To, o.From)
	case o.Kind == ObjectWAL && (o.From != o.To || !o.ULID.IsZero()):
		return invalid("a WAL object from %d to %d with ulid %s, want one slot and none", o.From, o.To, o.ULID)
	case o.Kind == ObjectMerged && o.ULID.IsZero():
		return invalid("a merged segment without ulid")
	case o.Size <= 0:
		return invalid("size is %d, want more than 0", o.Size)
	case o.FooterSize <= 0 || o.FooterSize > o.Size:
		return invalid("footerSize is %d, want 1 to the size %d", o.FooterSize, o.Size)
	case o.Records < 0:
		return invalid("records is %d, want at least 0", o.Records)
	case o.MinTimestamp > o.MaxTimestamp:
		return invalid("minTimestamp %d is above maxTimestamp %d", o.MinTimestamp, o.MaxTimestamp)
	}
	return nil
}

// Validate names the first field that is not allowed.
func (m *WAL) Validate() error {
	if m.Version == 0 {
		return invalid("wal manifest of epoch %d: version is 0, want at least 1", m.Epoch)
	}
	if m.Fence != nil && m.MergedThrough > *m.Fence {
		return invalid("wal manifest of epoch %d: mergedThrough %d is beyond the fence %d", m.Epoch, m.MergedThrough, *m.Fence)
	}
	if c := m.Checkpoint; c != nil {
		switch {
		case m.Fence != nil && c.Slot > *m.Fence:
			return invalid("wal manifest of epoch %d: checkpoint slot %d is beyond the fence %d", m.Epoch, c.Slot, *m.Fence)
		case c.ULID.IsZero() || c.Size <= 0:
			return invalid("wal manifest of epoch %d: checkpoint has ulid %s and size %d", m.Epoch, c.ULID, c.Size)
		}
	}
	for i, o := range m.Objects {
		if err := o.validate(); err != nil {
			return invalid("wal manifest of epoch %d: objects[%d]: %v", m.Epoch, i, err)
		}
		if i > 0 && o.From <= m.Objects[i-1].To {
			return invalid("wal manifest of epoch %d: objects[%d] from %d does not follow objects[%d] to %d", m.Epoch, i, o.From, i-1, m.Objects[i-1].To)
		}
		if o.To >= m.MergedThrough {
			return invalid("wal manifest of epoch %d: objects[%d] to %d is not below mergedThrough %d", m.Epoch, i, o.To, m.MergedThrough)
		}
	}
	return nil
}

// Key returns the key of the manifest.
func (m *WAL) Key(c logid.ClusterID) string {
	return Key{Kind: KeyWALManifest, Cluster: c, Epoch: m.Epoch}.String()
}

// Encode returns the body.
func (m *WAL) Encode() ([]byte, error) {
	if err := m.Validate(); err != nil {
		return nil, err
	}
	return encode(KindWAL, m.Nonce, m)
}

// DecodeWAL reads the body found at the key of epoch e.
func DecodeWAL(body []byte, e logid.Epoch) (*WAL, error) {
	m := &WAL{}
	n, err := decode(KindWAL, body, m, false)
	if err != nil {
		return nil, err
	}
	m.Nonce = n
	if err := m.Validate(); err != nil {
		return nil, corrupt(KindWAL, "%v", err)
	}
	if m.Epoch != e {
		return nil, corrupt(KindWAL, "is of epoch %d, its key says %d", m.Epoch, e)
	}
	return m, nil
}

// Next returns a copy to edit, with the next version and a new nonce.
func (m *WAL) Next(n Nonce) *WAL {
	w := *m
	w.Nonce, w.Version = n, m.Version+1
	if m.Fence != nil {
		fence := *m.Fence
		w.Fence = &fence
	}
	if m.Checkpoint != nil {
		c := *m.Checkpoint
		w.Checkpoint = &c
	}
	w.Objects = slices.Clone(m.Objects)
	return &w
}

// CheckNext reports whether next may take the place of m: rule by rule what no edit may do.
func (m *WAL) CheckNext(next *WAL) error {
	switch {
	case next.Epoch != m.Epoch:
		return conflict("epoch changes from %d to %d", m.Epoch, next.Epoch)
	case next.Version != m.Version+1:
		return conflict("version goes from %d to %d, want %d", m.Version, next.Version, m.Version+1)
	case next.Nonce == m.Nonce:
		return conflict("nonce %s is used twice", m.Nonce)
	case m.Fence != nil && (next.Fence == nil || *next.Fence != *m.Fence):
		return conflict("the fence at %d is moved or removed", *m.Fence)
	case next.MergedThrough < m.MergedThrough:
		return conflict("mergedThrough goes back from %d to %d", m.MergedThrough, next.MergedThrough)
	case m.Checkpoint != nil && (next.Checkpoint == nil || next.Checkpoint.Slot < m.Checkpoint.Slot):
		return conflict("the checkpoint of slot %d is removed or moved back", m.Checkpoint.Slot)
	}
	return next.Validate()
}

// apply validates the edited copy and only then makes it the receiver's value.
func (m *WAL) apply(edited WAL) error {
	if err := edited.Validate(); err != nil {
		return err
	}
	*m = edited
	return nil
}

// Merge accounts for the slots from <= slot < through: what is alive of them is in objects. from must be MergedThrough.
func (m *WAL) Merge(from, through logid.Slot, objects ...Object) error {
	if from != m.MergedThrough || through <= from {
		return conflict("merge of slots %d to below %d, but slots below %d are merged", from, through, m.MergedThrough)
	}
	if len(objects) > 0 && objects[0].From < from {
		return invalid("objects[0] from %d lies below %d", objects[0].From, from)
	}
	w := *m
	w.MergedThrough = through
	w.Objects = slices.Concat(m.Objects, objects)
	return m.apply(w)
}

// Replace puts objects in the place of old, which must be in the manifest one after the other exactly like this.
// The new ones lie in the slots of the old ones; without any, the old ones are dropped because nothing in them is alive.
func (m *WAL) Replace(old []Object, objects ...Object) error {
	if len(old) == 0 {
		return conflict("nothing to replace")
	}
	i := slices.Index(m.Objects, old[0])
	if i < 0 || len(m.Objects)-i < len(old) || !slices.Equal(m.Objects[i:i+len(old)], old) {
		return conflict("the %d objects from slot %d are not listed one after the other", len(old), old[0].From)
	}
	from, to := old[0].From, old[len(old)-1].To
	for _, o := range objects {
		if o.From < from || o.To > to {
			return invalid("the object for slots %d to %d lies outside the replaced slots %d to %d", o.From, o.To, from, to)
		}
	}
	w := *m
	w.Objects = slices.Concat(m.Objects[:i], objects, m.Objects[i+len(old):])
	return m.apply(w)
}

// SetCheckpoint names a newer checkpoint.
func (m *WAL) SetCheckpoint(r CheckpointRef) error {
	if m.Checkpoint != nil && r.Slot < m.Checkpoint.Slot {
		return conflict("checkpoint of slot %d is older than that of slot %d", r.Slot, m.Checkpoint.Slot)
	}
	w := *m
	w.Checkpoint = &r
	return m.apply(w)
}

// SetFence notes where the log ends. It may be repeated, never changed.
func (m *WAL) SetFence(s logid.Slot) error {
	if m.Fence != nil && *m.Fence != s {
		return conflict("fence at slot %d, but it is at %d", s, *m.Fence)
	}
	w := *m
	w.Fence = &s
	return m.apply(w)
}
