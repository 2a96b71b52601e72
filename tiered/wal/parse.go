package wal

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"github.com/tierlog/tierlog/record"
)

// Footer is the metadata of an object.
type Footer struct {
	Header   Header
	Sections []Section
	// Size is the object's length in bytes, FooterSize the part of it that holds no records.
	Size, FooterSize int64
}

// ParseTail reads the metadata from tail, the last bytes of an object of size bytes. If tail is too short to hold
// it, ParseTail returns a nil footer and how many last bytes are needed.
func ParseTail(tail []byte, size int64) (f *Footer, need int64, err error) {
	if int64(len(tail)) > size {
		return nil, 0, fmt.Errorf("%w: %d bytes read of %d", ErrCorrupt, len(tail), size)
	}
	if size == HeaderSize+8 { // a fence
		if int64(len(tail)) < size {
			return nil, size, nil
		}
		h, err := ParseHeader(tail)
		if err != nil {
			return nil, 0, err
		}
		if h.Kind != Fence {
			return nil, 0, fmt.Errorf("%w: a %v of %d bytes", ErrCorrupt, h.Kind, size)
		}
		return &Footer{Header: h, Size: size, FooterSize: size}, 0, nil
	}
	if size < 2*HeaderSize+1+TrailerSize {
		return nil, 0, fmt.Errorf("%w: %d bytes are too few for an object", ErrCorrupt, size)
	}
	if len(tail) < TrailerSize {
		return nil, min(size, TailHint), nil
	}
	return parseTrailer(tail, size)
}

func parseTrailer(tail []byte, size int64) (*Footer, int64, error) {
	t := tail[len(tail)-TrailerSize:]
	be := binary.BigEndian
	if string(t[24:]) != trailerMagic {
		return nil, 0, fmt.Errorf("%w: no trailer at the end (truncated?)", ErrCorrupt)
	}
	pos, n, sum, whole := be.Uint64(t), be.Uint32(t[8:]), be.Uint32(t[12:]), be.Uint64(t[16:])
	if whole != uint64(size) || pos < HeaderSize || pos+uint64(n)+TrailerSize != whole || n < HeaderSize {
		return nil, 0, fmt.Errorf("%w: trailer says footer %d+%d in %d bytes, the object has %d", ErrCorrupt, pos, n, whole, size)
	}
	if need := int64(n) + TrailerSize; int64(len(tail)) < need {
		return nil, need, nil
	}
	body := tail[len(tail)-TrailerSize-int(n) : len(tail)-TrailerSize]
	if got := crc32.Checksum(body, record.Castagnoli); got != sum {
		return nil, 0, fmt.Errorf("%w: footer CRC is %08x, stored %08x", ErrCorrupt, got, sum)
	}
	h, err := ParseHeader(body)
	if err != nil {
		return nil, 0, err
	}
	f := &Footer{Header: h, Size: size, FooterSize: int64(n) + TrailerSize}
	d := decoder{b: body[HeaderSize:]}
	count := d.uvarint(uint64(len(d.b)) / 24)
	f.Sections = make([]Section, 0, count)
	end := int64(HeaderSize)
	for range count {
		s := d.section(end, int64(pos))
		if d.err != nil {
			return nil, 0, d.err
		}
		end = s.Pos + s.Len
		f.Sections = append(f.Sections, s)
	}
	if d.err == nil && (len(d.b) != 0 || end != int64(pos)) {
		d.fail("footer of %d sections ends %d bytes early, data at %d of %d", count, len(d.b), end, pos)
	}
	if d.err != nil {
		return nil, 0, d.err
	}
	return f, 0, nil
}

// decoder reads the footer's varints; after the first error it returns zeros.
type decoder struct {
	b   []byte
	err error
}

func (d *decoder) fail(format string, args ...any) {
	if d.err == nil {
		d.err = fmt.Errorf("%w: "+format, append([]any{ErrCorrupt}, args...)...)
	}
	d.b = nil
}

