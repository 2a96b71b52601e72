package wire

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/tierlog/tierlog/membuf"
)

// The CPU time reported is that of both ends; compare with BenchmarkFloor, where the server only reads frames into one
// buffer and writes answers.

var benchSizes = []int{200, 16 << 10, 1 << 20}

func benchClient(b *testing.B, addr string, size int) {
	b.Helper()
	nc, err := (&net.Dialer{}).DialContext(b.Context(), "tcp", addr)
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = nc.Close() }()
	one := produce(1, size)
	batch := one
	per := 1
	for len(batch)+len(one) < 64<<10 {
		batch = append(batch, one...)
		per++
	}
	b.SetBytes(int64(len(one)))
	b.ReportAllocs()
	before := cpuTime()
	b.ResetTimer()
	window := make(chan struct{}, 5) // batches in flight
	go func() {
		for sent := 0; sent < b.N; sent += per {
			window <- struct{}{}
			if _, err := nc.Write(batch[:min(per, b.N-sent)*len(one)]); err != nil {
				b.Error(err)
				return
			}
		}
	}()
	in := make([]byte, 64<<10)
	const answerSize = 4 + 4 + 48
	for got, done := 0, 0; done < b.N; {
		n, err := nc.Read(in)
		if err != nil {
			b.Fatal(err)
		}
		for got += n; got >= answerSize && done < b.N; got -= answerSize {
			if done++; done%per == 0 || done == b.N {
				<-window
			}
		}
	}
	b.StopTimer()
	used := cpuTime() - before
	b.ReportMetric(float64(used.Milliseconds())/(float64(b.N)*float64(len(one))/(1<<30)), "cpu-ms/GiB")
	b.ReportMetric(float64(used.Nanoseconds())/float64(b.N), "cpu-ns/op")
}

func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func listen(b *testing.B) net.Listener {
	b.Helper()
	ln, err := (&net.ListenConfig{}).Listen(b.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	return ln
}

// BenchmarkProduce has replies completed by another goroutine, as the flush does.
func BenchmarkProduce(b *testing.B) {
	body := make([]byte, 48)
	parts := [][]byte{body}
	for _, size := range benchSizes {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			flush := make(chan *Reply, 1<<10)
			go func() {
				for r := range flush {
					r.req.Buf.Release()
					r.SendParts(parts, nil)
				}
			}()
			srv, err := New(Config{
				Handler: handlerFunc(func(_ context.Context, req *Request, reply *Reply) error {
					reply.Pipeline()
					req.Buf.Retain()
					flush <- reply
					return nil
				}),
				Pool: membuf.NewPool(64 << 20), Budget: membuf.NewBudget(64 << 20), Now: time.Now,
			})
			if err != nil {
				b.Fatal(err)
			}
			ln := listen(b)
			served := make(chan error, 1)
			go func() { served <- srv.Serve(b.Context(), ln) }()
			benchClient(b, ln.Addr().String(), size)
			if err := srv.Shutdown(b.Context()); err != nil {
				b.Fatal(err)
			}
			if err := <-served; !errors.Is(err, ErrServerClosed) {
				b.Fatal(err)
			}
			close(flush)
		})
	}
}

// BenchmarkFloor is what the sockets cost.
func BenchmarkFloor(b *testing.B) {
	for _, size := range benchSizes {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			ln := listen(b)
			defer func() { _ = ln.Close() }()
			go func() {
				nc, err := ln.Accept()
				if err != nil {
					return
				}
				in := make([]byte, max(64<<10, 4+18+size))
				frame := len(produce(1, size))
				out := make([]byte, 1<<20)
				for got := 0; ; {
					n, err := nc.Read(in)
					if err != nil {
						return
					}
					got += n
					k := got / frame
					got %= frame
					if _, err := nc.Write(out[:k*56]); err != nil {
						return
					}
				}
			}()
			benchClient(b, ln.Addr().String(), size)
		})
	}
}

// BenchmarkFetch writes responses of 1 MiB in 64 parts.
func BenchmarkFetch(b *testing.B) {
	part := make([]byte, 16<<10)
	parts := make([][]byte, 64)
	for i := range parts {
		parts[i] = part
	}
	srv, err := New(Config{
		Handler: handlerFunc(func(_ context.Context, _ *Request, reply *Reply) error {
			reply.Pipeline()
			reply.SendParts(parts, func() {})
			return nil
		}),
		Pool: membuf.NewPool(64 << 20), Budget: membuf.NewBudget(64 << 20), Now: time.Now,
	})
	if err != nil {
		b.Fatal(err)
	}
	ln := listen(b)
	served := make(chan error, 1)
	go func() { served <- srv.Serve(b.Context(), ln) }()
	nc, err := (&net.Dialer{}).DialContext(b.Context(), "tcp", ln.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	ask := frame(keyFetch, 4, 1, make([]byte, 100))
	in := make([]byte, 1<<20+8)
	b.SetBytes(1 << 20)
	b.ReportAllocs()
	before := cpuTime()
	for b.Loop() {
		if _, err := nc.Write(ask); err != nil {
			b.Fatal(err)
		}
		if _, err := io.ReadFull(nc, in); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64((cpuTime()-before).Milliseconds())/(float64(b.N)/1024), "cpu-ms/GiB")
	if binary.BigEndian.Uint32(in) != 1<<20+4 {
		b.Fatalf("response of %d bytes", binary.BigEndian.Uint32(in))
	}
	_ = nc.Close()
	if err := srv.Shutdown(b.Context()); err != nil {
		b.Fatal(err)
	}
	if err := <-served; !errors.Is(err, ErrServerClosed) {
		b.Fatal(err)
	}
}
