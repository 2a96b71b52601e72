package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strconv"
	"strings"
)

// kcat drives the command line client of that name. It sends one file of lines per partition and set of headers.
type kcat struct{ path string }

func newKcat(string) (*kcat, error) {
	path, err := exec.LookPath("kcat")
	if err != nil {
		return nil, err
	}
	return &kcat{path}, nil
}

func (*kcat) close() {}

func (*kcat) create(context.Context, string, string, int) error {
	return errors.New("kcat has no admin commands")
}

// run returns kcat's output; its errors name what it wrote to standard error.
func (k *kcat) run(ctx context.Context, stdin []byte, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, k.path, args...)
	cmd.Stdin = bytes.NewReader(stdin)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%w: %s", err, strings.TrimSpace(stderr.String()))
	}
	// Delivery failures do not always change the exit code.
	if strings.Contains(stderr.String(), "Delivery failed") || strings.Contains(stderr.String(), "ERROR") {
		return "", errors.New(strings.TrimSpace(stderr.String()))
	}
	return stdout.String(), nil
}

// The separators below never appear in text records.
const (
	keySeparator = "\x1f"
	endOfRecord  = "\x1e"
)

func (k *kcat) produce(ctx context.Context, args produceArgs) error {
	base := []string{
		"-P", "-b", args.addr, "-t", args.topic, "-z", args.codec, "-K", keySeparator, "-D", endOfRecord,
		"-X", "acks=" + args.acks, "-X", "message.max.bytes=4000000", "-X", "linger.ms=20",
		"-X", "topic.metadata.propagation.max.ms=3000", "-X", "message.timeout.ms=20000", "-X", "enable.idempotence=" + strconv.FormatBool(args.idempotent),
	}
	// One run of kcat sends records to one partition with one set of headers.
	byPartition := map[int32][]record{}
	for _, r := range args.records {
		byPartition[r.partition] = append(byPartition[r.partition], r)
	}
	for partition, records := range byPartition {
		run := append(slices.Clone(base), "-p", strconv.Itoa(int(partition)))
		for _, h := range records[0].headers {
			run = append(run, "-H", h.key+"="+string(h.value))
		}
		var input bytes.Buffer
		for _, r := range records {
			input.Write(r.key)
			input.WriteString(keySeparator)
			input.Write(r.value)
			input.WriteString(endOfRecord)
		}
		if _, err := k.run(ctx, input.Bytes(), run...); err != nil {
			return err
		}
	}
	return nil
}

func (k *kcat) consume(ctx context.Context, addr, topic string, ends []int64) ([]record, error) {
	var records []record
	for p, end := range ends {
		if end == 0 {
			continue
		}
		// The lengths tell null (-1) from empty.
		format := strings.Join([]string{"%o", "%T", "%K", "%k", "%S", "%s", "%h"}, keySeparator) + endOfRecord
		out, err := k.run(ctx, nil, "-C", "-b", addr, "-t", topic, "-p", strconv.Itoa(p), "-o", "beginning", "-c", strconv.FormatInt(end, 10), "-q", "-f", format)
		if err != nil {
			return nil, err
		}
		for entry := range strings.SplitSeq(strings.TrimSuffix(out, endOfRecord), endOfRecord) {
			r, err := parseKcat(entry, int32(p))
			if err != nil {
				return nil, err
			}
			records = append(records, r)
		}
	}
	return records, nil
}

func parseKcat(entry string, partition int32) (record, error) {
	fields := strings.Split(entry, keySeparator)
	if len(fields) != 7 {
		return record{}, fmt.Errorf("kcat printed %d fields in %q, want 7", len(fields), entry)
	}
	offset, err1 := strconv.ParseInt(fields[0], 10, 64)
	timestamp, err2 := strconv.ParseInt(fields[1], 10, 64)
	if err := errors.Join(err1, err2); err != nil {
		return record{}, fmt.Errorf("kcat printed %q: %w", entry, err)
	}
	r := record{partition: partition, offset: offset, timestamp: timestamp}
	if fields[2] != "-1" {
		r.key = []byte(fields[3])
	}
	if fields[4] != "-1" {
		r.value = []byte(fields[5])
	}
	for pair := range strings.SplitSeq(fields[6], ",") {
		if name, value, ok := strings.Cut(pair, "="); ok {
			r.headers = append(r.headers, header{name, []byte(value)})
		}
	}
	return r, nil
}
