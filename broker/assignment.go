package broker

import (
	"fmt"
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// badAssignment is Kafka's answer to a manual assignment that cannot be.
func badAssignment(format string, args ...any) error {
	return &coded{kerr.InvalidReplicaAssignment, "The manual partition assignment " + fmt.Sprintf(format, args...)}
}

// checkReplicas applies Kafka's rules to one partition's manual assignment; size is the replicas of the first one.
func (b *Broker) checkReplicas(replicas []int32, size int) error {
	switch {
	case len(replicas) == 0:
		return badAssignment("includes an empty replica list.")
	case len(replicas) != size:
		return badAssignment("includes a partition with %d replica(s), but this is not consistent with previous partitions, which have %d replica(s).", len(replicas), size)
	}
	members := b.cfg.Meta.Members()
	for i, r := range replicas {
		if slices.Contains(replicas[:i], r) {
			return badAssignment("includes the broker %d more than once.", r)
		}
		if !slices.ContainsFunc(members, func(m Member) bool { return m.NodeID == r }) {
			return badAssignment("includes broker %d, but no such broker is registered.", r)
		}
	}
	return nil
}

// checkAssignment checks the manual assignment of a new topic: its partitions are 0, 1, and so on, each once.
func (b *Broker) checkAssignment(assigned []kmsg.CreateTopicsRequestTopicReplicaAssignment) error {
	seen := make([]bool, len(assigned))
	for i := range assigned {
		if err := b.checkReplicas(assigned[i].Replicas, len(assigned[0].Replicas)); err != nil {
			return err
		}
		p := assigned[i].Partition
		if p < 0 || int(p) >= len(seen) || seen[p] {
			return badAssignment("has the partition %d: partitions should be a consecutive 0-based integer sequence.", p)
		}
		seen[p] = true
	}
	return nil
}
