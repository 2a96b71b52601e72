package wire

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tierlog/tierlog/membuf"
)

func TestShutdownAnswersWhatWasRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var q queue
		f := start(t, q.pipelined, nil)
		idle, waiting, cut := f.dial(), f.dial(), f.dial()
		waiting.send(produce(1, 1), produce(2, 1))
		cut.send(produce(1, 1), produce(2, 50_000)[:10_000])
		rs := q.all()
		down := make(chan error, 1)
		go func() { down <- f.srv.Shutdown(t.Context()) }()
		idle.expectEnd()
		_ = idle.Close()
		waiting.send(produce(3, 1)) // too late: not read
		if n := len(q.all()); n != 3 {
			t.Fatalf("%d requests handled, want 3", n)
		}
		time.Sleep(time.Minute)
		for _, r := range rs {
			ok(r)
		}
		waiting.expect(1, 2)
		waiting.expectEnd()
		_ = waiting.Close()
		cut.expect(1)
		cut.expectEnd()
		_ = cut.Close()
		if err := <-down; err != nil {
			t.Fatalf("Shutdown: %v", err)
		}
		if err := <-f.served; !errors.Is(err, ErrServerClosed) {
			t.Fatalf("Serve: %v", err)
		}
		if err := f.srv.Serve(t.Context(), newMemListener()); !errors.Is(err, ErrServerClosed) {
			t.Fatalf("Serve after Shutdown: %v", err)
		}
		if err := f.srv.Shutdown(t.Context()); err != nil {
			t.Fatalf("second Shutdown: %v", err)
		}
		f.clean()
		if f.obs.ended(ReasonShutdown) != 3 || len(f.logs.all()) != 0 {
			t.Fatalf("ended %v, logs %q", f.obs.closed, f.logs.all())
		}
	})
}

func TestShutdownWaitsForSerialRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var q queue
		f := start(t, q.serial, nil)
		c := f.dial()
		c.send(frame(keyJoin, 5, 1, nil), frame(keyJoin, 5, 2, nil))
		rs := q.all()
		down := make(chan error, 1)
		go func() { down <- f.srv.Shutdown(t.Context()) }()
		time.Sleep(time.Second)
		ok(rs[0])
		c.expect(1)
		c.expectEnd()
		_ = c.Close()
		if err := <-down; err != nil || len(q.all()) != 1 {
			t.Fatalf("Shutdown: %v, %d requests handled", err, len(q.all()))
		}
		f.stop()
	})
}

func TestShutdownGivesUpWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var q queue
		f := start(t, q.pipelined, func(c *Config) { c.Budget = membuf.NewBudget(8000) })
		a, b := f.dial(), f.dial()
		a.send(produce(1, 1))
		b.send(produce(1, 5000)) // waits for the budget
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		began := time.Now()
		if err := f.srv.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != 5*time.Second {
			t.Fatalf("Shutdown: %v after %v", err, time.Since(began))
		}
		if _, err := io.ReadAll(a); err != nil {
			t.Fatal(err)
		}
		f.stop()
		if ok(q.all()[0]) {
			t.Fatal("a reply of a closed connection was accepted")
		}
	})
}

func TestServeEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var q queue
		var gone error
		f := start(t, func(ctx context.Context, req *Request, reply *Reply) error {
			context.AfterFunc(ctx, func() { gone = context.Cause(ctx) })
			return q.pipelined(ctx, req, reply)
		}, nil)
		c := f.dial()
		c.send(produce(1, 1))
		synctest.Wait()
		f.stop()
		if gone == nil || f.obs.ended(ReasonShutdown) != 1 {
			t.Fatalf("handler's context: %v, ended %v", gone, f.obs.closed)
		}
		c.expectEnd()
	})
}

