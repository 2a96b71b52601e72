package wire

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync"
	"syscall"
	"time"
)

// ErrServerClosed is returned by Serve after Shutdown.
var ErrServerClosed = errors.New("wire: server closed")

const (
	minBackOff = 5 * time.Millisecond
	maxBackOff = time.Second
)

// Server serves connections of any number of listeners.
type Server struct {
	cfg   Config
	apis  apis
	quiet *quietLog

	stopping chan struct{} // closed by Shutdown

	mu        sync.Mutex
	closed    bool                      // owned by mu
	listeners map[net.Listener]struct{} // owned by mu
	conns     map[*Conn]struct{}        // owned by mu
	hosts     map[string]int            // connections by peer address, where that is limited; owned by mu
	running   sync.WaitGroup            // connections; Add only under mu while not closed
}

// New returns a server.
func New(cfg Config) (*Server, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	return &Server{
		cfg: cfg, apis: newAPIs(cfg.Handler.Versions()), quiet: newQuietLog(cfg.Logger, cfg.Now),
		stopping:  make(chan struct{}),
		listeners: map[net.Listener]struct{}{}, conns: map[*Conn]struct{}{}, hosts: map[string]int{},
	}, nil
}

// Serve accepts connections until ctx is done (nil), Shutdown is called (ErrServerClosed) or the listener fails, and
// closes the listener. Connections do not outlive ctx; when Serve returns, those it accepted have ended.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	defer func() { _ = ln.Close() }()
	if !s.track(ln) {
		return ErrServerClosed
	}
	defer s.untrack(ln)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = ln.Close() })
	defer stop()
	var conns sync.WaitGroup
	err := s.accept(ctx, ln, &conns)
	select {
	case <-s.stopping:
		err = ErrServerClosed
	default:
		if ctx.Err() != nil {
			err = nil
		} else {
			cancel() // the listener is gone: so is what it accepted
		}
	}
	conns.Wait()
	return err
}

func (s *Server) track(ln net.Listener) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.listeners[ln] = struct{}{}
	}
	return !s.closed
}

func (s *Server) untrack(ln net.Listener) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.listeners, ln)
}

// accept starts connections until the listener fails for good.
func (s *Server) accept(ctx context.Context, ln net.Listener, conns *sync.WaitGroup) error {
	backOff := minBackOff
	for {
		nc, err := ln.Accept()
		if err == nil {
			backOff = minBackOff
			s.start(ctx, nc, conns)
			continue
		}
		if ctx.Err() != nil || !passing(err) {
			return err
		}
		s.quiet.warn(ctx, "cannot accept connections; trying again", slog.Any("error", err), slog.Duration("after", backOff))
		pause := time.NewTimer(backOff)
		select {
		case <-pause.C:
		case <-ctx.Done():
		case <-s.stopping:
		}
		pause.Stop()
		backOff = min(2*backOff, maxBackOff)
	}
}

// passing tells errors of accept that go away: the peer left, or the system is short of something.
func passing(err error) bool {
	for _, e := range []error{
		syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM,
		syscall.ECONNABORTED, syscall.ECONNRESET, syscall.EINTR, syscall.EAGAIN, syscall.EPROTO,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// start serves the connection, or closes it where a limit is reached or the server stops.
func (s *Server) start(ctx context.Context, nc net.Conn, conns *sync.WaitGroup) {
	host := ""
	if s.cfg.MaxConnectionsPerIP > 0 {
		host = hostOf(nc.RemoteAddr())
	}
	c := newConn(ctx, s, nc)
	switch ok, limit := s.admit(c, host); {
	case !ok && limit == "":
		c.kill(errKilled)
		return
	case !ok:
		c.kill(errKilled)
		s.cfg.Observer.ConnectionRefused()
		s.quiet.warn(ctx, "connection refused: "+limit+" is reached", slog.Any("peer", nc.RemoteAddr()),
			slog.Int("max_connections", s.cfg.MaxConnections), slog.Int("max_connections_per_ip", s.cfg.MaxConnectionsPerIP))
		return
	}
	s.cfg.Observer.ConnectionOpened()
	conns.Go(func() {
		defer s.running.Done()
		defer s.leave(c, host)
		c.serve(ctx)
	})
}

// admit registers the connection, or names the limit that forbids it; a closed server names none.
func (s *Server) admit(c *Conn, host string) (ok bool, limit string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return false, ""
	case s.cfg.MaxConnections > 0 && len(s.conns) >= s.cfg.MaxConnections:
		return false, "the connection limit"
	case host != "" && s.hosts[host] >= s.cfg.MaxConnectionsPerIP:
		return false, "the connection limit of the peer's address"
	}
	if host != "" {
		s.hosts[host]++
	}
	s.conns[c] = struct{}{}
	s.running.Add(1)
	return true, ""
}

func (s *Server) leave(c *Conn, host string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
	if host == "" {
		return
	}
	if s.hosts[host]--; s.hosts[host] == 0 {
		delete(s.hosts, host)
	}
}

// Connections returns the number of connections being served.
func (s *Server) Connections() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.conns)
}

// Shutdown stops accepting connections and reading requests, waits until pending replies are completed and written,
// and returns nil when every connection has ended. When ctx is done first, connections are closed as they are and its
// error is returned; then a Handle call that ignores its context may still be running.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	if !s.closed {
		s.closed = true
		close(s.stopping)
	}
	for ln := range s.listeners {
		_ = ln.Close()
	}
	conns := make([]*Conn, 0, len(s.conns))
	for c := range s.conns {
		conns = append(conns, c)
	}
	s.mu.Unlock()
	for _, c := range conns {
		c.drain()
	}
	ended := make(chan struct{})
	go func() {
		s.running.Wait()
		close(ended)
	}()
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
	}
	for _, c := range conns {
		c.kill(errKilled)
	}
	return ctx.Err()
}
