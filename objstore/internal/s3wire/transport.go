package s3wire

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"time"
)

// Limits bound what a driver asks of the network. Zero fields stand for the defaults.
type Limits struct {
	// MaxConns bounds the open connections; more requests wait for one. Default 128.
	MaxConns int
	// Timeout bounds one request, besides the context's deadline. Large bodies get a second more per MiB. Default 30 s.
	Timeout time.Duration
}

const (
	defaultMaxConns = 128
	defaultTimeout  = 30 * time.Second
	slowestRate     = 1 << 20 // bytes per second that a body of any size is given time for
	maxErrorBody    = 64 << 10
)

// Validate names a field that makes no sense.
func (l Limits) Validate() error {
	if l.MaxConns < 0 {
		return fmt.Errorf("connections: %d is negative", l.MaxConns)
	}
	if l.Timeout < 0 {
		return fmt.Errorf("timeout: %v is negative", l.Timeout)
	}
	return nil
}

func (l Limits) withDefaults() Limits {
	if l.MaxConns == 0 {
		l.MaxConns = defaultMaxConns
	}
	if l.Timeout == 0 {
		l.Timeout = defaultTimeout
	}
	return l
}

// budget is how long a request with a body of this size may take.
func (l Limits) budget(size int64) time.Duration {
	return l.Timeout + time.Duration(size)*time.Second/slowestRate
}

// Tune makes a transport fit for a few busy connections to one store. It leaves Proxy and RootCAs as they are.
func (l Limits) Tune(tr *http.Transport) {
	l = l.withDefaults()
	tr.DialContext = (&net.Dialer{
		Timeout:         5 * time.Second,
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 5 * time.Second, Count: 4},
	}).DialContext
	tr.MaxConnsPerHost = l.MaxConns
	tr.MaxIdleConns = l.MaxConns
	tr.MaxIdleConnsPerHost = l.MaxConns
	tr.IdleConnTimeout = 20 * time.Second // stores drop idle connections too; a PUT into one of those is ErrUnknown
	tr.TLSHandshakeTimeout = 10 * time.Second
	tr.ResponseHeaderTimeout = 0 // the budget of each call covers it
	tr.ExpectContinueTimeout = 0
	tr.DisableCompression = true
	// One TCP connection per request in flight: HTTP/2 would send all bodies through one.
	tr.ForceAttemptHTTP2 = false
	tr.Protocols = new(http.Protocols)
	tr.Protocols.SetHTTP1(true)
	if tr.TLSClientConfig == nil {
		tr.TLSClientConfig = &tls.Config{}
	}
	tr.TLSClientConfig.MinVersion = tls.VersionTLS12
	tr.TLSClientConfig.ClientSessionCache = tls.NewLRUClientSessionCache(64)
}

// Trust adds the certificates of a PEM file to the authorities that the transport trusts. An empty name adds none.
func Trust(tr *http.Transport, caFile string) error {
	if caFile == "" {
		return nil
	}
	pem, err := os.ReadFile(caFile)
	if err != nil {
		return fmt.Errorf("ca: %w", err)
	}
	pool := tr.TLSClientConfig.RootCAs
	if pool == nil {
		if pool, err = x509.SystemCertPool(); err != nil {
			pool = x509.NewCertPool()
		}
	}
	if !pool.AppendCertsFromPEM(pem) {
		return fmt.Errorf("ca: %q holds no PEM certificate", caFile)
	}
	tr.TLSClientConfig.RootCAs = pool
	return nil
}

// HTTPClient wraps a tuned transport so that it keeps the package's invariants.
func HTTPClient(tr *http.Transport) *http.Client {
	return &http.Client{
		Transport:     Guard(tr),
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// Guard wraps next so that it sends one request per call and no unconditional PUT.
func Guard(next http.RoundTripper) http.RoundTripper { return &guard{next: next} }

type guard struct{ next http.RoundTripper }

var (
	errSecondRequest = errors.New("a second request within one call was refused")
	errNoCall        = errors.New("a request outside of a call was refused")
	errUnconditional = errors.New("a PUT without a condition was refused")
)

// RoundTrip implements http.RoundTripper.
func (g *guard) RoundTrip(req *http.Request) (*http.Response, error) {
	c, _ := req.Context().Value(callKey{}).(*call)
	if err := admit(c, req); err != nil {
		if req.Body != nil {
			_ = req.Body.Close()
		}
		return nil, err
	}
	resp, err := g.next.RoundTrip(req)
	if err != nil {
		c.failed(err)
		return nil, err
	}
	a := &answer{Status: resp.StatusCode, Header: resp.Header, Length: resp.ContentLength}
	if resp.StatusCode >= 300 {
		resp.Body = a.readError(resp.Body)
	}
	c.answered(a)
	return resp, nil
}

func admit(c *call, req *http.Request) error {
	switch {
	case c == nil:
		return errNoCall
	case req.Method == http.MethodPut && req.Header.Get("If-None-Match") == "" && req.Header.Get("If-Match") == "":
		return errUnconditional
	case !c.claim():
		return errSecondRequest
	default:
		return nil
	}
}

// answer is what the store said.
type answer struct {
	Status  int
	Header  http.Header
	Length  int64 // Content-Length, or -1
	Code    string
	Message string
}

// readError takes code and message from an error's body, and returns the body to read again.
func (a *answer) readError(body io.ReadCloser) io.ReadCloser {
	data, _ := io.ReadAll(io.LimitReader(body, maxErrorBody))
	_ = body.Close()
	var doc struct {
		Code    string
		Message string
	}
	if xml.Unmarshal(data, &doc) == nil {
		a.Code, a.Message = doc.Code, doc.Message
	}
	if a.Code == "" {
		a.Code = a.Header.Get("X-Minio-Error-Code") // the answer to a HEAD has no body
	}
	return io.NopCloser(bytes.NewReader(data))
}

// Error implements error.
func (a *answer) Error() string {
	s := fmt.Sprintf("HTTP %d", a.Status)
	if a.Code != "" {
		s += " " + a.Code
	} else if text := http.StatusText(a.Status); text != "" {
		s += " " + text
	}
	if a.Message != "" {
		s += ": " + a.Message
	}
	if region := a.Header.Get("X-Amz-Bucket-Region"); region != "" && (a.Status == http.StatusMovedPermanently || a.Status == http.StatusBadRequest) {
		s += " (the bucket is in region " + region + ")"
	}
	if id := a.Header.Get("X-Amz-Request-Id"); id != "" {
		s += " (request " + id + ")"
	}
	return s
}

type callKey struct{}

func withCall(ctx context.Context, c *call) context.Context {
	return context.WithValue(ctx, callKey{}, c)
}

// Stopped reports whether the transport refused a second request in the call that ctx belongs to.
// A driver whose SDK pages by itself learns from it that there is a next page.
func Stopped(ctx context.Context) bool {
	c, _ := ctx.Value(callKey{}).(*call)
	return c != nil && c.stopped()
}
