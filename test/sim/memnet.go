// Package sim runs whole brokers in one process on simulated time: a real client over an in-memory network, a bucket in
// memory behind a faulty one. Brokers are killed at every call they make to the bucket, and what clients were told is
// compared with what can be read afterwards.
//
// Invariants that the tests check:
//
//   - Every acknowledged record is read back at its offset.
//   - Offsets of a partition are read without duplicates, in the order in which one producer sent.
package sim

import (
	"context"
	"net"
	"sync"
)

// Network is a host that one broker at a time listens on. Connections are pipes.
type Network struct {
	mu sync.Mutex
	ln *Listener // nil: nobody listens; owned by mu
}

// Listen takes the place of an earlier listener.
func (n *Network) Listen() *Listener {
	l := &Listener{net: n, conns: make(chan net.Conn), done: make(chan struct{})}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.ln = l
	return l
}

// Dial connects to who listens now; any address is the same host.
func (n *Network) Dial(ctx context.Context, _, _ string) (net.Conn, error) {
	n.mu.Lock()
	l := n.ln
	n.mu.Unlock()
	if l == nil {
		return nil, &net.OpError{Op: "dial", Net: "sim", Err: net.ErrClosed}
	}
	client, server := net.Pipe()
	l.track(client)
	select {
	case l.conns <- server:
		return client, nil
	case <-l.done:
		return nil, &net.OpError{Op: "dial", Net: "sim", Err: net.ErrClosed}
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Listener implements net.Listener.
type Listener struct {
	net   *Network
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once

	mu   sync.Mutex
	open []net.Conn // clients' ends; owned by mu
}

func (l *Listener) track(c net.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open = append(l.open, c)
}

// Accept implements net.Listener.
func (l *Listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (l *Listener) Close() error {
	l.once.Do(func() { close(l.done) })
	return nil
}

// Cut closes the listener and every connection, as the death of the host does.
func (l *Listener) Cut() {
	_ = l.Close()
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range l.open {
		_ = c.Close()
	}
}

// Addr implements net.Listener.
func (l *Listener) Addr() net.Addr { return simAddr{} }

type simAddr struct{}

func (simAddr) Network() string { return "sim" }
func (simAddr) String() string  { return "broker.sim:9092" }
