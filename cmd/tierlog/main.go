// Command tierlog runs a broker and talks to brokers. Its logic is in package cli.
package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/tierlog/tierlog/cli"
)

func main() { os.Exit(run()) }

func run() int {
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	signal.Ignore(syscall.SIGPIPE) // A write to a closed pipe is an error, which ends the command quietly.
	return cli.Run(cli.Env{
		Args:      os.Args[1:],
		Environ:   os.Environ(),
		Stdin:     os.Stdin,
		Stdout:    os.Stdout,
		Stderr:    os.Stderr,
		Signals:   signals,
		Now:       time.Now,
		Exit:      os.Exit,
		RunBroker: runBroker,
	})
}

// runBroker is the seam for package server.
func runBroker(context.Context, cli.BrokerConfig, *slog.Logger, io.Writer) error {
	return errors.New("broker is not wired in")
}
