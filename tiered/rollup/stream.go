package rollup

import (
	"cmp"
	"context"
	"errors"
	"io"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/tierlog/tierlog/membuf"
)

// Memory is about how many bytes of records are held in memory for each output that is being written: two windows, and
// as much again for reads that serve several parts of a window.
const Memory = 16 << 20

const (
	// windowSize is how much of an output is put together at a time. Sections of one object that go to one window are
	// read together, so the larger it is, the fewer reads a merge of many partitions takes.
	windowSize = 4 << 20
	// maxGap is how many bytes of an object are read in vain rather than that a read is split.
	maxGap = 32 << 10
	// scratchSize bounds what the reads in flight hold besides the windows.
	scratchSize = 8 << 20
)

// span is one piece of an output: memory, or a range of an object.
type span struct {
	size int64
	mem  []byte
	key  string
	pos  int64 // bytes of the object
}

// observer sees the records' bytes of one pass over an output in order, before anybody else does. An error ends the pass.
type observer interface {
	// see is given the next bytes of the i-th span.
	see(i int, b []byte) error
}

// stream is a payload whose bytes are read from other objects when they are sent: it holds a few windows, however large
// it is. Each Reader makes a pass of its own. close must be called once the write has returned.
type stream struct {
	head, tail []byte // written before and after the spans; not observed
	spans      []span
	windows    []window
	size       int64
	crc        uint32
	crcKnown   bool
	read       func(ctx context.Context, key string, pos int64, p []byte) error
	observe    func() observer
	pool       *membuf.Pool
	slots      chan struct{} // reads in flight
	group      int64         // bytes that one read for several parts may take

	// The context of the one write that the stream is made for; Payload has no other place for it.
	ctx    context.Context
	cancel context.CancelFunc
	tasks  sync.WaitGroup

	mu      sync.Mutex
	err     error                // why a pass failed; owned by mu
	held    int                  // windows in memory; owned by mu
	readers map[*passReader]bool // that may hold windows; owned by mu
	closed  bool                 // owned by mu
}

// window is a part of the output that is loaded as a whole.
type window struct {
	start int64 // in the output
	size  int
	parts []part
	mem   []byte // instead of parts: is in memory anyway
}

// part is a piece of a span in a window.
type part struct {
	span int
	off  int64 // in the span
	at   int   // in the window
	n    int
}

// newStream makes a payload of head, spans and tail. The caller sets the checksum, if it is known.
func (w *Worker) newStream(ctx context.Context, head []byte, spans []span, tail []byte, observe func() observer) *stream {
	s := &stream{
		head: head, tail: tail, spans: spans, observe: observe,
		read: w.cfg.Read, pool: w.cfg.Pool, slots: make(chan struct{}, w.cfg.Reads), group: scratchSize / int64(w.cfg.Reads),
		readers: make(map[*passReader]bool),
	}
	s.ctx, s.cancel = context.WithCancel(ctx)
	s.cutWindows()
	return s
}

func (s *stream) cutWindows() {
	add := func(win window) {
		win.start = s.size
		if win.mem != nil {
			win.size = len(win.mem)
		}
		if win.size > 0 {
			s.windows = append(s.windows, win)
			s.size += int64(win.size)
		}
	}
	add(window{mem: s.head})
	var open window
	for i := range s.spans {
		for off := int64(0); off < s.spans[i].size; {
			n := int(min(s.spans[i].size-off, int64(windowSize-open.size)))
			open.parts = append(open.parts, part{span: i, off: off, at: open.size, n: n})
			open.size += n
			if off += int64(n); open.size == windowSize {
				add(open)
				open = window{}
			}
		}
	}
	add(open)
	add(window{mem: s.tail})
}

// Size implements objstore.Payload.
func (s *stream) Size() int64 { return s.size }

// CRC32C implements objstore.Payload.
func (s *stream) CRC32C() (uint32, bool) { return s.crc, s.crcKnown }

