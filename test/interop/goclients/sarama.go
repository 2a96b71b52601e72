package main

import (
	"fmt"
	"time"

	"github.com/IBM/sarama"
)

type saramaClient struct{ version sarama.KafkaVersion }

func newSarama(version string) (client, error) {
	v, err := sarama.ParseKafkaVersion(version)
	if err != nil {
		return nil, err
	}
	return &saramaClient{v}, nil
}

func (s *saramaClient) config() *sarama.Config {
	cfg := sarama.NewConfig()
	cfg.Version = s.version
	cfg.Metadata.Retry.Max = 3
	cfg.Consumer.MaxWaitTime = 50 * time.Millisecond // closing a reader waits for it
	return cfg
}

func (s *saramaClient) create(c command) error {
	admin, err := sarama.NewClusterAdmin([]string{c["addr"]}, s.config())
	if err != nil {
		return err
	}
	defer admin.Close()
	return admin.CreateTopic(c["topic"], &sarama.TopicDetail{NumPartitions: int32(c.int("partitions")), ReplicationFactor: 1}, false)
}

func (s *saramaClient) produce(c command, records []record) error {
	cfg := s.config()
	cfg.Producer.Partitioner = sarama.NewManualPartitioner
	cfg.Producer.Return.Successes = true
	cfg.Producer.MaxMessageBytes = 4_000_000
	cfg.Producer.Flush.Frequency = 20 * time.Millisecond
	cfg.Producer.RequiredAcks = map[string]sarama.RequiredAcks{"all": sarama.WaitForAll, "1": sarama.WaitForLocal, "0": sarama.NoResponse}[c["acks"]]
	if err := cfg.Producer.Compression.UnmarshalText([]byte(c["codec"])); err != nil {
		return err
	}
	if c["idempotent"] == "1" {
		cfg.Producer.Idempotent = true
		cfg.Net.MaxOpenRequests = 1
	}
	producer, err := sarama.NewSyncProducer([]string{c["addr"]}, cfg)
	if err != nil {
		return err
	}
	defer producer.Close()
	messages := make([]*sarama.ProducerMessage, len(records))
	for i, r := range records {
		m := &sarama.ProducerMessage{Topic: c["topic"], Partition: r.partition, Timestamp: r.timestamp}
		if r.key != nil {
			m.Key = sarama.ByteEncoder(r.key)
		}
		if r.value != nil {
			m.Value = sarama.ByteEncoder(r.value)
		}
		for _, h := range r.headers {
			m.Headers = append(m.Headers, sarama.RecordHeader{Key: []byte(h.key), Value: h.value})
		}
		messages[i] = m
	}
	err = producer.SendMessages(messages)
	if errs, ok := err.(sarama.ProducerErrors); ok && len(errs) > 0 {
		return errs[0].Err
	}
	return err
}

func (s *saramaClient) consume(c command) ([]record, error) {
	consumer, err := sarama.NewConsumer([]string{c["addr"]}, s.config())
	if err != nil {
		return nil, err
	}
	defer consumer.Close()
	ends := c.ends()
	var records []record
	for p, end := range ends {
		part, err := consumer.ConsumePartition(c["topic"], p, sarama.OffsetOldest)
		if err != nil {
			return nil, err
		}
		patience := time.NewTimer(30 * time.Second)
		for at := range end {
			select {
			case m := <-part.Messages():
				r := record{partition: p, offset: m.Offset, timestamp: m.Timestamp, key: m.Key, value: m.Value}
				for _, h := range m.Headers {
					r.headers = append(r.headers, header{string(h.Key), h.Value})
				}
				records = append(records, r)
			case <-patience.C:
				return nil, fmt.Errorf("partition %d: read %d of %d records", p, at, end)
			}
		}
		if err := part.Close(); err != nil {
			return nil, err
		}
	}
	return records, nil
}
