package broker_test

import (
	"context"
	"errors"
	"io"
	"math"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tierlog/tierlog/objstore"
	"github.com/tierlog/tierlog/objstore/mem"
	"github.com/tierlog/tierlog/objstore/objtest"
)

// TestIdempotentProducer repeats, skips and renews.
func TestIdempotentProducer(t *testing.T) {
	n := startNode(t, nil)
	c := n.conn()
	c.createTopic("t", 1)
	init := ask[*kmsg.InitProducerIDResponse](c, 4, kmsg.NewPtrInitProducerIDRequest())
	id := init.ProducerID
	if init.ErrorCode != 0 || id < 0 || init.ProducerEpoch != 0 {
		t.Fatalf("init producer id: %+v", init)
	}
	if again := ask[*kmsg.InitProducerIDResponse](c, 4, kmsg.NewPtrInitProducerIDRequest()); again.ProducerID == id {
		t.Error("two producers got one id")
	}
	steps := func(when string) {
		for _, s := range []struct {
			name     string
			epoch    int16
			sequence int32
			want     *kerr.Error
			offset   int64
		}{
			{"repeated", 0, 0, nil, 0},
			{"the last one repeated", 0, 4, nil, 4},
			{"a gap", 0, 8, kerr.OutOfOrderSequenceNumber, -1},
			{"an epoch that starts in the middle", 1, 6, kerr.OutOfOrderSequenceNumber, -1},
		} {
			p := c.produce(-1, newBatch("a", "b").from(id, s.epoch, s.sequence).encode())[0]
			wantCode(t, when+": "+s.name, p.ErrorCode, s.want)
			if p.BaseOffset != s.offset {
				t.Errorf("%s: %s: offset %d, want %d", when, s.name, p.BaseOffset, s.offset)
			}
		}
	}
	for seq := range int32(3) {
		if at := c.mustProduce(newBatch("a", "b").from(id, 0, 2*seq)); at != int64(2*seq) {
			t.Errorf("sequence %d is at %d", 2*seq, at)
		}
	}
	steps("at first")
	n.restart()
	c = n.conn()
	steps("after a restart")
	if at := c.mustProduce(newBatch("a", "b").from(id, 1, 0)); at != 6 {
		t.Errorf("the new epoch starts at %d", at)
	}
	p := c.produce(-1, newBatch("a", "b").from(id, 0, 6).encode())[0]
	wantCode(t, "an older epoch", p.ErrorCode, kerr.InvalidProducerEpoch)
	if f := c.fetch(0); f.HighWatermark != 8 {
		t.Errorf("the high watermark is %d, want 8", f.HighWatermark)
	}
	txn := kmsg.NewPtrInitProducerIDRequest()
	txn.TransactionalID = new("tx")
	if got := ask[*kmsg.InitProducerIDResponse](c, 4, txn); got.ErrorCode == 0 || got.ProducerID != -1 {
		t.Errorf("a transactional id: %+v", got)
	}
	req := produceRequest("t", -1, newBatch("x").encode())
	req.TransactionID = new("tx")
	wantCode(t, "transactional produce", ask[*kmsg.ProduceResponse](c, 9, req).Topics[0].Partitions[0].ErrorCode, kerr.TransactionalIDAuthorizationFailed)
}

// TestAcks sends with every level: 0 gets no answer but the records are there, and the order of answers holds.
func TestAcks(t *testing.T) {
	c := startNode(t, nil).conn()
	c.createTopic("t", 1)
	zero := produceRequest("t", 0, newBatch("zero").encode())
	zero.SetVersion(9)
	c.send(zero)
	if p := c.produce(1, newBatch("one").encode())[0]; p.ErrorCode != 0 || p.BaseOffset != 1 {
		t.Errorf("acks=1: %s at %d", name(p.ErrorCode), p.BaseOffset)
	}
	if at := c.mustProduce(newBatch("all")); at != 2 {
		t.Errorf("acks=all: at %d", at)
	}
	if f := c.fetch(0); f.HighWatermark != 3 {
		t.Errorf("the high watermark is %d, want 3", f.HighWatermark)
	}
	wantCode(t, "acks=2", c.produce(2, newBatch("x").encode())[0].ErrorCode, kerr.InvalidRequiredAcks)
	bad := newBatch("zero").encode()
	bad[len(bad)-1] ^= 1
	zero = produceRequest("t", 0, bad)
	zero.SetVersion(9)
	c.send(zero)
	c.closed("acks=0 with a bad batch")
}

