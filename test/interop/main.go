// Command interop drives Kafka clients and tools that nobody here wrote against a broker and compares, byte for byte,
// what they wrote with what they and a reference client read back.
//
// Each client is a small program of its own language under drivers/ (Go clients: goclients/) that obeys one line of
// text at a time; see driver.go. What a client cannot express (a null header value, say) is left out of its data by
// its features, never compared loosely.
//
//	go run ./test/interop                     the tierlog binary of this tree, on a directory store
//	go run ./test/interop -target kafka       Apache Kafka, the oracle
//	go run ./test/interop -target HOST:PORT -strict HOST:PORT
//	go run ./test/interop -run 'java-2|kcat'  only the cases whose name matches
//
// Invariants:
//
//   - Every case prints one line, ok or FAIL; the last line counts both.
//   - A client that cannot be started fails its cases: nothing is skipped.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// env is what every case needs.
type env struct {
	root   string // the repository
	dir    string // scratch files
	addr   string // a broker that creates topics on first use
	strict string // a broker that does not
	ref    *reference
	log    io.Writer
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("interop", flag.ContinueOnError)
	flags.SetOutput(stderr)
	target := flags.String("target", "tierlog", "tierlog, kafka, or HOST:PORT of a running broker")
	strict := flags.String("strict", "", "with a HOST:PORT target: a second broker, with auto.create.topics.enable=false")
	only := flags.String("run", "", "run only the cases whose name matches this regular expression")
	root := flags.String("root", ".", "the repository")
	if err := flags.Parse(args); err != nil {
		return 2
	}
	filter, err := regexp.Compile(*only)
	if err != nil {
		say(stderr, "interop: -run: %v\n", err)
		return 2
	}
	e := &env{log: stderr, strict: *strict}
	if e.root, err = filepath.Abs(*root); err != nil {
		say(stderr, "interop: %v\n", err)
		return 1
	}
	if e.dir, err = os.MkdirTemp("", "tierlog-interop-"); err != nil {
		say(stderr, "interop: %v\n", err)
		return 1
	}
	defer func() { _ = os.RemoveAll(e.dir) }()
	end, err := e.start(ctx, *target)
	defer end()
	if err != nil {
		say(stderr, "interop: %v\n", err)
		return 1
	}
	passed, failed := e.suite(ctx, filter, stdout)
	say(stdout, "%d passed, %d failed\n", passed, failed)
	if failed > 0 || passed == 0 {
		return 1
	}
	return 0
}

// say prints; what cannot be printed cannot be reported either.
func say(w io.Writer, format string, args ...any) { _, _ = fmt.Fprintf(w, format, args...) }

// suite runs every case whose name matches and prints a line for each.
func (e *env) suite(ctx context.Context, filter *regexp.Regexp, stdout io.Writer) (passed, failed int) {
	report := func(name string, took time.Duration, err error) {
		if err != nil {
			failed++
			say(stdout, "FAIL %-40s %6.1fs  %v\n", name, took.Seconds(), err)
			return
		}
		passed++
		say(stdout, "ok   %-40s %6.1fs\n", name, took.Seconds())
	}
	for _, g := range e.groups() {
		var chosen []testCase
		for _, c := range g.cases {
			if filter.MatchString(g.name + "/" + c.name) {
				chosen = append(chosen, c)
			}
		}
		if len(chosen) > 0 {
			g.run(ctx, chosen, report)
		}
	}
	return passed, failed
}

// testCase is one line of the report.
type testCase struct {
	name string
	run  func(ctx context.Context, d driver) error
}

// group is the cases of one client, which share its process.
type group struct {
	name  string
	open  func(ctx context.Context) (driver, error)
	cases []testCase
}

// caseTimeout bounds one case. The slowest ones wait for a client's own time-outs of a few seconds.
const caseTimeout = 90 * time.Second

func (g *group) run(ctx context.Context, cases []testCase, report func(string, time.Duration, error)) {
	d, err := g.open(ctx)
	if err != nil {
		for _, c := range cases {
			report(g.name+"/"+c.name, 0, fmt.Errorf("the client does not start: %w", err))
		}
		return
	}
	defer d.close()
	for _, c := range cases {
		began := time.Now() //nolint:forbidigo // the report shows how long a case took
		caseCtx, cancel := context.WithTimeout(ctx, caseTimeout)
		err := c.run(caseCtx, d)
		cancel()
		report(g.name+"/"+c.name, time.Since(began), err) //nolint:forbidigo // as above
	}
}
