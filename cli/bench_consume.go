package cli

import (
	"errors"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tierlog/tierlog/cli/bench"
)

func (a *app) benchConsumeCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "consume [flags]",
		Short: "Measure reading: throughput of catching up with what a topic holds",
		Long: "Read a topic from its start to where it ended when the reading began, or until --records or --duration is over.\n" +
			"Records are decoded as any consumer does and then dropped.",
		Example: "  tierlog bench consume\n" +
			"  tierlog bench consume --topic orders --consumers 4 --json",
		Args: noArgs,
	}
	client := a.clientFlags(cmd)
	r := bench.Reading{Now: a.Now}
	fs := cmd.Flags()
	fs.StringVar(&r.Topic, "topic", benchTopic, "`TOPIC` to read")
	fs.IntVar(&r.Consumers, "consumers", 1, "`N` consumers, each with its own connection; they share out the partitions")
	fs.Int64Var(&r.Records, "records", 0, "end after about `N` records (default: the whole topic)")
	fs.DurationVar(&r.Duration, "duration", 0, "end after this `TIME`")
	from := fs.String("from", "earliest", "`WHERE` to start: earliest, an offset, or a time as 2006-01-02T15:04:05Z")
	partitionBytes := fs.Int32("partition-bytes", 1<<20, "most `BYTES` of a partition in one answer")
	maxBytes := fs.Int32("fetch-bytes", 50<<20, "most `BYTES` in one answer")
	checkCRC := fs.Bool("check-crcs", true, "check the checksum of every batch")
	asJSON := fs.Bool("json", false, "print JSON")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		start, err := parseStart(*from)
		if err != nil {
			return misuse("from %q: %w", *from, err)
		}
		if err := r.Validate(); err != nil {
			return misuse("%w", err)
		}
		if *partitionBytes < 1 || *maxBytes < 1 {
			return misuse("partition-bytes %d, fetch-bytes %d: want at least 1", *partitionBytes, *maxBytes)
		}
		r.Options = []kgo.Opt{kgo.FetchMaxPartitionBytes(*partitionBytes), kgo.FetchMaxBytes(*maxBytes)}
		if !*checkCRC {
			r.Options = append(r.Options, kgo.DisableFetchCRCValidation())
		}
		cl, err := client.connect(cmd)
		if err != nil {
			return err
		}
		span, err := planSpan(cmd.Context(), kadm.NewClient(cl), r.Topic, -1, start)
		cl.Close()
		if err != nil {
			return err
		}
		r.Spans = map[int32]bench.Span{}
		for p, ps := range span {
			r.Spans[p] = bench.Span{From: ps.next, To: ps.end}
		}
		dial, err := client.dialer(cmd)
		if err != nil {
			return err
		}
		report, err := bench.Consume(cmd.Context(), dial, r)
		return errors.Join(a.report(report, *asJSON), err)
	}
	return cmd
}
