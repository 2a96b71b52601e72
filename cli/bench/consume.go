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

// Span is the part of a partition to read: from From up to, without, To.
type Span struct{ From, To int64 }

// Reading says what is read.
type Reading struct {
	Topic     string
	Spans     map[int32]Span
	Consumers int
	Records   int64         // end after about as many; 0: no limit
	Duration  time.Duration // 0: no limit
	Options   []kgo.Opt
	Now       func() time.Time
}

// Validate names what is wrong with a reading.
func (r Reading) Validate() error {
	switch {
	case r.Topic == "":
		return errors.New("topic is empty")
	case r.Consumers < 1 || r.Consumers > 1024:
		return fmt.Errorf("consumers %d: want 1 to 1024", r.Consumers)
	case r.Records < 0:
		return fmt.Errorf("records %d: want 1 or more, or 0 for no limit", r.Records)
	case r.Duration < 0:
		return fmt.Errorf("duration %s: want more than 0, or 0 for no limit", r.Duration)
	}
	return nil
}

// Consume reads the spans. Partitions are shared out among the consumers.
func Consume(ctx context.Context, dial Dial, r Reading) (Report, error) {
	report := Report{Command: "consume", Topic: r.Topic, Partitions: len(r.Spans), Clients: r.Consumers}
	if err := r.Validate(); err != nil {
		return report, err
	}
	net := &wire{}
	shares := make([]map[int32]Span, r.Consumers)
	i := 0
	for p, s := range r.Spans {
		if s.From >= s.To {
			continue
		}
		if shares[i%r.Consumers] == nil {
			shares[i%r.Consumers] = map[int32]Span{}
		}
		shares[i%r.Consumers][p] = s
		i++
	}
	var clients []*kgo.Client
	defer func() {
		for _, cl := range clients {
			cl.Close()
		}
	}()
	for range min(i, r.Consumers) {
		cl, err := dial(ctx, append([]kgo.Opt{kgo.WithHooks(net), kgo.KeepControlRecords()}, r.Options...)...)
		if err != nil {
			return report, err
		}
		clients = append(clients, cl)
	}
	before, cpu, start := net.bytes.Load(), cpuTime(), r.Now()
	records, bytes, err := readAll(ctx, r, clients, shares)
	report.Records, report.Bytes = records, bytes
	report.WireBytes = net.bytes.Load() - before
	report.finish(r.Now().Sub(start), cpuTime()-cpu)
	return report, err
}

// readAll runs one goroutine a client until all spans are read or a limit is met.
func readAll(ctx context.Context, r Reading, clients []*kgo.Client, shares []map[int32]Span) (records, bytes int64, err error) {
	runCtx, stop := context.WithCancel(ctx)
	defer stop()
	if r.Duration > 0 {
		runCtx, stop = context.WithTimeout(runCtx, r.Duration)
		defer stop()
	}
	var all sync.WaitGroup
	var nr, nb atomic.Int64
	errs := make([]error, len(clients))
	for i, cl := range clients {
		all.Go(func() {
			errs[i] = read(runCtx, cl, r.Topic, shares[i], func(n, b int64) {
				nb.Add(b)
				if total := nr.Add(n); r.Records > 0 && total >= r.Records {
					stop()
				}
			})
		})
	}
	all.Wait()
	return nr.Load(), nb.Load(), errors.Join(append(errs, context.Cause(ctx))...)
}

// read reads the spans until they are done or ctx ends, and reports what it got.
func read(ctx context.Context, cl *kgo.Client, topic string, spans map[int32]Span, got func(records, bytes int64)) error {
	offsets := map[int32]kgo.Offset{}
	left := map[int32]int64{} // where each partition ends
	for p, s := range spans {
		offsets[p] = kgo.NewOffset().At(s.From)
		left[p] = s.To
	}
	cl.AddConsumePartitions(map[string]map[int32]kgo.Offset{topic: offsets})
	for len(left) > 0 && ctx.Err() == nil {
		fetches := cl.PollFetches(ctx)
		if ctx.Err() != nil {
			return nil
		}
		for _, e := range fetches.Errors() {
			return fmt.Errorf("topic %s partition %d: %w", e.Topic, e.Partition, e.Err)
		}
		var records, bytes int64
		fetches.EachPartition(func(p kgo.FetchTopicPartition) {
			for _, r := range p.Records {
				bytes += int64(len(r.Key) + len(r.Value))
			}
			records += int64(len(p.Records))
			if n := len(p.Records); n > 0 && p.Records[n-1].Offset+1 >= left[p.Partition] {
				delete(left, p.Partition)
			}
		})
		got(records, bytes)
	}
	return nil
}
