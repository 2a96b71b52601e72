package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tierlog/tierlog/cli/bench"
)

// benchTopic is what the benchmarks write to where no topic is named.
const benchTopic = "tierlog-bench"

func (a *app) benchCommand() *cobra.Command {
	return group(
		&cobra.Command{
			Use:   "bench",
			Short: "Load any Kafka broker and measure it",
			Long: "Load any Kafka broker and measure throughput, latency and what the client itself costs.\n" +
				"Percentiles come from a histogram and are at most 0.8 % too high; mean and maximum are exact.",
			Example: "  tierlog bench produce --records 1000000\n" +
				"  tierlog bench consume --consumers 2\n" +
				"  tierlog bench latency --rate 1000 --duration 30s --json",
		},
		a.benchProduceCommand(),
		a.benchConsumeCommand(),
		a.benchLatencyCommand(),
	)
}

// loadFlags are the flags of the benchmarks that produce.
type loadFlags struct {
	client                     *clientFlags
	load                       bench.Load
	payload, acks, compression *choice
	linger                     time.Duration
	batch                      int32
	inFlight                   int
	asJSON                     bool
}

func (a *app) loadFlags(cmd *cobra.Command) *loadFlags {
	f := &loadFlags{client: a.clientFlags(cmd)}
	f.load.Now, f.load.Watch = a.Now, a.benchProgress
	fs := cmd.Flags()
	fs.StringVar(&f.load.Topic, "topic", benchTopic, "`TOPIC` to write to; made if it does not exist")
	fs.IntVar(&f.load.Partitions, "partitions", 0, "`N` partitions of the topic if it is made (default: the broker's num.partitions)")
	fs.IntVar(&f.load.RecordSize, "record-size", 1024, "`BYTES` of a record's value")
	fs.IntVar(&f.load.Producers, "producers", 1, "`N` producers, each with its own connection")
	f.payload = choiceFlag(cmd, "payload", "what the values hold: random bytes, or text that compresses as logs do", "random", "text")
	f.acks = choiceFlag(cmd, "acks", "acknowledgement to wait for", "all", "1", "0")
	f.compression = choiceFlag(cmd, "compression", "compress batches", "none", "gzip", "snappy", "lz4", "zstd")
	fs.Int32Var(&f.batch, "batch-size", 1000012, "largest batch in `BYTES`")
	fs.IntVar(&f.inFlight, "in-flight", 5, "`N` requests in flight to a broker with --acks 1 or 0; with all it is 5")
	fs.BoolVar(&f.asJSON, "json", false, "print JSON")
	return f
}

// check completes the load from the flags.
func (f *loadFlags) check() error {
	if err := f.load.Validate(); err != nil {
		return misuse("%w", err)
	}
	switch {
	case f.linger < 0 || f.linger > time.Minute:
		return misuse("linger %s: want 0 to 1m", f.linger)
	case f.batch < 512 || f.batch > 1<<30:
		return misuse("batch-size %d: want 512 to %d", f.batch, 1<<30)
	case f.inFlight < 1:
		return misuse("in-flight %d: want at least 1", f.inFlight)
	case f.load.Partitions < 0:
		return misuse("partitions %d: want at least 1", f.load.Partitions)
	}
	var err error
	f.load.Payload, err = bench.NewPayload(f.payload.value, max(f.load.RecordSize, bench.MinLatencySize), f.compression.value != "none")
	if err != nil {
		return misuse("%w", err)
	}
	f.load.Options = []kgo.Opt{
		kgo.ProducerLinger(f.linger),
		kgo.ProducerBatchMaxBytes(f.batch),
		kgo.BrokerMaxWriteBytes(max(100<<20, f.batch+f.batch/8)),
		kgo.ProducerBatchCompression(codec(f.compression.value)),
	}
	acks := kgo.AllISRAcks()
	switch f.acks.value {
	case "1":
		acks = kgo.LeaderAck()
	case "0":
		acks = kgo.NoAck()
	}
	f.load.Options = append(f.load.Options, kgo.RequiredAcks(acks))
	if f.acks.value != "all" {
		f.load.Options = append(f.load.Options, kgo.DisableIdempotentWrite(), kgo.MaxProduceRequestsInflightPerBroker(f.inFlight))
	}
	return nil
}

