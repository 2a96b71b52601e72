package topicconf

import (
	"slices"
	"strings"
)

// The names of the topic settings that the engine or a handler asks for by name.
const (
	CleanupPolicyConfig   = "cleanup.policy"
	MinInsyncReplicas     = "min.insync.replicas"
	RetentionMsConfig     = "retention.ms"
	RetentionBytesConfig  = "retention.bytes"
	MaxMessageBytesConfig = "max.message.bytes"
	SegmentBytesConfig    = "segment.bytes"
	SegmentMsConfig       = "segment.ms"
	TimestampTypeConfig   = "message.timestamp.type"
	BeforeMaxMsConfig     = "message.timestamp.before.max.ms"
	AfterMaxMsConfig      = "message.timestamp.after.max.ms"
)

const (
	msPerMinute = 60 * 1000
	msPerHour   = 60 * msPerMinute
	msPerDay    = 24 * msPerHour

	maxLong = "9223372036854775807"
)

// Reasons for settings that accept their default only.
const (
	onlyCompaction = "it matters to compacted topics only, and compaction by key is not available yet; only the default is accepted"
	onlyCodec      = "the broker stores batches as the producer compressed them (compression.type=producer); only the default is accepted"
	onlyFlush      = "records are acknowledged with acks=all only when the bucket holds them, whatever the flush settings; only the default is accepted"
	onlyLocal      = "the broker keeps no local log: every record is in the bucket; only the default is accepted"
	onlyThrottle   = "partitions have no replicas to throttle: the bucket replicates; only the default is accepted"
	onlyIndex      = "indexes are written with Kafka's default spacing and size; only the default is accepted"
	onlyElection   = "a leader change never loses acknowledged records here; only the default is accepted"
	onlyJitter     = "segments are closed by the maintenance schedule, which spreads them already; only the default is accepted"
	onlyDelay      = "objects are deleted by the garbage collector after its own grace; only the default is accepted"
)

