package broker_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"log/slog"
	"maps"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kbin"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tierlog/tierlog/cli"
	"github.com/tierlog/tierlog/objstore"
	"github.com/tierlog/tierlog/objstore/backend"
	"github.com/tierlog/tierlog/objstore/mem"
	"github.com/tierlog/tierlog/server"
	"github.com/tierlog/tierlog/topicconf"
)

// patience bounds every wait of these tests; it is reached only by a failure.
const patience = 60 * time.Second

// node is a broker in this process, behind a loopback listener, on a store that outlives it.
type node struct {
	t     *testing.T
	store objstore.Store
	dir   string
	set   map[string]string
	log   *logBuffer

	addr   string
	cancel context.CancelFunc
	ended  chan error
}

// logBuffer collects what the broker logs.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// startNode starts a broker on an empty store in memory and stops it when the test ends. set are broker configs.
func startNode(t *testing.T, set map[string]string) *node {
	t.Helper()
	return startNodeOn(t, mem.New(), set)
}

func startNodeOn(t *testing.T, store objstore.Store, set map[string]string) *node {
	t.Helper()
	n := &node{t: t, store: store, dir: t.TempDir(), set: map[string]string{"memory.limit": "134217728"}, log: &logBuffer{}}
	maps.Copy(n.set, set)
	n.run()
	t.Cleanup(func() {
		if n.cancel != nil {
			n.stop()
		}
		if t.Failed() && os.Getenv("BROKER_LOG") != "" {
			t.Log(n.log.String())
		}
	})
	return n
}

// run starts the broker. Clients may connect at once: they are answered when it serves.
func (n *node) run() {
	n.t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // closed with the broker
	if err != nil {
		n.t.Fatal(err)
	}
	spec, err := backend.Parse("mem:")
	if err != nil {
		n.t.Fatal(err)
	}
	conf, err := topicconf.NewBroker(n.set)
	if err != nil {
		n.t.Fatal(err)
	}
	n.addr = ln.Addr().String()
	cfg := cli.BrokerConfig{Listen: n.addr, Store: spec, DataDir: filepath.Join(n.dir, "data"), NodeID: 1, Rack: "r1", Broker: conf}
	ctx, cancel := context.WithCancel(context.Background())
	n.cancel, n.ended = cancel, make(chan error, 1)
	log := slog.New(slog.NewTextHandler(n.log, nil))
	go func() { n.ended <- server.Serve(ctx, cfg, log, ln, n.store) }()
}

// stop ends the broker in order.
func (n *node) stop() {
	n.t.Helper()
	n.cancel()
	n.cancel = nil
	select {
	case err := <-n.ended:
		if err != nil {
			n.t.Errorf("the broker ended with %v", err)
		}
		if strings.Contains(n.log.String(), "level=ERROR") {
			n.t.Errorf("an orderly life logs an error:\n%s", n.log.String())
		}
	case <-time.After(patience):
		n.t.Error("the broker does not end")
	}
}

func (n *node) restart() {
	n.t.Helper()
	n.stop()
	n.run()
}

// conn is one connection that speaks any version of any request.
type conn struct {
	t    *testing.T
	nc   net.Conn
	next int32
}

func (n *node) conn() *conn {
	n.t.Helper()
	nc, err := net.Dial("tcp", n.addr) //nolint:noctx // closed with the test
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { _ = nc.Close() })
	if err := nc.SetDeadline(time.Now().Add(patience)); err != nil {
		n.t.Fatal(err)
	}
	return &conn{t: n.t, nc: nc}
}

// send writes a request, whose version is set, and returns its correlation id.
func (c *conn) send(req kmsg.Request) int32 {
	c.t.Helper()
	c.next++
	b := kmsg.NewRequestFormatter(kmsg.FormatterClientID("test")).AppendRequest(nil, req, c.next)
	if _, err := c.nc.Write(b); err != nil {
		c.t.Fatalf("%s: %v", kmsg.NameForKey(req.Key()), err)
	}
	return c.next
}

// frame reads one response frame without its length.
func (c *conn) frame() ([]byte, error) {
	var size [4]byte
	if _, err := io.ReadFull(c.nc, size[:]); err != nil {
		return nil, err
	}
	b := make([]byte, binary.BigEndian.Uint32(size[:]))
	_, err := io.ReadFull(c.nc, b)
	return b, err
}

