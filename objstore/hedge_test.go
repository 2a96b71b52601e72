package objstore_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tierlog/tierlog/objstore"
	"github.com/tierlog/tierlog/objstore/objtest"
)

// reply is how a legs store answers one request.
type reply struct {
	after    time.Duration // before the request is applied
	lost     time.Duration // between that and the answer
	err      error         // instead of applying it
	stubborn bool          // does not end with its context
}

// legs answers requests as told, in the order in which they come.
type legs struct {
	objstore.Store
	mu      sync.Mutex
	replies []reply
	sent    int
}

func (l *legs) next() reply {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sent++
	if len(l.replies) == 0 {
		return reply{}
	}
	r := l.replies[0]
	l.replies = l.replies[1:]
	return r
}

func pause(ctx context.Context, d time.Duration, stubborn bool) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	if stubborn {
		<-timer.C
		return nil
	}
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (l *legs) Create(ctx context.Context, key string, body objstore.Payload) (objstore.Version, error) {
	r := l.next()
	if err := pause(ctx, r.after, r.stubborn); err != nil {
		return "", &objstore.Error{Op: "create", Key: key, Kind: objstore.ErrUnknown, Err: err}
	}
	if r.err != nil {
		return "", &objstore.Error{Op: "create", Key: key, Kind: r.err}
	}
	v, err := l.Store.Create(context.WithoutCancel(ctx), key, body)
	if perr := pause(ctx, r.lost, r.stubborn); perr != nil {
		return "", &objstore.Error{Op: "create", Key: key, Kind: objstore.ErrUnknown, Err: perr}
	}
	return v, err
}

func (l *legs) ReadAt(ctx context.Context, key string, p []byte, off int64) (int, objstore.Info, error) {
	r := l.next()
	if err := pause(ctx, r.after, r.stubborn); err != nil {
		clear(p)
		return 0, objstore.Info{}, &objstore.Error{Op: "read", Key: key, Kind: objstore.ErrUnavailable, Err: err}
	}
	if r.err != nil {
		clear(p)
		return 0, objstore.Info{}, &objstore.Error{Op: "read", Key: key, Kind: r.err}
	}
	return l.Store.ReadAt(ctx, key, p, off)
}

const hedgeAfter = 2 * time.Second // the default as long as nothing was measured

func TestHedgedCreate(t *testing.T) {
	const never = 1000 * time.Hour
	for name, c := range map[string]struct {
		replies  []reply
		occupied bool
		kind     error         // what the call answers
		sent     int           // requests
		took     time.Duration // until it answered
	}{
		"fast": {[]reply{{after: time.Second}}, false, nil, 1, time.Second},
		"second wins": {
			[]reply{{after: never}, {after: time.Second}}, false, nil, 2, hedgeAfter + time.Second,
		},
		"first wins after all": {
			[]reply{{after: 3 * time.Second}, {after: never}}, false, nil, 2, 3 * time.Second,
		},
		"first won but answers late": {
			[]reply{{lost: 10 * time.Second}, {}}, false, nil, 2, 10 * time.Second,
		},
		"first won, its answer is lost": {
			[]reply{{lost: never}, {err: objstore.ErrUnknown}}, false, objstore.ErrUnknown, 2, time.Minute,
		},
		"second is told that it exists, first fails unknown": {
			[]reply{{after: 5 * time.Second, err: objstore.ErrUnknown}, {err: objstore.ErrExists}}, false, objstore.ErrUnknown, 2, 5 * time.Second,
		},
		"another writer's object": {[]reply{{after: 5 * time.Second}, {}}, true, objstore.ErrExists, 2, 5 * time.Second},
		"busy and exists":         {[]reply{{after: 5 * time.Second, err: objstore.ErrBusy}, {}}, true, objstore.ErrExists, 2, 5 * time.Second},
		"both denied": {
			[]reply{{after: 5 * time.Second, err: objstore.ErrDenied}, {err: objstore.ErrDenied}}, false, objstore.ErrDenied, 2, 5 * time.Second,
		},
		"first denied, second wins": {
			[]reply{{after: 5 * time.Second, err: objstore.ErrDenied}, {after: 9 * time.Second}}, false, nil, 2, hedgeAfter + 9*time.Second,
		},
		"buffers are free on return": {
			[]reply{{after: 30 * time.Second, stubborn: true}, {}}, false, nil, 2, 30 * time.Second,
		},
		"fails at once": {[]reply{{err: objstore.ErrUnknown}}, false, objstore.ErrUnknown, 1, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				base := &legs{Store: objtest.NewMem(), replies: c.replies}
				s := objstore.WithHedge(base, objstore.HedgeConfig{Creates: true})
				if c.occupied {
					if _, err := base.Store.Create(t.Context(), "k", objtest.Body("other")); err != nil {
						t.Fatal(err)
					}
				}
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				start := time.Now()
				v, err := s.Create(ctx, "k", objtest.Body("mine"))
				if !errors.Is(err, c.kind) || (err == nil) != (c.kind == nil) {
					t.Errorf("answer %v, want %v", err, c.kind)
				}
				if base.sent != c.sent || time.Since(start) != c.took {
					t.Errorf("%d requests, %v; want %d, %v", base.sent, time.Since(start), c.sent, c.took)
				}
				if err == nil {
					if info, herr := base.Head(t.Context(), "k"); herr != nil || info.Version != v {
						t.Errorf("version %q, object has %q, %v", v, info.Version, herr)
					}
				}
			})
		})
	}
}

