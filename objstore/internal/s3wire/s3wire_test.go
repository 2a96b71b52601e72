package s3wire

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/tierlog/tierlog/objstore"
)

// plain is a Client without an SDK.
type plain struct {
	base string
	http *http.Client
}

func (p *plain) do(ctx context.Context, method, key string, body io.Reader, header ...string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, p.base+"/"+key, body)
	if err != nil {
		return nil, err
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := p.http.Do(req)
	if err == nil && resp.StatusCode >= 300 {
		_ = resp.Body.Close()
		return nil, errors.New("refused")
	}
	return resp, err
}

func (p *plain) Get(ctx context.Context, key, byteRange string) (Body, error) {
	resp, err := p.do(ctx, http.MethodGet, key, nil, "Range", byteRange)
	if err != nil {
		return nil, err
	}
	return resp.Body, nil
}

func (p *plain) Head(ctx context.Context, key string) error {
	return discard(p.do(ctx, http.MethodHead, key, nil))
}

func (p *plain) Put(ctx context.Context, key string, put Put) error {
	if put.Old == "" {
		return discard(p.do(ctx, http.MethodPut, key, put.Body, "If-None-Match", "*"))
	}
	return discard(p.do(ctx, http.MethodPut, key, put.Body, "If-Match", ETag(put.Old)))
}

func discard(resp *http.Response, err error) error {
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

// Delete asks twice, as a driver would whose SDK retries.
func (p *plain) Delete(ctx context.Context, keys []string) ([]Refusal, error) {
	err := discard(p.do(ctx, http.MethodDelete, keys[0], nil))
	return []Refusal{{Key: keys[0], Code: "AccessDenied", Message: "no"}}, errors.Join(err, discard(p.do(ctx, http.MethodDelete, keys[0], nil)))
}

func (p *plain) List(ctx context.Context, prefix, _ string, _ int) ([]objstore.Info, bool, error) {
	return nil, false, discard(p.do(ctx, http.MethodPut, prefix, nil)) // a PUT without a condition
}

func (p *plain) Close() {}

// serve returns a store whose server answers with f.
func serve(t *testing.T, f http.HandlerFunc) (*Store, *plain) {
	t.Helper()
	srv := httptest.NewServer(f)
	t.Cleanup(srv.Close)
	tr := &http.Transport{}
	limits := Limits{Timeout: 5 * time.Second}
	limits.Tune(tr)
	t.Cleanup(tr.CloseIdleConnections)
	p := &plain{base: srv.URL, http: HTTPClient(tr)}
	return New(p, Config{Prefix: "root", Limits: limits}), p
}

// TestOddAnswers reads from stores whose answers are not what was asked for.
func TestOddAnswers(t *testing.T) {
	const data = "0123456789"
	answer := func(status int, contentRange, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("ETag", `"v1"`)
			if contentRange != "" {
				w.Header().Set("Content-Range", contentRange)
			}
			w.WriteHeader(status)
			_, _ = io.WriteString(w, body)
		}
	}
	for _, c := range []struct {
		name   string
		server http.HandlerFunc
		off    int64 // -1: a suffix
		length int
		want   string
		err    error
	}{
		{"as asked", answer(206, "bytes 2-5/10", data[2:6]), 2, 4, "2345", nil},
		{"as asked, suffix", answer(206, "bytes 6-9/10", data[6:]), -1, 4, "6789", nil},
		{"whole object for its start", answer(200, "", data), 0, 4, "0123", nil},
		{"whole object, all of it wanted", answer(200, "", data), 0, 40, data, nil},
		{"whole object for a suffix as long", answer(200, "", data), -1, 10, data, nil},
		{"empty object", answer(200, "", ""), 0, 4, "", nil},
		{"empty object with a range", answer(206, "bytes 0--1/0", ""), -1, 4, "", nil},
		{"range ignored", answer(200, "", data), 2, 4, "", objstore.ErrUnavailable},
		{"suffix ignored", answer(200, "", data), -1, 4, "", objstore.ErrUnavailable},
		{"another range", answer(206, "bytes 1-4/10", data[1:5]), 2, 4, "", objstore.ErrUnavailable},
		{"shorter than it says", answer(206, "bytes 2-5/10", data[2:4]), 2, 4, "", objstore.ErrUnavailable},
		{"no range in the answer", answer(206, "", data[2:6]), 2, 4, "", objstore.ErrUnavailable},
		{"size not told", answer(206, "bytes 2-5/*", data[2:6]), 2, 4, "", objstore.ErrUnavailable},
		{"no ETag", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, data) }, 0, 4, "", objstore.ErrUnavailable},
	} {
		s, _ := serve(t, c.server)
		p := make([]byte, c.length)
		var n int
		var info objstore.Info
		var err error
		if c.off < 0 {
			n, info, err = s.ReadSuffix(t.Context(), "k", p)
		} else {
			n, info, err = s.ReadAt(t.Context(), "k", p, c.off)
		}
		if !errors.Is(err, c.err) || string(p[:n]) != c.want {
			t.Errorf("%s: %q, %v; want %q, %v", c.name, p[:n], err, c.want, c.err)
		}
		if err == nil && (info.Version != "v1" || c.want != "" && info.Size != 10) {
			t.Errorf("%s: %+v", c.name, info)
		}
	}
}

