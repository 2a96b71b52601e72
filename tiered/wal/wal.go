// Package wal is the format of write-ahead-log objects, fences and merged segments: many partitions' record batches
// in one immutable object, with a footer that says where each batch is. docs/format/wal.md gives the bytes.
//
// Layout: header (64 bytes) · sections, one run of raw batches for each partition · footer · trailer (32 bytes).
// The footer repeats the header, so one read of the object's last bytes gives all metadata without reading data.
//
// Invariants:
//
//   - A section holds the batches of one partition under one leader epoch, in offset order; offsets may have gaps.
//   - Positions and lengths of sections and entries are exact and lie between the header and the footer.
//   - Encode and Parse agree: what Parse accepts, Encode could have written. Parse never panics.
//
// The package does no I/O.
package wal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"github.com/tierlog/tierlog/record"
	"github.com/tierlog/tierlog/tiered/logid"
)

// Sizes of the fixed parts in bytes.
const (
	HeaderSize  = 64
	TrailerSize = 32
	// TailHint is how many last bytes of an object to read first: they hold most footers whole.
	TailHint = 64 << 10
)

// Version is the format version that this package writes; it reads versions 1 to Version.
const Version = 1

const (
	headerMagic  = "TIERWAL\x00"
	trailerMagic = "TIERFOOT"
)

// Errors of Parse.
var (
	// ErrCorrupt: the bytes are not what a writer wrote.
	ErrCorrupt = errors.New("corrupt WAL object")
	// ErrNewer: a newer version of tierlog wrote it.
	ErrNewer = errors.New("WAL object of a newer format")
)

// Kind is what an object is.
type Kind uint8

// The kinds of objects.
const (
	Data   Kind = 1 // a sealed segment: the batches of one flush
	Fence  Kind = 2 // ends its WAL for ever; no sections
	Merged Kind = 3 // consecutive WAL objects rewritten as one
)

func (k Kind) String() string {
	switch k {
	case Data:
		return "wal"
	case Fence:
		return "fence"
	case Merged:
		return "merged"
	default:
		return fmt.Sprintf("kind(%d)", uint8(k))
	}
}

// Header begins every object. Nonce is random and tells two writers' objects at one key apart.
type Header struct {
	Kind    Kind
	Cluster [16]byte
	Epoch   logid.Epoch // whose WAL it is
	Slot    logid.Slot  // the object's slot; of a merged segment, its first
	Through logid.Slot  // the last slot it covers; equal to Slot but for merged segments
	Nonce   uint64
}

// Append appends the header's 64 bytes.
func (h Header) Append(dst []byte) []byte {
	at := len(dst)
	dst = append(dst, headerMagic...)
	dst = append(dst, byte(h.Kind), Version, 0, 0)
	dst = append(dst, h.Cluster[:]...)
	be := binary.BigEndian
	dst = be.AppendUint64(dst, uint64(h.Epoch))
	dst = be.AppendUint64(dst, uint64(h.Slot))
	dst = be.AppendUint64(dst, uint64(h.Through))
	dst = be.AppendUint64(dst, h.Nonce)
	return be.AppendUint32(dst, crc32.Checksum(dst[at:], record.Castagnoli))
}

// ParseHeader reads a header.
func ParseHeader(b []byte) (Header, error) {
	if len(b) < HeaderSize || string(b[:8]) != headerMagic {
		return Header{}, fmt.Errorf("%w: no header", ErrCorrupt)
	}
	be := binary.BigEndian
	if sum := crc32.Checksum(b[:60], record.Castagnoli); sum != be.Uint32(b[60:]) {
		return Header{}, fmt.Errorf("%w: header CRC is %08x, stored %08x", ErrCorrupt, sum, be.Uint32(b[60:]))
	}
	if b[9] > Version {
		return Header{}, fmt.Errorf("%w: version %d, this binary reads up to %d", ErrNewer, b[9], Version)
	}
	h := Header{
		Kind: Kind(b[8]), Cluster: [16]byte(b[12:28]),
		Epoch: logid.Epoch(be.Uint64(b[28:])), Slot: logid.Slot(be.Uint64(b[36:])),
		Through: logid.Slot(be.Uint64(b[44:])), Nonce: be.Uint64(b[52:]),
	}
	if h.Kind < Data || h.Kind > Merged || b[9] == 0 || h.Through < h.Slot {
		return Header{}, fmt.Errorf("%w: header of kind %d, version %d, slots %d-%d", ErrCorrupt, b[8], b[9], h.Slot, h.Through)
	}
	return h, nil
}

// IsFence tells whether the first bytes of an object are a fence's.
func IsFence(head []byte) bool {
	h, err := ParseHeader(head)
	return err == nil && h.Kind == Fence
}

// SectionKind is what a section says of its partition. Readers refuse kinds they do not know.
type SectionKind uint8

// The kinds of sections. CLOSE (the partition was handed over after it) and LINK (the bytes live in another broker's
// object) are reserved as 1 and 2.
const (
	Records SectionKind = 0
)

// Flags of an entry.
type Flags uint8

// The flags. The low three bits are the batch's codec.
const (
	FlagCodec         Flags = 0x07
	FlagLogAppendTime Flags = 0x08
	FlagTransactional Flags = 0x10
	FlagControl       Flags = 0x20
	flagProducer      Flags = 0x80 // in the encoding only: producer fields follow
)

// Entry describes one batch.
type Entry struct {
	BaseOffset      int64
	LastOffsetDelta int32
	Length          int32 // bytes
	MaxTimestamp    int64 // ms, or -1
	ProducerID      int64 // or -1; then ProducerEpoch and BaseSequence are -1
	ProducerEpoch   int16
	BaseSequence    int32
	Flags           Flags
}

// LastOffset is the offset of the batch's last record.
func (e Entry) LastOffset() int64 { return e.BaseOffset + int64(e.LastOffsetDelta) }

// LastSequence is the sequence number of the batch's last record.
func (e Entry) LastSequence() int32 {
	return int32((int64(e.BaseSequence) + int64(e.LastOffsetDelta)) & 0x7fffffff)
}

// EntryOf describes a batch.
func EntryOf(b record.Batch) Entry {
	e := Entry{
		BaseOffset: b.BaseOffset(), LastOffsetDelta: b.LastOffsetDelta(), Length: int32(len(b)), MaxTimestamp: b.MaxTimestamp(),
		ProducerID: -1, ProducerEpoch: -1, BaseSequence: -1,
		Flags: Flags(b.Attributes()) & (FlagCodec | FlagLogAppendTime | FlagTransactional | FlagControl),
	}
	if b.ProducerID() >= 0 {
		e.ProducerID, e.ProducerEpoch, e.BaseSequence = b.ProducerID(), b.ProducerEpoch(), b.BaseSequence()
	}
	return e
}

// Section is one partition's batches in an object. Pos and Len are in bytes of the object.
type Section struct {
	Topic       logid.TopicID
	Partition   int32
	LeaderEpoch int32
	Pos, Len    int64
	CRC         uint32 // CRC-32C of the section's bytes
	Entries     []Entry
}

// BaseOffset is the section's first offset, LastOffset its last.
func (s *Section) BaseOffset() int64 { return s.Entries[0].BaseOffset }

// LastOffset is the last offset in the section.
func (s *Section) LastOffset() int64 { return s.Entries[len(s.Entries)-1].LastOffset() }

// MaxTimestamp is the largest timestamp in the section.
func (s *Section) MaxTimestamp() int64 {
	ts := int64(-1)
	for i := range s.Entries {
		ts = max(ts, s.Entries[i].MaxTimestamp)
	}
	return ts
}
