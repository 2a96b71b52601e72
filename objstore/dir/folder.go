//go:build linux || darwin

package dir

import (
	"errors"
	"sync"

	"github.com/hashicorp/golang-lru/v2/simplelru"
	"golang.org/x/sys/unix"
)

// maxFolders is how many folders are kept open.
const maxFolders = 128

// folder is an open folder whose own name, and those of all folders above it, are known to be on the disk.
// While it is open its inode is not reused: a removed one answers ENOENT to everything that would make a name in it.
type folder struct {
	path string // relative to the root
	fd   int
	refs int // users, and one for the cache; guarded by folders.mu
}

// folders keeps the folders that are written to open.
type folders struct {
	store *Store
	mu    sync.Mutex
	open  *simplelru.LRU[string, *folder] // guarded by mu
}

func newFolders(s *Store) *folders {
	c := &folders{store: s}
	// The callback runs inside calls that are made with mu held. The size is a positive constant: no error.
	c.open, _ = simplelru.NewLRU(maxFolders, func(_ string, f *folder) { c.unref(f) })
	return c
}

// get returns the folder, made first if asked to; the caller gives it back with put.
func (c *folders) get(path string, make bool) (*folder, error) {
	c.mu.Lock()
	if f, ok := c.open.Get(path); ok {
		f.refs++
		c.mu.Unlock()
		return f, nil
	}
	c.mu.Unlock()
	fd, err := c.openDurable(path, make)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if f, ok := c.open.Get(path); ok { // somebody was faster
		closeFD(fd)
		f.refs++
		return f, nil
	}
	f := &folder{path: path, fd: fd, refs: 2}
	c.open.Add(path, f)
	return f, nil
}

// openDurable opens a folder and sees to it that its name is on the disk. That it exists says nothing about that:
// its maker may have crashed, or not have come so far yet.
func (c *folders) openDurable(path string, make bool) (int, error) {
	s := c.store
	if path == "." {
		fd, err := openFolder(s.root, ".")
		if err != nil {
			return -1, s.at("open", path, err)
		}
		return fd, nil
	}
	above, name := split(path)
	parent, err := c.get(above, make)
	if err != nil {
		return -1, err
	}
	defer c.put(parent)
	if make {
		err := s.step("mkdir", path, func() error { return unix.Mkdirat(parent.fd, name, folderPerm) })
		if err != nil && !errors.Is(err, unix.EEXIST) {
			if errors.Is(err, unix.ENOENT) {
				c.drop(above)
			}
			return -1, err
		}
	}
	fd, err := openFolder(parent.fd, name)
	if err != nil {
		if errors.Is(err, unix.ENOENT) {
			c.drop(above)
		}
		return -1, s.at("open", path, err)
	}
	if err := s.syncFolder(parent); err != nil {
		closeFD(fd)
		return -1, err
	}
	return fd, nil
}

// put gives a folder back.
func (c *folders) put(f *folder) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.unref(f)
}

// drop forgets a folder that may be removed.
func (c *folders) drop(path string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.open.Remove(path)
}

func (c *folders) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.open.Purge()
}

// unref needs mu.
func (c *folders) unref(f *folder) {
	f.refs--
	if f.refs == 0 {
		closeFD(f.fd)
	}
}

// syncFolder returns when the names in the folder are on the disk. If that fails the store is broken: a second attempt
// would succeed without having written what the first one lost.
func (s *Store) syncFolder(f *folder) error {
	if s.opts.NoSync {
		return nil
	}
	err := s.step("syncfolder", f.path, func() error { return syncFD(f.fd) })
	if err != nil {
		s.broken.CompareAndSwap(nil, &err)
	}
	return err
}
