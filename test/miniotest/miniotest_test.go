package miniotest_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tierlog/tierlog/objstore"
	"github.com/tierlog/tierlog/objstore/backend"
	"github.com/tierlog/tierlog/test/miniotest"
)

func open(t *testing.T, url string) objstore.Store {
	t.Helper()
	spec, err := backend.Parse(url)
	if err != nil {
		t.Fatal(err)
	}
	s, err := backend.Open(t.Context(), spec, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// TestRestart kills the server: what was acknowledged is there when it is back, at the same address.
func TestRestart(t *testing.T) {
	server := miniotest.Start(t)
	s := open(t, server.StoreURL(server.Bucket(t, "bucket"), "p"))
	data := bytes.Repeat([]byte("x"), 1<<20)
	if _, err := s.Create(t.Context(), "k", objstore.Bytes(data)); err != nil {
		t.Fatal(err)
	}
	pid := server.PID()
	server.Kill()
	if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("process %d after kill: %v", pid, err)
	}
	if _, err := s.Head(t.Context(), "k"); !errors.Is(err, objstore.ErrUnavailable) {
		t.Errorf("head while the server is down: %v", err)
	}
	if err := server.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	got, _, err := objstore.ReadAll(t.Context(), s, "k", 2<<20)
	if err != nil || !bytes.Equal(got, data) {
		t.Errorf("after the restart: %d bytes, %v", len(got), err)
	}
	server.Stop()
	server.Stop()
}

// TestDelay writes through a proxy that delays each PUT: writes take that long, also side by side, and reads do not.
func TestDelay(t *testing.T) {
	const put = 200 * time.Millisecond
	server := miniotest.Start(t)
	proxy := miniotest.Delay(t, server, put)
	s := open(t, proxy.StoreURL(server.Bucket(t, "bucket"), ""))
	start := time.Now()
	var wg sync.WaitGroup
	keys := []string{"a", "b", "c", "d", "e", "f", "g", "h"}
	for _, key := range keys {
		wg.Go(func() {
			if _, err := s.Create(t.Context(), key, objstore.Bytes([]byte(key))); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if took := time.Since(start); took < put || took > 7*put {
		t.Errorf("%d writes side by side took %v, want little more than %v", len(keys), took, put)
	}
	start = time.Now()
	for _, key := range keys {
		if _, err := s.Head(t.Context(), key); err != nil {
			t.Error(err)
		}
	}
	if took := time.Since(start); took > 7*put {
		t.Errorf("%d reads took %v: they seem to be delayed", len(keys), took)
	}
	if n := proxy.Requests(); n != int64(2*len(keys)) {
		t.Errorf("%d requests passed, want %d", n, 2*len(keys))
	}
}

// TestLateEnds ends a proxy while a late request waits: nothing stays behind.
func TestLateEnds(t *testing.T) {
	server := miniotest.Start(t)
	proxy, stop, err := miniotest.StartProxy(t.Context(), server)
	if err != nil {
		t.Fatal(err)
	}
	proxy.SetFault(func(*http.Request) miniotest.Fault { return miniotest.Fault{Late: time.Hour} })
	s := open(t, proxy.StoreURL(server.Bucket(t, "bucket"), ""))
	if _, err := s.Create(t.Context(), "k", objstore.Bytes([]byte("x"))); !errors.Is(err, objstore.ErrUnknown) {
		t.Errorf("create: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	stopped := make(chan struct{})
	go func() {
		stop()
		close(stopped)
	}()
	select {
	case <-stopped:
	case <-ctx.Done():
		t.Error("the proxy does not end")
	}
}
