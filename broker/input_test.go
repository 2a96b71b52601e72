package broker_test

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// closed wants the connection to end without an answer.
func (c *conn) closed(what string) {
	c.t.Helper()
	b, err := io.ReadAll(c.nc)
	if len(b) > 0 || err != nil && !errors.Is(err, syscall.ECONNRESET) {
		c.t.Errorf("%s: got %d bytes, %v; want the connection closed", what, len(b), err)
	}
}

// TestStrangersOnTheKafkaPort sends what no Kafka client sends. Each connection is closed, with a line in the log, and
// the broker goes on.
func TestStrangersOnTheKafkaPort(t *testing.T) {
	n := startNode(t, nil)
	good := n.conn()
	good.createTopic("t", 1)
	want := good.mustProduce(newBatch("before"))
	random := make([]byte, 4096)
	r := rand.New(rand.NewPCG(7, 7))
	for i := range random {
		random[i] = byte(r.Uint32())
	}
	random[0] |= 0x40 // a length beyond every limit
	request := kmsg.NewRequestFormatter().AppendRequest(nil, produceRequest("t", -1, newBatch("cut").encode()), 1)
	var strangers sync.WaitGroup
	for _, tc := range []struct {
		name, says string
		bytes      []byte
	}{
		{"random bytes", "frame length", random},
		{"http", "HTTP", []byte("GET / HTTP/1.1\r\nHost: broker\r\n\r\n")},
		{"2 GiB", "frame length 2147483647", binary.BigEndian.AppendUint32(nil, math.MaxInt32)},
		{"negative length", "frame length -1", binary.BigEndian.AppendUint32(nil, math.MaxUint32)},
		{"unknown api", "api key 999", kmsgHeader(999, 0)},
		{"api that is not served", "api key 11", kmsgHeader(11, 0)},
		{"unknown version", "version 99", kmsgHeader(3, 99)},
		{"cut in the middle", "", request[:len(request)/2]},
		{"body that is no request", "malformed", append(binary.BigEndian.AppendUint32(nil, 14), kmsgHeader(3, 1)[4:18]...)},
	} {
		strangers.Go(func() { // side by side: the broker lets the peer read its fate for a second
			c := n.conn()
			if _, err := c.nc.Write(tc.bytes); err != nil {
				t.Error(err)
			}
			if tc.says == "" {
				_ = c.nc.(*net.TCPConn).CloseWrite()
			}
			c.closed(tc.name)
			n.logged(tc.says)
		})
	}
	strangers.Wait()
	c := n.conn()
	if err := tls.Client(c.nc, &tls.Config{InsecureSkipVerify: true}).Handshake(); err == nil { //nolint:gosec,noctx // it must fail
		t.Error("a TLS handshake succeeded")
	}
	n.logged("TLS")
	if got := good.mustProduce(newBatch("after")); got != want+1 {
		t.Errorf("offset %d after the strangers, want %d: nothing of theirs may be stored", got, want+1)
	}
}

// logged waits until the log says something: a connection's end is logged after its peer sees it.
func (n *node) logged(text string) {
	n.t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	end := time.NewTimer(patience)
	defer end.Stop()
	for !strings.Contains(n.log.String(), text) {
		select {
		case <-tick.C:
		case <-end.C:
			n.t.Errorf("no line of the log says %q:\n%s", text, n.log.String())
			return
		}
	}
}

// kmsgHeader is a frame with a header and a few bytes.
func kmsgHeader(key, version int16) []byte {
	b := binary.BigEndian.AppendUint32(nil, 32)
	b = binary.BigEndian.AppendUint16(b, uint16(key))
	b = binary.BigEndian.AppendUint16(b, uint16(version))
	b = binary.BigEndian.AppendUint32(b, 1)
	b = append(b, 0xff, 0xff)
	return append(b, bytes.Repeat([]byte{0x7f}, 22)...)
}

