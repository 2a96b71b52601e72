// Package s3test holds the tests that the drivers for S3-compatible stores have in common, beyond the conformance suite:
// what every kind of failure turns into, how many requests a call makes, what goes over the wire, and that no secret
// shows anywhere. They run against a real MinIO, most of them through a proxy that breaks things.
package s3test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tierlog/tierlog/objstore"
	"github.com/tierlog/tierlog/objstore/objtest"
	"github.com/tierlog/tierlog/test/miniotest"
)

// Target is a store to open.
type Target struct {
	Addr, Bucket, Prefix, AccessKey, SecretKey string

	SignPayload bool
	Timeout     time.Duration
	// CAFile, if set, means HTTPS.
	CAFile string
}

// Opener opens a driver's store.
type Opener func(t testing.TB, target Target) objstore.Store

// TargetOf is a prefix of a bucket at a server.
func TargetOf(s *miniotest.Server, bucket, prefix string) Target {
	return Target{Addr: s.Addr, Bucket: bucket, Prefix: prefix, AccessKey: s.AccessKey, SecretKey: s.SecretKey}
}

// Conformance runs the conformance suite on whole buckets and on prefixes of one.
func Conformance(t *testing.T, open Opener) {
	server := miniotest.Start(t)
	var n atomic.Int64
	t.Run("bucket", func(t *testing.T) {
		objtest.Conformance(t, func(t *testing.T) objstore.Store {
			return open(t, TargetOf(server, server.Bucket(t, fmt.Sprintf("bucket%d", n.Add(1))), ""))
		})
	})
	t.Run("prefix", func(t *testing.T) {
		bucket := server.Bucket(t, "shared")
		objtest.Conformance(t, func(t *testing.T) objstore.Store {
			return open(t, TargetOf(server, bucket, fmt.Sprintf("some/prefix/%d", n.Add(1))))
		})
	})
}

// Failures runs everything else.
func Failures(t *testing.T, open Opener) {
	r := &rig{open: open, server: miniotest.Start(t)}
	r.bucket = r.server.Bucket(t, "faults")
	for _, c := range []struct {
		name string
		test func(*testing.T, *rig)
	}{
		{"bucket missing", testNoBucket},
		{"wrong credentials", testDenied},
		{"unreachable", testUnreachable},
		{"silent", testSilent},
		{"answers", testAnswers},
		{"reply dropped", testReplyDropped},
		{"applied late", testLate},
		{"body cut", testBodyCut},
		{"cancelled", testCancelled},
		{"on the wire", testWire},
		{"requests", testRequests},
		{"wrong checksum", testWrongChecksum},
		{"payload is given back", testGivenBack},
		{"not a version", testNotAVersion},
		{"long keys", testLongKeys},
		{"probe", testProbe},
		{"tls", testTLS},
		{"leaks", testLeaks},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(t, r) })
	}
}

// rig is a server that the tests share, each under a prefix of its own.
type rig struct {
	open   Opener
	server *miniotest.Server
	bucket string
}

func (r *rig) target(t *testing.T) Target {
	return TargetOf(r.server, r.bucket, strings.ReplaceAll(t.Name(), " ", "-"))
}

// proxied opens a store through a new proxy.
func (r *rig) proxied(t *testing.T) (objstore.Store, *miniotest.Proxy) {
	t.Helper()
	target := r.target(t)
	proxy := miniotest.Delay(t, r.server, 0)
	target.Addr = proxy.Addr
	return r.opened(t, target), proxy
}

