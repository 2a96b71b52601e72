package cli

import (
	"encoding/json"
	"hash/crc32"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

func TestParseStart(t *testing.T) {
	for in, want := range map[string]startAt{
		"earliest":                       {kind: fromEarliest},
		"latest":                         {kind: fromLatest},
		"0":                              {fromOffset, 0},
		"17":                             {fromOffset, 17},
		"1970-01-01T00:00:01Z":           {fromTime, 1000},
		"1970-01-01T01:00:01+01:00":      {fromTime, 1000},
		"1970-01-01T00:00:01.001Z":       {fromTime, 1001},
		"1970-01-01T00:00:01.001000001Z": {fromTime, 1002},
	} {
		if got, err := parseStart(in); err != nil || got != want {
			t.Errorf("%s: got %+v, %v, want %+v", in, got, err, want)
		}
	}
	for _, in := range []string{"", "-1", "yesterday", "2026-01-01", "Earliest", "1.5"} {
		if got, err := parseStart(in); err == nil {
			t.Errorf("%q: got %+v, want an error", in, got)
		}
	}
}

// compactedBatch is what compaction leaves of a batch of ten: the records at the given offsets, over offsets 0 to 9.
func compactedBatch(offsets ...int32) []byte {
	var records []byte
	for _, o := range offsets {
		r := kmsg.Record{OffsetDelta: o, Value: []byte("kept")}
		r.Length = int32(len(r.AppendTo(nil)) - 1)
		records = r.AppendTo(records)
	}
	b := kmsg.RecordBatch{
		Magic: 2, LastOffsetDelta: 9, FirstTimestamp: 1, MaxTimestamp: 1, ProducerID: -1, ProducerEpoch: -1, FirstSequence: -1,
		NumRecords: int32(len(offsets)), Records: records,
	}
	raw := b.AppendTo(nil)
	b.Length = int32(len(raw) - 12)
	raw = b.AppendTo(nil)
	b.CRC = int32(crc32.Checksum(raw[21:], crc32.MakeTable(crc32.Castagnoli)))
	return b.AppendTo(nil)
}

// serveCompacted makes the broker answer fetches with the batch, after some answers with nothing.
func serveCompacted(c *kfake.Cluster, batch []byte, empty int) {
	c.ControlKey(int16(kmsg.Fetch), func(kreq kmsg.Request) (kmsg.Response, error, bool) {
		c.KeepControl()
		req := kreq.(*kmsg.FetchRequest)
		resp := req.ResponseKind().(*kmsg.FetchResponse)
		for _, rt := range req.Topics {
			st := kmsg.NewFetchResponseTopic()
			st.Topic, st.TopicID = rt.Topic, rt.TopicID
			for _, rp := range rt.Partitions {
				sp := kmsg.NewFetchResponseTopicPartition()
				sp.Partition, sp.HighWatermark, sp.LastStableOffset, sp.LogStartOffset = rp.Partition, 10, 10, 0
				if empty--; empty < 0 && rp.FetchOffset < 10 {
					sp.RecordBatches = batch
				}
				st.Partitions = append(st.Partitions, sp)
			}
			resp.Topics = append(resp.Topics, st)
		}
		return resp, nil, true
	})
}

func TestConsumeUntilEndOverGaps(t *testing.T) {
	for _, tc := range []struct {
		name    string
		offsets []int32
		empty   int
		want    string
	}{
		{"the last offsets have no record", []int32{2, 5}, 0, "2 kept\n5 kept\n"},
		{"no offset has a record", nil, 0, ""},
		{"the first offsets have no record", []int32{9}, 0, "9 kept\n"},
		{"answers with nothing are no proof", []int32{2, 5}, 6, "2 kept\n5 kept\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c, addr := kafka(t, kfake.SeedTopics(1, "t"))
			mustRun(t, addr, strings.Repeat("x\n", 10), "produce", "t")
			serveCompacted(c, compactedBatch(tc.offsets...), tc.empty)
			if got := mustRun(t, addr, "", "consume", "t", "--until-end", "--format", `%o %v\n`); got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

func TestConsumeUntilEndPassesControlRecords(t *testing.T) {
	_, addr := kafka(t, kfake.SeedTopics(1, "t"))
	cl, err := kgo.NewClient(kgo.SeedBrokers(addr), kgo.TransactionalID("x"), kgo.DefaultProduceTopic("t"))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	if err := cl.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	if err := cl.ProduceSync(t.Context(), kgo.StringRecord("in a transaction")).FirstErr(); err != nil {
		t.Fatal(err)
	}
	if err := cl.EndTransaction(t.Context(), kgo.TryCommit); err != nil {
		t.Fatal(err)
	}
	if got := mustRun(t, addr, "", "consume", "t", "--until-end"); got != "in a transaction\n" {
		t.Errorf("got %q", got)
	}
}

func TestConsumeUntilEndStopsThere(t *testing.T) {
	c, addr := kafka(t, kfake.SeedTopics(1, "t"))
	mustRun(t, addr, lines(1, 10), "produce", "t")
	// What is written once the end is known is not read.
	written := false
	c.ControlKey(int16(kmsg.Fetch), func(kmsg.Request) (kmsg.Response, error, bool) {
		if !written {
			written = true
			c.SleepControl(func() { mustRun(t, addr, lines(11, 20), "produce", "t") })
		}
		return nil, nil, false
	})
	if got := mustRun(t, addr, "", "consume", "t", "--until-end"); got != lines(1, 10) {
		t.Errorf("got %q", got)
	}
}

func TestRecordJSON(t *testing.T) {
	every := make([]byte, 0, 128)
	for b := range byte(128) {
		every = append(every, b)
	}
	every = append(every, "é\u2028😀"...)
	r := &kgo.Record{
		Topic: "t", Partition: 3, Offset: 1 << 40, Timestamp: time.UnixMilli(1700000000123), Key: every, Value: []byte("\xff\x00"),
		Headers: []kgo.RecordHeader{{Key: "a", Value: nil}, {Key: "b", Value: []byte(`"q"`)}},
	}
	var got struct {
		Topic, Timestamp, Key string
		Partition             int32
		Offset                int64
		Value                 *string
		ValueBase64           []byte `json:"value_base64"`
		Headers               []struct {
			Key   string
			Value *string
		}
	}
	line := appendRecordJSON(nil, r)
	if slices.Index(line, '\n') != len(line)-1 {
		t.Errorf("not one line: %q", line)
	}
	if err := json.Unmarshal(line, &got); err != nil {
		t.Fatalf("%s: %v", line, err)
	}
	if got.Key != string(every) || got.Value != nil || string(got.ValueBase64) != "\xff\x00" || got.Offset != 1<<40 ||
		got.Timestamp != "2023-11-14T22:13:20.123Z" || len(got.Headers) != 2 || got.Headers[0].Value != nil || *got.Headers[1].Value != `"q"` {
		t.Errorf("got %+v from %s", got, line)
	}
}
