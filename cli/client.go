package cli

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

const (
	bootstrapVariable = "TIERLOG_BOOTSTRAP"
	defaultBootstrap  = "127.0.0.1:9092"
	// connectTimeout bounds the first contact: a wrong address is told soon, later outages are waited out.
	connectTimeout = 10 * time.Second
)

// clientFlags are the flags of every command that talks to a broker.
type clientFlags struct {
	app       *app
	bootstrap string
	verbose   bool
}

func (a *app) clientFlags(cmd *cobra.Command) *clientFlags {
	f := &clientFlags{app: a}
	def := a.getenv(bootstrapVariable)
	if def == "" {
		def = defaultBootstrap
	}
	cmd.Flags().VarP(&namedString{value: def, kind: "HOST:PORT,..."}, "bootstrap-server", "b",
		"brokers to ask first; also from "+bootstrapVariable)
	cmd.Flags().BoolVar(&f.verbose, "verbose", false, "log what the client does to standard error")
	return f
}

// options returns what every client of the command needs.
func (f *clientFlags) options(cmd *cobra.Command) ([]kgo.Opt, error) {
	f.bootstrap = cmd.Flag("bootstrap-server").Value.String()
	var seeds []string
	for seed := range strings.SplitSeq(f.bootstrap, ",") {
		if seed = strings.TrimSpace(seed); seed == "" {
			continue
		}
		if strings.Contains(seed, ":") && checkAddress("", seed, false) != nil {
			return nil, misuse("bootstrap-server %q: want HOST:PORT, or several with commas between", seed)
		}
		seeds = append(seeds, seed)
	}
	if len(seeds) == 0 {
		return nil, misuse("bootstrap-server %q: want HOST:PORT, or several with commas between", f.bootstrap)
	}
	opts := []kgo.Opt{
		kgo.SeedBrokers(seeds...),
		kgo.ClientID("tierlog"),
		kgo.SoftwareNameAndVersion("tierlog", "1"),
		kgo.DisableClientMetrics(),
		kgo.DialTimeout(connectTimeout / 2),
		kgo.MetadataMinAge(250 * time.Millisecond),
		kgo.AlwaysRetryEOF(),
	}
	if f.verbose {
		opts = append(opts, kgo.WithLogger(kgo.BasicLogger(f.app.Stderr, kgo.LogLevelInfo, nil)))
	}
	return opts, nil
}

// connect returns a client that has reached a broker.
func (f *clientFlags) connect(cmd *cobra.Command, more ...kgo.Opt) (*kgo.Client, error) {
	opts, err := f.options(cmd)
	if err != nil {
		return nil, err
	}
	return dial(cmd.Context(), append(opts, more...)...)
}

// dial returns a client that has reached a broker.
func dial(ctx context.Context, opts ...kgo.Opt) (*kgo.Client, error) {
	cl, err := kgo.NewClient(opts...)
	if err != nil {
		return nil, &usageError{err}
	}
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	if err := cl.Ping(ctx); err != nil {
		cl.Close()
		return nil, err
	}
	return cl, nil
}

// completeTopics completes topic names by asking the broker; without one it offers nothing.
func (a *app) completeTopics(limit int) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if limit > 0 && len(args) >= limit {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		cmd.SetContext(ctx)
		cl, err := (&clientFlags{app: a}).connect(cmd)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		defer cl.Close()
		topics, err := kadm.NewClient(cl).ListTopics(ctx)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return topics.Names(), cobra.ShellCompDirectiveNoFileComp
	}
}

// topicDetail returns a topic that must exist.
func topicDetail(ctx context.Context, adm *kadm.Client, topic string) (kadm.TopicDetail, error) {
	details, err := adm.ListTopics(ctx, topic)
	if err != nil {
		return kadm.TopicDetail{}, err
	}
	d := details[topic]
	if d.Err != nil {
		return d, topicError(topic, d.Err, "")
	}
	return d, nil
}

// topicError says which topic an error is about.
func topicError(topic string, err error, message string) error {
	return fmt.Errorf("topic %s: %w", topic, kafkaError(err, message))
}

// parsePairs turns K=V arguments of a flag into pairs.
func parsePairs(flag string, args []string) ([][2]string, error) {
	pairs := make([][2]string, 0, len(args))
	for _, arg := range args {
		k, v, ok := strings.Cut(arg, "=")
		if !ok || k == "" {
			return nil, misuse("%s %q: want K=V", flag, arg)
		}
		pairs = append(pairs, [2]string{k, v})
	}
	return pairs, nil
}