// benchProgress shows how far a benchmark is, on a terminal.
func (a *app) benchProgress(state func() (records, bytes int64)) (stop func()) {
	return a.showProgress(a.Stderr, func() progressState {
		records, bytes := state()
		return progressState{records: records, bytes: bytes}
	})
}

// dialer returns how the benchmarks connect, with the command's flags.
func (f *clientFlags) dialer(cmd *cobra.Command) (bench.Dial, error) {
	opts, err := f.options(cmd)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context, more ...kgo.Opt) (*kgo.Client, error) {
		return dial(ctx, append(append([]kgo.Opt{}, opts...), more...)...)
	}, nil
}

// ensureTopic makes the topic if it does not exist, and returns how many partitions it has and where they end.
func (f *loadFlags) ensureTopic(cmd *cobra.Command) (ends map[int32]int64, err error) {
	cl, err := f.client.connect(cmd)
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	ctx, adm, topic := cmd.Context(), kadm.NewClient(cl), f.load.Topic
	want := int32(f.load.Partitions)
	if want == 0 {
		want = -1
	}
	resp, err := adm.CreateTopic(ctx, want, -1, nil, topic)
	if err != nil && !errors.Is(err, kerr.TopicAlreadyExists) {
		return nil, topicError(topic, err, resp.ErrMessage)
	}
	d, err := topicDetail(ctx, adm, topic)
	if err != nil {
		return nil, err
	}
	if have := len(d.Partitions); want > 0 && int(want) != have {
		return nil, withHint(fmt.Errorf("topic %s has %s, not %d", topic, plural(have, "partition"), want),
			"Name another one with --topic, or delete it with `tierlog topic delete %s`.", topic)
	}
	f.load.Partitions = len(d.Partitions)
	listed, err := adm.ListEndOffsets(ctx, topic)
	if err != nil {
		return nil, err
	}
	ends = map[int32]int64{}
	for p, o := range listed[topic] {
		if o.Err != nil {
			return nil, fetchError(topic, p, o.Err)
		}
		ends[p] = o.Offset
	}
	return ends, nil
}

// writeReport prints what a benchmark came to.
func writeReport(w io.Writer, r bench.Report, asJSON bool) error {
	if asJSON {
		return writeJSON(w, r)
	}
	t := newTable("TOPIC", ">PARTITIONS", ">CLIENTS", ">RECORDS", ">FAILED", ">SECONDS", ">RECORDS/S", ">MIB/S", ">CLIENT CPU S")
	t.row(r.Topic, r.Partitions, r.Clients, count(r.Records), count(r.Failed), figures(r.Seconds),
		count(int64(r.PerSecond)), figures(r.MiB), figures(r.ClientCPU))
	if err := t.write(w, 0); err != nil {
		return err
	}
	if r.Ack == nil && r.EndToEnd == nil {
		return nil
	}
	lat := newTable("LATENCY", ">P50", ">P90", ">P99", ">P99.9", ">MAX", ">MEAN", ">SAMPLES")
	from := ""
	add := func(name string, l *bench.Latency) {
		if l == nil {
			return
		}
		ms := func(f float64) string { return duration(time.Duration(f * float64(time.Millisecond))) }
		lat.row(name, ms(l.P50), ms(l.P90), ms(l.P99), ms(l.P999), ms(l.Max), ms(l.Mean), count(l.Samples))
		from = l.From
	}
	add("until acknowledged", r.Ack)
	add("until read", r.EndToEnd)
	if _, err := fmt.Fprintln(w); err != nil {
		return err
	}
	if err := lat.write(w, 0); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "Latency is taken from %s.\n", from)
	return err
}
