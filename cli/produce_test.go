package cli

import (
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

func lines(from, to int) string {
	var b strings.Builder
	for i := from; i <= to; i++ {
		fmt.Fprintf(&b, "line %d\n", i)
	}
	return b.String()
}

// start runs a program aside and returns where its exit code will come.
func start(p *program) <-chan int {
	code := make(chan int, 1)
	go func() { code <- Run(p.Env) }()
	return code
}

func TestProduceKeepsOrderAndCount(t *testing.T) {
	_, addr := kafka(t, kfake.SeedTopics(1, "t"))
	const n = 50000
	for _, flags := range [][]string{
		{"--acks", "all"},
		{"--acks", "all", "--compression", "zstd"},
		{"--acks", "1", "--compression", "lz4"},
		{"--acks", "0"},
	} {
		before := strings.Count(mustRun(t, addr, "", "consume", "t", "--until-end"), "\n")
		mustRun(t, addr, lines(1, n), append([]string{"produce", "t"}, flags...)...)
		var got string
		eventually(t, "all records are there", func() bool { // With acks 0 they may come later than the end of the command.
			got = mustRun(t, addr, "", "consume", "t", "--until-end", "--from", fmt.Sprint(before))
			return strings.Count(got, "\n") >= n
		})
		if got != lines(1, n) {
			t.Fatalf("%v: what was read is not what was written", flags)
		}
	}
}

func TestProduceInterrupted(t *testing.T) {
	_, addr := kafka(t, kfake.SeedTopics(1, "t"))
	in, feeder := io.Pipe()
	defer in.Close() //nolint:errcheck // a pipe in memory
	p := newProgram(t, "produce", "t", "-b", addr)
	p.Stdin = in
	code := start(p)
	_, _ = io.WriteString(feeder, lines(1, 100))
	eventually(t, "the records are stored", func() bool {
		return mustRun(t, addr, "", "consume", "t", "--until-end") == lines(1, 100)
	})
	p.signals <- os.Interrupt
	if got := <-code; got != 1 {
		t.Errorf("exit code %d", got)
	}
	if got, want := p.err.String(), "tierlog: interrupted\n100 records acknowledged: all of the lines read.\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestProduceReportsFailures(t *testing.T) {
	c, addr := kafka(t, kfake.SeedTopics(1, "t"))
	// The broker takes the first request and refuses all others for good.
	requests := 0
	c.ControlKey(int16(kmsg.Produce), func(kreq kmsg.Request) (kmsg.Response, error, bool) {
		c.KeepControl()
		if requests++; requests == 1 {
			return nil, nil, false
		}
		req := kreq.(*kmsg.ProduceRequest)
		resp := req.ResponseKind().(*kmsg.ProduceResponse)
		for _, rt := range req.Topics {
			st := kmsg.NewProduceResponseTopic()
			st.Topic, st.TopicID = rt.Topic, rt.TopicID
			for _, rp := range rt.Partitions {
				sp := kmsg.NewProduceResponseTopicPartition()
				sp.Partition, sp.ErrorCode, sp.BaseOffset = rp.Partition, kerr.PolicyViolation.Code, -1
				st.Partitions = append(st.Partitions, sp)
			}
			resp.Topics = append(resp.Topics, st)
		}
		return resp, nil, true
	})
	in, feeder := io.Pipe()
	defer in.Close() //nolint:errcheck // a pipe in memory
	p := newProgram(t, "produce", "t", "-b", addr)
	p.Stdin = in
	code := start(p)
	_, _ = io.WriteString(feeder, lines(1, 10))
	eventually(t, "the first batch is stored", func() bool {
		return mustRun(t, addr, "", "consume", "t", "--until-end") == lines(1, 10)
	})
	_, _ = io.WriteString(feeder, lines(11, 30))
	if got := <-code; got != 1 {
		t.Errorf("exit code %d", got)
	}
	for _, want := range []string{"tierlog: lines 11-30: ", "POLICY_VIOLATION", "\n10 records acknowledged, 20 not; the first that was not is line 11.\n"} {
		if !strings.Contains(p.err.String(), want) {
			t.Errorf("%q is missing in %q", want, p.err.String())
		}
	}
}

func TestProduceSurvivesARestart(t *testing.T) {
	dir := t.TempDir()
	first, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "t"), kfake.DataDir(dir))
	if err != nil {
		t.Fatal(err)
	}
	addr := first.ListenAddrs()[0]
	in, feeder := io.Pipe()
	p := newProgram(t, "produce", "t", "-b", addr)
	p.Stdin = in
	code := start(p)
	_, _ = io.WriteString(feeder, lines(1, 100))
	eventually(t, "the first records are stored", func() bool {
		return mustRun(t, addr, "", "consume", "t", "--until-end") == lines(1, 100)
	})
	first.Close()
	_, _ = io.WriteString(feeder, lines(101, 200)) // Nobody is there to take them.
	var port int
	if _, err := fmt.Sscanf(addr, "127.0.0.1:%d", &port); err != nil {
		t.Fatal(err)
	}
	second, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.Ports(port), kfake.DataDir(dir))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(second.Close)
	_, _ = io.WriteString(feeder, lines(201, 300))
	_ = feeder.Close()
	if got := <-code; got != 0 {
		t.Fatalf("exit code %d: %s", got, p.err.String())
	}
	if got := mustRun(t, addr, "", "consume", "t", "--until-end"); got != lines(1, 300) {
		t.Errorf("%d lines, not the 300 in order", strings.Count(got, "\n"))
	}
}

func TestProduceGivesUpOnASilentBroker(t *testing.T) {
	c, addr := kafka(t, kfake.SeedTopics(1, "t"))
	hold := make(chan struct{})
	t.Cleanup(func() { close(hold) })
	c.ControlKey(int16(kmsg.Produce), func(kmsg.Request) (kmsg.Response, error, bool) {
		c.KeepControl()
		c.SleepControl(func() { <-hold })
		return nil, nil, false
	})
	p := newProgram(t, "produce", "t", "-b", addr, "--delivery-timeout", "1s")
	p.Stdin = strings.NewReader(lines(1, 5))
	if got := Run(p.Env); got != 1 {
		t.Errorf("exit code %d", got)
	}
	for _, want := range []string{"no record was acknowledged for too long", "0 records acknowledged, 5 not; the first that was not is line 1.", "--delivery-timeout"} {
		if !strings.Contains(p.err.String(), want) {
			t.Errorf("%q is missing in %q", want, p.err.String())
		}
	}
}

func TestConsumeFollows(t *testing.T) {
	_, addr := kafka(t, kfake.SeedTopics(1, "t"))
	mustRun(t, addr, "old\n", "produce", "t")
	p := newProgram(t, "consume", "t", "-b", addr)
	code := start(p)
	eventually(t, "what was there is printed", func() bool { return p.out.String() == "old\n" })
	mustRun(t, addr, "new\n", "produce", "t")
	eventually(t, "what is new is printed", func() bool { return p.out.String() == "old\nnew\n" })
	p.signals <- syscall.SIGTERM
	if got := <-code; got != 0 || p.err.String() != "" {
		t.Errorf("exit code %d, %q", got, p.err.String())
	}
}
