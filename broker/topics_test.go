package broker_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// badNames are names that Kafka refuses.
var badNames = []string{"", ".", "..", strings.Repeat("x", 250), "a b", "a/b", "ä", "a:b", "a\x00b", "a\nb", "a,b"}

// newTopic is one topic of a CreateTopics request.
func newTopic(name string, partitions int32, replicas int16) kmsg.CreateTopicsRequestTopic {
	rt := kmsg.NewCreateTopicsRequestTopic()
	rt.Topic, rt.NumPartitions, rt.ReplicationFactor = name, partitions, replicas
	return rt
}

func (c *conn) create(validateOnly bool, topics ...kmsg.CreateTopicsRequestTopic) []kmsg.CreateTopicsResponseTopic {
	c.t.Helper()
	req := kmsg.NewPtrCreateTopicsRequest()
	req.Topics, req.ValidateOnly, req.TimeoutMillis = topics, validateOnly, 30_000
	return ask[*kmsg.CreateTopicsResponse](c, 7, req).Topics
}

// metadata asks for topics, or for all of them.
func (c *conn) metadata(create bool, topics ...string) map[string]kmsg.MetadataResponseTopic {
	c.t.Helper()
	req := kmsg.NewPtrMetadataRequest()
	req.AllowAutoTopicCreation = create
	for i := range topics {
		req.Topics = append(req.Topics, kmsg.MetadataRequestTopic{Topic: &topics[i]})
	}
	out := make(map[string]kmsg.MetadataResponseTopic)
	for _, rt := range ask[*kmsg.MetadataResponse](c, 12, req).Topics {
		out[*rt.Topic] = rt
	}
	return out
}

// TestTopicNames that Kafka refuses are refused, whoever creates the topic.
func TestTopicNames(t *testing.T) {
	c := startNode(t, nil).conn()
	for _, name := range badNames {
		got := c.create(false, newTopic(name, 1, 1))[0]
		wantCode(t, "create "+name, got.ErrorCode, kerr.InvalidTopicException)
		if got.ErrorMessage == nil || got.TopicID != [16]byte{} {
			t.Errorf("create %q: message %v, id %v", name, got.ErrorMessage, got.TopicID)
		}
		for _, auto := range []bool{false, true} {
			wantCode(t, "metadata "+name, c.metadata(auto, name)[name].ErrorCode, kerr.InvalidTopicException)
		}
	}
	for _, name := range []string{"a", "A-b_c.9", strings.Repeat("x", 249), "..."} {
		if got := c.create(false, newTopic(name, 1, 1))[0]; got.ErrorCode != 0 {
			t.Errorf("create %q: %s", name, *got.ErrorMessage)
		}
	}
	if all := c.metadata(false); len(all) != 4 {
		t.Errorf("%d topics, want 4", len(all))
	}
}

// TestAutoCreate follows both the client's wish and the broker's setting.
func TestAutoCreate(t *testing.T) {
	c := startNode(t, map[string]string{"num.partitions": "3"}).conn()
	wantCode(t, "not wished", c.metadata(false, "a")["a"].ErrorCode, kerr.UnknownTopicOrPartition)
	if got := c.metadata(true, "a")["a"]; got.ErrorCode != 0 || len(got.Partitions) != 3 || got.TopicID == [16]byte{} {
		t.Errorf("wished: %+v", got)
	}
	off := startNode(t, map[string]string{"auto.create.topics.enable": "false"}).conn()
	wantCode(t, "switched off", off.metadata(true, "a")["a"].ErrorCode, kerr.UnknownTopicOrPartition)
}

