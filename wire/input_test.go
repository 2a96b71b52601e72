package wire

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

func TestGarbageClosesTheConnectionWithOneLine(t *testing.T) {
	random := make([]byte, 300)
	for i, r := 0, rand.New(rand.NewPCG(1, 2)); i < len(random); i++ {
		random[i] = byte(r.Uint32())
	}
	length := func(n int32) []byte { return binary.BigEndian.AppendUint32(nil, uint32(n)) }
	for _, tc := range []struct {
		name   string
		in     []byte
		reason Reason
		says   []string
	}{
		{"random", random, ReasonMalformed, []string{"no Kafka client"}},
		{"http get", []byte("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"), ReasonMalformed, []string{"HTTP"}},
		{"http post", []byte("POST / HTTP/1.1\r\n\r\n"), ReasonMalformed, []string{"HTTP"}},
		{"http2", []byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), ReasonMalformed, []string{"HTTP"}},
		{"tls", append([]byte{0x16, 0x03, 0x01, 0x02, 0x00, 0x01}, random...), ReasonMalformed, []string{"TLS"}},
		{"ssh", []byte("SSH-2.0-OpenSSH_9.2\r\n"), ReasonMalformed, []string{"SSH"}},
		{"2 GiB", length(1<<31 - 1), ReasonMalformed, []string{"2147483647"}},
		{"negative", length(-1), ReasonMalformed, []string{"-1"}},
		{"most negative", length(-1 << 31), ReasonMalformed, []string{"-2147483648"}},
		{"zero", length(0), ReasonMalformed, []string{"frame length 0"}},
		{"smaller than a header", length(7), ReasonMalformed, []string{"frame length 7"}},
		{"over the limit", length(100_001), ReasonMalformed, []string{"100001", "8 to 100000"}},
		{"unknown key", frame(999, 0, 1, nil), ReasonUnsupported, []string{"api key 999"}},
		{"negative key", frame(-1, 0, 1, nil), ReasonUnsupported, []string{"api key -1"}},
		{"key not served", frame(20, 1, 1, nil), ReasonUnsupported, []string{"api key 20"}},
		{"version too new", frame(keyMetadata, 14, 1, nil), ReasonUnsupported, []string{"Metadata", "version 14", "0 to 13"}},
		{"version too old", frame(keyFetch, 3, 1, nil), ReasonUnsupported, []string{"Fetch", "version 3", "4 to 18"}},
		{"negative version", frame(keyFetch, -1, 1, nil), ReasonUnsupported, []string{"version -1"}},
		{"huge frame of an unknown key", append(length(99_999), 0x7f, 0xff, 0, 0, 0, 0, 0, 1), ReasonUnsupported, []string{"32767"}},
		{"client id beyond the frame", append(length(10), 0, 3, 0, 1, 0, 0, 0, 1, 0, 9), ReasonMalformed, []string{"client id of 9 bytes"}},
		{"no client id", append(length(8), 0, 3, 0, 1, 0, 0, 0, 1), ReasonMalformed, []string{"no client id"}},
		{"tags beyond the frame", append(length(13), 0, 3, 0, 9, 0, 0, 0, 1, 0xff, 0xff, 1, 0, 9), ReasonMalformed, []string{"tagged field of 9 bytes"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := start(t, echo, func(c *Config) { c.MaxRequestBytes = 100_000 })
				defer f.stop()
				c := f.dial()
				c.send(tc.in)
				c.expectEnd()
				_ = c.Close()
				synctest.Wait()
				f.logs.one(t, tc.says...)
				if f.obs.ended(tc.reason) != 1 || f.handled() != 0 {
					t.Fatalf("ended %v, %d requests handled; want one %s and none", f.obs.closed, f.handled(), tc.reason)
				}
			})
		})
	}
}

func TestGarbageDoesNotFloodTheLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, echo, nil)
		defer f.stop()
		for range 500 {
			c := f.dial()
			c.send([]byte("GET / HTTP/1.1\r\n\r\n"))
			c.expectEnd()
			_ = c.Close()
		}
		synctest.Wait()
		if n := len(f.logs.all()); n < 1 || n > 20 {
			t.Fatalf("%d log lines for 500 bad connections", n)
		}
	})
}

func TestRequestsBeforeGarbageAreAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var first *Reply
		f := start(t, func(_ context.Context, _ *Request, reply *Reply) error {
			reply.Pipeline()
			first = reply
			return nil
		}, nil)
		defer f.stop()
		c := f.dial()
		c.send(produce(7, 10), frame(999, 0, 1, nil), make([]byte, 500)) // more input is never read
		synctest.Wait()
		first.SendParts([][]byte{[]byte("ok")}, nil)
		c.expect(7)
		c.expectEnd()
	})
}

// Every prefix of a frame, followed by the peer's close, ends the connection and is not handled.
func TestCutFramesAreNotHandled(t *testing.T) {
	for _, full := range [][]byte{produce(1, 40), frame(keyProduce, 9, 1, make([]byte, 30)), frame(keyMetadata, 9, 1, make([]byte, 20))} {
		for cut := range full {
			synctest.Test(t, func(t *testing.T) {
				f := start(t, echo, nil)
				defer f.stop()
				c := f.dial()
				c.send(full[:cut])
				_ = c.closeWrite()
				c.expectEnd()
				synctest.Wait()
				want := ReasonNetwork
				if cut == 0 {
					want = ReasonPeer
				}
				if f.handled() != 0 || f.obs.ended(want) != 1 {
					t.Fatalf("cut at %d: %d handled, ended %v", cut, f.handled(), f.obs.closed)
				}
			})
		}
	}
}

// Every prefix of a frame, followed by silence, ends the connection after the body timeout, and gives its memory back.
func TestStalledFramesEndTheConnection(t *testing.T) {
	large := produce(1, 300_000)
	for _, full := range [][]byte{produce(1, 40), frame(keyMetadata, 9, 1, make([]byte, 20)), large} {
		for cut := 1; cut < len(full); cut += 1 + cut/40*1000 {
			synctest.Test(t, func(t *testing.T) {
				f := start(t, echo, nil)
				defer f.stop()
				began := time.Now()
				c := f.dial()
				c.send(full[:cut])
				c.expectEnd()
				_ = c.Close()
				synctest.Wait()
				took := time.Since(began)
				if f.obs.ended(ReasonStalled) != 1 || took < 30*time.Second || took > 35*time.Second {
					t.Fatalf("cut at %d: after %v, ended %v", cut, took, f.obs.closed)
				}
				f.logs.one(t, "stalled")
			})
		}
	}
}

func TestSlowFramesAreWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, echo, nil)
		defer f.stop()
		c := f.dial()
		full := produce(5, 40)
		for i := range full {
			c.send(full[i : i+1])
			time.Sleep(29 * time.Second)
		}
		c.expect(5)
	})
}

func TestLimitsOfFrameSizes(t *testing.T) {
	for _, size := range []int{0, 1, smallFrame - 20, smallFrame, smallFrame + 1, readBuffer * 2, 1 << 20} {
		for _, key := range []int16{keyProduce, keyFetch} {
			t.Run(fmt.Sprintf("key %d, %d bytes", key, size), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					f := start(t, echo, func(c *Config) { c.MaxRequestBytes = 1<<20 + 18 })
					defer f.stop()
					c := f.dial()
					body := make([]byte, size)
					for i := range body {
						body[i] = byte(i * 7)
					}
					go c.send(frame(key, 7, 1, body), frame(key, 7, 2, nil), frame(key, 7, 3, body))
					for id := range 3 {
						want := body
						if id == 1 {
							want = nil
						}
						if got := c.recv(); !bytes.Equal(got[4:], want) || got[3] != byte(id+1) {
							t.Fatalf("response %d: id %d, %d bytes, want %d", id+1, got[3], len(got)-4, len(want))
						}
					}
				})
			})
		}
	}
}

