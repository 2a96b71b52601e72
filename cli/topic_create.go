package cli

import (
	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
)

func (a *app) topicCreateCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "create NAME [flags]",
		Short: "Create a topic",
		Example: "  tierlog topic create orders\n" +
			"  tierlog topic create orders --partitions 12 --config retention.ms=86400000 --config segment.bytes=67108864",
		Args: oneArg("the topic's NAME"),
	}
	client := a.clientFlags(cmd)
	partitions := cmd.Flags().Int32("partitions", 0, "`N` partitions (default: the broker's num.partitions)")
	configs := cmd.Flags().StringArray("config", nil, "topic config as `K=V`, by its Kafka name; may be repeated")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		pairs, err := parsePairs("config", *configs)
		if err != nil {
			return err
		}
		n := *partitions
		switch {
		case !cmd.Flags().Changed("partitions"):
			n = -1 // The broker's default.
		case n < 1:
			return misuse("partitions %d: want at least 1", n)
		}
		cl, err := client.connect(cmd)
		if err != nil {
			return err
		}
		defer cl.Close()
		set := map[string]*string{}
		for _, kv := range pairs {
			set[kv[0]] = &kv[1]
		}
		resp, err := kadm.NewClient(cl).CreateTopic(cmd.Context(), n, -1, set, args[0])
		if err != nil {
			err = topicError(args[0], err, resp.ErrMessage)
			return hintOn(err, kerr.TopicAlreadyExists, "See `tierlog topic describe %s`.", args[0])
		}
		if resp.NumPartitions > 0 {
			return a.say("created topic %s with %s", args[0], plural(resp.NumPartitions, "partition"))
		}
		return a.say("created topic %s", args[0])
	}
	return cmd
}
