package e2e

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tierlog/tierlog/test/kafka"
)

// patience bounds every wait; it is reached only by a failure.
const patience = 60 * time.Second

// binary is the tierlog that TestMain built.
var binary string

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "tierlog-e2e")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = os.RemoveAll(dir) }()
	binary = filepath.Join(dir, "tierlog")
	build := exec.Command("go", "build", "-o", binary, "./cmd/tierlog") //nolint:noctx // the test waits for it
	build.Dir = "../.."
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build tierlog: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// output collects what a process prints.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// broker is a tierlog broker and how it is started. It keeps its addresses from one process to the next.
type broker struct {
	t     *testing.T
	store string
	dir   string // of local data
	node  int
	args  []string
	seeds []string // further addresses for clients

	addr, http     string
	stdout, stderr *output // of all its processes
	cmd            *exec.Cmd
	exited         chan struct{}
	code           int // valid after exited
}

// newBroker prepares a broker with free ports and fast leases. It is killed when the test ends.
func newBroker(t *testing.T, store string) *broker {
	t.Helper()
	ports, err := kafka.FreePorts(2)
	if err != nil {
		t.Fatal(err)
	}
	b := &broker{
		t: t, store: store, dir: filepath.Join(t.TempDir(), "data"), node: 1,
		addr: fmt.Sprintf("127.0.0.1:%d", ports[0]), http: fmt.Sprintf("127.0.0.1:%d", ports[1]),
		stdout: &output{}, stderr: &output{},
	}
	t.Cleanup(func() {
		b.kill()
		if t.Failed() {
			t.Logf("output of the broker at %s:\n%s\n%s", b.addr, b.stdout, tail(b.stderr.String(), 8000))
		}
	})
	return b
}

func tail(s string, n int) string { return s[max(0, len(s)-n):] }

// spawn starts the process and does not wait for it.
func (b *broker) spawn() {
	b.t.Helper()
	args := append([]string{
		"broker", "--listen", b.addr, "--http", b.http, "--store", b.store, "--data-dir", b.dir, "--node-id", fmt.Sprint(b.node),
		"--set", "broker.heartbeat.interval.ms=500", "--set", "broker.session.timeout.ms=3000", "--set", "memory.limit=268435456",
	}, b.args...)
	b.cmd = exec.Command(binary, args...) //nolint:noctx // ends with the test
	b.cmd.Stdout, b.cmd.Stderr = b.stdout, b.stderr
	b.exited = make(chan struct{})
	started := make(chan error)
	go func(cmd *exec.Cmd, exited chan struct{}) {
		runtime.LockOSThread() // the process dies with this thread, so that a killed test leaves nothing behind
		defer runtime.UnlockOSThread()
		dieWithParent(cmd)
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // the exit code says it
			b.code = cmd.ProcessState.ExitCode()
		}
		close(exited)
	}(b.cmd, b.exited)
	if err := <-started; err != nil {
		b.t.Fatal(err)
	}
}

// start starts the process and waits until it answers.
func (b *broker) start() {
	b.t.Helper()
	b.spawn()
	ctx, cancel := context.WithTimeout(b.t.Context(), patience)
	defer cancel()
	if err := kafka.WaitReady(ctx, b.addr, b.exited); err != nil {
		b.t.Fatalf("the broker does not start: %v", err)
	}
}

// kill ends the process at once.
func (b *broker) kill() {
	if b.cmd == nil || b.cmd.Process == nil {
		return
	}
	_ = b.cmd.Process.Kill()
	<-b.exited
}

// wait returns the exit code of a process that ends by itself.
func (b *broker) wait() int {
	b.t.Helper()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-b.exited:
	case <-timer.C:
		b.t.Fatalf("the broker at %s does not end", b.addr)
	}
	return b.code
}

// stop asks the process to end and returns its exit code and how long it took.
func (b *broker) stop() (code int, took time.Duration) {
	b.t.Helper()
	begin := time.Now()
	if err := b.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		b.t.Fatal(err)
	}
	code = b.wait()
	return code, time.Since(begin)
}

// fails starts a process that must end with exit code 1 and an error that says all of it.
func (b *broker) fails(says ...string) {
	b.t.Helper()
	b.spawn()
	if code := b.wait(); code != 1 {
		b.t.Errorf("exit code %d, want 1", code)
	}
	lines := strings.Split(strings.TrimSpace(b.stderr.String()), "\n")
	for _, s := range says {
		if !strings.Contains(lines[len(lines)-1], s) {
			b.t.Errorf("the last line on stderr is %q, want %q in it", lines[len(lines)-1], s)
		}
	}
}

// get returns the status of an HTTP path, 0 if there is no answer.
func (b *broker) get(path string) int {
	ctx, cancel := context.WithTimeout(b.t.Context(), 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+b.http+path, nil)
	if err != nil {
		b.t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0
	}
	_ = resp.Body.Close()
	return resp.StatusCode
}

// eventually waits for a condition.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	for !cond() {
		select {
		case <-tick.C:
		case <-timer.C:
			t.Fatalf("%s: not within %v", what, patience)
		}
	}
}

// says waits until the broker has logged a text.
func (b *broker) says(text string) {
	b.t.Helper()
	eventually(b.t, "the log says "+text, func() bool { return strings.Contains(b.stderr.String(), text) })
}

// client is a client of the broker that never gives up by itself.
func (b *broker) client(opts ...kgo.Opt) *kgo.Client {
	b.t.Helper()
	cl, err := kgo.NewClient(append([]kgo.Opt{
		kgo.SeedBrokers(append([]string{b.addr}, b.seeds...)...), kgo.MetadataMinAge(20 * time.Millisecond), kgo.UnknownTopicRetries(-1),
		kgo.RetryBackoffFn(func(int) time.Duration { return 20 * time.Millisecond }),
		kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.RequestTimeoutOverhead(10 * time.Second),
	}, opts...)...)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(cl.Close)
	return cl
}

// createTopic creates a topic.
func (b *broker) createTopic(name string, partitions int32) {
	b.t.Helper()
	req := kmsg.NewPtrCreateTopicsRequest()
	rt := kmsg.NewCreateTopicsRequestTopic()
	rt.Topic, rt.NumPartitions, rt.ReplicationFactor = name, partitions, 1
	req.Topics = append(req.Topics, rt)
	resp, err := req.RequestWith(b.t.Context(), b.client())
	if err != nil || resp.Topics[0].ErrorCode != 0 {
		b.t.Fatalf("create %s: %+v, %v", name, resp, err)
	}
}

// produce sends one record with acks=all and returns the error that ends it.
func (b *broker) produce(cl *kgo.Client, topic, value string) error {
	ctx, cancel := context.WithTimeout(b.t.Context(), patience)
	defer cancel()
	return cl.ProduceSync(ctx, &kgo.Record{Topic: topic, Value: []byte(value)}).FirstErr()
}
