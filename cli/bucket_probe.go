package cli

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/tierlog/tierlog/objstore"
)

// probeReport is `bucket probe --json`.
type probeReport struct {
	Store string `json:"store"`
	Safe  bool   `json:"safe"`
	Error string `json:"error,omitempty"`
	objstore.Report
}

func (a *app) bucketProbeCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "probe [flags]",
		Short: "Try out what a bucket can do, and how fast",
		Long: "Try out, under keys of its own that are deleted again, whether a bucket keeps the promises that tierlog rests on:\n" +
			"conditional writes with exactly one winner, reads and lists that show every write. A broker does the same at\n" +
			"start. Then measure latency and throughput, with some 300 MiB written and read; --quick leaves that out.\n" +
			"Exit code 0 says that the bucket can be used.",
		Example: "  tierlog bucket probe --store ./bucket\n" +
			"  tierlog bucket probe --store 's3://my-bucket/logs?region=eu-central-1' --json\n" +
			"  tierlog bucket probe --store minio+http://KEY:SECRET@127.0.0.1:9000/my-bucket --quick",
		Args: noArgs,
	}
	store := a.storeFlag(cmd)
	quick := cmd.Flags().Bool("quick", false, "measure nothing")
	asJSON := cmd.Flags().Bool("json", false, "print JSON")
	cmd.RunE = func(cmd *cobra.Command, _ []string) (err error) {
		spec, err := store()
		if err != nil {
			return err
		}
		s, err := a.openStore(cmd.Context(), spec)
		if err != nil {
			return storeHint(err, spec)
		}
		defer func() { err = errors.Join(err, s.Close()) }()
		opts := objstore.ProbeOptions{Full: !*quick}
		if !*asJSON {
			if err := a.say("probing %s", spec.Redacted()); err != nil {
				return err
			}
			opts.Progress = func(c objstore.Check) { _, _ = fmt.Fprintln(a.Stdout, c) }
		}
		report, err := objstore.Probe(cmd.Context(), s, opts)
		if *asJSON {
			out := probeReport{Store: spec.Redacted(), Safe: err == nil, Report: report}
			if err != nil {
				out.Error = err.Error()
			}
			return errors.Join(writeJSON(a.Stdout, out), storeHint(err, spec))
		}
		if err != nil {
			return storeHint(err, spec)
		}
		return a.say("the bucket can be used")
	}
	return cmd
}