// Reader implements objstore.Payload.
func (s *stream) Reader() io.ReadSeeker { return &passReader{s: s} }

// failure returns why a pass failed, or nil.
func (s *stream) failure() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

func (s *stream) fail(err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil {
		s.err = err
	}
	return err
}

// endPasses gives back the memory of all passes that were begun. No call that reads may be running.
func (s *stream) endPasses() {
	s.mu.Lock()
	readers := s.readers
	s.readers = make(map[*passReader]bool)
	s.mu.Unlock()
	for r := range readers {
		r.stop()
	}
}

// close ends the stream for good.
func (s *stream) close() {
	s.cancel()
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.endPasses()
	s.tasks.Wait()
}

// hold counts a window; without need, it refuses the third one.
func (s *stream) hold(need bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !need && s.held >= 2 {
		return false
	}
	s.held++
	return true
}

func (s *stream) release(b *membuf.Buf) {
	if b != nil {
		b.Release()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held--
}

// load puts a window together and shows it to the observer. The caller has counted it with hold.
func (s *stream) load(win *window, obs observer) (*membuf.Buf, error) {
	buf := s.pool.Get(win.size)
	err := s.fill(win, buf.Bytes())
	for i := 0; err == nil && i < len(win.parts); i++ {
		p := &win.parts[i]
		err = obs.see(p.span, buf.Bytes()[p.at:p.at+p.n])
	}
	if err != nil {
		s.release(buf)
		return nil, s.fail(err)
	}
	return buf, nil
}

// fill reads all parts of a window, neighbours in one object together.
func (s *stream) fill(win *window, dst []byte) error {
	order := make([]part, 0, len(win.parts))
	for _, p := range win.parts {
		if sp := &s.spans[p.span]; sp.mem != nil {
			copy(dst[p.at:], sp.mem[p.off:p.off+int64(p.n)])
			continue
		}
		order = append(order, p)
	}
	slices.SortFunc(order, func(a, b part) int {
		x, y := &s.spans[a.span], &s.spans[b.span]
		return cmp.Or(cmp.Compare(x.key, y.key), cmp.Compare(x.pos+a.off, y.pos+b.off))
	})
	g, ctx := errgroup.WithContext(s.ctx)
	for len(order) > 0 {
		n := s.neighbours(order)
		run := order[:n]
		order = order[n:]
		select {
		case s.slots <- struct{}{}:
		case <-ctx.Done():
			return errors.Join(g.Wait(), ctx.Err())
		}
		g.Go(func() error {
			defer func() { <-s.slots }()
			return s.readRun(ctx, run, dst)
		})
	}
	return g.Wait()
}

// pos returns where a part is in its object.
func (s *stream) pos(p *part) int64 { return s.spans[p.span].pos + p.off }

// neighbours returns how many of the first parts to read at once.
func (s *stream) neighbours(parts []part) int {
	first := &parts[0]
	end := s.pos(first) + int64(first.n)
	for i := 1; i < len(parts); i++ {
		p := &parts[i]
		if s.spans[p.span].key != s.spans[first.span].key || s.pos(p) < end || s.pos(p)-end > maxGap ||
			s.pos(p)+int64(p.n)-s.pos(first) > s.group {
			return i
		}
		end = s.pos(p) + int64(p.n)
	}
	return len(parts)
}

// readRun reads parts that are neighbours in one object.
func (s *stream) readRun(ctx context.Context, run []part, dst []byte) error {
	key, from := s.spans[run[0].span].key, s.pos(&run[0])
	if len(run) == 1 {
		return inputFailed(key, s.read(ctx, key, from, dst[run[0].at:run[0].at+run[0].n]))
	}
	last := &run[len(run)-1]
	scratch := s.pool.Get(int(s.pos(last) + int64(last.n) - from))
	defer scratch.Release()
	b := scratch.Bytes()
	if err := inputFailed(key, s.read(ctx, key, from, b)); err != nil {
		return err
	}
	for i := range run {
		copy(dst[run[i].at:run[i].at+run[i].n], b[s.pos(&run[i])-from:])
	}
	return nil
}

// passReader is one pass over a stream. Windows are loaded in order, so that the observer sees all bytes; a seek
// forward reads what it skips, one back starts the pass again.
type passReader struct {
	s *stream

	mu    sync.Mutex
	pos   int64 // where the caller is
	next  int   // window to be loaded next
	cur   *window
	buf   *membuf.Buf // of cur, unless that is in memory anyway
	ahead chan loaded // of windows[next], if it is being loaded already
	obs   observer
	err   error // ends the pass
}

type loaded struct {
	buf *membuf.Buf
	err error
}

var (
	errClosed = errors.New("read of a payload after its write")
	errSeek   = errors.New("seek before the start of the payload")
)

// Read implements io.Reader.
func (r *passReader) Read(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.pos >= r.s.size:
		r.drop()
		return 0, io.EOF
	case len(p) == 0:
		return 0, nil
	}
	if r.next > 0 && (r.cur == nil || r.pos < r.cur.start) {
		r.restart() // a seek back, or anywhere after the end was reached
	}
	for r.cur == nil || r.pos >= r.cur.start+int64(r.cur.size) {
		if err := r.advance(); err != nil {
			return 0, err
		}
	}
	b := r.cur.mem
	if b == nil {
		b = r.buf.Bytes()
	}
	n := copy(p, b[r.pos-r.cur.start:])
	r.pos += int64(n)
	return n, nil
}

