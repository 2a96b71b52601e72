package main

import (
	"context"
	"errors"
	"path/filepath"

	"github.com/tierlog/tierlog/test/kafka"
	"github.com/tierlog/tierlog/test/tierlog"
)

// kafkaVersion is the oracle.
const kafkaVersion = "4.3.1"

// start brings up two brokers, one that creates topics on first use and one that does not, and returns how to end them.
func (e *env) start(ctx context.Context, target string) (end func(), err error) {
	var running []interface{ Stop() error }
	end = func() {
		for _, b := range running {
			if err := b.Stop(); err != nil {
				say(e.log, "interop: %v\n", err)
			}
		}
	}
	e.ref = &reference{}
	switch target {
	case "kafka":
		libs, err := kafka.Jars(ctx, e.root, kafkaVersion)
		if err != nil {
			return end, err
		}
		for name, addr := range map[string]*string{"true": &e.addr, "false": &e.strict} {
			n, err := kafka.Start(ctx, kafka.Config{
				Libs: libs, Dir: filepath.Join(e.dir, "kafka-"+name), HeapMiB: 1024,
				Properties: map[string]string{"auto.create.topics.enable": name},
			})
			if err != nil {
				return end, err
			}
			running = append(running, n)
			*addr = n.Addr()
		}
	case "tierlog":
		binary, err := tierlog.Build(ctx, e.root)
		if err != nil {
			return end, err
		}
		for name, addr := range map[string]*string{"true": &e.addr, "false": &e.strict} {
			b, err := tierlog.Start(ctx, tierlog.Config{
				Binary: binary, Dir: filepath.Join(e.dir, "tierlog-"+name), Args: []string{"--set", "auto.create.topics.enable=" + name},
			})
			if err != nil {
				return end, err
			}
			running = append(running, b)
			*addr = b.Addr()
		}
	default:
		if e.strict == "" {
			return end, errors.New("a HOST:PORT target needs -strict too: the address of a broker with auto.create.topics.enable=false")
		}
		e.addr = target
	}
	return end, nil
}
