package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tierlog/tierlog/cluster"
	"github.com/tierlog/tierlog/objstore"
	"github.com/tierlog/tierlog/objstore/backend"
	"github.com/tierlog/tierlog/record"
	"github.com/tierlog/tierlog/tiered/history"
	"github.com/tierlog/tierlog/tiered/logid"
)

func (a *app) bucketCatCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "cat TOPIC[/PARTITION] [flags]",
		Short: "Print the records of a topic, without a broker",
		Long: "Print the records that the bucket holds of a topic, one a line: of one partition, or of all of them one after the\n" +
			"other. No broker is needed, and one may be running; what it has not yet made durable is not there.\n" +
			"--format and --json are those of `tierlog consume`.",
		Example: "  tierlog bucket cat orders --store 's3://my-bucket/logs?region=eu-central-1'\n" +
			"  tierlog bucket cat orders/3 --from 1000 --count 10 --format '%o %k %v\\n'\n" +
			"  tierlog bucket cat orders --from 2026-01-31T12:00:00Z --json | jq .value",
		Args: oneArg("the TOPIC"),
	}
	f := &catFlags{store: a.storeFlag(cmd)}
	fs := cmd.Flags()
	fs.StringVar(&f.from, "from", "earliest", "`WHERE` to start: earliest, an offset, or a time as 2006-01-02T15:04:05Z")
	fs.Int64Var(&f.count, "count", 0, "end after `N` records")
	layoutFlag(cmd, &f.format, "format", "how to print a record")
	fs.BoolVar(&f.asJSON, "json", false, "print a record as a line of JSON")
	cmd.RunE = func(cmd *cobra.Command, args []string) error { return a.bucketCat(cmd, f, args[0]) }
	return cmd
}

// catFlags are the flags of `tierlog bucket cat`.
type catFlags struct {
	store  func() (backend.Spec, error)
	from   string
	count  int64
	format string
	asJSON bool
}

func (a *app) bucketCat(cmd *cobra.Command, f *catFlags, arg string) error {
	topic, partition, err := parseTopicPartition(arg)
	if err != nil {
		return err
	}
	from, err := parseStart(f.from)
	switch {
	case err != nil || from.kind == fromLatest:
		return misuse("from %q: want earliest, an offset, or a time as 2006-01-02T15:04:05Z", f.from)
	case f.asJSON && cmd.Flags().Changed("format"):
		return misuse("give --json or --format, not both")
	case cmd.Flags().Changed("count") && f.count < 1:
		return misuse("count %d: want at least 1", f.count)
	}
	out, err := newRecordPrinter(a.Stdout, f.format, f.asJSON)
	if err != nil {
		return misuse("format '%s': %w", f.format, err)
	}
	return a.withHistory(cmd, f.store, func(ctx context.Context, r *history.Reader) error {
		c := &bucketCat{reader: r, topic: topic, from: from, out: out, left: f.count}
		stop := func() {}
		if !isTerminal(a.Stdout) {
			stop = a.showProgress(a.Stderr, func() progressState {
				return progressState{records: c.records.Load(), bytes: c.bytes.Load()}
			})
		}
		err := c.run(ctx, partition)
		stop()
		return errors.Join(err, out.flush())
	})
}

// parseTopicPartition reads TOPIC or TOPIC/PARTITION; partition is -1 in the first.
func parseTopicPartition(s string) (topic string, partition int32, err error) {
	topic, index, ok := strings.Cut(s, "/")
	if !ok {
		return topic, -1, nil
	}
	n, err := strconv.ParseInt(index, 10, 32)
	if err != nil || n < 0 || topic == "" {
		return "", 0, misuse("%q: want TOPIC or TOPIC/PARTITION, such as orders/3", s)
	}
	return topic, int32(n), nil
}

// withHistory opens the bucket for reading and calls do.
func (a *app) withHistory(cmd *cobra.Command, store func() (backend.Spec, error), do func(context.Context, *history.Reader) error) error {
	return a.withStore(cmd, store, func(ctx context.Context, s objstore.Store) error {
		r, err := history.Open(ctx, history.Config{Store: s, Now: a.Now, Logger: a.quietLogger()})
		if err != nil {
			return err
		}
		return do(ctx, r)
	})
}

