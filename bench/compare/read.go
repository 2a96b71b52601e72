package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"
)

// readDecoded reads a topic from start to end with an ordinary consumer, which decodes and checks every record.
func readDecoded(ctx context.Context, br broker, topic string) error {
	ends, err := endOffsets(ctx, br, topic)
	if err != nil {
		return err
	}
	from, want := map[int32]kgo.Offset{}, int64(0)
	for p, end := range ends {
		from[p] = kgo.NewOffset().At(0)
		want += end
	}
	cl, err := kgo.NewClient(kgo.SeedBrokers(br.Addr()), kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: from}))
	if err != nil {
		return err
	}
	defer cl.Close()
	for got := int64(0); got < want; {
		fetches := cl.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			return fmt.Errorf("read %d of %d records: %w", got, want, err)
		}
		got += int64(fetches.NumRecords())
	}
	return nil
}

// readCounted reads a topic from start to end over two connections, half of the partitions each, and looks at no record.
func readCounted(ctx context.Context, br broker, topic string) error {
	ends, err := endOffsets(ctx, br, topic)
	if err != nil {
		return err
	}
	var g errgroup.Group
	for half := range int32(2) {
		mine := map[int32]int64{}
		for p, end := range ends {
			if p%2 == half {
				mine[p] = end
			}
		}
		g.Go(func() error {
			conn, err := dialRaw(ctx, br.Addr())
			if err != nil {
				return err
			}
			defer conn.close()
			_, err = conn.readAll(topic, mine)
			return err
		})
	}
	return g.Wait()
}

// readers are the two ways to read, by the name that their figures carry.
var readers = []struct {
	suffix string
	read   func(context.Context, broker, string) error
}{{"", readDecoded}, {"-raw", readCounted}}

// readMemory reads a topic again and again that is small enough to stay in memory.
func (b *bench) readMemory(ctx context.Context, t turn) error {
	topic := b.topic("read-memory")
	if err := createTopic(ctx, t.broker, topic, partitions, nil); err != nil {
		return err
	}
	size, _, err := fill(ctx, t.broker, topic, 1024, b.sizes.memory)
	if err != nil {
		return err
	}
	for _, r := range readers {
		rate, cpu, err := b.load(ctx, t.broker, size*int64(b.sizes.passes), func() error {
			for range b.sizes.passes {
				if err := r.read(ctx, t.broker, topic); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
		b.results.add("read-memory"+r.suffix+".rate", t.system, rate)
		b.results.add("read-memory"+r.suffix+".cpu", t.system, cpu)
		b.say("  read-memory%s: %.0f MiB/s, %.2f CPU-s/GiB", r.suffix, rate, cpu)
	}
	return deleteTopic(ctx, t.broker, topic)
}

// readCold reads a topic just after the broker's start: nothing is in its own memory. The system's page cache is as
// warm as it was, for Kafka as for a directory store.
func (b *bench) readCold(ctx context.Context, t turn) error {
	topic := b.topic("read-cold")
	if err := createTopic(ctx, t.broker, topic, partitions, nil); err != nil {
		return err
	}
	size, _, err := fill(ctx, t.broker, topic, 1024, b.sizes.cold)
	if err != nil {
		return err
	}
	if err := b.settle(ctx); err != nil {
		return err
	}
	for _, r := range readers {
		if err := errors.Join(b.notePeak(t), restart(ctx, t.broker)); err != nil {
			return err
		}
		if err := b.settle(ctx); err != nil {
			return err
		}
		rate, cpu, err := b.load(ctx, t.broker, size, func() error { return r.read(ctx, t.broker, topic) })
		if err != nil {
			return err
		}
		b.results.add("read-cold"+r.suffix+".rate", t.system, rate)
		b.results.add("read-cold"+r.suffix+".cpu", t.system, cpu)
		b.say("  read-cold%s: %.0f MiB/s, %.2f CPU-s/GiB", r.suffix, rate, cpu)
	}
	return deleteTopic(ctx, t.broker, topic)
}
