// Package kafka starts one Apache Kafka node, the peer that tierlog is compared with and the oracle of what a client
// may expect. The node is broker and KRaft controller in one JVM, on free loopback ports, with its log in a folder
// that the caller owns.
//
// Invariants:
//
//   - Start returns a node only when it answers Metadata with itself as a broker.
//   - Stop and Kill end exactly the process that Start started, and return when it is gone.
package kafka

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Config says how a node runs.
type Config struct {
	// Libs is the folder of jars that tools/kafka.sh fills. Required.
	Libs string
	// Dir holds the node's configuration, output and log. Required; must be empty or new.
	Dir string
	// HeapMiB is the JVM's largest heap; 0 means 2,048.
	HeapMiB int
	// Properties are added to the node's configuration or replace what Start would set.
	Properties map[string]string
	// StartTimeout bounds the wait for the first answer; 0 means one minute.
	StartTimeout time.Duration
}

// Validate reports the first field that cannot be used.
func (c *Config) Validate() error {
	if info, err := os.Stat(c.Libs); err != nil || !info.IsDir() {
		return fmt.Errorf("kafka: Libs %q: want the folder that tools/kafka.sh prints", c.Libs)
	}
	if c.Dir == "" {
		return errors.New("kafka: Dir is empty: want a folder for the node's files")
	}
	if c.HeapMiB < 0 {
		return fmt.Errorf("kafka: HeapMiB %d: want 0 for the default, or more", c.HeapMiB)
	}
	return nil
}

// Node is a running Apache Kafka.
type Node struct {
	addr   string
	dir    string
	cmd    *exec.Cmd
	exited chan struct{} // closed when the process is gone
}

// jvm are the flags of Kafka's own kafka-run-class.
var jvm = []string{
	"-server", "-XX:+UseG1GC", "-XX:MaxGCPauseMillis=20", "-XX:InitiatingHeapOccupancyPercent=35",
	"-XX:+ExplicitGCInvokesConcurrent", "-Djava.awt.headless=true",
}

const log4j2 = `<Configuration status="WARN">
  <Appenders><Console name="out"><PatternLayout pattern="[%d] %p %m (%c)%n"/></Console></Appenders>
  <Loggers><Root level="WARN"><AppenderRef ref="out"/></Root></Loggers>
</Configuration>
`

// Jars makes sure that the jars of a Kafka version are in the repository's .bin folder and returns their folder.
func Jars(ctx context.Context, root, version string) (string, error) {
	cmd := exec.CommandContext(ctx, filepath.Join(root, "tools", "kafka.sh"), version)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("fetch the jars of kafka %s: %w", version, err)
	}
	return strings.TrimSpace(string(out)), nil
}

// Start formats a log folder, starts a node on it and waits until it answers.
func Start(ctx context.Context, cfg Config) (*Node, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	ports, err := FreePorts(2)
	if err != nil {
		return nil, err
	}
	if err := writeFiles(cfg, ports); err != nil {
		return nil, fmt.Errorf("write the node's configuration: %w", err)
	}
	id, err := tool(ctx, cfg, "random-uuid")
	if err != nil {
		return nil, err
	}
	if _, err := tool(ctx, cfg, "format", "-t", id, "-c", cfg.properties()); err != nil {
		return nil, err
	}
	n := &Node{addr: fmt.Sprintf("127.0.0.1:%d", ports[0]), dir: cfg.Dir, exited: make(chan struct{})}
	return n, n.run(ctx, cfg)
}

// Restart starts a node again on the folder and the ports of a stopped one.
func (n *Node) Restart(ctx context.Context, cfg Config) error {
	cfg.Dir = n.dir
	n.exited = make(chan struct{})
	return n.run(ctx, cfg)
}

// Addr is the address that clients bootstrap from.
func (n *Node) Addr() string { return n.addr }

// PID is the JVM's process id.
func (n *Node) PID() int { return n.cmd.Process.Pid }

// DataDir is the folder of the node's log.
func (n *Node) DataDir() string { return filepath.Join(n.dir, "data") }

// Stop asks the node to shut down in order and waits until it is gone; after half a minute it is killed.
func (n *Node) Stop() error {
	if err := n.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stop kafka: %w", err)
	}
	patience := time.NewTimer(30 * time.Second)
	defer patience.Stop()
	select {
	case <-n.exited:
		return nil
	case <-patience.C:
		return n.Kill()
	}
}

// Kill ends the node at once and waits until it is gone.
func (n *Node) Kill() error {
	if err := n.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("kill kafka: %w", err)
	}
	<-n.exited
	return nil
}

func (c *Config) properties() string { return filepath.Join(c.Dir, "server.properties") }

func (c *Config) heap() string {
	if c.HeapMiB == 0 {
		return "-Xmx2048m"
	}
	return fmt.Sprintf("-Xmx%dm", c.HeapMiB)
}

func (c *Config) java(ctx context.Context, args ...string) *exec.Cmd {
	all := append([]string{"-cp", filepath.Join(c.Libs, "*"), "-Dlog4j2.configurationFile=" + filepath.Join(c.Dir, "log4j2.xml")}, args...)
	return exec.CommandContext(ctx, "java", all...)
}