// TestCreateTopics checks Kafka's rules, one topic each, in one request: what is good is created all the same.
func TestCreateTopics(t *testing.T) {
	n := startNode(t, map[string]string{"num.partitions": "4"})
	c := n.conn()
	c.createTopic("there", 1)
	with := func(rt kmsg.CreateTopicsRequestTopic, name string, value *string) kmsg.CreateTopicsRequestTopic {
		rc := kmsg.NewCreateTopicsRequestTopicConfig()
		rc.Name, rc.Value = name, value
		rt.Configs = append(rt.Configs, rc)
		return rt
	}
	assigned := func(rt kmsg.CreateTopicsRequestTopic, replicas ...[]int32) kmsg.CreateTopicsRequestTopic {
		for i, r := range replicas {
			a := kmsg.NewCreateTopicsRequestTopicReplicaAssignment()
			a.Partition, a.Replicas = int32(i), r
			rt.ReplicaAssignment = append(rt.ReplicaAssignment, a)
		}
		return rt
	}
	gap := assigned(newTopic("gap", -1, -1), []int32{1}, []int32{1})
	gap.ReplicaAssignment[1].Partition = 5
	s := func(v string) *string { return &v }
	cases := []struct {
		topic kmsg.CreateTopicsRequestTopic
		want  *kerr.Error
		parts int32
	}{
		{newTopic("plain", 2, 1), nil, 2},
		{newTopic("defaults", -1, -1), nil, 4},
		{newTopic("replicated", 1, 3), nil, 1},
		{newTopic("there", 1, 1), kerr.TopicAlreadyExists, 0},
		{newTopic("twice", 1, 1), kerr.InvalidRequest, 0},
		{newTopic("none", 0, 1), kerr.InvalidPartitions, 0},
		{newTopic("negative", -2, 1), kerr.InvalidPartitions, 0},
		{newTopic("no-replicas", 1, 0), kerr.InvalidReplicationFactor, 0},
		{newTopic("negative-replicas", 1, -2), kerr.InvalidReplicationFactor, 0},
		{with(newTopic("config", 1, 1), "retention.ms", s("1000")), nil, 1},
		{with(newTopic("unknown-config", 1, 1), "no.such.config", s("1")), kerr.InvalidConfig, 0},
		{with(newTopic("bad-value", 1, 1), "retention.ms", s("soon")), kerr.InvalidConfig, 0},
		{with(newTopic("out-of-range", 1, 1), "retention.ms", s("-5")), kerr.InvalidConfig, 0},
		{with(newTopic("null-value", 1, 1), "retention.ms", nil), kerr.InvalidConfig, 0},
		{with(newTopic("compacted", 1, 1), "cleanup.policy", s("compact")), kerr.InvalidConfig, 0},
		{with(newTopic("unhonoured", 1, 1), "compression.type", s("gzip")), kerr.InvalidConfig, 0},
		{assigned(newTopic("assigned", -1, -1), []int32{1}, []int32{1}), nil, 2},
		{assigned(newTopic("assigned-and-counted", 2, -1), []int32{1}), kerr.InvalidRequest, 0},
		{assigned(newTopic("nobody", -1, -1), []int32{}), kerr.InvalidReplicaAssignment, 0},
		{assigned(newTopic("same-twice", -1, -1), []int32{1, 1}), kerr.InvalidReplicaAssignment, 0},
		{assigned(newTopic("uneven", -1, -1), []int32{1}, []int32{1, 2}), kerr.InvalidReplicaAssignment, 0},
		{assigned(newTopic("stranger", -1, -1), []int32{9}), kerr.InvalidReplicaAssignment, 0},
		{gap, kerr.InvalidReplicaAssignment, 0},
	}
	var topics []kmsg.CreateTopicsRequestTopic
	for _, tc := range cases {
		topics = append(topics, tc.topic)
		if tc.topic.Topic == "twice" {
			topics = append(topics, tc.topic)
		}
	}
	for _, dry := range []bool{true, false} {
		got := c.create(dry, topics...)
		if len(got) != len(cases) {
			t.Fatalf("%d answers to %d topics", len(got), len(cases))
		}
		exist := c.metadata(false)
		for i, tc := range cases {
			g := got[i]
			wantCode(t, tc.topic.Topic, g.ErrorCode, tc.want)
			if tc.want != nil && (g.ErrorMessage == nil || *g.ErrorMessage == "" || g.TopicID != [16]byte{}) {
				t.Errorf("%s: message %v, id %v", tc.topic.Topic, g.ErrorMessage, g.TopicID)
			}
			if tc.want == nil && (g.NumPartitions != tc.parts || len(g.Configs) < 10) {
				t.Errorf("%s: %d partitions, %d configs", tc.topic.Topic, g.NumPartitions, len(g.Configs))
			}
			if _, ok := exist[tc.topic.Topic]; ok != (tc.want == nil && !dry || tc.topic.Topic == "there") {
				t.Errorf("%s, validate only %v: exists %v", tc.topic.Topic, dry, ok)
			}
		}
	}
}

