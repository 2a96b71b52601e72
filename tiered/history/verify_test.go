package history_test

import (
	"bytes"
	"fmt"
	"hash/crc32"
	"slices"
	"strings"
	"testing"

	"github.com/tierlog/tierlog/objstore"
	"github.com/tierlog/tierlog/objstore/mem"
	"github.com/tierlog/tierlog/record"
	"github.com/tierlog/tierlog/tiered/history"
	"github.com/tierlog/tierlog/tiered/manifest"
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
	kinds := map[history.Kind]int{}
	for _, key := range b.store.Keys() {
		if slices.ContainsFunc(notes, func(n history.Finding) bool { return n.Subject == key }) {
			continue // garbage
		}
		k, err := manifest.ParseKey(key)
		if err != nil {
			t.Fatal(err)
		}
		kinds[kindOf(k)]++
		for _, d := range damages(t, b.store, key, k) {
			s := clone(t, b.store)
			d.do(s)
			problems, _, _ := verify(t, s, b, d.fast)
			if !slices.ContainsFunc(problems, func(p history.Finding) bool { return strings.Contains(p.String(), key) }) {
				t.Errorf("%s of %s: problems %v", d.name, key, problems)
			}
		}
	}
	for _, kind := range []history.Kind{history.KindMetadata, history.KindManifest, history.KindCheckpoint, history.KindWAL, history.KindSegment, history.KindIndex} {
		if kinds[kind] == 0 {
			t.Errorf("the bucket has no live object of kind %s", kind)
		}
	}
}

func kindOf(k manifest.Key) history.Kind {
	switch k.Kind {
	case manifest.KeyMeta:
		return history.KindMetadata
	case manifest.KeyWALManifest, manifest.KeyPartitionManifest:
		return history.KindManifest
	case manifest.KeyCheckpoint:
		return history.KindCheckpoint
	case manifest.KeyWAL, manifest.KeyMerged:
		return history.KindWAL
	case manifest.KeySegmentFile:
		if k.File == manifest.FileLog {
			return history.KindSegment
		}
		return history.KindIndex
	default:
		return history.KindForeign
	}
}

type damage struct {
	name string
	fast bool
	do   func(*mem.Store)
}

// damages lists what is done to an object. What a broker deletes by itself, and the last slot of the metadata log, may be missing.
func damages(t *testing.T, s *mem.Store, key string, k manifest.Key) []damage {
	info, err := s.Head(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	flip := func(at int64, fast bool) damage {
		return damage{fmt.Sprintf("a bit flipped in byte %d of %d", at, info.Size), fast, func(s *mem.Store) {
			s.Tamper(key, func(b []byte) []byte { b[at] ^= 1 << (at % 8); return b })
		}}
	}
	end := info.Size - 1
	if k.Kind == manifest.KeyWAL && info.Size == 72 {
		end = 63 // what follows the fence's header says who wrote it, has no checksum and decides nothing
	}
	out := []damage{
		flip(0, false), flip(info.Size/3, false), flip(end, false),
		{"truncation", true, func(s *mem.Store) { s.Tamper(key, func(b []byte) []byte { return b[:len(b)/2] }) }},
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
	}
	return append(out, damage{"loss", true, func(s *mem.Store) {
		if err := s.Delete(t.Context(), []string{key}); err != nil {
			t.Fatal(err)
		}
	}})
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
