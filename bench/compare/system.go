package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/tierlog/tierlog/test/kafka"
	"github.com/tierlog/tierlog/test/tierlog"
)

// The systems that are compared.
const (
	sysKafka   = "kafka"
	sysFsync   = "tierlog"
	sysNoFsync = "tierlog-nofsync"
)

var systemNames = []string{sysKafka, sysFsync, sysNoFsync}

const kafkaVersion = "4.3.1"

// broker is a running system.
type broker interface {
	Addr() string
	PID() int
	Stop() error
	Kill() error
	// again starts a stopped broker on its data and waits for its first answer.
	again(ctx context.Context) error
}

// restart stops the broker in order and starts it again.
func restart(ctx context.Context, br broker) error {
	if err := br.Stop(); err != nil {
		return err
	}
	return br.again(ctx)
}

type kafkaBroker struct {
	*kafka.Node
	cfg kafka.Config
}

func (k *kafkaBroker) again(ctx context.Context) error { return k.Restart(ctx, k.cfg) }

type tierlogBroker struct{ *tierlog.Broker }

func (t *tierlogBroker) again(ctx context.Context) error { return t.Restart(ctx) }

// launcher starts systems in folders of their own.
type launcher struct {
	dir     string
	libs    string // Kafka's jars; empty where Kafka is not compared
	binary  string // tierlog; empty where it is not compared
	heapMiB int
	started int
	dirs    []string // of the brokers started so far
}

// clean removes the folders of all brokers started so far; they must have ended.
func (l *launcher) clean() (err error) {
	for _, dir := range l.dirs {
		err = errors.Join(err, os.RemoveAll(dir))
	}
	l.dirs = nil
	return err
}

func newLauncher(ctx context.Context, o options) (*launcher, error) {
	l := &launcher{dir: o.dir, heapMiB: o.sizes.heapMiB}
	for _, s := range o.systems {
		var err error
		if s == sysKafka {
			l.libs, err = kafka.Jars(ctx, o.root, kafkaVersion)
		} else if l.binary == "" {
			l.binary, err = tierlog.Build(ctx, o.root)
		}
		if err != nil {
			return nil, err
		}
	}
	return l, nil
}

// start runs a system on an empty folder.
func (l *launcher) start(ctx context.Context, system string) (broker, error) {
	l.started++
	dir := filepath.Join(l.dir, system+"-"+strconv.Itoa(l.started))
	l.dirs = append(l.dirs, dir)
	if system == sysKafka {
		cfg := kafka.Config{Libs: l.libs, Dir: dir, HeapMiB: l.heapMiB, StartTimeout: 3 * time.Minute, Properties: map[string]string{
			"log.segment.delete.delay.ms": "1000", // frees the disk between the runs
		}}
		n, err := kafka.Start(ctx, cfg)
		if err != nil {
			return nil, err
		}
		return &kafkaBroker{n, cfg}, nil
	}
	store := filepath.Join(dir, "bucket")
	if system == sysNoFsync {
		store = "file://" + store + "?fsync=off"
	}
	return l.tierlogOn(ctx, dir, store)
}

// tierlogOn runs tierlog on a store.
func (l *launcher) tierlogOn(ctx context.Context, dir, store string, args ...string) (broker, error) {
	if l.binary == "" {
		return nil, fmt.Errorf("no tierlog binary for %s", dir)
	}
	b, err := tierlog.Start(ctx, tierlog.Config{Binary: l.binary, Dir: dir, Store: store, StartTimeout: 3 * time.Minute, Args: args})
	if err != nil {
		return nil, err
	}
	return &tierlogBroker{b}, nil
}
