package cli

import (
	"context"
	"errors"
	"strings"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
)

func (a *app) topicAlterCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "alter NAME [flags]",
		Short: "Change a topic's configs, or give it more partitions",
		Example: "  tierlog topic alter orders --config retention.ms=3600000\n" +
			"  tierlog topic alter orders --partitions 24 --delete-config retention.ms",
		Args:              oneArg("the topic's NAME"),
		ValidArgsFunction: a.completeTopics(1),
	}
	client := a.clientFlags(cmd)
	partitions := cmd.Flags().Int("partitions", 0, "`N` partitions to have afterwards; more than now")
	set := cmd.Flags().StringArray("config", nil, "set a topic config, as `K=V`; may be repeated")
	unset := cmd.Flags().StringArray("delete-config", nil, "set the topic config `K` back to the broker's value; may be repeated")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		changes, err := configChanges(*set, *unset)
		if err != nil {
			return err
		}
		switch {
		case cmd.Flags().Changed("partitions") && *partitions < 1:
			return misuse("partitions %d: want at least 1", *partitions)
		case *partitions == 0 && len(changes) == 0:
			return misuse("nothing to change: give --partitions, --config or --delete-config")
		}
		cl, err := client.connect(cmd)
		if err != nil {
			return err
		}
		defer cl.Close()
		adm := kadm.NewClient(cl)
		if len(changes) > 0 {
			if err := alterConfigs(cmd.Context(), adm, args[0], changes); err != nil {
				return err
			}
			if err := a.say("topic %s: %s", args[0], describeChanges(changes)); err != nil {
				return err
			}
		}
		if *partitions == 0 {
			return nil
		}
		resp, err := adm.UpdatePartitions(cmd.Context(), *partitions, args[0])
		if err == nil {
			r := resp[args[0]]
			if r.Err != nil {
				err := topicError(args[0], r.Err, r.ErrMessage)
				return hintOn(err, kerr.InvalidPartitions, "Partitions can be added, not removed.")
			}
			return a.say("topic %s: now %s", args[0], plural(*partitions, "partition"))
		}
		return err
	}
	return cmd
}

func configChanges(set, unset []string) ([]kadm.AlterConfig, error) {
	pairs, err := parsePairs("config", set)
	if err != nil {
		return nil, err
	}
	var changes []kadm.AlterConfig
	for _, kv := range pairs {
		changes = append(changes, kadm.AlterConfig{Op: kadm.SetConfig, Name: kv[0], Value: &kv[1]})
	}
	for _, name := range unset {
		if name == "" || strings.Contains(name, "=") {
			return nil, misuse("delete-config %q: want a config's name", name)
		}
		changes = append(changes, kadm.AlterConfig{Op: kadm.DeleteConfig, Name: name})
	}
	return changes, nil
}

func alterConfigs(ctx context.Context, adm *kadm.Client, topic string, changes []kadm.AlterConfig) error {
	resps, err := adm.AlterTopicConfigs(ctx, changes, topic)
	if err != nil {
		return err
	}
	r, err := resps.On(topic, nil)
	if err := errors.Join(err, r.Err); err != nil {
		return topicError(topic, err, r.ErrMessage)
	}
	return nil
}

func describeChanges(changes []kadm.AlterConfig) string {
	var parts []string
	for _, c := range changes {
		if c.Op == kadm.DeleteConfig {
			parts = append(parts, "reset "+c.Name)
		} else {
			parts = append(parts, "set "+c.Name+"="+*c.Value)
		}
	}
	return strings.Join(parts, ", ")
}