// TestDeleteTopics by name and by id: the records are gone, and a topic of the same name starts anew.
func TestDeleteTopics(t *testing.T) {
	n := startNode(t, nil)
	c := n.conn()
	first := c.createTopic("t", 1)
	c.mustProduce(newBatch("old", "older"))
	name := "t"
	byName := kmsg.NewPtrDeleteTopicsRequest()
	byName.TopicNames = []string{"t", "no"}
	got := ask[*kmsg.DeleteTopicsResponse](c, 4, byName).Topics
	wantCode(t, "delete t", got[0].ErrorCode, nil)
	wantCode(t, "delete no", got[1].ErrorCode, kerr.UnknownTopicOrPartition)
	wantCode(t, "fetch", c.fetch(0).ErrorCode, kerr.UnknownTopicOrPartition)
	wantCode(t, "produce", c.produce(-1, newBatch("x").encode())[0].ErrorCode, kerr.UnknownTopicOrPartition)

	second := c.createTopic("t", 1)
	if second == first {
		t.Error("the new topic has the id of the old one")
	}
	if f := c.fetch(0); f.HighWatermark != 0 || f.LogStartOffset != 0 || len(f.RecordBatches) > 0 {
		t.Errorf("the new topic is not empty: %+v", f)
	}
	if at := c.mustProduce(newBatch("new")); at != 0 {
		t.Errorf("the new topic starts at %d", at)
	}
	f := fetchRequest("", 0)
	f.Topics[0].TopicID = first
	wantCode(t, "fetch by the old id", one(t, ask[*kmsg.FetchResponse](c, 13, f)).ErrorCode, kerr.UnknownTopicID)
	n.restart()
	c = n.conn()
	if b := batches(t, c.fetch(0).RecordBatches); len(b) != 1 || b[0].NumRecords != 1 {
		t.Errorf("after a restart: %d batches, want the new topic's one", len(b))
	}
	byID := kmsg.NewPtrDeleteTopicsRequest()
	byID.Topics = []kmsg.DeleteTopicsRequestTopic{{TopicID: second}, {TopicID: first}, {Topic: &name}}
	got = ask[*kmsg.DeleteTopicsResponse](c, 6, byID).Topics
	wantCode(t, "delete by id", got[0].ErrorCode, nil)
	wantCode(t, "delete by the old id", got[1].ErrorCode, kerr.UnknownTopicID)
	wantCode(t, "delete again by name", got[2].ErrorCode, kerr.UnknownTopicOrPartition)
	if got[0].Topic == nil || *got[0].Topic != "t" {
		t.Errorf("the answer names %v", got[0].Topic)
	}
	off := startNode(t, map[string]string{"delete.topic.enable": "false"}).conn()
	off.createTopic("t", 1)
	byName.TopicNames = []string{"t"}
	wantCode(t, "switched off", ask[*kmsg.DeleteTopicsResponse](off, 4, byName).Topics[0].ErrorCode, kerr.TopicDeletionDisabled)
}

