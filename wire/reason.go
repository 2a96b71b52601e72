package wire

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Reason says why a connection ended; metrics count by it.
type Reason string

// The reasons.
const (
	ReasonPeer        Reason = "peer"        // the peer closed it between two requests
	ReasonNetwork     Reason = "network"     // it broke, or ended in the middle of a request
	ReasonIdle        Reason = "idle"        // nothing happened for IdleTimeout
	ReasonStalled     Reason = "stalled"     // the peer stopped sending in the middle of a request
	ReasonSlow        Reason = "slow"        // the peer does not read its responses
	ReasonMalformed   Reason = "malformed"   // not the Kafka protocol
	ReasonUnsupported Reason = "unsupported" // an API or version that is not served
	ReasonHandler     Reason = "handler"     // the handler asked for it
	ReasonPanic       Reason = "panic"       // the handler panicked
	ReasonShutdown    Reason = "shutdown"    // the server stops
)

// closeError carries the reason for which a connection ends.
type closeError struct {
	reason Reason
	err    error
}

func (e *closeError) Error() string { return e.err.Error() }
func (e *closeError) Unwrap() error { return e.err }

func ending(reason Reason, err error) error { return &closeError{reason, err} }

// reasonOf returns the reason an error carries; errors of the connection itself carry none.
func reasonOf(err error) Reason {
	if e, ok := errors.AsType[*closeError](err); ok {
		return e.reason
	}
	return ReasonNetwork
}

var (
	errPeerClosed = ending(ReasonPeer, errors.New("the peer closed the connection"))
	errDraining   = ending(ReasonShutdown, errors.New("the server stops"))
	errKilled     = ending(ReasonShutdown, errors.New("the server stopped"))
)

// panicError is a panic of the handler.
type panicError struct {
	value any
	stack []byte
}

func (e *panicError) Error() string { return fmt.Sprintf("panic: %v", e.value) }

// looksLike names what sent a frame length that no Kafka client sends, from the first bytes.
func looksLike(b []byte) string {
	for _, verb := range []string{"GET ", "POST", "PUT ", "HEAD", "OPTI", "DELE", "PATC", "CONN", "TRAC", "PRI "} {
		if bytes.HasPrefix(b, []byte(verb)) {
			return "an HTTP request"
		}
	}
	switch {
	case len(b) >= 2 && b[0] == 0x16 && b[1] == 0x03:
		return "a TLS handshake; this listener speaks plain Kafka"
	case bytes.HasPrefix(b, []byte("SSH-")):
		return "an SSH client"
	}
	return "no Kafka client, or a damaged stream"
}

// quietLog writes lines that peers can provoke at will: at most ten at once and one a second.
type quietLog struct {
	log *slog.Logger
	now func() time.Time

	mu         sync.Mutex
	limit      *rate.Limiter // owned by mu
	suppressed int           // lines left out since the last one; owned by mu
}

func newQuietLog(log *slog.Logger, now func() time.Time) *quietLog {
	return &quietLog{log: log, now: now, limit: rate.NewLimiter(1, 10)}
}

func (q *quietLog) warn(ctx context.Context, msg string, attrs ...slog.Attr) {
	q.mu.Lock()
	ok, left := q.limit.AllowN(q.now(), 1), q.suppressed
	if ok {
		q.suppressed = 0
	} else {
		q.suppressed++
	}
	q.mu.Unlock()
	if !ok {
		return
	}
	if left > 0 {
		attrs = append(attrs, slog.Int("suppressed_lines", left))
	}
	q.log.LogAttrs(ctx, slog.LevelWarn, msg, attrs...)
}

// logEnd writes the line that a connection's end deserves.
func (s *Server) logEnd(ctx context.Context, c *Conn, err error) {
	peer := slog.Any("peer", c.nc.RemoteAddr())
	if p, ok := errors.AsType[*panicError](err); ok {
		s.cfg.Logger.LogAttrs(ctx, slog.LevelError, "request handler panicked; connection closed",
			peer, slog.Any("panic", p.value), slog.String("stack", string(p.stack)))
		return
	}
	switch reason := reasonOf(err); reason {
	case ReasonPeer, ReasonNetwork, ReasonIdle, ReasonShutdown:
		s.cfg.Logger.LogAttrs(ctx, slog.LevelDebug, "connection closed",
			peer, slog.String("reason", string(reason)), slog.Any("error", err))
	default:
		s.quiet.warn(ctx, "connection closed",
			peer, slog.String("reason", string(reason)), slog.Any("error", err))
	}
}

// hostOf returns the peer's address without the port.
func hostOf(addr net.Addr) string {
	if tcp, ok := addr.(*net.TCPAddr); ok {
		return tcp.AddrPort().Addr().Unmap().String()
	}
	if host, _, err := net.SplitHostPort(addr.String()); err == nil {
		return host
	}
	return addr.String()
}
