package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
)

// fresh experiments start a broker of their own on an empty folder in every round.
var fresh = []struct {
	name string
	run  func(b *bench, ctx context.Context, system string) error
}{
	{"start", (*bench).startEmpty},
	{"create", (*bench).createMany},
	{"partitions", (*bench).idlePartitions},
}

func (b *bench) fresh(ctx context.Context) (errs error) {
	for round := range b.rounds {
		for _, e := range fresh {
			if !b.only.MatchString(e.name) {
				continue
			}
			for _, s := range b.systems {
				if s == sysNoFsync || ctx.Err() != nil {
					continue // fsync changes nothing that these measure by more than a little
				}
				b.say("round %d: %s: %s", round+1, e.name, s)
				if err := errors.Join(e.run(b, ctx, s), b.launch.clean()); err != nil {
					errs = errors.Join(errs, fmt.Errorf("%s: %s: %w", e.name, s, err))
					b.say("failed: %v", err)
				}
			}
		}
	}
	return errs
}

// startEmpty: from the process's start to its first answer, and what it holds in memory then.
func (b *bench) startEmpty(ctx context.Context, system string) error {
	began := now()
	br, err := b.launch.start(ctx, system)
	if err != nil {
		return err
	}
	took := since(began).Seconds()
	if system == sysKafka { // the launcher formats Kafka's folder first, which is no part of a start
		if err := br.Stop(); err != nil {
			return err
		}
		began = now()
		if err := br.again(ctx); err != nil {
			return err
		}
		took = since(began).Seconds()
	}
	b.results.add("start.empty", system, took)
	if err := b.settle(ctx); err != nil {
		return err
	}
	idle, err := memoryMiB(br.PID(), "VmRSS")
	if err == nil {
		b.results.add("memory.idle", system, idle)
		b.say("  %.2f s, %.0f MiB", took, idle)
	}
	return errors.Join(err, br.Stop())
}

// createMany: one request for a topic of many partitions, until each of them answers.
func (b *bench) createMany(ctx context.Context, system string) error {
	br, err := b.launch.start(ctx, system)
	if err != nil {
		return err
	}
	err = withAdmin(br, func(adm *kadm.Client) error {
		if _, err := adm.ListTopics(ctx); err != nil { // opens the connection
			return err
		}
		began := now()
		if _, err := adm.CreateTopic(ctx, int32(b.sizes.created), 1, nil, "many"); err != nil {
			return err
		}
		answered := since(began)
		if err := led(ctx, adm, "many", b.sizes.created); err != nil {
			return err
		}
		b.results.add("create", system, since(began).Seconds())
		b.say("  answered after %.2f s, all usable after %.2f s", answered.Seconds(), since(began).Seconds())
		return nil
	})
	return errors.Join(err, br.Kill())
}

// idlePartitions: what many partitions without traffic cost in memory. Kafka is left out: it needs minutes.
func (b *bench) idlePartitions(ctx context.Context, system string) error {
	if system == sysKafka {
		return nil
	}
	br, err := b.launch.start(ctx, system)
	if err != nil {
		return err
	}
	const topics = 10
	for i := range topics {
		if err := createTopic(ctx, br, fmt.Sprintf("idle-%d", i), b.sizes.idle/topics, nil); err != nil {
			return errors.Join(err, br.Kill())
		}
	}
	if err := b.settle(ctx); err != nil {
		return errors.Join(err, br.Kill())
	}
	held, err := memoryMiB(br.PID(), "VmRSS")
	if err == nil {
		b.results.add("memory.partitions", system, held)
		b.say("  %.0f MiB", held)
	}
	return errors.Join(err, br.Stop())
}

// pause waits d, or less if ctx ends.
func pause(ctx context.Context, d time.Duration) error {
	wait := time.NewTimer(d)
	defer wait.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-wait.C:
		return nil
	}
}
