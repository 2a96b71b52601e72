package manifest

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math"

	"github.com/tierlog/tierlog/tiered/logid"
)

// The frame of a checkpoint, big-endian. Magic, format and the place of the checksum are the same in every version.
const (
	checkpointMagic  = "TLOGCKPT"
	checkpointHeader = 64 // magic 8, format 2, zero 2, partitions 4, nonce 16, cluster 16, epoch 8, next slot 8
	checkpointSum    = 4  // CRC-32C of all bytes before it
)

// The least bytes that an item of a list takes: a count is never believed beyond what the rest can hold.
const (
	minTopic     = 16 + 1 + minPartition
	minPartition = 8
	minEpoch     = 2
	minProducer  = 6
	minBatch     = 5
	minAborted   = 4
)

// Encode returns the checkpoint's bytes.
func (c *Checkpoint) Encode() ([]byte, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	b := make([]byte, 0, checkpointHeader+checkpointSum+c.estimate())
	b = append(b, checkpointMagic...)
	b = binary.BigEndian.AppendUint16(b, Format)
	b = binary.BigEndian.AppendUint16(b, 0)
	b = binary.BigEndian.AppendUint32(b, uint32(len(c.Partitions)))
	b = append(b, c.Nonce[:]...)
	b = append(b, c.Cluster[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(c.Epoch))
	b = binary.BigEndian.AppendUint64(b, uint64(c.Next))
	for rest := c.Partitions; len(rest) > 0; {
		n := 1
		for n < len(rest) && rest[n].Topic == rest[0].Topic {
			n++
		}
		b = append(b, rest[0].Topic[:]...)
		b = binary.AppendUvarint(b, uint64(n))
		prev := int32(-1)
		for i := range rest[:n] {
			b = binary.AppendUvarint(b, uint64(rest[i].Index-prev-1))
			b = rest[i].append(b)
			prev = rest[i].Index
		}
		rest = rest[n:]
	}
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli)), nil
}

// estimate is a guess at the encoded size that usually spares growing.
func (c *Checkpoint) estimate() int {
	n := 0
	for i := range c.Partitions {
		p := &c.Partitions[i]
		n += 40 + 8*len(p.Epochs) + 100*len(p.Producers) + 24*len(p.Aborted)
	}
	return n
}

func (p *PartitionState) append(b []byte) []byte {
	b = binary.AppendUvarint(b, uint64(p.LogStart))
	b = binary.AppendUvarint(b, uint64(p.NextOffset))
	b = binary.AppendUvarint(b, uint64(p.RolledThrough))
	b = binary.AppendUvarint(b, p.ManifestVersion)
	b = binary.AppendUvarint(b, uint64(len(p.Epochs)))
	prev := EpochStart{Epoch: -1}
	for _, e := range p.Epochs {
		b = binary.AppendUvarint(b, uint64(e.Epoch-prev.Epoch-1))
		b = binary.AppendUvarint(b, uint64(e.Start-prev.Start))
		prev = e
	}
	b = binary.AppendUvarint(b, uint64(len(p.Producers)))
	id := int64(-1)
	for i := range p.Producers {
		s := &p.Producers[i]
		b = binary.AppendUvarint(b, uint64(s.ID-id-1))
		b = s.append(b, p.NextOffset)
		id = s.ID
	}
	b = binary.AppendUvarint(b, uint64(len(p.Aborted)))
	last := logid.NoOffset
	for _, a := range p.Aborted {
		b = binary.AppendUvarint(b, uint64(a.ProducerID))
		b = binary.AppendUvarint(b, uint64(a.Last-last-1))
		b = binary.AppendUvarint(b, uint64(a.Last-a.First))
		b = binary.AppendUvarint(b, uint64(a.LastStable))
		last = a.Last
	}
	return b
}

// append writes the state after the id. Offsets count back from the partition's next offset and times from the
// producer's last one: both are usually close.
func (s *ProducerState) append(b []byte, next logid.Offset) []byte {
	b = binary.AppendVarint(b, int64(s.Epoch))
	b = binary.AppendVarint(b, int64(s.CoordinatorEpoch))
	b = binary.AppendVarint(b, s.LastTimestamp)
	b = binary.AppendUvarint(b, uint64(s.TxnFirst+1))
	b = binary.AppendUvarint(b, uint64(len(s.Batches)))
	for _, e := range s.Batches {
		b = binary.AppendUvarint(b, uint64(e.BaseSeq))
		b = binary.AppendUvarint(b, uint64(e.LastSeq))
		b = binary.AppendVarint(b, int64(next-e.BaseOffset))
		b = binary.AppendUvarint(b, uint64(e.LastOffset-e.BaseOffset))
		// The difference may overflow; it overflows back when it is added.
		b = binary.AppendVarint(b, s.LastTimestamp-e.Timestamp)
	}
	return b
}