// receive reads the response of a request, and wants every byte of it to have a meaning.
func (c *conn) receive(req kmsg.Request, correlation int32) (kmsg.Response, error) {
	b, err := c.frame()
	if err != nil {
		return nil, err
	}
	r := kbin.Reader{Src: b}
	if got := r.Int32(); got != correlation {
		return nil, fmt.Errorf("correlation id %d, want %d", got, correlation)
	}
	resp := req.ResponseKind()
	resp.SetVersion(req.GetVersion())
	if resp.IsFlexible() && req.Key() != 18 {
		if tags := r.Uvarint(); tags != 0 {
			return nil, fmt.Errorf("%d tags in the response header", tags)
		}
	}
	if err := resp.ReadFrom(r.Src); err != nil {
		return nil, fmt.Errorf("%s version %d: %w", kmsg.NameForKey(req.Key()), req.GetVersion(), err)
	}
	if again := resp.AppendTo(nil); len(again) != len(r.Src) {
		return nil, fmt.Errorf("%s version %d: %d bytes, of which %d have a meaning", kmsg.NameForKey(req.Key()), req.GetVersion(), len(r.Src), len(again))
	}
	return resp, nil
}

// ask sends a request and returns its response.
func ask[R kmsg.Response](c *conn, version int16, req kmsg.Request) R {
	c.t.Helper()
	req.SetVersion(version)
	resp, err := c.receive(req, c.send(req))
	if err != nil {
		c.t.Fatalf("%s: %v", kmsg.NameForKey(req.Key()), err)
	}
	return resp.(R)
}

// name is Kafka's name of an error code.
func name(code int16) string {
	if err := kerr.TypedErrorForCode(code); err != nil {
		return err.Message
	}
	return "NONE"
}

func wantCode(t *testing.T, what string, got int16, want *kerr.Error) {
	t.Helper()
	code := int16(0)
	if want != nil {
		code = want.Code
	}
	if got != code {
		t.Errorf("%s: %s, want %s", what, name(got), name(code))
	}
}

// createTopic creates a topic and returns its id.
func (c *conn) createTopic(topic string, partitions int32, configs ...string) [16]byte {
	c.t.Helper()
	req := kmsg.NewPtrCreateTopicsRequest()
	rt := kmsg.NewCreateTopicsRequestTopic()
	rt.Topic, rt.NumPartitions, rt.ReplicationFactor = topic, partitions, 1
	for i := 0; i < len(configs); i += 2 {
		rc := kmsg.NewCreateTopicsRequestTopicConfig()
		rc.Name, rc.Value = configs[i], &configs[i+1]
		rt.Configs = append(rt.Configs, rc)
	}
	req.Topics = append(req.Topics, rt)
	resp := ask[*kmsg.CreateTopicsResponse](c, 7, req)
	if len(resp.Topics) != 1 || resp.Topics[0].ErrorCode != 0 {
		c.t.Fatalf("create %s: %+v", topic, resp.Topics)
	}
	return resp.Topics[0].TopicID
}

// batch is a record batch to be.
type batch struct {
	kmsg.RecordBatch
	values     []string
	timestamps []int64
	gzip       bool
}

// newBatch returns a batch without a producer, stamped with the time now.
func newBatch(values ...string) *batch {
	b := &batch{values: values}
	now := time.Now().UnixMilli()
	for range values {
		b.timestamps = append(b.timestamps, now)
	}
	b.Magic, b.PartitionLeaderEpoch = 2, -1
	b.ProducerID, b.ProducerEpoch, b.FirstSequence = -1, -1, -1
	b.NumRecords, b.LastOffsetDelta = int32(len(values)), int32(len(values))-1
	return b
}

// from makes the batch an idempotent producer's.
func (b *batch) from(id int64, epoch int16, sequence int32) *batch {
	b.ProducerID, b.ProducerEpoch, b.FirstSequence = id, epoch, sequence
	return b
}

// at sets the records' timestamps.
func (b *batch) at(ms ...int64) *batch {
	b.timestamps = ms
	return b
}

// encode returns the batch's bytes with a true length and CRC.
func (b *batch) encode() []byte {
	var records []byte
	b.FirstTimestamp, b.MaxTimestamp = b.timestamps[0], b.timestamps[0]
	for i, v := range b.values {
		b.MaxTimestamp = max(b.MaxTimestamp, b.timestamps[i])
		r := kmsg.NewRecord()
		r.TimestampDelta64, r.OffsetDelta, r.Value = b.timestamps[i]-b.FirstTimestamp, int32(i), []byte(v)
		r.Length = int32(len(r.AppendTo(nil)) - 1)
		body := r.AppendTo(nil)
		_, n := binary.Varint(body)
		r.Length = int32(len(body) - n)
		records = r.AppendTo(records)
	}
	if b.gzip {
		var z bytes.Buffer
		w := gzip.NewWriter(&z)
		_, _ = w.Write(records)
		_ = w.Close()
		records, b.Attributes = z.Bytes(), b.Attributes|1
	}
	b.Records = records
	out := b.AppendTo(nil)
	binary.BigEndian.PutUint32(out[8:], uint32(len(out)-12))
	return sum(out)
}

