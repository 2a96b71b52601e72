package bench

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

const (
	// blockBytes and blockRecords bound one block of records.
	blockBytes   = 64 << 10
	blockRecords = 256
	// producerBytes bounds what one producer has under way; Java's buffer.memory is the same.
	producerBytes = 32 << 20
	maxBlocks     = 256
	minBlocks     = 8
	// sampleEvery says which records have their latency taken where there is no rate.
	sampleEvery = 16
	// endGrace is how long an interrupted run waits for answers.
	endGrace = 5 * time.Second
)

// slot is a record that is used again and again.
type slot struct {
	record  kgo.Record
	promise func(*kgo.Record, error)
	at      time.Duration // when it was due or sent, since the start; -1: its latency is not taken
	block   *block
}

// block is the unit in which slots come back: all of it at once.
type block struct {
	slots   []slot
	pending atomic.Int64
}

// producer is one client and its records. The sending goroutine owns the slots until it gives them to the client,
// the client's callbacks after that.
type producer struct {
	load   Load
	client *kgo.Client
	index  int
	now    func() time.Duration // since the start
	free   chan *block
	value  func(s *slot, n int64) // sets the record's value before it is sent

	acked, failed atomic.Int64
	mu            sync.Mutex // guards what follows
	hist          Histogram
	firstErr      error
}

func newProducer(load Load, client *kgo.Client, index int, now func() time.Duration) *producer {
	p := &producer{load: load, client: client, index: index, now: now}
	p.value = func(s *slot, n int64) { s.record.Value = load.Payload.at(n, load.RecordSize) }
	perBlock := min(blockRecords, max(1, blockBytes/max(1, load.RecordSize)))
	blocks := min(maxBlocks, max(minBlocks, producerBytes/(perBlock*max(1, load.RecordSize))))
	p.free = make(chan *block, blocks)
	for range blocks {
		b := &block{slots: make([]slot, perBlock)}
		for i := range b.slots {
			s := &b.slots[i]
			s.block = b
			s.record.Topic = load.Topic
			s.promise = func(_ *kgo.Record, err error) { p.done(s, err) }
		}
		p.free <- b
	}
	return p
}

// done is called once for every record that was given to the client.
func (p *producer) done(s *slot, err error) {
	switch {
	case err != nil:
		p.failed.Add(1)
		p.mu.Lock()
		if p.firstErr == nil {
			p.firstErr = err
		}
		p.mu.Unlock()
	case s.at >= 0:
		took := p.now() - s.at
		p.acked.Add(1)
		p.mu.Lock()
		p.hist.Record(took)
		p.mu.Unlock()
	default:
		p.acked.Add(1)
	}
	if s.block.pending.Add(-1) == 0 {
		p.free <- s.block
	}
}

// run sends until the load is done, ctx ends, or a record fails. sendCtx is what the records live under.
func (p *producer) run(ctx, sendCtx context.Context) {
	share := p.share()
	var pace pacer
	if p.load.Rate > 0 {
		pace = newPacer(p.load.Rate, p.index, p.load.Producers, p.now)
	}
	for n := int64(0); n < share; {
		var b *block
		select {
		case b = <-p.free:
		case <-ctx.Done():
			return
		}
		b.pending.Store(int64(len(b.slots)))
		stamp := p.load.Now()
		for i := range b.slots {
			s := &b.slots[i]
			s.at = -1
			switch {
			case p.load.Rate > 0:
				s.at = pace.due(n)
				if p.load.Duration > 0 && s.at >= p.load.Duration || pace.wait(ctx, s.at) != nil {
					return
				}
				stamp = p.load.Now()
			case i%sampleEvery == 0:
				s.at = p.now()
				if p.load.Duration > 0 && s.at >= p.load.Duration {
					return
				}
			}
			p.value(s, n)
			s.record.Timestamp = stamp
			p.client.Produce(sendCtx, &s.record, s.promise)
			if n++; n == share {
				return
			}
		}
		if p.failed.Load() > 0 || ctx.Err() != nil {
			return
		}
	}
}

