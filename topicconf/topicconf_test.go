package topicconf_test

import (
	"errors"
	"maps"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tierlog/tierlog/topicconf"
)

func broker(t *testing.T, static map[string]string) *topicconf.Broker {
	t.Helper()
	b, err := topicconf.NewBroker(static)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Every setting of Apache Kafka 4.3.1's LogConfig, but for the internal one, with its type and default.
var kafkaTopicSettings = map[string]struct{ typ, def string }{
	"cleanup.policy":                          {"LIST", "delete"},
	"compression.gzip.level":                  {"INT", "-1"},
	"compression.lz4.level":                   {"INT", "9"},
	"compression.type":                        {"STRING", "producer"},
	"compression.zstd.level":                  {"INT", "3"},
	"delete.retention.ms":                     {"LONG", "86400000"},
	"file.delete.delay.ms":                    {"LONG", "60000"},
	"flush.messages":                          {"LONG", "9223372036854775807"},
	"flush.ms":                                {"LONG", "9223372036854775807"},
	"follower.replication.throttled.replicas": {"LIST", ""},
	"index.interval.bytes":                    {"INT", "4096"},
	"leader.replication.throttled.replicas":   {"LIST", ""},
	"local.retention.bytes":                   {"LONG", "-2"},
	"local.retention.ms":                      {"LONG", "-2"},
	"max.compaction.lag.ms":                   {"LONG", "9223372036854775807"},
	"max.message.bytes":                       {"INT", "1048588"},
	"message.timestamp.after.max.ms":          {"LONG", "3600000"},
	"message.timestamp.before.max.ms":         {"LONG", "9223372036854775807"},
	"message.timestamp.type":                  {"STRING", "CreateTime"},
	"min.cleanable.dirty.ratio":               {"DOUBLE", "0.5"},
	"min.compaction.lag.ms":                   {"LONG", "0"},
	"min.insync.replicas":                     {"INT", "1"},
	"preallocate":                             {"BOOLEAN", "false"},
	"remote.log.copy.disable":                 {"BOOLEAN", "false"},
	"remote.log.delete.on.disable":            {"BOOLEAN", "false"},
	"remote.storage.enable":                   {"BOOLEAN", "false"},
	"retention.bytes":                         {"LONG", "-1"},
	"retention.ms":                            {"LONG", "604800000"},
	"segment.bytes":                           {"INT", "268435456"}, // Kafka: 1073741824
	"segment.index.bytes":                     {"INT", "10485760"},
	"segment.jitter.ms":                       {"LONG", "0"},
	"segment.ms":                              {"LONG", "604800000"},
	"unclean.leader.election.enable":          {"BOOLEAN", "false"},
}

func TestTopicDefsAreKafkas(t *testing.T) {
	seen := map[string]bool{}
	for _, d := range topicconf.TopicDefs() {
		seen[d.Name] = true
		want, ok := kafkaTopicSettings[d.Name]
		if !ok || d.Type.String() != want.typ || d.Default != want.def {
			t.Errorf("%s: %v with default %q, want %+v", d.Name, d.Type, d.Default, want)
		}
	}
	for name := range kafkaTopicSettings {
		if !seen[name] {
			t.Errorf("%s is missing", name)
		}
	}
}

func TestTablesHoldTogether(t *testing.T) {
	b := broker(t, nil)
	for _, defs := range [][]topicconf.Def{topicconf.TopicDefs(), topicconf.BrokerDefs()} {
		if !slices.IsSortedFunc(defs, func(a, b topicconf.Def) int { return strings.Compare(a.Name, b.Name) }) {
			t.Error("definitions are not sorted")
		}
		for _, d := range defs {
			if d.Doc == "" || !strings.HasSuffix(d.Doc, ".") {
				t.Errorf("%s: documentation %q is no sentence", d.Name, d.Doc)
			}
			for _, s := range d.Synonyms {
				if _, ok := topicconf.BrokerDef(s.Name); !ok {
					t.Errorf("%s: synonym %s is no broker setting", d.Name, s.Name)
				}
			}
		}
	}
	// A topic's default is that of the last synonym, in the setting's unit; and every default is accepted.
	for _, e := range b.DescribeTopic(nil) {
		if err := b.Check(map[string]string{e.Name: e.Value}); err != nil {
			t.Errorf("default of %s: %v", e.Name, err)
		}
		last := e.Origins[len(e.Origins)-1]
		scale := int64(0)
		for _, s := range e.Synonyms {
			scale = s.Scale
		}
		if scale == 0 && last.Value != e.Value {
			t.Errorf("%s: default is %q, that of %s is %q", e.Name, e.Value, last.Name, last.Value)
		}
		if scale != 0 && (last.Value != "168" || e.Value != "604800000") {
			t.Errorf("%s: default is %q, that of %s is %q", e.Name, e.Value, last.Name, last.Value)
		}
	}
}

func TestTopicDefaults(t *testing.T) {
	got, err := broker(t, nil).Topic(nil)
	want := topicconf.Topic{
		RetentionMs: 7 * 24 * 3600 * 1000, RetentionBytes: topicconf.Unlimited, MaxMessageBytes: 1048588, SegmentBytes: 256 << 20,
		SegmentMs: 7 * 24 * 3600 * 1000, TimestampType: topicconf.CreateTime, BeforeMaxMs: math.MaxInt64, AfterMaxMs: 3600000,
		CleanupPolicy: topicconf.PolicyDelete, MinInsyncReplicas: 1,
	}
	if err != nil || *got != want {
		t.Errorf("Topic(nil) = %+v, %v; want %+v", got, err, want)
	}
}

func TestTopicOverrides(t *testing.T) {
	b := broker(t, nil)
	got, err := b.Topic(map[string]string{
		"retention.ms": " 5 ", "retention.bytes": "-7", "max.message.bytes": "+9", "segment.bytes": "1048576", "segment.ms": "1",
		"message.timestamp.type": "LogAppendTime", "message.timestamp.before.max.ms": "0", "message.timestamp.after.max.ms": "1",
		"cleanup.policy": " delete , delete", "min.insync.replicas": "2",
	})
	want := topicconf.Topic{
		RetentionMs: 5, RetentionBytes: topicconf.Unlimited, MaxMessageBytes: 9, SegmentBytes: 1 << 20, SegmentMs: 1,
		TimestampType: topicconf.LogAppendTime, AfterMaxMs: 1, CleanupPolicy: topicconf.PolicyDelete, MinInsyncReplicas: 2,
	}
	if err != nil || *got != want {
		t.Errorf("Topic = %+v, %v; want %+v", got, err, want)
	}
	forever, err := b.Topic(map[string]string{"cleanup.policy": "", "retention.ms": "1", "retention.bytes": "1"})
	if err != nil || forever.RetentionMs != topicconf.Unlimited || forever.RetentionBytes != topicconf.Unlimited || forever.CleanupPolicy != 0 {
		t.Errorf("a topic without a policy is %+v, %v; want no retention", forever, err)
	}
}

// The texts before the last two groups are those of Apache Kafka 4.3.1 for the same input.
func TestCheckRefuses(t *testing.T) {
	b := broker(t, nil)
	for _, c := range []struct{ name, value, want string }{
		{"nope", "1", "Unknown topic config name: nope"},
		{"retention.ms", "abc", "Invalid value abc for configuration retention.ms: Not a number of type LONG"},
		{"retention.ms", "", "Invalid value  for configuration retention.ms: Not a number of type LONG"},
		{"retention.ms", "0x10", "Invalid value 0x10 for configuration retention.ms: Not a number of type LONG"},
		{"retention.ms", "9223372036854775808", "Invalid value 9223372036854775808 for configuration retention.ms: Not a number of type LONG"},
		{"retention.ms", "-2", "Invalid value -2 for configuration retention.ms: Value must be at least -1"},
		{"max.message.bytes", "99999999999", "Invalid value 99999999999 for configuration max.message.bytes: Not a number of type INT"},
		{"segment.bytes", "14", "Invalid value 14 for configuration segment.bytes: Value must be at least 1048576"},
		{"message.timestamp.type", "x", "Invalid value x for configuration message.timestamp.type: String must be one of: CreateTime, LogAppendTime"},
		{"message.timestamp.type", "logappendtime", "Invalid value logappendtime for configuration message.timestamp.type: String must be one of: CreateTime, LogAppendTime"},
		{"preallocate", "yes", "Invalid value yes for configuration preallocate: Expected value to be either true or false"},
		{"cleanup.policy", "foo", "Invalid value foo for configuration cleanup.policy: String must be one of: compact, delete"},
		{"compression.type", "foo", "Invalid value foo for configuration compression.type: String must be one of: uncompressed, zstd, lz4, snappy, gzip, producer"},
		{"compression.gzip.level", "0", "Invalid value 0 for configuration compression.gzip.level: Value must be between 1 and 9 or equal to -1"},
		{"min.insync.replicas", "0", "Invalid value 0 for configuration min.insync.replicas: Value must be at least 1"},

		{"min.cleanable.dirty.ratio", "2", "Value must be no more than 1"}, // Kafka shows the value as 2.0
		{"min.cleanable.dirty.ratio", "NaN", "Value must be at least 0"},
		{"compression.lz4.level", "18", "Value must be no more than 17"},

		{"cleanup.policy", "compact", "compaction by key is not available yet"},
		{"cleanup.policy", "compact,delete", "compaction by key is not available yet"},
		{"compression.type", "zstd", "as the producer compressed them"},
		{"remote.storage.enable", "true", "every record is in the bucket"},
		{"flush.messages", "1", "only the default is accepted"},
		{"min.compaction.lag.ms", "1", "compacted topics only"},
		{"leader.replication.throttled.replicas", "*", "only the default is accepted"},
	} {
		err := b.Check(map[string]string{"retention.ms": "1000", c.name: c.value})
		var bad *topicconf.InvalidError
		if !errors.As(err, &bad) || bad.Name != c.name || bad.Value != c.value || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s=%q: %v, want %q", c.name, c.value, err, c.want)
		}
		if strings.HasPrefix(c.want, "Invalid value") && err.Error() != c.want {
			t.Errorf("%s=%q: %v, want exactly %q", c.name, c.value, err, c.want)
		}
	}
}

