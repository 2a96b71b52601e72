package cli

import (
	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"
)

// topicListing is one topic in `topic list --json`.
type topicListing struct {
	Name       string `json:"name"`
	ID         string `json:"id"`
	Partitions int    `json:"partitions"`
	Replicas   int    `json:"replicas"`
	Internal   bool   `json:"internal"`
	Error      string `json:"error,omitempty"`
}

func (a *app) topicListCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "list [flags]",
		Aliases: []string{"ls"},
		Short:   "List the topics",
		Example: "  tierlog topic list\n  tierlog topic list --json | jq -r '.[].name'",
		Args:    noArgs,
	}
	client := a.clientFlags(cmd)
	asJSON := cmd.Flags().Bool("json", false, "print JSON")
	internal := cmd.Flags().Bool("internal", false, "also list internal topics")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		cl, err := client.connect(cmd)
		if err != nil {
			return err
		}
		defer cl.Close()
		details, err := kadm.NewClient(cl).ListTopicsWithInternal(cmd.Context())
		if err != nil {
			return err
		}
		if !*internal {
			details.FilterInternal()
		}
		topics := make([]topicListing, 0, len(details))
		for _, d := range details.Sorted() {
			l := topicListing{Name: d.Topic, ID: topicID(d.ID), Partitions: len(d.Partitions), Internal: d.IsInternal}
			l.Replicas = d.Partitions.NumReplicas()
			if d.Err != nil {
				l.Error = kafkaError(d.Err, "").Error()
			}
			topics = append(topics, l)
		}
		if *asJSON {
			return writeJSON(a.Stdout, topics)
		}
		if len(topics) == 0 && isTerminal(a.Stdout) {
			a.note("No topics. Create one with `tierlog topic create NAME`.")
			return nil
		}
		t := newTable("NAME", ">PARTITIONS", ">REPLICAS", "ID")
		for _, l := range topics {
			if l.Error != "" {
				t.row(l.Name, "-", "-", l.Error)
				continue
			}
			t.row(l.Name, l.Partitions, l.Replicas, l.ID)
		}
		return t.write(a.Stdout, 0)
	}
	return cmd
}
