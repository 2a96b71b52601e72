package wal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"reflect"
	"testing"

	"github.com/tierlog/tierlog/record"
	"github.com/tierlog/tierlog/tiered/logid"
)

func batch(base int64, n, size int, pid int64, seq int32) record.Batch {
	b := make(record.Batch, record.HeaderSize+size)
	be := binary.BigEndian
	be.PutUint32(b[8:], uint32(len(b)-record.PrefixSize))
	b[16] = 2
	be.PutUint32(b[23:], uint32(n-1))
	be.PutUint64(b[27:], uint64(base*10))
	be.PutUint64(b[35:], uint64(base*10+7))
	be.PutUint64(b[43:], uint64(pid))
	be.PutUint16(b[51:], uint16(int16(pid>>62)))
	be.PutUint32(b[53:], uint32(seq))
	be.PutUint32(b[57:], uint32(n))
	for i := record.HeaderSize; i < len(b); i++ {
		b[i] = byte(i * int(base+1))
	}
	be.PutUint32(b[17:], crc32.Checksum(b[21:], record.Castagnoli))
	b.SetOffsets(base, 4)
	return b
}

var testHeader = Header{Kind: Data, Cluster: [16]byte{1, 2, 3}, Epoch: 9, Slot: 77, Through: 77, Nonce: 0xabcdef}

// encode builds an object of random sections and returns its bytes and the batches by section.
func encode(r *rand.Rand, sections int) (whole []byte, want [][]record.Batch) {
	bld := NewBuilder(testHeader)
	for i := range sections {
		bld.Section(logid.TopicID{byte(i)}, int32(i), 4)
		base := int64(r.IntN(1 << 40))
		var bs []record.Batch
		for range 1 + r.IntN(20) {
			n := 1 + r.IntN(50)
			pid, seq := int64(-1), int32(-1)
			if r.IntN(2) == 0 {
				pid, seq = int64(r.IntN(5000)), int32(r.IntN(1<<30))-1
				if r.IntN(4) == 0 {
					seq = -1 // as transaction markers have it
				}
			}
			b := batch(base, n, r.IntN(3000), pid, seq)
			bld.Batch(b)
			bs = append(bs, b)
			base += int64(n) + int64(r.IntN(2)*r.IntN(100)) // sometimes a gap
		}
		want = append(want, bs)
	}
	o := bld.Finish()
	whole = bytes.Join(o.Parts, nil)
	if int64(len(whole)) != o.Size || crc32.Checksum(whole, record.Castagnoli) != o.CRC {
		panic(fmt.Sprintf("object of %d bytes with CRC %08x, said %d with %08x", len(whole), crc32.Checksum(whole, record.Castagnoli), o.Size, o.CRC))
	}
	return whole, want
}

func TestWhatIsEncodedParses(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 50 {
		whole, want := encode(r, 1+r.IntN(30))
		f, need, err := ParseTail(whole, int64(len(whole)))
		if err != nil || need != 0 {
			t.Fatalf("parse: %v, need %d", err, need)
		}
		if f.Header != testHeader || len(f.Sections) != len(want) {
			t.Fatalf("header %+v, %d sections of %d", f.Header, len(f.Sections), len(want))
		}
		for i := range f.Sections {
			s := &f.Sections[i]
			if err := VerifySection(s, whole[s.Pos:s.Pos+s.Len]); err != nil {
				t.Fatal(err)
			}
			if s.Partition != int32(i) || s.LeaderEpoch != 4 || len(s.Entries) != len(want[i]) {
				t.Fatalf("section %d: %+v", i, s)
			}
			for j, b := range want[i] {
				if s.Entries[j] != EntryOf(b) {
					t.Fatalf("entry %+v, want %+v", s.Entries[j], EntryOf(b))
				}
			}
		}
		// A tail that is too short says how much is needed, and that much is enough.
		for _, n := range []int{0, 10, TrailerSize, TrailerSize + 1} {
			f2, need, err := ParseTail(whole[len(whole)-n:], int64(len(whole)))
			if f2 != nil || err != nil || need <= int64(n) || need > int64(len(whole)) {
				t.Fatalf("tail of %d bytes: %v, need %d, %v", n, f2, need, err)
			}
			if n >= TrailerSize {
				f2, _, err = ParseTail(whole[int64(len(whole))-need:], int64(len(whole)))
				if err != nil || !reflect.DeepEqual(f, f2) {
					t.Fatalf("needed tail of %d bytes: %v", need, err)
				}
			}
		}
	}
}

