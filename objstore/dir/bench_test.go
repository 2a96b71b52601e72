//go:build linux || darwin

package dir_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/tierlog/tierlog/objstore"
	"github.com/tierlog/tierlog/objstore/dir"
)

// benchKept is how many objects a benchmark leaves in place before it deletes the oldest.
const benchKept = 16

// BenchmarkCreate has the floor in the same run: a plain new file, its bytes, and an fsync.
func BenchmarkCreate(b *testing.B) {
	for _, size := range []int{4 << 10, 8 << 20} {
		data := make([]byte, size)
		for i := range data {
			data[i] = byte(i * 7)
		}
		// Parts as a WAL object has them: many batches.
		var parts [][]byte
		for rest := data; len(rest) > 0; {
			n := min(len(rest), 64<<10)
			parts, rest = append(parts, rest[:n]), rest[n:]
		}
		body := objstore.Bytes(parts...)
		for _, nosync := range []bool{false, true} {
			name := fmt.Sprintf("%dKiB/sync=%v", size>>10, !nosync)
			b.Run(name+"/store", func(b *testing.B) { benchCreate(b, body, nosync) })
			b.Run(name+"/floor", func(b *testing.B) { benchFloor(b, data, nosync) })
		}
	}
}

func benchCreate(b *testing.B, body objstore.Payload, nosync bool) {
	s := opened(b, dir.Options{NoSync: nosync})
	b.SetBytes(body.Size())
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		if _, err := s.Create(b.Context(), fmt.Sprintf("wal/1/%020d", i), body); err != nil {
			b.Fatal(err)
		}
		if i++; i > benchKept {
			_ = os.Remove(filepath.Join(s.Path(), fmt.Sprintf("wal/1/%020d", i-benchKept)))
		}
	}
}

func benchFloor(b *testing.B, data []byte, nosync bool) {
	folder := b.TempDir()
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		f, err := os.Create(filepath.Join(folder, fmt.Sprintf("%020d", i)))
		if err == nil {
			_, err = f.Write(data)
		}
		if err == nil && !nosync {
			err = f.Sync()
		}
		if err == nil {
			err = f.Close()
		}
		if err != nil {
			b.Fatal(err)
		}
		if i++; i > benchKept {
			_ = os.Remove(filepath.Join(folder, fmt.Sprintf("%020d", i-benchKept)))
		}
	}
}

func BenchmarkSwap(b *testing.B) {
	for _, nosync := range []bool{false, true} {
		b.Run(fmt.Sprintf("sync=%v", !nosync), func(b *testing.B) {
			s := opened(b, dir.Options{NoSync: nosync})
			body := objstore.Bytes(make([]byte, 4<<10))
			v := must[objstore.Version](b)(s.Create(b.Context(), "a/manifest.json", body))
			b.ReportAllocs()
			for b.Loop() {
				v = must[objstore.Version](b)(s.Swap(b.Context(), "a/manifest.json", v, body))
			}
		})
	}
}

// BenchmarkRead has reading through a file that stays open as its floor.
func BenchmarkRead(b *testing.B) {
	s := opened(b, dir.Options{NoSync: true})
	must[objstore.Version](b)(s.Create(b.Context(), "a/b/c/object", objstore.Bytes(make([]byte, 8<<20))))
	for _, size := range []int{4 << 10, 64 << 10, 4 << 20} {
		p := make([]byte, size)
		b.Run(fmt.Sprintf("%dKiB/store", size>>10), func(b *testing.B) {
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				if n, _, err := s.ReadAt(b.Context(), "a/b/c/object", p, 1<<20); n != size || err != nil {
					b.Fatal(n, err)
				}
			}
		})
		b.Run(fmt.Sprintf("%dKiB/floor", size>>10), func(b *testing.B) {
			f := must[*os.File](b)(os.Open(filepath.Join(s.Path(), "a/b/c/object")))
			defer func() { _ = f.Close() }()
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := f.ReadAt(p, 1<<20); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
