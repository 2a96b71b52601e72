// Package retention says how far the log start of each partition moves, by age and by size, in Kafka's meaning of
// retention.ms and retention.bytes.
//
// Invariants:
//
//   - Plan is pure: the same input gives the same answer. It deletes nothing; the pointer moves first, the bytes go later.
//   - A log start only grows, ends where a piece (a log segment, or a section of a bucket object) ends, and never goes
//     beyond the high watermark.
//   - Only a run of the oldest pieces goes: one that must stay keeps all that follow.
package retention

import (
	"iter"

	"github.com/tierlog/tierlog/tiered/logid"
)

// Unlimited stands for "no bound" in RetentionMs and RetentionBytes, as any negative number does.
const Unlimited = -1

// PartitionStat is what is known of one partition.
type PartitionStat struct {
	Partition     logid.Partition
	LogStart      logid.Offset
	HighWatermark logid.Offset
	// RetentionMs and RetentionBytes are the topic's retention.ms and retention.bytes. A topic whose cleanup.policy
	// deletes nothing has neither bound.
	RetentionMs    int64
	RetentionBytes int64
	// Bytes is the size of all pieces that are alive.
	Bytes int64
	// Pieces are the log segments and then the sections that follow them, oldest first. They are asked for only as far
	// as needed. Those that end below LogStart are passed over; their size must not be in Bytes.
	Pieces iter.Seq[Piece]
}

// Piece is a log segment, or a section of a bucket object: what goes or stays as a whole.
type Piece struct {
	Base, Last logid.Offset
	Bytes      int64
	MaxTs      int64 // largest timestamp of its records in Unix milliseconds, -1 for none
	// WrittenMs is when it was written, which counts for records without a timestamp as a file's time does in Kafka;
	// 0 if it is not known: then such records never expire by time.
	WrittenMs int64
}

// Advance is a log start to be moved.
type Advance struct {
	Partition logid.Partition
	LogStart  logid.Offset // the new one
	Bytes     int64        // that go
	Why       Reason       // of the last piece that goes
}

// Reason says which bound a partition went over.
type Reason string

// The reasons.
const (
	Time Reason = "retention.ms"
	Size Reason = "retention.bytes"
)

// Plan returns the log starts to be moved, in the order of parts. A piece goes when its largest timestamp is more than
// RetentionMs ago, or when without it at least RetentionBytes remain.
func Plan(parts []PartitionStat, nowMs int64) []Advance {
	var out []Advance
	for i := range parts {
		if a, ok := plan(&parts[i], nowMs); ok {
			out = append(out, a)
		}
	}
	return out
}

func plan(p *PartitionStat, nowMs int64) (Advance, bool) {
	a := Advance{Partition: p.Partition, LogStart: p.LogStart}
	if p.RetentionMs < 0 && p.RetentionBytes < 0 || p.Pieces == nil {
		return a, false
	}
	for piece := range p.Pieces {
		if piece.Last < p.LogStart {
			continue
		}
		why, goes := p.expires(piece, p.Bytes-a.Bytes, nowMs)
		if !goes || piece.Last >= p.HighWatermark {
			break
		}
		a.LogStart, a.Why = piece.Last+1, why
		a.Bytes += piece.Bytes
	}
	return a, a.LogStart > p.LogStart
}

// expires tells whether a piece goes while bytes are alive, it among them.
func (p *PartitionStat) expires(piece Piece, bytes, nowMs int64) (Reason, bool) {
	ts, known := piece.MaxTs, true
	if ts < 0 {
		ts, known = piece.WrittenMs, piece.WrittenMs > 0
	}
	switch {
	case p.RetentionMs >= 0 && known && nowMs-ts > p.RetentionMs:
		return Time, true
	case p.RetentionBytes >= 0 && bytes-piece.Bytes >= p.RetentionBytes:
		return Size, true
	default:
		return "", false
	}
}
