// Command tierlog runs a broker and talks to brokers. Its logic is in package cli.
package main

import (
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/tierlog/tierlog/cli"
	"github.com/tierlog/tierlog/server"
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
		RunBroker: server.Run,
	})
}
