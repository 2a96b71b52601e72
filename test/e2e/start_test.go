package e2e

import (
	"bytes"
	"context"
	"fmt"
	"hash/crc32"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tierlog/tierlog/test/kafka"
	"github.com/tierlog/tierlog/test/miniotest"
)

// masks replace what differs from run to run in what a broker prints.
var masks = []struct {
	pattern *regexp.Regexp
	with    string
}{
	{regexp.MustCompile(`127\.0\.0\.1:\d+`), "ADDRESS"},
	{regexp.MustCompile(`cluster  [A-Za-z0-9_-]{22}`), "cluster  CLUSTER-ID"},
	{regexp.MustCompile(`/\S*/bucket\n`), "DIR/bucket\n"},
}

const wantStart = `tierlog broker 1 serves Kafka clients at ADDRESS
  store    %s
  cluster  CLUSTER-ID
  epoch    1
  metrics  http://ADDRESS/metrics
Try: echo hello | tierlog produce --bootstrap-server ADDRESS greetings && tierlog consume --bootstrap-server ADDRESS greetings --until-end
`

// TestStartMessages says what it listens on, which store, which cluster and what to try; secrets never show.
func TestStartMessages(t *testing.T) {
	s := miniotest.Start(t)
	for store, shown := range map[string]string{
		filepath.Join(t.TempDir(), "bucket"):           "DIR/bucket",
		s.StoreURL(s.Bucket(t, "bucket"), "somewhere"): "minio+http://***@ADDRESS/bucket/somewhere",
		"mem:": "mem:",
	} {
		b := newBroker(t, store)
		b.start()
		eventually(t, "the last line", func() bool { return strings.Contains(b.stdout.String(), "Try:") })
		got := b.stdout.String()
		for _, m := range masks {
			got = m.pattern.ReplaceAllString(got, m.with)
		}
		if got != fmt.Sprintf(wantStart, shown) {
			t.Errorf("the broker on %s says\n%s\nwant\n%s", shown, got, fmt.Sprintf(wantStart, shown))
		}
		if b.get("/readyz") != 200 || b.get("/healthz") != 200 || b.get("/metrics") != 200 || b.get("/debug/pprof/cmdline") != 200 {
			t.Error("HTTP does not answer")
		}
		if store == "mem:" {
			b.says("mem")
		}
		b.stop()
		if all := b.stdout.String() + b.stderr.String(); strings.Contains(all, s.SecretKey) {
			t.Errorf("a secret shows:\n%s", all)
		}
	}
}

// TestPortInUse ends at once and names the address; the bucket is not touched.
func TestPortInUse(t *testing.T) {
	for _, which := range []string{"listen", "http"} {
		l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // closed below
		if err != nil {
			t.Fatal(err)
		}
		store := filepath.Join(t.TempDir(), "bucket")
		b := newBroker(t, store)
		if which == "listen" {
			b.addr = l.Addr().String()
		} else {
			b.http = l.Addr().String()
		}
		b.fails(which, l.Addr().String(), "address already in use")
		if _, err := os.Stat(store); !os.IsNotExist(err) {
			t.Errorf("%s: the store was touched: %v", which, err)
		}
		_ = l.Close()
	}
}

// TestStoreNotWritable names the path.
func TestStoreNotWritable(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	newBroker(t, filepath.Join(file, "bucket")).fails(file)
	newBroker(t, file).fails(file)
	b := newBroker(t, filepath.Join(t.TempDir(), "bucket"))
	b.dir = filepath.Join(file, "data")
	b.fails("data dir", file)
}

