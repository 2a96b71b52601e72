package cli

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// consumer reads a span of a topic in one goroutine.
type consumer struct {
	client   *kgo.Client
	topic    string
	span     span // next is kept up to date
	out      *recordPrinter
	left     int64 // records still wanted; 0: no limit
	untilEnd bool
	follow   bool // look for new partitions
	now      func() time.Time
	note     func(format string, args ...any) // tells the user
	vain     int                              // rounds of skipGaps without records between

	records, bytes atomic.Int64 // printed
}

// run reads until the end that was asked for, or until ctx ends.
func (c *consumer) run(ctx context.Context) error {
	if c.untilEnd {
		for p, ps := range c.span {
			if ps.next >= ps.end {
				delete(c.span, p)
			}
		}
		if len(c.span) == 0 {
			return nil
		}
	}
	c.client.AddConsumePartitions(map[string]map[int32]kgo.Offset{c.topic: c.span.offsets()})
	looked := c.now()
	for {
		fetches, err := c.poll(ctx)
		if err != nil {
			return err
		}
		if done, err := c.print(fetches); done || err != nil {
			return err
		}
		if c.client.BufferedFetchRecords() == 0 {
			if err := c.out.flush(); err != nil {
				return err
			}
		}
		if fetches.NumRecords() > 0 {
			c.vain = 0
		} else if c.untilEnd {
			if done, err := c.skipGaps(ctx); done || err != nil {
				return err
			}
		}
		if c.follow && c.now().Sub(looked) > newPartitionsEvery {
			c.addNewPartitions(ctx)
			looked = c.now()
		}
	}
}

// poll waits for records, but no longer than there is something else to look after.
func (c *consumer) poll(ctx context.Context) (kgo.Fetches, error) {
	wait := newPartitionsEvery
	if c.untilEnd {
		wait = quietTime
	}
	pollCtx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	fetches := c.client.PollFetches(pollCtx)
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	for _, e := range fetches.Errors() {
		if !errors.Is(e.Err, context.DeadlineExceeded) && !errors.Is(e.Err, context.Canceled) {
			return nil, fetchError(e.Topic, e.Partition, e.Err)
		}
	}
	return fetches, nil
}

// print prints the records of fetches that belong to the span. done says that there is nothing more to read.
func (c *consumer) print(fetches kgo.Fetches) (done bool, err error) {
	fetches.EachPartition(func(p kgo.FetchTopicPartition) {
		ps, wanted := c.span[p.Partition]
		if done || err != nil || !wanted {
			return
		}
		for _, r := range p.Records {
			if c.untilEnd && r.Offset >= ps.end {
				ps.next = ps.end
				break
			}
			ps.next = r.Offset + 1
			if r.Attrs.IsControl() {
				continue
			}
			if err = c.out.print(&p.FetchPartition, r); err != nil {
				return
			}
			c.records.Add(1)
			c.bytes.Add(int64(len(r.Key) + len(r.Value)))
			if c.left--; c.left == 0 {
				done = true
				return
			}
		}
		done = c.moved(p.Partition, ps)
	})
	return done, err
}

// moved keeps a partition's position and tells whether it was the last one that had something to read.
func (c *consumer) moved(partition int32, ps partitionSpan) (done bool) {
	c.span[partition] = ps
	if !c.untilEnd || ps.next < ps.end {
		return false
	}
	delete(c.span, partition)
	c.client.PauseFetchPartitions(map[string][]int32{c.topic: {partition}})
	return len(c.span) == 0
}

// addNewPartitions starts reading partitions that the topic got meanwhile, from their start.
func (c *consumer) addNewPartitions(ctx context.Context) {
	d, err := topicDetail(ctx, kadm.NewClient(c.client), c.topic)
	if err != nil {
		return // It is asked again later; the reading itself reports what is wrong.
	}
	added := map[int32]kgo.Offset{}
	for p := range d.Partitions {
		if _, known := c.span[p]; !known {
			c.span[p] = partitionSpan{}
			added[p] = kgo.NewOffset().AtStart()
		}
	}
	if len(added) > 0 {
		c.client.AddConsumePartitions(map[string]map[int32]kgo.Offset{c.topic: added})
	}
}
