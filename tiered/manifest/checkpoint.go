package manifest

import (
	"math"
	"slices"

	"github.com/tierlog/tierlog/tiered/logid"
)

// Checkpoint is the state of every partition that a broker led, after the slots below Next. A restart or takeover reads
// the newest one and then only the footers from Next on.
type Checkpoint struct {
	Nonce   Nonce
	Cluster logid.ClusterID
	Epoch   logid.Epoch
	// Next is the first slot that is not accounted for.
	Next logid.Slot
	// Partitions are sorted by logid.Partition.Compare, each one listed once.
	Partitions []PartitionState
}

// PartitionState is all that is needed to open a partition.
type PartitionState struct {
	logid.Partition
	LogStart   logid.Offset
	NextOffset logid.Offset // the offset of the next record
	// RolledThrough and ManifestVersion are those of the partition's manifest when the checkpoint was taken; a newer
	// manifest may be there already. Version 0: there was none.
	RolledThrough   logid.Offset
	ManifestVersion uint64
	// Epochs is the whole leader-epoch list: ascending epochs, starts that do not descend.
	Epochs []EpochStart
	// Producers are sorted by id, each one listed once. The open transactions are those with a TxnFirst.
	Producers []ProducerState
	// Aborted are the aborted transactions that the .txnindex of no log segment holds yet, in ascending order of Last.
	Aborted []AbortedTxn
}

// MaxProducerBatches is how many batches of a producer are remembered, to recognise duplicates.
const MaxProducerBatches = 5

// ProducerState is what a partition knows of one producer.
type ProducerState struct {
	ID               int64 // at least 0
	Epoch            int16
	CoordinatorEpoch int32 // of the last transaction marker, -1 for none
	// LastTimestamp is the time of the last batch or marker, in Unix milliseconds; expiry counts from it.
	LastTimestamp int64
	// TxnFirst is the first offset of the open transaction, logid.NoOffset for none.
	TxnFirst logid.Offset
	// Batches are the last ones, oldest first; at most MaxProducerBatches.
	Batches []ProducerBatch
}

// ProducerBatch is one remembered batch. LastSeq is below BaseSeq where the sequence wrapped around.
type ProducerBatch struct {
	BaseSeq    int32
	LastSeq    int32
	BaseOffset logid.Offset
	LastOffset logid.Offset // at least BaseOffset
	Timestamp  int64        // the batch's largest one, in Unix milliseconds
}

// AbortedTxn is one entry of an aborted-transaction index.
type AbortedTxn struct {
	ProducerID int64
	First      logid.Offset // of the transaction
	Last       logid.Offset // of its abort marker
	LastStable logid.Offset // the last stable offset when it was aborted
}

// Key returns the key of the checkpoint under the name id.
func (c *Checkpoint) Key(id ULID) string {
	return Key{Kind: KeyCheckpoint, Cluster: c.Cluster, Epoch: c.Epoch, Slot: c.Next, ULID: id}.String()
}

// Find returns the state of a partition, nil if it is not in the checkpoint.
func (c *Checkpoint) Find(p logid.Partition) *PartitionState {
	i, ok := slices.BinarySearchFunc(c.Partitions, p, func(s PartitionState, p logid.Partition) int { return s.Compare(p) })
	if !ok {
		return nil
	}
	return &c.Partitions[i]
}

// Sort brings the partitions and everything in them into the order that Encode wants.
func (c *Checkpoint) Sort() {
	slices.SortFunc(c.Partitions, func(a, b PartitionState) int { return a.Compare(b.Partition) })
	for i := range c.Partitions {
		p := &c.Partitions[i]
		slices.SortFunc(p.Producers, func(a, b ProducerState) int { return compare(a.ID, b.ID) })
		slices.SortFunc(p.Aborted, func(a, b AbortedTxn) int { return compare(a.Last, b.Last) })
	}
}

func compare[T ~int64](a, b T) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// Validate names the first field that is not allowed.
func (c *Checkpoint) Validate() error {
	if c.Nonce == (Nonce{}) || c.Cluster.IsZero() {
		return invalid("checkpoint: nonce %s and cluster %s, want neither zero", c.Nonce, c.Cluster)
	}
	for i := range c.Partitions {
		p := &c.Partitions[i]
		if i > 0 && c.Partitions[i-1].Compare(p.Partition) >= 0 {
			return invalid("checkpoint: partition %s follows %s", p.Partition, c.Partitions[i-1].Partition)
		}
		if err := p.validate(); err != nil {
			return invalid("checkpoint: partition %s: %v", p.Partition, err)
		}
	}
	return nil
}

func (p *PartitionState) validate() error {
	if p.Index < 0 || p.LogStart < 0 || p.NextOffset < 0 || p.RolledThrough < 0 {
		return invalid("index %d, log start %d, next offset %d, rolled through %d: one is negative", p.Index, p.LogStart, p.NextOffset, p.RolledThrough)
	}
	for i, e := range p.Epochs {
		if e.Epoch < 0 || e.Start < 0 || i > 0 && (e.Epoch <= p.Epochs[i-1].Epoch || e.Start < p.Epochs[i-1].Start) {
			return invalid("leader epoch %d from offset %d is negative or out of order", e.Epoch, e.Start)
		}
	}
	for i := range p.Producers {
		s := &p.Producers[i]
		if s.ID < 0 || i > 0 && s.ID <= p.Producers[i-1].ID {
			return invalid("producer %d is negative or out of order", s.ID)
		}
		if err := s.validate(); err != nil {
			return invalid("producer %d: %v", s.ID, err)
		}
	}
	for i, a := range p.Aborted {
		switch {
		case a.ProducerID < 0 || a.First < 0 || a.Last < a.First || a.LastStable < 0:
			return invalid("aborted transaction of producer %d, offsets %d to %d, last stable offset %d", a.ProducerID, a.First, a.Last, a.LastStable)
		case i > 0 && a.Last <= p.Aborted[i-1].Last:
			return invalid("aborted transactions end at %d, then at %d", p.Aborted[i-1].Last, a.Last)
		}
	}
	return nil
}

func (s *ProducerState) validate() error {
	if s.TxnFirst < logid.NoOffset || s.TxnFirst == math.MaxInt64 || len(s.Batches) > MaxProducerBatches {
		return invalid("first offset of the transaction is %d, batches are %d", s.TxnFirst, len(s.Batches))
	}
	for i, b := range s.Batches {
		if b.BaseSeq < 0 || b.LastSeq < 0 || b.BaseOffset < 0 || b.LastOffset < b.BaseOffset {
			return invalid("batch of sequences %d to %d at offsets %d to %d", b.BaseSeq, b.LastSeq, b.BaseOffset, b.LastOffset)
		}
		if i > 0 && b.BaseOffset <= s.Batches[i-1].LastOffset {
			return invalid("batch at offset %d follows one that ends at %d", b.BaseOffset, s.Batches[i-1].LastOffset)
		}
	}
	return nil
}
