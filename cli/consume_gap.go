package cli

import (
	"context"
	"errors"
	"maps"
	"slices"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

const (
	// gapFetchBytes is enough for the batch that a gap is in.
	gapFetchBytes = 4 << 20
	// emptyAnswers is how often a partition must say that it has nothing below its end before it is believed.
	emptyAnswers = 3
	// gapWait is how long the broker may look for records, in milliseconds.
	gapWait = 1000
)

// skipGaps asks the partitions that have gone quiet before their end whether anything is left there. The last
// offsets of a partition may have no record any more (compaction), and the client only ever delivers records.
// done says that there is nothing more to read.
func (c *consumer) skipGaps(ctx context.Context) (done bool, err error) {
	d, err := topicDetail(ctx, kadm.NewClient(c.client), c.topic)
	if err != nil {
		return false, err
	}
	for _, p := range slices.Sorted(maps.Keys(c.span)) {
		ps := c.span[p]
		for answers := 0; answers < emptyAnswers; {
			a, err := c.ask(ctx, d, p, ps.next)
			if err != nil || a.records || a.end < ps.end {
				break // The client is still reading, or the broker is not ready: not a gap.
			}
			if a.next > ps.next {
				ps.next, answers = a.next, 0
			} else {
				answers++
			}
			if ps.next >= ps.end || answers == emptyAnswers {
				ps.next = ps.end
				if c.moved(p, ps) {
					return true, nil
				}
				break
			}
		}
	}
	return false, ctx.Err()
}

// gapAnswer is what stands at a position of a partition.
type gapAnswer struct {
	records bool  // there are records at or after the position
	next    int64 // the offset after what was looked at
	end     int64 // high watermark
}

// ask fetches once from a position, past the client's own fetching.
func (c *consumer) ask(ctx context.Context, d kadm.TopicDetail, partition int32, at int64) (gapAnswer, error) {
	req := kmsg.NewPtrFetchRequest()
	req.MaxWaitMillis, req.MinBytes, req.MaxBytes = gapWait, 1, gapFetchBytes
	t := kmsg.NewFetchRequestTopic()
	t.Topic, t.TopicID = c.topic, d.ID
	fp := kmsg.NewFetchRequestTopicPartition()
	fp.Partition, fp.FetchOffset, fp.PartitionMaxBytes = partition, at, gapFetchBytes
	t.Partitions = append(t.Partitions, fp)
	req.Topics = append(req.Topics, t)
	kresp, err := c.client.Broker(int(d.Partitions[partition].Leader)).RetriableRequest(ctx, req)
	if err != nil {
		return gapAnswer{}, err
	}
	resp, ok := kresp.(*kmsg.FetchResponse)
	if !ok || len(resp.Topics) != 1 || len(resp.Topics[0].Partitions) != 1 {
		return gapAnswer{}, errors.Join(kerr.ErrorForCode(respCode(resp)), errors.New("the answer is not about the partition asked for"))
	}
	rp := &resp.Topics[0].Partitions[0]
	opts := kgo.ProcessFetchPartitionOpts{KeepControlRecords: true, Offset: at, Topic: c.topic, Partition: partition}
	got, next := kgo.ProcessFetchPartition(opts, rp, kgo.DefaultDecompressor(), nil)
	return gapAnswer{records: len(got.Records) > 0, next: next, end: rp.HighWatermark}, got.Err
}

func respCode(resp *kmsg.FetchResponse) int16 {
	if resp == nil {
		return kerr.UnknownServerError.Code
	}
	return resp.ErrorCode
}