// TestProduceTimesOut while the bucket is stuck: the answer is REQUEST_TIMED_OUT, nothing is readable; when the bucket
// goes on, so does the connection, with no late answer.
func TestProduceTimesOut(t *testing.T) {
	var stuck atomic.Bool
	free := make(chan struct{})
	store := objtest.NewFaulty(mem.New(), objtest.FaultConfig{Before: func(_ context.Context, c objtest.Call) error {
		if stuck.Load() && c.Purpose == objstore.PurposeWAL {
			<-free
		}
		return nil
	}})
	n := startNodeOn(t, store, nil)
	c := n.conn()
	c.createTopic("t", 1)
	c.mustProduce(newBatch("before"))
	stuck.Store(true)
	req := produceRequest("t", -1, newBatch("stuck").encode())
	req.TimeoutMillis = 50
	p := ask[*kmsg.ProduceResponse](c, 9, req).Topics[0].Partitions[0]
	wantCode(t, "stuck", p.ErrorCode, kerr.RequestTimedOut)
	if p.BaseOffset != -1 {
		t.Errorf("a time-out with offset %d", p.BaseOffset)
	}
	if f := c.fetch(1); f.HighWatermark != 1 || len(f.RecordBatches) > 0 {
		t.Errorf("what is not durable is readable: %+v", f)
	}
	if local := c.produce(1, newBatch("local").encode())[0]; local.ErrorCode != 0 || local.BaseOffset != 2 {
		t.Errorf("acks=1 beside a stuck bucket: %s at %d", name(local.ErrorCode), local.BaseOffset)
	}
	stuck.Store(false)
	close(free)
	if at := c.mustProduce(newBatch("after")); at != 3 { // its answer is the next on the wire
		t.Errorf("after: at %d, want 3", at)
	}
	if f := c.fetch(0); f.HighWatermark != 4 {
		t.Errorf("the high watermark is %d, want 4", f.HighWatermark)
	}
}

