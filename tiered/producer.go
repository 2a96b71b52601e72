package tiered

import (
	"errors"
	"fmt"

	"github.com/tierlog/tierlog/tiered/wal"
)

// Errors of idempotent producers (KIP-98).
var (
	// ErrOutOfOrderSequence: the batch does not continue its producer's sequence.
	ErrOutOfOrderSequence = errors.New("out of order sequence number")
	// ErrProducerEpoch: a newer instance of the producer has written.
	ErrProducerEpoch = errors.New("producer fenced by a newer epoch")
)

// keptBatches is how many batches of a producer are remembered, so that as many requests may be in flight.
const keptBatches = 5

// sequenced is what is remembered of one batch.
type sequenced struct {
	baseSeq, lastSeq int32
	base, last       int64 // offsets
	timestamp        int64 // ms
}

// producer is the state of one producer id in one partition: its newest batches, oldest first. All that are not
// durable yet are kept, and at least keptBatches durable ones, so that a checkpoint can leave out what is not durable
// and still knows the sequence before it.
type producer struct {
	epoch   int16
	batches []sequenced
	seenMs  int64 // when it last wrote, by the broker's clock
}

// duplicate returns the remembered batch with the same sequence numbers.
func (s *producer) duplicate(e *wal.Entry) *sequenced {
	if s == nil || s.epoch != e.ProducerEpoch {
		return nil
	}
	for i := range s.batches {
		if b := &s.batches[i]; b.baseSeq == e.BaseSequence && b.lastSeq == e.LastSequence() {
			return b
		}
	}
	return nil
}

// check tells whether the batch may follow. A producer that is not known may start anywhere: its state may have
// expired (KIP-360).
func (s *producer) check(e *wal.Entry) error {
	switch {
	case s == nil || len(s.batches) == 0:
		return nil
	case e.ProducerEpoch < s.epoch:
		return fmt.Errorf("%w: producer %d has epoch %d, the batch %d", ErrProducerEpoch, e.ProducerID, s.epoch, e.ProducerEpoch)
	case e.ProducerEpoch > s.epoch:
		if e.BaseSequence != 0 {
			return fmt.Errorf("%w: producer %d starts epoch %d with sequence %d", ErrOutOfOrderSequence, e.ProducerID, e.ProducerEpoch, e.BaseSequence)
		}
		return nil
	}
	last := s.batches[len(s.batches)-1].lastSeq
	if want := int32((int64(last) + 1) & 0x7fffffff); e.BaseSequence != want {
		return fmt.Errorf("%w: producer %d sent sequence %d, expected %d", ErrOutOfOrderSequence, e.ProducerID, e.BaseSequence, want)
	}
	return nil
}

// record remembers a batch. hw is the partition's high watermark.
func (s *producer) record(e *wal.Entry, nowMs, hw int64) {
	if e.ProducerEpoch != s.epoch {
		s.epoch, s.batches = e.ProducerEpoch, s.batches[:0]
	}
	drop := 0
	for len(s.batches)-drop > keptBatches && s.batches[drop+keptBatches].last < hw {
		drop++
	}
	if drop > 0 {
		s.batches = append(s.batches[:0], s.batches[drop:]...)
	}
	s.batches = append(s.batches, sequenced{
		baseSeq: e.BaseSequence, lastSeq: e.LastSequence(),
		base: e.BaseOffset, last: e.LastOffset(), timestamp: e.MaxTimestamp,
	})
	s.seenMs = nowMs
}

// durable returns the newest batches below hw, at most keptBatches.
func (s *producer) durable(hw int64) []sequenced {
	n := len(s.batches)
	for n > 0 && s.batches[n-1].last >= hw {
		n--
	}
	return s.batches[max(0, n-keptBatches):n]
}

// recordProducer applies a batch to the partition's producer states. Callers hold p.mu.
func (p *Partition) recordProducer(e *wal.Entry, nowMs int64) {
	if e.ProducerID < 0 {
		return
	}
	if p.producers == nil {
		p.producers = make(map[int64]*producer)
	}
	s := p.producers[e.ProducerID]
	if s == nil {
		s = &producer{epoch: e.ProducerEpoch}
		p.producers[e.ProducerID] = s
	}
	s.record(e, nowMs, p.hw)
}

// expireProducers forgets producers that have not written since beforeMs.
func (p *Partition) expireProducers(beforeMs int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for id, s := range p.producers {
		if s.seenMs < beforeMs {
			delete(p.producers, id)
		}
	}
}