func (r *rig) opened(t *testing.T, target Target) objstore.Store {
	t.Helper()
	s := r.open(t, target)
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// calls makes every kind of call once and returns their errors by name.
func calls(ctx context.Context, s objstore.Store) map[string]error {
	errs := map[string]error{}
	_, errs["create"] = s.Create(ctx, "new", objtest.Body("x"))
	_, errs["swap"] = s.Swap(ctx, "there", "0123", objtest.Body("x"))
	_, _, errs["read"] = s.ReadAt(ctx, "there", make([]byte, 4), 0)
	_, _, errs["suffix"] = s.ReadSuffix(ctx, "there", make([]byte, 4))
	_, errs["head"] = s.Head(ctx, "there")
	errs["delete"] = s.Delete(ctx, []string{"there"})
	errs["delete-many"] = s.Delete(ctx, []string{"there", "where"})
	_, errs["list"] = s.List(ctx, "", "", 0)
	return errs
}

func isWrite(call string) bool { return call == "create" || call == "swap" }

// want checks every call's error: its kind, its form, and that it holds no secret.
func want(t *testing.T, target Target, errs map[string]error, kind func(call string) error) {
	t.Helper()
	for call, err := range errs {
		if want := kind(call); !errors.Is(err, want) {
			t.Errorf("%s: %v; want %v", call, err, want)
		}
		var e *objstore.Error
		if err != nil && (!errors.As(err, &e) || e.Err == nil) {
			t.Errorf("%s: %#v is not an *objstore.Error with a cause", call, err)
		}
		noSecret(t, target, err)
	}
}

func noSecret(t *testing.T, target Target, err error) {
	t.Helper()
	for _, text := range []string{fmt.Sprint(err), fmt.Sprintf("%+v", err), fmt.Sprintf("%#v", err)} {
		for _, secret := range []string{target.SecretKey, target.AccessKey, "Signature=", "Credential="} {
			if strings.Contains(text, secret) {
				t.Errorf("error shows %q: %s", secret, text)
			}
		}
	}
}

// always is for failures that mean the same for every call of a sort.
func always(write, read error) func(string) error {
	return func(call string) error {
		if isWrite(call) {
			return write
		}
		return read
	}
}

// testProbe runs the full probe, and the quick one on stores that can not pass it.
func testProbe(t *testing.T, r *rig) {
	s := r.opened(t, r.target(t))
	report, err := objstore.Probe(t.Context(), s, objstore.ProbeOptions{Full: true})
	if err != nil {
		t.Errorf("%v\n%v", err, report)
	}
	t.Logf("\n%v", report)
	if page, err := s.List(t.Context(), "", "", 0); err != nil || len(page.Objects) != 0 {
		t.Errorf("left behind: %+v, %v", page, err)
	}
	proxied, proxy := r.proxied(t)
	quick := func() error {
		_, err := objstore.Probe(t.Context(), proxied, objstore.ProbeOptions{})
		return err
	}
	proxy.SetFault(func(*http.Request) miniotest.Fault {
		return miniotest.Fault{Status: http.StatusForbidden, Code: "AccessDenied"}
	})
	if err := quick(); !errors.Is(err, objstore.ErrDenied) || errors.Is(err, objstore.ErrUnsafe) {
		t.Errorf("probe of a forbidden bucket: %v", err)
	}
	proxy.SetFault(func(*http.Request) miniotest.Fault { return miniotest.Fault{Reset: true} })
	if err := quick(); !errors.Is(err, objstore.ErrUnavailable) || errors.Is(err, objstore.ErrUnsafe) {
		t.Errorf("probe of a bucket out of reach: %v", err)
	}
	proxy.SetFault(func(req *http.Request) miniotest.Fault {
		if req.Header.Get("If-None-Match") != "" {
			return miniotest.Fault{Status: http.StatusNotImplemented, Code: "NotImplemented"}
		}
		return miniotest.Fault{}
	})
	if err := quick(); !errors.Is(err, objstore.ErrUnsafe) || !strings.Contains(err.Error(), "create-once") {
		t.Errorf("probe of a store without conditions: %v", err)
	}
}

func testNoBucket(t *testing.T, r *rig) {
	target := r.target(t)
	target.Bucket = "no-such-bucket"
	want(t, target, calls(t.Context(), r.opened(t, target)), always(objstore.ErrNoBucket, objstore.ErrNoBucket))
}

func testDenied(t *testing.T, r *rig) {
	secret := r.target(t)
	secret.SecretKey = "wrong-" + secret.SecretKey
	want(t, secret, calls(t.Context(), r.opened(t, secret)), always(objstore.ErrDenied, objstore.ErrDenied))
	access := r.target(t)
	access.AccessKey = "nobody-at-all"
	want(t, access, calls(t.Context(), r.opened(t, access)), always(objstore.ErrDenied, objstore.ErrDenied))
}

func testUnreachable(t *testing.T, r *rig) {
	var lc net.ListenConfig
	l, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	target := r.target(t)
	target.Addr = l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second) // far less than one SDK's retries take
	defer cancel()
	errs := calls(ctx, r.opened(t, target))
	want(t, target, errs, always(objstore.ErrUnknown, objstore.ErrUnavailable))
	if ctx.Err() != nil {
		t.Errorf("%d refused connections took too long", len(errs))
	}
	if !strings.Contains(errs["head"].Error(), "connection refused") {
		t.Errorf("the error does not say why: %v", errs["head"])
	}
}

