package tiered

import (
	"cmp"
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/tierlog/tierlog/objstore"
	"github.com/tierlog/tierlog/tiered/logid"
	"github.com/tierlog/tierlog/tiered/manifest"
	"github.com/tierlog/tierlog/tiered/wal"
)

// flusher seals the hot segment and writes it to the bucket: several slots in flight, published in slot order.
type flusher struct {
	l       *Log
	limiter *rate.Limiter // nil: unlimited
	kick    chan struct{} // something changed that the run loop decides on

	mu       sync.Mutex
	dirty    []*Partition  // partitions with pending batches, each once
	pending  int64         // bytes of pending batches
	since    time.Time     // when the first pending batch came; zero if none
	flights  []*flight     // in slot order; the first is the oldest not yet published
	nextSlot logid.Slot    // the slot of the next flight
	forced   bool          // seal now, whatever the interval
	waiters  []drainWaiter // of drain
	ended    bool          // abandon was called: no flight starts any more

	pubMu sync.Mutex // serialises publishing; taken before Partition.mu
}

// drainWaiter is done when every slot below slot is published and nothing older is pending.
type drainWaiter struct {
	slot logid.Slot
	done chan error
}

// flight is one sealed segment on its way to the bucket.
type flight struct {
	slot     logid.Slot
	sections []flightSection
	object   wal.Object
	bytes    int64
	localEnd uint64 // local files below this number hold nothing newer than this slot
	finished bool
	err      error
	// abandoned says that the log ended while the flight was being written: its buffers go when the write returns.
	abandoned bool
}

// flightSection is one partition's part of a flight.
type flightSection struct {
	p       *Partition
	batches []pendingBatch
	pos     int64
	size    int64
	maxTs   int64
	crc     uint32
}

func newFlusher(l *Log, first logid.Slot) *flusher {
	f := &flusher{l: l, kick: make(chan struct{}, 1), nextSlot: first}
	if c := l.cfg.Flush; c.PutsPerSecond > 0 {
		f.limiter = rate.NewLimiter(rate.Limit(c.PutsPerSecond), c.Burst)
	}
	return f
}

func (f *flusher) wake() {
	select {
	case f.kick <- struct{}{}:
	default:
	}
}

// added accounts for a batch that p has just put into its pending list. The caller holds p.mu.
func (f *flusher) added(p *Partition, n int64) {
	f.mu.Lock()
	before := f.pending
	f.pending += n
	if !p.dirty {
		p.dirty = true
		f.dirty = append(f.dirty, p)
	}
	if before == 0 {
		f.since = f.l.cfg.Now()
	}
	limit := f.l.cfg.Flush.MaxBytes
	f.mu.Unlock()
	if before == 0 || before < limit && before+n >= limit {
		f.wake()
	}
}

// run decides when to seal, until the log ends.
func (f *flusher) run(ctx context.Context) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		now, wait := f.decide()
		if now {
			f.seal(ctx)
			continue
		}
		timer.Reset(wait)
		select {
		case <-f.kick:
		case <-timer.C:
		case <-ctx.Done():
			return
		}
	}
}

// decide reports whether to seal now, or else how long to wait unless something changes.
func (f *flusher) decide() (now bool, wait time.Duration) {
	const forever = time.Hour
	f.mu.Lock()
	defer f.mu.Unlock()
	c := &f.l.cfg.Flush
	if f.pending == 0 || len(f.flights) >= c.MaxInFlight || f.l.Err() != nil {
		return false, forever
	}
	t := f.l.cfg.Now()
	switch {
	case f.pending >= c.MaxBytes:
		if f.limiter != nil {
			f.limiter.AllowN(t, 1) // a full flush counts, but is never held back
		}
		return true, 0
	case f.forced:
		return true, 0
	case c.Interval == 0:
		return len(f.flights) == 0, forever
	}
	if due := f.since.Add(c.Interval).Sub(t); due > 0 {
		return false, due
	}
	if f.limiter != nil {
		r := f.limiter.ReserveN(t, 1)
		if d := r.DelayFrom(t); d > 0 {
			r.CancelAt(t)
			return false, d
		}
	}
	return true, 0
}

