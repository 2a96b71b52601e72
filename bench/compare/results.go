package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// goal is a target: of a system's median, or of its ratio to Kafka's.
type goal struct {
	system string
	ratio  bool
	atMost bool
	value  float64
}

func (g goal) String() string {
	sign, unit := ">=", ""
	if g.atMost {
		sign = "<="
	}
	if g.ratio {
		unit = " x"
	}
	return fmt.Sprintf("%s %g%s", sign, g.value, unit)
}

func (g goal) met(v float64) bool {
	if g.atMost {
		return v <= g.value
	}
	return v >= g.value
}

func atLeast(system string, ratio float64) goal { return goal{system, true, false, ratio} }
func atMost(system string, ratio float64) goal  { return goal{system, true, true, ratio} }
func below(system string, value float64) goal   { return goal{system, false, true, value} }
func above(system string, value float64) goal   { return goal{system, false, false, value} }

// metric is a row of the table.
type metric struct {
	key   string
	title string
	unit  string
	goals []goal
}

// metrics are all rows, in the table's order.
var metrics = []metric{
	{"produce-1.rate", "produce acks=all, 1 producer, 1 KiB records", "MiB/s", []goal{atLeast(sysFsync, 1), atLeast(sysNoFsync, 1.15)}},
	{"produce-1.cpu", "… broker CPU", "s/GiB", []goal{atMost(sysFsync, 0.7), atMost(sysNoFsync, 0.7)}},
	{"produce-4.rate", "produce acks=all, 4 producers, 1 KiB records", "MiB/s", []goal{atLeast(sysFsync, 1), atLeast(sysNoFsync, 1.15)}},
	{"produce-4.cpu", "… broker CPU", "s/GiB", []goal{atMost(sysFsync, 0.7), atMost(sysNoFsync, 0.7)}},
	{"produce-100b.rate", "produce acks=all, 1 producer, 100-byte records", "MiB/s", nil},
	{"produce-100b.cpu", "… broker CPU", "s/GiB", []goal{atMost(sysFsync, 0.4), atMost(sysNoFsync, 0.4)}},
	{"raw-1k.rate", "produce acks=all, encoded beforehand, 4 connections, 1 KiB records in 64 KiB batches", "MiB/s", nil},
	{"raw-1k.cpu", "… broker CPU", "s/GiB", []goal{atMost(sysFsync, 0.7), atMost(sysNoFsync, 0.7)}},
	{"raw-100b.rate", "produce acks=all, encoded beforehand, 4 connections, 100-byte records in 64 KiB batches", "MiB/s", nil},
	{"raw-100b.cpu", "… broker CPU", "s/GiB", []goal{atMost(sysFsync, 0.4), atMost(sysNoFsync, 0.4)}},
	{"read-memory.rate", "catch-up read from memory, client that decodes", "MiB/s", []goal{atLeast(sysFsync, 1)}},
	{"read-memory.cpu", "… broker CPU", "s/GiB", []goal{atMost(sysFsync, 0.9)}},
	{"read-memory-raw.rate", "catch-up read from memory, client that only counts", "MiB/s", []goal{atLeast(sysFsync, 1)}},
	{"read-memory-raw.cpu", "… broker CPU", "s/GiB", []goal{atMost(sysFsync, 0.9)}},
	{"read-cold.rate", "catch-up read after a restart, client that decodes", "MiB/s", []goal{atLeast(sysFsync, 0.8)}},
	{"read-cold.cpu", "… broker CPU", "s/GiB", nil},
	{"read-cold-raw.rate", "catch-up read after a restart, client that only counts", "MiB/s", []goal{atLeast(sysFsync, 0.8)}},
	{"read-cold-raw.cpu", "… broker CPU", "s/GiB", nil},
	{"light-1.p50", "light load, 1,000 records/s, linger 0: ack of acks=1, p50", "ms", nil},
	{"light-1.p99", "… p99", "ms", []goal{atMost(sysFsync, 1)}},
	{"light-all.p50", "light load, 1,000 records/s, linger 0: ack of acks=all, p50", "ms", nil},
	{"light-all.p99", "… p99", "ms", []goal{atMost(sysFsync, 1.5)}},
	{"memory.load", "most resident memory under all the loads above", "MiB", []goal{below(sysFsync, 1228.8), below(sysNoFsync, 1228.8)}},
	{"start.empty", "start to first answer, empty", "s", []goal{below(sysFsync, 0.5)}},
	{"memory.idle", "resident memory, idle", "MiB", []goal{below(sysFsync, 64)}},
	{"create", "create 5,000 partitions", "s", []goal{below(sysFsync, 1)}},
	{"memory.partitions", "resident memory, 10,000 idle partitions", "MiB", []goal{below(sysFsync, 256)}},
	{"start.segments", "start to first answer, 10,000 log segments in the bucket", "s", nil},
	{"start.ratio", "… against an empty bucket", "x", []goal{{sysFsync, false, true, 2}}},
	{"delay.put", "bucket with 50 ms PUTs, no limit of PUTs: a PUT for each request, no broker", "requests/s", nil},
	{"delay.one", "… one producer, one partition, one request in flight", "requests/s", nil},
	{"delay.five", "… five in flight", "requests/s", nil},
	{"delay.ratio", "… against one request per PUT", "x", []goal{above(sysFsync, 4.5)}},
	{"delay.many-small", "… 64 producers, five in flight, 16 KiB requests", "MiB/s", nil},
	{"delay.many-small-puts", "… requests per PUT", "", nil},
	{"delay.many", "… 64 producers, five in flight, 256 KiB requests", "MiB/s", nil},
	{"delay.many-puts", "… requests per PUT", "", nil},
	{"minio.raw", "MinIO: four parallel PUTs of 8 MiB, no broker", "MiB/s", nil},
	{"minio.produce", "MinIO, no limit of PUTs: produce acks=all, encoded beforehand, 8 connections", "MiB/s", nil},
	{"minio.ratio", "… against the raw PUTs", "x", []goal{above(sysFsync, 0.85)}},
}

