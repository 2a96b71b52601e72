package main

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// console runs the command line tools of one Apache Kafka version against a broker. They moved between packages over
// the years, and some renamed their options.
type console struct {
	*env
	version         string
	topics          string
	producer        string
	consumer        string
	offsets         string
	cluster         string
	readerProperty  string
	printerProperty string
	perfProperty    string
}

func (e *env) consoles() []*console {
	return []*console{
		{
			env: e, version: "2.8.2", topics: "kafka.admin.TopicCommand", producer: "kafka.tools.ConsoleProducer", consumer: "kafka.tools.ConsoleConsumer",
			offsets: "kafka.tools.GetOffsetShell", cluster: "kafka.tools.ClusterTool",
			readerProperty: "--property", printerProperty: "--property", perfProperty: "--producer-props",
		},
		{
			env: e, version: "3.9.2", topics: "org.apache.kafka.tools.TopicCommand", producer: "kafka.tools.ConsoleProducer", consumer: "org.apache.kafka.tools.consumer.ConsoleConsumer",
			offsets: "org.apache.kafka.tools.GetOffsetShell", cluster: "org.apache.kafka.tools.ClusterTool",
			readerProperty: "--property", printerProperty: "--property", perfProperty: "--producer-props",
		},
		{
			env: e, version: "4.3.1", topics: "org.apache.kafka.tools.TopicCommand", producer: "org.apache.kafka.tools.ConsoleProducer", consumer: "org.apache.kafka.tools.consumer.ConsoleConsumer",
			offsets: "org.apache.kafka.tools.GetOffsetShell", cluster: "org.apache.kafka.tools.ClusterTool",
			readerProperty: "--reader-property", printerProperty: "--formatter-property", perfProperty: "--command-property",
		},
	}
}

func (e *env) consoleGroups() []group {
	var groups []group
	for _, c := range e.consoles() {
		g := group{name: "console-" + c.version, open: func(context.Context) (driver, error) { return e.ref, nil }}
		for name, run := range map[string]func(context.Context) error{
			"topics": c.topicLife, "topic-errors": c.topicErrors, "produce-consume": c.produceConsume,
			"get-offsets": c.getOffsets, "configs": c.configs, "producer-perf": c.producerPerf, "cluster-id": c.clusterID,
		} {
			g.cases = append(g.cases, testCase{name, func(ctx context.Context, _ driver) error { return run(ctx) }})
		}
		slices.SortFunc(g.cases, func(a, b testCase) int { return strings.Compare(a.name, b.name) })
		groups = append(groups, g)
	}
	return groups
}

// tool runs one tool and returns what it printed. A tool that fails gives an error with all that it said.
func (c *console) tool(ctx context.Context, stdin []byte, class string, args ...string) (string, error) {
	jvm := []string{"-Xmx256m", "-XX:TieredStopAtLevel=1", "-cp", filepath.Join(c.root, ".bin", "kafka-"+c.version, "libs", "*"), class}
	cmd := exec.CommandContext(ctx, "java", append(jvm, args...)...)
	cmd.Stdin = bytes.NewReader(stdin)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("%s: %w: %s%s", class, err, stdout.String(), stderr.String())
	}
	return stdout.String(), nil
}

func (c *console) topicTool(ctx context.Context, args ...string) (string, error) {
	return c.tool(ctx, nil, c.topics, append([]string{"--bootstrap-server", c.addr}, args...)...)
}

func (c *console) topic(what string) string { return "console-" + c.version + "-" + what }

// wantOutput reports an output in which a pattern does not match.
func wantOutput(out string, err error, patterns ...string) error {
	if err != nil {
		return err
	}
	for _, p := range patterns {
		if !regexp.MustCompile("(?m)" + p).MatchString(out) {
			return fmt.Errorf("printed %q, want /%s/", out, p)
		}
	}
	return nil
}

