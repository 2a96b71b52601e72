package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"hash/crc32"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kfake"
)

func TestParseStat(t *testing.T) {
	got, err := parseStat([]byte("12 (a) b) c) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0 20 0"))
	if err != nil || got != 2 {
		t.Errorf("got %v, %v, want 2 s", got, err)
	}
	for _, bad := range []string{"", "12 S 1 2", "12 (x) S 1 2", "12 (x) S 1 2 3 4 5 6 7 8 9 10 x 50"} {
		if v, err := parseStat([]byte(bad)); err == nil {
			t.Errorf("%q gives %v", bad, v)
		}
	}
}

func TestProcessFigures(t *testing.T) {
	if _, err := cpuSeconds(os.Getpid()); err != nil {
		t.Error(err)
	}
	now, err1 := memoryMiB(os.Getpid(), "VmRSS")
	most, err2 := memoryMiB(os.Getpid(), "VmHWM")
	if err1 != nil || err2 != nil || now < 1 || most < now {
		t.Errorf("resident %v MiB (%v), at most %v MiB (%v)", now, err1, most, err2)
	}
}

func TestMedianRatioAndGoals(t *testing.T) {
	r := newResults()
	for _, v := range []float64{300, 100, 200} {
		r.add("produce-1.rate", sysKafka, v)
	}
	r.add("produce-1.rate", sysFsync, 150)
	r.add("produce-1.rate", sysFsync, 250)
	r.add("produce-1.rate", sysNoFsync, 220)
	if m, _ := r.median("produce-1.rate", sysKafka); m != 200 {
		t.Errorf("median of three is %v", m)
	}
	if m, _ := r.median("produce-1.rate", sysFsync); m != 200 {
		t.Errorf("median of two is %v", m)
	}
	md := r.markdown(systemNames)
	for _, want := range []string{
		"| what | unit | kafka | tierlog | x Kafka | tierlog-nofsync | x Kafka | target |",
		"| MiB/s | 200 | 200 | 1.00 | 220 | 1.10 | tierlog >= 1 x: met; tierlog-nofsync >= 1.15 x: **missed** |",
	} {
		if !strings.Contains(md, want) {
			t.Errorf("no %q in\n%s", want, md)
		}
	}
	dir := filepath.Join(t.TempDir(), "out")
	if err := r.write(dir, md); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(dir, "compare.json"))
	if err != nil || !bytes.Contains(text, []byte(`"produce-1.rate"`)) {
		t.Errorf("compare.json: %v: %s", err, text)
	}
}

func TestUnknownMetricPanics(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("a misspelt key was taken")
		}
	}()
	newResults().add("produce-1.speed", sysKafka, 1)
}

func TestOptions(t *testing.T) {
	for _, args := range [][]string{{"-systems", "zookeeper"}, {"-rounds", "0"}, {"-run", "("}, {"-no-such-flag"}} {
		if o, err := parse(args, &bytes.Buffer{}); err == nil {
			t.Errorf("%q gives %+v", args, o)
		}
	}
	o, err := parse([]string{"-smoke", "-systems", "kafka"}, &bytes.Buffer{})
	if err != nil || o.rounds != 1 || o.warm || o.sizes != smokeSizes {
		t.Errorf("smoke: %+v, %v", o, err)
	}
}

func TestRecordBatchIsValid(t *testing.T) {
	raw := recordBatch(7, 100)
	if got := binary.BigEndian.Uint32(raw[8:]); int(got) != len(raw)-12 {
		t.Errorf("length %d of %d bytes", got, len(raw))
	}
	if got := crc32.Checksum(raw[21:], castagnoli); got != binary.BigEndian.Uint32(raw[17:]) {
		t.Error("wrong checksum")
	}
}

// raw client against a broker that nobody here wrote: what the raw client sends, an ordinary client reads.
func TestRawClient(t *testing.T) {
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(partitions, "raw"))
	if err != nil {
		t.Fatal(err)
	}
	defer cluster.Close()
	br := fakeBroker{addr: cluster.ListenAddrs()[0]}
	size, records, err := fill(t.Context(), br, "raw", 100, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	if want := int64(1 << 20); math.Abs(float64(size-want)) > float64(want)/2 {
		t.Errorf("wrote %d bytes, want about %d", size, want)
	}
	if err := checkCount(t.Context(), br, "raw", records); err != nil {
		t.Error(err)
	}
	if err := checkCount(t.Context(), br, "raw", records+1); err == nil {
		t.Error("a lost record goes unnoticed")
	}
	if err := readDecoded(t.Context(), br, "raw"); err != nil {
		t.Error(err)
	}
	if err := readCounted(t.Context(), br, "raw"); err != nil {
		t.Error(err)
	}
	conn, err := dialRaw(t.Context(), br.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.close()
	ends, err := endOffsets(t.Context(), br, "raw")
	if err != nil {
		t.Fatal(err)
	}
	read, err := conn.readAll("raw", ends)
	if batch := int64(len(recordBatch(rawBatch/100, 100))); err != nil || read != records/(rawBatch/100)*batch {
		t.Errorf("read %d bytes of %d batches of %d: %v", read, records/(rawBatch/100), batch, err)
	}
}

func TestProduceCountsEveryRecord(t *testing.T) {
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(partitions, "t"))
	if err != nil {
		t.Fatal(err)
	}
	defer cluster.Close()
	br := fakeBroker{addr: cluster.ListenAddrs()[0]}
	if err := produce(t.Context(), br, "t", 5000, 100); err != nil {
		t.Fatal(err)
	}
	if err := checkCount(t.Context(), br, "t", 5000); err != nil {
		t.Error(err)
	}
	if err := produce(t.Context(), br, "absent", 1, 100); err == nil {
		t.Error("a record for no topic was acknowledged")
	}
}

// fakeBroker is a broker without a process.
type fakeBroker struct{ addr string }

func (f fakeBroker) Addr() string              { return f.addr }
func (fakeBroker) PID() int                    { return os.Getpid() }
func (fakeBroker) Stop() error                 { return nil }
func (fakeBroker) Kill() error                 { return nil }
func (fakeBroker) again(context.Context) error { return nil }