// clusterFile edits the cluster.json of a directory store, and makes its checksum true again.
func clusterFile(t *testing.T, store string, edit func([]byte) []byte) {
	t.Helper()
	path := filepath.Join(store, "cluster.json")
	body, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	body = edit(body)
	i := bytes.LastIndex(body, []byte(`,"crc32c":"`))
	if i < 0 {
		t.Fatalf("cluster.json has no checksum: %s", body)
	}
	sum := crc32.Checksum(body[:i], crc32.MakeTable(crc32.Castagnoli))
	body = fmt.Appendf(body[:i:i], `,"crc32c":"%08x"}`, sum)
	if err := os.WriteFile(path, append(body, '\n'), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestBucketOfANewerFormat is refused; one that newer versions made, but this one can read, is not.
func TestBucketOfANewerFormat(t *testing.T) {
	store := filepath.Join(t.TempDir(), "bucket")
	b := newBroker(t, store)
	b.start()
	b.stop()
	newer := func(min string) func([]byte) []byte {
		return func(body []byte) []byte {
			body = regexp.MustCompile(`"format":\d+`).ReplaceAll(body, []byte(`"format":99`))
			return regexp.MustCompile(`"minReader":\d+`).ReplaceAll(body, []byte(`"minReader":`+min))
		}
	}
	clusterFile(t, store, newer("99"))
	newBroker(t, store).fails("newer", "cluster.json")
	if err := os.WriteFile(filepath.Join(store, "cluster.json"), []byte(`{"nonce":"x`), 0o600); err != nil {
		t.Fatal(err)
	}
	newBroker(t, store).fails("cluster.json")
}

// TestLeftoversOfAnotherCluster are neither read nor touched.
func TestLeftoversOfAnotherCluster(t *testing.T) {
	store := filepath.Join(t.TempDir(), "bucket")
	b := newBroker(t, store)
	b.start()
	b.createTopic(topic, partitions)
	startLoad(t, b, 1, 100, kgo.AllISRAcks()).finish()
	b.stop()
	if err := os.Remove(filepath.Join(store, "cluster.json")); err != nil {
		t.Fatal(err)
	}
	before := files(t, store)
	b = newBroker(t, store)
	b.start()
	b.createTopic(topic, partitions) // fails if it is there
	l := startLoad(t, b, 1, 10, kgo.AllISRAcks())
	r := startReader(t, b)
	want := l.finish()
	r.until(len(want))
	r.check(t, want, true)
	b.stop()
	after := files(t, store)
	for path, content := range before {
		if after[path] != content {
			t.Errorf("%s of the other cluster was changed or removed", path)
		}
	}
}

// files returns the objects of a directory store with their contents.
func files(t *testing.T, store string) map[string]string {
	t.Helper()
	out := make(map[string]string)
	err := filepath.WalkDir(store, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() || strings.Contains(path, ".tierlog") {
			return err
		}
		b, err := os.ReadFile(path)
		out[path] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestDataDirInUse is refused before the other broker is harmed.
func TestDataDirInUse(t *testing.T) {
	first := newBroker(t, filepath.Join(t.TempDir(), "bucket"))
	first.start()
	second := newBroker(t, filepath.Join(t.TempDir(), "bucket"))
	second.dir = first.dir
	second.fails("data dir "+first.dir, "another running broker")
	same := newBroker(t, first.store)
	same.dir = first.dir
	same.fails("data dir "+first.dir, "another running broker")
	if err := first.produce(first.client(kgo.AllowAutoTopicCreation()), "t", "x"); err != nil {
		t.Errorf("the first broker was harmed: %v", err)
	}
}

// TestSameNodeID starts a second process with the node id of a running one, under load: the older one is fenced, says
// so and fails; what it acknowledged is with the newer one, and nothing that it acknowledges is not.
func TestSameNodeID(t *testing.T) {
	stores(t, func(t *testing.T, store string) {
		old, next := newBroker(t, store), newBroker(t, store)
		old.seeds = []string{next.addr}
		old.start()
		old.createTopic(topic, partitions)
		l := startLoad(t, old, 2, 4000, kgo.AllISRAcks())
		l.reach(1000)
		next.start()
		if code := old.wait(); code != 1 {
			t.Errorf("the older process ended with %d, want 1", code)
		}
		if !strings.Contains(old.stderr.String(), "fenced") {
			t.Errorf("the older process does not say that it was fenced:\n%s", old.stderr.String())
		}
		want := l.finish()
		r := startReader(t, next)
		r.until(len(want))
		r.check(t, want, true)
	})
}

// TestAnotherNodeID is refused while a broker is alive, and welcome once it has left or died.
func TestAnotherNodeID(t *testing.T) {
	first := newBroker(t, filepath.Join(t.TempDir(), "bucket"))
	first.start()
	second := newBroker(t, first.store)
	second.node = 2
	second.fails("broker 1 at "+first.addr, "serves this bucket", "node id 1")
	if err := first.produce(first.client(kgo.AllowAutoTopicCreation()), topic, "x"); err != nil {
		t.Errorf("the first broker was harmed: %v", err)
	}
	first.kill()
	second.start() // after the lease of 3 s
	if n := second.readAll(1); n[0] != "x" {
		t.Errorf("the second broker has %q", n)
	}
	second.stop()
	third := newBroker(t, first.store)
	third.node = 3
	begin := time.Now()
	third.start()
	if took := time.Since(begin); took > 3*time.Second {
		t.Errorf("%v to start after an orderly stop: the lease need not run out", took)
	}
}

// readAll reads n records of partition 0 of the topic.
func (b *broker) readAll(n int) []string {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), patience)
	defer cancel()
	cl := b.client(kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {0: kgo.NewOffset().AtStart()}}))
	var out []string
	for len(out) < n {
		fs := cl.PollFetches(ctx)
		if ctx.Err() != nil {
			b.t.Fatalf("read %d records of %d", len(out), n)
		}
		fs.EachRecord(func(r *kgo.Record) { out = append(out, string(r.Value)) })
	}
	return out
}

