package topicconf

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"
)

// Broker is the configuration of one broker: its own settings and the defaults of its topics. It is immutable; made by
// NewBroker and Altered.
type Broker struct {
	AutoCreateTopics         bool
	NumPartitions            int32
	DefaultReplicationFactor int16
	DeleteTopics             bool

	SocketRequestMaxBytes int32
	ConnectionsMaxIdle    time.Duration // 0: for ever
	MaxConnections        int32
	FetchMaxBytes         int32

	ProducerIDExpiration   time.Duration
	RetentionCheckInterval time.Duration

	FlushMaxBytes      int32
	FlushInterval      time.Duration
	FlushPutsPerSecond float64 // 0: the store's own choice

	MemoryLimit int64

	HeartbeatInterval time.Duration // between two renewals of the lease
	SessionTimeout    time.Duration // the lease's time to live

	// TopicDefaults is the configuration of a topic without overrides.
	TopicDefaults Topic

	layers layers
}

// layers are the values in force by where they come from.
type layers struct {
	own     map[string]string // altered for this broker
	cluster map[string]string // altered for all brokers
	static  map[string]string // flags, environment, file
}

// NewBroker returns the configuration that the static settings (flags, environment, file) give. The error joins one
// *InvalidError for each setting that is unknown, malformed, or contradicts another.
func NewBroker(static map[string]string) (*Broker, error) {
	return newBroker(layers{static: maps.Clone(static)})
}

// Altered returns b with the settings altered at run time: for all brokers, and for this one. Settings that take a
// restart are refused there; see CheckAltered.
func (b *Broker) Altered(cluster, own map[string]string) (*Broker, error) {
	return newBroker(layers{static: b.layers.static, cluster: maps.Clone(cluster), own: maps.Clone(own)})
}

// CheckAltered returns an error that names the first setting that can not be altered at run time to that value.
func CheckAltered(settings map[string]string) error {
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		d, ok := BrokerDef(name)
		if !ok {
			return &InvalidError{Name: clip(name), Value: clip(settings[name]), Unknown: "broker"}
		}
		if d.ReadOnly {
			return &InvalidError{Name: name, Value: clip(settings[name]), Reason: "it can be changed by a restart only"}
		}
		if _, err := d.honoured(settings[name]); err != nil {
			return err
		}
	}
	return nil
}

// AlterBroker returns the run-time settings of a broker, or of all of them, after the changes. The result is checked.
func (b *Broker) AlterBroker(current map[string]string, ops []Op) (map[string]string, error) {
	next, err := apply(current, ops, lookup{kind: "broker", def: BrokerDef, fallback: func(d *Def) string { return b.resolve(d).text }})
	if err != nil {
		return nil, err
	}
	return next, CheckAltered(next)
}

func newBroker(l layers) (*Broker, error) {
	b := &Broker{layers: l}
	if err := b.validate(); err != nil {
		return nil, err
	}
	n := func(name string) int64 { return b.value(name).i }
	ms := func(name string) time.Duration { return time.Duration(max(n(name), 0)) * time.Millisecond }
	b.AutoCreateTopics = b.value("auto.create.topics.enable").b
	b.NumPartitions = int32(n("num.partitions"))
	b.DefaultReplicationFactor = int16(n("default.replication.factor"))
	b.DeleteTopics = b.value("delete.topic.enable").b
	b.SocketRequestMaxBytes = int32(n("socket.request.max.bytes"))
	b.ConnectionsMaxIdle = ms("connections.max.idle.ms")
	b.MaxConnections = int32(n("max.connections"))
	b.FetchMaxBytes = int32(n("fetch.max.bytes"))
	b.ProducerIDExpiration = ms("producer.id.expiration.ms")
	b.RetentionCheckInterval = ms("log.retention.check.interval.ms")
	b.FlushMaxBytes = int32(n("flush.max.bytes"))
	b.FlushInterval = ms("flush.interval.ms")
	b.FlushPutsPerSecond = b.value("flush.puts.per.second").f
	b.MemoryLimit = n("memory.limit")
	b.HeartbeatInterval = ms("broker.heartbeat.interval.ms")
	b.SessionTimeout = ms("broker.session.timeout.ms")
	t, err := b.Topic(nil)
	if err != nil {
		return nil, err
	}
	b.TopicDefaults = *t
	return b, nil
}

// validate checks each layer, and what holds between settings.
func (b *Broker) validate() error {
	var errs []error
	for _, layer := range []map[string]string{b.layers.static, b.layers.cluster, b.layers.own} {
		for _, name := range slices.Sorted(maps.Keys(layer)) {
			d, ok := BrokerDef(name)
			if !ok {
				errs = append(errs, &InvalidError{Name: clip(name), Value: clip(layer[name]), Unknown: "broker"})
				continue
			}
			if _, err := d.honoured(layer[name]); err != nil {
				errs = append(errs, err)
			}
		}
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	if beat, session := b.value("broker.heartbeat.interval.ms").i, b.value("broker.session.timeout.ms").i; session < 2*beat {
		return &InvalidError{
			Name: "broker.session.timeout.ms", Value: strconv.FormatInt(session, 10),
			Reason: fmt.Sprintf("Value must be at least %d, twice broker.heartbeat.interval.ms", 2*beat),
		}
	}
	if frame, batch := b.value("socket.request.max.bytes").i, b.value("message.max.bytes").i; batch > frame {
		return &InvalidError{
			Name: "message.max.bytes", Value: strconv.FormatInt(batch, 10),
			Reason: fmt.Sprintf("Value must be no more than %d, socket.request.max.bytes", frame),
		}
	}
	return nil
}

// value returns the parsed value in force of a broker setting that has a default.
func (b *Broker) value(name string) value {
	d := brokerIndex[name]
	return d.mustParse(b.resolve(d).text)
}
