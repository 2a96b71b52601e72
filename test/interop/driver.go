package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// produceArgs say how a client writes.
type produceArgs struct {
	addr       string
	topic      string
	codec      string // none, gzip, snappy, lz4 or zstd
	acks       string // all, 1 or 0
	idempotent bool
	records    []record
}

// driver is one client under test. Calls come one at a time.
type driver interface {
	// create makes a topic through the client's own admin API.
	create(ctx context.Context, addr, topic string, partitions int) error
	// produce returns nil when the client says that every record was acknowledged.
	produce(ctx context.Context, args produceArgs) error
	// consume reads each partition from its start to the given end, with partitions assigned by hand: no group.
	consume(ctx context.Context, addr, topic string, ends []int64) ([]record, error)
	close()
}

// process drives a client in a process of its own. It writes one command a line, with tabs between its words,
//
//	create   addr=A topic=T partitions=N
//	produce  addr=A topic=T codec=C acks=A idempotent=0|1 file=F
//	consume  addr=A topic=T ends=E0,E1,... file=F
//
// and reads one line: "ok", or "error" and what the client said. Records travel in files; see dataset.go.
// The process ends when its input does; whatever it logs goes to standard error, into a file.
type process struct {
	cmd     *exec.Cmd
	in      io.WriteCloser
	answers chan string
	dir     string
	stderr  string
	files   int
}

func startProcess(dir string, argv ...string) (*process, error) {
	dir, err := os.MkdirTemp(dir, "client-")
	if err != nil {
		return nil, err
	}
	p := &process{cmd: exec.CommandContext(context.Background(), argv[0], argv[1:]...), dir: dir, answers: make(chan string)} // it outlives a case; close ends it
	p.stderr = filepath.Join(dir, "stderr")
	stderr, err := os.Create(p.stderr)
	if err != nil {
		return nil, err
	}
	defer func() { _ = stderr.Close() }() // the process has its own copy
	p.cmd.Stderr = stderr
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		defer close(p.answers)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			p.answers <- lines.Text()
		}
	}()
	return p, nil
}

// ask sends one command and waits for its answer.
func (p *process) ask(ctx context.Context, words ...string) error {
	if _, err := io.WriteString(p.in, strings.Join(words, "\t")+"\n"); err != nil {
		return p.gone(err)
	}
	select {
	case <-ctx.Done():
		_ = p.cmd.Process.Kill() // its later answers would be taken for those of other commands
		return fmt.Errorf("no answer: %w%s", ctx.Err(), p.lastWords())
	case answer, open := <-p.answers:
		if !open {
			return p.gone(errors.New("it closed its output"))
		}
		if answer == "ok" {
			return nil
		}
		text, isError := strings.CutPrefix(answer, "error ")
		if !isError {
			return fmt.Errorf("the client's program answered %q", answer)
		}
		return errors.New(text)
	}
}

func (p *process) gone(err error) error {
	return fmt.Errorf("the client's program is gone: %w%s", err, p.lastWords())
}

func (p *process) lastWords() string {
	b, err := os.ReadFile(p.stderr)
	if err != nil || len(b) == 0 {
		return ""
	}
	return fmt.Sprintf("; its errors end with %q", b[max(0, len(b)-1000):])
}

func (p *process) file() string {
	p.files++
	return filepath.Join(p.dir, strconv.Itoa(p.files))
}

func (p *process) create(ctx context.Context, addr, topic string, partitions int) error {
	return p.ask(ctx, "create", "addr="+addr, "topic="+topic, "partitions="+strconv.Itoa(partitions))
}

func (p *process) produce(ctx context.Context, args produceArgs) error {
	file := p.file()
	if err := writeRecords(file, args.records); err != nil {
		return err
	}
	idempotent := "0"
	if args.idempotent {
		idempotent = "1"
	}
	return p.ask(ctx, "produce", "addr="+args.addr, "topic="+args.topic, "codec="+args.codec, "acks="+args.acks, "idempotent="+idempotent, "file="+file)
}

func (p *process) consume(ctx context.Context, addr, topic string, ends []int64) ([]record, error) {
	file := p.file()
	if err := p.ask(ctx, "consume", "addr="+addr, "topic="+topic, "ends="+joinEnds(ends), "file="+file); err != nil {
		return nil, err
	}
	return readRecords(file)
}

func joinEnds(ends []int64) string {
	words := make([]string, len(ends))
	for i, e := range ends {
		words[i] = strconv.FormatInt(e, 10)
	}
	return strings.Join(words, ",")
}

// close ends the process: its input ends, and if that does not help within some seconds, it is killed.
func (p *process) close() {
	_ = p.in.Close() // it may be gone already
	patience := time.AfterFunc(10*time.Second, func() { _ = p.cmd.Process.Kill() })
	defer patience.Stop()
	for range p.answers { // until the process closes its output
	}
	_ = p.cmd.Wait() // a killed client was reported by its case
}
