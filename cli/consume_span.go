package cli

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// startKind says what --from gave.
type startKind uint8

const (
	fromEarliest startKind = iota
	fromLatest
	fromOffset
	fromTime
)

// startAt is where reading starts in every partition. value is an offset, or milliseconds since 1970.
type startAt struct {
	kind  startKind
	value int64
}

func parseStart(s string) (startAt, error) {
	switch s {
	case "earliest":
		return startAt{kind: fromEarliest}, nil
	case "latest":
		return startAt{kind: fromLatest}, nil
	}
	if n, err := strconv.ParseInt(s, 10, 64); err == nil && n >= 0 {
		return startAt{fromOffset, n}, nil
	}
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		return startAt{}, errors.New("want earliest, latest, an offset, or a time as 2006-01-02T15:04:05Z")
	}
	// A record at or after the time: its milliseconds are not before it.
	ms := t.UnixMilli()
	if t.After(time.UnixMilli(ms)) {
		ms++
	}
	return startAt{fromTime, ms}, nil
}

// partitionSpan is what is to be read of a partition: from next up to, without, end.
type partitionSpan struct {
	next, end int64
}

// span is what is to be read of a topic.
type span map[int32]partitionSpan

// offsets returns the places where the client starts.
func (s span) offsets() map[int32]kgo.Offset {
	out := make(map[int32]kgo.Offset, len(s))
	for p, ps := range s {
		out[p] = kgo.NewOffset().At(ps.next)
	}
	return out
}

// planSpan asks for the first and last offsets now. partition is -1 for all.
func planSpan(ctx context.Context, adm *kadm.Client, topic string, partition int32, from startAt) (span, error) {
	d, err := topicDetail(ctx, adm, topic)
	if err != nil {
		return nil, err
	}
	if _, ok := d.Partitions[partition]; partition >= 0 && !ok {
		return nil, withHint(fmt.Errorf("topic %s has no partition %d", topic, partition),
			"It has %s, counted from 0.", plural(len(d.Partitions), "partition"))
	}
	starts, err := adm.ListStartOffsets(ctx, topic)
	if err != nil {
		return nil, err
	}
	ends, err := adm.ListEndOffsets(ctx, topic)
	if err != nil {
		return nil, err
	}
	var times kadm.ListedOffsets
	if from.kind == fromTime {
		if times, err = adm.ListOffsetsAfterMilli(ctx, from.value, topic); err != nil {
			return nil, err
		}
	}
	s := span{}
	for p := range d.Partitions {
		if partition >= 0 && p != partition {
			continue
		}
		first, last, at := starts[topic][p], ends[topic][p], times[topic][p]
		if err := errors.Join(first.Err, last.Err, at.Err); err != nil {
			return nil, fetchError(topic, p, err)
		}
		ps := partitionSpan{next: first.Offset, end: last.Offset}
		switch from.kind {
		case fromLatest:
			ps.next = last.Offset
		case fromTime:
			ps.next = at.Offset
		case fromOffset:
			if from.value > last.Offset {
				return nil, withHint(fmt.Errorf("topic %s partition %d has no offset %d yet", topic, p, from.value),
					"It ends at %d; choose one with --partition, or --from latest to wait for new records.", last.Offset)
			}
			ps.next = max(first.Offset, from.value)
		case fromEarliest:
		}
		s[p] = ps
	}
	return s, nil
}
