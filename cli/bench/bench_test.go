package bench

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

func broker(t *testing.T, partitions int32) (*kfake.Cluster, Dial) {
	t.Helper()
	c, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(partitions, "t"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c, func(ctx context.Context, opts ...kgo.Opt) (*kgo.Client, error) {
		cl, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(c.ListenAddrs()...)}, opts...)...)
		if err == nil {
			err = cl.Ping(ctx)
		}
		return cl, err
	}
}

func testLoad(t *testing.T) Load {
	t.Helper()
	p, err := NewPayload("random", 100, false)
	if err != nil {
		t.Fatal(err)
	}
	return Load{
		Topic: "t", Partitions: 2, Producers: 1, Records: 1000, RecordSize: 100, Payload: p, Now: time.Now,
		Options: []kgo.Opt{kgo.ProducerBatchCompression(kgo.NoCompression())},
	}
}

func spans(c *kfake.Cluster, partitions int32) map[int32]Span {
	out := map[int32]Span{}
	for p := range partitions {
		out[p] = Span{0, c.PartitionInfo("t", p).HighWatermark}
	}
	return out
}

func TestProduceAndConsume(t *testing.T) {
	c, dial := broker(t, 5)
	load := testLoad(t)
	load.Producers, load.Records = 3, 100001
	r, err := Produce(t.Context(), dial, load)
	if err != nil {
		t.Fatal(err)
	}
	if r.Records != load.Records || r.Failed != 0 || r.Bytes != load.Records*100 || r.WireBytes < r.Bytes || r.Ack == nil || r.Seconds <= 0 || r.MiB <= 0 {
		t.Errorf("got %+v", r)
	}
	reading := Reading{
		Topic: "t", Spans: spans(c, 5), Consumers: 2, PartitionBytes: 100000, FetchBytes: 1 << 20, CheckCRCs: true, Now: time.Now,
		Leaders: map[int32]string{},
	}
	for p := range int32(5) {
		reading.Leaders[p] = c.ListenAddrs()[0]
	}
	for _, raw := range []bool{false, true} {
		reading.Raw, reading.Spans = raw, spans(c, 5)
		r, err := Consume(t.Context(), dial, reading)
		if err != nil {
			t.Fatal(err)
		}
		if r.Records != load.Records || r.Bytes < load.Records*100 || r.WireBytes < r.Bytes || r.Clients != 2 {
			t.Errorf("raw %v: got %+v", raw, r)
		}
		reading.Records = 10
		reading.Spans = spans(c, 5)
		r, err = Consume(t.Context(), dial, reading)
		if err != nil || r.Records < 10 || r.Records == load.Records {
			t.Errorf("raw %v: got %+v, %v", raw, r, err)
		}
		reading.Records = 0
	}
}

// A broker that stands still for a while must show in the latency of every record that was due in that time.
func TestLatencyCountsFromTheTimeDue(t *testing.T) {
	const stall = 300 * time.Millisecond
	c, dial := broker(t, 1)
	requests := 0
	c.ControlKey(int16(kmsg.Produce), func(kmsg.Request) (kmsg.Response, error, bool) {
		c.KeepControl()
		if requests++; requests == 20 {
			held := make(chan struct{})
			time.AfterFunc(stall, func() { close(held) })
			<-held
		}
		return nil, nil, false
	})
	load := testLoad(t)
	load.Partitions, load.Rate, load.Records = 1, 1000, 1000
	load.Options = []kgo.Opt{kgo.ProducerLinger(0)}
	r, err := Produce(t.Context(), dial, load)
	if err != nil {
		t.Fatal(err)
	}
	// About 300 of the 1,000 records were due while nothing moved: on average they waited half of the time.
	if r.Ack.Samples != 1000 || r.Ack.Max < 290 || r.Ack.P90 < 100 {
		t.Errorf("got %+v: the stall was left out", r.Ack)
	}
	if r.Seconds < 0.99 {
		t.Errorf("1,000 records at 1,000 a second took %g s", r.Seconds)
	}
}

func TestRoundtrip(t *testing.T) {
	c, dial := broker(t, 2)
	load := testLoad(t)
	load.Producers, load.Rate, load.Records, load.RecordSize = 2, 5000, 500, 0
	if _, err := Produce(t.Context(), dial, testLoad(t)); err != nil { // Others' records are not counted.
		t.Fatal(err)
	}
	ends := map[int32]int64{}
	for p, s := range spans(c, 2) {
		ends[p] = s.To
	}
	r, err := Roundtrip(t.Context(), dial, load, ends)
	if err != nil {
		t.Fatal(err)
	}
	if r.Records != 500 || r.Ack.Samples != 500 || r.EndToEnd.Samples != 500 || r.Bytes != 500*MinLatencySize {
		t.Errorf("got %+v, ack %+v, end to end %+v", r, r.Ack, r.EndToEnd)
	}
}

func TestProduceReportsFailures(t *testing.T) {
	_, dial := broker(t, 1)
	load := testLoad(t)
	load.Topic = "nope"
	load.Options = []kgo.Opt{kgo.UnknownTopicRetries(0)}
	r, err := Produce(t.Context(), dial, load)
	if err == nil || !strings.HasPrefix(err.Error(), "a record failed: ") || r.Failed == 0 || r.Records != 0 {
		t.Errorf("got %+v, %v", r, err)
	}
}

func TestProduceInterrupted(t *testing.T) {
	_, dial := broker(t, 1)
	load := testLoad(t)
	load.Records, load.Rate = 0, 10000
	load.Duration = time.Hour
	interrupted := errors.New("interrupted")
	ctx, cancel := context.WithCancelCause(t.Context())
	time.AfterFunc(100*time.Millisecond, func() { cancel(interrupted) })
	r, err := Produce(ctx, dial, load)
	if !errors.Is(err, interrupted) || r.Records == 0 || r.Failed != 0 {
		t.Errorf("got %+v, %v", r, err)
	}
}

func TestValidate(t *testing.T) {
	if err := testLoad(t).Validate(); err != nil {
		t.Error(err)
	}
	for what, change := range map[string]func(*Load){
		"topic":     func(l *Load) { l.Topic = "" },
		"producers": func(l *Load) { l.Producers = 0 },
		"records":   func(l *Load) { l.Records = -1 },
		"give":      func(l *Load) { l.Records = 0 },
		"duration":  func(l *Load) { l.Duration = -1 },
		"rate":      func(l *Load) { l.Rate = -1 },
		"record-s":  func(l *Load) { l.RecordSize = -1 },
	} {
		l := testLoad(t)
		change(&l)
		if err := l.Validate(); err == nil || !strings.HasPrefix(err.Error(), what) {
			t.Errorf("%s: got %v", what, err)
		}
	}
}

func FuzzCountBatches(f *testing.F) {
	f.Add(make([]byte, 61))
	f.Add([]byte(strings.Repeat("\x00", 11) + "\x31" + strings.Repeat("\x00", 49)))
	f.Fuzz(func(t *testing.T, b []byte) {
		if records, _ := countBatches(b); len(b) < batchHeader && records != 0 {
			t.Errorf("%d records in %d bytes", records, len(b))
		}
	})
}

func BenchmarkProducerDone(b *testing.B) {
	b.ReportAllocs()
	p := newProducer(Load{Topic: "t", RecordSize: 1024, Now: time.Now}, nil, 0, func() time.Duration { return 0 })
	blk := <-p.free
	s := &blk.slots[0]
	for b.Loop() {
		blk.pending.Store(2)
		s.at = 0
		s.promise(nil, nil)
	}
}