// Seek implements io.Seeker.
func (r *passReader) Seek(offset int64, whence int) (int64, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch whence {
	case io.SeekCurrent:
		offset += r.pos
	case io.SeekEnd:
		offset += r.s.size
	}
	if offset < 0 {
		return 0, errSeek
	}
	r.pos = offset
	return offset, nil
}

// advance makes the next window the current one and starts to load the one after it. Callers hold mu.
func (r *passReader) advance() error {
	if r.err == nil && !r.register() {
		r.err = errClosed
	}
	if r.err != nil {
		return r.err
	}
	if r.obs == nil {
		r.obs = r.s.observe()
	}
	r.dropCurrent()
	win := &r.s.windows[r.next]
	if win.mem == nil {
		l, err := r.take(win)
		if err != nil {
			r.err = err
			return err
		}
		r.buf = l
	}
	r.cur = win
	r.next++
	if r.buf != nil && r.next < len(r.s.windows) && r.s.windows[r.next].mem == nil && r.s.hold(false) {
		r.loadAhead(&r.s.windows[r.next])
	}
	return nil
}

// register lets close find the reader.
func (r *passReader) register() bool {
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	if r.s.closed {
		return false
	}
	r.s.readers[r] = true
	return true
}

// take returns the next window's bytes. Callers hold mu.
func (r *passReader) take(win *window) (*membuf.Buf, error) {
	if r.ahead != nil {
		l := <-r.ahead
		r.ahead = nil
		return l.buf, l.err
	}
	r.s.hold(true)
	return r.s.load(win, r.obs)
}

func (r *passReader) loadAhead(win *window) {
	ahead, obs := make(chan loaded, 1), r.obs
	r.ahead = ahead
	r.s.tasks.Go(func() {
		buf, err := r.s.load(win, obs)
		ahead <- loaded{buf, err}
	})
}

// drop gives all memory back. Callers hold mu.
func (r *passReader) drop() {
	r.dropCurrent()
	r.cur = nil
	if r.ahead != nil {
		if l := <-r.ahead; l.err == nil {
			r.s.release(l.buf)
		}
		r.ahead = nil
	}
}

func (r *passReader) dropCurrent() {
	if r.buf != nil {
		r.s.release(r.buf)
		r.buf = nil
	}
}

// restart begins a new pass. Callers hold mu.
func (r *passReader) restart() {
	r.drop()
	r.next, r.obs = 0, nil
}

// stop ends the pass for good.
func (r *passReader) stop() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.err = errClosed
	r.drop()
}
