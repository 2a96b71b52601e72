package manifest

import (
	"math"
	"slices"
	"sort"

	"github.com/tierlog/tierlog/tiered/logid"
)

// Partition is the body of a partition's manifest.json: which log segments hold its older records.
//
// Records from RolledThrough on are in merged segments and WAL objects. A record below LogStart is gone for readers,
// also while its segment is still listed: the pointer moves first, the bytes go later.
type Partition struct {
	Nonce   Nonce         `json:"-"`
	Version uint64        `json:"version"` // 1 for the first body at its key, then one more each time
	Topic   string        `json:"topic"`
	TopicID logid.TopicID `json:"topicId"`
	Index   int32         `json:"partition"`
	// LogStart is the first offset that may be read. It may lie beyond RolledThrough.
	LogStart logid.Offset `json:"logStart"`
	// RolledThrough is the first offset that is not accounted for in Segments and Pages.
	RolledThrough logid.Offset `json:"rolledThrough"`
	// Pages hold the oldest segments; all lie below Segments[0].Base.
	Pages []PageRef `json:"pages,omitempty"`
	// Segments are sorted and do not overlap. Between two of them there may be offsets without a record.
	Segments []Segment `json:"segments,omitempty"`
}

// Segment is one log segment: a folder of Kafka files.
type Segment struct {
	Base logid.Offset `json:"base"` // the offset in the names of its files
	Last logid.Offset `json:"last"` // offset of the last record, at least Base
	ULID ULID         `json:"ulid"`
	// Sizes are in bytes. An empty .txnindex or .snapshot is not written; an empty .index or .timeindex is.
	Size          int64 `json:"size"` // of the .log file
	IndexSize     int64 `json:"index,omitempty"`
	TimeIndexSize int64 `json:"timeindex,omitempty"`
	TxnIndexSize  int64 `json:"txnindex,omitempty"`
	SnapshotSize  int64 `json:"snapshot,omitempty"`
	// MaxTimestamp is the largest record timestamp in it in Unix milliseconds, -1 for none.
	MaxTimestamp int64 `json:"maxTimestamp"`
	// Epochs are the leader epochs that start in it, in ascending order.
	Epochs []EpochStart `json:"epochs,omitempty"`
}

// EpochStart says where a leader epoch starts.
type EpochStart struct {
	Epoch logid.LeaderEpoch `json:"epoch"`
	Start logid.Offset      `json:"start"` // offset of its first record
}

// HasTxnIndex reports whether transactions were aborted in the segment.
func (s Segment) HasTxnIndex() bool { return s.TxnIndexSize > 0 }

// HasSnapshot reports whether there was any producer state after the segment.
func (s Segment) HasSnapshot() bool { return s.SnapshotSize > 0 }

// FileSize returns the size of one of the segment's files.
func (s Segment) FileSize(f FileKind) int64 {
	switch f {
	case FileLog:
		return s.Size
	case FileIndex:
		return s.IndexSize
	case FileTimeIndex:
		return s.TimeIndexSize
	case FileTxnIndex:
		return s.TxnIndexSize
	case FileSnapshot:
		return s.SnapshotSize
	}
	return 0
}

func (s Segment) validate() error {
	switch {
	case s.Base < 0 || s.Last < s.Base:
		return invalid("offsets %d to %d", s.Base, s.Last)
	case int64(s.Last-s.Base) > math.MaxInt32:
		return invalid("offsets %d to %d: more apart than Kafka's index can say", s.Base, s.Last)
	case s.ULID.IsZero():
		return invalid("without ulid")
	case s.Size <= 0 || s.Size > math.MaxInt32:
		return invalid("size is %d, want 1 to %d", s.Size, math.MaxInt32)
	case s.IndexSize < 0 || s.TimeIndexSize < 0 || s.TxnIndexSize < 0 || s.SnapshotSize < 0:
		return invalid("a negative size: index %d, timeindex %d, txnindex %d, snapshot %d", s.IndexSize, s.TimeIndexSize, s.TxnIndexSize, s.SnapshotSize)
	}
	for i, e := range s.Epochs {
		switch {
		case e.Epoch < 0:
			return invalid("epochs[%d] is %d, want at least 0", i, e.Epoch)
		case e.Start < s.Base || e.Start > s.Last:
			return invalid("epochs[%d] starts at %d, outside %d to %d", i, e.Start, s.Base, s.Last)
		case i > 0 && (e.Epoch <= s.Epochs[i-1].Epoch || e.Start <= s.Epochs[i-1].Start):
			return invalid("epochs[%d] is %d from %d, after %d from %d", i, e.Epoch, e.Start, s.Epochs[i-1].Epoch, s.Epochs[i-1].Start)
		}
	}
	return nil
}

