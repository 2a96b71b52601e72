package history_test

import (
	"bytes"
	"context"
	"fmt"
	"hash/crc32"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tierlog/tierlog/objstore"
	"github.com/tierlog/tierlog/objstore/mem"
	"github.com/tierlog/tierlog/record"
	"github.com/tierlog/tierlog/tiered"
	"github.com/tierlog/tierlog/tiered/history"
	"github.com/tierlog/tierlog/tiered/logid"
	"github.com/tierlog/tierlog/tiered/manifest"
	"github.com/tierlog/tierlog/tiered/rollup"
)

// verify returns what Verify finds in a store.
func verify(t *testing.T, s objstore.Store, b *bucket, fast bool) (problems, notes []history.Finding, seen *history.Verified) {
	t.Helper()
	cfg := b.config()
	cfg.Store = s
	seen = &history.Verified{}
	err := history.Verify(t.Context(), cfg, history.VerifyOptions{
		Fast:    fast,
		Problem: func(f history.Finding) { problems = append(problems, f) },
		Note:    func(f history.Finding) { notes = append(notes, f) },
	}, seen)
	if err != nil {
		t.Fatal(err)
	}
	return problems, notes, seen
}

// clone copies a store, so that each damage starts from a sound one.
func clone(t *testing.T, s *mem.Store) *mem.Store {
	t.Helper()
	out := mem.New()
	for _, key := range s.Keys() {
		body, _, err := objstore.ReadAll(t.Context(), s, key, 1<<30)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := out.Create(t.Context(), key, objstore.Bytes(bytes.Clone(body))); err != nil {
			t.Fatal(err)
		}
	}
	return out
}

func TestVerifyOfASoundBucket(t *testing.T) {
	b := rolled(t)
	problems, notes, seen := verify(t, b.store, b, false)
	if len(problems) > 0 {
		t.Fatalf("problems of a sound bucket: %v", problems)
	}
	total := 0
	for _, v := range b.want {
		total += len(v)
	}
	if n := seen.Records.Load(); n < int64(total) { // records may be in dead sections too
		t.Fatalf("%d records seen, %d were written", n, total)
	}
	for _, n := range notes {
		if strings.Contains(n.What, "no records at") {
			t.Fatalf("a gap: %v", n)
		}
	}
	problems, _, seen = verify(t, b.store, b, true)
	if len(problems) > 0 || seen.Batches.Load() > 0 || seen.Objects.Load() == 0 {
		t.Fatalf("fast: %v, %d batches, %d objects", problems, seen.Batches.Load(), seen.Objects.Load())
	}
}

// Every bit of every live object counts, and its loss, its truncation and its change are named.
func TestVerifyNamesEveryDamage(t *testing.T) {
	b := rolled(t)
	b.stop()
	_, notes, _ := verify(t, b.store, b, false)
	queued, kinds := journalled(t, b), map[history.Kind]int{}
	for _, key := range b.store.Keys() {
		if queued[key] || slices.ContainsFunc(notes, func(n history.Finding) bool { return n.Subject == key }) {
			continue // garbage
		}
		k, err := manifest.ParseKey(key)
		if err != nil {
			t.Fatal(err)
		}
		if kinds[kindOf(k)]++; kinds[kindOf(k)] > 6 {
			continue
		}
		for _, d := range damages(t, b.store, key, k) {
			sound, _, err := objstore.ReadAll(t.Context(), b.store, key, 1<<30)
			b.check(err)
			sound = bytes.Clone(sound)
			d.do(b.store)
			problems, notes, _ := verify(t, b.store, b, d.fast)
			if !b.store.Tamper(key, func([]byte) []byte { return sound }) {
				_, err := b.store.Create(t.Context(), key, objstore.Bytes(sound))
				b.check(err)
			}
			if d.noted {
				problems = append(problems, notes...)
			}
			if !slices.ContainsFunc(problems, func(p history.Finding) bool { return strings.Contains(p.String(), key) }) {
				t.Errorf("%s of %s: problems %v", d.name, key, problems)
			}
		}
	}
	for _, kind := range []history.Kind{history.KindMetadata, history.KindManifest, history.KindCheckpoint, history.KindWAL, history.KindMerged, history.KindSegment, history.KindIndex} {
		if kinds[kind] == 0 {
			t.Errorf("the bucket has no live object of kind %s", kind)
		}
	}
}

