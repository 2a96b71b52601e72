//go:build linux || darwin

package dir_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tierlog/tierlog/objstore"
	"github.com/tierlog/tierlog/objstore/dir"
	"github.com/tierlog/tierlog/objstore/objtest"
)

func open(t testing.TB, path string, opts dir.Options) *dir.Store {
	t.Helper()
	s, err := dir.Open(path, opts)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// opened returns a store in a new directory that is closed at the end of the test.
func opened(t testing.TB, opts dir.Options) *dir.Store {
	t.Helper()
	s := open(t, t.TempDir(), opts)
	t.Cleanup(func() { closeStore(t, s) })
	return s
}

func closeStore(t testing.TB, s objstore.Store) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

func must[T any](t testing.TB) func(v T, err error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func TestConformance(t *testing.T) {
	for _, c := range []struct {
		name  string
		opts  dir.Options
		named bool
	}{
		{"sync", dir.Options{}, false},
		{"nosync", dir.Options{NoSync: true}, false},
		{"named", dir.Options{NoSync: true}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			objtest.Conformance(t, func(t *testing.T) objstore.Store {
				s := open(t, filepath.Join(t.TempDir(), "new", "bucket"), c.opts)
				if c.named {
					dir.ForceNamed(t, s)
				}
				return s
			})
		})
	}
}

func TestFilesAreTheObjects(t *testing.T) {
	s := opened(t, dir.Options{})
	body := objstore.Bytes([]byte("exact "), []byte("bytes\n"))
	v := must[objstore.Version](t)(s.Create(t.Context(), "a/b", body))
	got := must[[]byte](t)(os.ReadFile(filepath.Join(s.Path(), "a", "b")))
	if string(got) != "exact bytes\n" {
		t.Errorf("file holds %q", got)
	}
	must[objstore.Version](t)(s.Swap(t.Context(), "a/b", v, objstore.Bytes([]byte("other"))))
	got = must[[]byte](t)(os.ReadFile(filepath.Join(s.Path(), "a", "b")))
	if string(got) != "other" {
		t.Errorf("file holds %q after a swap", got)
	}
}

// TestVersions swaps as fast as it can between bodies of one size: no version may come twice, even with a clock that stands.
func TestVersions(t *testing.T) {
	s := opened(t, dir.Options{NoSync: true})
	v := must[objstore.Version](t)(s.Create(t.Context(), "m", objstore.Bytes([]byte("same"))))
	future := time.Now().Add(24 * time.Hour)
	seen := map[objstore.Version]bool{v: true}
	var last time.Time
	for i := range 500 {
		if i == 250 { // a clock that goes back a day, from here on
			if err := os.Chtimes(filepath.Join(s.Path(), "m"), future, future); err != nil {
				t.Fatal(err)
			}
			v, last = must[objstore.Info](t)(s.Head(t.Context(), "m")).Version, future
		}
		old := v
		v = must[objstore.Version](t)(s.Swap(t.Context(), "m", v, objstore.Bytes([]byte("same"))))
		if seen[v] {
			t.Fatalf("swap %d gave version %q again", i, v)
		}
		seen[v] = true
		modified := must[objstore.Info](t)(s.Head(t.Context(), "m")).Modified
		if !modified.After(last) {
			t.Fatalf("swap %d went back in time, from %v to %v", i, last, modified)
		}
		last = modified
		if _, err := s.Swap(t.Context(), "m", old, objstore.Bytes([]byte("same"))); !errors.Is(err, objstore.ErrChanged) {
			t.Fatalf("swap of a stale version: %v", err)
		}
	}
	if info := must[objstore.Info](t)(s.Head(t.Context(), "m")); info.Version != v {
		t.Errorf("head has %q, last swap gave %q", info.Version, v)
	}
	for _, bad := range []objstore.Version{"", "-", "x-1", "1-x", "01-4", "+1-4", v + "0", "\"etag\""} {
		if _, err := s.Swap(t.Context(), "m", bad, objstore.Bytes(nil)); !errors.Is(err, objstore.ErrChanged) {
			t.Errorf("swap of version %q: %v", bad, err)
		}
	}
}

func TestReadOnly(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "missing")
	if _, err := dir.Open(missing, dir.Options{ReadOnly: true}); !errors.Is(err, objstore.ErrNoBucket) || !strings.Contains(err.Error(), missing) {
		t.Fatalf("open of a missing directory: %v", err)
	}
	if _, err := os.Stat(missing); !errors.Is(err, os.ErrNotExist) {
		t.Error("it was made")
	}
	path := t.TempDir()
	if err := os.WriteFile(filepath.Join(path, "k"), []byte("abc"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := open(t, path, dir.Options{ReadOnly: true})
	defer closeStore(t, s)
	got, info, err := objstore.ReadAll(t.Context(), s, "k", 10)
	if err != nil || string(got) != "abc" {
		t.Errorf("read %q, %v", got, err)
	}
	_, err = s.Create(t.Context(), "l", objtest.Body(""))
	if !errors.Is(err, objstore.ErrDenied) {
		t.Errorf("create: %v", err)
	}
	if _, err = s.Swap(t.Context(), "k", info.Version, objtest.Body("")); !errors.Is(err, objstore.ErrDenied) {
		t.Errorf("swap: %v", err)
	}
	if err := s.Delete(t.Context(), []string{"k"}); !errors.Is(err, objstore.ErrDenied) {
		t.Errorf("delete: %v", err)
	}
	if names := must[[]os.DirEntry](t)(os.ReadDir(path)); len(names) != 1 {
		t.Errorf("reading left %v", names)
	}
}

func TestOpenNotADirectory(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{file, filepath.Join(file, "below")} {
		for _, opts := range []dir.Options{{}, {ReadOnly: true}} {
			if _, err := dir.Open(path, opts); !errors.Is(err, objstore.ErrInvalid) || !strings.Contains(err.Error(), file) {
				t.Errorf("open %s with %+v: %v", path, opts, err)
			}
		}
	}
}

func TestDirectoryRemoved(t *testing.T) {
	s := opened(t, dir.Options{NoSync: true})
	ctx := t.Context()
	v := must[objstore.Version](t)(s.Create(ctx, "a/k", objtest.Body("")))
	if err := os.RemoveAll(s.Path()); err != nil {
		t.Fatal(err)
	}
	check := func(what string, err error) {
		t.Helper()
		if !errors.Is(err, objstore.ErrNoBucket) {
			t.Errorf("%s: %v", what, err)
		}
	}
	_, _, err := s.ReadAt(ctx, "a/k", make([]byte, 1), 0)
	check("read", err)
	_, err = s.Head(ctx, "a/k")
	check("head", err)
	_, err = s.Create(ctx, "b/k", objtest.Body(""))
	check("create", err)
	_, err = s.Swap(ctx, "a/k", v, objtest.Body(""))
	check("swap", err)
	check("delete", s.Delete(ctx, []string{"a/k"}))
	_, err = s.List(ctx, "", "", 0)
	check("list", err)
	_, err = s.List(ctx, "a/", "", 0)
	check("list of a folder", err)
}

// TestFoldersAndKeys: what a directory can not hold at once is refused, and never mistaken for an object.
func TestFoldersAndKeys(t *testing.T) {
	s := opened(t, dir.Options{NoSync: true})
	ctx := t.Context()
	v := must[objstore.Version](t)(s.Create(ctx, "a/b/c", objtest.Body("")))
	for _, key := range []string{"a", "a/b", "a/b/c/d", "a/b/c/d/e"} {
		if _, err := s.Create(ctx, key, objtest.Body("")); !errors.Is(err, objstore.ErrInvalid) {
			t.Errorf("create %q: %v", key, err)
		}
		if _, err := s.Swap(ctx, key, v, objtest.Body("")); !errors.Is(err, objstore.ErrChanged) {
			t.Errorf("swap %q: %v", key, err)
		}
		if _, err := s.Head(ctx, key); !errors.Is(err, objstore.ErrNotFound) {
			t.Errorf("head %q: %v", key, err)
		}
		if _, _, err := s.ReadAt(ctx, key, nil, 0); !errors.Is(err, objstore.ErrNotFound) {
			t.Errorf("read %q: %v", key, err)
		}
		if err := s.Delete(ctx, []string{key}); err != nil {
			t.Errorf("delete %q: %v", key, err)
		}
	}
	if _, err := s.Head(ctx, "a/b/c"); err != nil {
		t.Error(err)
	}
}

func TestDeleteRemovesEmptyFolders(t *testing.T) {
	s := opened(t, dir.Options{NoSync: true})
	ctx := t.Context()
	for _, key := range []string{"a/b/c/1", "a/b/c/2", "a/x"} {
		must[objstore.Version](t)(s.Create(ctx, key, objtest.Body("")))
	}
	if err := s.Delete(ctx, []string{"a/b/c/1", "a/b/c/2"}); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(s.Path(), "a", "b")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the empty folder stays: %v", err)
	}
	must[objstore.Version](t)(s.Create(ctx, "a/b/c/1", objtest.Body(""))) // into a folder that was known and is gone
	if err := s.Delete(ctx, []string{"a/b/c/1", "a/x"}); err != nil {
		t.Fatal(err)
	}
	if names := must[[]os.DirEntry](t)(os.ReadDir(s.Path())); len(names) != 1 || names[0].Name() != objstore.ReservedPart {
		t.Errorf("left are %v", names)
	}
}

// TestFoldersComeAndGo creates and deletes in one folder from several stores at once.
func TestFoldersComeAndGo(t *testing.T) {
	path := t.TempDir()
	var wg sync.WaitGroup
	for i := range 4 {
		s := open(t, path, dir.Options{NoSync: true})
		defer closeStore(t, s)
		wg.Go(func() {
			for j := range 200 {
				key := fmt.Sprintf("some/deep/folder/%d-%d", i, j)
				v, err := s.Create(t.Context(), key, objtest.Body("1"))
				if err == nil {
					_, err = s.Swap(t.Context(), key, v, objtest.Body("2"))
				}
				if err == nil {
					err = s.Delete(t.Context(), []string{key})
				}
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}

func TestAlienFiles(t *testing.T) {
	s := opened(t, dir.Options{NoSync: true})
	ctx := t.Context()
	must[objstore.Version](t)(s.Create(ctx, "f/k", objtest.Body("")))
	if err := unix.Mkfifo(filepath.Join(s.Path(), "f", "pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"bad\xff", "new\nline"} {
		if err := os.WriteFile(filepath.Join(s.Path(), "f", name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("k", filepath.Join(s.Path(), "f", "link")); err != nil {
		t.Fatal(err)
	}
	page := must[objstore.Page](t)(s.List(ctx, "", "", 0))
	var keys []string
	for _, o := range page.Objects {
		keys = append(keys, o.Key)
	}
	if !slices.Equal(keys, []string{"f/k", "f/link"}) {
		t.Errorf("keys are %q", keys)
	}
	if _, _, err := s.ReadAt(ctx, "f/pipe", make([]byte, 1), 0); !errors.Is(err, objstore.ErrNotFound) {
		t.Errorf("read of a pipe: %v", err)
	}
}

// TestListManyInOneFolder needs several passes over a folder.
func TestListManyInOneFolder(t *testing.T) {
	s := opened(t, dir.Options{NoSync: true})
	ctx := t.Context()
	const n = 3000
	for i := range n {
		key := fmt.Sprintf("f/%04d", i)
		if i%3 == 0 {
			key += "/x"
		}
		must[objstore.Version](t)(s.Create(ctx, key, objstore.Bytes()))
	}
	// Folders with nothing in them fill passes without filling pages.
	for i := range n {
		if err := os.Mkdir(filepath.Join(s.Path(), "f", fmt.Sprintf("%04d-", i)), 0o750); err != nil {
			t.Fatal(err)
		}
	}
	for _, limit := range []int{1000, 7} {
		count, after := 0, ""
		for more := true; more && count < n; {
			page := must[objstore.Page](t)(s.List(ctx, "f/", after, limit))
			for _, o := range page.Objects {
				if want := fmt.Sprintf("f/%04d", count); !strings.HasPrefix(o.Key, want) {
					t.Fatalf("object %d is %q", count, o.Key)
				}
				count, after = count+1, o.Key
			}
			more = page.More
			if limit == 7 && count > 100 {
				count = n
			}
		}
		if count != n {
			t.Errorf("limit %d: %d objects", limit, count)
		}
	}
}

func TestPayloadOfAnotherKind(t *testing.T) {
	s := opened(t, dir.Options{})
	data := bytes.Repeat([]byte("0123456789abcdef"), 200_000)
	must[objstore.Version](t)(s.Create(t.Context(), "k", plain{objstore.Bytes(data)}))
	got := must[[]byte](t)(os.ReadFile(filepath.Join(s.Path(), "k")))
	if !bytes.Equal(got, data) {
		t.Error("file differs")
	}
	if _, err := s.Create(t.Context(), "l", liar{objstore.Bytes(data)}); err == nil {
		t.Error("a body that is longer than it says was taken")
	}
}

// plain hides that a payload is made of slices.
type plain struct{ objstore.Payload }

// liar says that it is shorter than it is.
type liar struct{ objstore.Payload }

func (l liar) Size() int64 { return l.Payload.Size() - 1 }
