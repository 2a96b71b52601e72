package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tierlog/tierlog/cli/feed"
)

const (
	// interruptGrace is how long an interrupted run waits for what was sent to be acknowledged.
	interruptGrace = 5 * time.Second
	// defaultMaxMessage is Kafka's message.max.bytes, for brokers that do not tell theirs.
	defaultMaxMessage = 1048588
	// produceBuffer bounds the bytes given to the client and not acknowledged.
	produceBuffer = 64 << 20
	// shownFailures is how many failures are printed.
	shownFailures = 10
)

// produceFlags are the flags of `tierlog produce`.
type produceFlags struct {
	client            *clientFlags
	file              string
	layout, separator string
	partition         int32
	acks, compression *choice
	headers           []string
	delivery          time.Duration
}

func (a *app) produceCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "produce TOPIC [flags]",
		Short: "Write records, one a line, from standard input or a file",
		Long: "Write records to a topic: by default one a line, the line being the value, whatever bytes it holds.\n" +
			"--input-format reads other layouts, in the grammar of franz-go's record reader:\n" +
			"%k key, %v value, %t topic, %p partition, %d timestamp in ms, %h headers; %K, %V, %H their lengths.\n" +
			"The order of the lines is kept within each partition. With --acks all, retries make no duplicates.\n" +
			"If a record cannot be written, nothing after it is read, and its line number is reported.",
		Example: "  echo hello | tierlog produce orders\n" +
			"  tierlog produce orders --file orders.jsonl --compression zstd\n" +
			"  printf 'user-1:bought\\n' | tierlog produce orders --key-separator : --header source=shop\n" +
			"  tierlog produce orders --input-format '%K{big32}%V{big32}%k%v' < dump",
		Args:              oneArg("the TOPIC"),
		ValidArgsFunction: a.completeTopics(1),
	}
	f := &produceFlags{client: a.clientFlags(cmd)}
	fs := cmd.Flags()
	fs.StringVarP(&f.file, "file", "f", "", "read this `FILE`, not standard input")
	layoutFlag(cmd, &f.layout, "input-format", "layout of the input")
	fs.StringVar(&f.separator, "key-separator", "", "`S` stands between key and value in each line (default: no keys)")
	fs.Int32Var(&f.partition, "partition", -1, "partition `N` to write to (default: by key, or spread)")
	f.acks = choiceFlag(cmd, "acks", "wait until a record is durable in the bucket (all), with the leader (1), or not at all (0)", "all", "1", "0")
	f.compression = choiceFlag(cmd, "compression", "compress batches", "none", "gzip", "snappy", "lz4", "zstd")
	fs.StringArrayVarP(&f.headers, "header", "H", nil, "header for every record, as `K=V`; may be repeated")
	fs.DurationVar(&f.delivery, "delivery-timeout", 2*time.Minute, "give up when records wait and none is acknowledged for this `TIME`; 0: never")
	hideDefault(fs, "partition")
	cmd.RunE = func(cmd *cobra.Command, args []string) error { return a.produce(cmd, f, args[0]) }
	return cmd
}

func (a *app) produce(cmd *cobra.Command, f *produceFlags, topic string) error {
	cfg, err := f.feedConfig(topic)
	if err != nil {
		return err
	}
	cfg.Now = a.Now
	in, total, err := a.openInput(f.file)
	if err != nil {
		return err
	}
	defer in.Close() //nolint:errcheck // it was only read
	adm, err := f.client.connect(cmd)
	if err != nil {
		return err
	}
	cfg.MaxRecordBytes, err = produceLimits(cmd.Context(), kadm.NewClient(adm), topic, f.partition)
	adm.Close()
	if err != nil {
		return err
	}
	cl, err := f.client.connect(cmd, f.producerOptions(cfg.MaxRecordBytes)...)
	if err != nil {
		return err
	}
	sender, err := feed.NewSender(cl, in, cfg)
	if err != nil {
		cl.Close()
		return err
	}
	if isTerminal(in) {
		a.note("Type records, one a line; end with Ctrl-D.")
	}
	start := a.Now()
	state := func() progressState {
		records, bytes := sender.Progress()
		return progressState{records: records, bytes: bytes, total: total}
	}
	stop := func() {}
	if !isTerminal(in) {
		stop = a.showProgress(a.Stderr, state)
	}
	res, err := sender.Run(cmd.Context(), interruptGrace)
	stop()
	if err != nil {
		return produceError(topic, res, err, f.acks.value)
	}
	if isTerminal(a.Stderr) {
		a.note("%s", summaryLine(state(), a.Now().Sub(start)))
	}
	return nil
}

