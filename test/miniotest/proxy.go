package miniotest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Fault is what a Proxy does to one request. The zero value passes it on.
type Fault struct {
	// Delay passes before the request is passed on or answered.
	Delay time.Duration
	// Status answers with this status instead of passing the request on, and with Code as S3's error code; Early does
	// so without reading the request's body first.
	Status int
	Code   string
	Early  bool
	// Reset closes the connection instead of passing the request on.
	Reset bool
	// DropReply passes the request on, waits for the answer and closes the connection without sending it.
	DropReply bool
	// CutBody closes the connection in the middle of the answer's body, after so many bytes of it. 0: it does not.
	CutBody int64
	// Late closes the connection at once and passes the request on, with its whole body, Late later.
	Late time.Duration
}

// Proxy is an HTTP reverse proxy in front of a Server. Signatures stay valid: the Host header goes through as it was signed.
type Proxy struct {
	Addr string // 127.0.0.1:PORT

	server   *Server
	fault    atomic.Pointer[func(*http.Request) Fault]
	requests atomic.Int64
	running  sync.WaitGroup // handlers
}

// Delay starts a proxy that delays each PUT, and ends it when the test does.
func Delay(t testing.TB, server *Server, put time.Duration) *Proxy {
	t.Helper()
	p, stop, err := StartProxy(t.Context(), server)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	p.SetFault(func(r *http.Request) Fault {
		if r.Method == http.MethodPut {
			return Fault{Delay: put}
		}
		return Fault{}
	})
	return p
}

// StartProxy starts a proxy that passes everything on, for callers that are no tests. Call stop.
func StartProxy(ctx context.Context, server *Server) (p *Proxy, stop func(), err error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, err
	}
	p = &Proxy{Addr: l.Addr().String(), server: server}
	p.SetFault(nil)
	tr := &http.Transport{MaxIdleConnsPerHost: 256, DisableCompression: true}
	base, cancel := context.WithCancel(context.WithoutCancel(ctx)) // of all requests
	srv := &http.Server{
		Handler:           p.handler(base, tr),
		ReadHeaderTimeout: time.Minute,
		BaseContext:       func(net.Listener) context.Context { return base },
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = srv.Serve(l)
	}()
	return p, func() {
		cancel()
		_ = srv.Close()
		<-done
		p.running.Wait()
		tr.CloseIdleConnections()
	}, nil
}

// SetFault makes f choose the fault of each request from now on; nil: none.
func (p *Proxy) SetFault(f func(*http.Request) Fault) {
	if f == nil {
		f = func(*http.Request) Fault { return Fault{} }
	}
	p.fault.Store(&f)
}

// Requests is the number of requests that have come in.
func (p *Proxy) Requests() int64 { return p.requests.Load() }

// StoreURL is the URL of a store through the proxy.
func (p *Proxy) StoreURL(bucket, prefix string) string {
	return p.server.storeURL(p.Addr, bucket, prefix)
}

type faultKey struct{}

func (p *Proxy) handler(base context.Context, tr *http.Transport) http.Handler {
	target := &url.URL{Scheme: "http", Host: p.server.Addr}
	forward := &httputil.ReverseProxy{
		Transport: tr,
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL.Scheme, r.Out.URL.Host = target.Scheme, target.Host
			r.Out.Host = r.In.Host
		},
		ModifyResponse: func(resp *http.Response) error {
			f, _ := resp.Request.Context().Value(faultKey{}).(Fault)
			if f.DropReply {
				return errors.New("the reply is dropped")
			}
			if f.CutBody > 0 {
				resp.Body = &cutBody{ReadCloser: resp.Body, left: f.CutBody}
			}
			return nil
		},
		FlushInterval: -1,
		ErrorLog:      log.New(io.Discard, "", 0), // what is broken is broken on purpose
		ErrorHandler:  func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.requests.Add(1)
		p.running.Add(1)
		defer p.running.Done()
		f := (*p.fault.Load())(r)
		if !wait(r.Context(), f.Delay) {
			panic(http.ErrAbortHandler)
		}
		switch {
		case f.Status != 0:
			refuse(w, r, f)
		case f.Reset:
			panic(http.ErrAbortHandler)
		case f.Late > 0:
			hangUp(w, r, func(body []byte) {
				if wait(base, f.Late) {
					p.late(base, tr, r, body)
				}
			})
		default:
			forward.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), faultKey{}, f)))
		}
	})
}

// refuse answers in the store's place.
func refuse(w http.ResponseWriter, r *http.Request, f Fault) {
	if !f.Early {
		_, _ = io.Copy(io.Discard, r.Body)
	}
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(f.Status)
	if r.Method != http.MethodHead {
		_, _ = fmt.Fprintf(w, "<Error><Code>%s</Code><Message>planted by the proxy</Message></Error>", f.Code)
	}
}

// hangUp reads the request and closes its connection, then runs the rest.
func hangUp(w http.ResponseWriter, r *http.Request, rest func(body []byte)) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	_ = conn.Close()
	rest(body)
}

// late passes a request on whose client has gone. base outlives the request.
func (p *Proxy) late(base context.Context, next http.RoundTripper, r *http.Request, body []byte) {
	out := r.Clone(base)
	out.RequestURI = ""
	out.URL.Scheme, out.URL.Host = "http", p.server.Addr
	out.Body = io.NopCloser(bytes.NewReader(body))
	if resp, err := next.RoundTrip(out); err == nil {
		_ = resp.Body.Close()
	}
}

// wait reports whether d passed before the context ended.
func wait(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return true
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// cutBody breaks off after some bytes.
type cutBody struct {
	io.ReadCloser
	left int64
}

func (c *cutBody) Read(p []byte) (int, error) {
	if c.left == 0 {
		return 0, errors.New("the body is cut here")
	}
	n, err := c.ReadCloser.Read(p[:min(int64(len(p)), c.left)])
	c.left -= int64(n)
	return n, err
}
