package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/segmentio/kafka-go"
)

// kafkaGo drives segmentio/kafka-go: its Writer and Reader, or its lower-level Conn, which speaks older versions.
type kafkaGo struct{ conn bool }

var kafkaGoCodecs = map[string]kafka.Compression{"none": 0, "gzip": kafka.Gzip, "snappy": kafka.Snappy, "lz4": kafka.Lz4, "zstd": kafka.Zstd}

func (k kafkaGo) create(c command) error {
	topic := kafka.TopicConfig{Topic: c["topic"], NumPartitions: c.int("partitions"), ReplicationFactor: 1}
	if k.conn {
		conn, err := kafka.Dial("tcp", c["addr"])
		if err != nil {
			return err
		}
		defer conn.Close()
		return conn.CreateTopics(topic)
	}
	client := &kafka.Client{Addr: kafka.TCP(c["addr"])}
	resp, err := client.CreateTopics(context.Background(), &kafka.CreateTopicsRequest{Topics: []kafka.TopicConfig{topic}})
	if err != nil {
		return err
	}
	return resp.Errors[c["topic"]]
}

func message(r record) kafka.Message {
	m := kafka.Message{Key: r.key, Value: r.value, Time: r.timestamp, WriterData: int(r.partition)}
	for _, h := range r.headers {
		m.Headers = append(m.Headers, kafka.Header{Key: h.key, Value: h.value})
	}
	return m
}

func acks(c command) kafka.RequiredAcks {
	return map[string]kafka.RequiredAcks{"all": kafka.RequireAll, "1": kafka.RequireOne, "0": kafka.RequireNone}[c["acks"]]
}

func (k kafkaGo) produce(c command, records []record) error {
	if k.conn {
		return k.produceConn(c, records)
	}
	w := &kafka.Writer{
		Addr: kafka.TCP(c["addr"]), Topic: c["topic"], RequiredAcks: acks(c), Compression: kafkaGoCodecs[c["codec"]],
		BatchTimeout: 20 * time.Millisecond, BatchBytes: 4_000_000, MaxAttempts: 3, AllowAutoTopicCreation: true,
		Balancer: kafka.BalancerFunc(func(m kafka.Message, _ ...int) int { return m.WriterData.(int) }),
	}
	messages := make([]kafka.Message, len(records))
	for i, r := range records {
		messages[i] = message(r)
	}
	err := retryNew(func() error {
		err := w.WriteMessages(context.Background(), messages...)
		var errs kafka.WriteErrors
		if errors.As(err, &errs) {
			err = nil
			for _, e := range errs {
				err = cmp.Or(err, e)
			}
		}
		return err
	})
	return errors.Join(err, w.Close())
}

// retryNew tries again while a topic that is being created has no leader yet: the library leaves that to its user.
func retryNew(f func() error) error {
	deadline := time.Now().Add(3 * time.Second)
	for {
		err := f()
		passing := errors.Is(err, kafka.LeaderNotAvailable) || errors.Is(err, kafka.UnknownTopicOrPartition)
		if !passing || time.Now().After(deadline) {
			return err
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func (k kafkaGo) produceConn(c command, records []record) error {
	byPartition := map[int32][]record{}
	for _, r := range records {
		byPartition[r.partition] = append(byPartition[r.partition], r)
	}
	for p, part := range byPartition {
		var conn *kafka.Conn
		err := retryNew(func() (err error) {
			ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
			defer cancel()
			conn, err = kafka.DialLeader(ctx, "tcp", c["addr"], c["topic"], int(p))
			return err
		})
		if err != nil {
			return err
		}
		if err := conn.SetRequiredAcks(int(acks(c))); err != nil {
			return err
		}
		for start := 0; start < len(part); start += 40 {
			var messages []kafka.Message
			for _, r := range part[start:min(start+40, len(part))] {
				messages = append(messages, message(r))
			}
			if _, err := conn.WriteCompressedMessages(kafkaGoCodecs[c["codec"]].Codec(), messages...); err != nil {
				return errors.Join(err, conn.Close())
			}
		}
		if err := conn.Close(); err != nil {
			return err
		}
	}
	return nil
}

func (k kafkaGo) consume(c command) ([]record, error) {
	ends := c.ends()
	var records []record
	for p, end := range ends {
		part, err := k.consumePartition(c, p, end)
		if err != nil {
			return nil, fmt.Errorf("partition %d: read %d of %d records: %w", p, len(part), end, err)
		}
		records = append(records, part...)
	}
	return records, nil
}

func (k kafkaGo) consumePartition(c command, p int32, end int64) ([]record, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	var next func() (kafka.Message, error)
	var logged atomic.Value // what the reader logged last: its errors are not returned
	if k.conn {
		conn, err := kafka.DialLeader(ctx, "tcp", c["addr"], c["topic"], int(p))
		if err != nil {
			return nil, err
		}
		defer conn.Close()
		if err := conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
			return nil, err
		}
		next = func() (kafka.Message, error) { return conn.ReadMessage(4_000_000) }
	} else {
		r := kafka.NewReader(kafka.ReaderConfig{
			Brokers: []string{c["addr"]}, Topic: c["topic"], Partition: int(p), MaxWait: 500 * time.Millisecond, MaxBytes: 4_000_000,
			ErrorLogger: kafka.LoggerFunc(func(format string, args ...any) { logged.Store(fmt.Sprintf(format, args...)) }),
		})
		defer r.Close()
		next = func() (kafka.Message, error) { return r.ReadMessage(ctx) }
	}
	var records []record
	for int64(len(records)) < end {
		m, err := next()
		if err != nil {
			return records, fmt.Errorf("%w; logged last: %v", err, logged.Load())
		}
		r := record{partition: p, offset: m.Offset, timestamp: m.Time, key: m.Key, value: m.Value}
		for _, h := range m.Headers {
			r.headers = append(r.headers, header{h.Key, h.Value})
		}
		records = append(records, r)
	}
	return records, nil
}