// TestCreatePartitions grows a topic; the records of what was there stay.
func TestCreatePartitions(t *testing.T) {
	n := startNode(t, nil)
	c := n.conn()
	c.createTopic("t", 2)
	c.mustProduce(newBatch("a"))
	grow := func(name string, count int32, dry bool, assignment ...[]int32) int16 {
		req := kmsg.NewPtrCreatePartitionsRequest()
		rt := kmsg.NewCreatePartitionsRequestTopic()
		rt.Topic, rt.Count = name, count
		for _, a := range assignment {
			rt.Assignment = append(rt.Assignment, kmsg.CreatePartitionsRequestTopicAssignment{Replicas: a})
		}
		req.Topics, req.ValidateOnly = append(req.Topics, rt), dry
		return ask[*kmsg.CreatePartitionsResponse](c, 3, req).Topics[0].ErrorCode
	}
	wantCode(t, "unknown", grow("no", 3, false), kerr.UnknownTopicOrPartition)
	wantCode(t, "same", grow("t", 2, false), kerr.InvalidPartitions)
	wantCode(t, "fewer", grow("t", 1, false), kerr.InvalidPartitions)
	wantCode(t, "too many", grow("t", 1<<30, false), kerr.InvalidPartitions)
	wantCode(t, "wrong assignment", grow("t", 4, false, []int32{1}), kerr.InvalidReplicaAssignment)
	wantCode(t, "assigned to a stranger", grow("t", 3, false, []int32{9}), kerr.InvalidReplicaAssignment)
	wantCode(t, "validate only", grow("t", 4, true), nil)
	if got := len(c.metadata(false, "t")["t"].Partitions); got != 2 {
		t.Errorf("%d partitions after validation only", got)
	}
	wantCode(t, "more", grow("t", 4, false, []int32{1}, []int32{1}), nil)
	p := c.produce(-1, newBatch("a").encode(), newBatch("b").encode(), newBatch("c").encode(), newBatch("d").encode())
	if p[0].BaseOffset != 1 || p[3].BaseOffset != 0 || p[3].ErrorCode != 0 {
		t.Errorf("produced at %d and %d (%s)", p[0].BaseOffset, p[3].BaseOffset, name(p[3].ErrorCode))
	}
}

// alter changes one config of a topic.
func (c *conn) alter(topic, config string, op kmsg.IncrementalAlterConfigOp, value *string, dry bool) kmsg.IncrementalAlterConfigsResponseResource {
	c.t.Helper()
	req := kmsg.NewPtrIncrementalAlterConfigsRequest()
	r := kmsg.NewIncrementalAlterConfigsRequestResource()
	r.ResourceType, r.ResourceName = kmsg.ConfigResourceTypeTopic, topic
	r.Configs = append(r.Configs, kmsg.IncrementalAlterConfigsRequestResourceConfig{Name: config, Op: op, Value: value})
	req.Resources, req.ValidateOnly = append(req.Resources, r), dry
	return ask[*kmsg.IncrementalAlterConfigsResponse](c, 1, req).Resources[0]
}