// TestObjectGrows meets a range that lies behind the object's end, which has moved when the driver looks.
func TestObjectGrows(t *testing.T) {
	gets := 0
	s, _ := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("ETag", `"v"`)
		switch {
		case r.Method == http.MethodHead:
			w.Header().Set("Content-Length", "20")
		case gets == 0:
			gets++
			w.WriteHeader(http.StatusRequestedRangeNotSatisfiable)
		default:
			gets++
			w.Header().Set("Content-Range", "bytes 15-18/20")
			w.WriteHeader(http.StatusPartialContent)
			_, _ = io.WriteString(w, "abcd")
		}
	})
	p := make([]byte, 4)
	n, info, err := s.ReadAt(t.Context(), "k", p, 15)
	if err != nil || string(p[:n]) != "abcd" || info.Size != 20 || gets != 2 {
		t.Errorf("read %q of %+v after %d tries: %v", p[:n], info, gets, err)
	}
	s, _ = serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("ETag", `"v"`)
		w.Header().Set("Content-Length", "20")
		if r.Method != http.MethodHead {
			w.Header().Set("Content-Length", "0")
			w.WriteHeader(http.StatusRequestedRangeNotSatisfiable)
		}
	})
	if _, _, err := s.ReadAt(t.Context(), "k", p, 15); !errors.Is(err, objstore.ErrUnavailable) {
		t.Errorf("an object that always grows in between: %v", err)
	}
}

// TestWriteWithoutVersion gets an answer to a write that does not say what was written.
func TestWriteWithoutVersion(t *testing.T) {
	s, _ := serve(t, func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) })
	if _, err := s.Create(t.Context(), "k", objstore.Bytes([]byte("x"))); !errors.Is(err, objstore.ErrUnknown) {
		t.Errorf("create: %v", err)
	}
}

// TestPayloadLies gives payloads that can not be what they say.
func TestPayloadLies(t *testing.T) {
	s, _ := serve(t, func(http.ResponseWriter, *http.Request) { t.Error("a request was made") })
	if _, err := s.Create(t.Context(), "k", short{objstore.Bytes([]byte("x"))}); !errors.Is(err, objstore.ErrInvalid) {
		t.Errorf("create: %v", err)
	}
}

type short struct{ *objstore.Parts }

func (s short) Size() int64 { return s.Parts.Size() + 1 }

