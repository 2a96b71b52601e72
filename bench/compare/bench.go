package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"
)

// bench runs the experiments and collects their figures.
type bench struct {
	options
	results  *results
	progress io.Writer
	launch   *launcher
	run      int                // numbers topics
	peaks    map[string]float64 // most resident memory of each system under load, in MiB
}

// experiment measures one thing on a running broker that others were measured on before in the same round.
type experiment struct {
	name    string
	systems []string // empty: all
	run     func(b *bench, ctx context.Context, t turn) error
}

// turn is one system's turn in a round.
type turn struct {
	system string
	broker broker
}

// lasting experiments run one after the other on the same brokers, as brokers live.
var lasting = []experiment{
	{name: "produce-1", run: produceExperiment("produce-1", 1, 1024)},
	{name: "produce-4", run: produceExperiment("produce-4", 4, 1024)},
	{name: "produce-100b", run: produceExperiment("produce-100b", 1, 100)},
	{name: "raw-1k", run: rawProduceExperiment("raw-1k", 1024)},
	{name: "raw-100b", run: rawProduceExperiment("raw-100b", 100)},
	{name: "read-memory", systems: []string{sysKafka, sysFsync}, run: (*bench).readMemory},
	{name: "light-1", run: lightExperiment("light-1", 1)},
	{name: "light-all", run: lightExperiment("light-all", -1)},
	{name: "read-cold", systems: []string{sysKafka, sysFsync}, run: (*bench).readCold},
}

// all runs everything that was asked for. An experiment that fails does not stop the others.
func (b *bench) all(ctx context.Context) error {
	var err error
	if b.launch, err = newLauncher(ctx, b.options); err != nil {
		return err
	}
	return errors.Join(b.lasting(ctx), b.fresh(ctx), b.special(ctx))
}

func (b *bench) say(format string, args ...any) {
	say(b.progress, "%s  %s\n", now().Format(time.TimeOnly), fmt.Sprintf(format, args...))
}

func (e *experiment) has(system string) bool {
	return len(e.systems) == 0 || slices.Contains(e.systems, system)
}

func (b *bench) lasting(ctx context.Context) (errs error) {
	chosen := slices.DeleteFunc(slices.Clone(lasting), func(e experiment) bool { return !b.only.MatchString(e.name) })
	if len(chosen) == 0 {
		return nil
	}
	for round := range b.rounds {
		if err := b.round(ctx, round+1, chosen); err != nil {
			errs = errors.Join(errs, fmt.Errorf("round %d: %w", round+1, err))
		}
		if ctx.Err() != nil {
			return errs
		}
	}
	return errs
}

// round starts the systems on empty folders, lets each have its turn at every experiment, and frees the disk.
func (b *bench) round(ctx context.Context, round int, chosen []experiment) (errs error) {
	if err := b.touchMemory(); err != nil {
		return err
	}
	var turns []turn
	defer func() {
		for _, t := range turns {
			errs = errors.Join(errs, t.broker.Stop())
		}
		errs = errors.Join(errs, b.launch.clean())
	}()
	for _, s := range b.systems {
		br, err := b.launch.start(ctx, s)
		if err != nil {
			return err
		}
		turns = append(turns, turn{s, br})
		b.say("%s listens on %s; warming it up", s, br.Addr())
		if err := b.warmUp(ctx, br); err != nil {
			return fmt.Errorf("warm up %s: %w", s, err)
		}
	}
	for _, e := range chosen {
		for _, t := range turns {
			if !e.has(t.system) || ctx.Err() != nil {
				continue
			}
			b.say("round %d: %s: %s", round, e.name, t.system)
			if err := e.run(b, ctx, t); err != nil {
				errs = errors.Join(errs, fmt.Errorf("%s: %s: %w", e.name, t.system, err))
				b.say("failed: %v", err)
			}
		}
	}
	for _, t := range turns {
		errs = errors.Join(errs, b.notePeak(t))
		b.results.add("memory.load", t.system, b.peaks[t.system])
		b.peaks[t.system] = 0
	}
	return errs
}

// touchMemory fills free memory once. Rounds are minutes apart, and what was free meanwhile may be fresh again: a virtual
// machine gives free pages back to its host.
func (b *bench) touchMemory() error {
	if !b.warm {
		return nil
	}
	b.say("filling free memory once")
	return warmMemory(b.dir)
}

// notePeak keeps the most memory that a broker's process has used; call it before the process ends.
func (b *bench) notePeak(t turn) error {
	most, err := memoryMiB(t.broker.PID(), "VmHWM")
	b.peaks[t.system] = max(b.peaks[t.system], most)
	return err
}

// topic is a name that no other run uses.
func (b *bench) topic(what string) string {
	b.run++
	return fmt.Sprintf("compare-%s-%d", what, b.run)
}

// load measures the rate of f, which moves so many bytes, and the broker's CPU time for it.
func (b *bench) load(ctx context.Context, br broker, bytes int64, f func() error) (mibPerSecond, cpuPerGiB float64, err error) {
	before, err := cpuSeconds(br.PID())
	if err != nil {
		return 0, 0, err
	}
	began := now()
	if err := f(); err != nil {
		return 0, 0, err
	}
	took := since(began)
	if err := b.settle(ctx); err != nil {
		return 0, 0, err
	}
	after, err := cpuSeconds(br.PID())
	if err != nil {
		return 0, 0, err
	}
	return float64(bytes) / (1 << 20) / took.Seconds(), (after - before) / (float64(bytes) / (1 << 30)), nil
}

// settle waits for work that a broker puts off.
func (b *bench) settle(ctx context.Context) error {
	wait := time.NewTimer(time.Duration(b.sizes.settleSec) * time.Second)
	defer wait.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-wait.C:
		return nil
	}
}
