package broker

import (
	"context"
	"errors"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tierlog/tierlog/tiered"
	"github.com/tierlog/tierlog/tiered/logid"
	"github.com/tierlog/tierlog/wire"
)

// Fetch (key 1), versions 4 to 18: KIP-98 (isolation), KIP-107 (log start), KIP-227 (sessions: answered as
// sessionless, session id 0), KIP-320 (leader epochs), KIP-392 (no read replicas), KIP-516 (topic ids, from 13),
// KIP-595 (diverging epochs). The response is encoded by fetchresponse.go around the stored bytes.

// fetch answers at once if there is enough to read, and else waits off the connection's goroutine for the partitions
// to have news or the time to be up.
func (b *Broker) fetch(ctx context.Context, req *wire.Request, reply *wire.Reply) error {
	msg, err := parse(req, kmsg.NewPtrFetchRequest())
	if err != nil {
		return err
	}
	f := &fetching{b: b, req: msg, version: req.Version}
	if msg.SessionID != 0 {
		// No session was ever given out: the client starts anew, sessionless (KIP-227).
		f.sendError(reply, kerr.FetchSessionIDNotFound)
		return nil
	}
	f.resolve()
	wait := time.Duration(msg.MaxWaitMillis) * time.Millisecond
	f.read(ctx)
	if f.enough() || wait <= 0 {
		f.send(reply)
		return nil
	}
	reply.Pipeline()
	go func() {
		f.wait(ctx, wait)
		f.send(reply)
	}()
	return nil
}

// fetching is one fetch request on its way.
type fetching struct {
	b       *Broker
	req     *kmsg.FetchRequest
	version int16
	parts   []fetchPartition
	bytes   int
	failed  bool
	charged int64
}

// fetchPartition is the state of one asked partition.
type fetchPartition struct {
	req     *kmsg.FetchRequestTopicPartition
	part    *tiered.Partition // nil if it cannot be read; then err says why
	err     error
	offsets tiered.Offsets
	data    tiered.Slices
	// diverging is set if the client's last fetched epoch shows that it read another history (KIP-595).
	divergingEpoch int32
	divergingEnd   int64
}

// resolve finds the partitions and checks leader epochs.
func (f *fetching) resolve() {
	n := 0
	for i := range f.req.Topics {
		n += len(f.req.Topics[i].Partitions)
	}
	f.parts = make([]fetchPartition, 0, n)
	for i := range f.req.Topics {
		rt := &f.req.Topics[i]
		var t *topic
		missing := error(kerr.UnknownTopicOrPartition)
		if f.version >= 13 {
			t, missing = f.b.reg.byID(logid.TopicID(rt.TopicID)), kerr.UnknownTopicID
		} else {
			t = f.b.reg.byName(rt.Topic)
		}
		for j := range rt.Partitions {
			fp := fetchPartition{req: &rt.Partitions[j], divergingEpoch: -1}
			fp.offsets = tiered.Offsets{LogStart: -1, HighWatermark: -1, LastStable: -1}
			if t == nil {
				fp.err = missing
			} else if fp.part = t.partition(fp.req.Partition); fp.part == nil {
				fp.err = kerr.UnknownTopicOrPartition
			} else {
				fp.err = f.b.checkLeaderEpoch(fp.part, fp.req.CurrentLeaderEpoch)
			}
			f.parts = append(f.parts, fp)
		}
	}
}

// checkLeaderEpoch compares the epoch that a client believes in with the partition's (KIP-320); -1 asks for no check.
func (b *Broker) checkLeaderEpoch(p *tiered.Partition, epoch int32) error {
	switch {
	case !b.cfg.Serving():
		return kerr.NotLeaderForPartition
	case epoch < 0 || epoch == p.LeaderEpoch():
		return nil
	case epoch < p.LeaderEpoch():
		return kerr.FencedLeaderEpoch
	default:
		return kerr.UnknownLeaderEpoch
	}
}

