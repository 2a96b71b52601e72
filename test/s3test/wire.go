package s3test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tierlog/tierlog/objstore"
	"github.com/tierlog/tierlog/objstore/objtest"
	"github.com/tierlog/tierlog/test/miniotest"
)

// recorder keeps the requests that pass a proxy.
type recorder struct {
	mu   sync.Mutex
	seen []*http.Request
}

func (c *recorder) fault(r *http.Request) miniotest.Fault {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seen = append(c.seen, r.Clone(r.Context()))
	return miniotest.Fault{}
}

func (c *recorder) take() []*http.Request {
	c.mu.Lock()
	defer c.mu.Unlock()
	seen := c.seen
	c.seen = nil
	return seen
}

// testWire looks at the headers of a write: its condition, its length, its checksum, and no hash of its body.
func testWire(t *testing.T, r *rig) {
	s, proxy := r.proxied(t)
	rec := &recorder{}
	proxy.SetFault(rec.fault)
	ctx := t.Context()
	v, err := s.Create(ctx, "k", objstore.Bytes([]byte("1234"), []byte("56789")))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Swap(ctx, "k", v, objstore.Bytes([]byte("123456789")).WithCRC32C(0xe3069283)); err != nil {
		t.Fatal(err)
	}
	seen := rec.take()
	if len(seen) != 2 {
		t.Fatalf("two writes made %d requests", len(seen))
	}
	for i, cond := range []string{"If-None-Match", "If-Match"} {
		h := seen[i].Header
		for name, want := range map[string]string{
			cond:                    []string{"*", `"` + string(v) + `"`}[i],
			"X-Amz-Checksum-Crc32c": "4waSgw==",
			"X-Amz-Content-Sha256":  "UNSIGNED-PAYLOAD",
			"Content-Encoding":      "",
			"Expect":                "",
			"Content-Md5":           "",
			"Content-Length":        "9",
		} {
			if got := h.Get(name); got != want {
				t.Errorf("%s of %s: %q, want %q", name, seen[i].Method, got, want)
			}
		}
		if signed := h.Get("Authorization"); !strings.Contains(signed, strings.ToLower(cond)) || !strings.Contains(signed, "x-amz-checksum-crc32c") {
			t.Errorf("the signature does not cover condition and checksum: %s", signed)
		}
	}
	target := r.target(t)
	target.Addr, target.SignPayload, target.Prefix = proxy.Addr, true, target.Prefix+"/signed"
	signing := r.opened(t, target)
	if _, err := signing.Create(ctx, "k", objstore.Bytes([]byte("123456"), []byte("789"))); err != nil {
		t.Fatal(err)
	}
	const sha256Of123456789 = "15e2b0d3c33891ebb0f1ef609ec419420c20e320ce94c65fbc8c3312448eb225"
	if got := rec.take()[0].Header.Get("X-Amz-Content-Sha256"); got != sha256Of123456789 {
		t.Errorf("hash of a body that is to be signed: %q", got)
	}
}

// testRequests counts what calls cost.
func testRequests(t *testing.T, r *rig) {
	s, proxy := r.proxied(t)
	rec := &recorder{}
	proxy.SetFault(rec.fault)
	ctx := t.Context()
	p := make([]byte, 100)
	keys := make([]string, 1001)
	for i := range keys {
		keys[i] = fmt.Sprintf("missing/%04d", i)
	}
	for _, c := range []struct {
		name string
		call func() error
		want []string
	}{
		{"create", func() error { _, err := s.Create(ctx, "k", objtest.Body("x")); return err }, []string{"PUT"}},
		{"create empty", func() error { _, err := s.Create(ctx, "e", objstore.Bytes()); return err }, []string{"PUT"}},
		{"read", func() error { _, _, err := s.ReadAt(ctx, "k", p, 0); return err }, []string{"GET"}},
		{"read nothing", func() error { _, _, err := s.ReadAt(ctx, "k", nil, 0); return err }, []string{"HEAD"}},
		{"read beyond", func() error { _, _, err := s.ReadAt(ctx, "k", p, 1000); return err }, []string{"GET", "HEAD"}},
		{"suffix", func() error { _, _, err := s.ReadSuffix(ctx, "k", p); return err }, []string{"GET"}},
		{"head", func() error { _, err := s.Head(ctx, "k"); return err }, []string{"HEAD"}},
		{"list", func() error { _, err := s.List(ctx, "", "", 0); return err }, []string{"GET"}},
		{"list part", func() error { _, err := s.List(ctx, "", "", 1); return err }, []string{"GET"}},
		{"list of no key", func() error { _, err := s.List(ctx, "//", "", 1); return err }, nil},
		{"list after all", func() error { _, err := s.List(ctx, "a", "b", 1); return err }, nil},
		{"delete", func() error { return s.Delete(ctx, []string{"k"}) }, []string{"DELETE"}},
		{"delete none", func() error { return s.Delete(ctx, nil) }, nil},
		{"delete 1000", func() error { return s.Delete(ctx, keys[:1000]) }, []string{"POST"}},
		{"delete 1001", func() error { return s.Delete(ctx, keys) }, []string{"POST", "DELETE"}},
	} {
		if err := c.call(); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		var methods []string
		for _, req := range rec.take() {
			methods = append(methods, req.Method)
		}
		if !slices.Equal(methods, c.want) {
			t.Errorf("%s made %q, want %q", c.name, methods, c.want)
		}
	}
}