// TestAlterConfigs changes max.message.bytes: the next batch feels it.
func TestAlterConfigs(t *testing.T) {
	n := startNode(t, nil)
	c := n.conn()
	c.createTopic("t", 1)
	big := newBatch(strings.Repeat("x", 2000)).encode
	set, del := kmsg.IncrementalAlterConfigOpSet, kmsg.IncrementalAlterConfigOpDelete
	limit, bad, small := "1000", "-1", "500"
	wantCode(t, "before", c.produce(-1, big())[0].ErrorCode, nil)
	wantCode(t, "validate only", c.alter("t", "max.message.bytes", set, &limit, true).ErrorCode, nil)
	wantCode(t, "after validation", c.produce(-1, big())[0].ErrorCode, nil)
	wantCode(t, "set", c.alter("t", "max.message.bytes", set, &limit, false).ErrorCode, nil)
	wantCode(t, "after set", c.produce(-1, big())[0].ErrorCode, kerr.MessageTooLarge)
	n.restart()
	c = n.conn()
	wantCode(t, "after a restart", c.produce(-1, big())[0].ErrorCode, kerr.MessageTooLarge)
	for _, tc := range []struct {
		topic, config string
		op            kmsg.IncrementalAlterConfigOp
		value         *string
		want          *kerr.Error
	}{
		{"t", "max.message.bytes", set, &bad, kerr.InvalidConfig},
		{"t", "max.message.bytes", set, nil, kerr.InvalidRequest},
		{"t", "no.such.config", set, &small, kerr.InvalidConfig},
		{"t", "cleanup.policy", set, new("compact"), kerr.InvalidConfig},
		{"t", "cleanup.policy", kmsg.IncrementalAlterConfigOpAppend, new("compact"), kerr.InvalidConfig},
		{"t", "flush.ms", set, &small, kerr.InvalidConfig},
		{"no", "max.message.bytes", set, &limit, kerr.UnknownTopicOrPartition},
	} {
		got := c.alter(tc.topic, tc.config, tc.op, tc.value, false)
		wantCode(t, tc.config, got.ErrorCode, tc.want)
		if got.ErrorMessage == nil || *got.ErrorMessage == "" {
			t.Errorf("%s: no reason", tc.config)
		}
	}
	wantCode(t, "delete", c.alter("t", "max.message.bytes", del, nil, false).ErrorCode, nil)
	wantCode(t, "after delete", c.produce(-1, big())[0].ErrorCode, nil)
}

// TestDescribeConfigs shows values with their sources, synonyms and documentation.
func TestDescribeConfigs(t *testing.T) {
	n := startNode(t, map[string]string{"log.retention.hours": "5"})
	c := n.conn()
	c.createTopic("t", 1, "max.message.bytes", "77777")
	describe := func(kind kmsg.ConfigResourceType, of string, names ...string) kmsg.DescribeConfigsResponseResource {
		req := kmsg.NewPtrDescribeConfigsRequest()
		r := kmsg.NewDescribeConfigsRequestResource()
		r.ResourceType, r.ResourceName, r.ConfigNames = kind, of, names
		req.Resources, req.IncludeSynonyms, req.IncludeDocumentation = append(req.Resources, r), true, true
		return ask[*kmsg.DescribeConfigsResponse](c, 4, req).Resources[0]
	}
	got := describe(kmsg.ConfigResourceTypeTopic, "t", "max.message.bytes", "retention.ms", "segment.ms")
	if len(got.Configs) != 3 {
		t.Fatalf("asked for three, got %+v", got.Configs)
	}
	for _, cfg := range got.Configs {
		want := map[string]struct {
			value  string
			source kmsg.ConfigSource
		}{
			"max.message.bytes": {"77777", kmsg.ConfigSourceDynamicTopicConfig},
			"retention.ms":      {"18000000", kmsg.ConfigSourceStaticBrokerConfig},
			"segment.ms":        {"604800000", kmsg.ConfigSourceDefaultConfig},
		}[cfg.Name]
		if cfg.Value == nil || *cfg.Value != want.value || cfg.Source != want.source {
			t.Errorf("%s: %v from %v, want %s from %v", cfg.Name, cfg.Value, cfg.Source, want.value, want.source)
		}
		if cfg.Documentation == nil || len(*cfg.Documentation) < 20 || len(cfg.ConfigSynonyms) == 0 {
			t.Errorf("%s: documentation %v, synonyms %v", cfg.Name, cfg.Documentation, cfg.ConfigSynonyms)
		}
	}
	own := slices.IndexFunc(got.Configs, func(c kmsg.DescribeConfigsResponseResourceConfig) bool { return c.Name == "max.message.bytes" })
	if syn := got.Configs[own].ConfigSynonyms; len(syn) != 2 || syn[0].Name != "max.message.bytes" || syn[1].Name != "message.max.bytes" {
		t.Errorf("synonyms of max.message.bytes: %+v", syn)
	}
	wantCode(t, "unknown topic", describe(kmsg.ConfigResourceTypeTopic, "no").ErrorCode, kerr.UnknownTopicOrPartition)
	wantCode(t, "another broker", describe(kmsg.ConfigResourceTypeBroker, "9").ErrorCode, kerr.InvalidRequest)
	wantCode(t, "a group", describe(kmsg.ConfigResourceTypeGroupConfig, "g").ErrorCode, kerr.InvalidRequest)
	if b := describe(kmsg.ConfigResourceTypeBroker, "1"); b.ErrorCode != 0 || len(b.Configs) < 10 {
		t.Errorf("this broker: %s, %d configs", name(b.ErrorCode), len(b.Configs))
	}
}

