package cli

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/twmb/franz-go/pkg/kfake"
	"golang.org/x/sys/unix"
)

// terminal opens a terminal and returns its end for a program, and what the program has written to it.
func terminal(t *testing.T) (*os.File, *buffer) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	out := &buffer{}
	go func() {
		b := make([]byte, 1024)
		for {
			n, err := master.Read(b)
			_, _ = out.Write(b[:n])
			if err != nil {
				return
			}
		}
	}()
	t.Cleanup(func() { _, _ = slave.Close(), master.Close() })
	return slave, out
}

func TestProgressOnATerminal(t *testing.T) {
	tty, out := terminal(t)
	a := &app{Env: newProgram(t).Env}
	var records atomic.Int64
	stop := a.showProgress(tty, func() progressState {
		n := records.Add(1)
		return progressState{records: n * 1000, bytes: n << 20, total: 10 << 20}
	})
	eventually(t, "two lines are drawn", func() bool { return strings.Contains(out.String(), "2,000 records, 2.0 MiB, ") })
	stop()
	eventually(t, "the line is removed", func() bool { return regexp.MustCompile(`left.*\r +\r$`).MatchString(out.String()) })
}

func TestProduceOnATerminal(t *testing.T) {
	_, addr := kafka(t, kfake.SeedTopics(1, "t"))
	path := filepath.Join(t.TempDir(), "lines.txt")
	if err := os.WriteFile(path, []byte(lines(1, 3)), 0o600); err != nil {
		t.Fatal(err)
	}
	tty, out := terminal(t)
	p := newProgram(t, "produce", "t", "-b", addr, "--file", path)
	p.Stderr = tty
	if code := Run(p.Env); code != 0 {
		t.Fatalf("exit code %d", code)
	}
	eventually(t, "there is a summary", func() bool { return regexp.MustCompile(`3 records, 21 B in .*: .*/s`).MatchString(out.String()) })
	if logs := NewLogger(tty, LogConfig{Format: "auto"}); logs != nil {
		logs.Info("text on a terminal")
		eventually(t, "logs are text", func() bool { return strings.Contains(out.String(), `level=INFO msg="text on a terminal"`) })
	}
}