// feedConfig checks the flags that say how the input is read.
func (f *produceFlags) feedConfig(topic string) (feed.Config, error) {
	cfg := feed.Config{Layout: f.layout, KeySeparator: f.separator, Topic: topic, Partition: f.partition, Stall: f.delivery}
	pairs, err := parsePairs("header", f.headers)
	if err != nil {
		return cfg, err
	}
	for _, kv := range pairs {
		cfg.Headers = append(cfg.Headers, kgo.RecordHeader{Key: kv[0], Value: []byte(kv[1])})
	}
	if err := feed.Check(f.layout); err != nil {
		return cfg, misuse("input-format '%s': %w", f.layout, err)
	}
	switch {
	case f.separator != "" && f.layout != `%v\n`:
		return cfg, misuse("give --key-separator or --input-format, not both")
	case f.partition < -1:
		return cfg, misuse("partition %d: want 0 or more", f.partition)
	case f.delivery < 0 || f.delivery > 0 && f.delivery < time.Second:
		return cfg, misuse("delivery-timeout %s: want 1s or more, or 0", f.delivery)
	}
	return cfg, nil
}

// producerOptions returns the client's options for the flags.
func (f *produceFlags) producerOptions(maxBatch int) []kgo.Opt {
	opts := []kgo.Opt{
		kgo.AllowAutoTopicCreation(),
		kgo.ProducerBatchMaxBytes(int32(maxBatch)),
		kgo.BrokerMaxWriteBytes(int32(max(100<<20, maxBatch+maxBatch/8))),
		kgo.MaxBufferedRecords(1 << 30), // The bytes and the feed's chunks are the bound.
		kgo.MaxBufferedBytes(max(produceBuffer, 2*maxBatch)),
		kgo.ProducerBatchCompression(codec(f.compression.value)),
		kgo.StopProducerOnDataLossDetected(),
	}
	switch f.acks.value {
	case "all":
		opts = append(opts, kgo.RequiredAcks(kgo.AllISRAcks()))
	case "1":
		opts = append(opts, kgo.RequiredAcks(kgo.LeaderAck()), kgo.DisableIdempotentWrite())
	case "0":
		opts = append(opts, kgo.RequiredAcks(kgo.NoAck()), kgo.DisableIdempotentWrite())
	}
	if f.acks.value == "all" {
		// Nothing is produced after a failure, so giving up on a record that is under way makes no duplicate.
		opts = append(opts, kgo.AllowIdempotentProduceCancellation())
	}
	if f.partition >= 0 || feed.HasVerb(f.layout, 'p') {
		opts = append(opts, kgo.RecordPartitioner(kgo.ManualPartitioner()))
	}
	return opts
}

func codec(name string) kgo.CompressionCodec {
	switch name {
	case "gzip":
		return kgo.GzipCompression()
	case "snappy":
		return kgo.SnappyCompression()
	case "lz4":
		return kgo.Lz4Compression()
	case "zstd":
		return kgo.ZstdCompression()
	default:
		return kgo.NoCompression()
	}
}

// openInput opens the file, or standard input if there is none. total is its size, 0 if unknown.
func (a *app) openInput(path string) (in io.ReadCloser, total int64, err error) {
	if path == "" || path == "-" {
		if f, ok := a.Stdin.(*os.File); ok {
			return f, 0, nil
		}
		return io.NopCloser(a.Stdin), 0, nil
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, 0, err
	}
	if st, err := f.Stat(); err == nil && st.Mode().IsRegular() {
		total = st.Size()
	}
	return f, total, nil
}