// testSilent has a store that takes requests and does not answer: only the time-out ends the calls.
func testSilent(t *testing.T, r *rig) {
	target := r.target(t)
	proxy := miniotest.Delay(t, r.server, 0)
	proxy.SetFault(func(*http.Request) miniotest.Fault { return miniotest.Fault{Delay: time.Hour} })
	target.Addr, target.Timeout = proxy.Addr, 200*time.Millisecond
	errs := calls(t.Context(), r.opened(t, target))
	want(t, target, errs, always(objstore.ErrUnknown, objstore.ErrUnavailable))
	var timeout interface{ Timeout() bool }
	if !errors.As(errs["read"], &timeout) || !timeout.Timeout() {
		t.Errorf("%v is no time-out", errs["read"])
	}
	if errors.Is(errs["read"], context.Canceled) || errors.Is(errs["read"], context.DeadlineExceeded) {
		t.Errorf("%v looks as if the caller had given up", errs["read"])
	}
}

// testAnswers plants every answer that means something.
func testAnswers(t *testing.T, r *rig) {
	s, proxy := r.proxied(t)
	for _, c := range []struct {
		status                     int
		code                       string
		create, swap, read, delete error
	}{
		{status: 412, code: "PreconditionFailed", create: objstore.ErrExists, swap: objstore.ErrChanged, read: objstore.ErrInvalid, delete: objstore.ErrInvalid},
		{status: 409, code: "ConditionalRequestConflict", create: objstore.ErrBusy, swap: objstore.ErrBusy, read: objstore.ErrUnavailable, delete: objstore.ErrUnavailable},
		{status: 409, code: "OperationAborted", create: objstore.ErrBusy, swap: objstore.ErrBusy, read: objstore.ErrUnavailable, delete: objstore.ErrUnavailable},
		{status: 404, code: "NoSuchKey", create: objstore.ErrUnknown, swap: objstore.ErrChanged, read: objstore.ErrNotFound, delete: nil},
		{status: 403, code: "AccessDenied", create: objstore.ErrDenied, swap: objstore.ErrDenied, read: objstore.ErrDenied, delete: objstore.ErrDenied},
		{status: 401, code: "Unauthorized", create: objstore.ErrDenied, swap: objstore.ErrDenied, read: objstore.ErrDenied, delete: objstore.ErrDenied},
		{status: 400, code: "ExpiredToken", create: objstore.ErrDenied, swap: objstore.ErrDenied, read: objstore.ErrDenied, delete: objstore.ErrDenied},
		{status: 400, code: "InvalidArgument", create: objstore.ErrInvalid, swap: objstore.ErrInvalid, read: objstore.ErrInvalid, delete: objstore.ErrInvalid},
		{status: 400, code: "RequestTimeout", create: objstore.ErrUnknown, swap: objstore.ErrUnknown, read: objstore.ErrUnavailable, delete: objstore.ErrUnavailable},
		{status: 408, code: "", create: objstore.ErrUnknown, swap: objstore.ErrUnknown, read: objstore.ErrUnavailable, delete: objstore.ErrUnavailable},
		{status: 429, code: "SlowDown", create: objstore.ErrUnknown, swap: objstore.ErrUnknown, read: objstore.ErrUnavailable, delete: objstore.ErrUnavailable},
		{status: 500, code: "InternalError", create: objstore.ErrUnknown, swap: objstore.ErrUnknown, read: objstore.ErrUnavailable, delete: objstore.ErrUnavailable},
		{status: 501, code: "NotImplemented", create: objstore.ErrInvalid, swap: objstore.ErrInvalid, read: objstore.ErrInvalid, delete: objstore.ErrInvalid},
		{status: 502, code: "", create: objstore.ErrUnknown, swap: objstore.ErrUnknown, read: objstore.ErrUnavailable, delete: objstore.ErrUnavailable},
		{status: 503, code: "SlowDown", create: objstore.ErrUnknown, swap: objstore.ErrUnknown, read: objstore.ErrUnavailable, delete: objstore.ErrUnavailable},
		{status: 504, code: "", create: objstore.ErrUnknown, swap: objstore.ErrUnknown, read: objstore.ErrUnavailable, delete: objstore.ErrUnavailable},
		{status: 301, code: "PermanentRedirect", create: objstore.ErrInvalid, swap: objstore.ErrInvalid, read: objstore.ErrInvalid, delete: objstore.ErrInvalid},
		{status: 307, code: "TemporaryRedirect", create: objstore.ErrUnknown, swap: objstore.ErrUnknown, read: objstore.ErrUnavailable, delete: objstore.ErrUnavailable},
	} {
		proxy.SetFault(func(*http.Request) miniotest.Fault { return miniotest.Fault{Status: c.status, Code: c.code} })
		before := proxy.Requests()
		ctx := t.Context()
		_, create := s.Create(ctx, "k", objtest.Body("x"))
		_, swap := s.Swap(ctx, "k", "0123", objtest.Body("x"))
		_, _, read := s.ReadAt(ctx, "k", make([]byte, 1), 0)
		del := s.Delete(ctx, []string{"k"})
		if n := proxy.Requests() - before; n != 4 {
			t.Errorf("%d %s: four calls made %d requests", c.status, c.code, n)
		}
		for _, e := range []struct {
			call      string
			got, want error
		}{{"create", create, c.create}, {"swap", swap, c.swap}, {"read", read, c.read}, {"delete", del, c.delete}} {
			if !errors.Is(e.got, e.want) {
				t.Errorf("%d %s: %s: %v; want %v", c.status, c.code, e.call, e.got, e.want)
			}
			if e.got != nil && !strings.Contains(e.got.Error(), fmt.Sprintf("HTTP %d", c.status)) {
				t.Errorf("%d %s: %s: the error does not say so: %v", c.status, c.code, e.call, e.got)
			}
		}
	}
}

