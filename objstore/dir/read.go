//go:build linux || darwin

package dir

import (
	"context"
	"errors"
	"io/fs"

	"golang.org/x/sys/unix"

	"github.com/tierlog/tierlog/objstore"
)

// ReadAt implements objstore.Store.
func (s *Store) ReadAt(ctx context.Context, key string, p []byte, off int64) (int, objstore.Info, error) {
	if off < 0 {
		return 0, objstore.Info{}, fail("read", key, objstore.ErrInvalid, errors.New("negative offset"))
	}
	return s.read(ctx, key, p, func(int64) int64 { return off })
}

// ReadSuffix implements objstore.Store.
func (s *Store) ReadSuffix(ctx context.Context, key string, p []byte) (int, objstore.Info, error) {
	if len(p) == 0 {
		return 0, objstore.Info{}, fail("read", key, objstore.ErrInvalid, errors.New("empty suffix"))
	}
	return s.read(ctx, key, p, func(size int64) int64 { return max(0, size-int64(len(p))) })
}

// read fills p from the offset that start gives for the file's size. No file is kept open between calls: opening one costs
// little beside a block's read, and an open file would have to be checked for swaps just as often.
func (s *Store) read(ctx context.Context, key string, p []byte, start func(size int64) int64) (int, objstore.Info, error) {
	if err := s.enter(ctx, s.reads, "read", key); err != nil {
		return 0, objstore.Info{}, err
	}
	defer leave(s.reads)
	// O_NONBLOCK: an alien pipe must not block the call.
	fd := -1
	err := s.step("open", key, func() (err error) {
		fd, err = unix.Openat(s.root, key, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
		return err
	})
	if err != nil {
		return 0, objstore.Info{}, s.readFailed("read", key, err)
	}
	defer closeFD(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return 0, objstore.Info{}, s.readFailed("read", key, s.at("stat", key, err))
	}
	if !isFile(&st) {
		return 0, objstore.Info{}, fail("read", key, objstore.ErrNotFound, nil)
	}
	info := infoOf(key, &st)
	off := start(info.Size)
	n := int(min(int64(len(p)), max(0, info.Size-off)))
	if err := s.step("pread", key, func() error { return preadFull(fd, p[:n], off) }); err != nil {
		return 0, objstore.Info{}, s.readFailed("read", key, err)
	}
	return n, info, nil
}

func preadFull(fd int, p []byte, off int64) error {
	for done := 0; done < len(p); {
		n, err := unix.Pread(fd, p[done:], off+int64(done))
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return err
		case n == 0:
			return errors.New("file became shorter: something else writes to it")
		default:
			done += n
		}
	}
	return nil
}

// Head implements objstore.Store.
func (s *Store) Head(ctx context.Context, key string) (objstore.Info, error) {
	if err := s.enter(ctx, s.reads, "head", key); err != nil {
		return objstore.Info{}, err
	}
	defer leave(s.reads)
	var st unix.Stat_t
	err := s.step("stat", key, func() error { return unix.Fstatat(s.root, key, &st, 0) })
	if err != nil {
		return objstore.Info{}, s.readFailed("head", key, err)
	}
	if !isFile(&st) {
		return objstore.Info{}, fail("head", key, objstore.ErrNotFound, nil)
	}
	return infoOf(key, &st), nil
}

// readFailed tells a missing file from a missing directory and from failures.
func (s *Store) readFailed(op, key string, err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist) && s.rootGone():
		return fail(op, key, objstore.ErrNoBucket, s.at(op, "", fs.ErrNotExist))
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENOTDIR):
		return fail(op, key, objstore.ErrNotFound, nil)
	case errors.Is(err, unix.ENAMETOOLONG), errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		return failed(op, key, objstore.ErrUnavailable, err)
	default:
		return fail(op, key, objstore.ErrUnavailable, err)
	}
}

// rootGone reports whether the directory was removed. Its descriptor then still works, but nothing is in it.
func (s *Store) rootGone() bool {
	var open, named unix.Stat_t
	if err := unix.Fstat(s.root, &open); err != nil || open.Nlink == 0 {
		return true
	}
	return errors.Is(unix.Stat(s.path, &named), unix.ENOENT)
}