// topicLife: kafka-topics creates, describes, lists, grows and deletes.
func (c *console) topicLife(ctx context.Context) error {
	name := c.topic("life")
	out, err := c.topicTool(ctx, "--create", "--topic", name, "--partitions", "3", "--replication-factor", "1", "--config", "retention.ms=3600000")
	if err := wantOutput(out, err, "Created topic "+name); err != nil {
		return fmt.Errorf("create: %w", err)
	}
	out, err = c.topicTool(ctx, "--describe", "--topic", name)
	if err := wantOutput(out, err, `Topic: \S+\s.*PartitionCount: 3\s+ReplicationFactor: 1\s+Configs: .*retention.ms=3600000`,
		`Partition: 0\s+Leader: \d+\s+Replicas: \d+\s+Isr: \d+`, `Partition: 2\s`); err != nil {
		return fmt.Errorf("describe: %w", err)
	}
	if _, err = c.topicTool(ctx, "--alter", "--topic", name, "--partitions", "5"); err != nil {
		return fmt.Errorf("alter: %w", err)
	}
	out, err = c.topicTool(ctx, "--describe", "--topic", name)
	if err := wantOutput(out, err, "PartitionCount: 5", `Partition: 4\s+Leader: \d+`); err != nil {
		return fmt.Errorf("describe after the growth: %w", err)
	}
	out, err = c.topicTool(ctx, "--list")
	if err := wantOutput(out, err, "^"+name+"$"); err != nil {
		return fmt.Errorf("list: %w", err)
	}
	if _, err = c.topicTool(ctx, "--delete", "--topic", name); err != nil {
		return fmt.Errorf("delete: %w", err)
	}
	out, err = c.topicTool(ctx, "--list")
	if err == nil && strings.Contains(out, name) {
		err = fmt.Errorf("the deleted topic is listed: %q", out)
	}
	return err
}

// topicErrors: what Kafka refuses is refused, with its words.
func (c *console) topicErrors(ctx context.Context) error {
	name := c.topic("errors")
	if err := c.newTopic(ctx, name); err != nil {
		return err
	}
	for _, try := range []struct{ args, want string }{
		{"--create --topic " + name, "already exists"},
		{"--create --topic bad!name", "InvalidTopicException|is illegal|is invalid"},
		{"--create --topic " + name + "-0 --partitions 0", "InvalidPartitionsException|must be larger than 0|must be greater than"},
		{"--create --topic " + name + "-1 --config retention.ms=soon", "Invalid value soon|InvalidConfig|not a number"},
		{"--alter --topic " + name + " --partitions 2", "InvalidPartitionsException|higher than|can only be increased|not be an increase"},
		{"--delete --topic " + name + "-none", "does not exist"},
	} {
		out, err := c.topicTool(ctx, strings.Fields(try.args)...)
		if err == nil {
			return fmt.Errorf("kafka-topics %s: success: %q", try.args, out)
		}
		if err := wantError(err, try.want); err != nil {
			return fmt.Errorf("kafka-topics %s: %w", try.args, err)
		}
	}
	return nil
}

// produceConsume: console producer and consumer, partition and offset given, so that no group is needed.
func (c *console) produceConsume(ctx context.Context) error {
	for _, codec := range []string{"none", "gzip", "snappy", "lz4", "zstd"} {
		topic := c.topic("pipe-" + codec)
		if err := c.ref.create(ctx, c.addr, topic, 1); err != nil {
			return err
		}
		var lines []string
		for i := range 500 {
			lines = append(lines, fmt.Sprintf("key-%d=value %d, unicode é ✓", i, i))
		}
		_, err := c.tool(ctx, []byte(strings.Join(lines, "\n")+"\n"), c.producer, "--bootstrap-server", c.addr, "--topic", topic,
			"--compression-codec", codec, c.readerProperty, "parse.key=true", c.readerProperty, "key.separator==")
		if err != nil {
			return fmt.Errorf("%s: %w", codec, err)
		}
		_, attrs, err := c.ref.read(ctx, c.addr, topic, []int64{500})
		if err != nil {
			return err
		}
		if attrs[codecBits[codec]] == 0 {
			return fmt.Errorf("records by compression attribute are %v, want %s", attrs, codec)
		}
		out, err := c.tool(ctx, nil, c.consumer, "--bootstrap-server", c.addr, "--topic", topic, "--partition", "0", "--offset", "earliest",
			"--max-messages", "500", "--timeout-ms", "20000", c.printerProperty, "print.key=true", c.printerProperty, "key.separator==")
		if err != nil {
			return fmt.Errorf("%s: %w", codec, err)
		}
		if out != strings.Join(lines, "\n")+"\n" {
			return fmt.Errorf("%s: what was printed differs from what was written: %d and %d bytes", codec, len(out), len(strings.Join(lines, "\n"))+1)
		}
	}
	return nil
}

