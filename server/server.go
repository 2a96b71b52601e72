// Package server wires one broker process: store, metadata log, engine, protocol, listeners, metrics. It holds no logic
// of its own beyond the order of starting and stopping.
//
// Start: bind the listeners (a taken port ends it before anything is claimed), open and probe the bucket (unreachable:
// try again, not ready; unsafe: end), read the metadata log, join it, recover and fence earlier epochs, open the
// partitions, serve. Stop: serve no more, drain, flush, write a checkpoint, leave.
package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tierlog/tierlog/broker"
	"github.com/tierlog/tierlog/cache"
	"github.com/tierlog/tierlog/cli"
	"github.com/tierlog/tierlog/cluster"
	"github.com/tierlog/tierlog/membuf"
	"github.com/tierlog/tierlog/objstore"
	"github.com/tierlog/tierlog/objstore/backend"
	"github.com/tierlog/tierlog/tiered"
	"github.com/tierlog/tierlog/wire"
)

// stopWithin bounds an orderly stop.
const stopWithin = 9 * time.Second

// drainWithin is how much of that clients get to take their responses; the rest is for the flush.
const drainWithin = 3 * time.Second

// Run runs a broker until ctx is done and its orderly stop is over, or until it was fenced or failed, with an error.
func Run(ctx context.Context, cfg cli.BrokerConfig, log *slog.Logger, stdout io.Writer) error {
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, "tcp", cfg.Listen)
	if err != nil {
		return fmt.Errorf("listen %s: %w", cfg.Listen, err)
	}
	defer func() { _ = ln.Close() }()
	s := newProcess(cfg, log, stdout, ln)
	if cfg.HTTP != "" {
		hl, err := lc.Listen(ctx, "tcp", cfg.HTTP)
		if err != nil {
			return fmt.Errorf("http %s: %w", cfg.HTTP, err)
		}
		stop := s.serveHTTP(hl)
		defer stop()
	}
	base, err := backend.Open(ctx, cfg.Store, log)
	if err != nil {
		return err
	}
	defer func() { _ = base.Close() }()
	limitMemory(cfg.Broker.MemoryLimit)
	return s.on(ctx, base)
}

// Serve runs a broker on a listener and a store that the caller owns, without HTTP: for simulations.
func Serve(ctx context.Context, cfg cli.BrokerConfig, log *slog.Logger, ln net.Listener, store objstore.Store) error {
	return newProcess(cfg, log, io.Discard, ln).on(ctx, store)
}

func newProcess(cfg cli.BrokerConfig, log *slog.Logger, stdout io.Writer, ln net.Listener) *process {
	s := &process{cfg: cfg, log: log, stdout: stdout, ln: ln, now: wallClock, registry: prometheus.NewRegistry()}
	s.observer = newObserver(s.registry)
	return s
}

// on runs the process on a store.
func (s *process) on(ctx context.Context, base objstore.Store) error {
	s.store = objstore.Stack(base, stackFor(s.cfg.Store, s.observer))
	err := s.run(ctx)
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return nil // stopped before it served
	}
	return err
}

// stackFor says what is put on a store. A directory needs no second requests.
func stackFor(spec backend.Spec, o objstore.Observer) objstore.StackConfig {
	c := objstore.StackConfig{Observer: o}
	if remote(spec) {
		c.Hedge = objstore.HedgeConfig{Reads: true, Creates: true}
	}
	return c
}

func remote(spec backend.Spec) bool { return spec.Kind() == backend.S3 || spec.Kind() == backend.MinIO }

// process is one run of a broker.
type process struct {
	cfg      cli.BrokerConfig
	log      *slog.Logger
	stdout   io.Writer
	ln       net.Listener
	now      func() time.Time
	store    objstore.Store
	registry *prometheus.Registry
	observer *observer
	http     string // address that is served, empty: none

	ready   atomic.Bool
	memory  memory
	meta    *metadata
	engine  *tiered.Log
	handler *broker.Broker
	wire    *wire.Server
}

