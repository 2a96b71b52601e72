package wire

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tierlog/tierlog/membuf"
)

const (
	keyFetch    = 1
	keyMetadata = 3
	keyJoin     = 11
)

// handlerFunc serves a few APIs with a function.
type handlerFunc func(ctx context.Context, req *Request, reply *Reply) error

func (f handlerFunc) Handle(ctx context.Context, req *Request, reply *Reply) error {
	return f(ctx, req, reply)
}

func (handlerFunc) Versions() map[int16]Range {
	return map[int16]Range{keyProduce: {0, 13}, keyFetch: {4, 18}, keyMetadata: {0, 13}, keyJoin: {0, 9}, keyAPIVersions: {0, 4}}
}

// echo answers with the request's body.
func echo(_ context.Context, req *Request, reply *Reply) error {
	reply.SendParts([][]byte{bytes.Clone(req.Body)}, nil)
	return nil
}

// counts is an Observer.
type counts struct {
	mu              sync.Mutex
	opened, refused int
	closed          map[Reason]int
	samples         []Sample
}

func (o *counts) ConnectionOpened() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.opened++
}

func (o *counts) ConnectionClosed(r Reason) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.closed[r]++
}

func (o *counts) ConnectionRefused() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.refused++
}

func (o *counts) RequestDone(s Sample) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.samples = append(o.samples, s)
}

func (o *counts) done() []Sample {
	o.mu.Lock()
	defer o.mu.Unlock()
	return append([]Sample(nil), o.samples...)
}

func (o *counts) ended(r Reason) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.closed[r]
}

// fixture is a server on a listener in memory.
type fixture struct {
	t      *testing.T
	srv    *Server
	ln     *memListener
	pool   *membuf.Pool
	budget *membuf.Budget
	other  *membuf.Budget
	obs    *counts
	logs   *lines
	cancel context.CancelFunc
	served chan error
	calls  int // of Handle
	callMu sync.Mutex
}

// lines collects log output.
type lines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *lines) all() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.FieldsFunc(l.buf.String(), func(r rune) bool { return r == '\n' })
}

func (l *lines) one(t *testing.T, want ...string) {
	t.Helper()
	got := l.all()
	if len(got) != 1 {
		t.Fatalf("%d log lines, want 1: %q", len(got), got)
	}
	for _, w := range want {
		if !strings.Contains(got[0], w) {
			t.Fatalf("log line %q does not say %q", got[0], w)
		}
	}
}

func start(t *testing.T, h handlerFunc, edit func(*Config)) *fixture {
	t.Helper()
	f := &fixture{
		t: t, ln: newMemListener(), pool: membuf.NewPool(1 << 20), budget: membuf.NewBudget(64 << 20), other: membuf.NewBudget(1 << 20),
		obs: &counts{closed: map[Reason]int{}}, logs: &lines{}, served: make(chan error, 1),
	}
	counted := handlerFunc(func(ctx context.Context, req *Request, reply *Reply) error {
		f.callMu.Lock()
		f.calls++
		f.callMu.Unlock()
		return h(ctx, req, reply)
	})
	cfg := Config{
		Handler: counted, Pool: f.pool, Budget: f.budget, OtherBudget: f.other, Now: time.Now, Observer: f.obs,
		Logger: slog.New(slog.NewTextHandler(f.logs, nil)),
	}
	if edit != nil {
		edit(&cfg)
		f.budget = cfg.Budget
	}
	srv, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	f.srv = srv
	ctx, cancel := context.WithCancel(t.Context())
	f.cancel = cancel
	go func() { f.served <- srv.Serve(ctx, f.ln) }()
	return f
}

func (f *fixture) handled() int {
	f.callMu.Lock()
	defer f.callMu.Unlock()
	return f.calls
}

// stop ends the server and checks that nothing is left.
func (f *fixture) stop() {
	f.t.Helper()
	f.cancel()
	if err := <-f.served; err != nil && !errors.Is(err, ErrServerClosed) {
		f.t.Errorf("Serve: %v", err)
	}
	synctest.Wait()
	f.clean()
}

// clean checks that everything taken was given back and every request was observed once.
func (f *fixture) clean() {
	f.t.Helper()
	if live, used, other := f.pool.Live(), f.budget.Used(), f.other.Used(); live != 0 || used != 0 || other != 0 {
		f.t.Errorf("%d bytes of the pool, %d of the budget and %d of the other budget are still taken", live, used, other)
	}
	if n := f.srv.Connections(); n != 0 {
		f.t.Errorf("%d connections left", n)
	}
	f.obs.mu.Lock()
	defer f.obs.mu.Unlock()
	closed := 0
	for _, n := range f.obs.closed {
		closed += n
	}
	if closed != f.obs.opened {
		f.t.Errorf("%d connections opened, %d closed", f.obs.opened, closed)
	}
	if len(f.obs.samples) != f.handled() {
		f.t.Errorf("%d requests handled, %d observed", f.handled(), len(f.obs.samples))
	}
}

// client speaks frames over one end of a connection.
type client struct {
	t *testing.T
	net.Conn
}

func (f *fixture) dial() *client {
	return &client{f.t, f.ln.dial("10.0.0.1:4711", 64<<10)}
}

func (c *client) send(frames ...[]byte) {
	c.t.Helper()
	if _, err := c.Write(bytes.Join(frames, nil)); err != nil {
		c.t.Errorf("send: %v", err)
	}
}

// closeWrite ends the client's sending.
func (c *client) closeWrite() error { return c.Conn.(*memConn).CloseWrite() }

// recv reads a response and returns what follows the length.
func (c *client) recv() []byte {
	c.t.Helper()
	var size [4]byte
	if _, err := io.ReadFull(c, size[:]); err != nil {
		c.t.Fatalf("response: %v", err)
	}
	b := make([]byte, binary.BigEndian.Uint32(size[:]))
	if _, err := io.ReadFull(c, b); err != nil {
		c.t.Fatalf("response of %d bytes: %v", len(b), err)
	}
	return b
}

// expect reads responses with the correlation ids, in this order.
func (c *client) expect(ids ...int32) {
	c.t.Helper()
	for _, want := range ids {
		if b := c.recv(); int32(binary.BigEndian.Uint32(b)) != want {
			c.t.Fatalf("response to %d, want %d", binary.BigEndian.Uint32(b), want)
		}
	}
}

// expectEnd reads until the connection's end, which must come without another byte.
func (c *client) expectEnd() {
	c.t.Helper()
	rest, err := io.ReadAll(c)
	if len(rest) > 0 || (err != nil && !errors.Is(err, net.ErrClosed)) {
		c.t.Fatalf("before the end: %d bytes, %v", len(rest), err)
	}
}

// frame returns a request frame with header version 1, or 2 where the version says so.
func frame(key, version int16, id int32, body []byte) []byte {
	b := make([]byte, 4, 64+len(body))
	b = binary.BigEndian.AppendUint16(b, uint16(key))
	b = binary.BigEndian.AppendUint16(b, uint16(version))
	b = binary.BigEndian.AppendUint32(b, uint32(id))
	b = binary.BigEndian.AppendUint16(b, 4)
	b = append(b, "test"...)
	if req := kmsg.RequestForKey(key); req != nil {
		if req.SetVersion(version); req.IsFlexible() {
			b = append(b, 0)
		}
	}
	b = append(b, body...)
	binary.BigEndian.PutUint32(b, uint32(len(b)-4))
	return b
}

func produce(id int32, size int) []byte { return frame(keyProduce, 7, id, make([]byte, size)) }