// testReplyDropped loses the answer of writes that apply: the outcome is unknown, and Put and Replace find it out.
func testReplyDropped(t *testing.T, r *rig) {
	s, proxy := r.proxied(t)
	ctx := t.Context()
	drop := func(req *http.Request) miniotest.Fault {
		return miniotest.Fault{DropReply: req.Method == http.MethodPut}
	}

	proxy.SetFault(drop)
	body := objtest.Body("mine")
	before := proxy.Requests()
	_, err := s.Create(ctx, "a", body)
	if !errors.Is(err, objstore.ErrUnknown) || proxy.Requests() != before+1 {
		t.Fatalf("create whose reply was dropped: %v after %d requests; want unknown after one", err, proxy.Requests()-before)
	}
	out, v, err := objstore.Put(ctx, s, "a", body)
	if out != objstore.Mine || err != nil {
		t.Errorf("put of the same: %v, %v; want mine", out, err)
	}
	out, v2, err := objstore.Put(ctx, s, "b", objtest.Body("too"))
	if out != objstore.Mine || err != nil || v2 == "" {
		t.Errorf("put whose reply was dropped: %v, %v; want mine", out, err)
	}
	out, _, err = objstore.Replace(ctx, s, "a", v, objtest.Body("next"))
	if out != objstore.Mine || err != nil {
		t.Errorf("replace whose reply was dropped: %v, %v; want mine", out, err)
	}
	proxy.SetFault(nil)
	if out, _, err := objstore.Replace(ctx, s, "a", v, objtest.Body("stale")); out != objstore.Other {
		t.Errorf("replace of the old version: %v, %v; want other", out, err)
	}
	proxy.SetFault(func(*http.Request) miniotest.Fault { return miniotest.Fault{DropReply: true} })
	want(t, r.target(t), calls(ctx, s), always(objstore.ErrUnknown, objstore.ErrUnavailable))
	proxy.SetFault(func(*http.Request) miniotest.Fault { return miniotest.Fault{Reset: true} })
	want(t, r.target(t), calls(ctx, s), always(objstore.ErrUnknown, objstore.ErrUnavailable))
}