// getOffsets: kafka-get-offsets, latest, earliest and by time.
func (c *console) getOffsets(ctx context.Context) error {
	topic := c.topic("offsets")
	if err := c.newTopic(ctx, topic); err != nil {
		return err
	}
	records := make([]record, 0, 10)
	for i := range 10 {
		records = append(records, record{partition: int32(i % 2), timestamp: firstTimestamp + int64(i)*1000, value: []byte("v")})
	}
	if err := c.ref.produce(ctx, produceArgs{addr: c.addr, topic: topic, codec: "none", acks: "all", records: records}); err != nil {
		return err
	}
	bootstrap := "--bootstrap-server"
	if c.version == "2.8.2" {
		bootstrap = "--broker-list" // it takes the newer name too, but asks for this one in its help
	}
	times := []struct{ time, want string }{
		{"-1", "T:0:5 T:1:5 T:2:0"}, {"-2", "T:0:0 T:1:0 T:2:0"}, {fmt.Sprint(int64(firstTimestamp + 3000)), `T:0:2 T:1:1( T:2:)?`},
	}
	if c.version == "4.3.1" {
		times = append(times, struct{ time, want string }{"-3", `T:0:4 T:1:4( T:2:(-1)?)?`}, struct{ time, want string }{"-4", "T:0:0 T:1:0 T:2:0"})
	}
	for _, try := range times {
		out, err := c.tool(ctx, nil, c.offsets, bootstrap, c.addr, "--topic", topic, "--time", try.time)
		if err != nil {
			return err
		}
		got := strings.Join(strings.Fields(out), " ")
		if want := strings.ReplaceAll(try.want, "T:", regexp.QuoteMeta(topic)+":"); !regexp.MustCompile("^" + want + "$").MatchString(got) {
			return fmt.Errorf("--time %s: printed %q, want /%s/", try.time, got, want)
		}
	}
	return nil
}

// configs: kafka-configs describes, sets and removes a topic's settings, and refuses nonsense.
func (c *console) configs(ctx context.Context) error {
	topic := c.topic("configs")
	if err := c.newTopic(ctx, topic); err != nil {
		return err
	}
	run := func(args ...string) (string, error) {
		return c.tool(ctx, nil, "kafka.admin.ConfigCommand", append([]string{"--bootstrap-server", c.addr, "--entity-type", "topics", "--entity-name", topic}, args...)...)
	}
	out, err := run("--alter", "--add-config", "retention.ms=7200000,max.message.bytes=2000000")
	if err := wantOutput(out, err, "Completed updating config"); err != nil {
		return err
	}
	out, err = run("--describe")
	if err := wantOutput(out, err, "retention.ms=7200000", "max.message.bytes=2000000"); err != nil {
		return err
	}
	out, err = run("--describe", "--all")
	if err := wantOutput(out, err, "retention.ms=7200000 .*DYNAMIC_TOPIC_CONFIG", "cleanup.policy=delete .*DEFAULT_CONFIG", "compression.type=producer"); err != nil {
		return err
	}
	if _, err = run("--alter", "--delete-config", "retention.ms"); err != nil {
		return err
	}
	if out, err = run("--describe"); err == nil && strings.Contains(out, "retention.ms=") {
		err = fmt.Errorf("a removed setting is still there: %q", out)
	}
	if err != nil {
		return err
	}
	_, err = run("--alter", "--add-config", "max.message.bytes=many")
	return wantError(err, "InvalidConfig|Invalid value|Not a number|must be")
}

// producerPerf: kafka-producer-perf-test with its own numbers, checked against the end offsets.
func (c *console) producerPerf(ctx context.Context) error {
	topic := c.topic("perf")
	if err := c.newTopic(ctx, topic); err != nil {
		return err
	}
	out, err := c.tool(ctx, nil, "org.apache.kafka.tools.ProducerPerformance", "--topic", topic, "--num-records", "30000", "--record-size", "1000",
		"--throughput", "-1", c.perfProperty, "bootstrap.servers="+c.addr, "acks=all", "linger.ms=5")
	if err := wantOutput(out, err, "^30000 records sent"); err != nil {
		return err
	}
	n, err := c.ref.count(ctx, c.addr, topic)
	if err == nil && n != 30000 {
		err = fmt.Errorf("the topic holds %d records, want 30000", n)
	}
	return err
}

// clusterID: the cluster tool prints one.
func (c *console) clusterID(ctx context.Context) error {
	out, err := c.tool(ctx, nil, c.cluster, "cluster-id", "--bootstrap-server", c.addr)
	return wantOutput(out, err, `^Cluster ID: \S{4,}$`)
}
