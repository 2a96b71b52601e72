package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// usageError says that a command was used wrongly.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

// misuse returns an error that ends the program with code 2 and the usage hint.
func misuse(format string, args ...any) error {
	return &usageError{fmt.Errorf(format, args...)}
}

// hintError adds what to try next to an error.
type hintError struct {
	err  error
	hint string
}

func (e *hintError) Error() string { return e.err.Error() }
func (e *hintError) Unwrap() error { return e.err }

// withHint returns err with a line on what to try next.
func withHint(err error, format string, args ...any) error {
	return &hintError{err, fmt.Sprintf(format, args...)}
}

// hintOn adds a hint to err if it is, or wraps, target.
func hintOn(err, target error, format string, args ...any) error {
	if errors.Is(err, target) {
		return withHint(err, format, args...)
	}
	return err
}

// finish reports how a command ended and returns the exit code.
func (a *app) finish(cmd *cobra.Command, err error) int {
	if err == nil || isBrokenPipe(err) {
		return exitDone
	}
	_, wrong := errors.AsType[*usageError](err)
	wrong = wrong || !a.started
	if !wrong {
		err = explain(err)
	}
	out := "tierlog: " + strings.ReplaceAll(err.Error(), "\n", "\ntierlog: ") + "\n"
	if h, ok := errors.AsType[*hintError](err); ok {
		out += h.hint + "\n"
	}
	if wrong && !errors.Is(err, errWhichCommand) { // The help says it all there.
		out += fmt.Sprintf("Usage: %s\nRun `%s --help` for the flags and examples.\n", cmd.UseLine(), cmd.CommandPath())
	}
	_, _ = io.WriteString(a.Stderr, out)
	if wrong {
		return exitMisuse
	}
	return exitFailed
}

// explain adds what to try next to errors that have no hint yet.
func explain(err error) error {
	if _, ok := errors.AsType[*hintError](err); ok {
		return err
	}
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "dial" && op.Addr != nil {
		return withHint(fmt.Errorf("no broker at %s: %w", op.Addr, op.Err),
			"Start one with `tierlog broker`, or give --bootstrap-server HOST:PORT.")
	}
	if dns, ok := errors.AsType[*net.DNSError](err); ok {
		return withHint(fmt.Errorf("no host %s: %w", dns.Name, err), "Check --bootstrap-server.")
	}
	var first *kgo.ErrFirstReadEOF
	switch {
	case errors.As(err, &first), errors.Is(err, io.EOF):
		return withHint(fmt.Errorf("the server closed the connection: %w", err),
			"Is it a Kafka listener without TLS and SASL? Check --bootstrap-server.")
	case errors.Is(err, context.Canceled):
		return errInterrupted
	case errors.Is(err, context.DeadlineExceeded):
		return withHint(fmt.Errorf("no answer in time: %w", err), "Is the broker up? Check --bootstrap-server.")
	case errors.Is(err, kerr.UnknownTopicOrPartition), errors.Is(err, kerr.UnknownTopicID):
		return withHint(err, "See `tierlog topic list`, or create it with `tierlog topic create NAME`.")
	}
	return err
}

// kafkaError turns an error of the protocol and the broker's own words into one line.
func kafkaError(err error, message string) error {
	var ke *kerr.Error
	switch {
	case err == nil:
		return nil
	case message == "" && (errors.Is(err, kerr.UnknownTopicOrPartition) || errors.Is(err, kerr.UnknownTopicID)):
		return fmt.Errorf("it does not exist (%w)", named{kerr.UnknownTopicOrPartition})
	case message != "" && errors.As(err, &ke):
		return fmt.Errorf("%s (%w)", strings.TrimSuffix(message, "."), named{ke})
	case errors.As(err, &ke):
		return fmt.Errorf("%s (%w)", strings.ToLower(ke.Description[:1])+strings.TrimSuffix(ke.Description[1:], "."), named{ke})
	default:
		return err
	}
}

// named prints a protocol error by its name only.
type named struct{ err *kerr.Error }

func (n named) Error() string { return n.err.Message }
func (n named) Unwrap() error { return n.err }
