package s3test

import (
	"fmt"
	"hash/crc32"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/tierlog/tierlog/objstore"
	"github.com/tierlog/tierlog/test/miniotest"
)

const benchSize = 8 << 20

// Benchmark measures 8 MiB writes and reads, and the CPU time that they cost this process.
func Benchmark(b *testing.B, open Opener) {
	server := miniotest.Start(b)
	bucket := server.Bucket(b, "bench")
	data := make([]byte, benchSize)
	for i := range data {
		data[i] = byte(i * i >> 7)
	}
	var parts [][]byte
	for rest := data; len(rest) > 0; rest = rest[min(len(rest), 16<<10):] {
		parts = append(parts, rest[:min(len(rest), 16<<10)])
	}
	known := objstore.Bytes(parts...).WithCRC32C(crc32.Checksum(data, crc32.MakeTable(crc32.Castagnoli)))
	var n atomic.Int64
	for _, c := range []struct {
		name string
		sign bool
		body *objstore.Parts
	}{
		{"put/crc-known", false, known},
		{"put/crc-computed", false, objstore.Bytes(parts...)},
		{"put/sha256", true, known},
	} {
		b.Run(c.name, func(b *testing.B) {
			target := TargetOf(server, bucket, "")
			target.SignPayload = c.sign
			s := open(b, target)
			defer func() { _ = s.Close() }()
			measure(b, func() error {
				_, err := s.Create(b.Context(), fmt.Sprintf("put/%d", n.Add(1)), c.body)
				return err
			})
		})
	}
	b.Run("get", func(b *testing.B) {
		s := open(b, TargetOf(server, bucket, ""))
		defer func() { _ = s.Close() }()
		if _, err := s.Create(b.Context(), "get", known); err != nil {
			b.Fatal(err)
		}
		p := make([]byte, benchSize)
		measure(b, func() error {
			_, _, err := s.ReadAt(b.Context(), "get", p, 0)
			return err
		})
	})
}

// measure runs op and reports this process's CPU time for each.
func measure(b *testing.B, op func() error) {
	b.SetBytes(benchSize)
	b.ReportAllocs()
	before := cpuTime(b)
	for b.Loop() {
		if err := op(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric((cpuTime(b)-before)/float64(b.N)*1e3, "cpu-ms/op")
}

// cpuTime is the user and system time of this process in seconds.
func cpuTime(b *testing.B) float64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return float64(u.Utime.Nano()+u.Stime.Nano()) / 1e9
}