// journalled returns the keys in the deletion journal.
func journalled(t *testing.T, b *bucket) map[string]bool {
	t.Helper()
	queued := make(map[string]bool)
	for _, key := range b.store.Keys() {
		k, err := manifest.ParseKey(key)
		if err != nil || k.Kind != manifest.KeyDeletion {
			continue
		}
		body, _, err := objstore.ReadAll(t.Context(), b.store, key, 1<<20)
		b.check(err)
		d, err := manifest.DecodeDeletion(body, b.meta.ClusterID(), k.ULID)
		b.check(err)
		for _, key := range d.Keys {
			queued[key] = true
		}
	}
	return queued
}

func kindOf(k manifest.Key) history.Kind {
	switch k.Kind {
	case manifest.KeyMeta:
		return history.KindMetadata
	case manifest.KeyWALManifest, manifest.KeyPartitionManifest:
		return history.KindManifest
	case manifest.KeyCheckpoint:
		return history.KindCheckpoint
	case manifest.KeyWAL:
		return history.KindWAL
	case manifest.KeyMerged:
		return history.KindMerged
	case manifest.KeySegmentFile:
		if k.File == manifest.FileLog {
			return history.KindSegment
		}
		return history.KindIndex
	default:
		return history.KindForeign
	}
}

// lastEpoch is that of the bucket that rolled makes.
const lastEpoch = 5

type damage struct {
	name  string
	fast  bool
	do    func(*mem.Store)
	noted bool // it may also be how a crash leaves the bucket
}