func TestHandlersContextEndsWithThePeer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var q queue
		gone := false
		f := start(t, func(ctx context.Context, req *Request, reply *Reply) error {
			context.AfterFunc(ctx, func() { gone = true })
			return q.pipelined(ctx, req, reply)
		}, nil)
		defer f.stop()
		c := f.dial()
		c.send(frame(keyFetch, 4, 1, nil))
		synctest.Wait()
		_ = c.Close()
		synctest.Wait()
		if !gone || f.obs.ended(ReasonPeer) != 1 {
			t.Fatalf("context done %v, ended %v", gone, f.obs.closed)
		}
	})
}

func TestReadyResponsesReachAPeerThatStoppedSending(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, echo, nil)
		defer f.stop()
		c := f.dial()
		c.send(frame(keyFetch, 4, 1, nil), frame(keyFetch, 4, 2, nil))
		_ = c.closeWrite()
		c.expect(1, 2)
		c.expectEnd()
	})
}

func TestConnectionLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, echo, func(c *Config) { c.MaxConnections, c.MaxConnectionsPerIP = 3, 2 })
		defer f.stop()
		dial := func(addr string) *client { return &client{t, f.ln.dial(addr, 1000)} }
		works := func(c *client) {
			t.Helper()
			c.send(frame(keyFetch, 4, 1, nil))
			c.expect(1)
		}
		a1, a2 := dial("10.0.0.1:1"), dial("10.0.0.1:2")
		works(a1)
		works(a2)
		dial("10.0.0.1:3").expectEnd()
		b := dial("10.0.0.2:1")
		works(b)
		for range 100 {
			dial("10.0.0.3:1").expectEnd()
		}
		if n := len(f.logs.all()); n < 2 || n > 20 {
			t.Fatalf("%d log lines for 101 refused connections", n)
		}
		if first := f.logs.all()[0]; !strings.Contains(first, "limit of the peer's address") || !strings.Contains(first, "10.0.0.1:3") {
			t.Fatalf("log line %q", first)
		}
		_ = a1.Close()
		synctest.Wait()
		works(dial("10.0.0.1:4"))
		if f.obs.refused != 101 || f.obs.opened != 4 {
			t.Fatalf("%d refused, %d opened", f.obs.refused, f.obs.opened)
		}
	})
}

func TestAcceptGoesOnAfterPassingErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, echo, nil)
		defer f.stop()
		for range 10 {
			f.ln.errs <- &net.OpError{Op: "accept", Err: syscall.EMFILE}
		}
		began := time.Now()
		time.Sleep(2 * time.Minute)
		c := f.dial()
		c.send(frame(keyFetch, 4, 1, nil))
		c.expect(1)
		if len(f.logs.all()) == 0 || time.Since(began) != 2*time.Minute {
			t.Fatalf("logs %q after %v", f.logs.all(), time.Since(began))
		}
	})
}

func TestServeReturnsAListenersFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, echo, nil)
		c := f.dial()
		c.send(frame(keyFetch, 4, 1, nil))
		c.expect(1)
		broken := errors.New("broken listener")
		f.ln.errs <- broken
		if err := <-f.served; !errors.Is(err, broken) {
			t.Fatalf("Serve: %v", err)
		}
		c.expectEnd()
		f.clean()
	})
}

func TestConfigIsValidated(t *testing.T) {
	good := Config{Handler: handlerFunc(echo), Pool: membuf.NewPool(1), Budget: membuf.NewBudget(1), Now: time.Now}
	if err := good.Validate(); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		field string
		edit  func(*Config)
	}{
		{"Handler", func(c *Config) { c.Handler = nil }},
		{"Pool", func(c *Config) { c.Pool = nil }},
		{"Budget", func(c *Config) { c.Budget = nil }},
		{"Now", func(c *Config) { c.Now = nil }},
		{"MaxRequestBytes is 7", func(c *Config) { c.MaxRequestBytes = 7 }},
		{"MaxConnections is -1", func(c *Config) { c.MaxConnections = -1 }},
		{"MaxConnectionsPerIP is -1", func(c *Config) { c.MaxConnectionsPerIP = -1 }},
		{"MaxPending is -1", func(c *Config) { c.MaxPending = -1 }},
		{"BodyTimeout is -1s", func(c *Config) { c.BodyTimeout = -time.Second }},
		{"WriteTimeout is -1s", func(c *Config) { c.WriteTimeout = -time.Second }},
		{"Versions has key 1 with range 4 to 3", func(c *Config) { c.Handler = badVersions{} }},
	} {
		bad := good
		tc.edit(&bad)
		if _, err := New(bad); err == nil || !strings.Contains(err.Error(), tc.field) {
			t.Errorf("%s: %v", tc.field, err)
		}
	}
}

