package topicconf

import (
	"fmt"
	"slices"
)

// The smallest values that leave the broker able to work.
const (
	minMemory   = 64 << 20
	minFlush    = 64 << 10
	maxFlush    = 1 << 30
	minInterval = 100 // ms
)

// brokerDefs holds every broker setting that tierlog honours, sorted by name. The first part has Kafka's names and, but
// for log.segment.bytes and the two lease times, its defaults; the second part is tierlog's own.
var brokerDefs = sortedDefs([]Def{
	{
		Name: "auto.create.topics.enable", Type: Boolean, Default: "true", Importance: High, ReadOnly: true,
		Doc: "Whether a client that asks for a topic that does not exist creates it, with num.partitions partitions.",
	},
	{
		Name: "broker.heartbeat.interval.ms", Type: Int, Default: "5000", Valid: "[100,...]", Importance: Medium, ReadOnly: true, check: atLeast(minInterval),
		Doc: "How often the broker renews its lease in the bucket, in milliseconds. Each renewal is one PUT.",
	},
	{
		Name: "broker.session.timeout.ms", Type: Int, Default: "18000", Valid: "at least twice broker.heartbeat.interval.ms", Importance: Medium, ReadOnly: true, check: atLeast(2 * minInterval),
		Doc: "How long a broker may fail to renew its lease before it stops serving by itself and others may take over, in milliseconds.",
	},
	{
		Name: "compression.type", Type: String, Default: "producer", Valid: "producer", Importance: High, ReadOnly: true, only: onlyCodec,
		Doc:   "How batches are compressed in the log. 'producer' keeps each batch as it was sent; nothing else is available.",
		check: oneOf("uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"),
	},
	{
		Name: "connections.max.idle.ms", Type: Long, Default: "600000", Valid: "-1 or [1,...]", Importance: Medium, ReadOnly: true, check: unlimitedOrPositive,
		Doc: "How long a connection may be idle before the broker closes it, in milliseconds; -1 means for ever.",
	},
	{
		Name: "default.replication.factor", Type: Int, Default: "1", Valid: "[1,...,32767]", Importance: Medium, ReadOnly: true, check: within(1, 32767),
		Doc: "The replication factor of topics created without one. Any value is accepted; the bucket holds the only replica and makes it durable.",
	},
	{
		Name: "delete.topic.enable", Type: Boolean, Default: "true", Importance: High, ReadOnly: true,
		Doc: "Whether clients may delete topics.",
	},
	{
		Name: "fetch.max.bytes", Type: Int, Default: "57671680", Valid: "[1024,...]", Importance: Medium, ReadOnly: true, check: atLeast(1024),
		Doc: "The most bytes of records that one fetch response holds, whatever the client asks for.",
	},
	{
		Name: "log.cleanup.policy", Type: List, Default: "delete", Valid: "[delete] or empty", Importance: Medium, check: checkPolicy,
		Doc: "The default of cleanup.policy.",
	},
	{
		Name: "log.message.timestamp.after.max.ms", Type: Long, Default: "3600000", Valid: "[0,...]", Importance: Medium, check: atLeast(0),
		Doc: "The default of message.timestamp.after.max.ms.",
	},
	{
		Name: "log.message.timestamp.before.max.ms", Type: Long, Default: maxLong, Valid: "[0,...]", Importance: Medium, check: atLeast(0),
		Doc: "The default of message.timestamp.before.max.ms.",
	},
	{
		Name: "log.message.timestamp.type", Type: String, Default: "CreateTime", Valid: "[CreateTime, LogAppendTime]", Importance: Medium, check: oneOf("CreateTime", "LogAppendTime"),
		Doc: "The default of message.timestamp.type.",
	},
	{
		Name: "log.retention.bytes", Type: Long, Default: "-1", Valid: "[-1,...]", Importance: High,
		Doc: "The default of retention.bytes.",
	},
	{
		Name: "log.retention.check.interval.ms", Type: Long, Default: "300000", Valid: "[1,...]", Importance: Medium, ReadOnly: true, check: atLeast(1),
		Doc: "How often the broker looks for records to drop, in milliseconds.",
	},
	{
		Name: "log.retention.hours", Type: Int, Default: "168", Valid: "-1 or [1,...]", Importance: High, ReadOnly: true, check: unlimitedOrPositive,
		Doc: "The default of retention.ms in hours, where neither log.retention.ms nor log.retention.minutes is set.",
	},
	{
		Name: "log.retention.minutes", Type: Int, Null: true, Valid: "-1 or [1,...]", Importance: High, ReadOnly: true, check: unlimitedOrPositive,
		Doc: "The default of retention.ms in minutes, where log.retention.ms is not set.", Synonyms: []Synonym{{Name: "log.retention.hours", Scale: 60}},
	},
	{
		Name: "log.retention.ms", Type: Long, Null: true, Valid: "-1 or [1,...]", Importance: High, check: unlimitedOrPositive,
		Doc:      "The default of retention.ms.",
		Synonyms: []Synonym{{Name: "log.retention.minutes", Scale: msPerMinute}, {Name: "log.retention.hours", Scale: msPerHour}},
	},
	{
		Name: "log.roll.hours", Type: Int, Default: "168", Valid: "[1,...]", Importance: High, ReadOnly: true, check: atLeast(1),
		Doc: "The default of segment.ms in hours, where log.roll.ms is not set.",
	},
	{
		Name: "log.roll.ms", Type: Long, Null: true, Valid: "[1,...]", Importance: High, check: atLeast(1),
		Doc: "The default of segment.ms.", Synonyms: []Synonym{{Name: "log.roll.hours", Scale: msPerHour}},
	},
	{
		Name: "log.segment.bytes", Type: Int, Default: "268435456", Valid: "[1048576,...]", Importance: High, check: atLeast(1 << 20),
		Doc: "The default of segment.bytes. It is a quarter of Kafka's.",
	},
	{
		Name: "max.connections", Type: Int, Default: "2147483647", Valid: "[1,...]", Importance: Medium, ReadOnly: true, check: atLeast(1),
		Doc: "How many client connections are open at most; a further one is closed at once.",
	},
	{
		Name: "message.max.bytes", Type: Int, Default: "1048588", Valid: "[0,...]", Importance: High, check: atLeast(0),
		Doc: "The default of max.message.bytes.",
	},
	{
		Name: "min.insync.replicas", Type: Int, Default: "1", Valid: "[1,...]", Importance: High, check: atLeast(1),
		Doc: "The default of the topic setting of the same name; always met, since the bucket makes records durable.",
	},
	{
		Name: "num.partitions", Type: Int, Default: "1", Valid: "[1,...,100000]", Importance: Medium, ReadOnly: true, check: within(1, 100_000),
		Doc: "How many partitions a topic gets that is created without a number.",
	},
	{
		Name: "producer.id.expiration.ms", Type: Int, Default: "86400000", Valid: "[1,...]", Importance: Low, ReadOnly: true, check: atLeast(1),
		Doc: "How long the broker remembers an idempotent producer that writes nothing, in milliseconds.",
	},
	{
		Name: "socket.request.max.bytes", Type: Int, Default: "104857600", Valid: "[1,...]", Importance: High, ReadOnly: true, check: atLeast(1),
		Doc: "The largest request that the broker reads; a connection that sends a larger one is closed.",
	},

	{
		Name: "flush.interval.ms", Type: Int, Default: "0", Valid: "[0,...,60000]", Importance: Medium, ReadOnly: true, check: within(0, 60000),
		Doc: "How long records gather before the broker writes a WAL object that is not full, in milliseconds. 0 leaves it to the store: on a directory they gather while a write is in flight, else for two milliseconds.",
	},
	{
		Name: "flush.max.bytes", Type: Int, Default: "8388608", Valid: "[65536,...,1073741824]", Importance: Medium, ReadOnly: true, check: within(minFlush, maxFlush),
		Doc: "How large a WAL object gets before the next one is begun, in bytes.",
	},
	{
		Name: "flush.puts.per.second", Type: Double, Default: "0.0", Valid: "0 or more", Importance: Medium, ReadOnly: true, check: between(0, 1e6),
		Doc: "How many WAL objects the broker writes per second under load, on average: the price of the bucket's PUTs. 0 leaves it to the store: unlimited for a directory.",
	},
	{
		Name: "memory.limit", Type: Long, Default: "1073741824", Valid: "[67108864,...]", Importance: High, ReadOnly: true, check: atLeast(minMemory),
		Doc: "How much memory the broker uses, in bytes: shared by requests, the hot tail, the cache and responses. Over it producers are slowed.",
	},
})

// brokerIndex finds a broker setting by name.
var brokerIndex = index(brokerDefs)

// BrokerDefs returns every broker setting, sorted by name.
func BrokerDefs() []Def { return slices.Clone(brokerDefs) }

// BrokerDef returns the broker setting of that name.
func BrokerDef(name string) (*Def, bool) {
	d, ok := brokerIndex[name]
	return d, ok
}

func unlimitedOrPositive(v value) string {
	if v.i != -1 && v.i < 1 {
		return fmt.Sprintf("Value must be -1 for no limit, or at least %d", 1)
	}
	return ""
}
