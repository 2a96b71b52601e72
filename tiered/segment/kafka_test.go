//go:build kafka

// These tests make real segment files with Apache Kafka and compare. They take a JVM and Maven; run them with
//
//	go test -tags kafka ./tiered/segment -run Kafka [-update]
//
// where -update also renews the small files under testdata that the other tests use.
package segment

import (
	"context"
	"encoding/binary"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tierlog/tierlog/test/kafka"
)

var update = flag.Bool("update", false, "renew the files under testdata")

const kafkaVersion = "4.3.1"

// produceAll fills the topics: "big" with several rolled segments, "small", "txn" and "quiet" with a few KiB.
func produceAll(t *testing.T, addr string) {
	ctx := t.Context()
	cl, err := kgo.NewClient(kgo.SeedBrokers(addr))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	adm := kadm.NewClient(cl)
	conf := func(kv ...string) map[string]*string {
		m := map[string]*string{}
		for i := 0; i < len(kv); i += 2 {
			m[kv[i]] = &kv[i+1]
		}
		return m
	}
	for topic, cfg := range map[string]map[string]*string{
		"big":    conf("segment.bytes", "1048576"),
		"small":  conf("index.interval.bytes", "300"),
		"txn":    conf("index.interval.bytes", "300"),
		"quiet":  conf(),
		"append": conf("index.interval.bytes", "300", "message.timestamp.type", "LogAppendTime"),
	} {
		if _, err := adm.CreateTopic(ctx, 1, 1, cfg, topic); err != nil {
			t.Fatal(err)
		}
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	value := func(n int) []byte {
		b := make([]byte, n)
		for i := range b {
			b[i] = "abcdefgh"[rnd.IntN(8)]
		}
		return b
	}
	start := time.Now().Add(-time.Hour).Truncate(time.Millisecond)
	batches := func(topic string, n, records, size int, opts ...kgo.Opt) {
		p, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(addr), kgo.DefaultProduceTopic(topic)}, opts...)...)
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		for i := range n {
			var rs []*kgo.Record
			for range 1 + rnd.IntN(records) {
				// Times go back and forth by up to a minute.
				ts := start.Add(time.Duration(i)*time.Second + time.Duration(rnd.IntN(60000))*time.Millisecond)
				if topic == "small" { // several batches have the same largest time
					ts = start.Add(time.Duration(i/3) * time.Minute)
				}
				rs = append(rs, &kgo.Record{Value: value(1 + rnd.IntN(size)), Timestamp: ts})
			}
			if err := p.ProduceSync(ctx, rs...).FirstErr(); err != nil {
				t.Fatal(err)
			}
		}
	}
	codec := func(c kgo.CompressionCodec) kgo.Opt { return kgo.ProducerBatchCompression(c) }
	batches("big", 150, 20, 2000, codec(kgo.NoCompression()))
	batches("big", 150, 40, 3000, codec(kgo.ZstdCompression()))
	batches("big", 100, 20, 2000, codec(kgo.Lz4Compression()), kgo.DisableIdempotentWrite())
	batches("small", 12, 3, 60, codec(kgo.NoCompression()))
	batches("small", 6, 3, 60, codec(kgo.SnappyCompression()))
	batches("quiet", 2, 2, 20, codec(kgo.NoCompression()), kgo.DisableIdempotentWrite())
	batches("append", 10, 3, 100, codec(kgo.GzipCompression()))
	transactions(t, addr, start)
}

