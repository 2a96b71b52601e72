// Package docs keeps the documentation true: tables and examples that the code can give are compared with it, every
// metric that is registered is described, and every link leads somewhere.
//
// go test ./docs -update writes the generated parts anew.
package docs

import (
	"bytes"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tierlog/tierlog/broker"
	"github.com/tierlog/tierlog/record"
	"github.com/tierlog/tierlog/tiered/logid"
	"github.com/tierlog/tierlog/tiered/wal"
	"github.com/tierlog/tierlog/topicconf"
)

var update = flag.Bool("update", false, "write the generated parts of the documentation")

// generated lists the parts that the code gives: between "<!-- generated: NAME -->" and "<!-- end -->" of a file.
var generated = []struct {
	file, name string
	text       func(t *testing.T) string
}{
	{"CONFIG.md", "broker settings", brokerSettings},
	{"CONFIG.md", "topic configs", topicConfigs},
	{"CONFIG.md", "fixed topic configs", fixedTopicConfigs},
	{"COMPATIBILITY.md", "versions", versions},
	{"format/wal.md", "example", walExample},
}

func TestGeneratedPartsAreCurrent(t *testing.T) {
	for _, g := range generated {
		t.Run(g.name, func(t *testing.T) {
			text := read(t, g.file)
			start := "<!-- generated: " + g.name + " -->\n"
			before, rest, ok := strings.Cut(text, start)
			have, after, ok2 := strings.Cut(rest, "<!-- end -->")
			if !ok || !ok2 {
				t.Fatalf("%s has no part %q", g.file, g.name)
			}
			want := g.text(t)
			if have == want {
				return
			}
			if !*update {
				t.Fatalf("%s: part %q is not what the code says; run go test ./docs -update\n--- is\n%s\n--- want\n%s", g.file, g.name, have, want)
			}
			if err := os.WriteFile(g.file, []byte(before+start+want+"<!-- end -->"+after), 0o600); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func read(t *testing.T, file string) string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func cell(s string) string { return strings.ReplaceAll(s, "|", `\|`) }

func code(s string) string {
	if s == "" {
		return "empty"
	}
	return "`" + s + "`"
}

func defaultOf(d *topicconf.Def) string {
	if d.Null {
		return "none"
	}
	return code(d.Default)
}

func brokerSettings(*testing.T) string {
	var b strings.Builder
	b.WriteString("| setting | type | default | allowed | meaning |\n|---|---|---|---|---|\n")
	for _, d := range topicconf.BrokerDefs() {
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s |\n", d.Name, strings.ToLower(d.Type.String()), defaultOf(&d), cell(d.Valid), cell(d.Doc))
	}
	return b.String()
}

// fixed tells whether only the default is accepted, and why.
func fixed(t *testing.T, d *topicconf.Def) (why string, ok bool) {
	t.Helper()
	if d.Valid != d.Default && d.Valid != "empty" {
		return "", false
	}
	other := map[topicconf.Type]string{
		topicconf.Boolean: map[string]string{"true": "false", "false": "true"}[d.Default],
		topicconf.String:  "gzip", topicconf.Int: "5", topicconf.Long: "5", topicconf.Double: "0.7", topicconf.List: "0:1",
	}[d.Type]
	conf, err := topicconf.NewBroker(nil)
	if err != nil {
		t.Fatal(err)
	}
	bad := (*topicconf.InvalidError)(nil)
	if err := conf.Check(map[string]string{d.Name: other}); !errors.As(err, &bad) {
		t.Fatalf("%s: another value than the default was not refused: %v", d.Name, err)
	}
	return bad.Reason, true
}

func topicConfigs(t *testing.T) string {
	var b strings.Builder
	b.WriteString("| config | type | default | allowed | meaning | default from |\n|---|---|---|---|---|---|\n")
	for _, d := range topicconf.TopicDefs() {
		if _, ok := fixed(t, &d); ok {
			continue
		}
		var from []string
		for _, s := range d.Synonyms {
			from = append(from, "`"+s.Name+"`")
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s | %s |\n", d.Name, strings.ToLower(d.Type.String()), defaultOf(&d), cell(d.Valid), cell(d.Doc), strings.Join(from, ", "))
	}
	return b.String()
}

func fixedTopicConfigs(t *testing.T) string {
	var b strings.Builder
	b.WriteString("| config | only value | why |\n|---|---|---|\n")
	for _, d := range topicconf.TopicDefs() {
		if why, ok := fixed(t, &d); ok {
			fmt.Fprintf(&b, "| `%s` | %s | %s |\n", d.Name, defaultOf(&d), cell(strings.TrimSuffix(why, "; only the default is accepted")))
		}
	}
	return b.String()
}

func versions(*testing.T) string {
	var b strings.Builder
	b.WriteString("| key | API | versions |\n|---|---|---|\n")
	vs := broker.New(broker.Config{}).Versions()
	keys := make([]int16, 0, len(vs))
	for k := range vs {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	for _, k := range keys {
		fmt.Fprintf(&b, "| %d | %s | %d-%d |\n", k, kmsg.NameForKey(k), vs[k].Min, vs[k].Max)
	}
	return b.String()
}

// exampleBatch is a batch of two records whose payload is the given text.
func exampleBatch(offset int64, epoch int32, producer int64, payload string) record.Batch {
	be := binary.BigEndian
	b := make([]byte, record.HeaderSize, record.HeaderSize+len(payload))
	b = append(b, payload...)
	be.PutUint64(b, uint64(offset))
	be.PutUint32(b[8:], uint32(len(b)-12))
	be.PutUint32(b[12:], uint32(epoch))
	b[16] = 2
	be.PutUint32(b[23:], 1) // last offset delta
	be.PutUint64(b[27:], 1767225600000)
	be.PutUint64(b[35:], uint64(1767225600000+offset))
	be.PutUint64(b[43:], uint64(producer))
	sequence := uint32(10)
	if producer < 0 {
		sequence = 0xffffffff
		be.PutUint16(b[51:], 0xffff)
	}
	be.PutUint32(b[53:], sequence)
	be.PutUint32(b[57:], 2)
	be.PutUint32(b[17:], crc32.Checksum(b[21:], record.Castagnoli))
	return b
}

// walExample is a listing of an object of two sections.
func walExample(t *testing.T) string {
	cluster := [16]byte{0x10, 0x22, 0x33, 0x44, 0x55, 0x66, 0x47, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff, 0x01}
	orders := logid.TopicID{0xa0, 1, 2, 3, 4, 5, 0x46, 7, 0x88, 9, 10, 11, 12, 13, 14, 15}
	clicks := logid.TopicID{0xb0, 1, 2, 3, 4, 5, 0x46, 7, 0x88, 9, 10, 11, 12, 13, 14, 15}
	bld := wal.NewBuilder(wal.Header{Kind: wal.Data, Cluster: cluster, Epoch: 42, Slot: 7, Through: 7, Nonce: 0xee00000000000001})
	bld.Section(orders, 3, 5)
	bld.Batch(exampleBatch(300, 5, -1, "two records"))
	bld.Batch(exampleBatch(302, 5, 4000, "two more records"))
	bld.Section(clicks, 0, 0)
	bld.Batch(exampleBatch(0, 0, -1, "clicks"))
	whole := bytes.Join(bld.Finish().Parts, nil)
	f, _, err := wal.ParseTail(whole, int64(len(whole)))
	if err != nil {
		t.Fatal(err)
	}
	for i := range f.Sections {
		s := &f.Sections[i]
		if err := wal.VerifySection(s, whole[s.Pos:s.Pos+s.Len]); err != nil {
			t.Fatal(err)
		}
	}
	l := listing{data: whole}
	l.b.WriteString("```\n")
	l.header("")
	l.skip(f.Sections[0].Len, "72 + 77 bytes: the batches of the first section, as Kafka has them")
	l.skip(f.Sections[1].Len, "67 bytes: the batch of the second section")
	l.header(" again: the footer begins")
	l.line(1, "2 sections")
	l.line(1, "kind 0: records")
	l.line(16, "topic id")
	l.line(1, "partition 3")
	l.line(1, "leader epoch 5")
	l.line(1, "position 64")
	l.line(2, "length 149")
	l.line(4, "CRC-32C of these bytes")
	l.line(1, "2 batches")
	l.line(1, "flags: none")
	l.line(2, "base offset 300")
	l.line(1, "last offset 1 more")
	l.line(1, "72 bytes")
	l.line(6, "max timestamp 1767225600300 (from 0)")
	l.line(1, "flags: producer fields follow")
	l.line(1, "base offset 302: directly after 301")
	l.line(1, "last offset 1 more")
	l.line(1, "77 bytes")
	l.line(1, "max timestamp 2 ms later")
	l.line(2, "producer id 4000: 4001 more than -1")
	l.line(1, "producer epoch 0")
	l.line(1, "base sequence 10, plus 1")
	l.line(1, "kind 0: records")
	l.line(16, "topic id")
	l.line(1, "partition 0")
	l.line(1, "leader epoch 0")
	l.line(2, "position 213")
	l.line(1, "length 67")
	l.line(4, "CRC-32C of these bytes")
	l.line(1, "1 batch")
	l.line(1, "flags: none")
	l.line(1, "base offset 0")
	l.line(1, "last offset 1 more")
	l.line(1, "67 bytes")
	l.line(6, "max timestamp 1767225600000")
	l.line(8, "trailer: position of the footer")
	l.line(4, "length of the footer")
	l.line(4, "CRC-32C of the footer")
	l.line(8, "size of the object")
	l.line(8, "TIERFOOT")
	l.b.WriteString("```\n")
	if l.at != len(whole) {
		t.Fatalf("the listing ends at %d of %d bytes", l.at, len(whole))
	}
	return l.b.String()
}

// listing renders bytes with what they mean.
type listing struct {
	data []byte
	at   int
	b    strings.Builder
}

func (l *listing) line(n int, text string) {
	for n > 0 {
		k := min(n, 8)
		fmt.Fprintf(&l.b, "%4d  %-23s  %s\n", l.at, strings.TrimSpace(fmt.Sprintf("% x", l.data[l.at:l.at+k])), text)
		l.at, n, text = l.at+k, n-k, "…"
	}
}

func (l *listing) skip(n int64, text string) {
	fmt.Fprintf(&l.b, "%4d  %-23s  %s\n", l.at, "…", text)
	l.at += int(n)
}

func (l *listing) header(suffix string) {
	l.line(8, "TIERWAL and a zero"+suffix)
	l.line(4, "kind 1, version 1, zero")
	l.line(16, "cluster id")
	l.line(8, "broker epoch 42")
	l.line(8, "slot 7")
	l.line(8, "through slot 7")
	l.line(8, "nonce")
	l.line(4, "CRC-32C of the 60 bytes before")
}

var (
	registered = regexp.MustCompile(`"(tierlog_[a-z_]+)"`)
	described  = regexp.MustCompile(`tierlog_[a-z_]+`)
)

func TestEveryMetricIsDescribed(t *testing.T) {
	names := map[string]bool{}
	for _, file := range []string{"../server/metrics.go", "../tiered/metrics.go"} {
		for _, m := range registered.FindAllStringSubmatch(read(t, file), -1) {
			if m[1] == "tierlog_cache_" { // made of parts
				for _, part := range []string{"hits", "misses", "evictions"} {
					names["tierlog_cache_"+part+"_total"] = true
				}
				continue
			}
			names[m[1]] = true
		}
	}
	if len(names) < 20 {
		t.Fatalf("only %d metrics found in the code: %v", len(names), names)
	}
	seen := map[string]bool{}
	for _, name := range described.FindAllString(read(t, "METRICS.md"), -1) {
		name = regexp.MustCompile(`_(bucket|sum|count)$`).ReplaceAllString(name, "")
		seen[name] = true
		if !names[name] {
			t.Errorf("METRICS.md describes %s, which is not registered", name)
		}
	}
	for name := range names {
		if !seen[name] {
			t.Errorf("METRICS.md does not describe %s", name)
		}
	}
}

var (
	link    = regexp.MustCompile(`\]\(([^)#:]+)(#[^)]*)?\)`)
	testRef = regexp.MustCompile("`(Test[A-Za-z0-9]+)`")
)

// TestLinksLeadSomewhere follows every relative link, and looks for every test that is named.
func TestLinksLeadSomewhere(t *testing.T) {
	files := []string{"../README.md", "../CHANGELOG.md"}
	tests := map[string]bool{}
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && strings.HasPrefix(d.Name(), ".") && d.Name() != "..":
			return fs.SkipDir
		case strings.HasPrefix(path, "../docs/") && strings.HasSuffix(path, ".md"):
			files = append(files, path)
		case strings.HasSuffix(path, "_test.go"):
			for _, m := range regexp.MustCompile(`(?m)^func (Test\w+)\(`).FindAllStringSubmatch(read(t, path), -1) {
				tests[m[1]] = true
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		text := read(t, file)
		for _, m := range link.FindAllStringSubmatch(text, -1) {
			if _, err := os.Stat(filepath.Join(filepath.Dir(file), m[1])); err != nil {
				t.Errorf("%s links to %s: %v", file, m[1], err)
			}
		}
		for _, m := range testRef.FindAllStringSubmatch(text, -1) {
			if !tests[m[1]] {
				t.Errorf("%s names %s, which is not a test", file, m[1])
			}
		}
	}
}
