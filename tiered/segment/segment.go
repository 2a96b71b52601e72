// Package segment makes and reads the files that Apache Kafka keeps beside a segment of a partition's log: offset index,
// time index, index of aborted transactions and snapshot of the producers. The .log file itself is nothing but the
// batches one after the other. A folder of these files is a Kafka log folder, which Kafka's own tools read.
//
// Invariants:
//
//   - From the same batches come the bytes that Kafka 4 writes, for one uninterrupted append of them to a new segment.
//     (The order of the producers in a snapshot is by id; Kafka's is that of a hash map, and it reads any.)
//   - Files are made from the batches' metadata alone. Only a transaction marker is looked into, see BatchOf.
//   - Parse functions return a value that is safe to use, or an error that wraps ErrCorrupt and says where and what;
//     they never panic, and allocate at most a small multiple of their input.
//   - No I/O, no clock.
//
// The formats are described in docs/format/log-segment.md.
package segment

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/tierlog/tierlog/record"
)

// ErrCorrupt is wrapped by the errors of the Parse functions.
var ErrCorrupt = errors.New("corrupt")

// DefaultIndexInterval is Kafka's default of index.interval.bytes.
const DefaultIndexInterval = 4096

// Names of the files: the base offset in 20 digits and one of these. The snapshot alone is named by the offset after the
// segment's last record, because it is the state there.
const (
	LogSuffix       = ".log"
	IndexSuffix     = ".index"
	TimeIndexSuffix = ".timeindex"
	TxnIndexSuffix  = ".txnindex"
	SnapshotSuffix  = ".snapshot"
)

// FileName returns Kafka's name of a file.
func FileName(offset int64, suffix string) string { return fmt.Sprintf("%020d%s", offset, suffix) }

// ParseFileName reads what FileName wrote.
func ParseFileName(name string) (offset int64, suffix string, err error) {
	dot := strings.IndexByte(name, '.')
	if dot == 20 {
		offset, err = strconv.ParseInt(name[:dot], 10, 64)
		suffix = name[dot:]
	}
	if dot != 20 || err != nil || offset < 0 || FileName(offset, suffix) != name {
		return 0, "", fmt.Errorf("file name %q: want 20 digits and a suffix: %w", name, ErrCorrupt)
	}
	switch suffix {
	case LogSuffix, IndexSuffix, TimeIndexSuffix, TxnIndexSuffix, SnapshotSuffix:
		return offset, suffix, nil
	}
	return 0, "", fmt.Errorf("file name %q: no file of a log segment ends in %q: %w", name, suffix, ErrCorrupt)
}

// Marker says what a control batch ends.
type Marker uint8

// The kinds of markers.
const (
	NoMarker     Marker = iota // not a control batch, or one of another kind
	AbortMarker                // the transaction was aborted
	CommitMarker               // the transaction was committed
)

// Batch is what the files need to know of a record batch.
type Batch struct {
	BaseOffset      int64
	LastOffsetDelta int32 // at least 0
	Length          int32 // bytes of the whole batch, with the 12 before its length field ends
	MaxTimestamp    int64 // Unix milliseconds; -1 for none
	ProducerID      int64 // -1 for none
	ProducerEpoch   int16
	BaseSequence    int32 // -1 for none
	LeaderEpoch     int32
	Transactional   bool
	Control         bool
	// Marker and CoordinatorEpoch are those of a control batch.
	Marker           Marker
	CoordinatorEpoch int32
}

// LastOffset is the offset of the last record.
func (b *Batch) LastOffset() int64 { return b.BaseOffset + int64(b.LastOffsetDelta) }

// lastSequence is that of the last record; sequences wrap around at the largest int32.
func (b *Batch) lastSequence() int32 {
	return int32((int64(b.BaseSequence) + int64(b.LastOffsetDelta)) & math.MaxInt32)
}

// BatchOf describes a whole batch whose header was checked. Of a control batch it reads the marker.
func BatchOf(raw record.Batch) (Batch, error) {
	b := Batch{
		BaseOffset: raw.BaseOffset(), LastOffsetDelta: raw.LastOffsetDelta(), Length: int32(raw.Size()), MaxTimestamp: raw.MaxTimestamp(),
		ProducerID: raw.ProducerID(), ProducerEpoch: raw.ProducerEpoch(), BaseSequence: raw.BaseSequence(), LeaderEpoch: raw.LeaderEpoch(),
		Transactional: raw.Transactional(), Control: raw.Control(), CoordinatorEpoch: -1,
	}
	if !b.Control {
		return b, nil
	}
	var err error
	b.Marker, b.CoordinatorEpoch, err = parseMarker(raw[record.HeaderSize:])
	if err != nil {
		return Batch{}, fmt.Errorf("control batch at offset %d: %w", b.BaseOffset, err)
	}
	return b, nil
}

// parseMarker reads the one record of a control batch, which is never compressed: a key of version and type, and for
// the end of a transaction a value of version and coordinator epoch.
func parseMarker(b []byte) (Marker, int32, error) {
	fields := [4]string{"length", "timestamp", "offset", "key length"}
	var n int64
	for i, name := range fields {
		v, size := binary.Varint(b)
		if size <= 0 {
			return 0, 0, fmt.Errorf("record %s is cut off: %w", name, ErrCorrupt)
		}
		if b, n = b[size:], v; i == 0 {
			if len(b) == 0 {
				return 0, 0, fmt.Errorf("record is cut off: %w", ErrCorrupt)
			}
			b = b[1:] // attributes
		}
	}
	if n < 4 || n > int64(len(b)) {
		return 0, 0, fmt.Errorf("key of %d bytes, want 4 to %d: %w", n, len(b), ErrCorrupt)
	}
	kind, value := binary.BigEndian.Uint16(b[2:]), b[n:]
	if kind > 1 {
		return NoMarker, -1, nil
	}
	n, size := binary.Varint(value)
	if size <= 0 || n < 6 || n > int64(len(value)-size) {
		return 0, 0, fmt.Errorf("value of the marker is cut off: %w", ErrCorrupt)
	}
	coordinator := int32(binary.BigEndian.Uint32(value[size+2:]))
	if kind == 0 {
		return AbortMarker, coordinator, nil
	}
	return CommitMarker, coordinator, nil
}
