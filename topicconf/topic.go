package topicconf

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
)

// TimestampType says whose clock a record's timestamp is from, numbered as in a record batch's attributes.
type TimestampType int8

// The timestamp types.
const (
	CreateTime    TimestampType = 0
	LogAppendTime TimestampType = 1
)

// String returns Kafka's name of the type.
func (t TimestampType) String() string {
	if t == LogAppendTime {
		return "LogAppendTime"
	}
	return "CreateTime"
}

// CleanupPolicy is the set of a topic's policies; none keeps records for ever.
type CleanupPolicy uint8

// The cleanup policies.
const (
	PolicyDelete CleanupPolicy = 1 << iota
	PolicyCompact
)

// Unlimited stands for "no bound" in RetentionMs and RetentionBytes.
const Unlimited int64 = -1

// Topic is the configuration of one topic as the engine uses it. It is immutable.
type Topic struct {
	// RetentionMs and RetentionBytes are Unlimited also where the policy deletes nothing.
	RetentionMs     int64
	RetentionBytes  int64
	MaxMessageBytes int32
	SegmentBytes    int32
	SegmentMs       int64
	TimestampType   TimestampType
	// BeforeMaxMs and AfterMaxMs bound how far a CreateTime timestamp may be from the broker's clock; MaxInt64 is no bound.
	BeforeMaxMs       int64
	AfterMaxMs        int64
	CleanupPolicy     CleanupPolicy
	MinInsyncReplicas int32 // reported; always met
}

// Check returns an error that names the first override, in name order, that is unknown, malformed or can not be
// honoured. Only what passed Check may be stored.
func (b *Broker) Check(overrides map[string]string) error {
	for _, name := range slices.Sorted(maps.Keys(overrides)) {
		d, ok := TopicDef(name)
		if !ok {
			return &InvalidError{Name: clip(name), Value: clip(overrides[name]), Unknown: "topic"}
		}
		if _, err := d.honoured(overrides[name]); err != nil {
			return err
		}
	}
	return nil
}

// Topic returns the configuration that the overrides give over the broker's defaults. It always returns one that can be
// used: where an override can not be read (it was stored by another version), the broker's default stands and the error,
// an *InvalidError or several joined, says so.
func (b *Broker) Topic(overrides map[string]string) (*Topic, error) {
	r := topicReader{broker: b, overrides: overrides}
	t := &Topic{
		RetentionMs:       r.get(RetentionMsConfig).i,
		RetentionBytes:    max(r.get(RetentionBytesConfig).i, Unlimited),
		MaxMessageBytes:   int32(r.get(MaxMessageBytesConfig).i),
		SegmentBytes:      int32(r.get(SegmentBytesConfig).i),
		SegmentMs:         r.get(SegmentMsConfig).i,
		BeforeMaxMs:       r.get(BeforeMaxMsConfig).i,
		AfterMaxMs:        r.get(AfterMaxMsConfig).i,
		MinInsyncReplicas: int32(r.get(MinInsyncReplicas).i),
	}
	if r.get(TimestampTypeConfig).s == LogAppendTime.String() {
		t.TimestampType = LogAppendTime
	}
	if slices.Contains(r.get(CleanupPolicyConfig).list, "delete") {
		t.CleanupPolicy |= PolicyDelete
	} else {
		t.RetentionMs, t.RetentionBytes = Unlimited, Unlimited
	}
	return t, errors.Join(r.errs...)
}

// topicReader reads one topic's settings and collects what is wrong with them.
type topicReader struct {
	broker    *Broker
	overrides map[string]string
	errs      []error
}

func (r *topicReader) get(name string) value {
	d := topicIndex[name]
	if text, ok := r.overrides[name]; ok {
		v, err := d.honoured(text)
		if err == nil {
			return v
		}
		r.errs = append(r.errs, err)
	}
	return d.mustParse(r.broker.topicDefault(d).text)
}

// OpKind is what an incremental change does with a setting, numbered as in IncrementalAlterConfigs.
type OpKind int8

// The kinds of incremental change.
const (
	OpSet      OpKind = 0
	OpDelete   OpKind = 1
	OpAppend   OpKind = 2
	OpSubtract OpKind = 3
)

// Op is one incremental change.
type Op struct {
	Kind  OpKind
	Name  string
	Value string // not used by OpDelete
}

// Alter returns the overrides of a topic after the changes; current stays as it is. The result is checked.
// A setting may be named once only, as in Kafka.
func (b *Broker) Alter(current map[string]string, ops []Op) (map[string]string, error) {
	next, err := apply(current, ops, lookup{kind: "topic", def: TopicDef, fallback: func(d *Def) string { return b.topicDefault(d).text }})
	if err != nil {
		return nil, err
	}
	return next, b.Check(next)
}

// lookup is where apply finds definitions and values in force.
type lookup struct {
	kind     string
	def      func(name string) (*Def, bool)
	fallback func(d *Def) string
}

func apply(current map[string]string, ops []Op, in lookup) (map[string]string, error) {
	next := make(map[string]string, len(current)+len(ops))
	maps.Copy(next, current)
	seen := make(map[string]bool, len(ops))
	for _, op := range ops {
		d, ok := in.def(op.Name)
		switch {
		case !ok:
			return nil, &InvalidError{Name: clip(op.Name), Value: clip(op.Value), Unknown: in.kind}
		case seen[op.Name]:
			return nil, &InvalidError{Name: op.Name, Value: clip(op.Value), Reason: "the setting is named more than once"}
		}
		seen[op.Name] = true
		switch op.Kind {
		case OpSet:
			next[op.Name] = op.Value
		case OpDelete:
			delete(next, op.Name)
		case OpAppend, OpSubtract:
			text, ok := next[op.Name]
			if !ok {
				text = in.fallback(d)
			}
			v, err := d.combine(op, text)
			if err != nil {
				return nil, err
			}
			next[op.Name] = v
		default:
			return nil, &InvalidError{Name: op.Name, Value: clip(op.Value), Reason: fmt.Sprintf("unknown operation %d", op.Kind)}
		}
	}
	return next, nil
}

// combine appends the parts of op's value to the list in text, or removes them from it.
func (d *Def) combine(op Op, text string) (string, error) {
	verb := "APPEND"
	if op.Kind == OpSubtract {
		verb = "SUBTRACT"
	}
	if d.Type != List {
		return "", &InvalidError{
			Name: d.Name, Value: clip(op.Value),
			Reason: fmt.Sprintf("Can't %s to key %s because its type is not LIST.", verb, d.Name),
		}
	}
	list := splitList(text)
	for _, part := range splitList(op.Value) {
		at := slices.Index(list, part)
		switch {
		case op.Kind == OpAppend && at < 0:
			list = append(list, part)
		case op.Kind == OpSubtract && at >= 0:
			list = slices.Delete(list, at, at+1)
		}
	}
	return value{typ: List, list: list}.text(), nil
}

// NoBound reports whether a bound of BeforeMaxMs or AfterMaxMs is none at all.
func NoBound(ms int64) bool { return ms == math.MaxInt64 }
