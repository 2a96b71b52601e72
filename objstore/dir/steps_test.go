//go:build linux || darwin

package dir_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tierlog/tierlog/objstore"
	"github.com/tierlog/tierlog/objstore/dir"
	"github.com/tierlog/tierlog/objstore/objtest"
)

// trace records the steps of calls.
type trace struct {
	mu    sync.Mutex
	steps []string
	fail  map[string]error // by step
}

func (tr *trace) hook(step, subject string) error {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	if strings.HasPrefix(subject, objstore.ReservedPart) && step != "mkdir" {
		subject = "temp"
	}
	tr.steps = append(tr.steps, step+" "+subject)
	return tr.fail[step]
}

func (tr *trace) take() []string {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	steps := tr.steps
	tr.steps = nil
	return steps
}

func (tr *trace) set(step string, err error) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	tr.fail = map[string]error{step: err}
}

func wantSteps(t *testing.T, what string, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s:\n got %q\nwant %q", what, got, want)
	}
}

// TestStepsInOrder holds writes to the order that survives a loss of power at every point: a file's bytes are synced before
// it has a name, and every new name before the write succeeds.
func TestStepsInOrder(t *testing.T) {
	s := opened(t, dir.Options{})
	ctx := t.Context()
	must[objstore.Version](t)(s.Create(ctx, "first", objtest.Body("")))
	if !dir.Unnamed(s) {
		t.Log("this file system has no unnamed files")
		dir.ForceNamed(t, s)
	}
	tr := &trace{}
	dir.Hook(s, tr.hook)
	file := []string{"write", "settime", "syncfile"}
	steps := func(create, link string, before ...string) []string {
		all := slices.Concat(before, []string{"create " + create})
		for _, f := range file {
			all = append(all, f+" "+create)
		}
		return append(all, link)
	}
	in := func(folder string) string {
		if dir.Unnamed(s) {
			return folder
		}
		return "temp"
	}
	v := must[objstore.Version](t)(s.Create(ctx, "a/b/c", objtest.Body("")))
	wantSteps(t, "create in new folders", tr.take(), append(steps(in("a/b"), "link a/b/c",
		"mkdir a", "syncfolder .", "mkdir a/b", "syncfolder a"), "syncfolder a/b")...)

	must[objstore.Version](t)(s.Create(ctx, "a/b/d", objtest.Body("")))
	wantSteps(t, "create in a known folder", tr.take(), append(steps(in("a/b"), "link a/b/d"), "syncfolder a/b")...)

	_, err := s.Create(ctx, "a/b/d", objtest.Body(""))
	if !errors.Is(err, objstore.ErrExists) {
		t.Fatal(err)
	}
	wantSteps(t, "create of what exists, but is perhaps not durable", tr.take(), "syncfolder a/b")

	old := v
	v = must[objstore.Version](t)(s.Swap(ctx, "a/b/c", v, objtest.Body("")))
	wantSteps(t, "swap", tr.take(), append(steps("temp", "rename a/b/c"), "syncfolder a/b")...)
	if _, err = s.Swap(ctx, "a/b/c", old, objtest.Body("")); !errors.Is(err, objstore.ErrChanged) {
		t.Fatal(err)
	}
	wantSteps(t, "swap of what has changed, but perhaps not durably", tr.take(), "syncfolder a/b")

	other := open(t, s.Path(), dir.Options{})
	defer closeStore(t, other)
	must[objstore.Version](t)(other.Create(ctx, "x", objtest.Body("")))
	dir.Hook(other, tr.hook)
	tr.take()
	must[objstore.Version](t)(other.Swap(ctx, "a/b/c", v, objtest.Body("")))
	wantSteps(t, "swap in folders whose maker is unknown", tr.take(),
		append(steps("temp", "rename a/b/c", "syncfolder .", "syncfolder a"), "syncfolder a/b")...)

	if err := s.Delete(ctx, []string{"a/b/c", "a/b/d"}); err != nil {
		t.Fatal(err)
	}
	wantSteps(t, "delete", tr.take(), "unlink a/b/c", "unlink a/b/d", "rmdir a/b", "rmdir a", "syncfolder .")
}

// TestFailedSteps puts an error in the place of every step and looks at what the call answers and what is there after it.
func TestFailedSteps(t *testing.T) {
	for _, c := range []struct {
		step string
		err  error
		kind error
	}{
		{"mkdir", unix.EACCES, objstore.ErrDenied},
		{"mkdir", unix.ENOSPC, objstore.ErrNoSpace},
		{"create", unix.EROFS, objstore.ErrDenied},
		{"create", unix.EMFILE, objstore.ErrUnknown},
		{"write", unix.ENOSPC, objstore.ErrNoSpace},
		{"write", unix.EDQUOT, objstore.ErrNoSpace},
		{"write", unix.EIO, objstore.ErrUnknown},
		{"settime", unix.EPERM, objstore.ErrDenied},
		{"syncfile", unix.EIO, objstore.ErrUnknown},
		{"syncfile", unix.ENOSPC, objstore.ErrNoSpace},
		{"link", unix.ENOSPC, objstore.ErrNoSpace},
		{"rename", unix.ENOSPC, objstore.ErrNoSpace},
	} {
		t.Run(c.step+"-"+c.err.Error(), func(t *testing.T) { testFailedStep(t, c.step, c.err, c.kind) })
	}
}

