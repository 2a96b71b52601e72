package bench

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

const (
	// MinLatencySize is the least size of a value that carries its time: the run's number and when the record was due.
	MinLatencySize = 16
	// lastRecords is how long the consumer waits for records that were acknowledged.
	lastRecords = 10 * time.Second
	pollWait    = 100 * time.Millisecond
)

// Roundtrip produces at a rate and reads what it produced, and reports the time until each record was acknowledged
// and until it was read, both from when it was due.
func Roundtrip(ctx context.Context, dial Dial, load Load, ends map[int32]int64) (Report, error) {
	load.RecordSize = max(load.RecordSize, MinLatencySize)
	report := Report{
		Command: "latency", Topic: load.Topic, Partitions: load.Partitions, Clients: load.Producers, RatePerSecond: load.Rate,
	}
	if err := load.Validate(); err != nil {
		return report, err
	}
	if load.Rate == 0 {
		return report, errors.New("rate 0: latency is measured at a rate")
	}
	var start time.Time
	now := func() time.Duration { return load.Now().Sub(start) }
	net := &wire{}
	reader, err := dial(ctx, kgo.WithHooks(net), kgo.FetchMaxWait(time.Second))
	if err != nil {
		return report, err
	}
	defer reader.Close()
	var producers []*producer
	for i := range load.Producers {
		cl, err := dial(ctx, append(append([]kgo.Opt{kgo.WithHooks(net)}, producerOptions(load)...), load.Options...)...)
		if err != nil {
			return report, err
		}
		defer cl.Close()
		if err := cl.EnsureProduceConnectionIsOpen(ctx); err != nil {
			return report, err
		}
		producers = append(producers, newProducer(load, cl, i, now))
	}
	cpu := cpuTime()
	start = load.Now()
	run := uint64(start.UnixNano()) // Tells this run's records from others'.
	for _, p := range producers {
		p.value = stamp(load, run)
	}
	seen := &receiver{client: reader, run: run, now: now}
	seen.wanted.Store(-1)
	readCtx, stopReading := context.WithCancel(context.WithoutCancel(ctx))
	defer stopReading()
	done := make(chan error, 1)
	go func() { done <- seen.read(readCtx, load.Topic, ends) }()

	err = runProducers(ctx, load, producers)
	took := now()
	hist := &Histogram{}
	for _, p := range producers {
		p.collect(&report, hist, &err)
	}
	seen.wanted.Store(report.Records)
	time.AfterFunc(lastRecords, stopReading)
	err = errors.Join(err, <-done)
	report.Bytes = report.Records * int64(load.RecordSize)
	report.WireBytes = net.bytes.Load()
	report.Ack = hist.Latency(ackFrom(load))
	report.EndToEnd = seen.hist.Latency(ackFrom(load))
	report.finish(took, cpuTime()-cpu)
	return report, err
}

// stamp gives every slot a value of its own and writes into it which run it is of and when it was due.
func stamp(load Load, run uint64) func(s *slot, n int64) {
	return func(s *slot, n int64) {
		if len(s.record.Value) != load.RecordSize {
			s.record.Value = append([]byte(nil), load.Payload.at(n, load.RecordSize)...)
		}
		binary.BigEndian.PutUint64(s.record.Value, run)
		binary.BigEndian.PutUint64(s.record.Value[8:], uint64(s.at))
	}
}

// receiver reads the records of a run. One goroutine calls read; hist is complete when it has returned.
type receiver struct {
	client *kgo.Client
	run    uint64
	now    func() time.Duration
	wanted atomic.Int64 // records to wait for; -1 while they are still produced
	hist   Histogram
}

// read reads from the given offsets until it has seen all that are wanted, or ctx ends.
func (r *receiver) read(ctx context.Context, topic string, from map[int32]int64) error {
	offsets := map[int32]kgo.Offset{}
	for p, o := range from {
		offsets[p] = kgo.NewOffset().At(o)
	}
	r.client.AddConsumePartitions(map[string]map[int32]kgo.Offset{topic: offsets})
	for {
		if want := r.wanted.Load(); want >= 0 && r.hist.Count() >= want {
			return nil
		}
		if ctx.Err() != nil {
			return fmt.Errorf("%d of %d acknowledged records were not read within %s", r.wanted.Load()-r.hist.Count(), r.wanted.Load(), lastRecords)
		}
		fetches := r.poll(ctx)
		now := r.now()
		for _, e := range fetches.Errors() {
			if !errors.Is(e.Err, context.DeadlineExceeded) && !errors.Is(e.Err, context.Canceled) {
				return fmt.Errorf("topic %s partition %d: %w", e.Topic, e.Partition, e.Err)
			}
		}
		fetches.EachRecord(func(rec *kgo.Record) {
			if len(rec.Value) >= MinLatencySize && binary.BigEndian.Uint64(rec.Value) == r.run {
				r.hist.Record(now - time.Duration(binary.BigEndian.Uint64(rec.Value[8:])))
			}
		})
	}
}

// poll waits for records, but returns often enough to notice that all are there.
func (r *receiver) poll(ctx context.Context) kgo.Fetches {
	ctx, cancel := context.WithTimeout(ctx, pollWait)
	defer cancel()
	return r.client.PollFetches(ctx)
}
