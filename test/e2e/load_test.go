package e2e

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
)

const (
	topic      = "load"
	partitions = 4
)

// acked is a record as it was acknowledged.
type acked struct {
	partition int32
	offset    int64
}

// load is what producers send and what they were told.
type load struct {
	t       *testing.T
	acks    kgo.Acks
	records int // per producer

	mu     sync.Mutex
	cond   *sync.Cond
	acked  map[string]acked // by value; owned by mu
	failed int              // records that the client gave up; owned by mu
	wg     sync.WaitGroup
}

// startLoad has several producers send records to all partitions until each of them has sent its share.
func startLoad(t *testing.T, b *broker, producers, records int, acks kgo.Acks) *load {
	t.Helper()
	l := &load{t: t, acks: acks, records: records, acked: make(map[string]acked)}
	l.cond = sync.NewCond(&l.mu)
	for p := range producers {
		opts := []kgo.Opt{kgo.RequiredAcks(acks), kgo.MaxBufferedRecords(300), kgo.ProducerBatchMaxBytes(16 << 10), kgo.ProducerLinger(0)}
		if acks != kgo.AllISRAcks() {
			opts = append(opts, kgo.DisableIdempotentWrite())
		}
		cl := b.client(opts...)
		name := fmt.Sprintf("%d.%d", acksName(acks), p)
		l.wg.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
			defer cancel()
			for i := range records {
				r := &kgo.Record{Topic: topic, Partition: int32(i % partitions), Value: fmt.Appendf(nil, "%s-%08d-%0200d", name, i, i)}
				cl.Produce(ctx, r, l.done)
			}
			if err := cl.Flush(ctx); err != nil {
				t.Errorf("flush: %v", err)
			}
		})
	}
	return l
}

func acksName(a kgo.Acks) int {
	if a == kgo.AllISRAcks() {
		return 9
	}
	return 1
}

func (l *load) done(r *kgo.Record, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		l.failed++
		l.t.Errorf("record %.20s failed for good: %v", r.Value, err)
	} else {
		l.acked[string(r.Value)] = acked{r.Partition, r.Offset}
	}
	l.cond.Broadcast()
}

// reach waits until n records are acknowledged.
func (l *load) reach(n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.acked)+l.failed < n {
		l.cond.Wait()
	}
}

// count returns how many records are acknowledged.
func (l *load) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.acked)
}

// finish waits until every producer is done and returns what was acknowledged.
func (l *load) finish() map[string]acked {
	l.t.Helper()
	l.wg.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.acked
}

// seen is what a reader got.
type seen struct {
	values [partitions][]string // by offset
	next   [partitions]int64
}

// reader tails all partitions from the start.
type reader struct {
	t  *testing.T
	cl *kgo.Client
	seen
}

func startReader(t *testing.T, b *broker) *reader {
	t.Helper()
	offsets := make(map[int32]kgo.Offset)
	for p := range int32(partitions) {
		offsets[p] = kgo.NewOffset().AtStart()
	}
	return &reader{t: t, cl: b.client(
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: offsets}), kgo.FetchMaxPartitionBytes(256<<10), kgo.KeepRetryableFetchErrors(),
	)}
}

// until reads until it has n records. Offsets must have no gap.
func (r *reader) until(n int) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), patience)
	defer cancel()
	got := 0
	for p := range partitions {
		got += len(r.values[p])
	}
	for got < n {
		fs := r.cl.PollFetches(ctx)
		if ctx.Err() != nil {
			r.t.Fatalf("read %d records of %d", got, n)
		}
		fs.EachRecord(func(rec *kgo.Record) {
			if rec.Offset != r.next[rec.Partition] {
				r.t.Errorf("partition %d: offset %d, want %d", rec.Partition, rec.Offset, r.next[rec.Partition])
			}
			r.next[rec.Partition] = rec.Offset + 1
			r.values[rec.Partition] = append(r.values[rec.Partition], string(rec.Value))
			got++
		})
		if r.t.Failed() {
			return
		}
	}
}

// check compares what was read with what was acknowledged. If exact, there must be nothing else, and each producer's
// records must be in the order in which it sent them.
func (s *seen) check(t *testing.T, want map[string]acked, exact bool) {
	t.Helper()
	missing := 0
	for v, a := range want {
		if a.offset >= int64(len(s.values[a.partition])) || s.values[a.partition][a.offset] != v {
			missing++
			if missing <= 5 {
				t.Errorf("acknowledged %.20s is not at partition %d offset %d", v, a.partition, a.offset)
			}
		}
	}
	if missing > 0 {
		t.Errorf("%d of %d acknowledged records are not where they were acknowledged", missing, len(want))
	}
	if !exact {
		return
	}
	total := 0
	for p := range partitions {
		total += len(s.values[p])
		last := make(map[string]string)
		for offset, v := range s.values[p] {
			producer, at := v[:3], v[4:12]
			if at <= last[producer] {
				t.Errorf("partition %d offset %d: %s of producer %s after %s", p, offset, at, producer, last[producer])
			}
			last[producer] = at
		}
	}
	if total != len(want) {
		t.Errorf("%d records in the log, %d acknowledged", total, len(want))
	}
}
