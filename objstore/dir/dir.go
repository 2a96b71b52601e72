//go:build linux || darwin

// Package dir keeps a bucket in a directory: key "a/b/c" is the file a/b/c, byte for byte.
//
// Invariants:
//
//   - A file that has a key's name is complete and never written to again. A create links a finished file to a name that
//     is free, a swap renames a finished file over the name; so a reader that has opened a file sees one state.
//   - Bytes are on the disk before the file gets its name, and the name, with every folder made for it, is on the disk
//     before a write succeeds. With Options.NoSync neither holds: it survives the process, not a loss of power.
//   - A version is the file's modification time, which the store sets itself, with its size. Every swap makes it greater than
//     the one it replaces, whatever the clock says; so no two states of a key share a version.
//   - Swap and Delete of a key exclude each other by a lock that holds between processes.
//   - After an fsync of a folder has failed, nothing more is written: the kernel reports such a loss only once.
//   - The store's own files are all in the folder ".tierlog" of the root, which no key can name.
//
// Several processes may use one directory at a time. It must be one file system, with nanosecond timestamps.
package dir

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tierlog/tierlog/objstore"
)

// Options of a directory store. The zero value is the safe one.
type Options struct {
	// NoSync leaves writing back to the kernel: an acknowledged object may be lost, or be cut short, with the power.
	NoSync bool
	// ReadOnly refuses writes and never makes the directory: a missing one is objstore.ErrNoBucket.
	ReadOnly bool
}

// Bounds on calls in progress. Each holds up to two files open and, while it waits for the disk, a thread.
const (
	maxReads  = 64
	maxWrites = 64
)

// Store is a directory used as a bucket.
type Store struct {
	path string
	opts Options
	root int // descriptor of the directory

	reads, writes chan struct{} // one token for each call in progress
	folders       *folders
	session       *session
	lastStamp     atomic.Int64 // the last modification time given to a file, in ns
	broken        atomic.Pointer[error]

	// hook is called before each step that touches the disk, with its name and subject; an error takes the step's
	// place. Only tests set it.
	hook func(step, subject string) error
}

var _ objstore.Store = (*Store)(nil)

// Open opens the directory, and makes it unless told to only read.
func Open(path string, opts Options) (*Store, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("open directory store %q: %w", path, err)
	}
	s := &Store{
		path: abs, opts: opts,
		reads: make(chan struct{}, maxReads), writes: make(chan struct{}, maxWrites),
	}
	if !opts.ReadOnly {
		if err := s.makeRoot(); err != nil {
			return nil, failed("open", "", objstore.ErrUnavailable, err)
		}
	}
	s.root, err = openFolder(unix.AT_FDCWD, abs)
	if err != nil {
		kind := objstore.ErrUnavailable
		if errors.Is(err, fs.ErrNotExist) {
			kind = objstore.ErrNoBucket
		}
		return nil, failed("open", "", kind, s.at("open", "", err))
	}
	s.folders = newFolders(s)
	s.session = &session{store: s}
	return s, nil
}

// makeRoot makes the directory and those above it, durably.
func (s *Store) makeRoot() error {
	if st, err := os.Stat(s.path); err == nil && st.IsDir() {
		return nil
	}
	var made []string
	for p := s.path; ; p = filepath.Dir(p) {
		if _, err := os.Stat(p); err == nil || p == filepath.Dir(p) {
			break
		}
		made = append(made, filepath.Dir(p))
	}
	if err := os.MkdirAll(s.path, 0o755); err != nil {
		return err
	}
	for _, p := range made {
		if err := s.syncPath(p); err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) syncPath(p string) error {
	if s.opts.NoSync {
		return nil
	}
	fd, err := openFolder(unix.AT_FDCWD, p)
	if err != nil {
		return &fs.PathError{Op: "open", Path: p, Err: err}
	}
	defer closeFD(fd)
	if err := retry(func() error { return syncFD(fd) }); err != nil {
		return &fs.PathError{Op: "sync", Path: p, Err: err}
	}
	return nil
}

// Close implements objstore.Store.
func (s *Store) Close() error {
	err := s.session.end()
	s.folders.close()
	closeFD(s.root)
	return err
}

// Path returns the directory.
func (s *Store) Path() string { return s.path }

// enter checks a call's key and context and takes a token; the caller returns it with leave.
func (s *Store) enter(ctx context.Context, tokens chan struct{}, op, key string) error {
	if op != "list" && op != "delete" {
		if err := objstore.CheckedKey(op, key); err != nil {
			return err
		}
	}
	kind := objstore.ErrUnavailable
	if op == "create" || op == "swap" {
		kind = objstore.ErrUnknown
	}
	if err := ctx.Err(); err != nil {
		return fail(op, key, kind, err)
	}
	select {
	case tokens <- struct{}{}:
	default:
		select {
		case tokens <- struct{}{}:
		case <-ctx.Done():
			return fail(op, key, kind, ctx.Err())
		}
	}
	return nil
}

func leave(tokens chan struct{}) { <-tokens }

// step runs one step that touches the disk.
func (s *Store) step(name, subject string, f func() error) error {
	if s.hook != nil {
		if err := s.hook(name, subject); err != nil {
			return s.at(name, subject, err)
		}
	}
	if err := retry(f); err != nil {
		return s.at(name, subject, err)
	}
	return nil
}

// at names the path that an error is about; rel is relative to the root.
func (s *Store) at(op, rel string, err error) error {
	return &fs.PathError{Op: op, Path: filepath.Join(s.path, rel), Err: err}
}

// fail makes an *objstore.Error of the given kind.
func fail(op, key string, kind, err error) error {
	return &objstore.Error{Op: op, Key: key, Kind: kind, Err: err}
}

// failed is like fail, but where the system's error says what is wrong, that decides the kind. After a step
// whose failure leaves open what was done, use fail with ErrUnknown.
func failed(op, key string, otherwise, err error) error {
	for _, m := range []struct {
		errno unix.Errno
		kind  error
	}{
		{unix.EACCES, objstore.ErrDenied},
		{unix.EPERM, objstore.ErrDenied},
		{unix.EROFS, objstore.ErrDenied},
		{unix.ENOSPC, objstore.ErrNoSpace},
		{unix.EDQUOT, objstore.ErrNoSpace},
		{unix.ENAMETOOLONG, objstore.ErrInvalid},
		{unix.ENOTDIR, objstore.ErrInvalid},
		{unix.EISDIR, objstore.ErrInvalid},
		{unix.EXDEV, objstore.ErrInvalid},
	} {
		if errors.Is(err, m.errno) {
			return fail(op, key, m.kind, err)
		}
	}
	return fail(op, key, otherwise, err)
}

// nextStamp returns a modification time for a new file: now, but later than any that this store gave before, and
// at least the given one.
func (s *Store) nextStamp(least int64) int64 {
	for {
		last := s.lastStamp.Load()
		next := max(time.Now().UnixNano(), last+1, least)
		if s.lastStamp.CompareAndSwap(last, next) {
			return next
		}
	}
}
