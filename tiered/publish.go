package tiered

import (
	"context"
	"fmt"
	"sort"
	"time"

	"github.com/tierlog/tierlog/membuf"
	"github.com/tierlog/tierlog/objstore"
	"github.com/tierlog/tierlog/record"
	"github.com/tierlog/tierlog/tiered/manifest"
)

// extent is a run of one partition's records in one bucket object: a section of it. The records between base and
// last may have gaps. While the batches are also in memory, tail holds them.
type extent struct {
	base, last int64 // offsets
	maxTs      int64 // ms
	obj        *object
	pos, size  int64 // bytes of the object
	epoch      int32 // leader epoch
	crc        uint32
	tail       []tailBatch
}

// tailBatch is a durable batch in memory; it holds a reference to buf.
type tailBatch struct {
	batch record.Batch
	buf   *membuf.Buf
}

// publish makes a durable flight readable: extents, high watermarks, wake-ups, then the commits. Callers hold pubMu,
// so flights are published in slot order.
func (l *Log) publish(fl *flight) {
	obj := l.newObject(manifest.Object{
		Kind: manifest.ObjectWAL, From: fl.slot, To: fl.slot, Size: fl.object.Size, FooterSize: fl.object.FooterSize,
		MinTimestamp: -1, MaxTimestamp: -1,
	})
	for i := range fl.sections {
		s := &fl.sections[i]
		e := extent{
			base: s.batches[0].batch.BaseOffset(), last: s.batches[len(s.batches)-1].batch.LastOffset(), maxTs: s.maxTs,
			obj: obj, pos: s.pos, size: s.size, epoch: s.p.leaderEpoch, crc: s.crc, tail: make([]tailBatch, len(s.batches)),
		}
		for j := range s.batches {
			b := &s.batches[j]
			e.tail[j] = tailBatch{batch: b.batch, buf: b.buf}
			obj.records += int64(b.batch.NumRecords())
		}
		obj.noteTime(s.maxTs)
		s.p.publish(e)
	}
	l.appendObject(obj)
	for i := range fl.sections {
		for j := range fl.sections[i].batches {
			if c := fl.sections[i].batches[j].commit; c != nil {
				c.finish(nil)
			}
		}
	}
	if l.local != nil {
		l.local.durable(fl.localEnd)
	}
	l.tailed(fl)
	l.maint.sealed(fl)
}

// publish appends a durable extent and moves the high watermark.
func (p *Partition) publish(e extent) {
	p.mu.Lock()
	p.extents = append(p.extents, e)
	p.bytes += e.size
	p.hw = e.last + 1
	ws := p.waiters
	p.waiters = nil
	var done []*Commit
	for i := 0; i < len(p.dupWaiters); i++ {
		if p.dupWaiters[i].last < p.hw {
			done = append(done, p.dupWaiters[i].commit)
			p.dupWaiters = append(p.dupWaiters[:i], p.dupWaiters[i+1:]...)
			i--
		}
	}
	p.mu.Unlock()
	for _, w := range ws {
		w.notify()
	}
	for _, c := range done {
		c.finish(nil)
	}
}

// tailed notes that a published flight is in memory and evicts the oldest ones over the bound. It is called with
// pubMu held, which owns l.flush's tail list.
func (l *Log) tailed(fl *flight) {
	t := &l.tail
	held := tailFlight{bytes: fl.bytes, parts: make([]tailPart, len(fl.sections))}
	for i := range fl.sections {
		held.parts[i] = tailPart{p: fl.sections[i].p, base: fl.sections[i].batches[0].batch.BaseOffset()}
	}
	t.flights = append(t.flights, held)
	t.bytes += fl.bytes
	for len(t.flights) > 0 && (t.bytes > l.cfg.TailBytes || l.cfg.Ingest.Used() > l.cfg.Ingest.Limit()/4*3) {
		old := t.flights[0]
		t.flights = t.flights[1:]
		t.bytes -= old.bytes
		for _, part := range old.parts {
			part.p.evict(part.base)
		}
	}
	l.cfg.Metrics.tail(t.bytes)
}

// tailMemory is what is durable and still in memory, oldest first. It belongs to flusher.pubMu.
type tailMemory struct {
	flights []tailFlight
	bytes   int64
}

type tailFlight struct {
	parts []tailPart
	bytes int64
}

type tailPart struct {
	p    *Partition
	base int64
}

// evict drops the in-memory batches of the extent that starts at base; it may be gone already.
func (p *Partition) evict(base int64) {
	p.mu.Lock()
	var tail []tailBatch
	if i := p.find(base); i < len(p.extents) {
		tail = p.extents[i].tail
		p.extents[i].tail = nil
	}
	p.mu.Unlock()
	releaseTail(tail)
}

func releaseTail(tail []tailBatch) {
	for i := range tail {
		tail[i].buf.Release()
	}
}

// find returns the index of the first extent whose last offset is at least o. Callers hold p.mu.
func (p *Partition) find(o int64) int {
	return sort.Search(len(p.extents), func(i int) bool { return p.extents[i].last >= o })
}

// Waits between tries of a write whose outcome is open.
const (
	firstBackoff = 20 * time.Millisecond
	maxBackoff   = 2 * time.Second
)

// putSlot creates key with body and keeps trying until the bucket says whose it is. It returns nil when it is ours,
// ErrFenced when another's, and ctx's error.
func (l *Log) putSlot(ctx context.Context, key string, body objstore.Payload) error {
	out, _, err := l.write(ctx, key, "", body)
	if err == nil && out == objstore.Other {
		err = fmt.Errorf("%w: slot %s is taken", ErrFenced, key)
	}
	return err
}

// pause waits for d or until ctx is done.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
