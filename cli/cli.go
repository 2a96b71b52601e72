// Package cli is tierlog's command line: it turns arguments, environment and files into calls of the packages
// that do the work, and their results into text a person or a script can read.
//
// Invariants:
//
//   - The exit code is 0 when the work is done, 1 when it failed, 2 when the command was used wrongly;
//     a misuse does nothing before it is reported, and says how the command is used.
//   - Results go to standard output; everything else (errors, progress, hints, logs) goes to standard error.
//     Progress shows on a terminal only.
//   - Nothing printed holds a secret: store URLs are printed redacted.
//   - The first interrupt ends the work in order, the second ends the process at once.
package cli

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"strings"
	"syscall"
	"time"

	"golang.org/x/term"
)

// The exit codes.
const (
	exitDone   = 0
	exitFailed = 1
	exitMisuse = 2
)

// BrokerFunc runs a broker until ctx is done and its orderly stop is over. What it has to tell the user at start
// goes to stdout, everything else to the logger.
type BrokerFunc func(ctx context.Context, cfg BrokerConfig, log *slog.Logger, stdout io.Writer) error

// Env is what the program gets from its surroundings. All fields are needed.
type Env struct {
	Args           []string // without the program's name
	Environ        []string // NAME=VALUE
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	Signals        <-chan os.Signal // interrupts and requests to end
	Now            func() time.Time
	Exit           func(code int) // ends the process at once
	RunBroker      BrokerFunc
}

// errInterrupted is the cause of the context's end after a signal.
var errInterrupted = errors.New("interrupted")

// Run runs one command and returns the exit code.
func Run(env Env) int {
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	done := make(chan struct{})
	defer close(done)
	go func() {
		select {
		case <-env.Signals:
			cancel(errInterrupted)
		case <-done:
			return
		}
		select {
		case <-env.Signals:
			env.Exit(exitFailed)
		case <-done:
		}
	}()
	app := &app{Env: env}
	root := app.root()
	root.SetArgs(env.Args)
	root.SetIn(env.Stdin)
	root.SetOut(env.Stdout)
	root.SetErr(env.Stderr)
	cmd, err := root.ExecuteContextC(ctx)
	return app.finish(cmd, err)
}

// app holds what the commands share.
type app struct {
	Env
	// started is set once a command's arguments are accepted; errors before that are misuse.
	started bool
}

// getenv returns the value of a variable, empty if it is not set.
func (a *app) getenv(name string) string {
	for _, pair := range a.Environ {
		if n, v, ok := strings.Cut(pair, "="); ok && n == name {
			return v
		}
	}
	return ""
}

// isTerminal tells whether a stream is a terminal.
func isTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// isBrokenPipe tells whether the reader of our output went away: it has all it wanted.
func isBrokenPipe(err error) bool {
	return errors.Is(err, syscall.EPIPE) || errors.Is(err, io.ErrClosedPipe)
}
