package manifest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/tierlog/tierlog/objstore"
	"github.com/tierlog/tierlog/tiered/logid"
)

// body is one kind of JSON body with everything the general tests need.
type body struct {
	kind   Kind
	sample func() any
	encode func(v any) ([]byte, error)
	decode func(b []byte) (any, error)
}

var bodies = []body{
	{KindCluster, func() any { return sampleCluster() }, func(v any) ([]byte, error) { return v.(*Cluster).Encode() }, func(b []byte) (any, error) { return DecodeCluster(b) }},
	{KindWAL, func() any { return sampleWAL() }, func(v any) ([]byte, error) { return v.(*WAL).Encode() }, func(b []byte) (any, error) { return DecodeWAL(b, 42) }},
	{KindPartition, func() any { return samplePartition() }, func(v any) ([]byte, error) { return v.(*Partition).Encode() }, func(b []byte) (any, error) { return DecodePartition(b, testPart) }},
	{KindPage, func() any { return samplePage() }, func(v any) ([]byte, error) { return v.(*Page).Encode() }, func(b []byte) (any, error) { return DecodePage(b, testPart, samplePage().Ref()) }},
	{KindJob, func() any { return sampleJob() }, func(v any) ([]byte, error) { return v.(*Job).Encode() }, func(b []byte) (any, error) { return DecodeJob(b, testCluster, testULID(9)) }},
	{KindDeletion, func() any { return sampleDeletion() }, func(v any) ([]byte, error) { return v.(*Deletion).Encode() }, func(b []byte) (any, error) { return DecodeDeletion(b, testCluster, testULID(10)) }},
}

// reseal replaces the checksum by the right one for what stands before it.
func reseal(b []byte) []byte {
	covered := b[:len(b)-tailSize]
	return fmt.Appendf(bytes.Clone(covered), `%s%08x%s`, frameCRC, crc32.Checksum(covered, castagnoli), frameEnd)
}

// edit replaces the first occurrence of old in a body and makes the checksum fit.
func edit(t *testing.T, b []byte, old, repl string) []byte {
	t.Helper()
	if !bytes.Contains(b, []byte(old)) {
		t.Fatalf("no %q in %s", old, b)
	}
	return reseal(bytes.Replace(b, []byte(old), []byte(repl), 1))
}

func TestBodiesRoundTripAndGolden(t *testing.T) {
	begin := regexp.MustCompile(`^\{"nonce":"[0-9a-f]{32}","format":1,"kind":"[a-z-]+",`)
	for _, c := range bodies {
		t.Run(string(c.kind), func(t *testing.T) {
			want := c.sample()
			b := must[[]byte](t)(c.encode(want))
			if !begin.Match(b) || !json.Valid(b) {
				t.Errorf("body does not begin as the frame says, or is no JSON: %s", b)
			}
			if end := bytes.IndexByte(b[10:], '"') + 11; end > objstore.IdentitySize {
				t.Errorf("the nonce ends at byte %d, after the first %d", end, objstore.IdentitySize)
			}
			b = golden(t, string(c.kind)+".json", b)
			got := must[any](t)(c.decode(b))
			if cl, ok := want.(*Cluster); ok {
				cl.Format = Format
			}
			if !reflect.DeepEqual(got, want) {
				t.Errorf("decode gives\n%+v, want\n%+v", got, want)
			}
		})
	}
}

// Every single damaged bit and every truncation must be seen.
func TestBodiesCorruption(t *testing.T) {
	for _, c := range bodies {
		t.Run(string(c.kind), func(t *testing.T) {
			good := must[[]byte](t)(c.encode(c.sample()))
			for i := range good {
				bad := bytes.Clone(good)
				bad[i] ^= 1 << (i % 8)
				if _, err := c.decode(bad); !errors.Is(err, ErrCorrupt) {
					t.Fatalf("bit flipped in byte %d: %v, want ErrCorrupt", i, err)
				}
				if _, err := c.decode(good[:i]); !errors.Is(err, ErrCorrupt) {
					t.Fatalf("truncated to %d bytes: %v, want ErrCorrupt", i, err)
				}
			}
			for _, other := range bodies {
				if other.kind == c.kind {
					continue
				}
				if _, err := other.decode(good); !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), "kind is") {
					t.Errorf("read as %s: %v, want ErrCorrupt", other.kind, err)
				}
			}
		})
	}
}