// read collects what can be read now, within the request's bounds. The first partition with data may exceed them by
// one batch, so that a client always gets on (KIP-74).
func (f *fetching) read(ctx context.Context) {
	f.release()
	left := f.reserve(ctx)
	f.failed = false
	defer f.settle()
	for i := range f.parts {
		fp := &f.parts[i]
		if fp.part != nil && fp.err == nil && !f.b.cfg.Serving() {
			fp.err = kerr.NotLeaderForPartition // the lease lapsed while the request waited
			fp.offsets = tiered.Offsets{LogStart: -1, HighWatermark: -1, LastStable: -1}
		}
		if fp.part == nil || fp.err != nil {
			f.failed = f.failed || fp.err != nil
			continue
		}
		if f.diverges(fp) {
			f.failed = true
			continue
		}
		r := tiered.ReadRequest{
			Offset: fp.req.FetchOffset, MaxBytes: min(left, int(fp.req.PartitionMaxBytes)), OneMore: f.bytes == 0 && left > 0,
		}
		fp.offsets, fp.err = fp.part.Read(ctx, r, &fp.data)
		fp.err = stored(fp.err)
		if fp.err != nil {
			f.failed = true
			if !errors.Is(fp.err, tiered.ErrOutOfRange) {
				fp.offsets = tiered.Offsets{LogStart: -1, HighWatermark: -1, LastStable: -1}
			}
		}
		left -= fp.data.Size
		f.bytes += fp.data.Size
	}
}

// diverges checks the epoch of the last record that the client has (from version 12 on).
func (f *fetching) diverges(fp *fetchPartition) bool {
	if f.version < 12 || fp.req.LastFetchedEpoch < 0 {
		return false
	}
	epoch, end := fp.part.EpochEnd(fp.req.LastFetchedEpoch)
	if epoch < 0 || epoch == fp.req.LastFetchedEpoch && end >= fp.req.FetchOffset {
		return false
	}
	fp.divergingEpoch, fp.divergingEnd = epoch, end
	fp.offsets = fp.part.Offsets()
	return true
}

// enough tells whether the answer need not wait.
func (f *fetching) enough() bool {
	return f.failed || len(f.parts) == 0 || f.bytes >= int(f.req.MinBytes)
}

// wait reads again whenever one of the partitions has news, until there is enough or the time is up.
func (f *fetching) wait(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	w := tiered.NewWaiter()
	for {
		registered := f.register(w)
		if registered {
			select {
			case <-w.C:
			case <-timer.C:
				f.forget(w)
				return
			case <-ctx.Done():
				f.forget(w)
				return
			case <-f.b.ctx.Done():
				f.forget(w)
				return
			}
			f.forget(w)
		}
		f.read(ctx)
		if f.enough() {
			return
		}
	}
}

// register has w woken by any of the partitions; false if one has news already.
func (f *fetching) register(w *tiered.Waiter) bool {
	for i := range f.parts {
		fp := &f.parts[i]
		if fp.part != nil && !fp.part.Wait(w, fp.offsets.HighWatermark) {
			f.forget(w)
			return false
		}
	}
	return true
}

func (f *fetching) forget(w *tiered.Waiter) {
	for i := range f.parts {
		if p := f.parts[i].part; p != nil {
			p.Forget(w)
		}
	}
}

// reserve takes what the response may hold from the budget of responses, waiting for its turn, and returns it.
func (f *fetching) reserve(ctx context.Context) int {
	want := int64(0)
	for i := range f.parts {
		want += int64(max(f.parts[i].req.PartitionMaxBytes, 1))
	}
	want = min(want, int64(f.req.MaxBytes), int64(f.b.settings.Load().FetchMaxBytes))
	if want <= 0 || f.b.cfg.Responses.Acquire(ctx, want) != nil {
		return 0
	}
	f.charged = want
	return int(want)
}

// settle gives back what was reserved and not used. A batch larger than the reservation is not charged for the rest.
func (f *fetching) settle() {
	if spare := f.charged - int64(f.bytes); spare > 0 {
		f.b.cfg.Responses.Release(spare)
		f.charged -= spare
	}
}

// release gives back what was read.
func (f *fetching) release() {
	for i := range f.parts {
		f.parts[i].data.Release()
	}
	f.bytes = 0
	if f.charged > 0 {
		f.b.cfg.Responses.Release(f.charged)
		f.charged = 0
	}
}