func writeFiles(cfg Config, ports []int) error {
	props := map[string]string{
		"process.roles":                                    "broker,controller",
		"node.id":                                          "1",
		"controller.quorum.voters":                         fmt.Sprintf("1@127.0.0.1:%d", ports[1]),
		"listeners":                                        fmt.Sprintf("PLAINTEXT://127.0.0.1:%d,CONTROLLER://127.0.0.1:%d", ports[0], ports[1]),
		"advertised.listeners":                             fmt.Sprintf("PLAINTEXT://127.0.0.1:%d", ports[0]),
		"controller.listener.names":                        "CONTROLLER",
		"listener.security.protocol.map":                   "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
		"log.dirs":                                         filepath.Join(cfg.Dir, "data"),
		"offsets.topic.replication.factor":                 "1",
		"transaction.state.log.replication.factor":         "1",
		"transaction.state.log.min.isr":                    "1",
		"share.coordinator.state.topic.replication.factor": "1",
		"share.coordinator.state.topic.min.isr":            "1",
		"group.initial.rebalance.delay.ms":                 "0",
	}
	maps.Copy(props, cfg.Properties)
	var b strings.Builder
	for _, k := range slices.Sorted(maps.Keys(props)) {
		fmt.Fprintf(&b, "%s=%s\n", k, props[k])
	}
	if err := os.MkdirAll(cfg.Dir, 0o755); err != nil {
		return err
	}
	return errors.Join(
		os.WriteFile(cfg.properties(), []byte(b.String()), 0o644),
		os.WriteFile(filepath.Join(cfg.Dir, "log4j2.xml"), []byte(log4j2), 0o644),
	)
}

// tool runs Kafka's StorageTool and returns what it prints.
func tool(ctx context.Context, cfg Config, args ...string) (string, error) {
	cmd := cfg.java(ctx, append([]string{"-Xmx256m", "kafka.tools.StorageTool"}, args...)...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("kafka storage tool %s: %w: %s%s", args[0], err, out, stderr.String())
	}
	return strings.TrimSpace(string(out)), nil
}

// run starts the JVM and waits for its first answer. The process outlives ctx: Stop or Kill end it.
func (n *Node) run(ctx context.Context, cfg Config) error {
	out, err := os.OpenFile(filepath.Join(cfg.Dir, "output"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("start kafka: %w", err)
	}
	defer func() { _ = out.Close() }() // the process has its own copy
	args := append(slices.Clone(jvm), cfg.heap(), "kafka.Kafka", cfg.properties())
	n.cmd = cfg.java(context.WithoutCancel(ctx), args...)
	n.cmd.Stdout, n.cmd.Stderr = out, out
	if err := n.cmd.Start(); err != nil {
		return fmt.Errorf("start kafka: %w", err)
	}
	go func(cmd *exec.Cmd, exited chan struct{}) {
		_ = cmd.Wait() // the exit code of a node that was told to end says nothing
		close(exited)
	}(n.cmd, n.exited)
	timeout := cfg.StartTimeout
	if timeout == 0 {
		timeout = time.Minute
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if err := WaitReady(ctx, n.addr, n.exited); err != nil {
		tail, _ := os.ReadFile(filepath.Join(cfg.Dir, "output"))
		return errors.Join(fmt.Errorf("start kafka: %w: its output ends with %q", err, last(tail, 2000)), n.Kill())
	}
	return nil
}

func last(b []byte, n int) []byte { return b[max(0, len(b)-n):] }

// WaitReady returns when the broker at addr answers Metadata with at least one broker. It gives up when ctx ends or
// when exited closes: the broker's process is gone.
func WaitReady(ctx context.Context, addr string, exited <-chan struct{}) error {
	again := time.NewTicker(5 * time.Millisecond)
	defer again.Stop()
	for {
		if ready(ctx, addr) {
			return nil
		}
		select {
		case <-exited:
			return errors.New("the broker's process ended")
		case <-ctx.Done():
			return fmt.Errorf("no answer from %s: %w", addr, ctx.Err())
		case <-again.C:
		}
	}
}

func ready(ctx context.Context, addr string) bool {
	conn, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return false
	}
	_ = conn.Close() // it only showed that somebody listens
	cl, err := kgo.NewClient(kgo.SeedBrokers(addr), kgo.RequestRetries(0), kgo.RetryTimeout(2*time.Second))
	if err != nil {
		return false
	}
	defer cl.Close()
	resp, err := kmsg.NewPtrMetadataRequest().RequestWith(ctx, cl)
	return err == nil && len(resp.Brokers) > 0
}

// FreePorts returns n loopback ports that nobody listens on at this moment.
func FreePorts(n int) ([]int, error) {
	ports := make([]int, 0, n)
	for range n {
		l, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", "127.0.0.1:0")
		if err != nil {
			return nil, fmt.Errorf("find a free port: %w", err)
		}
		defer func() { _ = l.Close() }() // only on return, so that the ports differ
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	return ports, nil
}