// memory is how memory.limit is divided.
type memory struct {
	pool      *membuf.Pool
	ingest    *membuf.Budget // produce requests, hot segment and tail
	other     *membuf.Budget // large requests other than produce
	responses *membuf.Budget // fetch responses on their way
	tail      int64
	blocks    *cache.Cache[tiered.BlockID, *membuf.Buf]
}

// divide gives each use of memory its share of limit bytes; the rest is for everything that is small.
func divide(limit int64) (memory, error) {
	m := memory{
		pool: membuf.NewPool(limit / 16), ingest: membuf.NewBudget(limit * 40 / 100), other: membuf.NewBudget(limit * 5 / 100),
		responses: membuf.NewBudget(limit * 10 / 100), tail: limit * 22 / 100,
	}
	var err error
	m.blocks, err = cache.New[tiered.BlockID, *membuf.Buf](cache.Config{Bytes: limit * 22 / 100, Prefetches: 4})
	return m, err
}

func (s *process) run(ctx context.Context) error {
	var err error
	if s.memory, err = divide(s.cfg.Broker.MemoryLimit); err != nil {
		return err
	}
	defer s.memory.blocks.Close()
	if err := tiered.DataDirFree(s.cfg.DataDir); err != nil {
		return err
	}
	if err := s.probe(ctx); err != nil {
		return err
	}
	stopMeta, err := s.join(ctx)
	if err != nil {
		return err
	}
	defer stopMeta()
	if err := s.open(ctx); err != nil {
		return err
	}
	return s.serve(ctx)
}

// probe checks that the bucket is safe to use. One that cannot be reached is tried again until ctx is done.
func (s *process) probe(ctx context.Context) error {
	ctx = objstore.WithPurpose(ctx, objstore.PurposeProbe)
	for wait := 500 * time.Millisecond; ; wait = min(wait*2, 10*time.Second) {
		_, err := objstore.Probe(ctx, s.store, objstore.ProbeOptions{})
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if !passing(err) {
			return fmt.Errorf("store %s: %w", s.cfg.Store, err)
		}
		s.log.WarnContext(ctx, "the bucket cannot be reached; trying again", slog.Any("store", s.cfg.Store), slog.Any("err", err), slog.Duration("wait", wait))
		if !sleep(ctx, wait) {
			return ctx.Err()
		}
	}
}

// open recovers the log and opens the partitions.
func (s *process) open(ctx context.Context) error {
	b := s.cfg.Broker
	flush := tiered.FlushConfig{MaxBytes: int64(b.FlushMaxBytes), Interval: b.FlushInterval, PutsPerSecond: b.FlushPutsPerSecond}
	if remote(s.cfg.Store) {
		if flush.Interval <= 0 {
			flush.Interval = defaultInterval
		}
	}
	if s.cfg.Store.Kind() == backend.S3 && flush.PutsPerSecond == 0 {
		flush.PutsPerSecond = defaultPuts
	}
	flush.Burst = max(flush.Burst, defaultBurst)
	cfg := tiered.Config{
		Store: s.store, Cluster: s.meta.cluster(), Epoch: s.meta.epoch, DataDir: s.cfg.DataDir, Flush: flush,
		Pool: s.memory.pool, Ingest: s.memory.ingest, TailBytes: s.memory.tail, Cache: s.memory.blocks,
		ProducerExpiry: b.ProducerIDExpiration,
		Maintenance:    tiered.MaintenanceConfig{RetentionInterval: b.RetentionCheckInterval, Retire: s.meta.retire},
		Now:            s.now, Logger: s.log, Metrics: tiered.NewMetrics(s.registry),
	}
	var err error
	for {
		if s.engine, err = tiered.Open(ctx, cfg, s.meta.previous); err == nil {
			break
		}
		if !passing(err) {
			return fmt.Errorf("open the log: %w", err)
		}
		s.log.WarnContext(ctx, "the log cannot be recovered yet; trying again", slog.Any("err", err))
		if !sleep(ctx, 2*time.Second) {
			return ctx.Err()
		}
	}
	s.handler = broker.New(broker.Config{
		NodeID: s.cfg.NodeID, Log: s.engine, Meta: s.meta, Settings: b, Responses: s.memory.responses,
		Now: s.now, Logger: s.log, Serving: s.meta.serving,
	})
	if err := s.meta.attach(s.handler); err != nil {
		return err
	}
	s.engine.Opened()
	registerMemory(s.registry, &s.memory)
	s.wire, err = wire.New(wire.Config{
		Handler: s.handler, Pool: s.memory.pool, Budget: s.memory.ingest, OtherBudget: s.memory.other, Now: s.now, Logger: s.log,
		Observer: s.observer, MaxRequestBytes: int(b.SocketRequestMaxBytes), MaxConnections: int(max(b.MaxConnections, 0)),
		IdleTimeout: idle(b.ConnectionsMaxIdle),
	})
	return err
}

