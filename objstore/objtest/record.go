package objtest

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/tierlog/tierlog/objstore"
)

// The flag is shared by all packages whose tests compare with files in testdata.
func init() {
	if flag.Lookup("update") == nil {
		flag.Bool("update", false, "write what tests got into their testdata files")
	}
}

// Updating reports whether tests run with -update. Tests that use this package must not define that flag themselves.
func Updating() bool {
	f := flag.Lookup("update")
	return f != nil && f.Value.String() == "true"
}

// Recorder is a store that writes down every call, one line each:
//
//	wal create wal/7/00000000000000000003 4096 -> ok
//
// that is purpose, operation, key, bytes, and outcome. ULIDs, UUIDs and other random ids in keys are numbered in the order in
// which they appear, so that two runs give the same lines. It does not close its base.
type Recorder struct {
	base objstore.Store
	cfg  RecorderConfig

	mu    sync.Mutex
	lines []string
	ids   map[string]string // what stands for each random id
}

// RecorderConfig says what a Recorder leaves out. The zero value leaves out nothing.
type RecorderConfig struct {
	// NoSizes leaves out the bytes of the calls for which it returns true.
	NoSizes func(Call) bool
	// Skip leaves out the calls for which it returns true.
	Skip func(Call) bool
	// Names stands for strings in keys, such as a cluster's id: what to show for each.
	Names map[string]string
}

var _ objstore.Store = (*Recorder)(nil)

// NewRecorder decorates a store.
func NewRecorder(base objstore.Store, cfg RecorderConfig) *Recorder {
	return &Recorder{base: base, cfg: cfg, ids: map[string]string{}}
}

// Note adds a line of the test's own, such as the name of the phase that begins.
func (r *Recorder) Note(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lines = append(r.lines, "# "+fmt.Sprintf(format, args...))
}

// Lines returns what was recorded.
func (r *Recorder) Lines() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.lines)
}

// Golden compares what was recorded with testdata/name, or writes that file if the test runs with -update.
func (r *Recorder) Golden(t testing.TB, name string) {
	t.Helper()
	golden(t, filepath.Join("testdata", name), strings.Join(r.Lines(), "\n")+"\n")
}

func golden(t testing.TB, path, got string) {
	t.Helper()
	if Updating() {
		if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v; run the test with -update to write it", err)
	}
	if got == string(want) {
		return
	}
	g, w := strings.Split(got, "\n"), strings.Split(string(want), "\n")
	i := 0
	for i < len(g) && i < len(w) && g[i] == w[i] {
		i++
	}
	t.Errorf("%s differs from line %d on; if that is meant, run the test with -update.\n got:\n%s\nwant:\n%s",
		path, i+1, strings.Join(g[i:min(i+12, len(g))], "\n"), strings.Join(w[i:min(i+12, len(w))], "\n"))
}

// randomIDs match what differs between runs: UUIDs, ULIDs, nonces of 32 hex digits, and UUIDs as Kafka writes them, which
// are whole parts of keys or follow a topic's name and a dot. What else there is, is for RecorderConfig.Names.
var randomIDs = regexp.MustCompile(`[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}` +
	`|\b[0-9A-HJKMNP-TV-Z]{26}\b|\b[0-9a-f]{32}\b|(?:^|[/.])[A-Za-z0-9_-]{22}(?:/|$)`)

// normal replaces random ids. It needs mu.
func (r *Recorder) normal(key string) string {
	for s, name := range r.cfg.Names {
		key = strings.ReplaceAll(key, s, name)
	}
	return randomIDs.ReplaceAllStringFunc(key, func(match string) string {
		id := strings.Trim(match, "/.")
		name, ok := r.ids[id]
		if !ok {
			name = fmt.Sprintf("<id%d>", len(r.ids)+1)
			r.ids[id] = name
		}
		return strings.Replace(match, id, name, 1)
	})
}

func (r *Recorder) add(ctx context.Context, op, key string, size int64, err error) {
	c := Call{Op: op, Key: key, Purpose: objstore.PurposeOf(ctx)}
	if r.cfg.Skip != nil && r.cfg.Skip(c) {
		return
	}
	bytes := fmt.Sprint(size)
	if r.cfg.NoSizes != nil && r.cfg.NoSizes(c) {
		bytes = "-"
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lines = append(r.lines, fmt.Sprintf("%s %s %s %s -> %s", c.Purpose, op, r.normal(key), bytes, outcome(err)))
}

// outcome names an error's kind.
func outcome(err error) string {
	var e *objstore.Error
	switch {
	case err == nil:
		return "ok"
	case errors.As(err, &e):
		return e.Kind.Error()
	default:
		return err.Error()
	}
}

// ReadAt implements objstore.Store. Its bytes are those read.
func (r *Recorder) ReadAt(ctx context.Context, key string, p []byte, off int64) (int, objstore.Info, error) {
	n, info, err := r.base.ReadAt(ctx, key, p, off)
	r.add(ctx, "read", key, int64(n), err)
	return n, info, err
}

// ReadSuffix implements objstore.Store. Its bytes are those read.
func (r *Recorder) ReadSuffix(ctx context.Context, key string, p []byte) (int, objstore.Info, error) {
	n, info, err := r.base.ReadSuffix(ctx, key, p)
	r.add(ctx, "suffix", key, int64(n), err)
	return n, info, err
}

// Head implements objstore.Store.
func (r *Recorder) Head(ctx context.Context, key string) (objstore.Info, error) {
	info, err := r.base.Head(ctx, key)
	r.add(ctx, "head", key, 0, err)
	return info, err
}

// Create implements objstore.Store.
func (r *Recorder) Create(ctx context.Context, key string, body objstore.Payload) (objstore.Version, error) {
	v, err := r.base.Create(ctx, key, body)
	r.add(ctx, "create", key, body.Size(), err)
	return v, err
}

// Swap implements objstore.Store.
func (r *Recorder) Swap(ctx context.Context, key string, old objstore.Version, body objstore.Payload) (objstore.Version, error) {
	v, err := r.base.Swap(ctx, key, old, body)
	r.add(ctx, "swap", key, body.Size(), err)
	return v, err
}

// Delete implements objstore.Store. It is recorded by its first key and the number of keys.
func (r *Recorder) Delete(ctx context.Context, keys []string) error {
	err := r.base.Delete(ctx, keys)
	r.add(ctx, "delete", firstKey(keys), int64(len(keys)), err)
	return err
}

// List implements objstore.Store. It is recorded by its prefix and the number of objects.
func (r *Recorder) List(ctx context.Context, prefix, after string, limit int) (objstore.Page, error) {
	page, err := r.base.List(ctx, prefix, after, limit)
	r.add(ctx, "list", prefix, int64(len(page.Objects)), err)
	return page, err
}

// Close implements objstore.Store.
func (r *Recorder) Close() error { return nil }
