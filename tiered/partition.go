package tiered

import (
	"fmt"
	"sort"
	"sync"
	"sync/atomic"

	"github.com/tierlog/tierlog/membuf"
	"github.com/tierlog/tierlog/record"
	"github.com/tierlog/tierlog/tiered/logid"
	"github.com/tierlog/tierlog/tiered/wal"
)

// Settings are the topic configs that the log acts on, in Kafka's meaning. Negative retention is unlimited.
type Settings struct {
	MaxMessageBytes int
	LogAppendTime   bool
	BeforeMaxMs     int64
	AfterMaxMs      int64
	RetentionMs     int64
	RetentionBytes  int64
	SegmentBytes    int64
	SegmentMs       int64
}

// EpochStart says at which offset a leader epoch starts.
type EpochStart struct {
	Epoch int32
	Start int64
}

// Partition is one partition that this broker leads. A quiet one is only this struct.
type Partition struct {
	log         *Log
	id          logid.Partition
	topic       string
	leaderEpoch int32 // fixed: another leader epoch is another Partition
	settings    atomic.Pointer[Settings]

	mu        sync.Mutex
	start     int64        // log start offset; only grows
	next      int64        // next offset to assign; hw <= next
	hw        int64        // high watermark
	epochs    []EpochStart // ascending in both fields
	producers map[int64]*producer

	pending []pendingBatch // in the open hot segment, in offset order
	dirty   bool           // listed in the flusher's dirty list

	extents   []extent // un-rolled records below hw, in order
	rolled    int64    // offsets below it are in log segments (or gone)
	manifestV uint64   // version of the partition manifest at rolled; 0: none
	// rolledKnown says that rolled was compared with the manifest; a checkpoint may be older.
	rolledKnown bool
	rolledSize  int64 // bytes in log segments
	bytes       int64 // bytes in extents

	hints hints // where cold reads ended

	waiters    []*Waiter
	dupWaiters []dupWaiter
	closed     bool
}

// pendingBatch is a batch of the open hot segment. It holds a reference to buf.
type pendingBatch struct {
	batch  record.Batch
	buf    *membuf.Buf
	commit *Commit // nil: nobody waits for the bucket
}

// dupWaiter is the commit of a repeated batch whose original is not durable yet.
type dupWaiter struct {
	last   int64 // the original's last offset
	commit *Commit
}

// ID returns the partition's identity, Topic its topic's name, LeaderEpoch the epoch it was opened under.
func (p *Partition) ID() logid.Partition { return p.id }

// Topic returns the name of the partition's topic.
func (p *Partition) Topic() string { return p.topic }

// LeaderEpoch returns the leader epoch under which the partition was opened.
func (p *Partition) LeaderEpoch() int32 { return p.leaderEpoch }

// Configure replaces the settings; batches that come later see them.
func (p *Partition) Configure(s Settings) { p.settings.Store(&s) }

// Settings returns the settings in force.
func (p *Partition) Settings() Settings { return *p.settings.Load() }

// Offsets are the bounds of a partition.
type Offsets struct {
	LogStart      int64
	HighWatermark int64
	LastStable    int64
	LogEnd        int64 // next offset to be assigned
	Tiered        int64 // first offset that is not in log segments; LogStart or more where there are none
	rolled        int64
}

// Offsets returns the partition's bounds now.
func (p *Partition) Offsets() Offsets {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.offsets()
}

func (p *Partition) offsets() Offsets {
	return Offsets{LogStart: p.start, HighWatermark: p.hw, LastStable: p.hw, LogEnd: p.next, Tiered: max(p.rolled, p.start), rolled: p.rolled}
}

// Size returns the bytes of the partition's records that are durable.
func (p *Partition) Size() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.bytes + p.rolledSize
}

// Acks is how much must hold before a batch's commit is done.
type Acks int8

// The levels of acknowledgement.
const (
	AcksNone  Acks = 0
	AcksLocal Acks = 1
	AcksAll   Acks = -1
)

// Appended is the answer to one append.
type Appended struct {
	BaseOffset   int64
	AppendTimeMs int64 // -1 unless the topic stamps batches itself
	LogStart     int64
	Duplicate    bool
}

// Append checks the batch, assigns its offsets in place and puts it into the hot segment. buf is the buffer that
// holds b; the partition takes its own reference. b must not be touched by the caller afterwards, unless Append fails.
//
// The commit is done later, see Acks. Errors: those of record.Check, ErrOutOfOrderSequence, ErrProducerEpoch,
// ErrFenced, ErrClosed; then nothing was appended.
func (p *Partition) Append(b record.Batch, buf *membuf.Buf, acks Acks, c *Commit) (Appended, error) {
	s := p.settings.Load()
	nowMs := p.log.cfg.Now().UnixMilli()
	err := record.Check(b, record.Limits{
		MaxBytes: s.MaxMessageBytes, NowMs: nowMs,
		BeforeMaxMs: s.BeforeMaxMs, AfterMaxMs: s.AfterMaxMs, AppendTime: s.LogAppendTime,
	})
	if err != nil {
		return Appended{}, err
	}
	res := Appended{AppendTimeMs: -1}
	if s.LogAppendTime {
		b.SetLogAppendTime(nowMs)
		res.AppendTimeMs = nowMs
	}
	entry := wal.EntryOf(b)

	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.writable(); err != nil {
		return Appended{}, err
	}
	res.LogStart = p.start
	if entry.ProducerID >= 0 {
		prod := p.producers[entry.ProducerID]
		if d := prod.duplicate(&entry); d != nil {
			res.BaseOffset, res.Duplicate = d.base, true
			if acks != AcksNone && d.last >= p.hw {
				c.add()
				p.dupWaiters = append(p.dupWaiters, dupWaiter{last: d.last, commit: c})
			}
			return res, nil
		}
		if err := prod.check(&entry); err != nil {
			return Appended{}, err
		}
	}
	entry.BaseOffset = p.next
	b.SetOffsets(p.next, p.leaderEpoch)
	p.recordProducer(&entry, nowMs)
	p.next = entry.LastOffset() + 1
	res.BaseOffset = entry.BaseOffset
	p.enqueue(b, buf, acks, c)
	return res, nil
}

