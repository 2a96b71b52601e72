package objstore

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/oklog/ulid/v2"
)

// ErrUnsafe says that the store does not do what tierlog's safety rests on. It must not be used.
var ErrUnsafe = errors.New("the store is not safe to use")

// ProbeOptions says how thorough a probe is. The zero value is the quick form, for every start: some seventy small
// requests, most of them at the same time.
type ProbeOptions struct {
	// Full repeats the races and also measures latency and throughput, with some 300 MiB written and read.
	Full bool
	// Progress, if set, is called with each check when it is done.
	Progress func(Check)
}

// Report is what a probe found out.
type Report struct {
	Checks []Check `json:"checks"`
}

// Check is one line of a report.
type Check struct {
	Name   string        `json:"name"`
	OK     bool          `json:"ok"`
	Safety bool          `json:"safety"` // the store must not be used when it is not OK
	Detail string        `json:"detail"`
	Took   time.Duration `json:"took_ns"`
}

// String renders the check as a line.
func (c Check) String() string {
	mark := "ok  "
	switch {
	case c.OK:
	case c.Safety:
		mark = "FAIL"
	default:
		mark = "warn"
	}
	return fmt.Sprintf("%s  %-17s %s", mark, c.Name, c.Detail)
}

// String renders the report, a check a line.
func (r Report) String() string {
	var b strings.Builder
	for _, c := range r.Checks {
		b.WriteString(c.String())
		b.WriteByte('\n')
	}
	return b.String()
}

// Err returns ErrUnsafe with what failed, or nil.
func (r Report) Err() error {
	var failed []string
	for _, c := range r.Checks {
		if c.Safety && !c.OK {
			failed = append(failed, c.Name+": "+c.Detail)
		}
	}
	if failed == nil {
		return nil
	}
	return fmt.Errorf("%w: %s", ErrUnsafe, strings.Join(failed, "; "))
}

// Probe finds out by trying whether the store keeps the promises of Store, under keys of its own that it deletes again.
//
// The error is nil (use it), ErrUnsafe (never use it), ErrUnavailable (it could not be found out: try again later), or
// one that says what is wrong with the set-up: ErrDenied, ErrNoBucket, ErrNoSpace, ErrInvalid. The report holds what was found out
// until then. Races can be lost by luck: a store that passes is not proven to be safe.
func Probe(ctx context.Context, s Store, opts ProbeOptions) (Report, error) {
	id, err := ulid.New(ulid.Now(), rand.Reader)
	if err != nil {
		return Report{}, err
	}
	p := &prober{store: s, opts: opts, prefix: "probe/" + id.String() + "/"}
	ctx = WithPurpose(ctx, PurposeProbe)
	checks := []probeCheck{
		{"create-once", true, p.createOnce},
		{"swap-once", true, p.swapOnce},
		{"stale-swap", true, p.staleSwap},
		{"read-after-write", true, p.readAfterWrite},
		{"list-after-write", true, p.listAfterWrite},
		{"ranged-reads", true, p.rangedReads},
		{"delete", false, p.deletes},
	}
	if opts.Full {
		checks = append(checks, probeCheck{"latency", false, p.latency}, probeCheck{"throughput", false, p.throughput})
	}
	if err = p.reach(ctx); err == nil {
		err = p.run(ctx, checks)
		p.cleanUp(ctx)
	}
	if unsafe := p.report.Err(); unsafe != nil {
		err = unsafe // proof, whatever else could not be found out
	}
	if err != nil {
		err = fmt.Errorf("probe: %w", err)
	}
	return p.report, err
}

// prober is the state of one probe.
type prober struct {
	store  Store
	opts   ProbeOptions
	prefix string
	report Report

	mu   sync.Mutex
	keys []string // that may exist; guarded by mu
}

// probeCheck finds something out. It returns what it found, or broken when the store does not do it, or another error
// when that could not be found out.
type probeCheck struct {
	name   string
	safety bool
	run    func(context.Context) (detail string, err error)
}

// broken says that the store answered, and what was wrong with the answer.
type broken struct{ what string }

func (b *broken) Error() string { return b.what }

func brokenf(format string, args ...any) error { return &broken{fmt.Sprintf(format, args...)} }

// run makes the checks. Each has keys of its own, so the quick form makes them side by side: a start waits for some ten
// round trips. The full form makes them one after the other, so that latency and throughput are theirs alone.
func (p *prober) run(ctx context.Context, checks []probeCheck) error {
	if p.opts.Full {
		for _, c := range checks {
			if err := p.note(c, c.make(ctx)); err != nil {
				return err
			}
		}
		return nil
	}
	results := make([]probeResult, len(checks))
	var wg sync.WaitGroup
	for i, c := range checks {
		wg.Go(func() { results[i] = c.make(ctx) })
	}
	wg.Wait()
	var errs []error
	for i, c := range checks {
		errs = append(errs, p.note(c, results[i]))
	}
	return errors.Join(errs...)
}

type probeResult struct {
	detail string
	err    error
	took   time.Duration
}

func (c probeCheck) make(ctx context.Context) probeResult {
	start := time.Now()
	detail, err := c.run(ctx)
	return probeResult{detail, err, time.Since(start)}
}