type badVersions struct{ handlerFunc }

func (badVersions) Versions() map[int16]Range { return map[int16]Range{1: {4, 3}} }

// TestOverTCP runs requests and vectored responses over real sockets.
func TestOverTCP(t *testing.T) {
	big := bytes.Repeat([]byte("0123456789abcdef"), 1<<18) // 4 MiB
	parts := func() (p [][]byte) {
		for rest := big; len(rest) > 0; rest = rest[min(len(rest), 3000):] {
			p = append(p, rest[:min(len(rest), 3000)])
		}
		return p
	}()
	srv, err := New(Config{
		Handler: handlerFunc(func(ctx context.Context, req *Request, reply *Reply) error {
			reply.Pipeline()
			if req.Key == keyFetch {
				reply.SendParts(parts, nil)
				return nil
			}
			return echo(ctx, req, reply)
		}),
		Pool: membuf.NewPool(16 << 20), Budget: membuf.NewBudget(16 << 20), Now: time.Now,
	})
	if err != nil {
		t.Fatal(err)
	}
	ln, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(t.Context(), ln) }()
	nc, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = nc.Close() }()
	c := &client{t, nc}
	go func() {
		for i := range int32(40) {
			if i%2 == 0 {
				c.send(frame(keyProduce, 7, i, big[:100_000*i]))
			} else {
				c.send(frame(keyFetch, 4, i, nil))
			}
		}
	}()
	for i := range 40 {
		want := big
		if i%2 == 0 {
			want = big[:100_000*i]
		}
		if b := c.recv(); binary.BigEndian.Uint32(b) != uint32(i) || !bytes.Equal(b[4:], want) {
			t.Fatalf("response %d: id %d, %d bytes, want %d", i, binary.BigEndian.Uint32(b), len(b)-4, len(want))
		}
	}
	if err := srv.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-served; !errors.Is(err, ErrServerClosed) {
		t.Fatal(err)
	}
	if _, err := nc.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Fatalf("after shutdown: %v", err)
	}
}

func TestReasonsOfErrors(t *testing.T) {
	for err, want := range map[error]Reason{
		io.ErrUnexpectedEOF:                           ReasonNetwork,
		errDraining:                                   ReasonShutdown,
		fmt.Errorf("wrapped: %w", errPeerClosed):      ReasonPeer,
		recovered("x"):                                ReasonPanic,
		ending(ReasonSlow, errors.New("not reading")): ReasonSlow,
	} {
		if got := reasonOf(err); got != want {
			t.Errorf("%v: %s, want %s", err, got, want)
		}
	}
}

func TestHandlersCanCloseTheConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var q queue
		f := start(t, q.pipelined, nil)
		defer f.stop()
		c := f.dial()
		c.send(produce(1, 1), produce(2, 1))
		rs := q.all()
		rs[0].req.Conn.Close(errors.New("no longer wanted"))
		c.expectEnd()
		synctest.Wait()
		f.logs.one(t, "no longer wanted", "10.0.0.1:4711")
		if ok(rs[1]) || f.obs.ended(ReasonHandler) != 1 {
			t.Fatalf("ended %v", f.obs.closed)
		}
	})
}
