package cli

import (
	"errors"
	"time"

	"github.com/spf13/cobra"

	"github.com/tierlog/tierlog/cli/bench"
)

func (a *app) benchLatencyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "latency [flags]",
		Short: "Measure the time until records are acknowledged, and until a consumer has them",
		Long: "Write records at a rate and read them back at the same time.\n" +
			"Both latencies count from the time each record was due, so that a stall shows in all it delayed.",
		Example: "  tierlog bench latency\n" +
			"  tierlog bench latency --rate 200 --duration 60s --acks 1 --record-size 100 --json",
		Args: noArgs,
	}
	f := a.loadFlags(cmd)
	fs := cmd.Flags()
	fs.Int64Var(&f.load.Records, "records", 0, "`N` records to write in all (default: until --duration is over)")
	fs.DurationVar(&f.load.Duration, "duration", 0, "`TIME` to write (default: 10s, or until --records are written)")
	fs.Float64Var(&f.load.Rate, "rate", 1000, "`N` records per second in all")
	fs.DurationVar(&f.linger, "linger", 0, "`TIME` a batch waits for more records")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if f.load.Records == 0 && f.load.Duration == 0 {
			f.load.Duration = 10 * time.Second
		}
		if f.load.Rate <= 0 {
			return misuse("rate %g: want more than 0", f.load.Rate)
		}
		f.load.RecordSize = max(f.load.RecordSize, bench.MinLatencySize)
		if err := f.check(); err != nil {
			return err
		}
		ends, err := f.ensureTopic(cmd)
		if err != nil {
			return err
		}
		dial, err := f.client.dialer(cmd)
		if err != nil {
			return err
		}
		report, err := bench.Roundtrip(cmd.Context(), dial, f.load, ends)
		return errors.Join(a.report(report, f.asJSON), err)
	}
	return cmd
}
