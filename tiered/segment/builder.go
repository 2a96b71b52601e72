package segment

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/tierlog/tierlog/record"
)

// Config says how a segment is built.
type Config struct {
	Base int64 // base offset: of the first record, or below it
	// IndexInterval is index.interval.bytes: how many bytes of batches lie between two index entries at least.
	IndexInterval int // 0: DefaultIndexInterval
	// Producers is the state before the segment (an empty one at the beginning of the log); the builder moves it on. Nil:
	// the caller makes TxnIndex and Snapshot from what it knows, with AppendAborted and EncodeSnapshot.
	Producers *Producers
}

// Validate names the first field that is not allowed.
func (c Config) Validate() error {
	switch {
	case c.Base < 0:
		return fmt.Errorf("segment: Base is %d, want at least 0", c.Base)
	case c.IndexInterval < 0:
		return fmt.Errorf("segment: IndexInterval is %d, want at least 0", c.IndexInterval)
	}
	return nil
}

// EpochStart says where a leader epoch starts.
type EpochStart struct {
	Epoch int32
	Start int64
}

// Files are the files beside a .log file, and what its manifest entry says. An empty TxnIndex or Snapshot is not written. An
// empty Index or TimeIndex is: Kafka's tools do not open the one without the other.
type Files struct {
	Base, Last int64
	Size       int64 // of the .log file in bytes
	// MaxTimestamp is the largest timestamp in Unix milliseconds, -1 for none. MaxTimestampOffset is the last offset of the
	// first batch that has it, as in Kafka's time index: the record itself may be any one of that batch.
	MaxTimestamp       int64
	MaxTimestampOffset int64
	// Epochs are the leader epochs of the batches, each with the first offset in this segment that has it. The first
	// one may have started before the segment.
	Epochs []EpochStart

	Index, TimeIndex, TxnIndex, Snapshot []byte
}

// Builder makes the files of one segment from the metadata of its batches, in order.
type Builder struct {
	cfg       Config
	f         Files
	unindexed int64 // bytes of batches since the last index entry
	lastTime  int64 // timestamp of the last time index entry
}

// NewBuilder returns a builder of an empty segment.
func NewBuilder(cfg Config) (*Builder, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if cfg.IndexInterval == 0 {
		cfg.IndexInterval = DefaultIndexInterval
	}
	b := &Builder{cfg: cfg, lastTime: -1}
	b.f = Files{Base: cfg.Base, Last: cfg.Base - 1, MaxTimestamp: -1, MaxTimestampOffset: -1}
	return b, nil
}

// Fits reports whether Kafka's files can hold another batch: positions and relative offsets are 32-bit numbers. A batch that
// does not fit starts the next segment.
func (b *Builder) Fits(batch *Batch) bool {
	return b.f.Size+int64(batch.Length) <= math.MaxInt32 && batch.LastOffset()-b.cfg.Base <= math.MaxInt32
}

// Size is the number of bytes of the batches so far.
func (b *Builder) Size() int64 { return b.f.Size }

// Add takes in the batch that follows in the .log file. When it fails it changes nothing.
func (b *Builder) Add(batch *Batch) error {
	switch {
	case batch.Length < record.HeaderSize || batch.LastOffsetDelta < 0:
		return fmt.Errorf("segment %d: batch at offset %d has length %d and last offset delta %d", b.cfg.Base, batch.BaseOffset, batch.Length, batch.LastOffsetDelta)
	case batch.BaseOffset <= b.f.Last || batch.LastOffset() < batch.BaseOffset:
		return fmt.Errorf("segment %d: batch of offsets %d to %d follows offset %d", b.cfg.Base, batch.BaseOffset, batch.LastOffset(), b.f.Last)
	case !b.Fits(batch):
		return fmt.Errorf("segment %d: batch of offsets %d to %d at position %d does not fit", b.cfg.Base, batch.BaseOffset, batch.LastOffset(), b.f.Size)
	}
	f := &b.f
	if batch.MaxTimestamp > f.MaxTimestamp {
		f.MaxTimestamp, f.MaxTimestampOffset = batch.MaxTimestamp, batch.LastOffset()
	}
	if b.unindexed > int64(b.cfg.IndexInterval) {
		f.Index = binary.BigEndian.AppendUint32(f.Index, uint32(batch.LastOffset()-b.cfg.Base))
		f.Index = binary.BigEndian.AppendUint32(f.Index, uint32(f.Size))
		b.indexTime()
		b.unindexed = 0
	}
	if n := len(f.Epochs); n == 0 || batch.LeaderEpoch > f.Epochs[n-1].Epoch {
		f.Epochs = append(f.Epochs, EpochStart{Epoch: batch.LeaderEpoch, Start: batch.BaseOffset})
	}
	if b.cfg.Producers != nil {
		if a, aborted := b.cfg.Producers.Apply(batch); aborted {
			f.TxnIndex = AppendAborted(f.TxnIndex, a)
		}
	}
	f.Last = batch.LastOffset()
	f.Size += int64(batch.Length)
	b.unindexed += int64(batch.Length)
	return nil
}

// indexTime writes down the largest timestamp so far, if it is larger than the last one that was.
func (b *Builder) indexTime() {
	f := &b.f
	if f.MaxTimestamp <= b.lastTime {
		return
	}
	f.TimeIndex = binary.BigEndian.AppendUint64(f.TimeIndex, uint64(f.MaxTimestamp))
	f.TimeIndex = binary.BigEndian.AppendUint32(f.TimeIndex, uint32(f.MaxTimestampOffset-b.cfg.Base))
	b.lastTime = f.MaxTimestamp
}

// Finish returns the files. The builder cannot be used after that; the state of the producers goes on with the next
// segment.
func (b *Builder) Finish() Files {
	b.indexTime()
	if b.cfg.Producers != nil {
		if entries := b.cfg.Producers.Entries(); len(entries) > 0 {
			b.f.Snapshot = EncodeSnapshot(entries)
		}
	}
	return b.f
}