// topicDefs holds every topic setting of Kafka 4.3, sorted by name.
var topicDefs = sortedDefs([]Def{
	{
		Name: CleanupPolicyConfig, Type: List, Default: "delete", Valid: "[delete] or empty", Importance: Medium,
		Doc:      "What happens to old records: 'delete' drops them by retention.ms and retention.bytes; an empty list keeps them for ever. 'compact' is not available yet.",
		Synonyms: []Synonym{{Name: "log.cleanup.policy"}}, check: checkPolicy,
	},
	{
		Name: "compression.type", Type: String, Default: "producer", Valid: "producer", Importance: Medium,
		Doc:      "How batches are compressed in the log. 'producer' keeps each batch as it was sent; nothing else is available.",
		Synonyms: []Synonym{{Name: "compression.type"}}, only: onlyCodec,
		check: oneOf("uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"),
	},
	{
		Name: "compression.gzip.level", Type: Int, Default: "-1", Valid: "-1", Importance: Medium, only: onlyCodec, check: checkGzipLevel,
		Doc: "The gzip level for compression.type=gzip, which is not available.",
	},
	{
		Name: "compression.lz4.level", Type: Int, Default: "9", Valid: "9", Importance: Medium, only: onlyCodec, check: within(1, 17),
		Doc: "The lz4 level for compression.type=lz4, which is not available.",
	},
	{
		Name: "compression.zstd.level", Type: Int, Default: "3", Valid: "3", Importance: Medium, only: onlyCodec, check: within(-131072, 22),
		Doc: "The zstd level for compression.type=zstd, which is not available.",
	},
	{
		Name: "delete.retention.ms", Type: Long, Default: "86400000", Valid: "86400000", Importance: Medium, only: onlyCompaction, check: atLeast(0),
		Doc: "How long a compacted topic keeps the markers of deleted keys, in milliseconds.",
	},
	{
		Name: "file.delete.delay.ms", Type: Long, Default: "60000", Valid: "60000", Importance: Medium, only: onlyDelay, check: atLeast(0),
		Doc: "How long a dropped segment's file stays, in milliseconds.",
	},
	{
		Name: "flush.messages", Type: Long, Default: maxLong, Valid: maxLong, Importance: Medium, only: onlyFlush, check: atLeast(1),
		Doc: "How many records may be unflushed in Kafka's local log.",
	},
	{
		Name: "flush.ms", Type: Long, Default: maxLong, Valid: maxLong, Importance: Medium, only: onlyFlush, check: atLeast(0),
		Doc: "How long records may be unflushed in Kafka's local log, in milliseconds.",
	},
	{
		Name: "follower.replication.throttled.replicas", Type: List, Valid: "empty", Importance: Medium, only: onlyThrottle,
		Doc: "Replicas whose inbound replication is throttled.",
	},
	{
		Name: "index.interval.bytes", Type: Int, Default: "4096", Valid: "4096", Importance: Medium, only: onlyIndex, check: atLeast(0),
		Doc: "How many bytes of a log segment lie between two entries of its offset index.",
	},
	{
		Name: "leader.replication.throttled.replicas", Type: List, Valid: "empty", Importance: Medium, only: onlyThrottle,
		Doc: "Replicas whose outbound replication is throttled.",
	},
	{
		Name: "local.retention.bytes", Type: Long, Default: "-2", Valid: "-2", Importance: Medium, only: onlyLocal, check: atLeast(-2),
		Doc: "How many bytes of a tiered partition stay on the broker's disk.",
	},
	{
		Name: "local.retention.ms", Type: Long, Default: "-2", Valid: "-2", Importance: Medium, only: onlyLocal, check: atLeast(-2),
		Doc: "How long records of a tiered partition stay on the broker's disk, in milliseconds.",
	},
	{
		Name: "max.compaction.lag.ms", Type: Long, Default: maxLong, Valid: maxLong, Importance: Medium, only: onlyCompaction, check: atLeast(1),
		Doc: "The longest time that a record of a compacted topic may stay uncompacted, in milliseconds.",
	},
	{
		Name: MaxMessageBytesConfig, Type: Int, Default: "1048588", Valid: "[0,...]", Importance: Medium, check: atLeast(0),
		Doc:      "The largest record batch that is accepted, in bytes, as compressed by the producer.",
		Synonyms: []Synonym{{Name: "message.max.bytes"}},
	},
	{
		Name: AfterMaxMsConfig, Type: Long, Default: "3600000", Valid: "[0,...]", Importance: Medium, check: atLeast(0),
		Doc:      "How far a record's timestamp may lie ahead of the broker's clock, in milliseconds. Not used with LogAppendTime.",
		Synonyms: []Synonym{{Name: "log.message.timestamp.after.max.ms"}},
	},
	{
		Name: BeforeMaxMsConfig, Type: Long, Default: maxLong, Valid: "[0,...]", Importance: Medium, check: atLeast(0),
		Doc:      "How far a record's timestamp may lie behind the broker's clock, in milliseconds. Not used with LogAppendTime.",
		Synonyms: []Synonym{{Name: "log.message.timestamp.before.max.ms"}},
	},
	{
		Name: TimestampTypeConfig, Type: String, Default: "CreateTime", Valid: "[CreateTime, LogAppendTime]", Importance: Medium,
		Doc:      "Whether records keep the producer's timestamp (CreateTime) or get the broker's when they arrive (LogAppendTime).",
		Synonyms: []Synonym{{Name: "log.message.timestamp.type"}}, check: oneOf("CreateTime", "LogAppendTime"),
	},
	{
		Name: "min.cleanable.dirty.ratio", Type: Double, Default: "0.5", Valid: "0.5", Importance: Medium, only: onlyCompaction, check: between(0, 1),
		Doc: "The share of uncompacted bytes from which a compacted topic is compacted again.",
	},
	{
		Name: "min.compaction.lag.ms", Type: Long, Default: "0", Valid: "0", Importance: Medium, only: onlyCompaction, check: atLeast(0),
		Doc: "The shortest time that a record of a compacted topic stays uncompacted, in milliseconds.",
	},
	{
		Name: MinInsyncReplicas, Type: Int, Default: "1", Valid: "[1,...]", Importance: Medium, check: atLeast(1),
		Doc:      "Always met: acks=all means that the bucket holds the record, and the bucket is at least as durable as any number of replicas.",
		Synonyms: []Synonym{{Name: "min.insync.replicas"}},
	},
	{
		Name: "preallocate", Type: Boolean, Default: "false", Valid: "false", Importance: Medium, only: onlyLocal,
		Doc: "Whether files of new segments are allocated in full.",
	},
	{
		Name: "remote.log.copy.disable", Type: Boolean, Default: "false", Valid: "false", Importance: Medium, only: onlyLocal,
		Doc: "Whether a tiered topic stops copying segments.",
	},
	{
		Name: "remote.log.delete.on.disable", Type: Boolean, Default: "false", Valid: "false", Importance: Medium, only: onlyLocal,
		Doc: "Whether turning tiering off deletes the tiered segments.",
	},
	{
		Name: "remote.storage.enable", Type: Boolean, Default: "false", Valid: "false", Importance: Medium, only: onlyLocal,
		Doc: "Whether Kafka's tiering plugin is on for the topic. It has no meaning here: the bucket is the log.",
	},
	{
		Name: RetentionBytesConfig, Type: Long, Default: "-1", Valid: "[-1,...]", Importance: Medium,
		Doc:      "How many bytes of a partition are kept with cleanup.policy=delete; -1 means no bound.",
		Synonyms: []Synonym{{Name: "log.retention.bytes"}},
	},
	{
		Name: RetentionMsConfig, Type: Long, Default: "604800000", Valid: "[-1,...]", Importance: Medium, check: atLeast(-1),
		Doc:      "How long records are kept with cleanup.policy=delete, in milliseconds; -1 means for ever.",
		Synonyms: []Synonym{{Name: "log.retention.ms"}, {Name: "log.retention.minutes", Scale: msPerMinute}, {Name: "log.retention.hours", Scale: msPerHour}},
	},
	{
		Name: SegmentBytesConfig, Type: Int, Default: "268435456", Valid: "[1048576,...]", Importance: Medium, check: atLeast(1 << 20),
		Doc:      "How large a partition's log segment in the bucket gets, in bytes. The default is a quarter of Kafka's.",
		Synonyms: []Synonym{{Name: "log.segment.bytes"}},
	},
	{
		Name: "segment.index.bytes", Type: Int, Default: "10485760", Valid: "10485760", Importance: Medium, only: onlyIndex, check: atLeast(4),
		Doc: "The largest size of a segment's index.",
	},
	{
		Name: "segment.jitter.ms", Type: Long, Default: "0", Valid: "0", Importance: Medium, only: onlyJitter, check: atLeast(0),
		Doc: "The random part of segment.ms.",
	},
	{
		Name: SegmentMsConfig, Type: Long, Default: "604800000", Valid: "[1,...]", Importance: Medium, check: atLeast(1),
		Doc:      "The longest time span of a log segment, in milliseconds, so that retention can drop it as a whole.",
		Synonyms: []Synonym{{Name: "log.roll.ms"}, {Name: "log.roll.hours", Scale: msPerHour}},
	},
	{
		Name: "unclean.leader.election.enable", Type: Boolean, Default: "false", Valid: "false", Importance: Medium, only: onlyElection,
		Doc: "Whether a replica that lost records may lead.",
	},
})

// topicIndex finds a topic setting by name.
var topicIndex = index(topicDefs)

// TopicDefs returns every topic setting, sorted by name.
func TopicDefs() []Def { return slices.Clone(topicDefs) }

// TopicDef returns the topic setting of that name.
func TopicDef(name string) (*Def, bool) {
	d, ok := topicIndex[name]
	return d, ok
}

func sortedDefs(defs []Def) []Def {
	slices.SortFunc(defs, func(a, b Def) int { return strings.Compare(a.Name, b.Name) })
	return defs
}

func index(defs []Def) map[string]*Def {
	m := make(map[string]*Def, len(defs))
	for i := range defs {
		m[defs[i].Name] = &defs[i]
	}
	return m
}

func checkPolicy(v value) string {
	if bad := oneOf("compact", "delete")(v); bad != "" {
		return bad
	}
	if slices.Contains(v.list, "compact") {
		return "compaction by key is not available yet; use delete, or an empty list to keep records for ever"
	}
	return ""
}

func checkGzipLevel(v value) string {
	if v.i != -1 && (v.i < 1 || v.i > 9) {
		return "Value must be between 1 and 9 or equal to -1"
	}
	return ""
}