// testWrongChecksum vouches for a wrong checksum: the store must refuse the body.
func testWrongChecksum(t *testing.T, r *rig) {
	s := r.opened(t, r.target(t))
	ctx := t.Context()
	if _, err := s.Create(ctx, "k", objstore.Bytes([]byte("123456789")).WithCRC32C(1)); !errors.Is(err, objstore.ErrInvalid) {
		t.Errorf("create with a wrong checksum: %v", err)
	}
	if _, err := s.Head(ctx, "k"); !errors.Is(err, objstore.ErrNotFound) {
		t.Errorf("head of it: %v", err)
	}
}

// testNotAVersion swaps with versions that would be no condition at all.
func testNotAVersion(t *testing.T, r *rig) {
	s, proxy := r.proxied(t)
	ctx := t.Context()
	if _, err := s.Create(ctx, "k", objtest.Body("x")); err != nil {
		t.Fatal(err)
	}
	before := proxy.Requests()
	for _, v := range []objstore.Version{"", "*", "a\r\nb"} {
		if _, err := s.Swap(ctx, "k", v, objtest.Body("y")); !errors.Is(err, objstore.ErrInvalid) {
			t.Errorf("swap of version %q: %v", v, err)
		}
	}
	if proxy.Requests() != before {
		t.Error("one of them was sent")
	}
}

// testLongKeys uses the longest key that fits with the prefix, and one that is a byte longer.
func testLongKeys(t *testing.T, r *rig) {
	target := r.target(t)
	s := r.opened(t, target)
	ctx := t.Context()
	room := objstore.MaxKeySize - len(target.Prefix) - len("/")
	long := strings.Repeat(strings.Repeat("k", 199)+"/", 6)[:room-1] + "k"
	if _, err := s.Create(ctx, long, objtest.Body("x")); err != nil {
		t.Errorf("create of the longest key: %v", err)
	}
	if info, err := s.Head(ctx, long); err != nil || info.Key != long {
		t.Errorf("head of the longest key: %v", err)
	}
	if _, err := s.Create(ctx, long+"k", objtest.Body("x")); !errors.Is(err, objstore.ErrInvalid) {
		t.Errorf("create of a key that is too long with its prefix: %v", err)
	}
}

// testLeaks opens, uses and closes stores: no goroutine may stay.
func testLeaks(t *testing.T, r *rig) {
	target := r.target(t)
	before := runtime.NumGoroutine()
	for i := range 5 {
		s := r.open(t, target)
		var wg sync.WaitGroup
		for j := range 8 {
			wg.Go(func() {
				key := fmt.Sprintf("%d/%d", i, j)
				_, err := s.Create(t.Context(), key, objstore.Bytes(bytes.Repeat([]byte(key), 10_000)))
				if err != nil {
					t.Error(err)
				}
				_, _, err = s.ReadAt(t.Context(), key, make([]byte, 100), 50) // leaves the most unread
				if err != nil {
					t.Error(err)
				}
				_, _ = s.Head(t.Context(), "none")
			})
		}
		wg.Wait()
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	until(t, "the goroutines to end", func() bool { return runtime.NumGoroutine() <= before })
}

// testTLS talks HTTPS to a server whose certificate no system trusts.
func testTLS(t *testing.T, r *rig) {
	target := r.target(t)
	server := &url.URL{Scheme: "http", Host: r.server.Addr}
	srv := httptest.NewUnstartedServer(&httputil.ReverseProxy{Rewrite: func(p *httputil.ProxyRequest) {
		p.Out.URL.Scheme, p.Out.URL.Host, p.Out.Host = server.Scheme, server.Host, p.In.Host
	}})
	srv.Config.ErrorLog = log.New(io.Discard, "", 0) // the handshake that fails on purpose
	srv.StartTLS()
	defer srv.Close()
	target.Addr = srv.Listener.Addr().String()
	write := func(name string, cert []byte) string {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	target.CAFile = write("right.pem", srv.Certificate().Raw)
	s := r.opened(t, target)
	data := bytes.Repeat([]byte("0123456789"), 100_000)
	if _, err := s.Create(t.Context(), "k", objstore.Bytes(data)); err != nil {
		t.Fatal(err)
	}
	if got, _, err := objstore.ReadAll(t.Context(), s, "k", 2<<20); err != nil || !bytes.Equal(got, data) {
		t.Errorf("read back %d bytes: %v", len(got), err)
	}
	target.CAFile = write("other.pem", strangersCert(t))
	if _, err := r.opened(t, target).Head(t.Context(), "k"); !errors.Is(err, objstore.ErrUnavailable) || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("head of a server that is not trusted: %v", err)
	}
}

// strangersCert is a certificate that signs nothing here.
func strangersCert(t *testing.T) []byte {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC), IsCA: true, BasicConstraintsValid: true}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, public, private)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}
