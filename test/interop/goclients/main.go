// Command goclients drives Go clients of Kafka for the interop runner: sarama VERSION, kafka-go-writer or
// kafka-go-conn. It is a module of its own, so that their dependencies stay out of tierlog's.
package main

import (
	"bufio"
	"encoding/base64"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

type header struct {
	key   string
	value []byte
}

type record struct {
	partition int32
	offset    int64
	timestamp time.Time // zero: the client chooses
	key       []byte
	value     []byte
	headers   []header
}

// command is one line of the runner's; see driver.go in the folder above.
type command map[string]string

func (c command) int(name string) int {
	n, err := strconv.Atoi(c[name])
	if err != nil {
		panic(err) // the runner sent it
	}
	return n
}

// ends returns the end of each partition that has records.
func (c command) ends() map[int32]int64 {
	ends := map[int32]int64{}
	for p, word := range strings.Split(c["ends"], ",") {
		if end, err := strconv.ParseInt(word, 10, 64); err == nil && end > 0 {
			ends[int32(p)] = end
		}
	}
	return ends
}

// client is what each library's adapter implements.
type client interface {
	create(c command) error
	produce(c command, records []record) error
	consume(c command) ([]record, error)
}

func main() {
	cl, err := newClient(os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "goclients:", err)
		os.Exit(2)
	}
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		answer := "ok"
		if err := obey(cl, lines.Text()); err != nil {
			answer = "error " + strings.ReplaceAll(err.Error(), "\n", " ")
		}
		fmt.Println(answer)
	}
}

func newClient(args []string) (client, error) {
	switch {
	case len(args) == 2 && args[0] == "sarama":
		return newSarama(args[1])
	case len(args) == 1 && args[0] == "kafka-go-writer":
		return kafkaGo{}, nil
	case len(args) == 1 && args[0] == "kafka-go-conn":
		return kafkaGo{conn: true}, nil
	}
	return nil, fmt.Errorf("want sarama VERSION, kafka-go-writer or kafka-go-conn, not %q", args)
}

func obey(cl client, line string) error {
	words := strings.Split(line, "\t")
	c := command{}
	for _, w := range words[1:] {
		name, value, _ := strings.Cut(w, "=")
		c[name] = value
	}
	switch words[0] {
	case "create":
		return cl.create(c)
	case "produce":
		records, err := load(c["file"])
		if err != nil {
			return err
		}
		return cl.produce(c, records)
	case "consume":
		records, err := cl.consume(c)
		if err != nil {
			return err
		}
		return save(c["file"], records)
	}
	return fmt.Errorf("unknown command %q", words[0])
}

func encode(b []byte) string {
	if b == nil {
		return "-"
	}
	return base64.StdEncoding.EncodeToString(b)
}

func decode(s string) []byte {
	if s == "-" {
		return nil
	}
	b, err := base64.StdEncoding.DecodeString(s)
	if err != nil {
		panic(err) // the runner wrote it
	}
	return append([]byte{}, b...)
}

func load(path string) ([]record, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var records []record
	for line := range strings.SplitSeq(strings.TrimSuffix(string(text), "\n"), "\n") {
		f := strings.Split(line, "\t")
		partition, err := strconv.ParseInt(f[0], 10, 32)
		if err != nil {
			return nil, err
		}
		r := record{partition: int32(partition), key: decode(f[3]), value: decode(f[4])}
		if ms, err := strconv.ParseInt(f[2], 10, 64); err == nil && ms >= 0 {
			r.timestamp = time.UnixMilli(ms)
		}
		for pair := range strings.SplitSeq(f[5], ",") {
			if k, v, ok := strings.Cut(pair, ":"); ok {
				r.headers = append(r.headers, header{string(decode(k)), decode(v)})
			}
		}
		records = append(records, r)
	}
	return records, nil
}

func save(path string, records []record) error {
	var b strings.Builder
	for _, r := range records {
		var headers []string
		for _, h := range r.headers {
			headers = append(headers, encode([]byte(h.key))+":"+encode(h.value))
		}
		fmt.Fprintf(&b, "%d\t%d\t%d\t%s\t%s\t%s\n", r.partition, r.offset, r.timestamp.UnixMilli(), encode(r.key), encode(r.value), strings.Join(headers, ","))
	}
	return os.WriteFile(path, []byte(b.String()), 0o644)
}
