package wire

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// queue is a handler that keeps replies for the test to complete.
type queue struct {
	mu      sync.Mutex
	replies []*Reply
}

func (q *queue) pipelined(_ context.Context, _ *Request, reply *Reply) error {
	reply.Pipeline()
	q.keep(reply)
	return nil
}

func (q *queue) serial(_ context.Context, _ *Request, reply *Reply) error {
	q.keep(reply)
	return nil
}

func (q *queue) keep(reply *Reply) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.replies = append(q.replies, reply)
}

func (q *queue) all() []*Reply {
	synctest.Wait()
	q.mu.Lock()
	defer q.mu.Unlock()
	return slices.Clone(q.replies)
}

func ok(r *Reply) bool { return r.SendParts([][]byte{[]byte("ok")}, nil) }

func TestPipelinedRequestsAreAllHandledAndAnsweredInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var q queue
		f := start(t, q.pipelined, nil)
		defer f.stop()
		c := f.dial()
		c.send(produce(1, 10), produce(2, 10_000), produce(3, 30_000), produce(4, 5), produce(5, 5))
		rs := q.all()
		if len(rs) != 5 {
			t.Fatalf("%d requests handled before the first is answered, want 5", len(rs))
		}
		for _, i := range []int{4, 2, 1, 3} {
			ok(rs[i])
		}
		synctest.Wait()
		if n := len(f.obs.done()); n != 0 {
			t.Fatalf("%d responses left before the first", n)
		}
		ok(rs[0])
		c.expect(1, 2, 3, 4, 5)
	})
}

func TestOtherRequestsAreHandledOneAfterTheOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var q queue
		f := start(t, func(ctx context.Context, req *Request, reply *Reply) error {
			if req.Key == keyProduce {
				return q.pipelined(ctx, req, reply)
			}
			return q.serial(ctx, req, reply)
		}, nil)
		defer f.stop()
		c := f.dial()
		c.send(produce(1, 1), frame(keyJoin, 5, 2, nil), produce(3, 1), frame(keyMetadata, 1, 4, nil))
		if rs := q.all(); len(rs) != 2 {
			t.Fatalf("%d handled, want the first two", len(rs))
		}
		ok(q.all()[1])
		if rs := q.all(); len(rs) != 4 {
			t.Fatalf("%d handled after the second was completed, want 4", len(rs))
		}
		for _, i := range []int{3, 2, 0} {
			ok(q.all()[i])
		}
		c.expect(1, 2, 3, 4)
	})
}

func TestOnlyTheFirstCompletionCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var q queue
		f := start(t, q.pipelined, nil)
		defer f.stop()
		c := f.dial()
		c.send(produce(1, 1), produce(2, 1))
		rs := q.all()
		released := 0
		count := func() { released++ }
		if !rs[1].SendParts([][]byte{[]byte("first")}, count) || rs[1].SendParts([][]byte{[]byte("second")}, count) || rs[1].Fail(nil) || rs[1].SendNothing() {
			t.Fatal("the first completion must be the only one")
		}
		if released != 1 {
			t.Fatalf("%d releases before the response is written, want that of the second completion", released)
		}
		ok(rs[0])
		c.expect(1)
		if b := c.recv(); string(b[4:]) != "first" {
			t.Fatalf("response %q", b[4:])
		}
		synctest.Wait()
		if ok(rs[0]) || released != 2 {
			t.Fatalf("completed after it was written, or %d releases", released)
		}
	})
}

func TestRepliesWithoutResponseAreSkipped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var q queue
		f := start(t, q.pipelined, nil)
		defer f.stop()
		c := f.dial()
		c.send(produce(1, 1), produce(2, 1), produce(3, 1), produce(4, 1), produce(5, 1))
		rs := q.all()
		ok(rs[2])
		rs[3].SendNothing()
		rs[1].SendNothing()
		rs[0].SendNothing()
		c.expect(3)
		ok(rs[4])
		c.expect(5)
		for _, s := range f.obs.done() {
			if !s.Sent || s.BytesIn != len(produce(1, 1)) || (s.BytesOut != 0 && s.BytesOut != 10) {
				t.Fatalf("sample %+v", s)
			}
		}
	})
}

func TestMessagesAreEncodedWithTheirHeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, func(_ context.Context, req *Request, reply *Reply) error {
			resp := kmsg.ResponseForKey(req.Key)
			resp.SetVersion(req.Version)
			switch r := resp.(type) {
			case *kmsg.MetadataResponse:
				r.ControllerID = 42
			case *kmsg.ApiVersionsResponse:
				r.ThrottleMillis = 42
			}
			reply.Send(resp)
			return nil
		}, nil)
		defer f.stop()
		c := f.dial()
		for _, version := range []int16{1, 8, 9, 12} {
			c.send(frame(keyMetadata, version, 1, nil))
			b := c.recv()[4:]
			if version >= 9 {
				if b[0] != 0 {
					t.Fatalf("version %d: response header %x", version, b)
				}
				b = b[1:]
			}
			var resp kmsg.MetadataResponse
			resp.Version = version
			if err := resp.ReadFrom(b); err != nil || resp.ControllerID != 42 {
				t.Fatalf("version %d: %+v, %v", version, resp, err)
			}
		}
		c.send(frame(keyAPIVersions, 3, 1, nil))
		var resp kmsg.ApiVersionsResponse
		resp.Version = 3
		if err := resp.ReadFrom(c.recv()[4:]); err != nil || resp.ThrottleMillis != 42 {
			t.Fatalf("ApiVersions 3: %+v, %v", resp, err)
		}
	})
}

func TestReadyResponsesLeaveTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var q queue
		f := start(t, q.pipelined, nil)
		defer f.stop()
		near, far := memPipe("10.0.0.1:1", 64<<10)
		f.ln.conns <- far
		c := &client{t, near}
		for i := range int32(50) {
			c.send(produce(i, 1))
		}
		rs := q.all()
		for _, r := range slices.Backward(rs) {
			ok(r)
		}
		for i := range int32(50) {
			c.expect(i)
		}
		if n := far.writeCalls(); n != 1 {
			t.Fatalf("%d writes for 50 responses that were ready together", n)
		}
	})
}

func TestPendingRepliesAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var q queue
		f := start(t, q.pipelined, func(c *Config) { c.MaxPending = 3 })
		defer f.stop()
		c := f.dial()
		for i := range int32(10) {
			c.send(produce(i, 1))
		}
		for n := range 7 {
			rs := q.all()
			if len(rs) != n+3 {
				t.Fatalf("%d requests handled after %d responses, want %d", len(rs), n, n+3)
			}
			ok(rs[n])
			c.expect(int32(n))
		}
		for _, r := range q.all()[7:] {
			ok(r)
		}
		c.expect(7, 8, 9)
	})
}

func TestDeadlines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var q queue
		began := time.Now()
		f := start(t, func(ctx context.Context, req *Request, reply *Reply) error {
			ms, _ := strconv.Atoi(string(req.Body))
			if ms > 0 {
				reply.OnDeadline(time.Duration(ms)*time.Millisecond, func() {
					reply.SendParts([][]byte{fmt.Appendf(nil, "late %v", time.Since(began))}, nil)
				})
			}
			return q.pipelined(ctx, req, reply)
		}, nil)
		defer f.stop()
		c := f.dial()
		for i, ms := range []string{"300", "100", "0", "2000", "600"} {
			c.send(frame(keyProduce, 7, int32(i), []byte(ms)))
		}
		want := func(id int32, body string) {
			t.Helper()
			if b := c.recv(); int32(binary.BigEndian.Uint32(b)) != id || string(b[4:]) != body {
				t.Fatalf("response %d %q, want %d %q", binary.BigEndian.Uint32(b), b[4:], id, body)
			}
		}
		want(0, "late 300ms")
		want(1, "late 300ms") // passed while it was not its turn
		time.Sleep(time.Second)
		rs := q.all()
		ok(rs[2])
		want(2, "ok")
		time.Sleep(100 * time.Millisecond) // 1.4 s
		ok(rs[3])                          // in time
		want(3, "ok")
		want(4, "late 1.4s") // its deadline passed before its turn
		if ok(rs[4]) {
			t.Fatal("completed after its deadline was answered")
		}
		// A later request with an earlier deadline than the armed timer.
		c.send(frame(keyProduce, 7, 5, []byte("5000")))
		synctest.Wait()
		ok(q.all()[5])
		want(5, "ok")
		c.send(frame(keyProduce, 7, 6, []byte("10")))
		want(6, "late 1.41s")
		time.Sleep(10 * time.Second)
	})
}