// Over a network a flush gathers for a few milliseconds, so that the requests that producers have in flight share it.
// Where each request costs money (s3:), flushes that are not full are held to four a second, with some in hand for
// bursts; a full flush is never held back. flush.interval.ms and flush.puts.per.second override both.
const (
	defaultInterval = 2 * time.Millisecond
	defaultPuts     = 4
	defaultBurst    = 40
)

func idle(d time.Duration) time.Duration {
	if d == 0 {
		return -1
	}
	return d
}

// serve answers clients until ctx is done or the broker may not serve any more.
func (s *process) serve(ctx context.Context) error {
	served := make(chan error, 1)
	sctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	go func() { served <- s.wire.Serve(sctx, s.ln) }()
	s.ready.Store(true)
	s.announce()
	var reason error
	select {
	case <-ctx.Done():
	case <-s.engine.Failed():
		reason = s.engine.Err()
	case <-s.meta.fenced():
		reason = cluster.ErrFenced
	case reason = <-served:
	}
	s.ready.Store(false)
	return errors.Join(reason, s.stop(ctx, reason == nil))
}

// stop drains and leaves. After a failure there is nothing to flush.
func (s *process) stop(ctx context.Context, orderly bool) error {
	s.log.InfoContext(ctx, "stopping", slog.Bool("orderly", orderly))
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopWithin)
	defer cancel()
	s.handler.Close()
	drain, cancelDrain := context.WithTimeout(ctx, drainWithin)
	defer cancelDrain()
	err := s.wire.Shutdown(drain)
	if cerr := s.engine.Close(ctx); orderly {
		err = errors.Join(err, cerr)
	}
	if orderly {
		err = errors.Join(err, s.meta.leave(ctx))
	}
	return err
}

func (s *process) announce() {
	host, port := s.advertised()
	addr := net.JoinHostPort(host, strconv.Itoa(int(port)))
	var b strings.Builder
	fmt.Fprintf(&b, "tierlog broker %d serves Kafka clients at %s\n", s.cfg.NodeID, addr)
	fmt.Fprintf(&b, "  store    %s\n  cluster  %s\n  epoch    %s\n", s.cfg.Store.Redacted(), s.meta.cluster(), s.meta.epoch)
	if s.http != "" {
		fmt.Fprintf(&b, "  metrics  http://%s/metrics\n", s.http)
	}
	fmt.Fprintf(&b, "Try: echo hello | tierlog produce --bootstrap-server %s greetings && tierlog consume --bootstrap-server %s greetings --until-end\n", addr, addr)
	_, _ = io.WriteString(s.stdout, b.String()) // nobody may be reading
}

// advertised is where clients are told to connect to.
func (s *process) advertised() (host string, port int32) {
	a := s.cfg.Advertise
	if a == "" {
		a = s.ln.Addr().String()
		if h, _, err := net.SplitHostPort(s.cfg.Listen); err == nil && h != "" {
			_, p, _ := net.SplitHostPort(a)
			a = net.JoinHostPort(h, p)
		}
	}
	h, p, err := net.SplitHostPort(a)
	if err != nil {
		return a, 0
	}
	n, _ := strconv.ParseInt(p, 10, 32)
	return h, int32(n)
}

// wallClock is the one clock of a broker; everything below it is given it.
var wallClock = time.Now //nolint:forbidigo // the process's wiring is where the clock comes from

func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
