package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// ticksPerSecond is USER_HZ, which Linux fixes at 100 for every architecture that Go supports.
const ticksPerSecond = 100

// now is the clock of all measurements.
var now = time.Now //nolint:forbidigo // a benchmark measures wall time

// since is the time passed from a moment that now gave.
func since(t time.Time) time.Duration { return now().Sub(t) }

// cpuSeconds is the user and system time that a process has used.
func cpuSeconds(pid int) (float64, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, fmt.Errorf("cpu time of process %d: %w", pid, err)
	}
	return parseStat(stat)
}

// parseStat adds fields 14 and 15 of a /proc/PID/stat. Field 2, the command's name, may hold anything.
func parseStat(stat []byte) (float64, error) {
	end := bytes.LastIndexByte(stat, ')')
	if end < 0 {
		return 0, fmt.Errorf("no command name in %q", stat)
	}
	fields := strings.Fields(string(stat[end+1:]))
	if len(fields) < 13 {
		return 0, fmt.Errorf("%d fields after the name in %q", len(fields), stat)
	}
	user, err1 := strconv.ParseFloat(fields[11], 64)
	system, err2 := strconv.ParseFloat(fields[12], 64)
	return (user + system) / ticksPerSecond, errors.Join(err1, err2)
}

// memoryMiB reads a line of /proc/PID/status: VmRSS is what is resident now, VmHWM the most it ever was.
func memoryMiB(pid int, line string) (float64, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, fmt.Errorf("memory of process %d: %w", pid, err)
	}
	return parseStatus(string(status), line)
}

func parseStatus(status, line string) (float64, error) {
	for l := range strings.Lines(status) {
		if rest, ok := strings.CutPrefix(l, line+":"); ok {
			kib, err := strconv.ParseFloat(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 64)
			return kib / 1024, err
		}
	}
	return 0, fmt.Errorf("no %s in the process's status", line)
}

// warmMemory touches most of the free memory once, by writing a file of that size and reading it back. The pages stay
// known to a virtual machine's host afterwards.
func warmMemory(dir string) error {
	info, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return fmt.Errorf("warm memory: %w", err)
	}
	free, err := parseStatus(string(info), "MemFree")
	if err != nil {
		return fmt.Errorf("warm memory: %w", err)
	}
	path := filepath.Join(dir, "warm")
	defer func() { _ = os.Remove(path) }()
	f, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("warm memory: %w", err)
	}
	defer func() { _ = f.Close() }() // it is removed anyway
	block := make([]byte, 1<<20)
	for range int(free * 0.8) {
		if _, err := f.Write(block); err != nil {
			return fmt.Errorf("warm memory: %w", err)
		}
	}
	for off := int64(0); off < int64(free*0.8)<<20; off += int64(len(block)) {
		if _, err := f.ReadAt(block, off); err != nil {
			return fmt.Errorf("warm memory: %w", err)
		}
	}
	return nil
}