// testLate applies a create after its caller was told that the outcome is unknown.
func testLate(t *testing.T, r *rig) {
	s, proxy := r.proxied(t)
	ctx := t.Context()
	proxy.SetFault(func(req *http.Request) miniotest.Fault {
		if req.Method == http.MethodPut {
			return miniotest.Fault{Late: 100 * time.Millisecond}
		}
		return miniotest.Fault{}
	})
	mine := objtest.Body("late")
	out, _, err := objstore.Put(ctx, s, "k", mine)
	if out != objstore.Unknown || !errors.Is(err, objstore.ErrUnknown) {
		t.Fatalf("put = %v, %v; want unknown", out, err)
	}
	proxy.SetFault(nil)
	until(t, "the late create to apply", func() bool {
		_, err := s.Head(ctx, "k")
		return err == nil
	})
	if out, _, err := objstore.Put(ctx, s, "k", mine); out != objstore.Mine {
		t.Errorf("put again = %v, %v; want mine", out, err)
	}
}

func testBodyCut(t *testing.T, r *rig) {
	s, proxy := r.proxied(t)
	ctx := t.Context()
	data := bytes.Repeat([]byte("0123456789"), 50_000)
	if _, err := s.Create(ctx, "k", objstore.Bytes(data)); err != nil {
		t.Fatal(err)
	}
	proxy.SetFault(func(*http.Request) miniotest.Fault { return miniotest.Fault{CutBody: 100_001} })
	p := make([]byte, len(data))
	n, _, err := s.ReadAt(ctx, "k", p, 0)
	if n != 0 || !errors.Is(err, objstore.ErrUnavailable) {
		t.Errorf("read of a cut body: %d, %v", n, err)
	}
	n, _, err = s.ReadSuffix(ctx, "k", p[:300_000])
	if n != 0 || !errors.Is(err, objstore.ErrUnavailable) {
		t.Errorf("suffix of a cut body: %d, %v", n, err)
	}
	n, _, err = s.ReadAt(ctx, "k", p[:100_000], 0)
	if n != 100_000 || err != nil {
		t.Errorf("read of less than the cut: %d, %v", n, err)
	}
	proxy.SetFault(func(*http.Request) miniotest.Fault { return miniotest.Fault{CutBody: 200} })
	if page, err := s.List(ctx, "", "", 0); !errors.Is(err, objstore.ErrUnavailable) {
		t.Errorf("list of a cut body: %+v, %v", page, err)
	}
	if err := s.Delete(ctx, []string{"k", "l"}); err != nil && !errors.Is(err, objstore.ErrUnavailable) {
		t.Errorf("delete with a cut answer: %v", err)
	}
	proxy.SetFault(nil)
	if n, _, err := s.ReadAt(ctx, "none", p, 0); n != 0 || !errors.Is(err, objstore.ErrNotFound) {
		t.Errorf("read after the fault: %d, %v", n, err)
	}
}

