package cli

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// topicDescription is one topic in `topic describe --json`.
type topicDescription struct {
	Name       string                 `json:"name"`
	ID         string                 `json:"id"`
	Internal   bool                   `json:"internal"`
	Replicas   int                    `json:"replicas"`
	Configs    map[string]string      `json:"configs"` // those that differ from the broker's
	Partitions []partitionDescription `json:"partitions"`
}

type partitionDescription struct {
	Partition   int32  `json:"partition"`
	Leader      int32  `json:"leader"`
	LeaderEpoch int32  `json:"leader_epoch"`
	Earliest    int64  `json:"earliest"` // -1 if unknown
	Latest      int64  `json:"latest"`   // -1 if unknown
	Error       string `json:"error,omitempty"`
}

func (a *app) topicDescribeCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:               "describe [NAME...] [flags]",
		Short:             "Show partitions, leaders, offsets and configs of topics; of all topics without a name",
		Example:           "  tierlog topic describe orders\n  tierlog topic describe --json | jq '.[].partitions[].latest'",
		ValidArgsFunction: a.completeTopics(0),
	}
	client := a.clientFlags(cmd)
	asJSON := cmd.Flags().Bool("json", false, "print JSON")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		cl, err := client.connect(cmd)
		if err != nil {
			return err
		}
		defer cl.Close()
		topics, missing := describeTopics(cmd.Context(), kadm.NewClient(cl), args)
		if *asJSON {
			err = writeJSON(a.Stdout, topics)
		} else {
			err = writeTopics(a.Stdout, topics)
		}
		return errors.Join(err, missing)
	}
	return cmd
}

// describeTopics returns the topics that exist, and an error naming those that do not.
func describeTopics(ctx context.Context, adm *kadm.Client, names []string) ([]topicDescription, error) {
	details, err := adm.ListTopics(ctx, names...)
	if err != nil {
		return nil, err
	}
	var errs []error
	var found []string
	for _, d := range details.Sorted() {
		if d.Err != nil {
			errs = append(errs, topicError(d.Topic, d.Err, ""))
			continue
		}
		found = append(found, d.Topic)
	}
	out := make([]topicDescription, 0, len(found))
	if len(found) == 0 {
		return out, errors.Join(errs...)
	}
	// A partition that cannot answer has its error in the listing; the others still show.
	starts, serr := adm.ListStartOffsets(ctx, found...)
	ends, eerr := adm.ListEndOffsets(ctx, found...)
	configs, cerr := adm.DescribeTopicConfigs(ctx, found...)
	errs = append(errs, serr, eerr, cerr)
	for _, name := range found {
		d := details[name]
		t := topicDescription{
			Name: name, ID: topicID(d.ID), Internal: d.IsInternal, Replicas: d.Partitions.NumReplicas(),
			Configs: map[string]string{},
		}
		if rc, err := configs.On(name, nil); err == nil {
			t.Configs = ownConfigs(rc.Configs)
		}
		for _, p := range d.Partitions.Sorted() {
			t.Partitions = append(t.Partitions, describePartition(p, starts, ends))
		}
		out = append(out, t)
	}
	return out, errors.Join(errs...)
}

func describePartition(p kadm.PartitionDetail, starts, ends kadm.ListedOffsets) partitionDescription {
	d := partitionDescription{Partition: p.Partition, Leader: p.Leader, LeaderEpoch: p.LeaderEpoch, Earliest: -1, Latest: -1}
	fail := func(err error) {
		if err != nil && d.Error == "" {
			d.Error = kafkaError(err, "").Error()
		}
	}
	fail(p.Err)
	if o, ok := starts.Lookup(p.Topic, p.Partition); ok && o.Err == nil {
		d.Earliest = o.Offset
	} else {
		fail(o.Err)
	}
	if o, ok := ends.Lookup(p.Topic, p.Partition); ok && o.Err == nil {
		d.Latest = o.Offset
	} else {
		fail(o.Err)
	}
	return d
}

// ownConfigs returns the configs that were set on the topic itself.
func ownConfigs(configs []kadm.Config) map[string]string {
	own := map[string]string{}
	for _, c := range configs {
		if c.Source == kmsg.ConfigSourceDynamicTopicConfig && c.Value != nil {
			own[c.Key] = *c.Value
		}
	}
	return own
}

func writeTopics(w io.Writer, topics []topicDescription) error {
	for i, t := range topics {
		gap := ""
		if i > 0 {
			gap = "\n"
		}
		_, err := fmt.Fprintf(w, "%stopic %s\n  id         %s\n  replicas   %d\n", gap, t.Name, t.ID, t.Replicas)
		if err != nil {
			return err
		}
		label := "configs"
		for _, k := range slices.Sorted(maps.Keys(t.Configs)) {
			if _, err := fmt.Fprintf(w, "  %-9s  %s=%s\n", label, k, t.Configs[k]); err != nil {
				return err
			}
			label = ""
		}
		rows := newTable(">PARTITION", ">LEADER", ">EPOCH", ">EARLIEST", ">LATEST", ">OFFSETS", "")
		for _, p := range t.Partitions {
			span := "-"
			if p.Earliest >= 0 && p.Latest >= 0 {
				span = fmt.Sprint(p.Latest - p.Earliest)
			}
			rows.row(p.Partition, orDash(int64(p.Leader)), orDash(int64(p.LeaderEpoch)), orDash(p.Earliest), orDash(p.Latest), span, p.Error)
		}
		if err := rows.write(w, 2); err != nil {
			return err
		}
	}
	return nil
}

func orDash(n int64) string {
	if n < 0 {
		return "-"
	}
	return fmt.Sprint(n)
}

// topicID prints an id as Kafka's own tools do.
func topicID(id kadm.TopicID) string { return base64.RawURLEncoding.EncodeToString(id[:]) }