// withStore opens the bucket for reading and calls do.
func (a *app) withStore(cmd *cobra.Command, store func() (backend.Spec, error), do func(context.Context, objstore.Store) error) (err error) {
	spec, err := store()
	if err != nil {
		return err
	}
	base, err := a.openStore(cmd.Context(), spec.ReadOnly())
	if err != nil {
		return storeHint(err, spec)
	}
	defer func() { err = errors.Join(err, base.Close()) }()
	s := objstore.Stack(base, objstore.StackConfig{})
	err = do(cmd.Context(), s)
	if errors.Is(err, cluster.ErrNoCluster) {
		return withHint(err, "No broker has ever used %s. Check --store, and the prefix in it.", spec.Redacted())
	}
	if errors.Is(err, history.ErrUnknown) {
		return withHint(err, "See `tierlog bucket ls`.")
	}
	return storeHint(err, spec)
}

// quietLogger logs to standard error only what is odd.
func (a *app) quietLogger() *slog.Logger {
	return NewLogger(a.Stderr, LogConfig{Format: "text", Level: slog.LevelWarn})
}

// bucketCat prints partitions.
type bucketCat struct {
	reader *history.Reader
	topic  string
	from   startAt
	out    *recordPrinter
	left   int64 // records still wanted; 0: no limit

	records, bytes atomic.Int64 // printed
}

// run prints one partition, or all of them for -1.
func (c *bucketCat) run(ctx context.Context, partition int32) error {
	n, err := c.reader.Partitions(c.topic)
	if err != nil {
		return err
	}
	if partition >= 0 {
		_, err := c.partition(ctx, partition, true)
		return err
	}
	for p := range n {
		if done, err := c.partition(ctx, p, false); done || err != nil {
			return err
		}
	}
	return nil
}

// partition prints one partition; done says that --count is reached. With strict it must hold the offset to start from.
func (c *bucketCat) partition(ctx context.Context, index int32, strict bool) (done bool, err error) {
	from := logid.Offset(c.from.value)
	if c.from.kind == fromTime {
		if from, err = c.reader.OffsetForTime(ctx, c.topic, index, c.from.value); err != nil {
			return false, err
		}
	}
	bounds, err := c.reader.Bounds(ctx, c.topic, index)
	if err != nil {
		return false, err
	}
	if strict && c.from.kind == fromOffset && (from < bounds.Start || from > bounds.End) {
		return false, fmt.Errorf("topic %s partition %d holds the offsets from %d up to %d, not %d", c.topic, index, bounds.Start, bounds.End, from)
	}
	from = max(from, bounds.Start)
	p := &kgo.FetchPartition{Partition: index, HighWatermark: int64(bounds.End), LastStableOffset: int64(bounds.End), LogStartOffset: int64(bounds.Start)}
	r := &kgo.Record{Topic: c.topic, Partition: index}
	err = c.reader.Read(ctx, c.topic, index, from, func(b record.Batch) error {
		if b.Control() {
			return nil
		}
		r.Attrs, r.ProducerID, r.ProducerEpoch, r.LeaderEpoch = kgo.RecordAttrs{}, b.ProducerID(), b.ProducerEpoch(), b.LeaderEpoch()
		err := b.Records(history.MaxRecords, func(rec record.Record) error {
			offset := b.Offset(rec)
			if offset < int64(from) {
				return nil
			}
			fillRecord(r, offset, b.Timestamp(rec), rec)
			if err := c.out.print(p, r); err != nil {
				return err
			}
			c.records.Add(1)
			c.bytes.Add(int64(len(rec.Key) + len(rec.Value)))
			if c.left--; c.left == 0 {
				done = true
				return history.ErrStop
			}
			return nil
		})
		if errors.Is(err, record.ErrCorrupt) {
			return fmt.Errorf("topic %s partition %d: %w", c.topic, index, err)
		}
		return err
	})
	return done, err
}

// fillRecord makes r the record at an offset.
func fillRecord(r *kgo.Record, offset, timestampMs int64, rec record.Record) {
	r.Offset, r.Timestamp, r.Key, r.Value = offset, time.UnixMilli(timestampMs), rec.Key, rec.Value
	r.Headers = r.Headers[:0]
	for _, h := range rec.Headers {
		r.Headers = append(r.Headers, kgo.RecordHeader{Key: string(h.Key), Value: h.Value})
	}
}
