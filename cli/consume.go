package cli

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

const (
	// consumePartitionBytes is asked of a partition at a time; large, since one read is often all there is to do.
	consumePartitionBytes = 10 << 20
	// quietTime is how long a partition that should have more gives nothing before it is asked whether it has.
	quietTime = time.Second
	// newPartitionsEvery is how often a followed topic is asked for new partitions.
	newPartitionsEvery = 30 * time.Second
)

// consumeFlags are the flags of `tierlog consume`.
type consumeFlags struct {
	client    *clientFlags
	from      string
	partition int32
	count     int64
	untilEnd  bool
	format    string
	asJSON    bool
}

func (a *app) consumeCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "consume TOPIC [flags]",
		Short: "Read records and print them, one a line",
		Long: "Read records of a topic and print them, then wait for more, until --count or --until-end says to end.\n" +
			"--format is in the grammar of franz-go's record formatter: %t topic, %p partition, %o offset, %k key, %v value,\n" +
			"%d timestamp, %h{%k=%v } headers; \\n, \\t and \\xNN. With --json a record is one line of JSON; a key or value that\n" +
			"is not UTF-8 stands there as key_base64 or value_base64.",
		Example: "  tierlog consume orders\n" +
			"  tierlog consume orders --from latest --format '%t %p %o %k %v\\n'\n" +
			"  tierlog consume orders --from 2026-01-31T12:00:00Z --until-end --json | jq .value\n" +
			"  tierlog consume orders --partition 3 --from 1000 --count 10",
		Args:              oneArg("the TOPIC"),
		ValidArgsFunction: a.completeTopics(1),
	}
	f := &consumeFlags{client: a.clientFlags(cmd)}
	fs := cmd.Flags()
	fs.StringVar(&f.from, "from", "earliest", "`WHERE` to start: earliest, latest, an offset, or a time as 2006-01-02T15:04:05Z")
	fs.Int32Var(&f.partition, "partition", -1, "read partition `N` only")
	fs.Int64Var(&f.count, "count", 0, "end after `N` records")
	fs.BoolVar(&f.untilEnd, "until-end", false, "end at the records that were the last ones at the start")
	layoutFlag(cmd, &f.format, "format", "how to print a record")
	fs.BoolVar(&f.asJSON, "json", false, "print a record as a line of JSON")
	hideDefault(fs, "partition")
	completeWords(cmd, "from", "earliest", "latest")
	cmd.RunE = func(cmd *cobra.Command, args []string) error { return a.consume(cmd, f, args[0]) }
	return cmd
}

func (a *app) consume(cmd *cobra.Command, f *consumeFlags, topic string) error {
	from, err := parseStart(f.from)
	if err != nil {
		return misuse("from %q: %w", f.from, err)
	}
	switch {
	case f.asJSON && cmd.Flags().Changed("format"):
		return misuse("give --json or --format, not both")
	case cmd.Flags().Changed("count") && f.count < 1:
		return misuse("count %d: want at least 1", f.count)
	case f.partition < -1:
		return misuse("partition %d: want 0 or more", f.partition)
	}
	out, err := newRecordPrinter(a.Stdout, f.format, f.asJSON)
	if err != nil {
		return misuse("format '%s': %w", f.format, err)
	}
	cl, err := f.client.connect(cmd,
		kgo.KeepControlRecords(), // They move the position; they are not printed.
		kgo.ConsumeResetOffset(kgo.NoResetOffset()),
		kgo.FetchMaxPartitionBytes(consumePartitionBytes),
	)
	if err != nil {
		return err
	}
	defer cl.Close()
	ctx := cmd.Context()
	span, err := planSpan(ctx, kadm.NewClient(cl), topic, f.partition, from)
	if err != nil {
		return f.end(err)
	}
	c := &consumer{
		client: cl, topic: topic, span: span, out: out, left: f.count,
		untilEnd: f.untilEnd, follow: f.partition < 0 && !f.untilEnd, now: a.Now, note: a.note,
	}
	stop := func() {}
	if !isTerminal(a.Stdout) {
		stop = a.showProgress(a.Stderr, func() progressState {
			return progressState{records: c.records.Load(), bytes: c.bytes.Load()}
		})
	}
	err = c.run(ctx)
	stop()
	return errors.Join(f.end(err), out.flush())
}

// end turns an interrupt into a good end where nothing else ends the reading.
func (f *consumeFlags) end(err error) error {
	if errors.Is(err, context.Canceled) && !f.untilEnd && f.count == 0 {
		return nil
	}
	return err
}

// fetchError says what a fetch's error means for the reader.
func fetchError(topic string, partition int32, err error) error {
	where := fmt.Sprintf("topic %s partition %d", topic, partition)
	if errors.Is(err, kerr.OffsetOutOfRange) {
		return withHint(fmt.Errorf("%s: the records to read next are gone, deleted by retention or with the topic: %w", where, err),
			"Start again with --from earliest.")
	}
	return fmt.Errorf("%s: %w", where, kafkaError(err, ""))
}