// produceLimits returns the largest batch the topic takes, and checks the partition where the topic exists.
func produceLimits(ctx context.Context, adm *kadm.Client, topic string, partition int32) (int, error) {
	d, err := topicDetail(ctx, adm, topic)
	switch {
	case errors.Is(err, kerr.UnknownTopicOrPartition):
		return brokerMaxMessage(ctx, adm), nil // The broker may create it.
	case err != nil:
		return 0, err
	case partition >= 0 && int(partition) >= len(d.Partitions):
		return 0, withHint(fmt.Errorf("topic %s has no partition %d", topic, partition),
			"It has %s, counted from 0.", plural(len(d.Partitions), "partition"))
	}
	configs, err := adm.DescribeTopicConfigs(ctx, topic)
	if err == nil {
		if rc, err := configs.On(topic, nil); err == nil {
			return configInt(rc.Configs, "max.message.bytes"), nil
		}
	}
	return defaultMaxMessage, nil // Not every broker lets everybody ask.
}

// brokerMaxMessage returns the largest batch that a new topic takes.
func brokerMaxMessage(ctx context.Context, adm *kadm.Client) int {
	brokers, err := adm.ListBrokers(ctx)
	if err != nil || len(brokers) == 0 {
		return defaultMaxMessage
	}
	id := brokers[0].NodeID
	configs, err := adm.DescribeBrokerConfigs(ctx, id)
	if err != nil {
		return defaultMaxMessage
	}
	rc, _ := configs.On(strconv.Itoa(int(id)), nil)
	return configInt(rc.Configs, "message.max.bytes")
}

func configInt(configs []kadm.Config, name string) int {
	for _, c := range configs {
		if c.Key == name && c.Value != nil {
			if n, err := strconv.Atoi(*c.Value); err == nil && n >= 512 {
				return min(n, 1<<30)
			}
		}
	}
	return defaultMaxMessage
}

// produceError says how far a run came that did not reach its end.
func produceError(topic string, res feed.Result, err error, acks string) error {
	acked := "acknowledged"
	if acks == "0" {
		acked = "sent"
	}
	unit := res.Unit
	done := fmt.Sprintf("%s %s", plural(res.Acked, "record"), acked)
	if res.FirstMissing > 0 {
		done += fmt.Sprintf(", %s not; the first that was not is %s %d", count(res.Failed), unit, res.FirstMissing)
	} else if bad, ok := errors.AsType[*feed.BadRecord](err); ok {
		done += fmt.Sprintf(": all before %s %d, none after", bad.Unit, bad.Number)
	} else {
		done += fmt.Sprintf(": all of the %ss read", unit)
	}
	switch {
	case errors.Is(err, feed.ErrStalled):
		return withHint(err, "%s.\nIs the broker up, and can it reach its bucket? --delivery-timeout says how long to wait.", done)
	case errors.Is(err, errInterrupted):
		return withHint(errInterrupted, "%s.", done)
	case errors.Is(err, kerr.UnknownTopicOrPartition), errors.Is(err, kerr.UnknownTopicID):
		return withHint(fmt.Errorf("topic %s does not exist, or no longer, and the broker does not make it: %w", topic, kafkaError(err, "")),
			"%s.\nCreate it with `tierlog topic create %s`.", done, topic)
	case len(res.Failures) > 0:
		return withHint(errors.New(failureList(res, unit)), "%s.", done)
	}
	if _, long := errors.AsType[*feed.TooLong](err); long {
		done += ".\n`tierlog topic alter TOPIC --config max.message.bytes=N` lets the topic take more"
	}
	return withHint(err, "%s.", done)
}

// failureList prints the first failures, a line each.
func failureList(res feed.Result, unit string) string {
	var lines []string
	for i, f := range res.Failures {
		if i == shownFailures {
			lines = append(lines, fmt.Sprintf("... (%s records failed)", count(res.Failed)))
			break
		}
		where := fmt.Sprintf("%s %d", unit, f.First)
		if f.Last > f.First {
			where = fmt.Sprintf("%ss %d-%d", unit, f.First, f.Last)
		}
		lines = append(lines, fmt.Sprintf("%s: %v", where, explainProduce(f.Err)))
	}
	return strings.Join(lines, "\n")
}

// explainProduce says in plain words what the client reports in its own.
func explainProduce(err error) error {
	switch {
	case errors.Is(err, kgo.ErrClientClosed), errors.Is(err, context.Canceled):
		return errors.New("not acknowledged before the end; it may or may not be stored")
	default:
		return kafkaError(err, "")
	}
}