// note adds a result to the report, or returns the error that kept it from being found out.
func (p *prober) note(c probeCheck, r probeResult) error {
	check := Check{Name: c.name, OK: r.err == nil, Safety: c.safety, Detail: r.detail, Took: r.took}
	if r.err != nil {
		check.Detail = r.err.Error()
		if fatal := verdict(r.err, c.safety); fatal != nil {
			return fmt.Errorf("%s: %w", c.name, fatal)
		}
	}
	p.add(check)
	return nil
}

// reach asks for an object that does not exist, before anything is written. What is wrong with the set-up (credentials,
// bucket, region) shows here, where it can not be mistaken for something that the store is unable to do.
func (p *prober) reach(ctx context.Context) error {
	start := time.Now()
	_, _, err := p.read(ctx, p.prefix+"missing")
	switch {
	case errors.Is(err, ErrNotFound):
		p.add(Check{Name: "reach", OK: true, Detail: "the store answers", Took: time.Since(start)})
		return nil
	case err == nil:
		return fmt.Errorf("%w: reach: an object is found that was never written", ErrUnsafe)
	case errors.Is(err, ErrInvalid):
		return err
	default:
		return verdict(err, true)
	}
}

// verdict returns the error that ends the probe, or nil when the probe can go on to the next check.
func verdict(err error, safety bool) error {
	var b *broken
	switch {
	case errors.As(err, &b):
		return nil
	case errors.Is(err, ErrInvalid):
		return nil // "I can not do that" is an answer, too
	case errors.Is(err, ErrDenied) && !safety:
		return nil
	case errors.Is(err, ErrDenied), errors.Is(err, ErrNoBucket), errors.Is(err, ErrNoSpace), errors.Is(err, ErrUnavailable):
		return err
	default:
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
}

func (p *prober) add(c Check) {
	p.report.Checks = append(p.report.Checks, c)
	if p.opts.Progress != nil {
		p.opts.Progress(c)
	}
}

// cleanUp deletes what was made, also when the context has ended.
func (p *prober) cleanUp(ctx context.Context) {
	const patience = 10 * time.Second
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()
	p.mu.Lock()
	keys := p.keys
	p.keys = nil
	p.mu.Unlock()
	if len(keys) == 0 {
		return
	}
	if err := p.store.Delete(ctx, keys); err != nil {
		p.add(Check{Name: "clean-up", Detail: fmt.Sprintf("objects stay under %s: %v", p.prefix, err)})
	}
}

// key makes a key and remembers it for the clean-up.
func (p *prober) key(format string, args ...any) string {
	key := p.prefix + fmt.Sprintf(format, args...)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.keys = append(p.keys, key)
	return key
}

// probeBody is small and starts with a nonce, so that no two are equal.
func probeBody() []byte {
	var nonce [16]byte
	_, _ = rand.Read(nonce[:]) // never fails
	return append(hex.AppendEncode(nil, nonce[:]), " written by a probe, to be deleted at once\n"...)
}

// probeTries is how often a request is made before its passing failure ends the probe.
const probeTries = 4

// pause waits a little longer each time.
func pause(ctx context.Context, try int) error {
	timer := time.NewTimer(50 * time.Millisecond << try)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func passes(err error) bool {
	return errors.Is(err, ErrBusy) || errors.Is(err, ErrUnknown) || errors.Is(err, ErrUnavailable)
}

// create reports whether the key holds the body now. An outcome that stays unknown is an error.
func (p *prober) create(ctx context.Context, key string, body []byte) (won bool, err error) {
	return attempt(ctx, ErrExists, func() (Outcome, error) {
		out, _, err := Put(ctx, p.store, key, Bytes(body))
		return out, err
	})
}

// swap is create's like for a swap.
func (p *prober) swap(ctx context.Context, key string, old Version, body []byte) (won bool, err error) {
	return attempt(ctx, ErrChanged, func() (Outcome, error) {
		out, _, err := Replace(ctx, p.store, key, old, Bytes(body))
		return out, err
	})
}

// attempt writes until the outcome is known. lost is what a refused write answers.
func attempt(ctx context.Context, lost error, write func() (Outcome, error)) (won bool, err error) {
	for try := range probeTries {
		var out Outcome
		out, err = write()
		switch {
		case out != Unknown:
			return out == Mine, nil
		case !passes(err) && !errors.Is(err, lost):
			return false, err
		}
		if perr := pause(ctx, try); perr != nil {
			return false, errors.Join(err, perr)
		}
	}
	if errors.Is(err, lost) && !passes(err) { // not where reading the object failed for a passing reason
		return false, brokenf("a write was refused because of an object that can not be read")
	}
	return false, err
}

// read returns a whole small object.
func (p *prober) read(ctx context.Context, key string) (data []byte, info Info, err error) {
	for try := range probeTries {
		data, info, err = ReadAll(ctx, p.store, key, 1<<20)
		if err == nil || !passes(err) {
			return data, info, err
		}
		if perr := pause(ctx, try); perr != nil {
			return nil, info, errors.Join(err, perr)
		}
	}
	return data, info, err
}

// expect reads the object and compares it.
func (p *prober) expect(ctx context.Context, key string, want []byte) (Info, error) {
	got, info, err := p.read(ctx, key)
	switch {
	case errors.Is(err, ErrNotFound):
		return info, brokenf("an object that was just written is not found")
	case err != nil:
		return info, err
	case !bytes.Equal(got, want):
		return info, brokenf("an object that was just written reads as something else")
	case info.Version == "":
		return info, brokenf("an object has no version (ETag)")
	default:
		return info, nil
	}
}
