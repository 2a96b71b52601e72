// Package logid names the things that a log is made of: broker epochs, slots, offsets, leader epochs, topics and partitions.
//
// Invariants:
//
//   - Parse of a String or Key gives the same value back; Parse accepts nothing that neither of them would write.
//   - The zero padding of Slot and of Epoch in object keys makes byte order the order of the numbers.
//   - The package imports only the standard library, so that every layer can use the same types.
package logid

import (
	"cmp"
	"errors"
	"fmt"
	"strconv"
)

// ErrSyntax is wrapped by every error of the Parse functions.
var ErrSyntax = errors.New("malformed id")

// KeyWidth is the number of digits of a number that is part of a key or of a Kafka file name: as many as the largest
// 64-bit number needs, so that byte order and numeric order agree.
const KeyWidth = 20

// Epoch is a broker epoch: the slot of the broker's "joined" record in the metadata log, hence unique for all time.
// Zero means none.
type Epoch uint64

// String returns the decimal form without padding.
func (e Epoch) String() string { return strconv.FormatUint(uint64(e), 10) }

// Key returns the zero-padded form used in object keys.
func (e Epoch) Key() string { return padded(uint64(e)) }

// ParseEpoch reads what String or Key wrote.
func ParseEpoch(s string) (Epoch, error) {
	v, err := parseUnsigned("epoch", s)
	return Epoch(v), err
}

// Slot is a position in a sequence of objects; see package slotlog.
type Slot uint64

// String returns the decimal form without padding.
func (s Slot) String() string { return strconv.FormatUint(uint64(s), 10) }

// Key returns the zero-padded form used in object keys.
func (s Slot) Key() string { return padded(uint64(s)) }

// ParseSlot reads what String or Key wrote.
func ParseSlot(s string) (Slot, error) {
	v, err := parseUnsigned("slot", s)
	return Slot(v), err
}

// Offset is the position of a record in its partition. Error answers and empty ranges use NoOffset.
type Offset int64

// NoOffset stands for "no such offset" where Kafka uses -1.
const NoOffset Offset = -1

// String returns the decimal form without padding.
func (o Offset) String() string { return strconv.FormatInt(int64(o), 10) }

// Key returns the zero-padded form used in object keys and in Kafka's file names; it panics below zero, since
// such an offset names no record.
func (o Offset) Key() string {
	if o < 0 {
		panic("logid: key of a negative offset " + o.String())
	}
	return padded(uint64(o))
}

// ParseOffset reads what String or Key wrote: -1 (NoOffset), or a number of at least zero.
func ParseOffset(s string) (Offset, error) {
	if s == "-1" {
		return NoOffset, nil
	}
	v, err := parseUnsigned("offset", s)
	if err == nil && v > 1<<63-1 {
		return 0, fmt.Errorf("offset %q: above %d: %w", s, int64(1<<63-1), ErrSyntax)
	}
	return Offset(v), err
}

// LeaderEpoch counts the leaders of a partition. NoLeaderEpoch where it is not known.
type LeaderEpoch int32

// NoLeaderEpoch stands for "not known" where Kafka uses -1.
const NoLeaderEpoch LeaderEpoch = -1

// String returns the decimal form.
func (e LeaderEpoch) String() string { return strconv.FormatInt(int64(e), 10) }

// ParseLeaderEpoch reads what String wrote: -1 (NoLeaderEpoch), or a number of at least zero.
func ParseLeaderEpoch(s string) (LeaderEpoch, error) {
	if s == "-1" {
		return NoLeaderEpoch, nil
	}
	v, err := parseUnsigned("leader epoch", s)
	if err == nil && v > 1<<31-1 {
		return 0, fmt.Errorf("leader epoch %q: above %d: %w", s, 1<<31-1, ErrSyntax)
	}
	return LeaderEpoch(v), err
}

// Partition names one partition of one topic.
type Partition struct {
	Topic TopicID
	Index int32 // at least 0
}

// String returns "<topic id>-<index>"; it reads back because a topic id has a fixed width.
func (p Partition) String() string {
	return p.Topic.String() + "-" + strconv.FormatInt(int64(p.Index), 10)
}

// Compare orders partitions by topic id, then index: the order of sections in WAL objects and checkpoints.
func (p Partition) Compare(o Partition) int {
	return cmp.Or(p.Topic.Compare(o.Topic), cmp.Compare(p.Index, o.Index))
}

// ParsePartition reads what String wrote.
func ParsePartition(s string) (Partition, error) {
	if len(s) < uuidWidth+2 || s[uuidWidth] != '-' {
		return Partition{}, fmt.Errorf("partition %q: want <topic id>-<index>: %w", clip(s), ErrSyntax)
	}
	t, err := ParseTopicID(s[:uuidWidth])
	if err != nil {
		return Partition{}, err
	}
	i, err := ParseIndex(s[uuidWidth+1:])
	if err != nil {
		return Partition{}, err
	}
	return Partition{Topic: t, Index: i}, nil
}

// ParseIndex reads a partition's number within its topic, in decimal without padding.
func ParseIndex(s string) (int32, error) {
	v, err := parseUnsigned("partition index", s)
	if err == nil && (v > 1<<31-1 || len(s) == KeyWidth) {
		return 0, fmt.Errorf("partition index %q: above %d or padded: %w", s, 1<<31-1, ErrSyntax)
	}
	return int32(v), err
}

// padded is strconv with the zeros of %020d, without fmt's reflection: keys are built for every flush.
func padded(v uint64) string {
	var b [KeyWidth]byte
	for i := KeyWidth - 1; i >= 0; i-- {
		b[i] = byte('0' + v%10)
		v /= 10
	}
	return string(b[:])
}

// parseUnsigned accepts the shortest decimal form and the zero-padded one of KeyWidth digits, nothing else: two
// texts of one number would be two keys of one thing.
func parseUnsigned(what, s string) (uint64, error) {
	if len(s) == 0 || len(s) > KeyWidth {
		return 0, fmt.Errorf("%s %q: want 1 to %d digits: %w", what, clip(s), KeyWidth, ErrSyntax)
	}
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return 0, fmt.Errorf("%s %q: not a decimal number: %w", what, s, ErrSyntax)
		}
	}
	if s[0] == '0' && len(s) != 1 && len(s) != KeyWidth {
		return 0, fmt.Errorf("%s %q: padded to %d digits instead of %d: %w", what, s, len(s), KeyWidth, ErrSyntax)
	}
	v, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%s %q: above %d: %w", what, s, uint64(1<<64-1), ErrSyntax)
	}
	return v, nil
}

// clip keeps hostile input out of error texts.
func clip(s string) string {
	if len(s) > 64 {
		return s[:64]
	}
	return s
}
