package main

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestRecordsSurviveTheExchange(t *testing.T) {
	path := filepath.Join(t.TempDir(), "records")
	wrote := dataset(1, 200, 3, everything)
	if err := writeRecords(path, wrote); err != nil {
		t.Fatal(err)
	}
	got, err := readRecords(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := range wrote {
		if err := same(wrote[i], got[i], everything); err != nil {
			t.Fatalf("record %d: %v", i, err)
		}
	}
}

func TestParseLineRefuses(t *testing.T) {
	for _, line := range []string{"", "0\t1\t2\t-\t-", "x\t1\t2\t-\t-\t", "0\t1\t2\t!\t-\t", "0\t1\t2\t-\t-\t!:-"} {
		if r, err := parseLine(line); err == nil {
			t.Errorf("%q gives %+v", line, r)
		}
	}
}

// TestDatasetHasTheHardCases: a data set without them would prove little.
func TestDatasetHasTheHardCases(t *testing.T) {
	var nullKey, emptyKey, nullValue, emptyValue, nullHeader, emptyHeader, repeated, big bool
	for _, r := range dataset(7, 300, 3, everything) {
		nullKey = nullKey || r.key == nil
		emptyKey = emptyKey || r.key != nil && len(r.key) == 0
		nullValue = nullValue || r.value == nil
		emptyValue = emptyValue || r.value != nil && len(r.value) == 0
		big = big || len(r.value) > 10_000
		repeated = repeated || len(r.headers) == 3
		for _, h := range r.headers {
			nullHeader = nullHeader || h.value == nil
			emptyHeader = emptyHeader || h.value != nil && len(h.value) == 0
		}
	}
	if !nullKey || !emptyKey || !nullValue || !emptyValue || !nullHeader || !emptyHeader || !repeated || !big {
		t.Error("a kind of record is missing")
	}
	for _, r := range dataset(7, 300, 3, features{}) {
		if len(r.key) == 0 || len(r.value) == 0 || r.headers != nil || r.timestamp != noTimestamp {
			t.Fatalf("a plain client cannot write %+v", r)
		}
	}
}

// TestCompareBites changes what was read in every way that a broker or client could get wrong.
func TestCompareBites(t *testing.T) {
	wrote := []record{
		{partition: 0, timestamp: 1, key: []byte("a"), value: []byte("1"), headers: []header{{"h", []byte{}}}},
		{partition: 1, timestamp: 2, key: []byte{}, value: nil},
		{partition: 0, timestamp: 3, key: nil, value: []byte("2")},
	}
	read := func() []record {
		got := slices.Clone(wrote)
		got[2].offset = 1
		got[0].headers = slices.Clone(got[0].headers)
		return []record{got[1], got[0], got[2]}
	}
	if err := compare(wrote, read(), everything); err != nil {
		t.Fatalf("the same records: %v", err)
	}
	for _, tc := range []struct {
		name   string
		change func([]record) []record
		want   string
	}{
		{"lost", func(g []record) []record { return g[:2] }, "wrote 3 records, read 2"},
		{"doubled", func(g []record) []record { return append(g, g[0]) }, "wrote 3 records, read 4"},
		{"wrong partition", func(g []record) []record { g[0].partition = 0; g[0].offset = 2; return g }, "partition"},
		{"wrong order", func(g []record) []record { g[1], g[2] = g[2], g[1]; return g }, "offset"},
		{"wrong offset", func(g []record) []record { g[2].offset = 2; return g }, "offset 2"},
		{"wrong time", func(g []record) []record { g[0].timestamp++; return g }, "timestamp 3"},
		{"null for empty", func(g []record) []record { g[0].key = nil; return g }, "key null"},
		{"empty for null", func(g []record) []record { g[0].value = []byte{}; return g }, "value"},
		{"other bytes", func(g []record) []record { g[1].value = []byte("x"); return g }, "value"},
		{"no header", func(g []record) []record { g[1].headers = nil; return g }, "0 headers"},
		{"null header", func(g []record) []record { g[1].headers[0].value = nil; return g }, "header 0"},
	} {
		if err := compare(wrote, tc.change(read()), everything); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got %v, want an error about %q", tc.name, err, tc.want)
		}
	}
}
