package segment

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"slices"

	"github.com/tierlog/tierlog/record"
)

const (
	snapshotVersion = 1
	snapshotHeader  = 10 // int16 version, uint32 CRC-32C of all after it, int32 number of entries
	snapshotSumFrom = 6
	producerSize    = 46
)

// ProducerEntry is what a snapshot holds of one producer.
type ProducerEntry struct {
	ID               int64
	Epoch            int16
	LastSequence     int32 // of its last batch; -1 if it has none in this epoch
	LastOffset       int64 // of its last batch; -1 if it has none in this epoch
	OffsetDelta      int32 // last offset - base offset of that batch
	Timestamp        int64 // of its last batch or marker, Unix milliseconds
	CoordinatorEpoch int32 // of its last marker; -1 for none
	TxnFirst         int64 // first offset of its open transaction; -1 for none
}

// EncodeSnapshot returns a .snapshot file; the entries go in in ascending order of their ids.
func EncodeSnapshot(entries []ProducerEntry) []byte {
	entries = slices.Clone(entries)
	slices.SortFunc(entries, byID)
	b := make([]byte, snapshotHeader, snapshotHeader+len(entries)*producerSize)
	binary.BigEndian.PutUint16(b, snapshotVersion)
	binary.BigEndian.PutUint32(b[snapshotSumFrom:], uint32(len(entries)))
	for _, e := range entries {
		b = binary.BigEndian.AppendUint64(b, uint64(e.ID))
		b = binary.BigEndian.AppendUint16(b, uint16(e.Epoch))
		b = binary.BigEndian.AppendUint32(b, uint32(e.LastSequence))
		b = binary.BigEndian.AppendUint64(b, uint64(e.LastOffset))
		b = binary.BigEndian.AppendUint32(b, uint32(e.OffsetDelta))
		b = binary.BigEndian.AppendUint64(b, uint64(e.Timestamp))
		b = binary.BigEndian.AppendUint32(b, uint32(e.CoordinatorEpoch))
		b = binary.BigEndian.AppendUint64(b, uint64(e.TxnFirst))
	}
	binary.BigEndian.PutUint32(b[2:], crc32.Checksum(b[snapshotSumFrom:], record.Castagnoli))
	return b
}

func byID(a, b ProducerEntry) int {
	switch {
	case a.ID < b.ID:
		return -1
	case a.ID > b.ID:
		return 1
	}
	return 0
}

// ParseSnapshot checks a .snapshot file and returns its entries in the order of the file.
func ParseSnapshot(b []byte) ([]ProducerEntry, error) {
	if len(b) < snapshotHeader {
		return nil, fmt.Errorf("snapshot: %d bytes, shorter than its header of %d: %w", len(b), snapshotHeader, ErrCorrupt)
	}
	if v := binary.BigEndian.Uint16(b); v != snapshotVersion {
		return nil, fmt.Errorf("snapshot byte 0: version %d, want %d: %w", v, snapshotVersion, ErrCorrupt)
	}
	if got, want := binary.BigEndian.Uint32(b[2:]), crc32.Checksum(b[snapshotSumFrom:], record.Castagnoli); got != want {
		return nil, fmt.Errorf("snapshot byte 2: checksum is %08x, the bytes from %d on have %08x: %w", got, snapshotSumFrom, want, ErrCorrupt)
	}
	n := int64(binary.BigEndian.Uint32(b[snapshotSumFrom:]))
	if want := snapshotHeader + n*producerSize; int64(len(b)) != want {
		return nil, fmt.Errorf("snapshot byte %d: %d entries take %d bytes, the file has %d: %w", snapshotSumFrom, n, want, len(b), ErrCorrupt)
	}
	entries := make([]ProducerEntry, 0, n)
	for at := snapshotHeader; at < len(b); at += producerSize {
		e := ProducerEntry{
			ID:               int64(binary.BigEndian.Uint64(b[at:])),
			Epoch:            int16(binary.BigEndian.Uint16(b[at+8:])),
			LastSequence:     int32(binary.BigEndian.Uint32(b[at+10:])),
			LastOffset:       int64(binary.BigEndian.Uint64(b[at+14:])),
			OffsetDelta:      int32(binary.BigEndian.Uint32(b[at+22:])),
			Timestamp:        int64(binary.BigEndian.Uint64(b[at+26:])),
			CoordinatorEpoch: int32(binary.BigEndian.Uint32(b[at+34:])),
			TxnFirst:         int64(binary.BigEndian.Uint64(b[at+38:])),
		}
		if e.ID < 0 || e.LastSequence < -1 || e.LastOffset < -1 || e.OffsetDelta < 0 || e.TxnFirst < -1 {
			return nil, fmt.Errorf("snapshot byte %d: %+v: a field is below what it can be: %w", at, e, ErrCorrupt)
		}
		entries = append(entries, e)
	}
	return entries, nil
}