// equal compares all fields.
func (s Segment) equal(o Segment) bool {
	if !slices.Equal(s.Epochs, o.Epochs) {
		return false
	}
	return s.Base == o.Base && s.Last == o.Last && s.ULID == o.ULID && s.MaxTimestamp == o.MaxTimestamp && s.Size == o.Size &&
		s.IndexSize == o.IndexSize && s.TimeIndexSize == o.TimeIndexSize && s.TxnIndexSize == o.TxnIndexSize && s.SnapshotSize == o.SnapshotSize
}

// validateSegments checks each segment and their order.
func validateSegments(segs []Segment) error {
	epoch := logid.NoLeaderEpoch
	for i, s := range segs {
		if err := s.validate(); err != nil {
			return invalid("segments[%d]: %v", i, err)
		}
		if i > 0 && s.Base <= segs[i-1].Last {
			return invalid("segments[%d] from %d does not follow segments[%d] to %d", i, s.Base, i-1, segs[i-1].Last)
		}
		if n := len(s.Epochs); n > 0 {
			if s.Epochs[0].Epoch <= epoch {
				return invalid("segments[%d]: leader epoch %d starts after %d", i, s.Epochs[0].Epoch, epoch)
			}
			epoch = s.Epochs[n-1].Epoch
		}
	}
	return nil
}

// FirstSegment returns the index of the first segment that ends at or after an offset, len(segs) if there is none.
func FirstSegment(segs []Segment, o logid.Offset) int {
	return sort.Search(len(segs), func(i int) bool { return segs[i].Last >= o })
}

// FirstPage returns the index of the first page that ends at or after an offset, len(pages) if there is none.
func FirstPage(pages []PageRef, o logid.Offset) int {
	return sort.Search(len(pages), func(i int) bool { return pages[i].Last >= o })
}

// ID returns the identity of the partition.
func (m *Partition) ID() logid.Partition { return logid.Partition{Topic: m.TopicID, Index: m.Index} }

// Key returns the key of the manifest.
func (m *Partition) Key(c logid.ClusterID) string {
	return Key{Kind: KeyPartitionManifest, Cluster: c, Topic: m.Topic, Partition: m.ID()}.String()
}

// SegmentKey returns the key of a file of a log segment. The producer snapshot is named by the offset after the segment,
// as it is in Kafka's folders: it is the state there.
func (m *Partition) SegmentKey(c logid.ClusterID, s Segment, f FileKind) string {
	k := Key{Kind: KeySegmentFile, Cluster: c, Topic: m.Topic, Partition: m.ID(), Base: s.Base, ULID: s.ULID, File: f, FileBase: s.Base}
	if f == FileSnapshot {
		k.FileBase = s.Last + 1
	}
	return k.String()
}

// PageKey returns the key of a page.
func (m *Partition) PageKey(c logid.ClusterID, r PageRef) string {
	return Key{Kind: KeyPage, Cluster: c, Topic: m.Topic, Partition: m.ID(), Base: r.Base, Last: r.Last, ULID: r.ULID}.String()
}

// Validate names the first field that is not allowed.
func (m *Partition) Validate() error {
	if err := m.validate(); err != nil {
		return invalid("manifest of partition %d of %q: %v", m.Index, clip(m.Topic), err)
	}
	return nil
}

func (m *Partition) validate() error {
	if err := checkTopicName(m.Topic); err != nil {
		return err
	}
	switch {
	case m.Version == 0:
		return invalid("version is 0, want at least 1")
	case m.TopicID.IsZero():
		return invalid("topicId is zero")
	case m.Index < 0:
		return invalid("partition is %d, want at least 0", m.Index)
	case m.LogStart < 0:
		return invalid("logStart is %d, want at least 0", m.LogStart)
	case m.RolledThrough < 0:
		return invalid("rolledThrough is %d, want at least 0", m.RolledThrough)
	}
	if err := validatePages(m.Pages); err != nil {
		return err
	}
	if err := validateSegments(m.Segments); err != nil {
		return err
	}
	last := logid.NoOffset
	if n := len(m.Pages); n > 0 {
		last = m.Pages[n-1].Last
		if len(m.Segments) > 0 && m.Segments[0].Base <= last {
			return invalid("segments[0] from %d does not follow the pages to %d", m.Segments[0].Base, last)
		}
	}
	if n := len(m.Segments); n > 0 {
		last = m.Segments[n-1].Last
	}
	if last >= m.RolledThrough {
		return invalid("the last segment ends at %d, not below rolledThrough %d", last, m.RolledThrough)
	}
	return nil
}

// Encode returns the body.
func (m *Partition) Encode() ([]byte, error) {
	if err := m.Validate(); err != nil {
		return nil, err
	}
	return encode(KindPartition, m.Nonce, m)
}