// damages lists what is done to an object. What a broker deletes by itself, and the last slot of the metadata log, may be missing.
func damages(t *testing.T, s *mem.Store, key string, k manifest.Key) []damage {
	info, err := s.Head(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	flip := func(at int64) damage {
		return damage{fmt.Sprintf("a bit flipped in byte %d of %d", at, info.Size), false, func(s *mem.Store) {
			s.Tamper(key, func(b []byte) []byte { b[at] ^= 1 << (at % 8); return b })
		}, false}
	}
	end := info.Size - 1
	if k.Kind == manifest.KeyWAL && info.Size == 72 {
		end = 63 // what follows the fence's header says who wrote it, has no checksum and decides nothing
	}
	out := []damage{
		flip(info.Size / 7), flip(info.Size * 6 / 7),
		flip(0), flip(info.Size / 3), flip(end),
		{"truncation", true, func(s *mem.Store) { s.Tamper(key, func(b []byte) []byte { return b[:len(b)/2] }) }, false},
	}
	next := k
	next.Slot++
	_, last := s.Head(t.Context(), next.String())
	switch k.Kind {
	case manifest.KeyLease, manifest.KeyMetaSnapshot, manifest.KeyJob, manifest.KeyDeletion, manifest.KeyCluster:
		return out
	case manifest.KeyMeta:
		if last != nil {
			return out
		}
	default:
	}
	return append(out, damage{"loss", true, func(s *mem.Store) {
		if err := s.Delete(t.Context(), []string{key}); err != nil {
			t.Fatal(err)
		}
	}, k.Kind == manifest.KeyWALManifest && k.Epoch == lastEpoch})
}

func TestVerifyNamesANewerFormat(t *testing.T) {
	b := rolled(t)
	b.stop()
	tests := map[manifest.KeyKind]func([]byte) []byte{
		manifest.KeyWALManifest: reformat, manifest.KeyPartitionManifest: reformat, manifest.KeyMeta: reformat,
		manifest.KeyWAL: func(body []byte) []byte { // the version in the header that the footer repeats
			for _, at := range []int{0, bytes.LastIndex(body, []byte("TIERWAL\x00"))} {
				body[at+9] = 9
				putCRC(body[at+60:], body[at:at+60])
			}
			if len(body) == 72 {
				return body
			}
			footer := body[bytes.LastIndex(body, []byte("TIERWAL\x00")) : len(body)-32]
			putCRC(body[len(body)-32+12:], footer)
			return body
		},
	}
	done := map[manifest.KeyKind]bool{}
	for _, key := range b.store.Keys() {
		k, err := manifest.ParseKey(key)
		change := tests[k.Kind]
		if err != nil || change == nil || done[k.Kind] {
			continue
		}
		s := clone(t, b.store)
		s.Tamper(key, change)
		problems, _, _ := verify(t, s, b, true)
		if slices.ContainsFunc(problems, func(p history.Finding) bool { return p.Subject == key && strings.Contains(p.What, "newer") }) {
			done[k.Kind] = true
		} else if k.Kind != manifest.KeyWAL { // some WAL objects are garbage
			t.Errorf("%s: problems %v", key, problems)
		}
	}
	if len(done) != len(tests) {
		t.Fatalf("newer formats named of %v only", done)
	}
}

// reformat makes a framed JSON body one of format 9.
func reformat(body []byte) []byte {
	body = bytes.Replace(body, []byte(`"format":1,`), []byte(`"format":9,`), 1)
	at := bytes.LastIndex(body, []byte(`,"crc32c":"`))
	return append(body[:at:at], fmt.Sprintf(`,"crc32c":"%08x"}`+"\n", crc32.Checksum(body[:at], record.Castagnoli))...)
}

func putCRC(dst, data []byte) {
	sum := crc32.Checksum(data, record.Castagnoli)
	dst[0], dst[1], dst[2], dst[3] = byte(sum>>24), byte(sum>>16), byte(sum>>8), byte(sum)
}

// A live broker that writes, rolls up, merges and deletes at once is no reason for a problem.
func TestVerifyBesideALiveBroker(t *testing.T) {
	b := newBucket(t)
	b.maint = tiered.MaintenanceConfig{RoundSlots: 2, Grace: 100 * time.Millisecond, Merges: rollup.MergeConfig{Age: 1, MinInputs: 3}}
	b.start()
	b.topic("a", 2)
	const rounds, puts = 25, 10
	found, failed := make(chan []history.Finding), make(chan error, 1)
	go func() {
		defer close(found)
		for range rounds {
			var problems []history.Finding
			opts := history.VerifyOptions{Problem: func(f history.Finding) { problems = append(problems, f) }}
			if err := history.Verify(context.Background(), b.config(), opts, &history.Verified{}); err != nil {
				failed <- err
				return
			}
			found <- problems
		}
	}()
	for range rounds {
		for i := range puts {
			b.put(fmt.Sprintf("a/%d", i%2), 2, 20_000)
		}
		problems, ok := <-found
		if !ok {
			t.Fatal(<-failed)
		}
		if len(problems) > 0 {
			t.Fatalf("problems beside a live broker: %v", problems)
		}
	}
	r := b.reader()
	if got := values(t, r, "a", 1, 0); !slices.Equal(got, b.want["a/1"]) {
		t.Fatalf("%d records, want %d", len(got), len(b.want["a/1"]))
	}
}

// swapManifest rewrites a partition's manifest.
func swapManifest(t *testing.T, b *bucket, topic string, index int32, edit func(*manifest.Partition)) {
	t.Helper()
	top, _ := b.meta.State().Topic(topic)
	id := logid.Partition{Topic: top.ID, Index: index}
	key := (&manifest.Partition{Topic: topic, TopicID: top.ID, Index: index}).Key(b.meta.ClusterID())
	body, _, err := objstore.ReadAll(t.Context(), b.store, key, 1<<20)
	b.check(err)
	m, err := manifest.DecodePartition(body, id)
	b.check(err)
	next := m.Next(manifest.Nonce{9})
	edit(next)
	body, err = next.Encode()
	b.check(err)
	b.store.Tamper(key, func([]byte) []byte { return body })
}

func TestPages(t *testing.T) {
	b := rolled(t)
	b.stop()
	n := byte(0)
	swapManifest(t, b, "orders", 0, func(m *manifest.Partition) {
		pages, err := m.Spill(300, func() (manifest.ULID, manifest.Nonce, error) {
			n++
			return manifest.ULID{n}, manifest.Nonce{n}, nil
		})
		b.check(err)
		for i := range pages {
			body, err := pages[i].Encode()
			b.check(err)
			_, err = b.store.Create(t.Context(), m.PageKey(b.meta.ClusterID(), pages[i].Ref()), objstore.Bytes(body))
			b.check(err)
		}
	})
	if n == 0 {
		t.Fatal("the manifest has no pages")
	}
	for _, from := range []int64{0, 150, 250} {
		if got := values(t, b.reader(), "orders", 0, from); !slices.Equal(got, b.want["orders/0"][from:]) {
			t.Fatalf("from %d: %d records", from, len(got))
		}
	}
	if problems, _, _ := verify(t, b.store, b, false); len(problems) > 0 {
		t.Fatalf("problems: %v", problems)
	}
	for _, key := range b.store.Keys() {
		if k, err := manifest.ParseKey(key); err == nil && k.Kind == manifest.KeyPage {
			b.store.Tamper(key, func(data []byte) []byte { data[len(data)/2] ^= 1; return data })
		}
	}
	if problems, _, _ := verify(t, b.store, b, true); len(problems) == 0 || !strings.Contains(problems[0].Subject, "/pages/") {
		t.Fatalf("problems of a damaged page: %v", problems)
	}
}

func TestVerifyTellsGapsFromLoss(t *testing.T) {
	b := rolled(t)
	b.stop()
	var cut manifest.Segment
	swapManifest(t, b, "orders", 0, func(m *manifest.Partition) {
		cut = m.Segments[0]
		m.Segments = m.Segments[1:]
	})
	problems, notes, _ := verify(t, b.store, b, true)
	gap := history.Finding{Subject: "orders/0", What: fmt.Sprintf("no records at the offsets from %d to %d", cut.Base, cut.Last)}
	if len(problems) > 0 || !slices.Contains(notes, gap) {
		t.Fatalf("problems %v, notes %v; want a note of the gap %v", problems, notes, gap)
	}
	orphan := func(f history.Finding) bool {
		return strings.Contains(f.Subject, cut.ULID.String()) && strings.Contains(f.What, "no manifest names it")
	}
	if !slices.ContainsFunc(notes, orphan) {
		t.Fatalf("the segment that was cut is no orphan: %v", notes)
	}
}

func TestSummaries(t *testing.T) {
	b := rolled(t)
	s, err := b.reader().Summarize(t.Context(), "ord")
	b.check(err)
	if len(s.Topics) != 1 || len(s.Epochs) != 3 || len(s.Brokers) != 1 {
		t.Fatalf("%+v", s)
	}
	for _, p := range s.Topics[0].Partitions {
		if want := int64(len(b.want[fmt.Sprintf("orders/%d", p.Partition)])); p.Start != 0 || p.End != want {
			t.Errorf("partition %d: %d to %d, want 0 to %d", p.Partition, p.Start, p.End, want)
		}
	}
	if p := s.Topics[0].Partitions[0]; p.Segments < 2 || p.SegmentBytes < 1<<20 || p.Sections < 1 || p.RolledThrough == 0 {
		t.Errorf("partition 0: %+v", p)
	}
	b.stop()
	s, err = history.Take(t.Context(), b.config())
	b.check(err)
	objects, size := b.store.Size()
	if s.Total.Objects != int64(objects) || s.Total.Bytes != size {
		t.Errorf("total %+v, the bucket has %d objects of %d bytes", s.Total, objects, size)
	}
	if s.Garbage.Objects == 0 || s.Garbage.Bytes >= size || s.Usage[history.KindFence].Objects != 2 || s.Usage[history.KindMerged].Objects == 0 {
		t.Errorf("garbage %+v, usage %+v", s.Garbage, s.Usage)
	}
	if want := int64(len(b.want["orders/0"]) + len(b.want["orders/1"])); len(s.Topics) != 2 || s.Topics[0].Records != want {
		t.Errorf("topics %+v", s.Topics)
	}
}