// TestApiVersionsTooNew gets the list in version 0, with UNSUPPORTED_VERSION, and can go on with what the list says.
func TestApiVersionsTooNew(t *testing.T) {
	c := startNode(t, nil).conn()
	if _, err := c.nc.Write(kmsgHeader(18, 99)); err != nil {
		t.Fatal(err)
	}
	b, err := c.frame()
	if err != nil {
		t.Fatal(err)
	}
	resp := kmsg.NewPtrApiVersionsResponse()
	if err := resp.ReadFrom(b[4:]); err != nil {
		t.Fatal(err)
	}
	wantCode(t, "api versions 99", resp.ErrorCode, kerr.UnsupportedVersion)
	if len(resp.ApiKeys) < 15 {
		t.Errorf("%d keys are listed", len(resp.ApiKeys))
	}
	unnamed := kmsg.NewPtrApiVersionsRequest()
	wantCode(t, "api versions without a name", ask[*kmsg.ApiVersionsResponse](c, 3, unnamed).ErrorCode, kerr.InvalidRequest)
	wantCode(t, "api versions", ask[*kmsg.ApiVersionsResponse](c, 3, namedClient()).ErrorCode, nil)
}

// TestBadBatches sends one bad batch beside a good one: the bad one gets Kafka's code, the good one is stored.
func TestBadBatches(t *testing.T) {
	n := startNode(t, nil)
	c := n.conn()
	c.createTopic("t", 2, "max.message.bytes", "1000", "message.timestamp.before.max.ms", "60000", "message.timestamp.after.max.ms", "60000")
	now := time.Now().UnixMilli()
	put32 := func(at int, v uint32) func([]byte) []byte {
		return func(b []byte) []byte {
			binary.BigEndian.PutUint32(b[at:], v)
			return b
		}
	}
	set := func(at int, v byte) func([]byte) []byte {
		return func(b []byte) []byte {
			b[at] = v
			return b
		}
	}
	resum := func(f func([]byte) []byte) func([]byte) []byte {
		return func(b []byte) []byte { return sum(f(b)) }
	}
	for i, tc := range []struct {
		name string
		want *kerr.Error
		b    *batch
		edit func([]byte) []byte
	}{
		{"wrong crc", kerr.CorruptMessage, nil, put32(17, 1)},
		{"flipped bit", kerr.CorruptMessage, nil, func(b []byte) []byte { b[len(b)-1] ^= 1; return b }},
		{"count above delta", kerr.InvalidRecord, nil, resum(put32(57, 3))},
		{"count below delta", kerr.InvalidRecord, nil, resum(put32(57, 1))},
		{"no records", kerr.InvalidRecord, nil, resum(put32(57, 0))},
		{"negative count", kerr.InvalidRecord, nil, resum(put32(57, math.MaxUint32))},
		{"delta too large", kerr.InvalidRecord, nil, resum(put32(23, 9))},
		{"negative delta", kerr.InvalidRecord, nil, resum(put32(23, math.MaxUint32))},
		{"magic 0", kerr.InvalidRecord, nil, set(16, 0)},
		{"magic 1", kerr.InvalidRecord, nil, set(16, 1)},
		{"magic 3", kerr.InvalidRecord, nil, set(16, 3)},
		{"codec 5", kerr.UnsupportedCompressionType, nil, resum(set(22, 5))},
		{"control batch", kerr.InvalidRecord, nil, resum(set(22, 0x20))},
		{"transactional without a producer", kerr.InvalidRecord, nil, resum(set(22, 0x10))},
		{"length too large", kerr.CorruptMessage, nil, put32(8, 1<<20)},
		{"length too small", kerr.CorruptMessage, nil, put32(8, 3)},
		{"negative length", kerr.CorruptMessage, nil, put32(8, math.MaxUint32)},
		{"cut", kerr.CorruptMessage, nil, func(b []byte) []byte { return b[:len(b)-3] }},
		{"shorter than a header", kerr.CorruptMessage, nil, func(b []byte) []byte { return b[:40] }},
		{"two batches", kerr.InvalidRecord, nil, func(b []byte) []byte { return append(b, b...) }},
		{"too large", kerr.MessageTooLarge, newBatch(strings.Repeat("x", 1000)), nil},
		{"too old", kerr.InvalidTimestamp, newBatch("x").at(now - 120_000), nil},
		{"from the future", kerr.InvalidTimestamp, newBatch("x").at(now + 120_000), nil},
		{"negative timestamp", kerr.InvalidTimestamp, newBatch("x").at(-5), nil},
		{"producer without a sequence", kerr.InvalidRecord, newBatch("x").from(1, 0, -1), nil},
	} {
		if tc.b == nil {
			tc.b = newBatch("one", "two")
		}
		raw := tc.b.encode()
		if tc.edit != nil {
			raw = tc.edit(raw)
		}
		p := c.produce(-1, raw, newBatch("good").encode())
		wantCode(t, tc.name, p[0].ErrorCode, tc.want)
		if p[0].BaseOffset != -1 {
			t.Errorf("%s: a refused batch got the offset %d", tc.name, p[0].BaseOffset)
		}
		if p[0].ErrorMessage == nil || *p[0].ErrorMessage == "" {
			t.Errorf("%s: no message", tc.name)
		}
		if p[1].ErrorCode != 0 || p[1].BaseOffset != int64(i) {
			t.Errorf("%s: the good batch beside it got %s, offset %d, want %d", tc.name, name(p[1].ErrorCode), p[1].BaseOffset, i)
		}
	}
	if f := c.fetch(0); f.HighWatermark != 0 {
		t.Errorf("the high watermark of bad batches is %d", f.HighWatermark)
	}
}

