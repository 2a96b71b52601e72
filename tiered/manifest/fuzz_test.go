package manifest

import (
	"bytes"
	"errors"
	"testing"
)

// FuzzBodies feeds every JSON decoder, with a checksum that fits so that the input gets past it. What is accepted must
// be valid and come back the same.
func FuzzBodies(f *testing.F) {
	for i, c := range bodies {
		b, err := c.encode(c.sample())
		if err != nil {
			f.Fatal(err)
		}
		f.Add(uint8(i), b)
	}
	f.Add(uint8(1), []byte(`{"nonce":"ee000000000000000000000000000002","format":1,"kind":"wal-manifest","version":1,"epoch":42,"mergedThrough":0,"objects":[null],"crc32c":"00000000"}`+"\n"))
	f.Fuzz(func(t *testing.T, which uint8, b []byte) {
		c := bodies[int(which)%len(bodies)]
		if _, err := c.decode(b); err != nil && !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrNewer) {
			t.Errorf("%s: %v", c.kind, err)
		}
		if len(b) < tailSize {
			return
		}
		v, err := c.decode(reseal(b))
		if err != nil {
			if !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrNewer) {
				t.Errorf("%s: %v", c.kind, err)
			}
			return
		}
		again, err := c.encode(v)
		if err != nil {
			t.Fatalf("%s: what was decoded cannot be encoded: %v", c.kind, err)
		}
		v2, err := c.decode(again)
		if err != nil {
			t.Fatalf("%s: what was encoded cannot be decoded: %v", c.kind, err)
		}
		twice, err := c.encode(v2)
		if err != nil || !bytes.Equal(twice, again) {
			t.Errorf("%s: encoded twice differs: %s, %s, %v", c.kind, again, twice, err)
		}
	})
}

// FuzzCheckpoint holds more: a checkpoint has one encoding, so what is accepted encodes to the same bytes.
func FuzzCheckpoint(f *testing.F) {
	for _, c := range []*Checkpoint{sampleCheckpoint(), {Nonce: testNonce(1), Cluster: testCluster}} {
		b, err := c.Encode()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := ParseCheckpoint(b); err != nil && !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrNewer) {
			t.Error(err)
		}
		if len(b) < checkpointSum {
			return
		}
		b = resum(b)
		c, err := ParseCheckpoint(b)
		if err != nil {
			return
		}
		again, err := c.Encode()
		if err != nil {
			t.Fatalf("what was decoded cannot be encoded: %v", err)
		}
		if !bytes.Equal(again, b) {
			t.Errorf("encoded again differs:\n%x\n%x", b, again)
		}
	})
}
