package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/tierlog/tierlog/objstore"
	"github.com/tierlog/tierlog/tiered/history"
)

// verifyReport is `bucket verify --json`.
type verifyReport struct {
	Objects  int64             `json:"objects"`
	Batches  int64             `json:"batches"`
	Bytes    int64             `json:"bytes"`
	Problems []history.Finding `json:"problems"`
	Notes    []history.Finding `json:"notes"`
}

func (a *app) bucketVerifyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "verify [flags]",
		Short: "Check that everything in a bucket is sound",
		Long: "Read everything that is live in a bucket and check it: that the metadata log is whole, that every object that is\n" +
			"named is there with the right size, every checksum of manifests, sections and batches, that offsets follow each\n" +
			"other, and that the indexes of log segments fit their records. Nothing is written; a broker may be running.\n" +
			"Each problem is one line that names the object; what nothing needs, and gaps of offsets, are lines that begin\n" +
			"with \"info\". Exit code 0 says that there is no problem.",
		Example: "  tierlog bucket verify --store ./bucket\n" +
			"  tierlog bucket verify --store 's3://my-bucket/logs?region=eu-central-1' --fast\n" +
			"  tierlog bucket verify --json | jq .problems",
		Args: noArgs,
	}
	store := a.storeFlag(cmd)
	fast := cmd.Flags().Bool("fast", false, "check metadata and sizes, and read no records")
	asJSON := cmd.Flags().Bool("json", false, "print JSON")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return a.withStore(cmd, store, func(ctx context.Context, s objstore.Store) error {
			return a.bucketVerify(ctx, s, *fast, *asJSON)
		})
	}
	return cmd
}

func (a *app) bucketVerify(ctx context.Context, s objstore.Store, fast, asJSON bool) error {
	report := verifyReport{Problems: []history.Finding{}, Notes: []history.Finding{}}
	opts := history.VerifyOptions{
		Fast:    fast,
		Problem: func(f history.Finding) { _, _ = fmt.Fprintf(a.Stdout, "problem  %v\n", f) },
		Note:    func(f history.Finding) { _, _ = fmt.Fprintf(a.Stdout, "info     %v\n", f) },
	}
	if asJSON {
		opts.Problem = func(f history.Finding) { report.Problems = append(report.Problems, f) }
		opts.Note = func(f history.Finding) { report.Notes = append(report.Notes, f) }
	}
	var seen history.Verified
	stop := a.showProgress(a.Stderr, func() progressState {
		return progressState{records: seen.Records.Load(), bytes: seen.Bytes.Load()}
	})
	err := history.Verify(ctx, history.Config{Store: s, Now: a.Now, Logger: a.quietLogger()}, opts, &seen)
	stop()
	if err != nil {
		return err
	}
	report.Objects, report.Batches, report.Bytes = seen.Objects.Load(), seen.Batches.Load(), seen.Bytes.Load()
	n := seen.Problems.Load()
	if asJSON {
		err = writeJSON(a.Stdout, report)
	} else {
		verdict := "clean"
		if n > 0 {
			verdict = plural(n, "problem")
		}
		err = a.say("verified %s, %s, %s: %s", plural(report.Objects, "object"), batches(report.Batches), plural(report.Bytes, "byte"), verdict)
	}
	if n > 0 {
		return errors.Join(err, fmt.Errorf("the bucket has %s", plural(n, "problem")))
	}
	return err
}

// batches prints a number of batches.
func batches(n int64) string {
	if n == 1 {
		return "1 batch"
	}
	return count(n) + " batches"
}
