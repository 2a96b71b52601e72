// Command compare measures tierlog and Apache Kafka side by side on this machine, with the same clients, and prints
// one table of medians and ratios.
//
//	go run ./bench/compare                          everything; about an hour; writes .bin/compare/{compare.md,compare.json}
//	go run ./bench/compare -systems kafka           the peer alone
//	go run ./bench/compare -run 'produce|latency'   some rows
//	go run ./bench/compare -smoke                   tiny sizes: shows that everything runs, not how fast
//
// Apache Kafka comes from Maven (tools/kafka.sh) and runs as its own scripts would run it, with one difference that
// matters: it acknowledges from the page cache, without fsync. tierlog runs with fsync, as it does by default, and, as
// a system of its own, with `?fsync=off`.
//
// How it measures:
//
//   - Systems take turns within every round, so that a slow minute of the machine hits all of them; figures are
//     medians over the rounds.
//   - Client and broker share the machine's cores. The broker's CPU-seconds (user and system, from /proc) are
//     therefore the sharper figure than its rate; they include two seconds after the load, for work put off.
//   - Fresh memory is slow on virtual machines: every round begins with filling what is free (-warm).
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// options are the command line's.
type options struct {
	systems []string
	rounds  int
	only    *regexp.Regexp
	smoke   bool
	warm    bool
	root    string
	dir     string
	out     string
	sizes   sizes
}

// sizes say how much work each experiment does.
type sizes struct {
	produce   int64 // bytes of 1 KiB records for a produce run
	small     int64 // bytes of 100-byte records for a produce run
	memory    int64 // bytes of the topic that is read from memory
	passes    int   // how often it is read in one run
	cold      int64 // bytes of the topic that is read after a restart
	seconds   int   // of light load
	idle      int   // idle partitions whose memory is measured
	created   int   // partitions that are created against the clock
	segments  int   // log segments in the bucket that is started on
	delayed   int   // requests of the runs on a slow bucket
	minio     int64 // bytes of a produce run on MinIO
	heapMiB   int   // Kafka's
	settleSec int   // how long after a load the broker's CPU time still counts
}

var (
	fullSizes = sizes{
		produce: 1 << 30, small: 512 << 20, memory: 192 << 20, passes: 8, cold: 2 << 30, seconds: 10, idle: 10_000,
		created: 5000, segments: 10_000, delayed: 400, minio: 1 << 30, heapMiB: 2048, settleSec: 2,
	}
	smokeSizes = sizes{
		produce: 8 << 20, small: 1 << 20, memory: 4 << 20, passes: 2, cold: 4 << 20, seconds: 1, idle: 100,
		created: 50, segments: 5, delayed: 10, minio: 8 << 20, heapMiB: 512, settleSec: 0,
	}
)

func parse(args []string, stderr io.Writer) (options, error) {
	flags := flag.NewFlagSet("compare", flag.ContinueOnError)
	flags.SetOutput(stderr)
	systems := flags.String("systems", strings.Join(systemNames, ","), "which systems, of "+strings.Join(systemNames, ", "))
	only := flags.String("run", "", "only experiments whose name matches this regular expression")
	var o options
	flags.IntVar(&o.rounds, "rounds", 3, "rounds; figures are medians over them")
	flags.BoolVar(&o.smoke, "smoke", false, "tiny sizes and one round: only shows that everything runs")
	flags.BoolVar(&o.warm, "warm", true, "fill free memory once before each round")
	flags.StringVar(&o.root, "root", ".", "the repository")
	flags.StringVar(&o.dir, "dir", "", "folder for the systems' data (default: a temporary one)")
	flags.StringVar(&o.out, "out", "", "folder for compare.md and compare.json (default: .bin/compare of the repository)")
	segments := flags.Int("segments", fullSizes.segments, "log segments in the bucket that start-up is measured on")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	o.sizes = fullSizes
	o.sizes.segments = *segments
	if o.smoke {
		o.sizes, o.rounds, o.warm = smokeSizes, 1, false
	}
	o.systems = strings.Split(*systems, ",")
	for _, s := range o.systems {
		if !slices.Contains(systemNames, s) {
			return o, fmt.Errorf("-systems %q: want some of %s", s, strings.Join(systemNames, ", "))
		}
	}
	if o.rounds < 1 {
		return o, fmt.Errorf("-rounds %d: want at least 1", o.rounds)
	}
	var err error
	if o.only, err = regexp.Compile(*only); err != nil {
		return o, fmt.Errorf("-run: %w", err)
	}
	if o.out == "" {
		o.out = filepath.Join(o.root, ".bin", "compare")
	}
	return o, nil
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	o, err := parse(args, stderr)
	if errors.Is(err, flag.ErrHelp) {
		return 0
	}
	if err != nil {
		say(stderr, "compare: %v\n", err)
		return 2
	}
	if o.dir == "" {
		if o.dir, err = os.MkdirTemp("", "tierlog-compare-"); err != nil {
			say(stderr, "compare: %v\n", err)
			return 1
		}
		defer func() { _ = os.RemoveAll(o.dir) }()
	}
	b := &bench{options: o, results: newResults(), progress: stderr, peaks: map[string]float64{}}
	err = b.all(ctx)
	md := b.results.markdown(o.systems)
	say(stdout, "%s\n", md)
	if werr := b.results.write(o.out, md); werr != nil {
		err = errors.Join(err, werr)
	}
	if err != nil {
		say(stderr, "compare: %v\n", err)
		say(stdout, "compare: %d figures, failed\n", b.results.count())
		return 1
	}
	say(stdout, "compare: %d figures, no failure\n", b.results.count())
	return 0
}

// say prints; what cannot be printed cannot be reported either.
func say(w io.Writer, format string, args ...any) { _, _ = fmt.Fprintf(w, format, args...) }