func (d *decoder) uvarint(limit uint64) uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 || v > limit {
		d.fail("number %d in the footer, allowed up to %d", v, limit)
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) varint() int64 {
	v, n := binary.Varint(d.b)
	if n <= 0 {
		d.fail("number cut short in the footer")
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) bytes(n int) []byte {
	if len(d.b) < n {
		d.fail("footer cut short")
		return make([]byte, n)
	}
	b := d.b[:n]
	d.b = d.b[n:]
	return b
}

// section reads a section that must start at pos and end at limit or before.
func (d *decoder) section(pos, limit int64) Section {
	if k := SectionKind(d.bytes(1)[0]); d.err == nil && k != Records {
		d.err = fmt.Errorf("%w: section kind %d", ErrNewer, k)
		return Section{}
	}
	var s Section
	copy(s.Topic[:], d.bytes(16))
	s.Partition = int32(d.uvarint(1<<31 - 1))
	s.LeaderEpoch = int32(d.uvarint(1<<31 - 1))
	s.Pos = int64(d.uvarint(1<<62 - 1))
	s.Len = int64(d.uvarint(1<<62 - 1))
	s.CRC = binary.BigEndian.Uint32(d.bytes(4))
	count := d.uvarint(uint64(len(d.b)) / 5)
	if d.err == nil && (count == 0 || s.Pos != pos || s.Len > limit-s.Pos) {
		d.fail("section of %d batches at %d+%d, expected at %d before %d", count, s.Pos, s.Len, pos, limit)
	}
	if d.err != nil {
		return Section{}
	}
	s.Entries = make([]Entry, 0, count)
	prev, total := Entry{LastOffsetDelta: -1}, int64(0)
	for range count {
		e := d.entry(prev)
		if d.err != nil {
			return Section{}
		}
		total += int64(e.Length)
		s.Entries = append(s.Entries, e)
		prev = e
	}
	if total != s.Len {
		d.fail("section of %d bytes holds batches of %d", s.Len, total)
	}
	return s
}

func (d *decoder) entry(prev Entry) Entry {
	e := Entry{ProducerID: -1, ProducerEpoch: -1, BaseSequence: -1}
	flags := Flags(d.bytes(1)[0])
	e.BaseOffset = prev.LastOffset() + 1 + int64(d.uvarint(1<<62-1))
	e.LastOffsetDelta = int32(d.uvarint(1<<31 - 1))
	e.Length = int32(d.uvarint(1<<31 - 1))
	e.MaxTimestamp = prev.MaxTimestamp + d.varint()
	if flags&flagProducer != 0 {
		e.ProducerID = prev.ProducerID + d.varint()
		e.ProducerEpoch = int16(d.uvarint(1<<15 - 1))
		e.BaseSequence = int32(int64(d.uvarint(1<<31)) - 1)
	}
	e.Flags = flags &^ flagProducer
	if d.err == nil && (e.BaseOffset < 0 || e.LastOffset() < e.BaseOffset || e.Length < record.HeaderSize ||
		(flags&flagProducer != 0) != (e.ProducerID >= 0)) {
		d.fail("batch of %d bytes at offset %d+%d, producer %d", e.Length, e.BaseOffset, e.LastOffsetDelta, e.ProducerID)
	}
	return e
}

// VerifySection checks a section's bytes against its checksum, its entries and each batch's own checksum.
func VerifySection(s *Section, data []byte) error {
	if sum := crc32.Checksum(data, record.Castagnoli); int64(len(data)) != s.Len || sum != s.CRC {
		return fmt.Errorf("%w: partition %v-%d: %d bytes with CRC %08x, the footer says %d with %08x",
			ErrCorrupt, s.Topic, s.Partition, len(data), sum, s.Len, s.CRC)
	}
	for i := range s.Entries {
		b, rest, err := record.Next(data)
		if err != nil {
			return fmt.Errorf("%w: batch %d: %w", ErrCorrupt, i, err)
		}
		if got := EntryOf(b); got != s.Entries[i] || b.LeaderEpoch() != s.LeaderEpoch {
			return fmt.Errorf("%w: batch %d is %+v, the footer says %+v", ErrCorrupt, i, got, s.Entries[i])
		}
		if err := b.VerifyCRC(); err != nil {
			return fmt.Errorf("%w: %w", ErrCorrupt, err)
		}
		data = rest
	}
	return nil
}