func TestErrorsAndPanicsEndOnlyTheirConnection(t *testing.T) {
	for _, tc := range []struct {
		name   string
		fail   func(reply *Reply) error
		reason Reason
		says   string
	}{
		{"error", func(*Reply) error { return errors.New("no such thing") }, ReasonHandler, "no such thing"},
		{"panic", func(*Reply) error { panic("oh no") }, ReasonPanic, "TestErrorsAndPanics"},
		{"fail", func(r *Reply) error { r.Fail(errors.New("it failed")); return nil }, ReasonHandler, "it failed"},
		{"unencodable message", func(r *Reply) error { r.Send((*kmsg.MetadataResponse)(nil)); return nil }, ReasonPanic, "AppendTo"},
		{"fails later", func(r *Reply) error {
			r.Pipeline()
			time.AfterFunc(time.Second, func() { r.Fail(errors.New("failed later")) })
			return nil
		}, ReasonHandler, "failed later"},
		{"panics at the deadline", func(r *Reply) error {
			r.Pipeline()
			r.OnDeadline(time.Second, func() { panic("late") })
			return nil
		}, ReasonPanic, "guard"},
		{"panics in release", func(r *Reply) error {
			r.SendParts(nil, func() { panic("release") })
			r.OnDeadline(time.Second, func() { t.Error("deadline of a completed reply") })
			return nil
		}, ReasonPanic, "guard"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var q queue
				f := start(t, func(ctx context.Context, req *Request, reply *Reply) error {
					if string(req.Body) == "bad" {
						return tc.fail(reply)
					}
					return q.pipelined(ctx, req, reply)
				}, nil)
				defer f.stop()
				good, bad := f.dial(), f.dial()
				good.send(produce(1, 1))
				synctest.Wait()
				bad.send(produce(2, 1), frame(keyProduce, 7, 3, []byte("bad")), produce(4, 1))
				rs := q.all()
				if len(rs) < 2 {
					t.Fatalf("%d requests handled", len(rs))
				}
				time.Sleep(2 * time.Second)
				ok(rs[1])
				bad.expect(2)
				rest, _ := io.ReadAll(bad)
				if len(rest) > 0 && tc.name != "panics in release" {
					t.Fatalf("%d bytes after the failed request", len(rest))
				}
				ok(rs[0])
				good.expect(1)
				_ = bad.Close()
				synctest.Wait()
				f.logs.one(t, tc.says)
				if f.obs.ended(tc.reason) != 1 {
					t.Fatalf("ended %v, want one %s", f.obs.closed, tc.reason)
				}
			})
		})
	}
}

// Every way in which a reply can end runs its release once. Seeded: connections that die at any moment, replies
// completed early, late, twice or never before the connection is gone.
func TestReleaseRunsExactlyOnce(t *testing.T) {
	for seed := range uint64(150) {
		synctest.Test(t, func(t *testing.T) {
			t.Logf("seed %d", seed)
			r := rand.New(rand.NewPCG(seed, 9))
			var mu sync.Mutex
			roll := func(n int) int {
				mu.Lock()
				defer mu.Unlock()
				return r.IntN(n)
			}
			var offered, released atomic.Int64
			var jobs sync.WaitGroup
			answer := func(reply *Reply) {
				var once atomic.Int64
				offered.Add(1)
				reply.SendParts([][]byte{make([]byte, roll(10)), make([]byte, roll(30_000))}, func() {
					if once.Add(1) != 1 {
						t.Error("released twice")
					}
					released.Add(1)
				})
			}
			f := start(t, func(_ context.Context, _ *Request, reply *Reply) error {
				if roll(3) > 0 {
					reply.Pipeline()
				}
				if roll(3) == 0 {
					reply.OnDeadline(time.Duration(roll(500))*time.Millisecond, func() { answer(reply) })
				}
				for range 1 + roll(2) {
					jobs.Go(func() {
						time.Sleep(time.Duration(roll(1000)) * time.Millisecond)
						answer(reply)
					})
				}
				switch roll(12) {
				case 0:
					return errors.New("some error")
				case 1:
					panic("some panic")
				case 2:
					reply.Fail(nil)
				case 3:
					reply.SendNothing()
				case 4:
					answer(reply)
				}
				return nil
			}, func(c *Config) { c.WriteTimeout, c.MaxPending = time.Second, 8 })
			for range 10 {
				c := &client{t, f.ln.dial("10.0.0.1:1", 10_000)}
				jobs.Go(func() {
					for range roll(20) {
						if _, err := c.Write(produce(1, roll(20_000))); err != nil {
							break
						}
						time.Sleep(time.Duration(roll(100)) * time.Millisecond)
					}
				})
				jobs.Go(func() {
					_ = c.SetReadDeadline(time.Now().Add(time.Duration(roll(3000)) * time.Millisecond))
					buf := make([]byte, 5000)
					for {
						if _, err := c.Read(buf); err != nil {
							break
						}
					}
					if roll(2) == 0 {
						time.Sleep(time.Duration(roll(5000)) * time.Millisecond)
					}
					_ = c.Close()
				})
			}
			if roll(2) == 0 {
				time.Sleep(time.Duration(roll(1500)) * time.Millisecond)
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(roll(1500))*time.Millisecond)
				_ = f.srv.Shutdown(ctx)
				cancel()
			}
			jobs.Wait()
			f.stop()
			if offered.Load() != released.Load() || offered.Load() == 0 {
				t.Fatalf("seed %d: %d release functions given, %d run", seed, offered.Load(), released.Load())
			}
		})
	}
}

func TestOversizedResponsesCloseTheConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		released := 0
		f := start(t, func(_ context.Context, _ *Request, reply *Reply) error {
			parts := slices.Repeat([][]byte{make([]byte, 1<<20)}, 2048)
			reply.SendParts(parts, func() { released++ })
			return nil
		}, nil)
		defer f.stop()
		c := f.dial()
		c.send(produce(1, 1))
		c.expectEnd()
		_ = c.Close()
		synctest.Wait()
		if released != 1 {
			t.Fatalf("%d releases", released)
		}
		f.logs.one(t, "does not fit a frame")
	})
}