func TestEveryDamageIsFound(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	whole, _ := encode(r, 3)
	check := func(b []byte) error {
		if _, err := ParseHeader(b); err != nil {
			return err
		}
		f, need, err := ParseTail(b, int64(len(b)))
		if err != nil || need != 0 {
			return errors.Join(err, fmt.Errorf("need %d", need))
		}
		for i := range f.Sections {
			s := &f.Sections[i]
			if err := VerifySection(s, b[s.Pos:s.Pos+s.Len]); err != nil {
				return err
			}
		}
		return nil
	}
	if err := check(whole); err != nil {
		t.Fatal(err)
	}
	for i := range whole {
		bad := bytes.Clone(whole)
		bad[i] ^= 1 << r.IntN(8)
		if check(bad) == nil {
			t.Fatalf("a flipped bit in byte %d of %d went unnoticed", i, len(whole))
		}
	}
	for n := range whole {
		if n >= HeaderSize && check(whole[:n]) == nil {
			t.Fatalf("an object truncated to %d of %d bytes went unnoticed", n, len(whole))
		}
	}
}

func TestFence(t *testing.T) {
	f := EncodeFence(Header{Epoch: 3, Slot: 12, Nonce: 5}, 8)
	if !IsFence(f) {
		t.Fatal("a fence is not recognised")
	}
	got, need, err := ParseTail(f, int64(len(f)))
	if err != nil || need != 0 || got.Header.Kind != Fence || got.Header.Slot != 12 || got.Header.Epoch != 3 {
		t.Fatalf("%+v %d %v", got, need, err)
	}
	whole, _ := encode(rand.New(rand.NewPCG(1, 1)), 1)
	if IsFence(whole) {
		t.Fatal("data taken for a fence")
	}
}

func TestNewerVersionsAreRefusedAsSuch(t *testing.T) {
	h := testHeader.Append(nil)
	h[9] = Version + 1
	binary.BigEndian.PutUint32(h[60:], crc32.Checksum(h[:60], record.Castagnoli))
	if _, err := ParseHeader(h); !errors.Is(err, ErrNewer) {
		t.Fatalf("got %v", err)
	}
}

func FuzzParseTail(f *testing.F) {
	whole, _ := encode(rand.New(rand.NewPCG(7, 7)), 2)
	f.Add(whole[len(whole)-700:], int64(len(whole)))
	f.Add(EncodeFence(testHeader, 1), int64(HeaderSize+8))
	f.Fuzz(func(t *testing.T, tail []byte, size int64) {
		// Make the checksum right, so that the footer's decoder is reached.
		if n := len(tail); n >= TrailerSize {
			l := int(binary.BigEndian.Uint32(tail[n-TrailerSize+8:]))
			if l >= 0 && l <= n-TrailerSize {
				body := tail[n-TrailerSize-l : n-TrailerSize]
				binary.BigEndian.PutUint32(tail[n-TrailerSize+12:], crc32.Checksum(body, record.Castagnoli))
			}
		}
		got, need, err := ParseTail(tail, size)
		if err != nil || got == nil {
			if err == nil && (need <= int64(len(tail)) || need > size) {
				t.Fatalf("needs %d bytes of %d, has %d", need, size, len(tail))
			}
			return
		}
		for i := range got.Sections {
			s := &got.Sections[i]
			if s.Pos < HeaderSize || s.Pos+s.Len > size || s.LastOffset() < s.BaseOffset() {
				t.Fatalf("section out of bounds: %+v", s)
			}
		}
	})
}

func BenchmarkEncode(b *testing.B) {
	var batches []record.Batch
	for i := range 512 {
		batches = append(batches, batch(int64(i)*16, 16, 16<<10, 1, int32(i)*16))
	}
	b.SetBytes(512 * (16<<10 + record.HeaderSize))
	b.ReportAllocs()
	for b.Loop() {
		bld := NewBuilder(testHeader)
		for i, x := range batches {
			if i%64 == 0 {
				bld.Section(logid.TopicID{1}, int32(i/64), 4)
			}
			bld.Batch(x)
		}
		bld.Finish()
	}
}
