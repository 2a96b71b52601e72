package cluster

import (
	"fmt"
	"strings"
)

// MaxTopicName is the longest topic name in bytes, as in Kafka.
const MaxTopicName = 249

// MaxPartitions is the largest number of partitions of one topic.
const MaxPartitions = 100_000

// CheckTopicName says why a name can not be a topic's: Kafka's rules. The error is a *TopicError of ErrInvalidTopic.
func CheckTopicName(name string) error {
	fail := func(format string, args ...any) error {
		return &TopicError{Kind: ErrInvalidTopic, Topic: name, Detail: fmt.Sprintf(format, args...)}
	}
	switch {
	case name == "":
		return fail("the empty string is not allowed")
	case name == "." || name == "..":
		return fail("%q is not allowed", name)
	case len(name) > MaxTopicName:
		return fail("the length is %d, at most %d are allowed", len(name), MaxTopicName)
	}
	for i := range len(name) {
		c := name[i]
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '.' && c != '_' && c != '-' {
			return fail("it holds %q; ASCII letters and digits, '.', '_' and '-' are allowed", rune(c))
		}
	}
	return nil
}

// checkPartitions says why a topic can not have n partitions.
func checkPartitions(topic string, n int32) error {
	if n < 1 || n > MaxPartitions {
		return &TopicError{Kind: ErrInvalidPartitions, Topic: topic, Detail: fmt.Sprintf("%d, want 1 to %d", n, MaxPartitions)}
	}
	return nil
}

// collisionKey is equal for two names that Kafka refuses to have side by side, since metrics names can not tell '.' and
// '_' apart.
func collisionKey(name string) string { return strings.ReplaceAll(name, ".", "_") }
