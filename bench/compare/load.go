package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"
)

// partitions of every topic that is loaded.
const partitions = 8

// withAdmin runs f with an admin client.
func withAdmin(br broker, f func(*kadm.Client) error) error {
	cl, err := kgo.NewClient(kgo.SeedBrokers(br.Addr()), kgo.RetryTimeout(3*time.Minute))
	if err != nil {
		return err
	}
	defer cl.Close()
	adm := kadm.NewClient(cl)
	adm.SetTimeoutMillis(180_000)
	return f(adm)
}

// createTopic returns when every partition of the new topic answers.
func createTopic(ctx context.Context, br broker, topic string, n int, configs map[string]*string) error {
	return withAdmin(br, func(adm *kadm.Client) error {
		if _, err := adm.CreateTopic(ctx, int32(n), 1, configs, topic); err != nil {
			return err
		}
		return led(ctx, adm, topic, n)
	})
}

// led waits until all partitions of a topic have a leader that answers.
func led(ctx context.Context, adm *kadm.Client, topic string, n int) error {
	again := time.NewTicker(2 * time.Millisecond)
	defer again.Stop()
	for {
		offsets, err := adm.ListEndOffsets(ctx, topic)
		if err == nil && offsets.Error() == nil && len(offsets[topic]) == n {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		case <-again.C:
		}
	}
}

func deleteTopic(ctx context.Context, br broker, topic string) error {
	return withAdmin(br, func(adm *kadm.Client) error {
		resp, err := adm.DeleteTopic(ctx, topic)
		return errors.Join(err, resp.Err)
	})
}

// endOffsets returns the partitions' ends.
func endOffsets(ctx context.Context, br broker, topic string) (ends map[int32]int64, err error) {
	ends = map[int32]int64{}
	err = withAdmin(br, func(adm *kadm.Client) error {
		offsets, err := adm.ListEndOffsets(ctx, topic)
		if err = errors.Join(err, offsets.Error()); err != nil {
			return err
		}
		offsets.Each(func(o kadm.ListedOffset) { ends[o.Partition] = o.Offset })
		return nil
	})
	return ends, err
}

// checkCount makes sure that a topic holds what was acknowledged.
func checkCount(ctx context.Context, br broker, topic string, want int64) error {
	ends, err := endOffsets(ctx, br, topic)
	if err != nil {
		return err
	}
	got := int64(0)
	for _, e := range ends {
		got += e
	}
	if got != want {
		return fmt.Errorf("%d records were acknowledged, the topic holds %d", want, got)
	}
	return nil
}

// produce sends n records of size bytes to the topic with one client of its own.
func produce(ctx context.Context, br broker, topic string, n, size int) error {
	cl, err := kgo.NewClient(kgo.SeedBrokers(br.Addr()), kgo.DefaultProduceTopic(topic), kgo.ProducerBatchCompression(kgo.NoCompression()),
		kgo.ProducerLinger(5*time.Millisecond), kgo.MaxBufferedRecords(1<<20), kgo.MaxBufferedBytes(32<<20), kgo.RecordDeliveryTimeout(time.Minute))
	if err != nil {
		return err
	}
	defer cl.Close()
	value := randomBytes(rand.New(rand.NewPCG(2, uint64(size))), size)
	var mu sync.Mutex
	var first error
	for range n {
		cl.Produce(ctx, &kgo.Record{Value: value}, func(_ *kgo.Record, err error) {
			if err != nil {
				mu.Lock()
				first = cmp.Or(first, err)
				mu.Unlock()
			}
		})
	}
	if err := cl.Flush(ctx); err != nil {
		return err
	}
	mu.Lock()
	defer mu.Unlock()
	return first
}

// produceExperiment: ordinary producers, acks=all and idempotent, as clients come by default.
func produceExperiment(name string, producers, size int) func(*bench, context.Context, turn) error {
	return func(b *bench, ctx context.Context, t turn) error {
		total := b.sizes.produce
		if size < 1024 {
			total = b.sizes.small
		}
		each := int(total) / producers / size
		topic := b.topic(name)
		if err := createTopic(ctx, t.broker, topic, partitions, nil); err != nil {
			return err
		}
		rate, cpu, err := b.load(ctx, t.broker, int64(each*producers*size), func() error {
			var g errgroup.Group
			for range producers {
				g.Go(func() error { return produce(ctx, t.broker, topic, each, size) })
			}
			return g.Wait()
		})
		if err != nil {
			return err
		}
		if err := checkCount(ctx, t.broker, topic, int64(each*producers)); err != nil {
			return err
		}
		b.results.add(name+".rate", t.system, rate)
		b.results.add(name+".cpu", t.system, cpu)
		b.say("  %.0f MiB/s, %.2f CPU-s/GiB", rate, cpu)
		return deleteTopic(ctx, t.broker, topic)
	}
}

// rawBatch is how many bytes of values a prepared batch holds.
const rawBatch = 64 << 10

// shape says how prepared requests are sent. Each has one batch for each of two partitions.
type shape struct {
	connections int
	batch       int // bytes of values in a batch
	record      int // bytes of one value
}

const perRequest = 2

// fill writes about so many bytes of values over four connections; see fillAs.
func fill(ctx context.Context, br broker, topic string, record int, total int64) (bytes, records int64, err error) {
	return fillAs(ctx, br, topic, shape{connections: 4, batch: rawBatch, record: record}, total)
}

