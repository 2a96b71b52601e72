package cli

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kfake"
)

// buffer is a writer that may be read while it is written.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// program is one run of the command line within the test.
type program struct {
	Env
	out, err buffer
	signals  chan os.Signal
}

func newProgram(t *testing.T, args ...string) *program {
	t.Helper()
	p := &program{signals: make(chan os.Signal, 2)}
	p.Env = Env{
		Args: args, Stdin: strings.NewReader(""), Stdout: &p.out, Stderr: &p.err, Signals: p.signals, Now: time.Now,
		Exit: func(int) { t.Error("the process was ended") },
		RunBroker: func(context.Context, BrokerConfig, *slog.Logger, io.Writer) error {
			return errors.New("no broker here")
		},
	}
	return p
}

// kafka starts a broker and returns its address.
func kafka(t *testing.T, opts ...kfake.Opt) (*kfake.Cluster, string) {
	t.Helper()
	c, err := kfake.NewCluster(append([]kfake.Opt{kfake.NumBrokers(1), kfake.DefaultNumPartitions(1)}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c, c.ListenAddrs()[0]
}

// mustRun runs a command that must end well and returns what it printed.
func mustRun(t *testing.T, bootstrap, stdin string, args ...string) string {
	t.Helper()
	p := newProgram(t, args...)
	p.Stdin = strings.NewReader(stdin)
	p.Environ = []string{"TIERLOG_BOOTSTRAP=" + bootstrap}
	if code := Run(p.Env); code != 0 {
		t.Fatalf("%s: exit code %d: %s", strings.Join(args, " "), code, p.err.String())
	}
	return p.out.String()
}

// eventually waits until the condition holds.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(20 * time.Second); !holds(); {
		if time.Now().After(deadline) {
			t.Fatalf("did not come about: %s", what)
		}
		<-tick.C
	}
}

func TestEveryCommandHasHelpWithAnExample(t *testing.T) {
	root := (&app{}).root()
	var walk func(cmd *cobra.Command)
	seen := 0
	walk = func(cmd *cobra.Command) {
		seen++
		if cmd.Short == "" || !strings.Contains(cmd.Example, "  ") || !strings.Contains(cmd.Example, "tierlog") {
			t.Errorf("%s: short %q, example %q", cmd.CommandPath(), cmd.Short, cmd.Example)
		}
		for _, c := range cmd.Commands() {
			walk(c)
		}
	}
	walk(root)
	if seen < 20 {
		t.Errorf("only %d commands were seen", seen)
	}
}

func TestBrokerGetsItsConfig(t *testing.T) {
	p := newProgram(t, "broker", "--listen", "127.0.0.1:0", "--http", "", "--set", "num.partitions=5")
	p.Environ = []string{"TIERLOG_RACK=r1", "TIERLOG_LOG_LEVEL=debug"}
	var got BrokerConfig
	p.RunBroker = func(ctx context.Context, cfg BrokerConfig, log *slog.Logger, stdout io.Writer) error {
		got = cfg
		log.DebugContext(ctx, "at work", slog.Int("n", 1))
		_, err := io.WriteString(stdout, "hello\n")
		return err
	}
	if code := Run(p.Env); code != 0 {
		t.Fatalf("exit code %d: %s", code, p.err.String())
	}
	if got.Listen != "127.0.0.1:0" || got.HTTP != "" || got.Rack != "r1" || got.NodeID != 1 || got.Broker.NumPartitions != 5 {
		t.Errorf("got %+v", got)
	}
	if err := got.Validate(); err != nil {
		t.Error(err)
	}
	if p.out.String() != "hello\n" {
		t.Errorf("stdout: %q", p.out.String())
	}
	if line := p.err.String(); !strings.HasPrefix(line, `{"time":"`) || !strings.Contains(line, `"level":"DEBUG","msg":"at work","n":1}`) {
		t.Errorf("not a line of JSON: %q", line)
	}
}

