//go:build linux || darwin

package dir

import (
	"cmp"
	"container/heap"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/tierlog/tierlog/objstore"
)

// minScan is the least number of a folder's entries that are kept from one pass over it.
const minScan = 256

// List implements objstore.Store. A folder's entries are read in passes that keep only the smallest ones that may still be
// needed: memory is bounded by the page, not by the folder or the tree.
func (s *Store) List(ctx context.Context, prefix, after string, limit int) (objstore.Page, error) {
	if err := s.enter(ctx, s.reads, "list", prefix); err != nil {
		return objstore.Page{}, err
	}
	defer leave(s.reads)
	base := prefix[:strings.LastIndexByte(prefix, '/')+1]
	if base != "" && objstore.CheckKey(base[:len(base)-1]) != nil {
		return objstore.Page{}, nil // no key starts so
	}
	l := &lister{store: s, prefix: prefix, after: after, want: objstore.ListLimit(limit) + 1}
	err := l.walk(ctx, base)
	if err != nil {
		return objstore.Page{}, s.readFailed("list", prefix, err)
	}
	if base == "" || len(l.found) == 0 {
		if s.rootGone() {
			return objstore.Page{}, fail("list", prefix, objstore.ErrNoBucket, s.at("list", "", fs.ErrNotExist))
		}
	}
	page := objstore.Page{Objects: l.found}
	if len(l.found) == l.want {
		page.Objects, page.More = l.found[:l.want-1], true
	}
	return page, nil
}

// lister collects the first want objects of a List, one more than its page has.
type lister struct {
	store  *Store
	prefix string
	after  string
	want   int
	found  []objstore.Info
}

// entry is a name in a folder. sort is the name as it stands in keys: a folder's with its slash, which decides the order.
type entry struct {
	sort   string
	folder bool
}

// walk collects from a folder; path is "" or ends with a slash.
func (l *lister) walk(ctx context.Context, path string) error {
	fd, err := openFolder(l.store.root, cmp.Or(path, "."))
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		return nil
	}
	if err != nil {
		return l.store.at("open", path, err)
	}
	f := os.NewFile(uintptr(fd), path)
	defer func() { _ = f.Close() }()
	last := ""
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		entries, all, err := l.smallest(f, path, last)
		if err != nil {
			return l.store.at("read", path, err)
		}
		for _, e := range entries {
			if err := l.visit(ctx, fd, path, e); err != nil || len(l.found) == l.want {
				return err
			}
			last = e.sort
		}
		if all {
			return nil
		}
		if _, err := f.Seek(0, io.SeekStart); err != nil {
			return l.store.at("read", path, err)
		}
	}
}

// visit adds one file, or what is in one folder.
func (l *lister) visit(ctx context.Context, fd int, path string, e entry) error {
	key := path + e.sort
	if e.folder {
		return l.walk(ctx, key)
	}
	var st unix.Stat_t
	err := l.store.step("stat", key, func() error { return unix.Fstatat(fd, e.sort, &st, 0) })
	switch {
	case errors.Is(err, unix.ENOENT), err == nil && !isFile(&st):
		return nil // deleted meanwhile, or nothing of ours
	case err != nil:
		return err
	}
	l.found = append(l.found, infoOf(key, &st))
	return nil
}

// smallest returns in order the first entries of a folder that can hold what is asked for and come after last, and
// whether these are all.
func (l *lister) smallest(f *os.File, path, last string) (entries []entry, all bool, err error) {
	keep := max(l.want-len(l.found), minScan)
	all = true
	var h entryHeap
	for {
		batch, err := f.ReadDir(512)
		for _, d := range batch {
			e, ok := l.entryOf(f, path, d)
			if !ok || e.sort <= last {
				continue
			}
			if len(h) < keep {
				heap.Push(&h, e)
				continue
			}
			all = false
			if e.sort < h[0].sort {
				h[0] = e
				heap.Fix(&h, 0)
			}
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, false, err
		}
	}
	slices.SortFunc(h, func(a, b entry) int { return strings.Compare(a.sort, b.sort) })
	return h, all, nil
}

// entryOf reports whether a directory entry can be, or hold, an object that is asked for.
func (l *lister) entryOf(f *os.File, path string, d fs.DirEntry) (entry, bool) {
	name := d.Name()
	if path == "" && (name == home || name == "lost+found") {
		return entry{}, false
	}
	e := entry{sort: name, folder: d.IsDir()}
	if d.Type()&fs.ModeSymlink != 0 {
		var st unix.Stat_t
		e.folder = unix.Fstatat(int(f.Fd()), name, &st, 0) == nil && isFolder(&st)
	}
	if e.folder {
		e.sort += "/"
	}
	key := path + e.sort
	switch {
	case !strings.HasPrefix(key, l.prefix) && (!e.folder || !strings.HasPrefix(l.prefix, key)):
		return entry{}, false
	case key <= l.after && (!e.folder || !strings.HasPrefix(l.after, key)):
		return entry{}, false
	case objstore.CheckKey(path+name) != nil:
		return entry{}, false // no key has this name
	}
	return e, true
}

// entryHeap has the greatest entry on top.
type entryHeap []entry

func (h entryHeap) Len() int           { return len(h) }
func (h entryHeap) Less(i, j int) bool { return h[i].sort > h[j].sort }
func (h entryHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }

// Push implements heap.Interface.
func (h *entryHeap) Push(x any) { *h = append(*h, x.(entry)) }

// Pop implements heap.Interface.
func (h *entryHeap) Pop() any {
	old := *h
	x := old[len(old)-1]
	*h = old[:len(old)-1]
	return x
}
