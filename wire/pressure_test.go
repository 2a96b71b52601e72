package wire

import (
	"bytes"
	"context"
	"encoding/binary"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tierlog/tierlog/membuf"
)

func TestFullBudgetStopsReadingUntilMemoryIsReleased(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var bufs []*Request
		f := start(t, func(ctx context.Context, req *Request, reply *Reply) error {
			if req.Key == keyProduce {
				req.Buf.Retain()
				bufs = append(bufs, req)
			}
			return echo(ctx, req, reply)
		}, nil)
		defer f.stop()
		if err := f.budget.Acquire(t.Context(), f.budget.Limit()-150_000); err != nil {
			t.Fatal(err)
		}
		defer f.budget.Release(f.budget.Limit() - 150_000)
		a, b := f.dial(), f.dial()
		a.send(produce(1, 50_000))
		a.expect(1)
		sent := make(chan struct{})
		go func() {
			defer close(sent)
			a.send(produce(2, 50_000), produce(3, 50_000), produce(4, 50_000))
		}()
		a.expect(2)
		time.Sleep(3 * time.Minute) // waiting for memory is no stall
		synctest.Wait()
		select {
		case <-sent:
			t.Fatal("all was read in spite of the full budget")
		default:
		}
		b.send(frame(keyFetch, 11, 9, nil), frame(keyMetadata, 1, 10, make([]byte, 60_000))) // others go on
		b.expect(9)
		b.expect(10)
		bufs[0].Buf.Release()
		a.expect(3)
		bufs[1].Buf.Release()
		a.expect(4)
		<-sent
		bufs[2].Buf.Release()
		bufs[3].Buf.Release()
	})
}

func TestFrameLargerThanTheBudgetIsServedAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, echo, func(c *Config) { c.Budget = membuf.NewBudget(10_000) })
		defer f.stop()
		c, d := f.dial(), f.dial()
		d.send(produce(1, 10)) // holds a chunk while idle
		d.expect(1)
		go c.send(produce(1, 10), produce(2, 100_000), produce(3, 10), frame(keyFetch, 4, 4, make([]byte, 2<<20)))
		for id := range int32(4) {
			c.expect(id + 1)
		}
	})
}

func TestPeerThatDoesNotReadIsClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		released := 0
		f := start(t, func(_ context.Context, _ *Request, reply *Reply) error {
			reply.Pipeline()
			reply.SendParts([][]byte{make([]byte, 50_000), make([]byte, 50_000)}, func() { released++ })
			return nil
		}, nil)
		defer f.stop()
		c := f.dial()
		c.send(produce(1, 1), produce(2, 1), produce(3, 1))
		began := time.Now()
		for f.srv.Connections() == 0 {
			time.Sleep(time.Millisecond)
		}
		for f.srv.Connections() > 0 {
			time.Sleep(time.Second)
		}
		if took := time.Since(began); took < 60*time.Second || took > 122*time.Second {
			t.Fatalf("closed after %v", took)
		}
		synctest.Wait()
		f.logs.one(t, "slow", "read nothing")
		if released != 3 || f.obs.ended(ReasonSlow) != 1 {
			t.Fatalf("%d releases of 3, ended %v", released, f.obs.closed)
		}
	})
}

func TestSlowReaderThatReadsIsServed(t *testing.T) {
	for _, inPlace := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			part := bytes.Repeat([]byte("0123456789abcdef"), 200_000/16)
			if !inPlace {
				part = part[:copyLimit]
			}
			f := start(t, func(_ context.Context, _ *Request, reply *Reply) error {
				reply.Pipeline()
				reply.SendParts([][]byte{part[:100], part[100:]}, nil)
				return nil
			}, nil)
			defer f.stop()
			c := &client{t, f.ln.dial("10.0.0.1:1", 1000)}
			want := 0
			for i := range int32(20) {
				c.send(frame(keyFetch, 4, i, nil))
				want += len(part) + 8
			}
			var got []byte
			for len(got) < want {
				buf := make([]byte, 3000)
				n, err := c.Read(buf)
				if err != nil {
					t.Fatalf("after %d of %d bytes: %v", len(got), want, err)
				}
				got = append(got, buf[:n]...)
				time.Sleep(50 * time.Second)
			}
			for i := range 20 {
				one := got[i*(len(part)+8):][:len(part)+8]
				if binary.BigEndian.Uint32(one[4:]) != uint32(i) || !bytes.Equal(one[8:], part) {
					t.Fatalf("response %d damaged", i)
				}
			}
		})
	}
}

func TestIdleConnectionsAreClosedUnlessTheyWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var q queue
		f := start(t, q.pipelined, func(c *Config) { c.IdleTimeout = 10 * time.Minute })
		defer f.stop()
		began := time.Now()
		silent, waiting, busy := f.dial(), f.dial(), f.dial()
		waiting.send(produce(1, 1))
		synctest.Wait()
		ended := make(chan time.Duration, 1)
		go func() {
			silent.expectEnd()
			ended <- time.Since(began)
		}()
		for i := range 6 {
			busy.send(frame(keyFetch, 4, int32(i), nil))
			rs := q.all()
			ok(rs[len(rs)-1])
			busy.expect(int32(i))
			time.Sleep(9 * time.Minute)
		}
		if took := <-ended; took < 10*time.Minute || took > 10*time.Minute+time.Second {
			t.Fatalf("silent connection closed after %v", took)
		}
		ok(q.all()[0])
		waiting.expect(1)
		answered := time.Now()
		busy.expectEnd()
		waiting.expectEnd()
		if took := time.Since(answered); took < 10*time.Minute || took > 10*time.Minute+time.Second {
			t.Fatalf("closed %v after the last response", took)
		}
		time.Sleep(2 * lingerTimeout)
		if f.obs.ended(ReasonIdle) != 3 || len(f.logs.all()) != 0 {
			t.Fatalf("ended %v, logs %q", f.obs.closed, f.logs.all())
		}
	})
}

func TestIdleTimeoutCanBeOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, echo, func(c *Config) { c.IdleTimeout = -1 })
		defer f.stop()
		c := f.dial()
		for range 3 {
			c.send(produce(1, 1))
			c.expect(1)
			time.Sleep(1000 * time.Hour)
		}
	})
}

func TestLargeResponsesAreReleasedOneByOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var q queue
		f := start(t, q.pipelined, nil)
		defer f.stop()
		c := f.dial()
		c.send(produce(1, 1), produce(2, 1))
		released := [2]bool{}
		for i, r := range slices.Backward(q.all()) {
			r.SendParts([][]byte{make([]byte, 40_000)}, func() { released[i] = true })
		}
		synctest.Wait() // the window holds one and a half
		if released != [2]bool{true, false} {
			t.Fatalf("released %v", released)
		}
		c.expect(1, 2)
		synctest.Wait()
		if !released[1] {
			t.Fatal("the second response was not released")
		}
	})
}