// DecodeCheckpoint reads the bytes found at the key that ref names in cluster c's epoch e.
func DecodeCheckpoint(b []byte, cluster logid.ClusterID, e logid.Epoch, ref CheckpointRef) (*Checkpoint, error) {
	c, err := ParseCheckpoint(b)
	if err != nil {
		return nil, err
	}
	if c.Cluster != cluster || c.Epoch != e || c.Next != ref.Slot {
		return nil, corrupt(KindCheckpoint, "is of cluster %s, epoch %d, slot %d, the manifest says cluster %s, epoch %d, slot %d",
			c.Cluster, c.Epoch, c.Next, cluster, e, ref.Slot)
	}
	return c, nil
}

// ParseCheckpoint reads a checkpoint wherever it was found.
func ParseCheckpoint(b []byte) (*Checkpoint, error) {
	if len(b) < checkpointHeader+checkpointSum {
		return nil, corrupt(KindCheckpoint, "%d bytes, shorter than an empty one", len(b))
	}
	if string(b[:8]) != checkpointMagic {
		return nil, corrupt(KindCheckpoint, "byte 0: begins with %q, want %q", b[:8], checkpointMagic)
	}
	covered := b[:len(b)-checkpointSum]
	if got, want := binary.BigEndian.Uint32(b[len(covered):]), crc32.Checksum(covered, castagnoli); got != want {
		return nil, corrupt(KindCheckpoint, "byte %d: checksum is %08x, the bytes before it have %08x", len(covered), got, want)
	}
	if f := binary.BigEndian.Uint16(b[8:]); f > Format {
		return nil, &FormatError{Kind: KindCheckpoint, Got: uint64(f)}
	} else if f == 0 || binary.BigEndian.Uint16(b[10:]) != 0 {
		return nil, corrupt(KindCheckpoint, "byte 8: format is %d followed by %x", f, b[10:12])
	}
	c := &Checkpoint{
		Nonce:   Nonce(b[16:32]),
		Cluster: logid.ClusterID(b[32:48]),
		Epoch:   logid.Epoch(binary.BigEndian.Uint64(b[48:])),
		Next:    logid.Slot(binary.BigEndian.Uint64(b[56:])),
	}
	d := &checkpointDecoder{b: covered, at: checkpointHeader}
	d.partitions(c, uint64(binary.BigEndian.Uint32(b[12:])))
	if d.err == nil && d.at != len(d.b) {
		d.failf("%d bytes follow the last partition", len(d.b)-d.at)
	}
	if d.err != nil {
		return nil, d.err
	}
	if err := c.Validate(); err != nil {
		return nil, corrupt(KindCheckpoint, "%v", err)
	}
	return c, nil
}

// checkpointDecoder reads the partitions; after the first error everything reads as zero.
type checkpointDecoder struct {
	b   []byte
	at  int
	err error
}

func (d *checkpointDecoder) failf(format string, args ...any) {
	if d.err == nil {
		d.err = corrupt(KindCheckpoint, "byte %d: %s", d.at, fmt.Sprintf(format, args...))
	}
	d.at = len(d.b)
}

// unsigned reads a varint of at most limit. Longer forms of a number than the shortest are refused, so that a
// checkpoint has one encoding.
func (d *checkpointDecoder) unsigned(what string, limit uint64) uint64 {
	v, n := binary.Uvarint(d.b[d.at:])
	if n <= 0 || n > 1 && d.b[d.at+n-1] == 0 {
		d.failf("%s is not a varint in its shortest form", what)
		return 0
	}
	if v > limit {
		d.failf("%s is %d, more than %d", what, v, limit)
		return 0
	}
	d.at += n
	return v
}

func (d *checkpointDecoder) signed(what string) int64 {
	v := d.unsigned(what, math.MaxUint64)
	return int64(v>>1) ^ -int64(v&1)
}

// count reads the length of a list whose items take at least size bytes each.
func (d *checkpointDecoder) count(what string, size int) int {
	return int(d.unsigned(what, uint64((len(d.b)-d.at)/size)))
}

// plus adds two non-negative numbers and fails where the sum leaves the range of T.
func plus[T ~int32 | ~int64](d *checkpointDecoder, what string, a, b T) T {
	if s := a + b; s >= a {
		return s
	}
	d.failf("%s: %d is more than there can be after %d", what, b, a)
	return 0
}

func (d *checkpointDecoder) offset(what string) logid.Offset {
	return logid.Offset(d.unsigned(what, math.MaxInt64))
}

func (d *checkpointDecoder) int32(what string) int32 {
	return int32(d.unsigned(what, math.MaxInt32))
}

