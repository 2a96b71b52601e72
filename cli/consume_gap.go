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
	// gapWait is how long the broker may look for records, in milliseconds.
	gapWait = 1000
	// patience is how many times a partition may be asked in vain before the user is told what is waited for.
	patience = 10
)

// skipGaps asks the partitions that have gone quiet before their end what stands there. The last offsets of a partition
// may have no record any more (compaction leaves a batch that covers them), and the client only ever delivers records.
// An answer without any batch proves nothing: the broker may still be looking. done says that all is read.
func (c *consumer) skipGaps(ctx context.Context) (done bool, err error) {
	d, trouble := topicDetail(ctx, kadm.NewClient(c.client), c.topic)
	for _, p := range slices.Sorted(maps.Keys(c.span)) {
		ps := c.span[p]
		for trouble == nil {
			a, err := c.ask(ctx, d, p, ps.next)
			if err != nil || a.records || a.next <= ps.next {
				break // The client is still reading, or the broker is not ready: not a gap.
			}
			ps.next = a.next
			if ps.next >= ps.end {
				break
			}
		}
		if c.moved(p, ps) {
			return true, nil
		}
	}
	if c.vain++; c.vain == patience {
		for p, ps := range c.span {
			c.note("topic %s partition %d: at offset %d, waiting for the records up to %d", c.topic, p, ps.next, ps.end)
		}
		if trouble != nil {
			c.note("%v", explain(trouble))
		}
	}
	return false, ctx.Err()
}

// gapAnswer is what stands at a position of a partition.
type gapAnswer struct {
	records bool  // there are records at or after the position
	next    int64 // the offset after what was looked at
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
	return gapAnswer{records: len(got.Records) > 0, next: next}, got.Err
}

func respCode(resp *kmsg.FetchResponse) int16 {
	if resp == nil {
		return kerr.UnknownServerError.Code
	}
	return resp.ErrorCode
}
