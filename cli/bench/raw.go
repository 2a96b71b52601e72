package bench

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

const (
	// rawVersion of Fetch: the last one that names topics.
	rawVersion = 12
	// maxResponse bounds what is believed of a response's length.
	maxResponse = 1 << 30
	rawWait     = 500 // milliseconds
	batchHeader = 61
)

// rawReader fetches from one broker over one connection and looks at batch headers only, in a buffer that is used again:
// the cheapest consumer there can be, so that the broker gets the machine.
type rawReader struct {
	conn           net.Conn
	in             *bufio.Reader
	topic          string
	partitionBytes int32
	maxBytes       int32
	format         *kmsg.RequestFormatter
	out, buf       []byte
	correlation    int32
}

func newRawReader(ctx context.Context, addr string, r Reading) (*rawReader, error) {
	conn, err := (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	return &rawReader{
		conn: conn, in: bufio.NewReaderSize(conn, 64<<10), topic: r.Topic, partitionBytes: r.PartitionBytes, maxBytes: r.FetchBytes,
		format: kmsg.NewRequestFormatter(kmsg.FormatterClientID("tierlog")),
	}, nil
}

// readAll reads the spans until they are done or ctx ends, and reports what it got: records, and bytes of whole batches.
func (r *rawReader) readAll(ctx context.Context, spans map[int32]Span, got func(records, bytes, wire int64)) error {
	stop := context.AfterFunc(ctx, func() { _ = r.conn.Close() })
	defer stop()
	order := make([]int32, 0, len(spans))
	for p := range spans {
		order = append(order, p)
	}
	slices.Sort(order)
	for len(spans) > 0 && ctx.Err() == nil {
		resp, size, err := r.fetch(order, spans)
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		var records, bytes int64
		for i := range resp.Topics {
			for j := range resp.Topics[i].Partitions {
				p := &resp.Topics[i].Partitions[j]
				if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
					return fmt.Errorf("topic %s partition %d: %w", r.topic, p.Partition, err)
				}
				s, ok := spans[p.Partition]
				if !ok {
					continue
				}
				n, next := countBatches(p.RecordBatches)
				records, bytes = records+n, bytes+int64(len(p.RecordBatches))
				if s.From = max(s.From, next); s.From >= s.To {
					delete(spans, p.Partition)
				} else {
					spans[p.Partition] = s
				}
			}
		}
		got(records, bytes, size)
		// The broker fills a response from the front: those that were first go last.
		order = append(order[1:], order[0])
		order = slices.DeleteFunc(order, func(p int32) bool { _, ok := spans[p]; return !ok })
	}
	return nil
}

// fetch asks once for all partitions. The response is valid until the next call.
func (r *rawReader) fetch(order []int32, spans map[int32]Span) (*kmsg.FetchResponse, int64, error) {
	req := kmsg.NewPtrFetchRequest()
	req.SetVersion(rawVersion)
	req.MaxWaitMillis, req.MinBytes, req.MaxBytes = rawWait, 1, r.maxBytes
	t := kmsg.NewFetchRequestTopic()
	t.Topic = r.topic
	for _, p := range order {
		fp := kmsg.NewFetchRequestTopicPartition()
		fp.Partition, fp.FetchOffset, fp.PartitionMaxBytes = p, spans[p].From, r.partitionBytes
		t.Partitions = append(t.Partitions, fp)
	}
	req.Topics = append(req.Topics, t)
	r.correlation++
	r.out = r.format.AppendRequest(r.out[:0], req, r.correlation)
	if _, err := r.conn.Write(r.out); err != nil {
		return nil, 0, err
	}
	var head [4]byte
	if _, err := io.ReadFull(r.in, head[:]); err != nil {
		return nil, 0, err
	}
	size := int(binary.BigEndian.Uint32(head[:]))
	if size < 5 || size > maxResponse {
		return nil, 0, fmt.Errorf("a response of %d bytes", size)
	}
	r.buf = slices.Grow(r.buf[:0], size)[:size]
	if _, err := io.ReadFull(r.in, r.buf); err != nil {
		return nil, 0, err
	}
	if id := int32(binary.BigEndian.Uint32(r.buf)); id != r.correlation {
		return nil, 0, fmt.Errorf("a response to request %d, not to %d", id, r.correlation)
	}
	resp := kmsg.NewPtrFetchResponse()
	resp.SetVersion(rawVersion)
	if err := resp.ReadFrom(r.buf[5:]); err != nil { // After the id and an empty set of tags.
		return nil, 0, err
	}
	return resp, int64(len(r.out) + len(head) + size), kerr.ErrorForCode(resp.ErrorCode)
}

// countBatches returns how many records the whole batches in b say they hold, and the offset after the last one.
func countBatches(b []byte) (records, next int64) {
	for len(b) >= batchHeader {
		length := 12 + int64(int32(binary.BigEndian.Uint32(b[8:])))
		if length < batchHeader || length > int64(len(b)) {
			return records, next
		}
		next = int64(binary.BigEndian.Uint64(b)) + int64(int32(binary.BigEndian.Uint32(b[23:]))) + 1
		records += int64(int32(binary.BigEndian.Uint32(b[57:])))
		b = b[length:]
	}
	return records, next
}

// consumeRaw reads with raw readers, one connection a consumer and broker.
func consumeRaw(ctx context.Context, r Reading, shares []map[int32]Span, got func(records, bytes, wire int64)) (readers int, run func() error, err error) {
	type job struct {
		reader *rawReader
		spans  map[int32]Span
	}
	var jobs []job
	closeAll := func() {
		for _, j := range jobs {
			_ = j.reader.conn.Close()
		}
	}
	for _, share := range shares {
		byBroker := map[string]map[int32]Span{}
		for p, s := range share {
			addr := r.Leaders[p]
			if byBroker[addr] == nil {
				byBroker[addr] = map[int32]Span{}
			}
			byBroker[addr][p] = s
		}
		for addr, spans := range byBroker {
			reader, err := newRawReader(ctx, addr, r)
			if err != nil {
				closeAll()
				return 0, nil, err
			}
			jobs = append(jobs, job{reader, spans})
		}
	}
	return len(jobs), func() error {
		defer closeAll()
		errs := make(chan error, len(jobs))
		for _, j := range jobs {
			go func() { errs <- j.reader.readAll(ctx, j.spans, got) }()
		}
		var all error
		for range jobs {
			all = errors.Join(all, <-errs)
		}
		return all
	}, nil
}
