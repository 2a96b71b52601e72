package server_test

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tierlog/tierlog/objstore"
	"github.com/tierlog/tierlog/objstore/mem"
	"github.com/tierlog/tierlog/objstore/objtest"
)

// TestTranscript writes down every call to the bucket of a broker's life and the next one's, but for the probe, the
// lease and the polls for new metadata, which go on beside everything else.
func TestTranscript(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		polling := func(c objtest.Call) bool {
			return c.Purpose == objstore.PurposeLease || c.Purpose == objstore.PurposeProbe || c.Purpose == objstore.PurposeMeta && c.Op != "create"
		}
		r := objtest.NewRecorder(mem.New(), objtest.RecorderConfig{
			Skip: polling, NoSizes: func(c objtest.Call) bool { return c.Purpose != objstore.PurposeWAL },
		})
		l := newLife(t, r)
		r.Note("start on an empty bucket")
		l.start()
		cl := l.client()
		synctest.Wait()
		r.Note("the first record makes its topic")
		must(t, cl, &kgo.Record{Topic: "t", Value: []byte("one")})
		r.Note("a record")
		must(t, cl, &kgo.Record{Topic: "t", Value: []byte("two")})
		r.Note("another topic")
		must(t, cl, &kgo.Record{Topic: "u", Value: []byte("made")})
		read(t, l)
		r.Note("read from memory: no call")
		read(t, l)
		cl.Close()
		r.Note("orderly stop")
		l.stop()
		r.Note("restart")
		l.start()
		synctest.Wait() // what a start does in the background is over
		read(t, l)
		r.Note("read again: from the cache")
		read(t, l)
		r.Note("ten quiet minutes")
		time.Sleep(10 * time.Minute)
		r.Note("orderly stop")
		l.stop()
		golden(t, "life.txt", ordered(r.Lines()))
	})
}

// ordered sorts the footers that are read side by side.
func ordered(lines []string) string {
	for from := 0; from < len(lines); {
		to := from + 1
		for to < len(lines) && strings.Contains(lines[from], " suffix ") && strings.Contains(lines[to], " suffix ") {
			to++
		}
		slices.Sort(lines[from:to])
		from = to
	}
	return strings.Join(lines, "\n") + "\n"
}

// golden compares with a file of testdata, or writes it if the test runs with -update.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if objtest.Updating() {
		if err := os.WriteFile(path, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs; if that is meant, run the test with -update. got:\n%s\nwant:\n%s", path, got, want)
	}
}

// read reads the two records of the topic t.
func read(t *testing.T, l *life) {
	t.Helper()
	cl := l.client(kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{"t": {0: kgo.NewOffset().AtStart()}}))
	defer cl.Close()
	for n := 2; n > 0; {
		fs := cl.PollFetches(context.Background())
		if err := fs.Err(); err != nil {
			t.Fatal(err)
		}
		n -= fs.NumRecords()
	}
}
