// Package record checks, patches and slices Kafka record batches (magic 2, KIP-98) without decoding records.
//
// A batch starts with a 61-byte header, big endian:
//
//	 0 baseOffset           int64    patched when offsets are assigned; outside the CRC
//	 8 batchLength          int32    bytes after this field
//	12 partitionLeaderEpoch int32    patched; outside the CRC
//	16 magic                int8     2
//	17 crc                  uint32   CRC-32C of everything from attributes on
//	21 attributes           int16    codec 0-2, LogAppendTime 3, transactional 4, control 5
//	23 lastOffsetDelta      int32
//	27 baseTimestamp        int64    ms
//	35 maxTimestamp         int64    ms
//	43 producerId           int64
//	51 producerEpoch        int16
//	53 baseSequence         int32
//	57 numRecords           int32
//	61 records
//
// Invariants:
//
//   - Check is the only gate: a batch that passed it has a true length, CRC and count, and later code reads its
//     fields without checking again.
//   - No function here decodes records, except those of decode.go, which say so.
package record

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

// HeaderSize is the length of a batch header in bytes; PrefixSize what precedes the bytes that batchLength counts.
const (
	HeaderSize = 61
	PrefixSize = 12
	crcStart   = 21 // the CRC covers the batch from here on
)

// Castagnoli is the table of CRC-32C.
var Castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Codec is the compression of a batch's records.
type Codec uint8

// The codecs of the batch format.
const (
	None Codec = iota
	Gzip
	Snappy
	LZ4
	Zstd
)

func (c Codec) String() string {
	if int(c) < len(codecNames) {
		return codecNames[c]
	}
	return fmt.Sprintf("codec(%d)", uint8(c))
}

var codecNames = [...]string{"none", "gzip", "snappy", "lz4", "zstd"}

// Attribute bits of a batch.
const (
	attrCodec         = 0x07
	attrLogAppendTime = 0x08
	attrTransactional = 0x10
	attrControl       = 0x20
)

// Reasons for which Check refuses a batch; *BatchError carries the details.
var (
	// ErrCorrupt: the bytes are damaged (length, CRC). Kafka: CORRUPT_MESSAGE.
	ErrCorrupt = errors.New("corrupt batch")
	// ErrMagic: an older message format. Kafka: UNSUPPORTED_FOR_MESSAGE_FORMAT.
	ErrMagic = errors.New("unsupported message format")
	// ErrInvalid: well-formed but not acceptable from a producer (counts, deltas, control flag). Kafka: INVALID_RECORD.
	ErrInvalid = errors.New("invalid batch")
	// ErrCodec: unknown compression. Kafka: UNSUPPORTED_COMPRESSION_TYPE.
	ErrCodec = errors.New("unsupported compression type")
	// ErrTooLarge: larger than max.message.bytes. Kafka: MESSAGE_TOO_LARGE.
	ErrTooLarge = errors.New("batch too large")
	// ErrTimestamp: outside message.timestamp.before/after.max.ms. Kafka: INVALID_TIMESTAMP.
	ErrTimestamp = errors.New("timestamp out of range")
)

// BatchError says what is wrong with a batch.
type BatchError struct {
	Kind   error // one of the sentinels above
	Detail string
}

func (e *BatchError) Error() string { return e.Kind.Error() + ": " + e.Detail }

// Unwrap returns the kind.
func (e *BatchError) Unwrap() error { return e.Kind }

func bad(kind error, format string, args ...any) error {
	return &BatchError{Kind: kind, Detail: fmt.Sprintf(format, args...)}
}

// Batch is the bytes of one batch whose header is complete. Its methods read header fields in place.
type Batch []byte

func (b Batch) i64(at int) int64 { return int64(binary.BigEndian.Uint64(b[at:])) }
func (b Batch) i32(at int) int32 { return int32(binary.BigEndian.Uint32(b[at:])) }
func (b Batch) i16(at int) int16 { return int16(binary.BigEndian.Uint16(b[at:])) }

// BaseOffset is the offset of the first record.
func (b Batch) BaseOffset() int64 { return b.i64(0) }

// Size is the length of the batch in bytes, header and prefix included, as its header says.
func (b Batch) Size() int { return int(b.i32(8)) + PrefixSize }