func TestSignals(t *testing.T) {
	t.Run("the first one ends the broker in order", func(t *testing.T) {
		p := newProgram(t, "broker")
		p.RunBroker = func(ctx context.Context, _ BrokerConfig, _ *slog.Logger, _ io.Writer) error {
			p.signals <- syscall.SIGTERM
			<-ctx.Done()
			return nil
		}
		if code := Run(p.Env); code != 0 {
			t.Errorf("exit code %d", code)
		}
	})
	t.Run("the second one ends the process", func(t *testing.T) {
		p := newProgram(t, "broker")
		exited := make(chan int, 1)
		p.Exit = func(code int) { exited <- code }
		p.RunBroker = func(ctx context.Context, _ BrokerConfig, _ *slog.Logger, _ io.Writer) error {
			p.signals <- syscall.SIGTERM
			<-ctx.Done()
			p.signals <- syscall.SIGTERM
			if code := <-exited; code != 1 {
				t.Errorf("exit code %d", code)
			}
			return nil
		}
		Run(p.Env)
	})
	t.Run("an interrupted command has failed", func(t *testing.T) {
		p := newProgram(t, "broker")
		p.RunBroker = func(ctx context.Context, _ BrokerConfig, _ *slog.Logger, _ io.Writer) error {
			p.signals <- os.Interrupt
			<-ctx.Done()
			return ctx.Err()
		}
		if code := Run(p.Env); code != 1 || p.err.String() != "tierlog: interrupted\n" {
			t.Errorf("exit code %d, %q", code, p.err.String())
		}
	})
}

func TestBrokenPipeIsQuiet(t *testing.T) {
	p := newProgram(t, "version")
	p.Stdout = brokenPipe{}
	if code := Run(p.Env); code != 0 || p.err.String() != "" {
		t.Errorf("exit code %d, %q", code, p.err.String())
	}
}

type brokenPipe struct{}

func (brokenPipe) Write([]byte) (int, error) {
	return 0, &os.PathError{Op: "write", Path: "stdout", Err: syscall.EPIPE}
}

func TestUnits(t *testing.T) {
	for got, want := range map[string]string{
		duration(0):                       "0.00 µs",
		duration(1500):                    "1.50 µs",
		duration(999999):                  "1.00 ms",
		duration(123456789):               "123 ms",
		duration(12345678):                "12.3 ms",
		duration(999600 * 1000):           "1.00 s",
		duration(-time.Second):            "-1.00 s",
		duration(99 * time.Second):        "99.0 s",
		duration(3723 * time.Second):      "1h2m3s",
		plural(1, "record"):               "1 record",
		plural(1234, "record"):            "1,234 records",
		size(0):                           "0 B",
		size(int64(1536)):                 "1.5 KiB",
		figures(1234567):                  "1,234,567",
		figures(0.123):                    "0.12",
		count(int64(9223372036854775807)): "9,223,372,036,854,775,807",
	} {
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestTable(t *testing.T) {
	tb := newTable("NAME", ">N", "")
	tb.row("short", 1, "")
	tb.row("längere", 1000, "note")
	var b strings.Builder
	if err := tb.write(&b, 2); err != nil {
		t.Fatal(err)
	}
	want := "  NAME        N\n  short       1\n  längere  1000  note\n"
	if b.String() != want {
		t.Errorf("got\n%s\nwant\n%s", b.String(), want)
	}
}

func TestProgressLine(t *testing.T) {
	s := progressState{records: 1000, bytes: 1 << 20}
	if got, want := progressLine(s, 2*time.Second), "1,000 records, 1.0 MiB, 512 KiB/s"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	s.total = 4 << 20
	if got, want := progressLine(s, 2*time.Second), "1,000 records, 1.0 MiB, 512 KiB/s, 25 % done, 3.0 MiB left, 6s to go"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got, want := progressLine(progressState{total: 10}, 0), "0 records, 0 B, 0 B/s, 0 % done, 10 B left"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got, want := summaryLine(s, 2*time.Second), "1,000 records, 1.0 MiB in 2.00 s: 512 KiB/s"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