func TestDefaultsOfKafkaAreAccepted(t *testing.T) {
	b := broker(t, nil)
	all := map[string]string{}
	for name, s := range kafkaTopicSettings {
		all[name] = s.def
	}
	all["segment.bytes"] = "1073741824"
	all["preallocate"] = " FALSE "
	all["min.cleanable.dirty.ratio"] = "0.50"
	if err := b.Check(all); err != nil {
		t.Error(err)
	}
}

func TestUnreadableOverrideFallsBack(t *testing.T) {
	b := broker(t, map[string]string{"log.retention.ms": "77"})
	got, err := b.Topic(map[string]string{"retention.ms": "soon", "segment.ms": "x", "max.message.bytes": "5"})
	if got == nil || got.RetentionMs != 77 || got.MaxMessageBytes != 5 || err == nil ||
		!strings.Contains(err.Error(), "soon") || !strings.Contains(err.Error(), "segment.ms") {
		t.Errorf("Topic = %+v, %v; want the defaults and an error that names both", got, err)
	}
}

func TestSynonymsGiveDefaults(t *testing.T) {
	for _, c := range []struct {
		static map[string]string
		want   int64
	}{
		{map[string]string{"log.retention.hours": "2"}, 2 * 3600 * 1000},
		{map[string]string{"log.retention.hours": "2", "log.retention.minutes": "3"}, 3 * 60 * 1000},
		{map[string]string{"log.retention.hours": "2", "log.retention.minutes": "3", "log.retention.ms": "4"}, 4},
		{map[string]string{"log.retention.hours": "2147483647"}, 2147483647 * 3600 * 1000},
		{map[string]string{"log.retention.hours": "-1"}, -1},
	} {
		if got := broker(t, c.static).TopicDefaults.RetentionMs; got != c.want {
			t.Errorf("%v: retention is %d ms, want %d", c.static, got, c.want)
		}
	}
}