// TestFetchBounds: a batch larger than every bound is returned if it is the first, offsets out of range are refused,
// leader epochs are checked.
func TestFetchBounds(t *testing.T) {
	n := startNode(t, nil)
	c := n.conn()
	id := c.createTopic("t", 1)
	for range 3 {
		c.mustProduce(newBatch(strings.Repeat("x", 1000), "y"))
	}
	for _, tc := range []struct {
		name             string
		offset           int64
		max, maxPart     int32
		current          int32
		wantBatches      int
		wantFirst, wantH int64
		want             *kerr.Error
	}{
		{"all", 0, 1 << 20, 1 << 20, -1, 3, 0, 6, nil},
		{"first larger than the partition's bound", 0, 1 << 20, 10, -1, 1, 0, 6, nil},
		{"first larger than the request's bound", 0, 10, 1 << 20, -1, 1, 0, 6, nil},
		{"two fit", 0, 1 << 20, 2500, -1, 2, 0, 6, nil},
		{"in the middle of a batch", 3, 1 << 20, 1 << 20, -1, 2, 2, 6, nil},
		{"at the end", 6, 1 << 20, 1 << 20, -1, 0, 0, 6, nil},
		{"beyond the end", 7, 1 << 20, 1 << 20, -1, 0, 0, 6, kerr.OffsetOutOfRange},
		{"negative", -3, 1 << 20, 1 << 20, -1, 0, 0, 6, kerr.OffsetOutOfRange},
		{"the leader epoch", 0, 1 << 20, 1 << 20, 0, 3, 0, 6, nil},
		{"a later leader epoch", 0, 1 << 20, 1 << 20, 5, 0, 0, -1, kerr.UnknownLeaderEpoch},
	} {
		req := fetchRequest("t", tc.offset)
		req.MaxBytes = tc.max
		req.Topics[0].Partitions[0].PartitionMaxBytes, req.Topics[0].Partitions[0].CurrentLeaderEpoch = tc.maxPart, tc.current
		f := one(t, ask[*kmsg.FetchResponse](c, 12, req))
		wantCode(t, tc.name, f.ErrorCode, tc.want)
		b := batches(t, f.RecordBatches)
		if len(b) != tc.wantBatches || len(b) > 0 && b[0].FirstOffset != tc.wantFirst || f.HighWatermark != tc.wantH {
			t.Errorf("%s: %d batches, high watermark %d", tc.name, len(b), f.HighWatermark)
		}
	}
	session := fetchRequest("t", 0)
	session.SessionEpoch = 0
	if resp := ask[*kmsg.FetchResponse](c, 12, session); resp.SessionID != 0 || len(batches(t, one(t, resp).RecordBatches)) != 3 {
		t.Errorf("a new session: id %d", resp.SessionID)
	}
	session.SessionID, session.SessionEpoch = 77, 1
	wantCode(t, "an unknown session", ask[*kmsg.FetchResponse](c, 12, session).ErrorCode, kerr.FetchSessionIDNotFound)
	byID := fetchRequest("", 0)
	byID.Topics[0].TopicID = id
	if f := one(t, ask[*kmsg.FetchResponse](c, 18, byID)); len(batches(t, f.RecordBatches)) != 3 {
		t.Error("nothing by topic id")
	}
	committed := fetchRequest("t", 0)
	committed.IsolationLevel = 1
	if f := one(t, ask[*kmsg.FetchResponse](c, 11, committed)); len(batches(t, f.RecordBatches)) != 3 || f.LastStableOffset != 6 {
		t.Errorf("read committed: last stable offset %d", f.LastStableOffset)
	}
}

// TestFetchWaits: a long poll wakes with the data it waits for, and returns empty when the time is up.
func TestFetchWaits(t *testing.T) {
	n := startNode(t, nil)
	c, producer := n.conn(), n.conn()
	c.createTopic("t", 1)
	req := fetchRequest("t", 0)
	req.MaxWaitMillis = int32(patience / time.Millisecond)
	req.SetVersion(12)
	id := c.send(req)
	producer.mustProduce(newBatch("wakes"))
	resp, err := c.receive(req, id)
	if err != nil {
		t.Fatal(err)
	}
	if b := batches(t, one(t, resp.(*kmsg.FetchResponse)).RecordBatches); len(b) != 1 {
		t.Errorf("%d batches", len(b))
	}
	req.MinBytes = 500 // more than one small batch
	id = c.send(req)
	producer.mustProduce(newBatch("not enough"))
	producer.mustProduce(newBatch(strings.Repeat("enough", 100)))
	if resp, err = c.receive(req, id); err != nil {
		t.Fatal(err)
	}
	if b := batches(t, one(t, resp.(*kmsg.FetchResponse)).RecordBatches); len(b) != 3 {
		t.Errorf("min bytes: %d batches, want 3", len(b))
	}
	req.MinBytes, req.MaxWaitMillis = math.MaxInt32, 30
	begin := time.Now()
	if resp, err = c.receive(req, c.send(req)); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(begin); took < 30*time.Millisecond || len(one(t, resp.(*kmsg.FetchResponse)).RecordBatches) == 0 {
		t.Errorf("after %v: what is there must be returned when the time is up", took)
	}
	req.Topics[0].Partitions[0].FetchOffset, req.MaxWaitMillis, req.MinBytes = 3, int32(patience/time.Millisecond), 1
	id = c.send(req)
	del := kmsg.NewPtrDeleteTopicsRequest()
	del.TopicNames = []string{"t"}
	ask[*kmsg.DeleteTopicsResponse](producer, 4, del)
	if resp, err = c.receive(req, id); err != nil {
		t.Fatal(err)
	}
	if code := one(t, resp.(*kmsg.FetchResponse)).ErrorCode; code == 0 {
		t.Error("a long poll on a deleted topic was answered without an error")
	}
	other := n.conn()
	other.createTopic("u", 1)
	u := fetchRequest("u", 0)
	u.MaxWaitMillis = int32(patience / time.Millisecond)
	u.SetVersion(12)
	other.send(u)
	n.stop() // a waiting fetch does not hold up an orderly stop
	if _, err := other.frame(); err != nil && !errors.Is(err, io.EOF) {
		t.Errorf("the waiting fetch ended with %v", err)
	}
}

