package cli

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	"github.com/tierlog/tierlog/cli/settings"
	"github.com/tierlog/tierlog/objstore"
	"github.com/tierlog/tierlog/objstore/backend"
)

func (a *app) bucketCommand() *cobra.Command {
	return group(
		&cobra.Command{
			Use:   "bucket",
			Short: "Look into a bucket, without a broker",
			Example: "  tierlog bucket probe --store 's3://my-bucket/logs?region=eu-central-1'\n" +
				"  tierlog bucket ls --store ./bucket\n" +
				"  tierlog bucket cat orders --store ./bucket",
		},
		a.bucketProbeCommand(),
		a.bucketLsCommand(),
		a.bucketCatCommand(),
		a.bucketVerifyCommand(),
		a.bucketStatsCommand(),
	)
}

// storeFlag adds --store, which also comes from TIERLOG_STORE, as the broker's does.
func (a *app) storeFlag(cmd *cobra.Command) (parse func() (backend.Spec, error)) {
	var def string
	for _, s := range brokerSettings {
		if s.name == "store" {
			def = s.value
		}
	}
	variable := settings.EnvName(envPrefix, "store")
	flag := &namedString{value: def, kind: "URL"}
	cmd.Flags().Var(flag, "store", "the bucket: "+backend.Forms+"; also from "+variable)
	return func() (backend.Spec, error) {
		text, from := flag.value, settings.Source{Kind: settings.Flag, Where: "--store"}
		if env := a.getenv(variable); env != "" && !cmd.Flags().Changed("store") {
			text, from = env, settings.Source{Kind: settings.Environment, Where: variable}
		}
		spec, err := backend.Parse(text)
		if err != nil {
			return spec, &usageError{sourced(err, from)}
		}
		return spec, nil
	}
}

// openStore opens a bucket and says what the user should know of it before relying on it.
func (a *app) openStore(ctx context.Context, spec backend.Spec) (objstore.Store, error) {
	return backend.Open(ctx, spec, NewLogger(a.Stderr, LogConfig{Format: "text"}))
}

// storeHint says what to look at when a store refuses.
func storeHint(err error, spec backend.Spec) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, objstore.ErrNoBucket):
		return withHint(err, "Make the bucket of %s first, or check --store.", spec.Redacted())
	case errors.Is(err, objstore.ErrDenied):
		return withHint(err, "Check the credentials and what they allow on %s: list, get, put and delete.", spec.Redacted())
	case errors.Is(err, objstore.ErrUnavailable):
		return withHint(err, "Is %s reachable from here? Check --store.", spec.Redacted())
	case errors.Is(err, objstore.ErrUnsafe):
		return withHint(err, "tierlog would lose records on %s: its conditional writes or its consistency are not what they must be.", spec.Redacted())
	}
	return err
}
