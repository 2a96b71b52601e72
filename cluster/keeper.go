package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tierlog/tierlog/objstore"
	"github.com/tierlog/tierlog/tiered/manifest"
)

// Run keeps the lease and follows the log until ctx ends or Leave is done, which gives nil; this epoch is over, which gives ErrFenced; or
// the log can not be followed any further, which gives ErrCorrupt or ErrNewer. It runs at most once.
func (m *Membership) Run(ctx context.Context) error {
	if m.running.Swap(true) {
		return errors.New("cluster: Run is running already")
	}
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error { return m.follow(gctx) })
	g.Go(func() error { return m.keep(gctx) })
	g.Go(func() error {
		select {
		case <-m.fenced:
			if m.leaving.Load() {
				return errLeft
			}
			return ErrFenced
		case <-gctx.Done():
			return nil
		}
	})
	if err := g.Wait(); !errors.Is(err, errLeft) {
		return err
	}
	return nil
}

// errLeft ends Run after Leave.
var errLeft = errors.New("left")

// follow polls the log. Failures of the store are logged once until a poll succeeds again.
func (m *Membership) follow(ctx context.Context) error {
	failing := false
	for pause(ctx, m.log.cfg.PollEvery) == nil {
		err := m.log.Poll(ctx)
		switch {
		case err == nil:
			failing = false
		case ctx.Err() != nil: // the loop ends
		case errors.Is(err, ErrCorrupt), errors.Is(err, ErrNewer):
			return err
		case !failing:
			failing = true
			m.log.cfg.Logger.WarnContext(ctx, "the metadata log can not be read; trying again", slog.Any("error", err))
		}
	}
	return nil
}

// keep renews the lease and tells when it lapses.
func (m *Membership) keep(ctx context.Context) error {
	ctx = objstore.WithPurpose(ctx, objstore.PurposeLease)
	h := m.holder
	results := make(chan renewal, 1)
	running := false
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case r := <-results:
			running = false
			m.settle(h, r)
		case <-timer.C:
		}
		now := m.log.cfg.Now()
		m.mark(h, now)
		if !running && !now.Before(h.next) {
			running = true
			version := h.attempt()
			go func() {
				rctx, cancel := context.WithTimeout(ctx, m.log.cfg.RenewEvery)
				defer cancel()
				results <- renewal{sent: now, err: m.renew(rctx, version)}
			}()
		}
		timer.Reset(m.wake(h, now, running))
	}
}

// renewal is the outcome of one attempt.
type renewal struct {
	sent time.Time
	err  error
}

// wake returns the time until something is to be done: the next attempt, or the lease's end.
func (m *Membership) wake(h *holder, now time.Time, running bool) time.Duration {
	d := m.log.cfg.RenewEvery
	if !running {
		d = min(d, h.next.Sub(now))
	}
	if !h.lapsed(now) {
		d = min(d, h.validUntil.Sub(now))
	}
	return max(d, 0)
}

func (m *Membership) settle(h *holder, r renewal) {
	if r.err == nil {
		h.renewed(r.sent)
		m.validUntil.Store(int64(h.validUntil.Sub(m.start)))
		return
	}
	if h.failures == 0 {
		m.log.cfg.Logger.Warn("lease not renewed; trying again", slog.Any("error", r.err))
	}
	h.failed(m.log.cfg.Now())
}

// mark makes the channels agree with the holder.
func (m *Membership) mark(h *holder, now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	closed := func(c chan struct{}) bool {
		select {
		case <-c:
			return true
		default:
			return false
		}
	}
	switch over := h.lapsed(now); {
	case over && !closed(m.lapsed):
		m.log.cfg.Logger.Error("lease lapsed: not serving until it is renewed", slog.Uint64("epoch", uint64(m.epoch)))
		close(m.lapsed)
		m.renewed = make(chan struct{})
	case !over && closed(m.lapsed):
		m.log.cfg.Logger.Info("lease renewed: serving again", slog.Uint64("epoch", uint64(m.epoch)))
		m.lapsed = make(chan struct{})
		close(m.renewed)
	}
}

// errSuperseded: a later epoch of the same node id holds the lease.
var errSuperseded = errors.New("a later process of this node id holds the lease")

// renew writes the lease once. An attempt whose outcome is not known is forgotten: the next one reads what is there.
func (m *Membership) renew(ctx context.Context, version uint64) error {
	l := m.log
	n, err := manifest.NewNonce(l.cfg.Random)
	if err != nil {
		return err
	}
	b := leaseBody{
		Cluster: l.cluster.ID, Node: m.member.Node, Epoch: m.epoch, Version: version, TTLMs: l.cfg.LeaseTTL.Milliseconds(),
		Address: (&Broker{Host: m.member.Host, Port: m.member.Port}).Address(), TimeMs: l.cfg.Now().UnixMilli(),
	}
	body, err := b.encode(n)
	if err != nil {
		return err
	}
	old := m.version
	m.version = ""
	if old == "" {
		if old, err = m.occupant(ctx); err != nil {
			return err
		}
	}
	var out objstore.Outcome
	var v objstore.Version
	if key := l.leaseKey(m.member.Node); old == "" {
		out, v, err = objstore.Put(ctx, l.cfg.Store, key, objstore.Bytes(body))
	} else {
		out, v, err = objstore.Replace(ctx, l.cfg.Store, key, old, objstore.Bytes(body))
	}
	switch out {
	case objstore.Mine:
		m.version = v
		return nil
	case objstore.Other:
		return errors.New("somebody else wrote the lease at the same time")
	default:
		return fmt.Errorf("write the lease: %w", err)
	}
}

// occupant returns the version of the lease object, or nothing when there is none. A later epoch's lease is news of being
// superseded, which the log confirms.
func (m *Membership) occupant(ctx context.Context) (objstore.Version, error) {
	l := m.log
	body, info, err := objstore.ReadAll(ctx, l.cfg.Store, l.leaseKey(m.member.Node), manifest.MaxBody)
	switch {
	case errors.Is(err, objstore.ErrNotFound):
		return "", nil
	case err != nil:
		return "", fmt.Errorf("read the lease: %w", err)
	}
	if b, err := decodeLease(body, l.cluster.ID, m.member.Node); err == nil && b.Epoch > m.epoch {
		if err := l.Poll(ctx); err != nil {
			return "", err
		}
		return "", errSuperseded
	}
	return info.Version, nil
}
