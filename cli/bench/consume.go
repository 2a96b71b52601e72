package bench

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
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
	// PartitionBytes and FetchBytes bound one answer.
	PartitionBytes, FetchBytes int32
	CheckCRCs                  bool
	// Raw looks at the headers of batches only. The bytes reported are those of whole batches then.
	Raw bool
	// Leaders holds the address of each partition's leader, for Raw.
	Leaders map[int32]string
	Now     func() time.Time
	// Watch, if set, is called as Load's is.
	Watch Watch
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
	case r.PartitionBytes < 1:
		return fmt.Errorf("partition-bytes %d: want at least 1", r.PartitionBytes)
	case r.FetchBytes < 1:
		return fmt.Errorf("fetch-bytes %d: want at least 1", r.FetchBytes)
	}
	return nil
}

// Consume reads the spans. Partitions are shared out among the consumers.
func Consume(ctx context.Context, dial Dial, r Reading) (Report, error) {
	report := Report{Command: "consume", Topic: r.Topic, Partitions: len(r.Spans)}
	if err := r.Validate(); err != nil {
		return report, err
	}
	runCtx, stop := context.WithCancel(ctx)
	defer stop()
	if r.Duration > 0 {
		runCtx, stop = context.WithTimeout(runCtx, r.Duration)
		defer stop()
	}
	var records, bytes atomic.Int64
	net := &wire{}
	got := func(n, b, w int64) {
		bytes.Add(b)
		net.bytes.Add(w)
		if total := records.Add(n); r.Records > 0 && total >= r.Records {
			stop()
		}
	}
	prepare := func() (int, func() error, error) { return consumeDecoded(runCtx, dial, r, net, got) }
	if r.Raw {
		prepare = func() (int, func() error, error) { return consumeRaw(runCtx, r, share(r), got) }
	}
	clients, run, err := prepare()
	report.Clients = clients
	if err != nil {
		return report, err
	}
	before, cpu, start := net.bytes.Load(), cpuTime(), r.Now()
	stopWatch := r.Watch.start(func() (int64, int64) { return records.Load(), bytes.Load() })
	err = run()
	stopWatch()
	report.Records, report.Bytes = records.Load(), bytes.Load()
	report.WireBytes = net.bytes.Load() - before
	report.finish(r.Now().Sub(start), cpuTime()-cpu)
	return report, errors.Join(err, context.Cause(ctx))
}

// share gives every consumer its spans; empty spans and consumers are left out.
func share(r Reading) []map[int32]Span {
	var shares []map[int32]Span
	i := 0
	for _, p := range slices.Sorted(maps.Keys(r.Spans)) {
		s := r.Spans[p]
		if s.From >= s.To {
			continue
		}
		if i < r.Consumers {
			shares = append(shares, map[int32]Span{})
		}
		shares[i%r.Consumers][p] = s
		i++
	}
	return shares
}

// consumeDecoded reads with clients that decode every record, as consumers do.
func consumeDecoded(ctx context.Context, dial Dial, r Reading, net *wire, got func(records, bytes, wire int64)) (int, func() error, error) {
	opts := []kgo.Opt{
		kgo.WithHooks(net), kgo.KeepControlRecords(), // Control records move the position.
		kgo.FetchMaxPartitionBytes(r.PartitionBytes), kgo.FetchMaxBytes(r.FetchBytes), kgo.BrokerMaxReadBytes(maxResponse),
	}
	if !r.CheckCRCs {
		opts = append(opts, kgo.DisableFetchCRCValidation())
	}
	shares := share(r)
	clients := make([]*kgo.Client, 0, len(shares))
	closeAll := func() {
		for _, cl := range clients {
			cl.Close()
		}
	}
	for range shares {
		cl, err := dial(ctx, opts...)
		if err != nil {
			closeAll()
			return 0, nil, err
		}
		clients = append(clients, cl)
	}
	return len(clients), func() error {
		defer closeAll()
		var all sync.WaitGroup
		errs := make([]error, len(clients))
		for i, cl := range clients {
			all.Go(func() { errs[i] = read(ctx, cl, r.Topic, shares[i], got) })
		}
		all.Wait()
		return errors.Join(errs...)
	}, nil
}

// read reads the spans until they are done or ctx ends, and reports what it got.
func read(ctx context.Context, cl *kgo.Client, topic string, spans map[int32]Span, got func(records, bytes, wire int64)) error {
	offsets := map[int32]kgo.Offset{}
	for p, s := range spans {
		offsets[p] = kgo.NewOffset().At(s.From)
	}
	cl.AddConsumePartitions(map[string]map[int32]kgo.Offset{topic: offsets})
	for len(spans) > 0 {
		fetches := cl.PollFetches(ctx)
		for _, e := range fetches.Errors() {
			if ctx.Err() != nil {
				return nil //nolint:nilerr // the end that was asked for, not an error
			}
			return fmt.Errorf("topic %s partition %d: %w", e.Topic, e.Partition, e.Err)
		}
		var records, bytes int64
		fetches.EachPartition(func(p kgo.FetchTopicPartition) {
			for _, r := range p.Records {
				bytes += int64(len(r.Key) + len(r.Value))
			}
			records += int64(len(p.Records))
			if n := len(p.Records); n > 0 && p.Records[n-1].Offset+1 >= spans[p.Partition].To {
				delete(spans, p.Partition)
			}
		})
		got(records, bytes, 0)
	}
	return nil
}
