package tiered

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"time"

	"github.com/tierlog/tierlog/objstore"
	"github.com/tierlog/tierlog/objstore/mem"
	"github.com/tierlog/tierlog/record"
	"github.com/tierlog/tierlog/tiered/logid"
	"github.com/tierlog/tierlog/tiered/manifest"
	"github.com/tierlog/tierlog/tiered/rollup"
)

// everything reads a partition's bytes from its log start on.
func everything(t *testing.T, p *Partition) []byte {
	t.Helper()
	var all []byte
	for from := p.Offsets().LogStart; ; {
		var out Slices
		if _, err := p.Read(t.Context(), ReadRequest{Offset: from, MaxBytes: 100_000, OneMore: true}, &out); err != nil {
			t.Fatalf("read at %d: %v", from, err)
		}
		if out.Size == 0 {
			return all
		}
		at := len(all)
		for _, part := range out.Parts {
			all = append(all, part...)
		}
		out.Release()
		for at < len(all) {
			b, _, err := record.Next(all[at:])
			if err != nil {
				t.Fatal(err)
			}
			from, at = b.LastOffset()+1, at+len(b)
		}
	}
}

// keysOf counts the keys of a kind.
func keysOf(t *testing.T, s *mem.Store, kind manifest.KeyKind) (keys []string) {
	t.Helper()
	for _, k := range s.Keys() {
		if parsed, err := manifest.ParseKey(k); err == nil && parsed.Kind == kind {
			keys = append(keys, k)
		}
	}
	return keys
}

// maintained returns a config whose rounds cut and merge at small sizes.
func maintained(s objstore.Store, epoch logid.Epoch) Config {
	cfg := testConfig(s, epoch)
	cfg.TailBytes = 1 // read what rollup wrote, not memory
	cfg.Maintenance.Merges = rollup.MergeConfig{Target: 256 << 10, MinInputs: 4, Age: time.Nanosecond, Adopt: 1 << 30}
	cfg.Maintenance.Segments = rollup.SegmentConfig{Min: 64 << 10, Age: 240 * time.Hour}
	cfg.Maintenance.Grace = time.Nanosecond
	return cfg
}

