package objtest

import (
	"cmp"
	"context"
	"errors"
	"hash/fnv"
	"io"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/tierlog/tierlog/objstore"
)

// Fault is what goes wrong with one call.
type Fault uint8

// The faults. Where a call can not suffer one (a read can not be busy), it suffers none.
const (
	// NoFault: the call goes through.
	NoFault Fault = iota
	// LostReply: a write or delete is applied, its answer is lost.
	LostReply
	// LostRequest: a write or delete is not applied, and the caller can not tell.
	LostRequest
	// LateApply: a write's or delete's outcome is unknown to the caller; it applies later, if it then still can. See ApplyLate.
	LateApply
	// Busy: HTTP 409, nothing applied (create and swap).
	Busy
	// OwnExists: a write is applied and answered by HTTP 412, as by a proxy that repeated it. It is the one fault that
	// breaks the contract of Store, not of Put and Replace, which must see through it.
	OwnExists
	// Status500: HTTP 500; a write or delete may have been applied.
	Status500
	// Status503: HTTP 503; nothing applied.
	Status503
	// Reset: the connection is reset; a write or delete may have been applied.
	Reset
	// Truncated: a read's body ends early; the caller's buffer is partly written (reads).
	Truncated
	// Slow: the call takes FaultConfig.Slow before it goes through, or until its context ends.
	Slow
	numFaults
)

var faultNames = [numFaults]string{
	"none", "lost-reply", "lost-request", "late-apply", "busy", "own-exists", "500", "503", "reset", "truncated", "slow",
}

func (f Fault) String() string {
	if f < numFaults {
		return faultNames[f]
	}
	return strconv.Itoa(int(f))
}

// Call describes one call to a store.
type Call struct {
	Op      string // "create", "swap", "read", "head", "delete", "list"
	Key     string // of a delete the first one, of a list the prefix
	Purpose objstore.Purpose
	// Attempt counts the calls of this Op and Key, from 1.
	Attempt int
}

// writes reports whether the call is a create or a swap.
func (c Call) writes() bool { return c.Op == "create" || c.Op == "swap" }

// suffers reports whether the fault is possible for the call.
func (c Call) suffers(f Fault) bool {
	switch f {
	case Busy, OwnExists:
		return c.writes()
	case LostReply, LostRequest, LateApply:
		return c.writes() || c.Op == "delete"
	case Truncated:
		return c.Op == "read"
	case NoFault:
		return false
	default:
		return true
	}
}

// FaultConfig says what goes wrong. The zero value is a network without faults.
type FaultConfig struct {
	// Seed decides, together with a call's Op, Key and Attempt, what goes wrong with it: goroutines that run in
	// another order do not change that.
	Seed uint64
	// Rates has the probability of each fault, 0 to 1, among the calls that can suffer it.
	Rates map[Fault]float64
	// Script, if set, decides first; NoFault leaves it to Rates. It may be called concurrently.
	Script func(Call) Fault
	// Only, if set, exempts the calls for which it returns false from Rates.
	Only func(Call) bool
	// Slow is how long a slow call takes; zero: a second. Each takes between half of it and one and a half.
	Slow time.Duration
	// Late is after how long a late write applies by itself; zero: never, only ApplyLate does it.
	Late time.Duration
	// Before, if set, is called before every call, and may block; an error takes the call's place, nothing is applied. A simulation
	// kills its broker here.
	Before func(context.Context, Call) error
	// After, if set, is called after the store has done the call, before the caller learns of it; an error takes the answer's place.
	After func(ctx context.Context, c Call, err error) error
}

// Faulty is a store as seen over a bad network. It does not close its base.
type Faulty struct {
	base objstore.Store
	cfg  FaultConfig

	mu       sync.Mutex
	attempts map[[2]string]int // by op and key
	counts   [numFaults]int
	late     []*lateCall // in the order of the calls
	cut      bool
}

// lateCall is a call that is still under way in the network.
type lateCall struct {
	apply func()
	timer *time.Timer // nil: only ApplyLate
}

var _ objstore.Store = (*Faulty)(nil)

// NewFaulty decorates a store.
func NewFaulty(base objstore.Store, cfg FaultConfig) *Faulty {
	return &Faulty{base: base, cfg: cfg, attempts: map[[2]string]int{}}
}

// ErrInjected is the cause of every error that a Faulty makes up.
var ErrInjected = errors.New("injected fault")

// injected names the fault.
type injected struct{ what string }

func (e injected) Error() string        { return "injected fault: " + e.what }
func (e injected) Is(target error) bool { return target == ErrInjected }

// Cut makes all calls fail from here on without being applied, those that wait included; what is late stays under way. A simulation
// cuts a killed broker's store, so that what still runs of it can do no more.
func (f *Faulty) Cut() { f.setCut(true) }

// Heal ends Cut.
func (f *Faulty) Heal() { f.setCut(false) }

func (f *Faulty) setCut(cut bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.cut = cut
}

// Late returns how many calls are still under way.
func (f *Faulty) Late() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.late)
}

// ApplyLate applies up to n calls that are under way, oldest first; n < 0 means all. It returns how many there were.
func (f *Faulty) ApplyLate(n int) int {
	done := 0
	for ; n < 0 || done < n; done++ {
		f.mu.Lock()
		if len(f.late) == 0 {
			f.mu.Unlock()
			break
		}
		l := f.late[0]
		f.late = f.late[1:]
		f.mu.Unlock()
		if l.timer != nil {
			l.timer.Stop()
		}
		l.apply()
	}
	return done
}