// testCancelled ends the context while the request is on its way.
func testCancelled(t *testing.T, r *rig) {
	s, proxy := r.proxied(t)
	if _, err := s.Create(t.Context(), "there", objtest.Body("x")); err != nil {
		t.Fatal(err)
	}
	arrived := make(chan struct{})
	proxy.SetFault(func(*http.Request) miniotest.Fault {
		arrived <- struct{}{}
		return miniotest.Fault{Delay: time.Minute}
	})
	for name, call := range map[string]func(context.Context) error{
		"create": func(ctx context.Context) error { _, err := s.Create(ctx, "new", objtest.Body("x")); return err },
		"swap":   func(ctx context.Context) error { _, err := s.Swap(ctx, "there", "0", objtest.Body("x")); return err },
		"read":   func(ctx context.Context) error { _, _, err := s.ReadAt(ctx, "there", make([]byte, 1), 0); return err },
		"list":   func(ctx context.Context) error { _, err := s.List(ctx, "", "", 0); return err },
		"delete": func(ctx context.Context) error { return s.Delete(ctx, []string{"there", "here"}) },
	} {
		ctx, cancel := context.WithCancel(t.Context())
		errc := make(chan error)
		go func() { errc <- call(ctx) }()
		<-arrived
		cancel()
		err := <-errc
		kind := always(objstore.ErrUnknown, objstore.ErrUnavailable)(name)
		if !errors.Is(err, kind) || !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v; want %v and context canceled", name, err, kind)
		}
	}
	proxy.SetFault(nil)
	ctx, cancel := context.WithTimeout(t.Context(), 0)
	defer cancel()
	if _, err := s.Head(ctx, "there"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("head with no time left: %v", err)
	}
}

// testGivenBack ends writes while their body is being read, by an early answer and by giving up: when the call returns,
// no read may be under way, and none may follow.
func testGivenBack(t *testing.T, r *rig) {
	s, proxy := r.proxied(t)
	proxy.SetFault(func(*http.Request) miniotest.Fault {
		return miniotest.Fault{Status: http.StatusServiceUnavailable, Code: "SlowDown", Early: true}
	})
	for range 5 {
		endWrite(t, s, func(ctx context.Context, _ *slowBody) (context.Context, func()) { return ctx, func() {} })
	}
	proxy.SetFault(nil)
	for range 5 {
		endWrite(t, s, func(ctx context.Context, body *slowBody) (context.Context, func()) {
			ctx, cancel := context.WithCancel(ctx)
			return ctx, func() {
				<-body.third
				cancel()
			}
		})
	}
	if _, err := s.Head(t.Context(), "k"); !errors.Is(err, objstore.ErrNotFound) {
		t.Errorf("half a body made an object: %v", err)
	}
}

// endWrite makes a write that comes to nothing.
func endWrite(t *testing.T, s objstore.Store, prepare func(context.Context, *slowBody) (context.Context, func())) {
	t.Helper()
	body := &slowBody{Parts: objstore.Bytes(make([]byte, 8<<20)).WithCRC32C(0), third: make(chan struct{})}
	ctx, end := prepare(t.Context(), body)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, err := s.Create(ctx, "k", body)
		body.over.Store(true)
		if body.reading.Load() != 0 {
			t.Error("the payload was being read when the call had returned")
		}
		if !errors.Is(err, objstore.ErrUnknown) {
			t.Error(err)
		}
	}()
	end()
	<-done
	if body.late.Load() {
		t.Error("the payload was read after the call had returned")
	}
}

// slowBody takes its time for each read, and notes reads that begin after the call was over.
type slowBody struct {
	*objstore.Parts
	third   chan struct{} // closed in the third read
	reads   atomic.Int64
	reading atomic.Int64 // under way
	over    atomic.Bool
	late    atomic.Bool
}

func (b *slowBody) Reader() io.ReadSeeker { return &slowReader{ReadSeeker: b.Parts.Reader(), b: b} }

type slowReader struct {
	io.ReadSeeker
	b *slowBody
}

func (r *slowReader) Read(p []byte) (int, error) {
	if r.b.reads.Add(1) == 3 {
		close(r.b.third)
	}
	r.b.reading.Add(1)
	defer r.b.reading.Add(-1)
	if r.b.over.Load() {
		r.b.late.Store(true)
	}
	timer := time.NewTimer(5 * time.Millisecond)
	<-timer.C
	return r.ReadSeeker.Read(p)
}

// until waits for a condition.
func until(t *testing.T, what string, cond func() bool) {
	t.Helper()
	deadline := time.NewTimer(30 * time.Second)
	defer deadline.Stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !cond() {
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("waited in vain for %s", what)
		}
	}
}