func TestBodiesFrameRules(t *testing.T) {
	for _, c := range bodies {
		t.Run(string(c.kind), func(t *testing.T) {
			good := must[[]byte](t)(c.encode(c.sample()))
			newer := edit(t, good, `"format":1`, `"format":2`)
			_, err := c.decode(newer)
			var fe *FormatError
			switch {
			case c.kind == KindCluster:
				if err != nil {
					t.Errorf("a newer cluster with minReader 1: %v, want it accepted", err)
				}
			case !errors.Is(err, ErrNewer) || !errors.As(err, &fe) || fe.Got != 2 || fe.Kind != c.kind || errors.Is(err, ErrCorrupt):
				t.Errorf("format 2: %v, want ErrNewer", err)
			}
			for name, bad := range map[string][]byte{
				"format 0":            edit(t, good, `"format":1`, `"format":0`),
				"format is text":      edit(t, good, `"format":1`, `"format":"1"`),
				"nonce in upper case": edit(t, good, `"nonce":"ee`, `"nonce":"EE`),
				"nonce is zero":       edit(t, good, string(good[:len(frameNonce)+nonceDigits]), frameNonce+strings.Repeat("0", nonceDigits)),
				"an array":            reseal([]byte(`["nonce"` + strings.Repeat(" ", 100) + `,"crc32c":"00000000"}` + "\n")),
				"second value":        reseal(bytes.Replace(good, []byte(frameCRC), []byte(`}{"a":1`+frameCRC), 1)),
				"cut JSON":            reseal(bytes.Replace(good, []byte(frameCRC), []byte(`,"x`+frameCRC), 1)),
				"oversized":           make([]byte, MaxBody+1),
				"new field, format 1": reseal(bytes.Replace(good, []byte(frameCRC), []byte(`,"future":1`+frameCRC), 1)),
			} {
				if _, err := c.decode(bad); !errors.Is(err, ErrCorrupt) {
					t.Errorf("%s: %v, want ErrCorrupt", name, err)
				}
			}
		})
	}
}

func TestZeroNonceIsRefused(t *testing.T) {
	m := sampleWAL()
	m.Nonce = Nonce{}
	if _, err := m.Encode(); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "nonce") {
		t.Errorf("encode without nonce: %v", err)
	}
}

func TestClusterMinReader(t *testing.T) {
	good := must[[]byte](t)(sampleCluster().Encode())
	newer := edit(t, edit(t, good, `"format":1`, `"format":3`), `"minReader":1`, `"minReader":1,"added":{"x":[1]}`)
	c, err := DecodeCluster(newer)
	if err != nil || c.Format != 3 || c.ID != testCluster {
		t.Errorf("format 3 readable by 1: %+v, %v", c, err)
	}
	_, err = DecodeCluster(edit(t, newer, `"minReader":1`, `"minReader":2`))
	var fe *FormatError
	if !errors.As(err, &fe) || fe.Got != 2 {
		t.Errorf("format 3 readable by 2: %v, want a FormatError of 2", err)
	}
	if _, err = DecodeCluster(edit(t, good, `"minReader":1`, `"minReader":2`)); !errors.Is(err, ErrCorrupt) {
		t.Errorf("minReader above the format: %v, want ErrCorrupt", err)
	}
}

// A body at the wrong key is corrupt, not a plausible answer for another partition.
func TestBodiesBelongToTheirKeys(t *testing.T) {
	wal := must[[]byte](t)(sampleWAL().Encode())
	part := must[[]byte](t)(samplePartition().Encode())
	page := must[[]byte](t)(samplePage().Encode())
	job := must[[]byte](t)(sampleJob().Encode())
	del := must[[]byte](t)(sampleDeletion().Encode())
	ref := samplePage().Ref()
	shrunk := ref
	shrunk.Count--
	other := logid.Partition{Topic: testTopic, Index: 4}
	otherCluster := logid.ClusterID{9}
	for name, err := range map[string]error{
		"wal":                   second(DecodeWAL(wal, 43)),
		"partition":             second(DecodePartition(part, other)),
		"page":                  second(DecodePage(page, other, ref)),
		"page ref":              second(DecodePage(page, testPart, shrunk)),
		"job":                   second(DecodeJob(job, testCluster, testULID(1))),
		"job's cluster":         second(DecodeJob(job, otherCluster, testULID(9))),
		"deletion":              second(DecodeDeletion(del, testCluster, testULID(1))),
		"deletion of a cluster": second(DecodeDeletion(del, otherCluster, testULID(10))),
	} {
		if !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %v, want ErrCorrupt", name, err)
		}
	}
}

func second[T any](_ T, err error) error { return err }

func TestJobAndDeletionRefuseKeys(t *testing.T) {
	c := testCluster
	for _, key := range []string{
		"", "junk", ClusterKey,
		Key{Kind: KeyMeta, Cluster: c, Slot: 1}.String(),
		Key{Kind: KeyWAL, Cluster: c, Slot: 1}.String(),
		Key{Kind: KeyWALManifest, Cluster: c}.String(),
		samplePartition().Key(c),
	} {
		j := sampleJob()
		j.Outputs = append(j.Outputs, key)
		if err := j.Validate(); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "outputs[2]") {
			t.Errorf("job with output %q: %v, want ErrInvalid", key, err)
		}
	}
	for _, key := range []string{"", "junk", ClusterKey, Key{Kind: KeyMeta, Cluster: c, Slot: 1}.String()} {
		d := sampleDeletion()
		d.Keys = append(d.Keys, key)
		if err := d.Validate(); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "keys[1]") {
			t.Errorf("deletion of %q: %v, want ErrInvalid", key, err)
		}
	}
}
