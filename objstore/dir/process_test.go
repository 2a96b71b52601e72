//go:build linux || darwin

package dir_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/tierlog/tierlog/objstore"
	"github.com/tierlog/tierlog/objstore/dir"
	"github.com/tierlog/tierlog/objstore/objtest"
)

// childEnv names what a process of this test binary does instead of testing.
const childEnv = "TIERLOG_DIR_TEST_CHILD"

func TestMain(m *testing.M) {
	what := os.Getenv(childEnv)
	if what == "" {
		os.Exit(m.Run())
	}
	if err := child(context.Background(), what, os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func child(ctx context.Context, what, path string) error {
	s, err := dir.Open(path, dir.Options{NoSync: true})
	if err != nil {
		return err
	}
	switch what {
	case "count": // increments a number; see TestProcessesSwap
		for range 100 {
			if err := add(ctx, s, "n", 1); err != nil {
				return err
			}
		}
		return s.Close()
	case "create": // reports each object once it is acknowledged, until it is killed
		for i := 0; ; i++ {
			body := strings.Repeat(fmt.Sprintf("%08d", i), 40_000)
			if _, err := s.Create(ctx, fmt.Sprintf("made/%d/%08d", i%3, i), objstore.Bytes([]byte(body))); err != nil {
				return err
			}
			if err := swapped(ctx, s, body); err != nil {
				return err
			}
			fmt.Println(i)
		}
	}
	return fmt.Errorf("unknown child %q", what)
}

// swapped creates or swaps one object.
func swapped(ctx context.Context, s objstore.Store, body string) error {
	info, err := s.Head(ctx, "swapped")
	if errors.Is(err, objstore.ErrNotFound) {
		_, err = s.Create(ctx, "swapped", objstore.Bytes([]byte(body)))
		return err
	}
	if err == nil {
		_, err = s.Swap(ctx, "swapped", info.Version, objstore.Bytes([]byte(body)))
	}
	return err
}

func add(ctx context.Context, s objstore.Store, key string, by int) error {
	for {
		data, info, err := objstore.ReadAll(ctx, s, key, 1<<10)
		if err != nil {
			return err
		}
		var n int
		if _, err := fmt.Sscanf(string(data[33:]), "%d", &n); err != nil {
			return err
		}
		_, err = s.Swap(ctx, key, info.Version, objtest.Body(fmt.Sprint(n+by)))
		if !errors.Is(err, objstore.ErrChanged) {
			return err
		}
	}
}

func start(t *testing.T, what, path string) (*exec.Cmd, io.Reader) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], path)
	cmd.Env = append(os.Environ(), childEnv+"="+what)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd, out
}

// TestProcessesSwap increments one number from several processes: none may be lost.
func TestProcessesSwap(t *testing.T) {
	path := t.TempDir()
	s := open(t, path, dir.Options{NoSync: true})
	defer closeStore(t, s)
	must[objstore.Version](t)(s.Create(t.Context(), "n", objtest.Body("0")))
	var cmds []*exec.Cmd
	for range 3 {
		cmd, _ := start(t, "count", path)
		cmds = append(cmds, cmd)
	}
	for range 100 {
		if err := add(t.Context(), s, "n", 1); err != nil {
			t.Fatal(err)
		}
	}
	for _, cmd := range cmds {
		if err := cmd.Wait(); err != nil {
			t.Fatal(err)
		}
	}
	data, _, err := objstore.ReadAll(t.Context(), s, "n", 1<<10)
	if err != nil || string(data[33:]) != "400" {
		t.Errorf("number is %q, %v; want 400", data[33:], err)
	}
}

// TestKilledProcess kills a process while it writes: what it acknowledged is there, nothing is there in part, and the next
// process removes what it left.
func TestKilledProcess(t *testing.T) {
	path := t.TempDir()
	for round := range 5 {
		cmd, out := start(t, "create", filepath.Join(path, fmt.Sprint(round)))
		lines := bufio.NewScanner(out)
		var last int
		for n := 0; lines.Scan(); n++ {
			if _, err := fmt.Sscan(lines.Text(), &last); err != nil {
				break // cut short by the kill
			}
			if n == 10+round {
				if err := cmd.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
		}
		_ = cmd.Wait() // killed
		checkKilled(t, filepath.Join(path, fmt.Sprint(round)), last)
	}
}

func checkKilled(t *testing.T, path string, last int) {
	t.Helper()
	s := open(t, path, dir.Options{})
	defer closeStore(t, s)
	page := must[objstore.Page](t)(s.List(t.Context(), "made/", "", 0))
	if len(page.Objects) < last+1 || len(page.Objects) > last+2 {
		t.Errorf("%d objects after %d were acknowledged", len(page.Objects), last+1)
	}
	for _, o := range append(page.Objects, must[objstore.Info](t)(s.Head(t.Context(), "swapped"))) {
		data, _, err := objstore.ReadAll(t.Context(), s, o.Key, 1<<20)
		if err != nil || len(data) != 320_000 || string(data) != strings.Repeat(string(data[:8]), 40_000) {
			t.Errorf("%s has %d bytes, or wrong ones: %v", o.Key, len(data), err)
		}
	}
	tr := &trace{}
	dir.Hook(s, tr.hook)
	must[objstore.Version](t)(s.Create(t.Context(), "next", objtest.Body("")))
	if !slices.Contains(tr.take(), "syncall ") {
		t.Error("what the killed process may not have synced was not synced")
	}
	for folder, want := range map[string]int{"tmp": 0, "writers": 1} {
		names := must[[]os.DirEntry](t)(os.ReadDir(filepath.Join(path, objstore.ReservedPart, folder)))
		if len(names) != want {
			t.Errorf("%s holds %v, want %d files", folder, names, want)
		}
	}
}

// TestTemps: those of the dead go, those of the living stay.
func TestTemps(t *testing.T) {
	path := t.TempDir()
	alive := open(t, path, dir.Options{NoSync: true})
	must[objstore.Version](t)(alive.Create(t.Context(), "k", objtest.Body("")))
	own := must[[]os.DirEntry](t)(os.ReadDir(filepath.Join(path, objstore.ReservedPart, "writers")))
	tmp := filepath.Join(path, objstore.ReservedPart, "tmp")
	keep := filepath.Join(tmp, own[0].Name()+"-99")
	for _, name := range []string{keep, filepath.Join(tmp, "0123456789abcdef-1"), filepath.Join(tmp, "alien")} {
		if err := os.WriteFile(name, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	next := func(opts dir.Options) []string {
		s := open(t, path, opts)
		tr := &trace{}
		dir.Hook(s, tr.hook)
		must[objstore.Version](t)(s.Create(t.Context(), fmt.Sprintf("k/%p", s), objtest.Body("")))
		closeStore(t, s)
		names, err := filepath.Glob(filepath.Join(tmp, "*"))
		if err != nil {
			t.Fatal(err)
		}
		if slices.Contains(tr.take(), "syncall ") {
			names = append(names, "synced")
		}
		return names
	}
	_ = os.Remove(filepath.Join(path, "k"))
	wantSteps(t, "beside a living process", next(dir.Options{}), keep)
	closeStore(t, alive)
	wantSteps(t, "after a process without syncs, without syncs", next(dir.Options{NoSync: true}))
	wantSteps(t, "after it, with syncs", next(dir.Options{}), "synced")
	wantSteps(t, "after a process with syncs", next(dir.Options{}))
}