// seal takes what every dirty partition has pending and starts its write. The cut differs from one partition to the
// next by what arrives meanwhile; each partition's own order is kept, and that is all that readers can see.
func (f *flusher) seal(ctx context.Context) {
	fl := &flight{}
	if f.l.local != nil {
		fl.localEnd = f.l.local.rotate()
	}
	f.mu.Lock()
	dirty := f.dirty
	f.dirty, f.forced, f.since = nil, false, f.l.cfg.Now()
	fl.slot = f.nextSlot
	f.nextSlot++
	f.flights = append(f.flights, fl)
	f.mu.Unlock()

	slices.SortFunc(dirty, func(a, b *Partition) int {
		return cmp.Or(a.id.Topic.Compare(b.id.Topic), cmp.Compare(a.id.Index, b.id.Index))
	})
	b := wal.NewBuilder(wal.Header{
		Kind: wal.Data, Cluster: f.l.cfg.Cluster, Epoch: f.l.cfg.Epoch, Slot: fl.slot, Through: fl.slot, Nonce: rand.Uint64(),
	})
	var sections []flightSection
	for _, p := range dirty {
		batches, n := f.take(p)
		if len(batches) == 0 {
			continue
		}
		s := flightSection{p: p, batches: batches, pos: b.Pos(), maxTs: -1}
		b.Section(p.id.Topic, p.id.Index, p.leaderEpoch)
		for i := range batches {
			b.Batch(batches[i].batch)
			s.maxTs = max(s.maxTs, batches[i].batch.MaxTimestamp())
		}
		s.size, s.crc = b.Pos()-s.pos, b.SectionCRC()
		fl.bytes += n
		sections = append(sections, s)
	}
	if len(sections) == 0 {
		f.giveBack(fl)
		return
	}
	fl.object = b.Finish()
	f.mu.Lock()
	ended := f.ended
	if !ended {
		fl.sections = sections
	}
	f.mu.Unlock()
	if ended {
		for i := range sections {
			failBatches(sections[i].batches, f.l.Err())
		}
		return
	}
	f.l.cfg.Metrics.sealed(fl)
	f.l.tasks.Go(func() { f.finished(fl, f.put(ctx, fl)) })
}

// giveBack frees the slot of a flight that turned out empty; it is the newest one, since only run seals.
func (f *flusher) giveBack(fl *flight) {
	f.mu.Lock()
	f.nextSlot--
	f.flights = slices.DeleteFunc(f.flights, func(x *flight) bool { return x == fl })
	ready := f.drained(f.nextSlot)
	f.mu.Unlock()
	for _, d := range ready {
		d <- nil
	}
}

// take empties p's pending list and accounts for it.
func (f *flusher) take(p *Partition) ([]pendingBatch, int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	batches := p.pending
	p.pending = nil
	f.mu.Lock()
	defer f.mu.Unlock()
	n := int64(0)
	for i := range batches {
		n += int64(len(batches[i].batch))
	}
	f.pending -= n
	p.dirty = false
	return batches, n
}

// put writes the flight until the bucket holds it, the slot is lost, or the log ends. The body and the key stay the
// same, so that a lost reply is recognised as a success.
func (f *flusher) put(ctx context.Context, fl *flight) error {
	key := manifest.Key{Kind: manifest.KeyWAL, Cluster: f.l.cfg.Cluster, Epoch: f.l.cfg.Epoch, Slot: fl.slot}.String()
	body := objstore.Bytes(fl.object.Parts...).WithCRC32C(fl.object.CRC)
	ctx = objstore.WithPurpose(ctx, objstore.PurposeWAL)
	started := f.l.cfg.Now()
	err := f.l.putSlot(ctx, key, body)
	if err != nil && ctx.Err() != nil {
		err = ErrClosed
	}
	f.l.cfg.Metrics.flushed(f.l.cfg.Now().Sub(started), err)
	return err
}

