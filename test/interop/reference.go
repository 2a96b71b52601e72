package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// reference is franz-go: the client that checks the others, and a client under test itself.
type reference struct{}

var codecs = map[string]kgo.CompressionCodec{
	"none": kgo.NoCompression(), "gzip": kgo.GzipCompression(), "snappy": kgo.SnappyCompression(),
	"lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression(),
}

// codecBits are the values of a batch's compression attribute.
var codecBits = map[string]uint8{"none": 0, "gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}

func (*reference) close() {}

func (*reference) create(ctx context.Context, addr, topic string, partitions int) error {
	cl, err := kgo.NewClient(kgo.SeedBrokers(addr))
	if err != nil {
		return err
	}
	defer cl.Close()
	admin := kadm.NewClient(cl)
	if _, err = admin.CreateTopic(ctx, int32(partitions), 1, nil, topic); err != nil {
		return err
	}
	return led(ctx, admin, topic, partitions)
}

// led waits until every partition of a new topic answers. Kafka acknowledges a topic before its leaders serve it, and
// what a client does in that gap (write twice, with acks=0 lose records) is not what the cases are about.
func led(ctx context.Context, admin *kadm.Client, topic string, partitions int) error {
	again := time.NewTicker(5 * time.Millisecond)
	defer again.Stop()
	for {
		offsets, err := admin.ListEndOffsets(ctx, topic)
		if err == nil && offsets.Error() == nil && len(offsets[topic]) == partitions {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("topic %s has no leaders: %w: %w", topic, ctx.Err(), errors.Join(err, offsets.Error()))
		case <-again.C:
		}
	}
}

func (*reference) produce(ctx context.Context, args produceArgs) error {
	opts := []kgo.Opt{
		kgo.SeedBrokers(args.addr), kgo.ProducerBatchCompression(codecs[args.codec]), kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.AllowAutoTopicCreation(), kgo.UnknownTopicRetries(3), kgo.ProducerBatchMaxBytes(8 << 20),
	}
	switch args.acks {
	case "0":
		opts = append(opts, kgo.RequiredAcks(kgo.NoAck()))
	case "1":
		opts = append(opts, kgo.RequiredAcks(kgo.LeaderAck()))
	}
	if !args.idempotent {
		opts = append(opts, kgo.DisableIdempotentWrite())
	}
	cl, err := kgo.NewClient(opts...)
	if err != nil {
		return err
	}
	defer cl.Close()
	records := make([]*kgo.Record, len(args.records))
	for i, r := range args.records {
		records[i] = toKgo(args.topic, r)
	}
	return cl.ProduceSync(ctx, records...).FirstErr()
}

func (r *reference) consume(ctx context.Context, addr, topic string, ends []int64) ([]record, error) {
	records, _, err := r.read(ctx, addr, topic, ends)
	return records, err
}

// read also returns how often each compression attribute was seen, per record.
func (*reference) read(ctx context.Context, addr, topic string, ends []int64) ([]record, map[uint8]int, error) {
	assigned := map[int32]kgo.Offset{}
	want := int64(0)
	for p, end := range ends {
		if end > 0 {
			assigned[int32(p)] = kgo.NewOffset().At(0)
			want += end
		}
	}
	cl, err := kgo.NewClient(kgo.SeedBrokers(addr), kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: assigned}))
	if err != nil {
		return nil, nil, err
	}
	defer cl.Close()
	var records []record
	attrs := map[uint8]int{}
	for int64(len(records)) < want {
		fetches := cl.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			return nil, nil, fmt.Errorf("read %d of %d records: %w", len(records), want, err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			attrs[r.Attrs.CompressionType()]++
			records = append(records, fromKgo(r))
		})
	}
	return records, attrs, nil
}

func toKgo(topic string, r record) *kgo.Record {
	k := &kgo.Record{Topic: topic, Partition: r.partition, Key: r.key, Value: r.value}
	if r.timestamp != noTimestamp {
		k.Timestamp = time.UnixMilli(r.timestamp)
	}
	for _, h := range r.headers {
		k.Headers = append(k.Headers, kgo.RecordHeader{Key: h.key, Value: h.value})
	}
	return k
}

func fromKgo(k *kgo.Record) record {
	r := record{partition: k.Partition, offset: k.Offset, timestamp: k.Timestamp.UnixMilli(), key: k.Key, value: k.Value}
	for _, h := range k.Headers {
		r.headers = append(r.headers, header{h.Key, h.Value})
	}
	return r
}

// partitions returns how many partitions a topic has.
func (*reference) partitions(ctx context.Context, addr, topic string) (int, error) {
	cl, err := kgo.NewClient(kgo.SeedBrokers(addr))
	if err != nil {
		return 0, err
	}
	defer cl.Close()
	topics, err := kadm.NewClient(cl).ListTopics(ctx, topic)
	if err != nil {
		return 0, err
	}
	t := topics[topic]
	return len(t.Partitions), t.Err
}

// count returns how many records a topic holds, by its start and end offsets.
func (*reference) count(ctx context.Context, addr, topic string) (int64, error) {
	cl, err := kgo.NewClient(kgo.SeedBrokers(addr))
	if err != nil {
		return 0, err
	}
	defer cl.Close()
	admin := kadm.NewClient(cl)
	starts, err := admin.ListStartOffsets(ctx, topic)
	if err = errors.Join(err, starts.Error()); err != nil {
		return 0, err
	}
	ends, err := admin.ListEndOffsets(ctx, topic)
	if err = errors.Join(err, ends.Error()); err != nil {
		return 0, err
	}
	n := int64(0)
	ends.Each(func(o kadm.ListedOffset) { n += o.Offset })
	starts.Each(func(o kadm.ListedOffset) { n -= o.Offset })
	return n, nil
}