func TestHedgedRead(t *testing.T) {
	const never = 1000 * time.Hour
	for name, c := range map[string]struct {
		replies []reply
		kind    error
		sent    int
		took    time.Duration
	}{
		"fast":                      {[]reply{{after: time.Second}}, nil, 1, time.Second},
		"second answers":            {[]reply{{after: never}, {after: time.Second}}, nil, 2, hedgeAfter + time.Second},
		"first answers after all":   {[]reply{{after: 3 * time.Second}, {after: never}}, nil, 2, 3 * time.Second},
		"first fails, second not":   {[]reply{{after: 3 * time.Second, err: objstore.ErrUnavailable}, {after: 4 * time.Second}}, nil, 2, hedgeAfter + 4*time.Second},
		"second fails, first not":   {[]reply{{after: 30 * time.Second}, {err: objstore.ErrUnavailable}}, nil, 2, 30 * time.Second},
		"second finds nothing":      {[]reply{{after: never}, {err: objstore.ErrNotFound}}, objstore.ErrNotFound, 2, hedgeAfter},
		"both fail":                 {[]reply{{after: 3 * time.Second, err: objstore.ErrUnavailable}, {err: objstore.ErrUnavailable}}, objstore.ErrUnavailable, 2, 3 * time.Second},
		"first keeps its buffer":    {[]reply{{after: 5 * time.Second, stubborn: true}, {}}, nil, 2, 5 * time.Second},
		"first fails without delay": {[]reply{{err: objstore.ErrUnavailable}}, objstore.ErrUnavailable, 1, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				base := &legs{Store: objtest.NewMem()}
				if _, err := base.Create(t.Context(), "k", objstore.Bytes([]byte("0123456789"))); err != nil {
					t.Fatal(err)
				}
				base.replies, base.sent = c.replies, 0
				s := objstore.WithHedge(base, objstore.HedgeConfig{Reads: true})
				start := time.Now()
				p := make([]byte, 20)
				n, info, err := s.ReadAt(t.Context(), "k", p, 3)
				if !errors.Is(err, c.kind) || (err == nil) != (c.kind == nil) {
					t.Errorf("answer %v, want %v", err, c.kind)
				}
				if err == nil && (string(p[:n]) != "3456789" || info.Size != 10) {
					t.Errorf("read %q, %+v", p[:n], info)
				}
				if base.sent != c.sent || time.Since(start) != c.took {
					t.Errorf("%d requests, %v; want %d, %v", base.sent, time.Since(start), c.sent, c.took)
				}
			})
		})
	}
}

// TestHedgeDelay: the delay follows what calls take, within bounds, and no more than a share of calls is sent twice.
func TestHedgeDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		base := &legs{Store: objtest.NewMem()}
		s := objstore.WithHedge(base, objstore.HedgeConfig{Creates: true, Share: 0.1})
		create := func(r ...reply) time.Duration {
			base.mu.Lock()
			base.replies, base.sent = r, 0
			base.mu.Unlock()
			start := time.Now()
			if _, err := s.Create(t.Context(), fmt.Sprint(start.UnixNano(), len(r)), objtest.Body("x")); err != nil {
				t.Error(err)
			}
			time.Sleep(time.Microsecond) // another key each time
			return time.Since(start) - time.Microsecond
		}
		for i := range 100 {
			create(reply{after: time.Duration(50+i%10) * time.Millisecond})
		}
		if d := create(reply{after: time.Hour}, reply{}); d != 2*59*time.Millisecond {
			t.Errorf("sent again after %v, want twice 59 ms", d)
		}
		twice := 0
		for range 100 {
			create(reply{after: 10 * time.Second}, reply{after: time.Millisecond})
			if base.sent == 2 {
				twice++
			}
		}
		if twice < 15 || twice > 8+10 {
			t.Errorf("%d of 100 slow calls were sent twice, want a tenth after a few", twice)
		}
	})
}

func TestHedgeOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		base := &legs{Store: objtest.NewMem(), replies: []reply{{after: time.Hour}, {after: time.Hour}}}
		s := objstore.WithHedge(base, objstore.HedgeConfig{})
		if _, err := s.Create(t.Context(), "k", objtest.Body("")); err != nil {
			t.Fatal(err)
		}
		if _, _, err := s.ReadAt(t.Context(), "k", make([]byte, 1), 0); err != nil || base.sent != 2 {
			t.Errorf("%v after %d requests", err, base.sent)
		}
	})
}