// LeaderEpoch is the partition leader epoch the batch was appended under.
func (b Batch) LeaderEpoch() int32 { return b.i32(12) }

// Magic is the message format version.
func (b Batch) Magic() int8 { return int8(b[16]) }

// CRC is the stored checksum of the bytes from the attributes on.
func (b Batch) CRC() uint32 { return binary.BigEndian.Uint32(b[17:]) }

// Attributes returns the raw attribute bits.
func (b Batch) Attributes() int16 { return b.i16(21) }

// Codec is the compression of the records.
func (b Batch) Codec() Codec { return Codec(b[22] & attrCodec) }

// LogAppendTime tells whether all records carry the batch's max timestamp.
func (b Batch) LogAppendTime() bool { return b[22]&attrLogAppendTime != 0 }

// Transactional tells whether the batch is part of a transaction.
func (b Batch) Transactional() bool { return b[22]&attrTransactional != 0 }

// Control tells whether the batch is a transaction marker.
func (b Batch) Control() bool { return b[22]&attrControl != 0 }

// LastOffsetDelta is the last record's offset less BaseOffset.
func (b Batch) LastOffsetDelta() int32 { return b.i32(23) }

// LastOffset is the offset of the last record.
func (b Batch) LastOffset() int64 { return b.BaseOffset() + int64(b.LastOffsetDelta()) }

// BaseTimestamp is the first record's timestamp in milliseconds.
func (b Batch) BaseTimestamp() int64 { return b.i64(27) }

// MaxTimestamp is the largest timestamp in milliseconds, or -1.
func (b Batch) MaxTimestamp() int64 { return b.i64(35) }

// ProducerID is the idempotent producer's id, or -1.
func (b Batch) ProducerID() int64 { return b.i64(43) }

// ProducerEpoch is the producer's epoch, or -1.
func (b Batch) ProducerEpoch() int16 { return b.i16(51) }

// BaseSequence is the first record's sequence number, or -1.
func (b Batch) BaseSequence() int32 { return b.i32(53) }

// LastSequence is the last record's sequence number; sequences wrap after 2^31-1 (KIP-98).
func (b Batch) LastSequence() int32 {
	return int32((int64(b.BaseSequence()) + int64(b.LastOffsetDelta())) & 0x7fffffff)
}

// NumRecords is the number of records.
func (b Batch) NumRecords() int32 { return b.i32(57) }

// SetOffsets assigns the base offset and the leader epoch in place. Both are outside the CRC.
func (b Batch) SetOffsets(base int64, leaderEpoch int32) {
	binary.BigEndian.PutUint64(b[0:], uint64(base))
	binary.BigEndian.PutUint32(b[12:], uint32(leaderEpoch))
}

// SetLogAppendTime gives all records the timestamp ms and stores a new CRC, which reads the whole batch once.
func (b Batch) SetLogAppendTime(ms int64) {
	b[22] |= attrLogAppendTime
	binary.BigEndian.PutUint64(b[35:], uint64(ms))
	binary.BigEndian.PutUint32(b[17:], crc32.Checksum(b[crcStart:], Castagnoli))
}

// Limits are the bounds that Check enforces for one topic.
type Limits struct {
	MaxBytes    int   // max.message.bytes; 0: none
	NowMs       int64 // the broker's clock, for the two bounds below
	BeforeMaxMs int64 // message.timestamp.before.max.ms
	AfterMaxMs  int64 // message.timestamp.after.max.ms
	AppendTime  bool  // message.timestamp.type=LogAppendTime: the client's timestamps do not matter
}