func round(t *testing.T, l *Log) {
	t.Helper()
	if err := l.waitIndexed(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := l.maint.do(t.Context(), l.maint.round); err != nil {
		t.Fatal(err)
	}
}

func TestRollupKeepsEveryByte(t *testing.T) {
	store := mem.New()
	var want [3][]byte
	var previous []logid.Epoch
	for epoch := logid.Epoch(1); epoch <= 4; epoch++ {
		l := mustOpen(t, maintained(store, epoch), previous...)
		var parts [3]*Partition
		for i := range parts {
			parts[i] = l.OpenPartition(logid.Partition{Topic: logid.TopicID{1}, Index: int32(i)}, "topic", int32(epoch),
				Settings{MaxMessageBytes: 1 << 20, RetentionMs: -1, RetentionBytes: -1, SegmentBytes: 300 << 10})
		}
		l.Opened()
		for i := range 60 {
			for j, p := range parts {
				if j == 2 && i%10 != 0 {
					continue // a quiet partition
				}
				mustPut(t, p, AcksAll, 3, 9000)
			}
			if i%20 == 19 {
				round(t, l)
			}
		}
		for i, p := range parts {
			got := everything(t, p)
			if !bytes.HasPrefix(got, want[i]) {
				t.Fatalf("epoch %d: partition %d changed what it held before", epoch, i)
			}
			want[i] = got
		}
		round(t, l)
		round(t, l)
		for i, p := range parts {
			if got := everything(t, p); !bytes.Equal(got, want[i]) {
				t.Fatalf("epoch %d: partition %d has %d bytes after a round, %d before", epoch, i, len(got), len(want[i]))
			}
		}
		kill(l)
		previous = append(previous, epoch)
	}
	if n := len(keysOf(t, store, manifest.KeySegmentFile)); n < 6 {
		t.Fatalf("%d files of log segments: the partitions were not rolled up", n)
	}
	if n := len(keysOf(t, store, manifest.KeyMerged)); n == 0 {
		t.Fatal("nothing was merged")
	}
}

func TestRetentionMovesTheLogStartFirst(t *testing.T) {
	store := mem.New()
	cfg := maintained(store, 1)
	l := mustOpen(t, cfg)
	p := l.OpenPartition(logid.Partition{Topic: logid.TopicID{1}}, "topic1", 1,
		Settings{MaxMessageBytes: 1 << 20, RetentionMs: -1, RetentionBytes: 200 << 10, SegmentBytes: 100 << 10})
	l.Opened()
	for range 100 {
		mustPut(t, p, AcksAll, 2, 9000)
	}
	round(t, l)
	before := everything(t, p)
	err := l.maint.do(t.Context(), l.maint.retain)
	if err != nil {
		t.Fatal(err)
	}
	o := p.Offsets()
	if o.LogStart == 0 || o.HighWatermark != 200 {
		t.Fatalf("offsets after retention: %+v", o)
	}
	after := everything(t, p)
	if !bytes.HasSuffix(before, after) || len(after) < 200<<10 {
		t.Fatalf("%d bytes of %d are left, or other bytes", len(after), len(before))
	}
	kill(l)
	l2 := mustOpen(t, maintained(store, 2), 1)
	p2 := openPart(l2, 0)
	if o2 := p2.Offsets(); o2.LogStart != o.LogStart {
		t.Fatalf("log start %d after a restart, was %d", o2.LogStart, o.LogStart)
	}
	l2.Opened()
	if got := everything(t, p2); !bytes.Equal(got, after) {
		t.Fatal("other bytes after a restart")
	}
}

func TestDeletedTopicLeavesNothingBehind(t *testing.T) {
	store := mem.New()
	l := mustOpen(t, maintained(store, 1))
	p := l.OpenPartition(logid.Partition{Topic: logid.TopicID{1}}, "topic1", 1,
		Settings{MaxMessageBytes: 1 << 20, RetentionMs: -1, RetentionBytes: -1, SegmentBytes: 100 << 10})
	l.Opened()
	for range 50 {
		mustPut(t, p, AcksAll, 2, 9000)
	}
	round(t, l)
	if len(keysOf(t, store, manifest.KeySegmentFile)) == 0 {
		t.Fatal("no log segment was written")
	}
	l.ClosePartition(p.id)
	for range 3 {
		round(t, l)
	}
	for _, k := range store.Keys() {
		if strings.Contains(k, "/topics/") || strings.Contains(k, "/merged/") {
			t.Errorf("%s is left behind", k)
		}
	}
	if n := len(keysOf(t, store, manifest.KeyWAL)); n != 0 {
		t.Errorf("%d WAL objects without a live record are left", n)
	}
}

func TestOutputsOfADeadJobAreCollected(t *testing.T) {
	store := mem.New()
	dead := testConfig(&noManifests{Store: store}, 1)
	dead.Maintenance = maintained(store, 1).Maintenance
	l := mustOpen(t, dead)
	p := l.OpenPartition(logid.Partition{Topic: logid.TopicID{1}}, "topic1", 1,
		Settings{MaxMessageBytes: 1 << 20, RetentionMs: -1, RetentionBytes: -1, SegmentBytes: 100 << 10})
	l.Opened()
	for range 50 {
		mustPut(t, p, AcksAll, 2, 9000)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := l.maint.do(ctx, l.maint.round); err == nil {
		t.Fatal("the round went through although no manifest could be written")
	}
	want := everything(t, p)
	kill(l)
	orphans := len(keysOf(t, store, manifest.KeySegmentFile))
	if orphans == 0 || len(keysOf(t, store, manifest.KeyJob)) == 0 {
		t.Fatalf("%d orphans, %d job records: the crash left nothing to collect", orphans, len(keysOf(t, store, manifest.KeyJob)))
	}
	cfg := maintained(store, 2)
	cfg.Maintenance.Segments.Min = 1 << 30 // no new ones
	cfg.Now = func() time.Time { return time.Now().Add(2 * time.Hour) }
	l2 := mustOpen(t, cfg, 1)
	p2 := openPart(l2, 0)
	l2.Opened()
	for range 2 {
		if err := l2.maint.do(t.Context(), l2.maint.start); err != nil {
			t.Fatal(err)
		}
		round(t, l2)
	}
	if n := len(keysOf(t, store, manifest.KeySegmentFile)); n != 0 {
		t.Errorf("%d files of log segments that no manifest names are left", n)
	}
	if n := len(keysOf(t, store, manifest.KeyJob)); n != 0 {
		t.Errorf("%d job records are left", n)
	}
	if got := everything(t, p2); !bytes.Equal(got, want) {
		t.Error("collecting changed what is read")
	}
}

// noManifests is a bucket that takes everything but manifests.
type noManifests struct{ objstore.Store }

func (s *noManifests) Create(ctx context.Context, key string, body objstore.Payload) (objstore.Version, error) {
	if strings.HasSuffix(key, "manifest.json") {
		return "", &objstore.Error{Op: "create", Key: key, Kind: objstore.ErrDenied}
	}
	return s.Store.Create(ctx, key, body)
}

// TestTakeoverFromAProcessThatIsStillAtWork starts a log while the older one lists objects under its feet.
func TestTakeoverFromAProcessThatIsStillAtWork(t *testing.T) {
	store := mem.New()
	old := mustOpen(t, maintained(store, 1))
	p := openPart(old, 0)
	old.Opened()
	for range 20 {
		mustPut(t, p, AcksAll, 2, 9000)
	}
	want := everything(t, p)
	meddled := false
	s := &meddling{Store: store, before: func(key string) {
		if !meddled && strings.HasSuffix(key, "/manifest.json") {
			meddled = true
			round(t, old) // wins the manifest of epoch 1 just before the new log writes it
		}
	}}
	l := mustOpen(t, maintained(s, 2), 1)
	if !meddled {
		t.Fatal("the new log wrote no manifest")
	}
	p2 := openPart(l, 0)
	l.Opened()
	if got := everything(t, p2); !bytes.Equal(got, want) {
		t.Fatalf("%d bytes after the takeover, %d were acknowledged", len(got), len(want))
	}
}

// meddling calls before ahead of every write.
type meddling struct {
	objstore.Store
	before func(key string)
}

func (s *meddling) Create(ctx context.Context, key string, body objstore.Payload) (objstore.Version, error) {
	s.before(key)
	return s.Store.Create(ctx, key, body)
}

// TestOrderlyStopLeavesNoOrphans deletes a partition with log segments, stops at once, and looks for what is left.
func TestOrderlyStopLeavesNoOrphans(t *testing.T) {
	store := mem.New()
	cfg := maintained(store, 1)
	l := mustOpen(t, cfg)
	p := l.OpenPartition(logid.Partition{Topic: logid.TopicID{1}}, "topic1", 1,
		Settings{MaxMessageBytes: 1 << 20, RetentionMs: -1, RetentionBytes: -1, SegmentBytes: 100 << 10})
	q := openPart(l, 1)
	l.Opened()
	for range 50 {
		mustPut(t, p, AcksAll, 2, 9000)
	}
	mustPut(t, q, AcksAll, 1, 100)
	round(t, l)
	l.ClosePartition(p.id)
	mustPut(t, q, AcksAll, 1, 100)
	if err := l.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	journalled := make(map[string]bool)
	for _, k := range keysOf(t, store, manifest.KeyDeletion) {
		body, _, err := objstore.ReadAll(t.Context(), store, k, manifest.MaxBody)
		if err != nil {
			t.Fatal(err)
		}
		parsed, _ := manifest.ParseKey(k)
		d, err := manifest.DecodeDeletion(body, testCluster, parsed.ULID)
		if err != nil {
			t.Fatal(err)
		}
		for _, key := range d.Keys {
			journalled[key] = true
		}
	}
	live := 0
	for _, kind := range []manifest.KeyKind{manifest.KeyCheckpoint, manifest.KeySegmentFile, manifest.KeyPartitionManifest} {
		for _, k := range keysOf(t, store, kind) {
			if !journalled[k] {
				live++
			}
		}
	}
	if live != 1 { // the last checkpoint
		t.Errorf("%d checkpoints and files of the deleted topic are in no journal, want only the last checkpoint", live)
	}
}