// TestBucketMissingOrForbidden ends with what is wrong and without the secret.
func TestBucketMissingOrForbidden(t *testing.T) {
	s := miniotest.Start(t)
	b := newBroker(t, s.StoreURL("missing", ""))
	b.fails("missing", "bucket")
	u, err := url.Parse(s.StoreURL(s.Bucket(t, "bucket"), ""))
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.UserPassword(s.AccessKey, "not-the-secret-of-it")
	wrong := newBroker(t, u.String())
	wrong.fails("denied")
	u.User = url.UserPassword("nobody", "not-the-secret-of-it")
	unknown := newBroker(t, u.String())
	unknown.fails("denied")
	for _, b := range []*broker{b, wrong, unknown} {
		if out := b.stdout.String() + b.stderr.String(); strings.Contains(out, "not-the-secret-of-it") || strings.Contains(out, s.SecretKey) {
			t.Errorf("a secret shows:\n%s", out)
		}
	}
}

// TestBucketUnreachableAtStart: the broker is up and not ready, and becomes ready when the bucket comes.
func TestBucketUnreachableAtStart(t *testing.T) {
	s := miniotest.Start(t)
	store := s.StoreURL(s.Bucket(t, "bucket"), "")
	s.Stop()
	b := newBroker(t, store)
	b.spawn()
	b.says("cannot be reached")
	if b.get("/healthz") != 200 || b.get("/readyz") != 503 {
		t.Errorf("healthz %d, readyz %d; want 200 and 503", b.get("/healthz"), b.get("/readyz"))
	}
	if err := s.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "ready", func() bool { return b.get("/readyz") == 200 })
	if err := kafka.WaitReady(t.Context(), b.addr, b.exited); err != nil {
		t.Fatal(err)
	}
	if err := b.produce(b.client(kgo.AllowAutoTopicCreation()), "t", "x"); err != nil {
		t.Error(err)
	}
	s.Stop()
	never := newBroker(t, store)
	never.spawn()
	never.says("cannot be reached")
	if code, took := never.stop(); code != 0 || took > 10*time.Second {
		t.Errorf("SIGTERM while waiting for the bucket: exit code %d after %v", code, took)
	}
}