// results collects the samples of every metric and system.
type results struct {
	samples map[string]map[string][]float64
}

func newResults() *results { return &results{samples: map[string]map[string][]float64{}} }

// add keeps one sample. An unknown key is a mistake in this program.
func (r *results) add(key, system string, value float64) {
	if !slices.ContainsFunc(metrics, func(m metric) bool { return m.key == key }) {
		panic("no metric " + key)
	}
	if r.samples[key] == nil {
		r.samples[key] = map[string][]float64{}
	}
	r.samples[key][system] = append(r.samples[key][system], value)
}

// median returns the middle of a metric's samples.
func (r *results) median(key, system string) (float64, bool) {
	s := slices.Sorted(slices.Values(r.samples[key][system]))
	if len(s) == 0 {
		return 0, false
	}
	return (s[(len(s)-1)/2] + s[len(s)/2]) / 2, true
}

func (r *results) count() int {
	n := 0
	for _, bySystem := range r.samples {
		n += len(bySystem)
	}
	return n
}

// markdown renders the table of medians, with the ratio to Kafka's for the other systems.
func (r *results) markdown(systems []string) string {
	var b strings.Builder
	head, rule := []string{"what", "unit"}, []string{"---", "---"}
	for _, s := range systems {
		head, rule = append(head, s), append(rule, "---:")
		if s != sysKafka {
			head, rule = append(head, "x Kafka"), append(rule, "---:")
		}
	}
	row(&b, append(head, "target"))
	row(&b, append(rule, "---"))
	for _, m := range metrics {
		if len(r.samples[m.key]) == 0 {
			continue
		}
		row(&b, r.cells(m, systems))
	}
	return b.String()
}

func row(b *strings.Builder, cells []string) { fmt.Fprintf(b, "| %s |\n", strings.Join(cells, " | ")) }

func (r *results) cells(m metric, systems []string) []string {
	cells := []string{m.title, m.unit}
	peer, hasPeer := r.median(m.key, sysKafka)
	for _, s := range systems {
		v, has := r.median(m.key, s)
		text, ratio := "", ""
		if has {
			text = number(v)
		}
		if has && hasPeer && peer > 0 {
			ratio = fmt.Sprintf("%.2f", v/peer)
		}
		cells = append(cells, text)
		if s != sysKafka {
			cells = append(cells, ratio)
		}
	}
	return append(cells, strings.Join(r.verdicts(m), "; "))
}

// verdicts says of each goal that can be judged whether it is met.
func (r *results) verdicts(m metric) []string {
	var out []string
	for _, g := range m.goals {
		v, has := r.median(m.key, g.system)
		peer, hasPeer := r.median(m.key, sysKafka)
		if g.ratio {
			has = has && hasPeer && peer > 0
			v /= peer
		}
		if !has {
			continue
		}
		verdict := "**missed**"
		if g.met(v) {
			verdict = "met"
		}
		out = append(out, fmt.Sprintf("%s %s: %s", g.system, g, verdict))
	}
	return out
}

func number(v float64) string {
	switch {
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	default:
		return fmt.Sprintf("%.2f", v)
	}
}

// write leaves the table and all samples in a folder.
func (r *results) write(dir, md string) error {
	type entry struct {
		Key     string               `json:"key"`
		Title   string               `json:"title"`
		Unit    string               `json:"unit"`
		Samples map[string][]float64 `json:"samples"`
		Medians map[string]float64   `json:"medians"`
		Goals   []string             `json:"goals,omitempty"`
	}
	var entries []entry
	for _, m := range metrics {
		if len(r.samples[m.key]) == 0 {
			continue
		}
		e := entry{m.key, m.title, m.unit, r.samples[m.key], map[string]float64{}, r.verdicts(m)}
		for s := range r.samples[m.key] {
			e.Medians[s], _ = r.median(m.key, s)
		}
		entries = append(entries, e)
	}
	var text bytes.Buffer
	enc := json.NewEncoder(&text)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(entries); err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return errors.Join(
		os.WriteFile(filepath.Join(dir, "compare.json"), text.Bytes(), 0o644),
		os.WriteFile(filepath.Join(dir, "compare.md"), []byte(md), 0o644),
	)
}
