// Package tierlog builds the real tierlog binary and runs it as a broker of its own process, for tests and
// measurements that must see what a user would.
//
// Invariants:
//
//   - Start returns a broker only when it answers Metadata.
//   - Stop and Kill end exactly the process that Start started, and return when it is gone.
package tierlog

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/tierlog/tierlog/test/kafka"
)

// Config says how a broker runs.
type Config struct {
	// Binary is the path of the tierlog binary; see Build. Required.
	Binary string
	// Dir holds the broker's data folder and its output. Required.
	Dir string
	// Store is the --store URL; empty means a directory store under Dir.
	Store string
	// Args are further arguments of `tierlog broker`, such as --set NAME=VALUE.
	Args []string
	// Env is added to the environment.
	Env []string
	// StartTimeout bounds the wait for the first answer; 0 means one minute.
	StartTimeout time.Duration
}

// Validate reports the first field that cannot be used.
func (c *Config) Validate() error {
	if info, err := os.Stat(c.Binary); err != nil || info.IsDir() {
		return fmt.Errorf("tierlog: Binary %q: want the file that Build made", c.Binary)
	}
	if c.Dir == "" {
		return errors.New("tierlog: Dir is empty: want a folder for the broker's files")
	}
	return nil
}

// Broker is a running tierlog broker.
type Broker struct {
	cfg    Config
	addr   string
	http   string
	cmd    *exec.Cmd
	exited chan struct{} // closed when the process is gone
}

// Build compiles cmd/tierlog of the repository at root into .bin and returns the binary's path.
func Build(ctx context.Context, root string) (string, error) {
	binary, err := filepath.Abs(filepath.Join(root, ".bin", "tierlog"))
	if err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, "go", "build", "-o", binary, "./cmd/tierlog")
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build tierlog: %w: %s", err, out)
	}
	return binary, nil
}

// Start runs a broker on free loopback ports and waits until it answers.
func Start(ctx context.Context, cfg Config) (*Broker, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	ports, err := kafka.FreePorts(2)
	if err != nil {
		return nil, err
	}
	b := &Broker{cfg: cfg, addr: fmt.Sprintf("127.0.0.1:%d", ports[0]), http: fmt.Sprintf("127.0.0.1:%d", ports[1])}
	return b, b.Restart(ctx)
}

// Restart starts the broker again, on the same ports, folder and store; the earlier process must be gone.
func (b *Broker) Restart(ctx context.Context) error {
	if err := os.MkdirAll(b.cfg.Dir, 0o755); err != nil {
		return fmt.Errorf("start tierlog: %w", err)
	}
	out, err := os.OpenFile(b.output(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("start tierlog: %w", err)
	}
	defer func() { _ = out.Close() }() // the process has its own copy
	store := b.cfg.Store
	if store == "" {
		store = filepath.Join(b.cfg.Dir, "bucket")
	}
	args := []string{"broker", "--listen", b.addr, "--http", b.http, "--store", store, "--data-dir", filepath.Join(b.cfg.Dir, "data")}
	b.cmd = exec.CommandContext(context.WithoutCancel(ctx), b.cfg.Binary, append(args, b.cfg.Args...)...)
	b.cmd.Env = slices.Concat(os.Environ(), b.cfg.Env)
	b.cmd.Stdout, b.cmd.Stderr = out, out
	if err := b.cmd.Start(); err != nil {
		return fmt.Errorf("start tierlog: %w", err)
	}
	b.exited = make(chan struct{})
	go func(cmd *exec.Cmd, exited chan struct{}) {
		_ = cmd.Wait() // the exit code of a broker that was told to end says nothing
		close(exited)
	}(b.cmd, b.exited)
	timeout := b.cfg.StartTimeout
	if timeout == 0 {
		timeout = time.Minute
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if err := kafka.WaitReady(ctx, b.addr, b.exited); err != nil {
		tail, _ := os.ReadFile(b.output())
		return errors.Join(fmt.Errorf("start tierlog: %w: its output ends with %q", err, tail[max(0, len(tail)-2000):]), b.Kill())
	}
	return nil
}

func (b *Broker) output() string { return filepath.Join(b.cfg.Dir, "output") }

// Addr is the address that clients bootstrap from.
func (b *Broker) Addr() string { return b.addr }

// HTTP is the address of metrics and health.
func (b *Broker) HTTP() string { return b.http }

// PID is the broker's process id.
func (b *Broker) PID() int { return b.cmd.Process.Pid }

// Stop asks the broker to end in order and waits until it is gone; after half a minute it is killed.
func (b *Broker) Stop() error {
	if err := b.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stop tierlog: %w", err)
	}
	patience := time.NewTimer(30 * time.Second)
	defer patience.Stop()
	select {
	case <-b.exited:
		return nil
	case <-patience.C:
		return b.Kill()
	}
}

// Kill ends the broker at once and waits until it is gone.
func (b *Broker) Kill() error {
	if err := b.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("kill tierlog: %w", err)
	}
	<-b.exited
	return nil
}
