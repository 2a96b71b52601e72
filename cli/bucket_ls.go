package cli

import (
	"cmp"
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/tierlog/tierlog/objstore"
	"github.com/tierlog/tierlog/tiered/history"
)

func (a *app) bucketLsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "ls [PREFIX] [flags]",
		Short: "List what is live in a bucket",
		Long: "List what is live in a bucket: the cluster, its brokers, the write-ahead logs of their epochs, and the topics whose\n" +
			"names start with PREFIX, with the offsets and the size of each partition. --keys lists the objects as they are,\n" +
			"those whose keys start with PREFIX: size, kind and key.",
		Example: "  tierlog bucket ls --store ./bucket\n" +
			"  tierlog bucket ls orders --json | jq '.topics[].partitions[].end'\n" +
			"  tierlog bucket ls --keys --store 's3://my-bucket/logs?region=eu-central-1'",
		Args: atMostOneArg("PREFIX"),
	}
	store := a.storeFlag(cmd)
	keys := cmd.Flags().Bool("keys", false, "list objects, with their keys")
	asJSON := cmd.Flags().Bool("json", false, "print JSON; with --keys an object is a line of JSON")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		prefix := ""
		if len(args) > 0 {
			prefix = args[0]
		}
		if *keys {
			return a.withStore(cmd, store, func(ctx context.Context, s objstore.Store) error {
				return a.listKeys(ctx, s, prefix, *asJSON)
			})
		}
		return a.withHistory(cmd, store, func(ctx context.Context, r *history.Reader) error {
			s, err := r.Summarize(ctx, prefix)
			switch {
			case err != nil:
				return err
			case *asJSON:
				return writeJSON(a.Stdout, s)
			default:
				return a.printSummary(s)
			}
		})
	}
	return cmd
}

// atMostOneArg allows one argument.
func atMostOneArg(what string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) > 1 {
			return misuse("unexpected argument %q after %s %q", args[1], what, args[0])
		}
		return nil
	}
}

func (a *app) listKeys(ctx context.Context, s objstore.Store, prefix string, asJSON bool) error {
	return history.List(ctx, s, prefix, func(e history.Entry) error {
		var err error
		if asJSON {
			line := appendJSONString([]byte(`{"key":`), []byte(e.Key))
			_, err = fmt.Fprintf(a.Stdout, `%s,"size":%d,"kind":%q}`+"\n", line, e.Size, e.Kind)
		} else {
			_, err = fmt.Fprintf(a.Stdout, "%12d  %-10s  %s\n", e.Size, e.Kind, e.Key)
		}
		return err
	})
}

// printSummary prints what is live.
func (a *app) printSummary(s *history.Summary) error {
	if err := a.say("cluster %s, metadata log at slot %d", s.Cluster, s.Slot); err != nil {
		return err
	}
	brokers := newTable(">BROKER", ">EPOCH", "ADDRESS", "VERSION")
	for _, b := range s.Brokers {
		brokers.row(b.Node, b.Epoch, b.Address, cmp.Or(b.Version, "-"))
	}
	epochs := newTable(">EPOCH", ">BROKER", "STATE", ">SLOTS", ">MERGED", ">WAL OBJECTS", ">SIZE", ">MERGED SEGMENTS", ">SIZE")
	for _, e := range s.Epochs {
		epochs.row(e.Epoch, e.Node, epochState(e), e.Slots, e.MergedThrough, count(e.WAL.Objects), size(e.WAL.Bytes), count(e.Merged.Objects), size(e.Merged.Bytes))
	}
	topics := newTable("TOPIC", ">PARTITION", ">START", ">END", ">RECORDS", ">LOG SEGMENTS", ">SIZE", ">SECTIONS", ">SIZE")
	for _, t := range s.Topics {
		for _, p := range t.Partitions {
			if p.Error != "" {
				topics.row(t.Name, p.Partition, "?", "?", "?", "?", "?", "?", "?")
				continue
			}
			topics.row(t.Name, p.Partition, p.Start, p.End, count(p.Records()), p.Segments, size(p.SegmentBytes), p.Sections, size(p.SectionBytes))
		}
	}
	for _, t := range []*table{brokers, epochs, topics} {
		if len(t.rows) == 0 {
			continue
		}
		if err := a.say(""); err != nil {
			return err
		}
		if err := t.write(a.Stdout, 0); err != nil {
			return err
		}
	}
	for _, t := range s.Topics {
		for _, p := range t.Partitions {
			if p.Error != "" {
				a.note("topic %s partition %d: %s", t.Name, p.Partition, p.Error)
			}
		}
	}
	return nil
}

func epochState(e history.EpochSummary) string {
	switch {
	case e.Live:
		return "live"
	case e.Fenced:
		return "fenced"
	default:
		return "open" // its broker is gone; the next one writes the fence
	}
}
