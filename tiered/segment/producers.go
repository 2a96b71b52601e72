package segment

import (
	"fmt"
	"maps"
	"slices"
)

// Producers follows the producers of one partition through its batches, as Kafka does when it replays a log: it judges
// nothing, since what is in the log was accepted. It carries over from one segment to the next.
type Producers struct {
	all  map[int64]ProducerEntry
	open map[int64]int64 // producer id -> first offset of its open transaction
}

// NewProducers starts from the entries of the snapshot before the first batch; none for the beginning of the log.
func NewProducers(entries []ProducerEntry) (*Producers, error) {
	p := &Producers{all: make(map[int64]ProducerEntry, len(entries)), open: make(map[int64]int64)}
	for _, e := range entries {
		if _, ok := p.all[e.ID]; ok {
			return nil, fmt.Errorf("snapshot: producer %d is listed twice: %w", e.ID, ErrCorrupt)
		}
		p.all[e.ID] = e
		if e.TxnFirst >= 0 {
			p.open[e.ID] = e.TxnFirst
		}
	}
	return p, nil
}

// Apply takes the next batch in. If it aborts a transaction, that is returned.
func (p *Producers) Apply(b *Batch) (a AbortedTxn, aborted bool) {
	if b.ProducerID < 0 {
		return a, false
	}
	e, ok := p.all[b.ProducerID]
	if !ok || b.ProducerEpoch != e.Epoch {
		// A new epoch forgets the batches, not the transaction.
		e = ProducerEntry{ID: b.ProducerID, Epoch: b.ProducerEpoch, LastSequence: -1, LastOffset: -1, CoordinatorEpoch: e.CoordinatorEpoch, TxnFirst: e.TxnFirst}
		if !ok {
			e.CoordinatorEpoch, e.TxnFirst = -1, -1
		}
	}
	e.Timestamp = b.MaxTimestamp
	switch {
	case !b.Control:
		e.LastSequence, e.LastOffset, e.OffsetDelta = b.lastSequence(), b.LastOffset(), b.LastOffsetDelta
		if b.Transactional && e.TxnFirst < 0 {
			e.TxnFirst = b.BaseOffset
			p.open[b.ProducerID] = b.BaseOffset
		}
	case b.Marker != NoMarker:
		if e.TxnFirst >= 0 {
			delete(p.open, b.ProducerID)
			aborted = b.Marker == AbortMarker
			a = AbortedTxn{ProducerID: b.ProducerID, First: e.TxnFirst, Last: b.LastOffset(), LastStable: p.stable(b.LastOffset() + 1)}
		}
		e.CoordinatorEpoch, e.TxnFirst = b.CoordinatorEpoch, -1
	}
	p.all[b.ProducerID] = e
	return a, aborted
}

// stable is the first offset of the oldest open transaction, or else next.
func (p *Producers) stable(next int64) int64 {
	for _, first := range p.open {
		next = min(next, first)
	}
	return next
}

// LastStable returns the last stable offset of a log whose next offset is given.
func (p *Producers) LastStable(next int64) int64 { return p.stable(next) }

// Expire forgets the producers that have no open transaction and did nothing since a time in Unix milliseconds.
func (p *Producers) Expire(before int64) {
	maps.DeleteFunc(p.all, func(_ int64, e ProducerEntry) bool { return e.TxnFirst < 0 && e.Timestamp < before })
}

// Entries returns the producers in ascending order of their ids.
func (p *Producers) Entries() []ProducerEntry {
	return slices.SortedFunc(maps.Values(p.all), byID)
}