func (c *conn) list(topic string, ts int64) kmsg.ListOffsetsResponseTopicPartition {
	c.t.Helper()
	return ask[*kmsg.ListOffsetsResponse](c, 11, listRequest(topic, ts)).Topics[0].Partitions[0]
}

// TestListOffsets by timestamp and by the special ones, in plain and compressed batches, before and after a restart.
func TestListOffsets(t *testing.T) {
	n := startNode(t, nil)
	c := n.conn()
	c.createTopic("t", 1)
	c.createTopic("empty", 1)
	base := time.Now().UnixMilli() - 100_000
	c.mustProduce(newBatch("0", "1", "2").at(base, base+10, base+20))
	compressed := newBatch("3", "4", "5").at(base+30, base+60, base+50)
	compressed.gzip = true
	c.mustProduce(compressed)
	c.mustProduce(newBatch("6").at(base + 40))
	check := func(when string) {
		for _, tc := range []struct {
			name       string
			ts         int64
			offset, at int64
		}{
			{"earliest", -2, 0, -1},
			{"latest", -1, 7, -1},
			{"max timestamp", -3, 4, base + 60},
			{"earliest local", -4, 0, -1},
			{"latest tiered", -5, -1, -1},
			{"before all", base - 1, 0, base},
			{"the first", base, 0, base},
			{"between", base + 11, 2, base + 20},
			{"in a compressed batch", base + 31, 4, base + 60},
			{"the last in order", base + 60, 4, base + 60},
			{"after all", base + 61, -1, -1},
		} {
			p := c.list("t", tc.ts)
			if p.ErrorCode != 0 || p.Offset != tc.offset || p.Timestamp != tc.at {
				t.Errorf("%s: %s: %s, offset %d at %d, want %d at %d", when, tc.name, name(p.ErrorCode), p.Offset, p.Timestamp-base, tc.offset, tc.at-base)
			}
		}
	}
	check("at first")
	for ts, want := range map[int64]int64{-1: 0, -2: 0, -3: -1, 0: -1} {
		if p := c.list("empty", ts); p.ErrorCode != 0 || p.Offset != want {
			t.Errorf("empty, timestamp %d: %s, offset %d, want %d", ts, name(p.ErrorCode), p.Offset, want)
		}
	}
	n.restart()
	c = n.conn()
	check("after a restart")
	old := ask[*kmsg.ListOffsetsResponse](c, 6, listRequest("t", -3)).Topics[0].Partitions[0]
	wantCode(t, "max timestamp in version 6", old.ErrorCode, kerr.UnsupportedVersion)
}

// TestLogAppendTime stamps batches when they arrive, whatever the producer says.
func TestLogAppendTime(t *testing.T) {
	c := startNode(t, nil).conn()
	c.createTopic("t", 1, "message.timestamp.type", "LogAppendTime")
	before := time.Now().UnixMilli()
	b := newBatch("a", "b").at(5, 7)
	b.gzip = true
	p := c.produce(-1, b.encode())[0]
	after := time.Now().UnixMilli()
	if p.ErrorCode != 0 || p.LogAppendTime < before || p.LogAppendTime > after {
		t.Fatalf("%s, stamped %d, want %d to %d", name(p.ErrorCode), p.LogAppendTime, before, after)
	}
	got := batches(t, c.fetch(0).RecordBatches)[0]
	if got.Attributes&8 == 0 || got.MaxTimestamp != p.LogAppendTime {
		t.Errorf("attributes %x, max timestamp %d, want LogAppendTime %d", got.Attributes, got.MaxTimestamp, p.LogAppendTime)
	}
	for ts, want := range map[int64]int64{7: 0, p.LogAppendTime: 0, p.LogAppendTime + 1: -1} {
		if l := c.list("t", ts); l.Offset != want {
			t.Errorf("offset for %d is %d, want %d", ts, l.Offset, want)
		}
	}
}

