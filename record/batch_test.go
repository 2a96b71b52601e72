package record

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"math/rand/v2"
	"testing"
)

// plain returns a well-formed batch of n records whose record bytes are opaque filler.
func plain(n, size int) Batch {
	b := make(Batch, HeaderSize+size)
	binary.BigEndian.PutUint32(b[8:], uint32(len(b)-PrefixSize))
	b[16] = 2
	binary.BigEndian.PutUint32(b[23:], uint32(n-1))
	binary.BigEndian.PutUint64(b[27:], 1000)
	binary.BigEndian.PutUint64(b[35:], 2000)
	binary.BigEndian.PutUint64(b[43:], ^uint64(0))
	binary.BigEndian.PutUint16(b[51:], ^uint16(0))
	binary.BigEndian.PutUint32(b[53:], ^uint32(0))
	binary.BigEndian.PutUint32(b[57:], uint32(n))
	return seal(b)
}

func seal(b Batch) Batch {
	binary.BigEndian.PutUint32(b[17:], crc32.Checksum(b[crcStart:], Castagnoli))
	return b
}

func TestCheckNamesWhatIsWrong(t *testing.T) {
	lim := Limits{MaxBytes: 1000, NowMs: 10_000, BeforeMaxMs: 9_500, AfterMaxMs: 5_000}
	edit := func(f func(b Batch)) Batch {
		b := plain(3, 100)
		f(b)
		return seal(b)
	}
	put32 := binary.BigEndian.PutUint32
	put64 := binary.BigEndian.PutUint64
	for _, tc := range []struct {
		name string
		b    Batch
		want error
	}{
		{"good", plain(3, 100), nil},
		{"empty", nil, ErrCorrupt},
		{"header cut", plain(3, 100)[:60], ErrCorrupt},
		{"records cut", plain(3, 100)[:100], ErrCorrupt},
		{"length negative", edit(func(b Batch) { put32(b[8:], 1<<31) }), ErrCorrupt},
		{"length below a header", edit(func(b Batch) { put32(b[8:], 10) }), ErrCorrupt},
		{"two batches", append(plain(1, 10), plain(1, 10)...), ErrInvalid},
		{"magic 0", edit(func(b Batch) { b[16] = 0 }), ErrMagic},
		{"magic 1", edit(func(b Batch) { b[16] = 1 }), ErrMagic},
		{"magic 3", edit(func(b Batch) { b[16] = 3 }), ErrMagic},
		{"flipped bit", func() Batch { b := plain(3, 100); b[90] ^= 4; return b }(), ErrCorrupt},
		{"codec 5", edit(func(b Batch) { b[22] = 5 }), ErrCodec},
		{"control", edit(func(b Batch) { b[22] = attrControl }), ErrInvalid},
		{"count below delta", edit(func(b Batch) { put32(b[57:], 2) }), ErrInvalid},
		{"no records", edit(func(b Batch) { put32(b[57:], 0); put32(b[23:], ^uint32(0)) }), ErrInvalid},
		{"count negative", edit(func(b Batch) { put32(b[57:], 1<<31); put32(b[23:], 1<<31-1) }), ErrInvalid},
		{"more records than bytes", edit(func(b Batch) { put32(b[57:], 1000); put32(b[23:], 999) }), ErrInvalid},
		{"sequence missing", edit(func(b Batch) { put64(b[43:], 7) }), ErrInvalid},
		{"transaction without producer", edit(func(b Batch) { b[22] = attrTransactional }), ErrInvalid},
		{"client's LogAppendTime", edit(func(b Batch) { b[22] = attrLogAppendTime }), ErrInvalid},
		{"too large", plain(3, 1000), ErrTooLarge},
		{"from the future", edit(func(b Batch) { put64(b[35:], 15_001) }), ErrTimestamp},
		{"too old", edit(func(b Batch) { put64(b[27:], 499) }), ErrTimestamp},
		{"timestamp -2", edit(func(b Batch) { put64(b[35:], ^uint64(1)) }), ErrTimestamp},
	} {
		t.Run(tc.name, func(t *testing.T) {
			err := Check(tc.b, lim)
			if !errors.Is(err, tc.want) {
				t.Fatalf("got %v, want %v", err, tc.want)
			}
			if (err == nil) != (tc.want == nil) {
				t.Fatalf("got %v", err)
			}
		})
	}
}

func TestPatchingOffsetsKeepsTheCRC(t *testing.T) {
	b := plain(3, 100)
	b.SetOffsets(1<<40, 77)
	if err := b.VerifyCRC(); err != nil {
		t.Fatal(err)
	}
	if b.BaseOffset() != 1<<40 || b.LastOffset() != 1<<40+2 || b.LeaderEpoch() != 77 {
		t.Fatalf("offsets %d-%d epoch %d", b.BaseOffset(), b.LastOffset(), b.LeaderEpoch())
	}
	b.SetLogAppendTime(123_456)
	if err := b.VerifyCRC(); err != nil {
		t.Fatal(err)
	}
	if !b.LogAppendTime() || b.MaxTimestamp() != 123_456 {
		t.Fatalf("append time %v %d", b.LogAppendTime(), b.MaxTimestamp())
	}
}

func TestSequencesWrap(t *testing.T) {
	b := plain(3, 100)
	binary.BigEndian.PutUint32(b[53:], 1<<31-1)
	if got := b.LastSequence(); got != 1 {
		t.Fatalf("last sequence %d, want 1", got)
	}
}

func TestCombinedCRCsEqualOnePass(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 500 {
		a := make([]byte, r.IntN(300))
		b := make([]byte, r.IntN(70_000))
		for i := range a {
			a[i] = byte(r.Uint32())
		}
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		got := CombineCRC(crc32.Checksum(a, Castagnoli), crc32.Checksum(b, Castagnoli), int64(len(b)))
		if want := crc32.Checksum(append(a, b...), Castagnoli); got != want {
			t.Fatalf("combined %08x, one pass %08x (%d+%d bytes)", got, want, len(a), len(b))
		}
	}
	b := plain(5, 5000)
	b.SetOffsets(42, 3)
	if got, want := b.FullCRC(), crc32.Checksum(b, Castagnoli); got != want {
		t.Fatalf("full CRC %08x, want %08x", got, want)
	}
}

func FuzzCheck(f *testing.F) {
	f.Add([]byte(plain(3, 100)))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		if Check(b, Limits{}) != nil {
			return
		}
		got, rest, err := Next(b)
		if err != nil || len(rest) != 0 || len(got) != len(b) {
			t.Fatalf("checked batch of %d bytes does not slice: %d left, %v", len(b), len(rest), err)
		}
		if got.LastOffset() < got.BaseOffset() && got.BaseOffset() >= 0 && got.BaseOffset() < 1<<62 {
			t.Fatal("last offset before the first")
		}
	})
}

func BenchmarkCheck(b *testing.B) {
	batch := plain(16, 16<<10)
	b.SetBytes(int64(len(batch)))
	b.ReportAllocs()
	for b.Loop() {
		if err := Check(batch, Limits{}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkFullCRC(b *testing.B) {
	batch := plain(16, 16<<10)
	b.SetBytes(int64(len(batch)))
	for b.Loop() {
		batch.FullCRC()
	}
}