// writable tells why the partition takes no batches, or nil. Callers hold p.mu.
func (p *Partition) writable() error {
	if err := p.log.Err(); err != nil {
		return err
	}
	if p.closed {
		return fmt.Errorf("partition %s-%d: %w", p.topic, p.id.Index, ErrClosed)
	}
	return nil
}

// enqueue hands an assigned batch to the hot segment. Callers hold p.mu.
func (p *Partition) enqueue(b record.Batch, buf *membuf.Buf, acks Acks, c *Commit) {
	pb := pendingBatch{batch: b, buf: buf}
	buf.Retain()
	local := acks == AcksLocal && p.log.local != nil
	if acks != AcksNone {
		c.add()
		if !local {
			pb.commit = c
		}
	}
	p.pending = append(p.pending, pb)
	p.log.flush.added(p, int64(len(b)))
	if local {
		// Only now: a seal rotates the local files before it looks for dirty partitions, so that what is in a file
		// below the new one must be listed already. Else the file would go with a flight that misses the batch.
		buf.Retain()
		p.log.local.append(localBatch{id: p.id, batch: b, buf: buf, commit: c})
	}
}

// wake lets every waiter look again.
func (p *Partition) wake() {
	p.mu.Lock()
	ws := p.waiters
	p.waiters = nil
	p.mu.Unlock()
	for _, w := range ws {
		w.notify()
	}
}

// close fails what waits on the partition.
func (p *Partition) close() {
	p.mu.Lock()
	p.closed = true
	dups := p.dupWaiters
	p.dupWaiters = nil
	p.mu.Unlock()
	for _, d := range dups {
		d.commit.finish(ErrClosed)
	}
	p.wake()
}

// beginEpoch notes that the leader epoch starts at the next offset. Called before the partition is shared.
func (p *Partition) beginEpoch(epoch int32) {
	for len(p.epochs) > 0 && p.epochs[len(p.epochs)-1].Start >= p.next {
		p.epochs = p.epochs[:len(p.epochs)-1] // an epoch without records leaves no trace
	}
	if n := len(p.epochs); n == 0 || p.epochs[n-1].Epoch < epoch {
		p.epochs = append(p.epochs, EpochStart{Epoch: epoch, Start: p.next})
	}
}

// EpochEnd returns the largest leader epoch that is at most the asked one, and the offset where it ends
// (KIP-101, OffsetForLeaderEpoch); -1 and -1 if it is not known yet.
func (p *Partition) EpochEnd(epoch int32) (found int32, end int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if epoch == p.leaderEpoch {
		return epoch, p.hw
	}
	i := sort.Search(len(p.epochs), func(i int) bool { return p.epochs[i].Epoch > epoch })
	switch {
	case epoch > p.leaderEpoch || len(p.epochs) == 0:
		return -1, -1
	case i == 0:
		// Older than all that is known: it ended where the first one that is known starts.
		return epoch, p.epochs[0].Start
	case i == len(p.epochs):
		return p.epochs[i-1].Epoch, p.hw
	default:
		return p.epochs[i-1].Epoch, p.epochs[i].Start
	}
}

// EpochAt returns the leader epoch of the batch at an offset, or -1.
func (p *Partition) EpochAt(offset int64) int32 {
	p.mu.Lock()
	defer p.mu.Unlock()
	i := sort.Search(len(p.epochs), func(i int) bool { return p.epochs[i].Start > offset })
	if i == 0 {
		return -1
	}
	return p.epochs[i-1].Epoch
}

// Waiter is woken when one of the partitions it waits on has news: more readable records, or an end.
type Waiter struct{ C chan struct{} }

// NewWaiter returns a waiter; C receives at most one signal until it is drained.
func NewWaiter() *Waiter { return &Waiter{C: make(chan struct{}, 1)} }

func (w *Waiter) notify() {
	select {
	case w.C <- struct{}{}:
	default:
	}
}

// Wait registers w unless the high watermark is already beyond after; it reports whether w will be woken.
func (p *Partition) Wait(w *Waiter, after int64) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.hw > after || p.closed || p.log.Err() != nil {
		return false
	}
	p.waiters = append(p.waiters, w)
	return true
}

// Forget takes w off the partition's list.
func (p *Partition) Forget(w *Waiter) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range p.waiters {
		if p.waiters[i] == w {
			last := len(p.waiters) - 1
			p.waiters[i] = p.waiters[last]
			p.waiters[last] = nil
			p.waiters = p.waiters[:last]
			return
		}
	}
}