func (d *checkpointDecoder) partitions(c *Checkpoint, n uint64) {
	if limit := uint64((len(d.b) - d.at) / minPartition); n > limit {
		d.failf("%d partitions, more than the %d that can follow", n, limit)
		return
	}
	if n == 0 {
		return
	}
	c.Partitions = make([]PartitionState, n)
	for done := 0; done < len(c.Partitions) && d.err == nil; {
		if len(d.b)-d.at < minTopic {
			d.failf("truncated before the topic of partition %d of %d", done, n)
			return
		}
		topic := logid.TopicID(d.b[d.at : d.at+16])
		d.at += 16
		if done > 0 && c.Partitions[done-1].Topic.Compare(topic) >= 0 {
			d.failf("topic %s follows %s", topic, c.Partitions[done-1].Topic)
			return
		}
		parts := d.count("number of partitions of a topic", minPartition)
		if parts == 0 || parts > len(c.Partitions)-done {
			d.failf("topic %s has %d of the %d partitions left", topic, parts, len(c.Partitions)-done)
			return
		}
		index := int32(-1)
		for i := range parts {
			p := &c.Partitions[done+i]
			index = plus(d, "partition", plus(d, "partition", index, 1), d.int32("partition"))
			p.Partition = logid.Partition{Topic: topic, Index: index}
			d.partition(p)
			if d.err != nil {
				return
			}
		}
		done += parts
	}
}

func (d *checkpointDecoder) partition(p *PartitionState) {
	p.LogStart = d.offset("log start")
	p.NextOffset = d.offset("next offset")
	p.RolledThrough = d.offset("rolled through")
	p.ManifestVersion = d.unsigned("manifest version", math.MaxUint64)
	if n := d.count("number of leader epochs", minEpoch); n > 0 {
		p.Epochs = make([]EpochStart, n)
		prev := EpochStart{Epoch: -1}
		for i := range p.Epochs {
			e := plus(d, "leader epoch", plus(d, "leader epoch", prev.Epoch, 1), logid.LeaderEpoch(d.int32("leader epoch")))
			prev = EpochStart{Epoch: e, Start: plus(d, "start offset", prev.Start, d.offset("start offset"))}
			p.Epochs[i] = prev
		}
	}
	if n := d.count("number of producers", minProducer); n > 0 {
		p.Producers = make([]ProducerState, n)
		id := int64(-1)
		for i := range p.Producers {
			id = plus(d, "producer id", plus(d, "producer id", id, 1), int64(d.unsigned("producer id", math.MaxInt64)))
			p.Producers[i].ID = id
			d.producer(&p.Producers[i], p.NextOffset)
		}
	}
	if n := d.count("number of aborted transactions", minAborted); n > 0 {
		p.Aborted = make([]AbortedTxn, n)
		last := logid.NoOffset
		for i := range p.Aborted {
			a := AbortedTxn{ProducerID: int64(d.unsigned("producer id", math.MaxInt64))}
			last = plus(d, "last offset", plus(d, "last offset", last, 1), d.offset("last offset"))
			a.Last = last
			a.First = last - d.offset("first offset")
			a.LastStable = d.offset("last stable offset")
			p.Aborted[i] = a
		}
	}
}

func (d *checkpointDecoder) producer(s *ProducerState, next logid.Offset) {
	s.Epoch = int16(d.signedIn("producer epoch", math.MinInt16, math.MaxInt16))
	s.CoordinatorEpoch = int32(d.signedIn("coordinator epoch", math.MinInt32, math.MaxInt32))
	s.LastTimestamp = d.signed("last timestamp")
	s.TxnFirst = logid.Offset(d.unsigned("first offset of the transaction", math.MaxInt64)) - 1
	n := d.count("number of batches", minBatch)
	if n > MaxProducerBatches {
		d.failf("producer %d has %d batches, at most %d are kept", s.ID, n, MaxProducerBatches)
		return
	}
	if n == 0 {
		return
	}
	s.Batches = make([]ProducerBatch, n)
	for i := range s.Batches {
		e := ProducerBatch{BaseSeq: d.int32("first sequence"), LastSeq: d.int32("last sequence")}
		// Wraps around for hostile input; Validate finds what is negative then.
		e.BaseOffset = next - logid.Offset(d.signed("first offset"))
		e.LastOffset = plus(d, "last offset", e.BaseOffset, d.offset("last offset"))
		e.Timestamp = s.LastTimestamp - d.signed("timestamp")
		s.Batches[i] = e
	}
}

func (d *checkpointDecoder) signedIn(what string, low, high int64) int64 {
	v := d.signed(what)
	if v < low || v > high {
		d.failf("%s is %d, want %d to %d", what, v, low, high)
		return 0
	}
	return v
}