// TestZstdNeedsVersion7 as in Kafka: older consumers could not be told that they cannot read it.
func TestZstdNeedsVersion7(t *testing.T) {
	c := startNode(t, nil).conn()
	c.createTopic("t", 1)
	raw := newBatch("x").encode()
	raw[22] |= 4
	sum(raw)
	old := ask[*kmsg.ProduceResponse](c, 6, produceRequest("t", -1, raw))
	wantCode(t, "zstd in version 6", old.Topics[0].Partitions[0].ErrorCode, kerr.UnsupportedCompressionType)
}

// TestNullRecords is a partition without records.
func TestNullRecords(t *testing.T) {
	c := startNode(t, nil).conn()
	c.createTopic("t", 1)
	for _, b := range [][]byte{nil, {}} {
		p := c.produce(-1, b)[0]
		if p.ErrorCode == 0 || p.BaseOffset != -1 {
			t.Errorf("records %v: %s, offset %d", b, name(p.ErrorCode), p.BaseOffset)
		}
	}
}

// TestUnknownTopicsAndPartitions in every request that names them.
func TestUnknownTopicsAndPartitions(t *testing.T) {
	c := startNode(t, map[string]string{"auto.create.topics.enable": "false"}).conn()
	id := c.createTopic("t", 1)
	for topic, partition := range map[string]int32{"no": 0, "t": 7} {
		p := produceRequest(topic, -1, newBatch("x").encode())
		p.Topics[0].Partitions[0].Partition = partition
		got := ask[*kmsg.ProduceResponse](c, 9, p).Topics[0].Partitions[0]
		wantCode(t, "produce", got.ErrorCode, kerr.UnknownTopicOrPartition)
		f := fetchRequest(topic, 0)
		f.Topics[0].Partitions[0].Partition = partition
		wantCode(t, "fetch", one(t, ask[*kmsg.FetchResponse](c, 12, f)).ErrorCode, kerr.UnknownTopicOrPartition)
		l := listRequest(topic, -1)
		l.Topics[0].Partitions[0].Partition = partition
		lp := ask[*kmsg.ListOffsetsResponse](c, 7, l).Topics[0].Partitions[0]
		wantCode(t, "list offsets", lp.ErrorCode, kerr.UnknownTopicOrPartition)
		if lp.Offset != -1 {
			t.Errorf("an error with offset %d", lp.Offset)
		}
		e := epochRequest(topic, -1, 0)
		e.Topics[0].Partitions[0].Partition = partition
		ep := ask[*kmsg.OffsetForLeaderEpochResponse](c, 4, e).Topics[0].Partitions[0]
		wantCode(t, "offset for leader epoch", ep.ErrorCode, kerr.UnknownTopicOrPartition)
	}
	id[3] ^= 1
	p := produceRequest("", -1, newBatch("x").encode())
	p.Topics[0].TopicID = id
	wantCode(t, "produce", ask[*kmsg.ProduceResponse](c, 13, p).Topics[0].Partitions[0].ErrorCode, kerr.UnknownTopicID)
	f := fetchRequest("", 0)
	f.Topics[0].TopicID = id
	wantCode(t, "fetch", one(t, ask[*kmsg.FetchResponse](c, 13, f)).ErrorCode, kerr.UnknownTopicID)
	m := kmsg.NewPtrMetadataRequest()
	m.Topics = []kmsg.MetadataRequestTopic{{TopicID: id}}
	wantCode(t, "metadata", ask[*kmsg.MetadataResponse](c, 12, m).Topics[0].ErrorCode, kerr.UnknownTopicID)
}