// TestGuard makes requests that must not leave.
func TestGuard(t *testing.T) {
	var requests []string
	s, p := serve(t, func(_ http.ResponseWriter, r *http.Request) { requests = append(requests, r.Method) })
	if _, err := s.List(t.Context(), "p", "", 0); !errors.Is(err, objstore.ErrUnavailable) || !strings.Contains(err.Error(), errUnconditional.Error()) {
		t.Errorf("PUT without a condition: %v", err)
	}
	if err := p.Head(t.Context(), "k"); !errors.Is(err, errNoCall) {
		t.Errorf("request outside of a call: %v", err)
	}
	if len(requests) != 0 {
		t.Errorf("requests %q were made", requests)
	}
	if err := s.Delete(t.Context(), []string{"k"}); !errors.Is(err, objstore.ErrUnavailable) {
		t.Errorf("second request: %v", err)
	}
	if len(requests) != 1 {
		t.Errorf("requests %q were made, want one", requests)
	}
}

// TestErrorTexts looks at what people get to read.
func TestErrorTexts(t *testing.T) {
	for _, c := range []struct {
		server http.HandlerFunc
		want   string
	}{
		{func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X-Amz-Bucket-Region", "eu-west-1")
			w.Header().Set("X-Amz-Request-Id", "R1")
			w.WriteHeader(http.StatusMovedPermanently)
			_, _ = io.WriteString(w, "<Error><Code>PermanentRedirect</Code><Message>Look elsewhere.</Message></Error>")
		}, `read "k": invalid request: HTTP 301 PermanentRedirect: Look elsewhere. (the bucket is in region eu-west-1) (request R1)`},
		{func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusBadGateway)
			_, _ = io.WriteString(w, "<html>no XML of ours</body>")
		}, `read "k": store unavailable: HTTP 502 Bad Gateway`},
	} {
		s, _ := serve(t, c.server)
		if _, _, err := s.ReadAt(t.Context(), "k", make([]byte, 1), 0); err == nil || err.Error() != c.want {
			t.Errorf("error %v, want %s", err, c.want)
		}
	}
}

func TestLimits(t *testing.T) {
	for _, c := range []struct {
		limits Limits
		want   string
	}{
		{Limits{}, ""},
		{Limits{MaxConns: 1, Timeout: time.Second}, ""},
		{Limits{MaxConns: -1}, "connections: -1 is negative"},
		{Limits{Timeout: -time.Second}, "timeout: -1s is negative"},
	} {
		if got := fmt.Sprint(c.limits.Validate()); got != c.want && (c.want != "" || got != "<nil>") {
			t.Errorf("%+v: %s, want %s", c.limits, got, c.want)
		}
	}
	if got := (Limits{Timeout: time.Second}).budget(64 << 20); got != 65*time.Second {
		t.Errorf("budget of 64 MiB is %v", got)
	}
}

func TestContentRange(t *testing.T) {
	for s, want := range map[string][2]int64{
		"bytes 0-0/1":  {0, 1},
		"bytes 5-9/10": {5, 10},
		"bytes 0--1/0": {0, 0},
		"bytes 0-9223372036854775806/9223372036854775807": {0, 9223372036854775807},
	} {
		start, size, err := parseContentRange(s)
		if err != nil || start != want[0] || size != want[1] {
			t.Errorf("%q: %d, %d, %v", s, start, size, err)
		}
	}
	for _, s := range []string{
		"", "bytes", "bytes 0-1", "bytes */10", "bytes 1-0/10", "bytes 5-10/10", "bytes -1-5/10", "bytes 3-2/0", "bytes 0-9/9223372036854775808", "bytes a-b/c",
	} {
		if start, size, err := parseContentRange(s); err == nil {
			t.Errorf("%q: %d, %d", s, start, size)
		}
	}
}

func FuzzContentRange(f *testing.F) {
	f.Add("bytes 5-9/10")
	f.Add("bytes 0--1/0")
	f.Fuzz(func(t *testing.T, s string) {
		start, size, err := parseContentRange(s)
		if err == nil && (start < 0 || size < 0 || start > size || start == size && size != 0) {
			t.Errorf("%q: %d of %d", s, start, size)
		}
	})
}
