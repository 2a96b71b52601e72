package cli

import (
	"errors"
	"net"
	"strconv"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/tierlog/tierlog/cli/bench"
)

func (a *app) benchConsumeCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "consume [flags]",
		Short: "Measure reading: throughput of catching up with what a topic holds",
		Long: "Read a topic from its start to where it ended when the reading began, or until --records or --duration is over.\n" +
			"Records are decoded, as any consumer does, and dropped. With --raw only the headers of batches are looked at:\n" +
			"the client costs next to nothing then, and the bytes are those of batches as they are stored.",
		Example: "  tierlog bench consume\n" +
			"  tierlog bench consume --topic orders --consumers 4 --json\n" +
			"  tierlog bench consume --raw --partition-bytes 10485760",
		Args: noArgs,
	}
	client := a.clientFlags(cmd)
	r := bench.Reading{Now: a.Now, Watch: a.benchProgress}
	fs := cmd.Flags()
	fs.StringVar(&r.Topic, "topic", benchTopic, "`TOPIC` to read")
	fs.IntVar(&r.Consumers, "consumers", 1, "`N` consumers, each with its own connection; they share out the partitions")
	fs.Int64Var(&r.Records, "records", 0, "end after about `N` records (default: the whole topic)")
	fs.DurationVar(&r.Duration, "duration", 0, "end after this `TIME`")
	from := fs.String("from", "earliest", "`WHERE` to start: earliest, an offset, or a time as 2006-01-02T15:04:05Z")
	fs.Int32Var(&r.PartitionBytes, "partition-bytes", 1<<20, "most `BYTES` of a partition in one answer")
	fs.Int32Var(&r.FetchBytes, "fetch-bytes", 50<<20, "most `BYTES` in one answer")
	fs.BoolVar(&r.CheckCRCs, "check-crcs", true, "check the checksum of every batch")
	fs.BoolVar(&r.Raw, "raw", false, "decode nothing, check nothing")
	asJSON := fs.Bool("json", false, "print JSON")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		start, err := parseStart(*from)
		if err != nil {
			return misuse("from %q: %w", *from, err)
		}
		if err := r.Validate(); err != nil {
			return misuse("%w", err)
		}
		if err := planReading(cmd, client, start, &r); err != nil {
			return err
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

// planReading asks the broker what there is to read, and where.
func planReading(cmd *cobra.Command, client *clientFlags, start startAt, r *bench.Reading) error {
	cl, err := client.connect(cmd)
	if err != nil {
		return err
	}
	defer cl.Close()
	adm := kadm.NewClient(cl)
	span, err := planSpan(cmd.Context(), adm, r.Topic, -1, start)
	if err != nil {
		return err
	}
	meta, err := adm.Metadata(cmd.Context(), r.Topic)
	if err != nil {
		return err
	}
	addresses := map[int32]string{}
	for _, b := range meta.Brokers {
		addresses[b.NodeID] = net.JoinHostPort(b.Host, strconv.Itoa(int(b.Port)))
	}
	r.Spans, r.Leaders = map[int32]bench.Span{}, map[int32]string{}
	for p, ps := range span {
		r.Spans[p] = bench.Span{From: ps.next, To: ps.end}
		r.Leaders[p] = addresses[meta.Topics[r.Topic].Partitions[p].Leader]
	}
	return nil
}
