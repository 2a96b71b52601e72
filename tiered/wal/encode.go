package wal

import (
	"encoding/binary"
	"hash/crc32"

	"github.com/tierlog/tierlog/record"
	"github.com/tierlog/tierlog/tiered/logid"
)

// Builder encodes an object from batches that stay where they are: the result is a list of slices to be written one
// after the other. Call Section, then Batch for each of its batches, and so on; then Finish.
type Builder struct {
	header  Header
	parts   [][]byte
	pos     int64
	crc     uint32 // of everything before the open section
	secs    []byte // encoded sections before the open one
	n       int
	open    Section // Entries unused: they go to entries at once
	entries []byte
	count   int
	prev    Entry
}

// NewBuilder starts an object.
func NewBuilder(h Header) *Builder {
	b := &Builder{header: h}
	head := h.Append(make([]byte, 0, HeaderSize))
	b.parts = append(b.parts, head)
	b.pos = HeaderSize
	b.crc = crc32.Checksum(head, record.Castagnoli)
	return b
}

// Section closes the open section and starts that of another partition or leader epoch.
func (b *Builder) Section(topic logid.TopicID, partition, leaderEpoch int32) {
	b.closeSection()
	b.open = Section{Topic: topic, Partition: partition, LeaderEpoch: leaderEpoch, Pos: b.pos}
}

// Batch adds a checked batch to the open section.
func (b *Builder) Batch(batch record.Batch) {
	last := len(b.parts) - 1
	if p := b.parts[last]; last > 0 && cap(p)-len(p) >= len(batch) && adjacent(p, batch) {
		b.parts[last] = p[: len(p)+len(batch) : cap(p)]
	} else {
		b.parts = append(b.parts, batch)
	}
	if len(batch) < combineFrom {
		b.open.CRC = crc32.Update(b.open.CRC, record.Castagnoli, batch)
	} else {
		b.open.CRC = record.CombineCRC(b.open.CRC, batch.FullCRC(), int64(len(batch)))
	}
	b.pos += int64(len(batch))
	b.Entry(EntryOf(batch))
}

// combineFrom is the batch size in bytes from which combining its stored CRC is cheaper than reading it again.
const combineFrom = 64 << 10

// Skip accounts for n bytes of the open section that the caller writes by itself; crc is theirs. Entry must be called
// for each batch in them.
func (b *Builder) Skip(n int64, crc uint32) {
	b.pos += n
	b.open.CRC = record.CombineCRC(b.open.CRC, crc, n)
}

// adjacent tells whether data follows p in memory.
func adjacent(p, data []byte) bool {
	return len(data) > 0 && &p[:len(p)+1][len(p)] == &data[0]
}

// Entry describes the next batch of the open section.
func (b *Builder) Entry(e Entry) {
	if b.count == 0 {
		b.prev = Entry{LastOffsetDelta: -1} // the first base offset is relative to 0
	}
	b.entries = appendEntry(b.entries, b.prev, e)
	b.prev = e
	b.count++
}

func appendEntry(dst []byte, prev, e Entry) []byte {
	flags := e.Flags
	if e.ProducerID >= 0 {
		flags |= flagProducer
	}
	dst = append(dst, byte(flags))
	dst = binary.AppendUvarint(dst, uint64(e.BaseOffset-prev.LastOffset()-1))
	dst = binary.AppendUvarint(dst, uint64(e.LastOffsetDelta))
	dst = binary.AppendUvarint(dst, uint64(e.Length))
	dst = binary.AppendVarint(dst, e.MaxTimestamp-prev.MaxTimestamp)
	if e.ProducerID >= 0 {
		dst = binary.AppendVarint(dst, e.ProducerID-prev.ProducerID)
		dst = binary.AppendUvarint(dst, uint64(e.ProducerEpoch))
		dst = binary.AppendUvarint(dst, uint64(int64(e.BaseSequence)+1)) // -1 in transaction markers
	}
	return dst
}

func (b *Builder) closeSection() {
	if b.count > 0 {
		s := &b.open
		b.crc = record.CombineCRC(b.crc, s.CRC, b.pos-s.Pos)
		b.secs = append(b.secs, byte(Records))
		b.secs = append(b.secs, s.Topic[:]...)
		b.secs = binary.AppendUvarint(b.secs, uint64(s.Partition))
		b.secs = binary.AppendUvarint(b.secs, uint64(s.LeaderEpoch))
		b.secs = binary.AppendUvarint(b.secs, uint64(s.Pos))
		b.secs = binary.AppendUvarint(b.secs, uint64(b.pos-s.Pos))
		b.secs = binary.BigEndian.AppendUint32(b.secs, s.CRC)
		b.secs = binary.AppendUvarint(b.secs, uint64(b.count))
		b.secs = append(b.secs, b.entries...)
		b.n++
	}
	b.entries, b.count = b.entries[:0], 0
}

// Object is an encoded object: its bytes in order, their total length and CRC-32C.
type Object struct {
	Parts      [][]byte
	Size       int64
	CRC        uint32
	FooterSize int64 // footer and trailer
}

// SectionCRC is the CRC-32C of the open section so far.
func (b *Builder) SectionCRC() uint32 { return b.open.CRC }

// Pos is where the next byte goes.
func (b *Builder) Pos() int64 { return b.pos }

// Finish ends the object. The builder must not be used afterwards.
func (b *Builder) Finish() Object {
	b.closeSection()
	f := b.header.Append(make([]byte, 0, HeaderSize+len(b.secs)+TrailerSize+8))
	f = binary.AppendUvarint(f, uint64(b.n))
	f = append(f, b.secs...)
	n := len(f)
	be := binary.BigEndian
	sum := crc32.Checksum(f, record.Castagnoli)
	f = be.AppendUint64(f, uint64(b.pos))
	f = be.AppendUint32(f, uint32(n))
	f = be.AppendUint32(f, sum)
	f = be.AppendUint64(f, uint64(b.pos)+uint64(n)+TrailerSize)
	f = append(f, trailerMagic...)
	b.parts = append(b.parts, f)
	return Object{
		Parts: b.parts, Size: b.pos + int64(len(f)), FooterSize: int64(len(f)),
		CRC: record.CombineCRC(b.crc, crc32.Checksum(f, record.Castagnoli), int64(len(f))),
	}
}

// EncodeFence returns a fence's bytes. by is the broker epoch that fences, kept for people who read the bucket.
func EncodeFence(h Header, by logid.Epoch) []byte {
	h.Kind, h.Through = Fence, h.Slot
	return binary.BigEndian.AppendUint64(h.Append(nil), uint64(by))
}