func TestDescribeTopic(t *testing.T) {
	b, err := broker(t, map[string]string{"log.retention.minutes": "3"}).Altered(map[string]string{"log.retention.ms": "9"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	find := func(overrides map[string]string, name string) topicconf.Entry {
		t.Helper()
		for _, e := range b.DescribeTopic(overrides) {
			if e.Name == name {
				return e
			}
		}
		t.Fatalf("%s is not described", name)
		return topicconf.Entry{}
	}
	e := find(map[string]string{"retention.ms": " 05 "}, "retention.ms")
	want := []topicconf.Origin{
		{Name: "retention.ms", Value: "5", Source: topicconf.SourceTopic},
		{Name: "log.retention.ms", Value: "9", Source: topicconf.SourceCluster},
		{Name: "log.retention.minutes", Value: "3", Source: topicconf.SourceStatic},
		{Name: "log.retention.hours", Value: "168", Source: topicconf.SourceDefault},
	}
	if e.Value != "5" || e.Source != topicconf.SourceTopic || e.IsDefault() || !slices.Equal(e.Origins, want) {
		t.Errorf("retention.ms: %q from %d, %+v", e.Value, e.Source, e.Origins)
	}
	if e = find(nil, "retention.ms"); e.Value != "9" || e.Source != topicconf.SourceCluster {
		t.Errorf("retention.ms without an override: %q from %d", e.Value, e.Source)
	}
	if e = find(nil, "preallocate"); e.Value != "false" || !e.IsDefault() || len(e.Origins) != 1 {
		t.Errorf("preallocate: %q, %+v", e.Value, e.Origins)
	}
}

func TestAlter(t *testing.T) {
	b := broker(t, nil)
	current := map[string]string{"retention.ms": "5", "cleanup.policy": "delete"}
	got, err := b.Alter(current, []topicconf.Op{
		{Kind: topicconf.OpSet, Name: "segment.ms", Value: "7"},
		{Kind: topicconf.OpDelete, Name: "retention.ms"},
		{Kind: topicconf.OpSubtract, Name: "cleanup.policy", Value: "delete"},
	})
	if want := map[string]string{"segment.ms": "7", "cleanup.policy": ""}; err != nil || !maps.Equal(got, want) {
		t.Errorf("Alter = %v, %v; want %v", got, err, want)
	}
	if !maps.Equal(current, map[string]string{"retention.ms": "5", "cleanup.policy": "delete"}) {
		t.Errorf("Alter changed its input: %v", current)
	}
	got, err = b.Alter(nil, []topicconf.Op{{Kind: topicconf.OpAppend, Name: "cleanup.policy", Value: "delete"}})
	if err != nil || !maps.Equal(got, map[string]string{"cleanup.policy": "delete"}) {
		t.Errorf("append to the default = %v, %v", got, err)
	}
	for _, c := range []struct {
		ops  []topicconf.Op
		want string
	}{
		{[]topicconf.Op{{Kind: topicconf.OpAppend, Name: "retention.ms", Value: "1"}}, "Can't APPEND to key retention.ms because its type is not LIST."},
		{[]topicconf.Op{{Kind: topicconf.OpSubtract, Name: "retention.ms", Value: "1"}}, "Can't SUBTRACT to key retention.ms"},
		{[]topicconf.Op{{Kind: topicconf.OpAppend, Name: "cleanup.policy", Value: "compact"}}, "not available yet"},
		{[]topicconf.Op{{Kind: topicconf.OpDelete, Name: "nope"}}, "Unknown topic config name: nope"},
		{[]topicconf.Op{{Kind: topicconf.OpSet, Name: "segment.ms", Value: "1"}, {Kind: topicconf.OpDelete, Name: "segment.ms"}}, "more than once"},
		{[]topicconf.Op{{Kind: 9, Name: "segment.ms"}}, "unknown operation 9"},
	} {
		if _, err := b.Alter(nil, c.ops); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, want %q", c.ops, err, c.want)
		}
	}
}

func TestBrokerDefaults(t *testing.T) {
	b := broker(t, nil)
	if !b.AutoCreateTopics || b.NumPartitions != 1 || b.DefaultReplicationFactor != 1 || !b.DeleteTopics ||
		b.SocketRequestMaxBytes != 100<<20 || b.ConnectionsMaxIdle != 10*time.Minute || b.FetchMaxBytes != 55<<20 ||
		b.ProducerIDExpiration != 24*time.Hour || b.RetentionCheckInterval != 5*time.Minute || b.FlushMaxBytes != 8<<20 ||
		b.FlushInterval != 0 || b.FlushPutsPerSecond != 0 || b.MemoryLimit != 1<<30 ||
		b.HeartbeatInterval != 5*time.Second || b.SessionTimeout != 18*time.Second || b.MaxConnections != math.MaxInt32 {
		t.Errorf("defaults are %+v", b)
	}
	forever := broker(t, map[string]string{"connections.max.idle.ms": "-1", "flush.puts.per.second": "2.5"})
	if forever.ConnectionsMaxIdle != 0 || forever.FlushPutsPerSecond != 2.5 {
		t.Errorf("broker is %+v", forever)
	}
}

func TestBrokerRefuses(t *testing.T) {
	for _, c := range []struct{ name, value, want string }{
		{"log.dirs", "/tmp", "Unknown broker config name: log.dirs"},
		{"num.partitions", "0", "Invalid value 0 for configuration num.partitions: Value must be at least 1"},
		{"memory.limit", "1MiB", "Invalid value 1MiB for configuration memory.limit: Not a number of type LONG"},
		{"memory.limit", "1048576", "Invalid value 1048576 for configuration memory.limit: Value must be at least 67108864"},
		{"log.retention.hours", "0", "Value must be -1 for no limit, or at least 1"},
		{"broker.session.timeout.ms", "9000", "Value must be at least 10000, twice broker.heartbeat.interval.ms"},
		{"message.max.bytes", "104857601", "Value must be no more than 104857600, socket.request.max.bytes"},
		{"compression.type", "gzip", "only the default is accepted"},
		{"flush.puts.per.second", "-1", "Value must be at least 0"},
	} {
		_, err := topicconf.NewBroker(map[string]string{c.name: c.value})
		var bad *topicconf.InvalidError
		if !errors.As(err, &bad) || bad.Name != c.name || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s=%q: %v, want %q", c.name, c.value, err, c.want)
		}
	}
	_, err := topicconf.NewBroker(map[string]string{"num.partitions": "0", "nope": "x"})
	if err == nil || !strings.Contains(err.Error(), "nope") || !strings.Contains(err.Error(), "num.partitions") {
		t.Errorf("two bad settings: %v, want both named", err)
	}
}