// transactions writes interleaved transactions that commit and abort, and leaves one open.
func transactions(t *testing.T, addr string, start time.Time) {
	ctx := t.Context()
	var clients []*kgo.Client
	for i := range 3 {
		cl, err := kgo.NewClient(kgo.SeedBrokers(addr), kgo.TransactionalID(fmt.Sprintf("tx-%d", i)), kgo.DefaultProduceTopic("txn"),
			kgo.ProducerBatchCompression(kgo.NoCompression()))
		if err != nil {
			t.Fatal(err)
		}
		defer cl.CloseAllowingRebalance()
		clients = append(clients, cl)
	}
	n := 0
	step := func(i int, what string) {
		var err error
		switch cl := clients[i]; what {
		case "begin":
			err = cl.BeginTransaction()
		case "write":
			n++
			err = cl.ProduceSync(ctx, &kgo.Record{Value: []byte(strings.Repeat("x", 40+n)), Timestamp: start.Add(time.Duration(n) * time.Second)}).FirstErr()
		case "commit":
			err = cl.EndTransaction(ctx, kgo.TryCommit)
		case "abort":
			err = cl.EndTransaction(ctx, kgo.TryAbort)
		}
		if err != nil {
			t.Fatalf("client %d: %s: %v", i, what, err)
		}
	}
	for _, s := range []string{
		"0 begin", "0 write", "1 begin", "1 write", "0 write", "0 commit", "1 write", "1 abort", // 1 aborts alone
		"0 begin", "0 write", "1 begin", "1 write", "2 begin", "2 write", "1 abort", "0 abort", "2 write", "2 commit", // 1 aborts below 0
		"0 begin", "0 write", "0 abort", "1 begin", "1 write", "1 commit", "2 begin", "2 write", // 2 stays open
	} {
		var i int
		var what string
		if _, err := fmt.Sscan(s, &i, &what); err != nil {
			t.Fatal(err)
		}
		step(i, what)
	}
}

// Kafka's own files come back byte for byte from the batches in its .log files, and its tool accepts ours.
func TestKafkaFiles(t *testing.T) {
	ctx := t.Context()
	libs, err := kafka.Jars(ctx, "../..", kafkaVersion)
	if err != nil {
		t.Fatal(err)
	}
	node, err := kafka.Start(ctx, kafka.Config{Libs: libs, Dir: t.TempDir(), HeapMiB: 512})
	if err != nil {
		t.Fatal(err)
	}
	produceAll(t, node.Addr())
	if err := node.Stop(); err != nil {
		t.Fatal(err)
	}
	for _, topic := range []string{"big", "small", "txn", "quiet", "append"} {
		t.Run(topic, func(t *testing.T) {
			dir := filepath.Join(node.DataDir(), topic+"-0")
			if topic != "big" && *update {
				copyGolden(t, dir, filepath.Join("testdata", topic))
			}
			segs := rebuild(t, dir)
			if n := len(segs); (topic == "big") != (n >= 3) {
				t.Errorf("%d segments", n)
			}
			ours := t.TempDir()
			for _, f := range segs {
				writeSegment(t, ours, dir, f)
			}
			dump(t, libs, ours)
		})
	}
}