// Check checks the bytes that a producer sent for one partition: exactly one batch, whole, undamaged and acceptable.
func Check(b Batch, lim Limits) error {
	if len(b) < HeaderSize {
		return bad(ErrCorrupt, "%d bytes, a batch has at least %d", len(b), HeaderSize)
	}
	if m := b.Magic(); m != 2 {
		return bad(ErrMagic, "magic %d, only 2 is supported", m)
	}
	switch size := int64(b.i32(8)) + PrefixSize; {
	case size < HeaderSize || size > int64(len(b)):
		return bad(ErrCorrupt, "batch length %d does not fit the %d bytes sent", size, len(b))
	case size < int64(len(b)):
		return bad(ErrInvalid, "%d bytes follow the batch: a produce request holds exactly one batch for each partition", int64(len(b))-size)
	case lim.MaxBytes > 0 && size > int64(lim.MaxBytes):
		return bad(ErrTooLarge, "batch of %d bytes, max.message.bytes is %d", size, lim.MaxBytes)
	}
	if sum := crc32.Checksum(b[crcStart:], Castagnoli); sum != b.CRC() {
		return bad(ErrCorrupt, "CRC is %08x, the batch says %08x", sum, b.CRC())
	}
	return checkFields(b, lim)
}

func checkFields(b Batch, lim Limits) error {
	if c := b.Codec(); c > Zstd {
		return bad(ErrCodec, "codec %d, allowed are 0 to 4", c)
	}
	if b.Control() {
		return bad(ErrInvalid, "clients may not write control batches")
	}
	n, delta := b.NumRecords(), b.LastOffsetDelta()
	if n <= 0 || int64(delta) != int64(n)-1 {
		return bad(ErrInvalid, "%d records with last offset delta %d", n, delta)
	}
	if int64(n) > int64(len(b)-HeaderSize) && b.Codec() == None {
		return bad(ErrInvalid, "%d records do not fit %d bytes", n, len(b)-HeaderSize)
	}
	if b.ProducerID() >= 0 && (b.ProducerEpoch() < 0 || b.BaseSequence() < 0) {
		return bad(ErrInvalid, "producer id %d with epoch %d and sequence %d", b.ProducerID(), b.ProducerEpoch(), b.BaseSequence())
	}
	if b.Transactional() && b.ProducerID() < 0 {
		return bad(ErrInvalid, "transactional batch without a producer id")
	}
	if lim.AppendTime {
		return nil
	}
	if b.LogAppendTime() {
		return bad(ErrInvalid, "clients may not set LogAppendTime")
	}
	ts := b.MaxTimestamp()
	if ts < -1 || b.BaseTimestamp() < -1 {
		return bad(ErrTimestamp, "timestamp %d, allowed are -1 and up", min(ts, b.BaseTimestamp()))
	}
	if ts >= 0 && lim.AfterMaxMs > 0 && ts-lim.NowMs > lim.AfterMaxMs {
		return bad(ErrTimestamp, "timestamp %d is %d ms ahead, message.timestamp.after.max.ms is %d", ts, ts-lim.NowMs, lim.AfterMaxMs)
	}
	if bt := b.BaseTimestamp(); bt >= 0 && lim.BeforeMaxMs > 0 && lim.NowMs-bt > lim.BeforeMaxMs {
		return bad(ErrTimestamp, "timestamp %d is %d ms old, message.timestamp.before.max.ms is %d", bt, lim.NowMs-bt, lim.BeforeMaxMs)
	}
	return nil
}

// Next returns the batch at the start of b, which holds batches that were checked when they were written, and what
// follows it. A short or implausible one is ErrCorrupt.
func Next(b []byte) (Batch, []byte, error) {
	if len(b) < HeaderSize {
		return nil, b, bad(ErrCorrupt, "%d bytes left, a batch has at least %d", len(b), HeaderSize)
	}
	size := Batch(b).Size()
	if size < HeaderSize || size > len(b) || Batch(b).Magic() != 2 {
		return nil, b, bad(ErrCorrupt, "length %d, magic %d with %d bytes left", size, Batch(b).Magic(), len(b))
	}
	return b[:size:size], b[size:], nil
}

// VerifyCRC recomputes the batch's checksum.
func (b Batch) VerifyCRC() error {
	if sum := crc32.Checksum(b[crcStart:], Castagnoli); sum != b.CRC() {
		return bad(ErrCorrupt, "offset %d: CRC is %08x, the batch says %08x", b.BaseOffset(), sum, b.CRC())
	}
	return nil
}

// FullCRC returns the CRC-32C of all the batch's bytes, from its stored checksum, without reading the records.
func (b Batch) FullCRC() uint32 {
	head := crc32.Checksum(b[:crcStart], Castagnoli)
	return CombineCRC(head, b.CRC(), int64(len(b)-crcStart))
}