// TestLeaderEpochs grow with every life of the broker; who believes in an older one is told so.
func TestLeaderEpochs(t *testing.T) {
	n := startNode(t, nil)
	n.conn().createTopic("t", 1)
	for life := range int32(3) {
		c := n.conn()
		if got := c.metadata(false, "t")["t"].Partitions[0].LeaderEpoch; got != life {
			t.Errorf("life %d has the leader epoch %d", life, got)
		}
		c.mustProduce(newBatch("a", "b"))
		for epoch := range life + 1 {
			p := ask[*kmsg.OffsetForLeaderEpochResponse](c, 4, epochRequest("t", life, epoch)).Topics[0].Partitions[0]
			if p.ErrorCode != 0 || p.LeaderEpoch != epoch || p.EndOffset != int64(2*epoch+2) {
				t.Errorf("life %d: epoch %d ends at %d (%s, epoch %d), want %d", life, epoch, p.EndOffset, name(p.ErrorCode), p.LeaderEpoch, 2*epoch+2)
			}
		}
		future := ask[*kmsg.OffsetForLeaderEpochResponse](c, 4, epochRequest("t", -1, life+1)).Topics[0].Partitions[0]
		if future.ErrorCode != 0 || future.LeaderEpoch != -1 || future.EndOffset != -1 {
			t.Errorf("a future epoch: %+v", future)
		}
		for current, want := range map[int32]*kerr.Error{life - 1: kerr.FencedLeaderEpoch, life + 1: kerr.UnknownLeaderEpoch} {
			if current < 0 {
				continue
			}
			f := fetchRequest("t", 0)
			f.Topics[0].Partitions[0].CurrentLeaderEpoch = current
			wantCode(t, "fetch", one(t, ask[*kmsg.FetchResponse](c, 12, f)).ErrorCode, want)
			l := listRequest("t", -1)
			l.Topics[0].Partitions[0].CurrentLeaderEpoch = current
			wantCode(t, "list offsets", ask[*kmsg.ListOffsetsResponse](c, 4, l).Topics[0].Partitions[0].ErrorCode, want)
			e := ask[*kmsg.OffsetForLeaderEpochResponse](c, 4, epochRequest("t", current, 0)).Topics[0].Partitions[0]
			wantCode(t, "offset for leader epoch", e.ErrorCode, want)
		}
		diverged := fetchRequest("t", int64(2*life+2))
		diverged.Topics[0].Partitions[0].LastFetchedEpoch = life
		if f := one(t, ask[*kmsg.FetchResponse](c, 12, diverged)); f.DivergingEpoch.Epoch != -1 {
			t.Errorf("a reader of this history diverges at %+v", f.DivergingEpoch)
		}
		if life > 0 {
			diverged.Topics[0].Partitions[0].LastFetchedEpoch = 0
			if f := one(t, ask[*kmsg.FetchResponse](c, 12, diverged)); f.DivergingEpoch.Epoch != 0 || f.DivergingEpoch.EndOffset != 2 {
				t.Errorf("a reader of another history diverges at %+v, want epoch 0, offset 2", f.DivergingEpoch)
			}
		}
		for _, b := range batches(t, c.fetch(0).RecordBatches) {
			if int64(b.PartitionLeaderEpoch) != b.FirstOffset/2 {
				t.Errorf("the batch at %d has the leader epoch %d", b.FirstOffset, b.PartitionLeaderEpoch)
			}
		}
		n.restart()
	}
}
