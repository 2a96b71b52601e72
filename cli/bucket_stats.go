package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/tierlog/tierlog/objstore"
	"github.com/tierlog/tierlog/tiered/history"
)

func (a *app) bucketStatsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "stats [flags]",
		Short: "Say what takes how much room in a bucket",
		Long: "List the whole bucket and say how many objects there are of each kind, how large they are and how much of them\n" +
			"nothing needs any more (a broker deletes that after a while); and how many records and bytes each topic has.\n" +
			"\"stored\" is what the bucket holds for each byte of records that can be read.",
		Example: "  tierlog bucket stats --store ./bucket\n" +
			"  tierlog bucket stats --json | jq .garbage.bytes",
		Args: noArgs,
	}
	store := a.storeFlag(cmd)
	asJSON := cmd.Flags().Bool("json", false, "print JSON")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return a.withStore(cmd, store, func(ctx context.Context, s objstore.Store) error {
			sum, err := history.Take(ctx, history.Config{Store: s, Now: a.Now, Logger: a.quietLogger()})
			switch {
			case err != nil:
				return err
			case *asJSON:
				return writeJSON(a.Stdout, sum)
			default:
				return a.printStats(sum)
			}
		})
	}
	return cmd
}

func (a *app) printStats(s *history.Summary) error {
	kinds := newTable("KIND", ">OBJECTS", ">BYTES", ">SIZE")
	row := func(name string, m history.Measure) { kinds.row(name, count(m.Objects), count(m.Bytes), size(m.Bytes)) }
	for _, k := range history.Kinds() {
		if m := s.Usage[k]; m.Objects > 0 {
			row(string(k), m)
		}
	}
	row("total", s.Total)
	row("garbage in it", s.Garbage)
	if err := kinds.write(a.Stdout, 0); err != nil {
		return err
	}
	topics := newTable("TOPIC", ">PARTITIONS", ">RECORDS", ">BYTES", ">SIZE", ">BYTES/RECORD")
	for _, t := range s.Topics {
		topics.row(t.Name, len(t.Partitions), count(t.Records), count(t.Bytes), size(t.Bytes), ratio(t.Bytes, t.Records))
	}
	if len(topics.rows) > 0 {
		if err := a.say(""); err != nil {
			return err
		}
		if err := topics.write(a.Stdout, 0); err != nil {
			return err
		}
	}
	return a.say("\nstored: %s bytes for each byte of records", ratio(s.Total.Bytes, s.Records))
}

// ratio prints a quotient with two digits after the point.
func ratio(a, b int64) string {
	if b <= 0 {
		return "-"
	}
	return fmt.Sprintf("%.2f", float64(a)/float64(b))
}
