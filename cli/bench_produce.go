package cli

import (
	"errors"
	"time"

	"github.com/spf13/cobra"

	"github.com/tierlog/tierlog/cli/bench"
)

func (a *app) benchProduceCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "produce [flags]",
		Short: "Measure writing: throughput, and the time until records are acknowledged",
		Long: "Write records as fast as possible, or at --rate, until --records or --duration is over.\n" +
			"With a rate, latency counts from the time each record was due, so that a stall shows in all it delayed.",
		Example: "  tierlog bench produce --records 5000000 --record-size 100 --partitions 8\n" +
			"  tierlog bench produce --duration 30s --producers 4 --compression zstd --payload text\n" +
			"  tierlog bench produce --rate 1000 --duration 60s --linger 0 --acks 1 --json",
		Args: noArgs,
	}
	f := a.loadFlags(cmd)
	fs := cmd.Flags()
	fs.Int64Var(&f.load.Records, "records", 0, "`N` records to write in all (default: until --duration is over)")
	fs.DurationVar(&f.load.Duration, "duration", 0, "`TIME` to write (default: 10s, or until --records are written)")
	fs.Float64Var(&f.load.Rate, "rate", 0, "`N` records per second in all (default: as many as go)")
	fs.DurationVar(&f.linger, "linger", 5*time.Millisecond, "`TIME` a batch waits for more records")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if f.load.Records == 0 && f.load.Duration == 0 {
			f.load.Duration = 10 * time.Second
		}
		if err := f.check(); err != nil {
			return err
		}
		if _, err := f.ensureTopic(cmd); err != nil {
			return err
		}
		dial, err := f.client.dialer(cmd)
		if err != nil {
			return err
		}
		report, err := bench.Produce(cmd.Context(), dial, f.load)
		return errors.Join(a.report(report, f.asJSON), err)
	}
	return cmd
}

// report prints a report if there is one; an error may follow it.
func (a *app) report(r bench.Report, asJSON bool) error {
	if r.Seconds == 0 {
		return nil
	}
	return writeReport(a.Stdout, r, asJSON)
}