// sum stores the CRC.
func sum(b []byte) []byte {
	binary.BigEndian.PutUint32(b[17:], crc32.Checksum(b[21:], crc32.MakeTable(crc32.Castagnoli)))
	return b
}

// produceRequest is a request for one partition of each batch: partitions 0, 1, and so on.
func produceRequest(topic string, acks int16, batches ...[]byte) *kmsg.ProduceRequest {
	req := kmsg.NewPtrProduceRequest()
	req.Acks, req.TimeoutMillis = acks, int32(patience/time.Millisecond)
	rt := kmsg.NewProduceRequestTopic()
	rt.Topic = topic
	for i, b := range batches {
		rp := kmsg.NewProduceRequestTopicPartition()
		rp.Partition, rp.Records = int32(i), b
		rt.Partitions = append(rt.Partitions, rp)
	}
	req.Topics = append(req.Topics, rt)
	return req
}

// produce sends batches to the first partitions of the topic t and returns the partitions' answers.
func (c *conn) produce(acks int16, batches ...[]byte) []kmsg.ProduceResponseTopicPartition {
	c.t.Helper()
	const topic = "t"
	resp := ask[*kmsg.ProduceResponse](c, 9, produceRequest(topic, acks, batches...))
	if len(resp.Topics) != 1 || len(resp.Topics[0].Partitions) != len(batches) {
		c.t.Fatalf("produce to %s: %+v", topic, resp.Topics)
	}
	return resp.Topics[0].Partitions
}

// mustProduce appends to partition 0 of the topic t with acks=all and returns the base offset.
func (c *conn) mustProduce(b *batch) int64 {
	c.t.Helper()
	p := c.produce(-1, b.encode())[0]
	if p.ErrorCode != 0 {
		c.t.Fatalf("produce: %s", name(p.ErrorCode))
	}
	return p.BaseOffset
}

// fetchRequest asks for partition 0 from an offset, with no waiting.
func fetchRequest(topic string, offset int64) *kmsg.FetchRequest {
	req := kmsg.NewPtrFetchRequest()
	req.MaxBytes, req.MinBytes, req.SessionEpoch = 1<<20, 1, -1
	rt := kmsg.NewFetchRequestTopic()
	rt.Topic = topic
	rp := kmsg.NewFetchRequestTopicPartition()
	rp.FetchOffset, rp.PartitionMaxBytes, rp.CurrentLeaderEpoch, rp.LastFetchedEpoch = offset, 1<<20, -1, -1
	rt.Partitions = append(rt.Partitions, rp)
	req.Topics = append(req.Topics, rt)
	return req
}

func one(t *testing.T, resp *kmsg.FetchResponse) *kmsg.FetchResponseTopicPartition {
	t.Helper()
	if resp.ErrorCode != 0 || len(resp.Topics) != 1 || len(resp.Topics[0].Partitions) != 1 {
		t.Fatalf("fetch: %s, %+v", name(resp.ErrorCode), resp.Topics)
	}
	return &resp.Topics[0].Partitions[0]
}

// fetch reads partition 0 of the topic t from an offset.
func (c *conn) fetch(offset int64) *kmsg.FetchResponseTopicPartition {
	c.t.Helper()
	return one(c.t, ask[*kmsg.FetchResponse](c, 12, fetchRequest("t", offset)))
}

// batches splits what a fetch returned.
func batches(t *testing.T, b []byte) []kmsg.RecordBatch {
	t.Helper()
	var out []kmsg.RecordBatch
	for len(b) > 0 {
		n := 12 + int(binary.BigEndian.Uint32(b[8:]))
		if n > len(b) {
			t.Fatalf("a batch of %d bytes with %d left", n, len(b))
		}
		var rb kmsg.RecordBatch
		if err := rb.ReadFrom(b[:n]); err != nil {
			t.Fatal(err)
		}
		if crc := crc32.Checksum(b[21:n], crc32.MakeTable(crc32.Castagnoli)); int32(crc) != rb.CRC {
			t.Fatalf("CRC of the batch at %d is wrong", rb.FirstOffset)
		}
		out = append(out, rb)
		b = b[n:]
	}
	return out
}