func copyGolden(t *testing.T, from, to string) {
	if err := os.RemoveAll(to); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(to, 0o755); err != nil {
		t.Fatal(err)
	}
	files, err := os.ReadDir(from)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if _, _, err := ParseFileName(f.Name()); err != nil {
			continue
		}
		b, err := os.ReadFile(filepath.Join(from, f.Name()))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(to, f.Name()), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// writeSegment writes our files of a segment, beside a copy of its .log file.
func writeSegment(t *testing.T, to, from string, f Files) {
	log, err := os.ReadFile(filepath.Join(from, FileName(f.Base, LogSuffix)))
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{
		FileName(f.Base, LogSuffix): log, FileName(f.Base, IndexSuffix): f.Index, FileName(f.Base, TimeIndexSuffix): f.TimeIndex,
		FileName(f.Base, TxnIndexSuffix): f.TxnIndex, FileName(f.Last+1, SnapshotSuffix): f.Snapshot,
	} {
		if suffix := filepath.Ext(name); len(b) == 0 && (suffix == TxnIndexSuffix || suffix == SnapshotSuffix) {
			continue
		}
		if err := os.WriteFile(filepath.Join(to, name), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// dump runs kafka-dump-log over every file in a folder, in each of its ways, and wants no complaint.
func dump(t *testing.T, libs, dir string) {
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	bySuffix := map[string][]string{}
	for _, f := range files {
		bySuffix[filepath.Ext(f.Name())] = append(bySuffix[filepath.Ext(f.Name())], filepath.Join(dir, f.Name()))
	}
	run := func(paths []string, args ...string) string {
		args = append([]string{"-cp", filepath.Join(libs, "*"), "org.apache.kafka.tools.DumpLogSegments", "--files", strings.Join(paths, ",")}, args...)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		out, err := exec.CommandContext(ctx, "java", args...).CombinedOutput()
		for _, bad := range []string{"mismatch", "Mismatch", "corrupt", "Exception", "out of order", "not found", "could not"} {
			if err != nil || strings.Contains(string(out), bad) {
				t.Errorf("kafka-dump-log %v: %v\n%s", args[3:], err, out)
				break
			}
		}
		return string(out)
	}
	indexes := slices.Concat(bySuffix[IndexSuffix], bySuffix[TimeIndexSuffix])
	if len(indexes) > 0 {
		if out := run(indexes, "--index-sanity-check"); strings.Count(out, "passed sanity check")+strings.Count(out, "is empty") != len(indexes) {
			t.Errorf("not every index passed:\n%s", out)
		}
		run(indexes, "--verify-index-only")
		run(indexes)
	}
	logs := run(bySuffix[LogSuffix], "--deep-iteration", "--print-data-log")
	t.Logf("%s: %d files, %d records dumped", dir, len(files), strings.Count(logs, "| offset:"))
	if paths := bySuffix[TxnIndexSuffix]; len(paths) > 0 {
		if out := run(paths); strings.Count(out, "producerId: ") != fileEntries(t, paths, abortedSize, 0) {
			t.Errorf("aborted transactions:\n%s", out)
		}
	}
	if paths := bySuffix[SnapshotSuffix]; len(paths) > 0 {
		if out := run(paths); strings.Count(out, "producerId: ") != fileEntries(t, paths, producerSize, snapshotHeader) {
			t.Errorf("producers:\n%s", out)
		}
	}
}

func fileEntries(t *testing.T, paths []string, size, header int) int {
	n := 0
	for _, p := range paths {
		b, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		n += (len(b) - header) / size
	}
	return n
}

// A broker whose log is made of our files starts, serves every record and finds a record by time.
func TestKafkaBrokerTakesOurFiles(t *testing.T) {
	ctx := t.Context()
	libs, err := kafka.Jars(ctx, "../..", kafkaVersion)
	if err != nil {
		t.Fatal(err)
	}
	cfg := kafka.Config{Libs: libs, Dir: t.TempDir(), HeapMiB: 512}
	node, err := kafka.Start(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	produceAll(t, node.Addr())
	if err := node.Stop(); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(node.DataDir(), "big-0")
	segs := rebuild(t, dir)
	for _, f := range segs {
		for _, name := range []string{FileName(f.Base, IndexSuffix), FileName(f.Base, TimeIndexSuffix), FileName(f.Last+1, SnapshotSuffix)} {
			if err := os.Remove(filepath.Join(dir, name)); err != nil {
				t.Fatal(err)
			}
		}
		writeSegment(t, dir, dir, f)
	}
	if err := node.Restart(ctx, cfg); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := node.Stop(); err != nil {
			t.Error(err)
		}
	}()
	cl, err := kgo.NewClient(kgo.SeedBrokers(node.Addr()), kgo.ConsumeTopics("big"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	end := segs[len(segs)-1].Last
	for next := int64(0); next <= end; {
		fs := cl.PollFetches(ctx)
		if err := fs.Err(); err != nil {
			t.Fatal(err)
		}
		fs.EachRecord(func(r *kgo.Record) {
			if r.Offset != next {
				t.Fatalf("offset %d, want %d", r.Offset, next)
			}
			next++
		})
	}
	// A lookup by time goes through the time index.
	adm := kadm.NewClient(cl)
	mid := segs[1]
	entry := int64(binary.BigEndian.Uint64(mid.TimeIndex))
	offs, err := adm.ListOffsetsAfterMilli(ctx, entry, "big")
	if err != nil {
		t.Fatal(err)
	}
	if o, _ := offs.Lookup("big", 0); o.Err != nil || o.Offset < 0 || o.Timestamp < entry {
		t.Errorf("first record at or after %d: %+v", entry, o)
	}
}
