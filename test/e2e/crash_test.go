package e2e

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tierlog/tierlog/test/miniotest"
)

// stores runs a test on a directory and on MinIO.
func stores(t *testing.T, test func(t *testing.T, store string)) {
	t.Run("dir", func(t *testing.T) { test(t, filepath.Join(t.TempDir(), "bucket")) })
	t.Run("minio", func(t *testing.T) {
		s := miniotest.Start(t)
		test(t, s.StoreURL(s.Bucket(t, "bucket"), "prefix"))
	})
}

// TestKilledUnderLoad kills the broker several times in the middle of load, and starts it again with its disk and
// without it. Nothing that was acknowledged is lost, twice or out of order, and a reader that tails goes on.
func TestKilledUnderLoad(t *testing.T) {
	stores(t, func(t *testing.T, store string) {
		b := newBroker(t, store)
		b.start()
		b.createTopic(topic, partitions)
		const producers, records, kills = 3, 6000, 5
		l := startLoad(t, b, producers, records, kgo.AllISRAcks())
		r := startReader(t, b)
		for i := range kills {
			l.reach((i + 1) * producers * records / (kills + 1))
			b.kill()
			if i%2 == 0 {
				if err := os.RemoveAll(b.dir); err != nil {
					t.Fatal(err)
				}
			}
			b.start()
			r.until(l.count())
		}
		want := l.finish()
		if len(want) != producers*records {
			t.Errorf("%d records acknowledged, want %d", len(want), producers*records)
		}
		r.until(len(want))
		r.check(t, want, true)
		b.kill()
		b.start()
		again := startReader(t, b)
		again.until(len(want))
		again.check(t, want, true)
	})
}

// TestAcksOneSurvivesTheProcess kills the broker while records are acknowledged by its local disk only.
func TestAcksOneSurvivesTheProcess(t *testing.T) {
	stores(t, func(t *testing.T, store string) {
		b := newBroker(t, store)
		b.args = []string{"--set", "flush.interval.ms=1000"} // much is acknowledged before the bucket has it
		b.start()
		b.createTopic(topic, partitions)
		const producers, records = 2, 3000
		l := startLoad(t, b, producers, records, kgo.LeaderAck())
		for i := range 3 {
			l.reach((i + 1) * producers * records / 4)
			b.kill()
			b.start()
		}
		want := l.finish()
		r := startReader(t, b)
		r.until(len(want))
		r.check(t, want, false) // a request whose answer was lost is sent again: acks=1 without idempotence has duplicates
	})
}

// TestLostDisk loses the local disk while some records are acknowledged with acks=1 and some with acks=all: none of
// the latter is missing.
func TestLostDisk(t *testing.T) {
	b := newBroker(t, filepath.Join(t.TempDir(), "bucket"))
	b.args = []string{"--set", "flush.interval.ms=50"}
	b.start()
	b.createTopic(topic, partitions)
	safe := startLoad(t, b, 2, 1500, kgo.AllISRAcks())
	unsafe := startLoad(t, b, 1, 1500, kgo.LeaderAck())
	safe.reach(1000)
	unsafe.reach(500)
	b.kill()
	if err := os.RemoveAll(b.dir); err != nil {
		t.Fatal(err)
	}
	b.start()
	want := safe.finish()
	unsafe.finish()
	r := startReader(t, b)
	for _, a := range want {
		for a.offset >= r.next[a.partition] && !t.Failed() {
			r.more()
		}
	}
	r.check(t, want, false)
}

// more reads whatever comes next.
func (r *reader) more() {
	n := 0
	for p := range partitions {
		n += len(r.values[p])
	}
	r.until(n + 1)
}

// TestStoppedUnderLoad ends the broker in order, several times, in the middle of load: exit 0 within ten seconds, and
// a client that retries loses nothing and has nothing twice.
func TestStoppedUnderLoad(t *testing.T) {
	stores(t, func(t *testing.T, store string) {
		b := newBroker(t, store)
		b.start()
		b.createTopic(topic, partitions)
		const producers, records = 3, 4000
		l := startLoad(t, b, producers, records, kgo.AllISRAcks())
		r := startReader(t, b)
		for i := range 3 {
			l.reach((i + 1) * producers * records / 4)
			if code, took := b.stop(); code != 0 || took > 10*time.Second {
				t.Errorf("SIGTERM: exit code %d after %v, want 0 within 10 s", code, took)
			}
			b.start()
		}
		want := l.finish()
		r.until(len(want))
		r.check(t, want, true)
	})
}