// share returns how many records this producer sends.
func (p *producer) share() int64 {
	if p.load.Records == 0 {
		return 1<<63 - 1
	}
	share := p.load.Records / int64(p.load.Producers)
	if int64(p.index) < p.load.Records%int64(p.load.Producers) {
		share++
	}
	return share
}

// Produce runs the load. The report is valid also with an error, which says why the run did not do all it should.
func Produce(ctx context.Context, dial Dial, load Load) (Report, error) {
	if err := load.Validate(); err != nil {
		return Report{}, err
	}
	net := &wire{}
	report := Report{
		Command: "produce", Topic: load.Topic, Partitions: load.Partitions, Clients: load.Producers, RatePerSecond: load.Rate,
	}
	var producers []*producer
	defer func() {
		for _, p := range producers {
			p.client.Close()
		}
	}()
	var start time.Time
	now := func() time.Duration { return load.Now().Sub(start) }
	for i := range load.Producers {
		cl, err := dial(ctx, append(append([]kgo.Opt{kgo.WithHooks(net)}, producerOptions(load)...), load.Options...)...)
		if err != nil {
			return report, err
		}
		producers = append(producers, newProducer(load, cl, i, now))
		if err := cl.EnsureProduceConnectionIsOpen(ctx); err != nil {
			return report, err
		}
	}
	sent, cpu := net.bytes.Load(), cpuTime()
	start = load.Now()
	err := runProducers(ctx, load, producers)
	took := now()
	hist := &Histogram{}
	for _, p := range producers {
		p.collect(&report, hist, &err)
	}
	report.Bytes = report.Records * int64(load.RecordSize)
	report.WireBytes = net.bytes.Load() - sent
	report.Ack = hist.Latency(ackFrom(load))
	report.finish(took, cpuTime()-cpu)
	return report, err
}

func ackFrom(load Load) string {
	if load.Rate > 0 {
		return "the time each record was due"
	}
	return fmt.Sprintf("the call to the client, of every %dth record", sampleEvery)
}

// collect adds what a producer has done. The client must be done with its records.
func (p *producer) collect(r *Report, hist *Histogram, err *error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	r.Records += p.acked.Load()
	r.Failed += p.failed.Load()
	hist.Merge(&p.hist)
	if *err == nil && p.firstErr != nil {
		*err = fmt.Errorf("a record failed: %w", p.firstErr)
	}
}

// runProducers returns when all is sent and answered. The error is the cause of ctx's end, if it ended.
func runProducers(ctx context.Context, load Load, producers []*producer) error {
	stopWatch := load.Watch.start(func() (records, bytes int64) {
		for _, p := range producers {
			records += p.acked.Load()
		}
		return records, records * int64(load.RecordSize)
	})
	defer stopWatch()
	sendCtx, abort := context.WithCancel(context.WithoutCancel(ctx))
	defer abort()
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(endGrace, abort) })
	defer stop()
	var all sync.WaitGroup
	for _, p := range producers {
		all.Go(func() {
			p.run(ctx, sendCtx)
			if err := p.client.Flush(sendCtx); err != nil && ctx.Err() == nil {
				p.mu.Lock()
				p.firstErr = errors.Join(p.firstErr, err)
				p.mu.Unlock()
			}
		})
	}
	all.Wait()
	return context.Cause(ctx)
}

// producerOptions are what every producer of a load needs.
func producerOptions(load Load) []kgo.Opt {
	return []kgo.Opt{
		kgo.MaxBufferedRecords(1 << 30), // The blocks are the bound.
		kgo.MaxBufferedBytes(max(2*producerBytes, 4*load.RecordSize)),
		kgo.AllowIdempotentProduceCancellation(), // A run that is over does not care.
	}
}