func TestHeadersOfAllVersionsAgreeWithKmsg(t *testing.T) {
	id := "a client"
	versions := map[int16]Range{}
	for key := int16(0); key <= kmsg.MaxKey; key++ {
		if req := kmsg.RequestForKey(key); req != nil {
			versions[key] = Range{0, req.MaxVersion()}
		}
	}
	table := newAPIs(versions)
	for i, format := range []*kmsg.RequestFormatter{kmsg.NewRequestFormatter(kmsg.FormatterClientID(id)), kmsg.NewRequestFormatter()} {
		for key, r := range versions {
			for v := r.Min; v <= r.Max; v++ {
				if key == keyControlledShutdown && v == 0 {
					continue // between brokers only; kmsg does not encode its body
				}
				req := kmsg.RequestForKey(key)
				req.SetVersion(v)
				full := format.AppendRequest(nil, req, 77)
				h, body, err := parseHeader(full[4:], table.flexibleRequest(key, v))
				if err != nil || h.correlationID != 77 {
					t.Fatalf("%s v%d: %+v, %v", kmsg.NameForKey(key), v, h, err)
				}
				if want := req.AppendTo(nil); !bytes.Equal(body, want) {
					t.Fatalf("%s v%d: body %x, want %x", kmsg.NameForKey(key), v, body, want)
				}
				wantID := id
				if i == 1 {
					wantID = ""
				}
				if string(h.clientID) != wantID {
					t.Fatalf("%s v%d: client id %q", kmsg.NameForKey(key), v, h.clientID)
				}
				if got, want := table.flexibleResponse(key, v), req.ResponseKind().IsFlexible() && key != keyAPIVersions; got != want {
					t.Fatalf("%s v%d: response header flexible %v, want %v", kmsg.NameForKey(key), v, got, want)
				}
			}
		}
	}
}

func TestApiVersionsOfAnUnknownVersionReachesTheHandler(t *testing.T) {
	for _, version := range []int16{5, 99, 32767, -1} {
		synctest.Test(t, func(t *testing.T) {
			f := start(t, func(_ context.Context, req *Request, reply *Reply) error {
				resp := kmsg.NewApiVersionsResponse()
				if req.Unsupported {
					resp.ErrorCode = 35
				}
				reply.Send(&resp)
				return nil
			}, nil)
			defer f.stop()
			c := f.dial()
			c.send(frame(keyAPIVersions, version, 3, []byte{0xff, 0xff, 0xff}), frame(keyAPIVersions, 0, 4, nil))
			for _, want := range []struct {
				id   uint32
				code int16
			}{{3, 35}, {4, 0}} {
				b := c.recv()
				var resp kmsg.ApiVersionsResponse
				if err := resp.ReadFrom(b[4:]); err != nil || binary.BigEndian.Uint32(b) != want.id || resp.ErrorCode != want.code {
					t.Fatalf("response %x: %+v, %v; want id %d, error %d", b, resp, err, want.id, want.code)
				}
			}
		})
	}
}

func TestRequestsCarryWhatTheHeaderSays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got []Request
		f := start(t, func(ctx context.Context, req *Request, reply *Reply) error {
			got = append(got, *req)
			return echo(ctx, req, reply)
		}, nil)
		defer f.stop()
		c := f.dial()
		c.send(frame(keyMetadata, 9, 1<<30, []byte("abc")), produce(-5, 3))
		c.expect(1<<30, -5)
		m, p := got[0], got[1]
		if m.Key != keyMetadata || m.Version != 9 || m.ClientID != "test" || string(m.Body) != "abc" || m.Buf != nil || m.Conn == nil || !m.Received.Equal(time.Now()) {
			t.Fatalf("metadata request %+v", m)
		}
		if p.Key != keyProduce || p.Version != 7 || p.CorrelationID != -5 || p.Buf == nil || len(p.Body) != 3 || p.Unsupported {
			t.Fatalf("produce request %+v", p)
		}
	})
}