// finished notes the outcome of a flight and publishes what is durable without a gap.
func (f *flusher) finished(fl *flight, err error) {
	f.pubMu.Lock()
	defer f.pubMu.Unlock()
	f.mu.Lock()
	fl.finished, fl.err = true, err
	abandoned := fl.abandoned
	f.mu.Unlock()
	if abandoned {
		fl.release()
		return
	}
	for {
		f.mu.Lock()
		if len(f.flights) == 0 || !f.flights[0].finished {
			f.mu.Unlock()
			break
		}
		head := f.flights[0]
		f.mu.Unlock()
		if head.err != nil {
			f.abandon(head.err)
			return
		}
		f.l.publish(head)
		f.mu.Lock()
		f.flights = f.flights[1:]
		ready := f.drained(head.slot)
		f.mu.Unlock()
		for _, d := range ready {
			d <- nil
		}
	}
	f.wake()
}

// drained takes the drain waiters that the publication of slot satisfies off the list. Callers hold f.mu.
func (f *flusher) drained(slot logid.Slot) []chan error {
	var ready []chan error
	f.waiters = slices.DeleteFunc(f.waiters, func(w drainWaiter) bool {
		if w.slot > slot+1 && (len(f.flights) > 0 || f.pending > 0) {
			return false
		}
		ready = append(ready, w.done)
		return true
	})
	return ready
}

// end abandons the log because of something that was found outside of a flush.
func (f *flusher) end(err error) {
	f.pubMu.Lock()
	defer f.pubMu.Unlock()
	f.abandon(err)
}

// abandon fails everything that is not published: the log is over. Callers hold pubMu. A flight that is still being
// sealed has no sections yet; seal fails them itself.
func (f *flusher) abandon(err error) {
	f.l.fail(err)
	f.mu.Lock()
	f.ended = true
	flights, waiters := f.flights, f.waiters
	f.flights, f.waiters = nil, nil
	for _, fl := range flights {
		fl.abandoned = !fl.finished
	}
	f.mu.Unlock()
	for _, fl := range flights {
		for i := range fl.sections {
			failCommits(fl.sections[i].batches, err)
		}
		if !fl.abandoned {
			fl.release()
		}
	}
	f.failPending(err)
	for _, p := range f.l.Partitions() {
		p.mu.Lock()
		dups := p.dupWaiters
		p.dupWaiters = nil
		p.mu.Unlock()
		for _, d := range dups {
			d.commit.finish(err)
		}
	}
	for _, w := range waiters {
		w.done <- err
	}
}

func failBatches(batches []pendingBatch, err error) {
	failCommits(batches, err)
	releaseBatches(batches)
}

func failCommits(batches []pendingBatch, err error) {
	for i := range batches {
		if c := batches[i].commit; c != nil {
			c.finish(err)
		}
	}
}

func releaseBatches(batches []pendingBatch) {
	for i := range batches {
		batches[i].buf.Release()
	}
}

// release gives back the buffers of a flight that will not be published.
func (fl *flight) release() {
	for i := range fl.sections {
		releaseBatches(fl.sections[i].batches)
	}
}

// drain seals what is pending and waits until it is durable.
func (f *flusher) drain(ctx context.Context) error {
	f.mu.Lock()
	if err := f.l.Err(); err != nil {
		f.mu.Unlock()
		return err
	}
	last := f.nextSlot
	if f.pending > 0 {
		f.forced = true
		last++
	}
	if len(f.flights) == 0 && f.pending == 0 {
		f.mu.Unlock()
		return nil
	}
	w := drainWaiter{slot: last, done: make(chan error, 1)}
	f.waiters = append(f.waiters, w)
	f.mu.Unlock()
	f.wake()
	select {
	case err := <-w.done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// stop makes later appends fail, and those that came after the last flush; it returns how many batches these were.
func (f *flusher) stop() (late int) {
	for _, p := range f.l.Partitions() {
		p.close()
	}
	f.pubMu.Lock()
	defer f.pubMu.Unlock()
	return f.failPending(ErrClosed)
}

// failPending fails the batches that are in no flight. Those of partitions that were closed are found as dirty only.
func (f *flusher) failPending(err error) (n int) {
	f.mu.Lock()
	parts := f.dirty
	f.dirty = nil
	f.mu.Unlock()
	for _, p := range append(parts, f.l.Partitions()...) {
		batches, _ := f.take(p)
		failBatches(batches, err)
		n += len(batches)
	}
	return n
}