// fillAs writes about so many bytes of values with prepared requests, five in flight on each connection, and returns how
// many bytes and records these were.
func fillAs(ctx context.Context, br broker, topic string, s shape, total int64) (bytes, records int64, err error) {
	perBatch := max(1, s.batch/s.record)
	batch := recordBatch(perBatch, s.record)
	count := max(1, int(total)/(s.connections*perRequest*perBatch*s.record))
	var g errgroup.Group
	for c := range s.connections {
		g.Go(func() error {
			conn, err := dialRaw(ctx, br.Addr())
			if err != nil {
				return err
			}
			defer conn.close()
			first := int32(c * perRequest % partitions)
			return conn.pump(produceFrame(topic, []int32{first, first + 1}, -1, batch), count, 5)
		})
	}
	records = int64(s.connections * perRequest * count * perBatch)
	return records * int64(s.record), records, g.Wait()
}

// rawProduceExperiment: requests encoded beforehand, so that nearly all of the machine is the broker's.
func rawProduceExperiment(name string, size int) func(*bench, context.Context, turn) error {
	return func(b *bench, ctx context.Context, t turn) error {
		total := b.sizes.produce
		if size < 1024 {
			total = b.sizes.small
		}
		topic := b.topic(name)
		if err := createTopic(ctx, t.broker, topic, partitions, nil); err != nil {
			return err
		}
		var moved, records int64
		rate, cpu, err := b.load(ctx, t.broker, total, func() (err error) {
			moved, records, err = fill(ctx, t.broker, topic, size, total)
			return err
		})
		if err != nil {
			return err
		}
		if err := checkCount(ctx, t.broker, topic, records); err != nil {
			return err
		}
		part := float64(moved) / float64(total) // whole batches do not fill total exactly
		b.results.add(name+".rate", t.system, rate*part)
		b.results.add(name+".cpu", t.system, cpu/part)
		b.say("  %.0f MiB/s, %.2f CPU-s/GiB", rate*part, cpu/part)
		return deleteTopic(ctx, t.broker, topic)
	}
}

// warmUp lets a JVM compile its hot code, and fills the brokers' buffers.
func (b *bench) warmUp(ctx context.Context, br broker) error {
	topic := b.topic("warm-up")
	if err := createTopic(ctx, br, topic, partitions, nil); err != nil {
		return err
	}
	for range 4 {
		if _, _, err := fill(ctx, br, topic, 1024, b.sizes.small/4); err != nil {
			return err
		}
		if err := produce(ctx, br, topic, int(b.sizes.small/16/1024), 1024); err != nil {
			return err
		}
		if err := readDecoded(ctx, br, topic); err != nil {
			return err
		}
		if _, err := lightLoad(ctx, br, topic, -1, 1); err != nil {
			return err
		}
	}
	return deleteTopic(ctx, br, topic)
}

// lightExperiment: how long an acknowledgement takes when the machine is all but idle.
func lightExperiment(name string, acks int) func(*bench, context.Context, turn) error {
	return func(b *bench, ctx context.Context, t turn) error {
		topic := b.topic(name)
		if err := createTopic(ctx, t.broker, topic, partitions, nil); err != nil {
			return err
		}
		took, err := lightLoad(ctx, t.broker, topic, acks, b.sizes.seconds)
		if err != nil {
			return err
		}
		took = took[len(took)/5:] // the first fifth opens connections and producer ids
		slices.Sort(took)
		ms := func(q float64) float64 {
			return float64(took[int(q*float64(len(took)-1))].Microseconds()) / 1000
		}
		b.results.add(name+".p50", t.system, ms(0.5))
		b.results.add(name+".p99", t.system, ms(0.99))
		b.say("  p50 %.2f ms, p99 %.2f ms, most %.2f ms", ms(0.5), ms(0.99), ms(1))
		return deleteTopic(ctx, t.broker, topic)
	}
}

// lightLoad sends a record of 1 KiB each millisecond without lingering, and returns how long each
// acknowledgement took.
func lightLoad(ctx context.Context, br broker, topic string, acks, seconds int) ([]time.Duration, error) {
	opts := []kgo.Opt{
		kgo.SeedBrokers(br.Addr()), kgo.DefaultProduceTopic(topic), kgo.ProducerBatchCompression(kgo.NoCompression()),
		kgo.ProducerLinger(0), kgo.RecordPartitioner(kgo.RoundRobinPartitioner()), kgo.RecordDeliveryTimeout(time.Minute),
	}
	if acks == 1 {
		opts = append(opts, kgo.RequiredAcks(kgo.LeaderAck()), kgo.DisableIdempotentWrite(), kgo.MaxProduceRequestsInflightPerBroker(5))
	}
	cl, err := kgo.NewClient(opts...)
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	value := randomBytes(rand.New(rand.NewPCG(3, 1)), 1024)
	var mu sync.Mutex
	var first error
	var took []time.Duration
	beat := time.NewTicker(time.Millisecond)
	defer beat.Stop()
	for range seconds * 1000 {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-beat.C:
		}
		sent := now()
		cl.Produce(ctx, &kgo.Record{Value: value}, func(_ *kgo.Record, err error) {
			d := since(sent)
			mu.Lock()
			defer mu.Unlock()
			first = cmp.Or(first, err)
			took = append(took, d)
		})
	}
	if err := cl.Flush(ctx); err != nil {
		return nil, err
	}
	mu.Lock()
	defer mu.Unlock()
	return took, first
}