// Memory of produce frames: small ones share a chunk that an idle connection gives back; large ones have their own.
func TestSmallFramesShareChunksThatIdleConnectionsGiveBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var taken []*Request
		f := start(t, func(_ context.Context, req *Request, reply *Reply) error {
			req.Buf.Retain()
			taken = append(taken, req)
			reply.SendNothing()
			return nil
		}, nil)
		defer f.stop()
		c := f.dial()
		for i := range 10 {
			c.send(produce(int32(i), 100))
		}
		c.send(produce(10, 20_000))
		c.send(produce(11, 100))
		synctest.Wait()
		if len(taken) != 12 || taken[0].Buf != taken[9].Buf || taken[9].Buf == taken[10].Buf || taken[10].Buf == taken[11].Buf {
			t.Fatalf("%d requests, or they do not share as they should", len(taken))
		}
		if used := f.budget.Used(); used != minChunk+20<<10+minChunk {
			t.Fatalf("%d bytes in use", used)
		}
		for _, r := range taken {
			r.Buf.Release()
		}
		if used := f.budget.Used(); used != minChunk {
			t.Fatalf("%d bytes in use by an idle connection", used)
		}
		time.Sleep(2*tick + time.Second)
		synctest.Wait()
		if used := f.budget.Used(); used != 0 {
			t.Fatalf("%d bytes in use by a connection that has been idle for %v", used, 2*tick+time.Second)
		}
	})
}

func TestBodiesStayIntactWhileRetained(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var taken []*Request
		f := start(t, func(_ context.Context, req *Request, reply *Reply) error {
			req.Buf.Retain()
			taken = append(taken, req)
			reply.SendNothing()
			return nil
		}, nil)
		defer f.stop()
		c := f.dial()
		r := rand.New(rand.NewPCG(3, 4))
		var want [][]byte
		for i := range 400 {
			body := bytes.Repeat([]byte{byte(i), byte(i >> 8), 0xa5}, r.IntN(4000))
			want = append(want, body)
			c.send(frame(keyProduce, 7, int32(i), body))
		}
		synctest.Wait()
		for i, req := range taken {
			if !bytes.Equal(req.Body, want[i]) {
				t.Fatalf("request %d: body changed", i)
			}
			req.Buf.Release()
		}
		if len(taken) != len(want) {
			t.Fatalf("%d requests of %d", len(taken), len(want))
		}
	})
}

func FuzzHeader(f *testing.F) {
	f.Add(frame(keyMetadata, 9, 1, []byte("abc"))[4:], true)
	f.Add(produce(1, 10)[4:], false)
	f.Add([]byte{0, 3, 0, 9, 0, 0, 0, 1, 0xff, 0xff, 2, 0, 1, 9, 1, 0, 7}, true)
	f.Add([]byte{0, 3, 0, 9, 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x0f}, true)
	f.Fuzz(func(t *testing.T, b []byte, flexible bool) {
		if len(b) < minFrame {
			return
		}
		h, body, err := parseHeader(b, flexible)
		if err != nil {
			if !errors.Is(err, errHeader) {
				t.Fatalf("unexpected error %v", err)
			}
			return
		}
		if len(h.clientID)+len(body) > len(b)-minFrame || !bytes.HasSuffix(b, body) {
			t.Fatalf("client id of %d bytes and body of %d bytes from a frame of %d", len(h.clientID), len(body), len(b))
		}
	})
}

// FuzzStream feeds arbitrary bytes to a connection: it must neither crash, hang nor keep memory.
func FuzzStream(f *testing.F) {
	f.Add(bytes.Join([][]byte{produce(1, 10), frame(keyMetadata, 9, 2, nil), frame(keyAPIVersions, 50, 3, nil)}, nil))
	f.Add([]byte("GET / HTTP/1.1"))
	f.Add(produce(1, 10_000)[:9_000])
	f.Fuzz(func(t *testing.T, in []byte) {
		synctest.Test(t, func(t *testing.T) {
			f := start(t, echo, nil)
			defer f.stop()
			c := f.dial()
			go func() {
				_, _ = c.Write(in)
				_ = c.closeWrite()
			}()
			buf := make([]byte, 4096)
			for {
				if _, err := c.Read(buf); err != nil {
					break
				}
			}
			_ = c.Close()
		})
	})
}