// DecodePartition reads the body found at the key of partition p.
func DecodePartition(body []byte, p logid.Partition) (*Partition, error) {
	m := &Partition{}
	n, err := decode(KindPartition, body, m, false)
	if err != nil {
		return nil, err
	}
	m.Nonce = n
	if err := m.Validate(); err != nil {
		return nil, corrupt(KindPartition, "%v", err)
	}
	if m.ID() != p {
		return nil, corrupt(KindPartition, "is of %s, its key says %s", m.ID(), p)
	}
	return m, nil
}

// Next returns a copy to edit, with the next version and a new nonce.
func (m *Partition) Next(n Nonce) *Partition {
	w := *m
	w.Nonce, w.Version = n, m.Version+1
	w.Pages = slices.Clone(m.Pages)
	w.Segments = slices.Clone(m.Segments)
	for i := range w.Segments {
		w.Segments[i].Epochs = slices.Clone(w.Segments[i].Epochs)
	}
	return &w
}

// CheckNext reports whether next may take the place of m: rule by rule what no edit may do.
func (m *Partition) CheckNext(next *Partition) error {
	switch {
	case next.ID() != m.ID() || next.Topic != m.Topic:
		return conflict("partition changes from %s to %s", m.ID(), next.ID())
	case next.Version != m.Version+1:
		return conflict("version goes from %d to %d, want %d", m.Version, next.Version, m.Version+1)
	case next.Nonce == m.Nonce:
		return conflict("nonce %s is used twice", m.Nonce)
	case next.LogStart < m.LogStart:
		return conflict("logStart goes back from %d to %d", m.LogStart, next.LogStart)
	case next.RolledThrough < m.RolledThrough:
		return conflict("rolledThrough goes back from %d to %d", m.RolledThrough, next.RolledThrough)
	}
	if err := next.Validate(); err != nil {
		return err
	}
	// What is new since m was rolled from there on, not written into the past.
	for _, s := range next.Segments {
		if s.Base < m.RolledThrough && s.Last >= m.RolledThrough {
			return conflict("segment %d to %d reaches over rolledThrough %d", s.Base, s.Last, m.RolledThrough)
		}
	}
	return nil
}

// apply validates the edited copy and only then makes it the receiver's value.
func (m *Partition) apply(edited Partition) error {
	if err := edited.Validate(); err != nil {
		return err
	}
	*m = edited
	return nil
}

// Append accounts for the offsets from <= offset < through: their records are in segs. from must be RolledThrough.
func (m *Partition) Append(from, through logid.Offset, segs ...Segment) error {
	if from != m.RolledThrough || through <= from {
		return conflict("rollup of offsets %d to below %d, but offsets below %d are rolled up", from, through, m.RolledThrough)
	}
	if len(segs) > 0 && segs[0].Base < from {
		return invalid("the new segment from %d lies below %d", segs[0].Base, from)
	}
	w := *m
	w.RolledThrough = through
	w.Segments = slices.Concat(m.Segments, segs)
	return m.apply(w)
}

// Replace puts segs in the place of old, which must be in the root one after the other exactly like this. The new ones
// lie in the offsets of the old ones; without any, the old ones are dropped because no record in them is alive.
func (m *Partition) Replace(old []Segment, segs ...Segment) error {
	if len(old) == 0 {
		return conflict("nothing to replace")
	}
	i := slices.IndexFunc(m.Segments, old[0].equal)
	if i < 0 || len(m.Segments)-i < len(old) || !slices.EqualFunc(m.Segments[i:i+len(old)], old, Segment.equal) {
		return conflict("the %d segments from %d are not listed one after the other", len(old), old[0].Base)
	}
	base, last := old[0].Base, old[len(old)-1].Last
	for _, s := range segs {
		if s.Base < base || s.Last > last {
			return invalid("the segment %d to %d lies outside the replaced offsets %d to %d", s.Base, s.Last, base, last)
		}
	}
	w := *m
	w.Segments = slices.Concat(m.Segments[:i], segs, m.Segments[i+len(old):])
	return m.apply(w)
}

// AdvanceLogStart moves the log start on. Moving it to where it is already does nothing.
func (m *Partition) AdvanceLogStart(to logid.Offset) error {
	if to < m.LogStart {
		return conflict("logStart goes back from %d to %d", m.LogStart, to)
	}
	m.LogStart = to
	return nil
}

// DropDead removes the segments and pages that lie wholly below LogStart and returns them. A dropped page still has to be
// read to find the segments that it names.
func (m *Partition) DropDead() (segs []Segment, pages []PageRef) {
	s, p := FirstSegment(m.Segments, m.LogStart), FirstPage(m.Pages, m.LogStart)
	segs, pages = m.Segments[:s:s], m.Pages[:p:p]
	m.Segments, m.Pages = slices.Clone(m.Segments[s:]), slices.Clone(m.Pages[p:])
	return segs, pages
}
