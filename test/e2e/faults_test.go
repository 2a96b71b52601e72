package e2e

import (
	"bytes"
	"context"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tierlog/tierlog/test/miniotest"
)

// TestBucketGoesAway under load and comes back: the broker is not ready meanwhile, and nothing is lost or doubled.
func TestBucketGoesAway(t *testing.T) {
	s := miniotest.Start(t)
	b := newBroker(t, s.StoreURL(s.Bucket(t, "bucket"), ""))
	b.start()
	b.createTopic(topic, partitions)
	l := startLoad(t, b, 3, 3000, kgo.AllISRAcks())
	r := startReader(t, b)
	l.reach(3000)
	away := time.Now()
	s.Kill()
	eventually(t, "not ready", func() bool { return b.get("/readyz") == 503 })
	eventually(t, "ten seconds without a bucket", func() bool { return time.Since(away) > 10*time.Second })
	if b.get("/readyz") != 503 || b.get("/healthz") != 200 {
		t.Errorf("without a bucket: readyz %d, healthz %d; want 503 and 200", b.get("/readyz"), b.get("/healthz"))
	}
	if err := s.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "ready again", func() bool { return b.get("/readyz") == 200 })
	want := l.finish()
	r.until(len(want))
	r.check(t, want, true)
	if code, _ := b.stop(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// TestSlowAndFlakyBucket answers late, or not at all, or loses its answers: it costs time and nothing else.
func TestSlowAndFlakyBucket(t *testing.T) {
	s := miniotest.Start(t)
	proxy, stop, err := miniotest.StartProxy(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	var n atomic.Int64
	proxy.SetFault(func(r *http.Request) miniotest.Fault {
		f := miniotest.Fault{Delay: 30 * time.Millisecond}
		switch i := n.Add(1); {
		case i < 60: // the start
		case i%11 == 0 && r.Method == http.MethodPut:
			f.DropReply = true
		case i%13 == 0:
			f.Reset = true
		case i%17 == 0:
			f.Status, f.Code = http.StatusServiceUnavailable, "SlowDown"
		}
		return f
	})
	b := newBroker(t, proxy.StoreURL(s.Bucket(t, "bucket"), ""))
	b.args = []string{"--set", "broker.session.timeout.ms=30000", "--set", "flush.puts.per.second=1000"}
	b.start()
	b.createTopic(topic, partitions)
	l := startLoad(t, b, 3, 2000, kgo.AllISRAcks())
	r := startReader(t, b)
	l.reach(3000)
	b.kill()
	b.start()
	want := l.finish()
	r.until(len(want))
	r.check(t, want, true)
}

// fetchCode reads partition 0 of a topic from the start and returns the error code and the bytes.
func (b *broker) fetchCode(cl *kgo.Client, name string) (int16, []byte) {
	b.t.Helper()
	req := kmsg.NewPtrFetchRequest()
	req.Version, req.MaxBytes, req.MinBytes, req.SessionEpoch = 12, 1<<20, 1, -1
	rt := kmsg.NewFetchRequestTopic()
	rt.Topic, rt.TopicID = name, b.topicID(cl, name)
	rp := kmsg.NewFetchRequestTopicPartition()
	rp.PartitionMaxBytes, rp.CurrentLeaderEpoch, rp.LastFetchedEpoch = 1<<20, -1, -1
	rt.Partitions = append(rt.Partitions, rp)
	req.Topics = append(req.Topics, rt)
	resp, err := req.RequestWith(b.t.Context(), cl)
	if err != nil {
		b.t.Fatal(err)
	}
	p := resp.Topics[0].Partitions[0]
	return p.ErrorCode, p.RecordBatches
}

func (b *broker) topicID(cl *kgo.Client, name string) [16]byte {
	b.t.Helper()
	req := kmsg.NewPtrMetadataRequest()
	req.Topics = []kmsg.MetadataRequestTopic{{Topic: &name}}
	resp, err := req.RequestWith(b.t.Context(), cl)
	if err != nil {
		b.t.Fatal(err)
	}
	return resp.Topics[0].TopicID
}

// TestDamagedObject cuts or flips an object of a directory store: its partition answers KAFKA_STORAGE_ERROR, the
// others and new records go on.
func TestDamagedObject(t *testing.T) {
	for name, damage := range map[string]func([]byte, int) []byte{
		"flipped in the records": func(b []byte, at int) []byte { b[at] ^= 0x40; return b },
		"cut in the records":     func(b []byte, at int) []byte { return b[:at] },
		"empty":                  func([]byte, int) []byte { return nil },
		"flipped in the footer":  func(b []byte, _ int) []byte { b[len(b)-30] ^= 0x40; return b },
		"gone":                   func([]byte, int) []byte { return []byte("gone") },
	} {
		t.Run(name, func(t *testing.T) {
			b := newBroker(t, filepath.Join(t.TempDir(), "bucket"))
			b.start()
			for _, topic := range []string{"bad", "good"} { // one object each
				b.createTopic(topic, 1)
				if err := b.produce(b.client(), topic, strings.Repeat(topic+"-record ", 20)); err != nil {
					t.Fatal(err)
				}
			}
			if code, _ := b.stop(); code != 0 {
				t.Fatalf("exit code %d", code)
			}
			done := 0
			for path, content := range files(t, b.store) {
				at := strings.Index(content, "bad-record")
				if at < 0 {
					continue
				}
				done++
				if name == "gone" {
					if err := os.Remove(path); err != nil {
						t.Fatal(err)
					}
				} else if err := os.WriteFile(path, damage([]byte(content), at), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if done != 1 {
				t.Fatalf("%d objects hold the records, want one", done)
			}
			b.start()
			cl := b.client()
			code, got := b.fetchCode(cl, "bad")
			if code != kerr.KafkaStorageError.Code || len(got) > 0 {
				t.Errorf("the damaged partition answers %v with %d bytes, want KAFKA_STORAGE_ERROR", kerr.ErrorForCode(code), len(got))
			}
			if code, got := b.fetchCode(cl, "good"); code != 0 || !bytes.Contains(got, []byte("good-record")) {
				t.Errorf("the other partition answers %v with %d bytes", kerr.ErrorForCode(code), len(got))
			}
			for _, topic := range []string{"bad", "good"} {
				if err := b.produce(cl, topic, "new"); err != nil {
					t.Errorf("produce to %s: %v", topic, err)
				}
			}
			if code, _ := b.stop(); code != 0 {
				t.Errorf("exit code %d", code)
			}
		})
	}
}

// TestStrangers speak HTTP on the Kafka port of the real binary, side by side with load.
func TestStrangers(t *testing.T) {
	b := newBroker(t, "mem:")
	b.start()
	b.createTopic(topic, partitions)
	l := startLoad(t, b, 1, 2000, kgo.AllISRAcks())
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 20 {
				ctx, cancel := context.WithTimeout(t.Context(), patience)
				req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+b.addr+"/", strings.NewReader("hello"))
				if err != nil {
					t.Error(err)
				} else if resp, err := http.DefaultClient.Do(req); err == nil {
					_ = resp.Body.Close()
					t.Error("the Kafka port answered HTTP")
				}
				cancel()
			}
		})
	}
	want := l.finish()
	wg.Wait()
	r := startReader(t, b)
	r.until(len(want))
	r.check(t, want, true)
}
