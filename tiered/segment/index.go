package segment

import (
	"encoding/binary"
	"fmt"
	"sort"
)

// Sizes of entries in bytes.
const (
	offsetEntrySize = 8  // int32 offset - base, int32 position
	timeEntrySize   = 12 // int64 timestamp, int32 offset - base
)

// OffsetEntry says that the batch at Position bytes of the .log file ends with Offset.
type OffsetEntry struct {
	Offset   int64
	Position int64
}

// OffsetIndex is a parsed .index file. It keeps the bytes that it was parsed from.
type OffsetIndex struct {
	base int64
	b    []byte
}

// ParseOffsetIndex checks a .index file of a segment with that base offset and .log size. No bytes are an index without
// entries. A file that Kafka left in a crash, with unused zero entries at its end, is refused.
func ParseOffsetIndex(b []byte, base, logSize int64) (*OffsetIndex, error) {
	x := &OffsetIndex{base: base, b: b}
	if over := len(b) % offsetEntrySize; over != 0 {
		return nil, fmt.Errorf("index: %d bytes, %d more than whole entries of %d: %w", len(b), over, offsetEntrySize, ErrCorrupt)
	}
	prev := OffsetEntry{Offset: base - 1, Position: -1}
	for i := range x.Len() {
		e := x.At(i)
		if e.Offset <= prev.Offset || e.Position <= prev.Position {
			return nil, fmt.Errorf("index byte %d: offset %d at position %d follows offset %d at position %d: %w",
				i*offsetEntrySize, e.Offset, e.Position, prev.Offset, prev.Position, ErrCorrupt)
		}
		if e.Position >= logSize {
			return nil, fmt.Errorf("index byte %d: offset %d is at position %d, the log has %d bytes: %w", i*offsetEntrySize, e.Offset, e.Position, logSize, ErrCorrupt)
		}
		prev = e
	}
	return x, nil
}

// Len is the number of entries.
func (x *OffsetIndex) Len() int { return len(x.b) / offsetEntrySize }

// At returns entry i.
func (x *OffsetIndex) At(i int) OffsetEntry {
	e := x.b[i*offsetEntrySize:]
	return OffsetEntry{
		Offset:   x.base + int64(int32(binary.BigEndian.Uint32(e))),
		Position: int64(int32(binary.BigEndian.Uint32(e[4:]))),
	}
}

// Lookup returns the greatest entry that is not above the offset: the batch with the offset is there or after it. If there
// is none, that is the beginning of the log.
func (x *OffsetIndex) Lookup(offset int64) OffsetEntry {
	i := sort.Search(x.Len(), func(i int) bool { return x.At(i).Offset > offset })
	if i == 0 {
		return OffsetEntry{Offset: x.base}
	}
	return x.At(i - 1)
}

// TimeEntry says that no record up to Offset is later than Timestamp, and that the batch which ends with Offset is the
// first one to reach it.
type TimeEntry struct {
	Timestamp int64 // Unix milliseconds
	Offset    int64
}

// TimeIndex is a parsed .timeindex file. It keeps the bytes that it was parsed from.
type TimeIndex struct {
	base int64
	b    []byte
}

// ParseTimeIndex checks a .timeindex file of a segment of records base to last. No bytes are an index without entries.
func ParseTimeIndex(b []byte, base, last int64) (*TimeIndex, error) {
	x := &TimeIndex{base: base, b: b}
	if over := len(b) % timeEntrySize; over != 0 {
		return nil, fmt.Errorf("timeindex: %d bytes, %d more than whole entries of %d: %w", len(b), over, timeEntrySize, ErrCorrupt)
	}
	for i := range x.Len() {
		e := x.At(i)
		if e.Offset < base || e.Offset > last {
			return nil, fmt.Errorf("timeindex byte %d: offset %d, the segment has %d to %d: %w", i*timeEntrySize, e.Offset, base, last, ErrCorrupt)
		}
		if i == 0 {
			continue
		}
		if prev := x.At(i - 1); e.Timestamp <= prev.Timestamp || e.Offset <= prev.Offset {
			return nil, fmt.Errorf("timeindex byte %d: time %d at offset %d follows time %d at offset %d: %w",
				i*timeEntrySize, e.Timestamp, e.Offset, prev.Timestamp, prev.Offset, ErrCorrupt)
		}
	}
	return x, nil
}

// Len is the number of entries.
func (x *TimeIndex) Len() int { return len(x.b) / timeEntrySize }

// At returns entry i.
func (x *TimeIndex) At(i int) TimeEntry {
	e := x.b[i*timeEntrySize:]
	return TimeEntry{
		Timestamp: int64(binary.BigEndian.Uint64(e)),
		Offset:    x.base + int64(int32(binary.BigEndian.Uint32(e[8:]))),
	}
}

// Lookup returns the greatest entry that is not above the timestamp: the first record that is at least as late is in the
// batch that ends with the entry's offset, or after it. If there is none, that is the beginning of the segment.
func (x *TimeIndex) Lookup(timestamp int64) TimeEntry {
	i := sort.Search(x.Len(), func(i int) bool { return x.At(i).Timestamp > timestamp })
	if i == 0 {
		return TimeEntry{Timestamp: -1, Offset: x.base}
	}
	return x.At(i - 1)
}

// Last returns the last entry: of a complete segment the largest timestamp, and the last offset of the first batch that has
// it. ok is false if no record has a timestamp.
func (x *TimeIndex) Last() (e TimeEntry, ok bool) {
	if x.Len() == 0 {
		return TimeEntry{Timestamp: -1, Offset: x.base}, false
	}
	return x.At(x.Len() - 1), true
}

// PositionForTime returns where in the .log file to start looking for the first record that is at least as late as the
// timestamp.
func PositionForTime(times *TimeIndex, offsets *OffsetIndex, timestamp int64) int64 {
	return offsets.Lookup(times.Lookup(timestamp).Offset).Position
}