func TestAlteredBroker(t *testing.T) {
	b, err := broker(t, map[string]string{"message.max.bytes": "1000", "log.roll.hours": "1"}).
		Altered(map[string]string{"message.max.bytes": "2000", "log.roll.ms": "5"}, map[string]string{"message.max.bytes": "3000"})
	if err != nil || b.TopicDefaults.MaxMessageBytes != 3000 || b.TopicDefaults.SegmentMs != 5 {
		t.Fatalf("Altered = %+v, %v", b, err)
	}
	for _, e := range b.Describe() {
		if e.Name == "message.max.bytes" {
			want := []topicconf.Origin{
				{Name: e.Name, Value: "3000", Source: topicconf.SourceBroker},
				{Name: e.Name, Value: "2000", Source: topicconf.SourceCluster},
				{Name: e.Name, Value: "1000", Source: topicconf.SourceStatic},
				{Name: e.Name, Value: "1048588", Source: topicconf.SourceDefault},
			}
			if e.Value != "3000" || e.Source != topicconf.SourceBroker || !slices.Equal(e.Origins, want) {
				t.Errorf("message.max.bytes: %+v", e)
			}
		}
		if e.Name == "log.retention.ms" && (!e.NullValue || e.Value != "") {
			t.Errorf("log.retention.ms: %+v, want null", e)
		}
	}
	if err := topicconf.CheckAltered(map[string]string{"num.partitions": "3"}); err == nil || !strings.Contains(err.Error(), "restart") {
		t.Errorf("altering num.partitions: %v, want that it takes a restart", err)
	}
	next, err := b.AlterBroker(map[string]string{"log.roll.ms": "5"}, []topicconf.Op{{Kind: topicconf.OpDelete, Name: "log.roll.ms"}})
	if err != nil || len(next) != 0 {
		t.Errorf("AlterBroker = %v, %v", next, err)
	}
	if _, err := b.AlterBroker(nil, []topicconf.Op{{Name: "log.dirs", Value: "x"}}); err == nil || err.Error() != "Unknown broker config name: log.dirs" {
		t.Errorf("altering an unknown setting: %v", err)
	}
}

// Whatever the values are: nothing panics, what Check accepts Topic reads without an error, and what is described back
// is accepted again and means the same.
func FuzzTopic(f *testing.F) {
	for name, s := range kafkaTopicSettings {
		f.Add(name, s.def)
	}
	f.Add("retention.ms", " +05")
	f.Add("cleanup.policy", ",,")
	b, err := topicconf.NewBroker(nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, name, value string) {
		overrides := map[string]string{name: value}
		got, err := b.Topic(overrides)
		if got == nil {
			t.Fatal("no topic")
		}
		if b.Check(overrides) != nil {
			return
		}
		if err != nil {
			t.Fatalf("accepted, but not read: %v", err)
		}
		for _, e := range b.DescribeTopic(overrides) {
			if e.Name != name {
				continue
			}
			again, err := b.Topic(map[string]string{name: e.Value})
			if err != nil || *again != *got {
				t.Errorf("%s=%q is described as %q, which is %+v, %v; want %+v", name, value, e.Value, again, err, got)
			}
		}
	})
}