// TestDescribeTopicPartitions pages through topics and partitions.
func TestDescribeTopicPartitions(t *testing.T) {
	c := startNode(t, nil).conn()
	want := map[string]int{"a": 3, "b": 1, "c": 4}
	for topic, n := range want {
		c.createTopic(topic, int32(n))
	}
	for _, limit := range []int32{1, 2, 3, 5, 100} {
		got := map[string]int{}
		var cursor *kmsg.DescribeTopicPartitionsRequestCursor
		for pages := 0; ; pages++ {
			if pages > 20 {
				t.Fatal("paging does not end")
			}
			req := kmsg.NewPtrDescribeTopicPartitionsRequest()
			req.ResponsePartitionLimit, req.Cursor = limit, cursor
			resp := ask[*kmsg.DescribeTopicPartitionsResponse](c, 0, req)
			n := 0
			for _, rt := range resp.Topics {
				for _, p := range rt.Partitions {
					if int(p.Partition) != got[*rt.Topic] {
						t.Errorf("limit %d: partition %d of %s, want %d", limit, p.Partition, *rt.Topic, got[*rt.Topic])
					}
					got[*rt.Topic]++
					n++
				}
			}
			if n > int(limit) {
				t.Errorf("%d partitions, the limit is %d", n, limit)
			}
			if resp.NextCursor == nil {
				break
			}
			cursor = &kmsg.DescribeTopicPartitionsRequestCursor{Topic: resp.NextCursor.Topic, Partition: resp.NextCursor.Partition}
		}
		for topic, n := range want {
			if got[topic] != n {
				t.Errorf("limit %d: %d partitions of %s, want %d", limit, got[topic], topic, n)
			}
		}
	}
	req := kmsg.NewPtrDescribeTopicPartitionsRequest()
	req.Topics = []kmsg.DescribeTopicPartitionsRequestTopic{{Topic: "no"}, {Topic: "a b"}}
	for _, rt := range ask[*kmsg.DescribeTopicPartitionsResponse](c, 0, req).Topics {
		want := map[string]*kerr.Error{"no": kerr.UnknownTopicOrPartition, "a b": kerr.InvalidTopicException}[*rt.Topic]
		wantCode(t, *rt.Topic, rt.ErrorCode, want)
	}
}

// TestDescribeCluster and Metadata agree on who is there.
func TestDescribeCluster(t *testing.T) {
	n := startNode(t, nil)
	c := n.conn()
	d := ask[*kmsg.DescribeClusterResponse](c, 2, kmsg.NewPtrDescribeClusterRequest())
	m := ask[*kmsg.MetadataResponse](c, 12, kmsg.NewPtrMetadataRequest())
	if len(d.Brokers) != 1 || len(m.Brokers) != 1 || m.ClusterID == nil || d.ClusterID != *m.ClusterID || len(d.ClusterID) != 22 || d.ControllerID != 1 {
		t.Errorf("describe cluster %+v, metadata %+v", d, m)
	}
	if b := d.Brokers[0]; b.NodeID != 1 || b.Rack == nil || *b.Rack != "r1" || b.Port != m.Brokers[0].Port || !strings.HasPrefix(n.addr, b.Host) {
		t.Errorf("broker %+v", b)
	}
	req := kmsg.NewPtrDescribeClusterRequest()
	req.EndpointType = 2
	wantCode(t, "controllers", ask[*kmsg.DescribeClusterResponse](c, 1, req).ErrorCode, kerr.UnsupportedEndpointType)
}
