package server

import (
	"net"
	"net/http"
	"net/http/pprof"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// serveHTTP serves metrics, health and, to loopback only, profiles. The returned function ends it.
func (s *process) serveHTTP(ln net.Listener) (stop func()) {
	s.http = ln.Addr().String()
	srv := &http.Server{Handler: s, ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = srv.Serve(ln) }()
	return func() { _ = srv.Close() }
}

// ServeHTTP routes a request.
func (s *process) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(s.registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { answer(w, http.StatusOK, "ok") })
	mux.HandleFunc("GET /readyz", s.readyz)
	if host, _, err := net.SplitHostPort(r.RemoteAddr); err == nil && net.ParseIP(host).IsLoopback() {
		mux.HandleFunc("/debug/pprof/", pprof.Index)
		mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
		mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
		mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
		mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	}
	mux.ServeHTTP(w, r)
}

func (s *process) readyz(w http.ResponseWriter, _ *http.Request) {
	switch {
	case !s.ready.Load():
		answer(w, http.StatusServiceUnavailable, "not ready: starting, stopping, or waiting for the bucket")
	case !s.meta.serving():
		answer(w, http.StatusServiceUnavailable, "not ready: the lease cannot be renewed, the bucket may be unreachable")
	case s.observer.failing():
		answer(w, http.StatusServiceUnavailable, "not ready: the bucket does not take writes")
	default:
		answer(w, http.StatusOK, "ready")
	}
}

func answer(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write([]byte(text + "\n"))
}
