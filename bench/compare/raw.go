package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"net"
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// The raw client sends requests that were encoded beforehand and looks at no record of the answers, so that the broker
// is what is measured. It is the same for every system.

// Versions that name topics instead of giving their ids.
const (
	produceVersion = 9
	fetchVersion   = 12
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// recordBatch encodes n records of size bytes each, key-less, of bytes that do not compress, without a producer id.
func recordBatch(n, size int) []byte {
	rng := rand.New(rand.NewPCG(1, uint64(size)))
	var records []byte
	for i := range n {
		r := kmsg.Record{OffsetDelta: int32(i), Value: randomBytes(rng, size)}
		r.Length = int32(len(r.AppendTo(nil)) - 1) // the length before it is set takes one byte
		records = r.AppendTo(records)
	}
	b := kmsg.RecordBatch{
		PartitionLeaderEpoch: -1, Magic: 2, LastOffsetDelta: int32(n - 1), FirstTimestamp: 1_700_000_000_000, MaxTimestamp: 1_700_000_000_000,
		ProducerID: -1, ProducerEpoch: -1, FirstSequence: -1, NumRecords: int32(n), Records: records,
	}
	b.Length = int32(len(b.AppendTo(nil)) - 12)
	raw := b.AppendTo(nil)
	binary.BigEndian.PutUint32(raw[17:], crc32.Checksum(raw[21:], castagnoli))
	return raw
}

func randomBytes(rng *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	return b
}

// rawConn is one connection. Requests go out in order, and answers come back in order.
type rawConn struct {
	conn        net.Conn
	r           *bufio.Reader
	correlation uint32
	frame       []byte // reused for answers
}

func dialRaw(ctx context.Context, addr string) (*rawConn, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	return &rawConn{conn: conn, r: bufio.NewReaderSize(conn, 256<<10)}, nil
}

func (c *rawConn) close() { _ = c.conn.Close() } // nothing is under way any more

// encode frames a request; send fills in its correlation id.
func encode(req kmsg.Request, version int16) []byte {
	req.SetVersion(version)
	return kmsg.NewRequestFormatter(kmsg.FormatterClientID("compare")).AppendRequest(nil, req, 0)
}

// send writes a framed request.
func (c *rawConn) send(framed []byte) error {
	c.correlation++
	binary.BigEndian.PutUint32(framed[8:], c.correlation)
	_, err := c.conn.Write(framed)
	return err
}

// receive reads the next answer into resp. What resp refers to is valid until the next call.
func (c *rawConn) receive(resp kmsg.Response, version int16) error {
	var head [4]byte
	if _, err := io.ReadFull(c.r, head[:]); err != nil {
		return err
	}
	size := int(binary.BigEndian.Uint32(head[:]))
	if size < 5 || size > 256<<20 {
		return fmt.Errorf("an answer of %d bytes", size)
	}
	c.frame = slices.Grow(c.frame[:0], size)[:size]
	if _, err := io.ReadFull(c.r, c.frame); err != nil {
		return err
	}
	resp.SetVersion(version)
	return resp.ReadFrom(c.frame[5:]) // correlation id and an empty list of tags
}

// produceFrame encodes a produce request with the same batch for each of the partitions.
func produceFrame(topic string, partitions []int32, acks int16, batch []byte) []byte {
	req := kmsg.NewPtrProduceRequest()
	req.Acks, req.TimeoutMillis = acks, 30_000
	t := kmsg.NewProduceRequestTopic()
	t.Topic = topic
	for _, p := range partitions {
		part := kmsg.NewProduceRequestTopicPartition()
		part.Partition, part.Records = p, batch
		t.Partitions = append(t.Partitions, part)
	}
	req.Topics = append(req.Topics, t)
	return encode(req, produceVersion)
}

// pump sends count copies of a produce request with up to inFlight unanswered, and returns when all are acknowledged.
func (c *rawConn) pump(framed []byte, count, inFlight int) error {
	window := make(chan struct{}, inFlight)
	done := make(chan error, 1)
	go func() {
		done <- func() error {
			resp := kmsg.NewPtrProduceResponse()
			for range count {
				if err := c.receive(resp, produceVersion); err != nil {
					return err
				}
				if err := produceError(resp); err != nil {
					return err
				}
				<-window
			}
			return nil
		}()
	}()
	for range count {
		select {
		case window <- struct{}{}:
		case err := <-done:
			return err
		}
		if err := c.send(framed); err != nil {
			return errors.Join(err, <-done)
		}
	}
	return <-done
}

func produceError(resp *kmsg.ProduceResponse) error {
	for _, t := range resp.Topics {
		for _, p := range t.Partitions {
			if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
				return fmt.Errorf("produce to partition %d: %w", p.Partition, err)
			}
		}
	}
	return nil
}

// readAll fetches the partitions from their start to the given ends and returns the bytes of the batches.
func (c *rawConn) readAll(topic string, ends map[int32]int64) (bytes int64, err error) {
	next := map[int32]int64{}
	for p, end := range ends {
		if end > 0 {
			next[p] = 0
		}
	}
	resp := kmsg.NewPtrFetchResponse()
	for len(next) > 0 {
		if err := c.send(fetchFrame(topic, next)); err != nil {
			return bytes, err
		}
		if err := c.receive(resp, fetchVersion); err != nil {
			return bytes, err
		}
		if err := kerr.ErrorForCode(resp.ErrorCode); err != nil {
			return bytes, fmt.Errorf("fetch: %w", err)
		}
		for i := range resp.Topics {
			for j := range resp.Topics[i].Partitions {
				p := &resp.Topics[i].Partitions[j]
				if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
					return bytes, fmt.Errorf("fetch of partition %d: %w", p.Partition, err)
				}
				bytes += advance(next, p.Partition, p.RecordBatches, ends[p.Partition])
			}
		}
	}
	return bytes, nil
}

// advance moves the partition's next offset over the whole batches of an answer and returns their size. The last batch
// of an answer may be cut.
func advance(next map[int32]int64, partition int32, batches []byte, end int64) (size int64) {
	for len(batches) >= 61 {
		length := int(binary.BigEndian.Uint32(batches[8:])) + 12
		if length > len(batches) {
			break
		}
		last := int64(binary.BigEndian.Uint64(batches)) + int64(binary.BigEndian.Uint32(batches[23:]))
		next[partition] = last + 1
		size += int64(length)
		batches = batches[length:]
	}
	if at, reading := next[partition]; reading && at >= end {
		delete(next, partition)
	}
	return size
}

func fetchFrame(topic string, next map[int32]int64) []byte {
	req := kmsg.NewPtrFetchRequest()
	req.MaxWaitMillis, req.MinBytes, req.MaxBytes, req.SessionEpoch = 500, 1, 50<<20, -1
	t := kmsg.NewFetchRequestTopic()
	t.Topic = topic
	for p, offset := range next {
		part := kmsg.NewFetchRequestTopicPartition()
		part.Partition, part.FetchOffset, part.PartitionMaxBytes, part.CurrentLeaderEpoch = p, offset, 1<<20, -1
		t.Partitions = append(t.Partitions, part)
	}
	req.Topics = append(req.Topics, t)
	return encode(req, fetchVersion)
}