func testFailedStep(t *testing.T, step string, cause, kind error) {
	s := opened(t, dir.Options{})
	ctx := t.Context()
	v := must[objstore.Version](t)(s.Create(ctx, "there", objtest.Body("1")))
	tr := &trace{}
	dir.Hook(s, tr.hook)
	tr.set(step, cause)
	write := func() error { _, err := s.Create(ctx, "new/key", objtest.Body("2")); return err }
	if step == "rename" {
		write = func() error { _, err := s.Swap(ctx, "there", v, objtest.Body("2")); return err }
	}
	err := write()
	if !errors.Is(err, kind) || !errors.Is(err, cause) || !strings.Contains(err.Error(), s.Path()) {
		t.Fatalf("error %v, want kind %v, cause %v and the path", err, kind, cause)
	}
	tr.set("", nil)
	if _, err := s.Head(ctx, "new/key"); !errors.Is(err, objstore.ErrNotFound) {
		t.Errorf("a failed create left its object: %v", err)
	}
	if info := must[objstore.Info](t)(s.Head(ctx, "there")); info.Version != v {
		t.Error("a failed swap changed the object")
	}
	if temps := must[[]os.DirEntry](t)(os.ReadDir(filepath.Join(s.Path(), objstore.ReservedPart, "tmp"))); len(temps) > 0 {
		t.Errorf("a failed write left %v", temps)
	}
	if err := write(); err != nil {
		t.Errorf("the same write afterwards: %v", err)
	}
}

// TestFailedFolderSync: what a failed sync lost is reported once by the kernel. Nothing may be acknowledged after it.
func TestFailedFolderSync(t *testing.T) {
	s := opened(t, dir.Options{})
	ctx := t.Context()
	v := must[objstore.Version](t)(s.Create(ctx, "there", objtest.Body("")))
	tr := &trace{}
	dir.Hook(s, tr.hook)
	tr.set("syncfolder", unix.EIO)
	body := objtest.Body("")
	if _, err := s.Create(ctx, "k", body); !errors.Is(err, objstore.ErrUnknown) || !errors.Is(err, unix.EIO) {
		t.Fatalf("create: %v", err)
	}
	tr.set("", nil)
	for what, f := range map[string]func() error{
		"the same create again": func() error { _, err := s.Create(ctx, "k", body); return err },
		"another create":        func() error { _, err := s.Create(ctx, "l", body); return err },
		"a swap":                func() error { _, err := s.Swap(ctx, "there", v, body); return err },
	} {
		if err := f(); !errors.Is(err, objstore.ErrUnknown) || !errors.Is(err, unix.EIO) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if out, _, err := objstore.Put(ctx, s, "l2", body); out != objstore.Unknown || err == nil {
		t.Errorf("put = %v, %v", out, err)
	}
	if _, err := s.Head(ctx, "there"); err != nil {
		t.Errorf("reads go on: %v", err)
	}
}

// TestCreateLosesAtTheLastMoment: another writer's object appears after the bytes were written.
func TestCreateLosesAtTheLastMoment(t *testing.T) {
	s := opened(t, dir.Options{})
	other := open(t, s.Path(), dir.Options{NoSync: true})
	defer closeStore(t, other)
	tr := &trace{}
	dir.Hook(s, func(step, subject string) error {
		if step == "link" {
			must[objstore.Version](t)(other.Create(t.Context(), "f/k", objtest.Body("other")))
			tr.take()
		}
		return tr.hook(step, subject)
	})
	if _, err := s.Create(t.Context(), "f/k", objtest.Body("mine")); !errors.Is(err, objstore.ErrExists) {
		t.Errorf("create: %v", err)
	}
	wantSteps(t, "create that lost", tr.take(), "link f/k", "syncfolder f")
}

// TestSwapAndDelete: when both succeed, the delete came second. The hook lets it try in the moment before the rename.
func TestSwapAndDelete(t *testing.T) {
	path := t.TempDir()
	swapper, deleter := open(t, path, dir.Options{NoSync: true}), open(t, path, dir.Options{NoSync: true})
	defer closeStore(t, swapper)
	defer closeStore(t, deleter)
	both := 0
	for i := range 200 {
		key := fmt.Sprintf("f/%d", i)
		v := must[objstore.Version](t)(swapper.Create(t.Context(), key, objtest.Body("1")))
		deleted := make(chan error, 1)
		dir.Hook(swapper, func(step, _ string) error {
			if step == "rename" {
				go func() { deleted <- deleter.Delete(t.Context(), []string{key}) }()
				for range 200 {
					runtime.Gosched()
				}
			}
			return nil
		})
		_, err := swapper.Swap(t.Context(), key, v, objtest.Body("2"))
		dir.Hook(swapper, nil)
		if derr := <-deleted; derr != nil {
			t.Fatal(derr)
		}
		if err != nil && !errors.Is(err, objstore.ErrChanged) {
			t.Fatal(err)
		}
		if err == nil {
			both++
			if _, err := swapper.Head(t.Context(), key); !errors.Is(err, objstore.ErrNotFound) {
				t.Fatalf("round %d: the object came back after its deletion: %v", i, err)
			}
		}
	}
	if both == 0 {
		t.Error("no swap succeeded")
	}
}