// Counts returns how often each fault happened.
func (f *Faulty) Counts() map[Fault]int {
	f.mu.Lock()
	defer f.mu.Unlock()
	counts := map[Fault]int{}
	for i, n := range f.counts {
		if n > 0 {
			counts[Fault(i)] = n
		}
	}
	return counts
}

// Close implements objstore.Store: it drops what is under way.
func (f *Faulty) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, l := range f.late {
		if l.timer != nil {
			l.timer.Stop()
		}
	}
	f.late = nil
	return nil
}

// plan describes the call and decides what happens to it. rng is for what else there is to decide about it.
func (f *Faulty) plan(ctx context.Context, op, key string) (Call, Fault, *rand.Rand) {
	f.mu.Lock()
	f.attempts[[2]string{op, key}]++
	c := Call{Op: op, Key: key, Purpose: objstore.PurposeOf(ctx), Attempt: f.attempts[[2]string{op, key}]}
	f.mu.Unlock()
	h := fnv.New64a()
	_, _ = io.WriteString(h, op+"\x00"+key+"\x00"+strconv.Itoa(c.Attempt))
	rng := rand.New(rand.NewPCG(f.cfg.Seed, h.Sum64()))
	fault := NoFault
	if f.cfg.Script != nil {
		fault = f.cfg.Script(c)
	}
	if fault == NoFault && (f.cfg.Only == nil || f.cfg.Only(c)) {
		u := rng.Float64()
		for i := NoFault + 1; i < numFaults && fault == NoFault; i++ {
			if !c.suffers(i) {
				continue
			}
			if u < f.cfg.Rates[i] {
				fault = i
			}
			u -= f.cfg.Rates[i]
		}
	}
	if !c.suffers(fault) {
		fault = NoFault
	}
	f.mu.Lock()
	f.counts[fault]++
	f.mu.Unlock()
	return c, fault, rng
}

// failure makes the error for a call: kinds differ between writes and others.
func failure(c Call, cause error) error {
	kind := objstore.ErrUnavailable
	if c.writes() {
		kind = objstore.ErrUnknown
	}
	return &objstore.Error{Op: c.Op, Key: c.Key, Kind: kind, Err: cause}
}

// do runs one call. apply does it on the base; late, for writes and deletes, returns a function that does it once the caller
// has its buffers back.
func (f *Faulty) do(ctx context.Context, op, key string, apply func() error, late func() func()) error {
	c, fault, rng := f.plan(ctx, op, key)
	if f.cfg.Before != nil {
		if err := f.cfg.Before(ctx, c); err != nil {
			return failure(c, err)
		}
	}
	if fault == Slow {
		if err := f.wait(ctx, rng); err != nil {
			if late != nil && rng.IntN(2) == 0 && !f.isCut() {
				late()() // the request had been sent
			}
			return failure(c, err)
		}
	}
	if f.isCut() {
		return failure(c, injected{"cut off"})
	}
	err := f.suffer(c, fault, rng, apply, late)
	if f.cfg.After != nil {
		if aerr := f.cfg.After(ctx, c, err); aerr != nil {
			return failure(c, aerr)
		}
	}
	return err
}

func (f *Faulty) suffer(c Call, fault Fault, rng *rand.Rand, apply func() error, late func() func()) error {
	lost := failure(c, injected{fault.String()})
	switch fault {
	case LostReply:
		_ = apply()
		return lost
	case Status500, Reset:
		if late != nil && rng.IntN(2) == 0 {
			_ = apply()
		}
		return lost
	case LostRequest, Status503:
		return lost
	case LateApply:
		f.postpone(late())
		return lost
	case Busy:
		return &objstore.Error{Op: c.Op, Key: c.Key, Kind: objstore.ErrBusy, Err: injected{"409"}}
	case OwnExists:
		if err := apply(); err != nil {
			return err
		}
		kind := objstore.ErrExists
		if c.Op == "swap" {
			kind = objstore.ErrChanged
		}
		return &objstore.Error{Op: c.Op, Key: c.Key, Kind: kind, Err: injected{"412 for the caller's own write"}}
	case Truncated:
		if err := apply(); err != nil {
			return err
		}
		return lost
	default:
		return apply()
	}
}

func (f *Faulty) isCut() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.cut
}

func (f *Faulty) wait(ctx context.Context, rng *rand.Rand) error {
	slow := cmp.Or(f.cfg.Slow, time.Second)
	timer := time.NewTimer(slow/2 + time.Duration(rng.Int64N(int64(slow))))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// postpone puts a call among those under way.
func (f *Faulty) postpone(apply func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	l := &lateCall{apply: apply}
	f.late = append(f.late, l)
	if f.cfg.Late > 0 {
		l.timer = time.AfterFunc(f.cfg.Late, func() {
			if f.remove(l) {
				l.apply()
			}
		})
	}
}

// remove reports whether the call was still under way.
func (f *Faulty) remove(l *lateCall) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i, other := range f.late {
		if other == l {
			f.late = append(f.late[:i:i], f.late[i+1:]...)
			return true
		}
	}
	return false
}

// SeedEnv names the environment variable that sets the seed of a test.
const SeedEnv = "TIERLOG_SEED"

// Seed returns the seed for a test: the one in the environment, or a fresh one. A test that fails says how to run it again.
func Seed(t testing.TB) uint64 {
	t.Helper()
	seed := rand.Uint64()
	if env := os.Getenv(SeedEnv); env != "" {
		var err error
		if seed, err = strconv.ParseUint(env, 10, 64); err != nil {
			t.Fatalf("%s=%q: %v", SeedEnv, env, err)
		}
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("run it again with: %s=%d go test -run '^%s$'", SeedEnv, seed, t.Name())
		}
	})
	return seed
}
