//go:build linux || darwin

package dir

import (
	"context"
	"errors"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/tierlog/tierlog/objstore"
)

// Delete implements objstore.Store. Folders that become empty are removed; when it returns nil the removals are on the disk.
func (s *Store) Delete(ctx context.Context, keys []string) error {
	for _, key := range keys {
		if err := objstore.CheckedKey("delete", key); err != nil {
			return err
		}
	}
	if len(keys) == 0 {
		return nil
	}
	if err := s.enter(ctx, s.writes, "delete", keys[0]); err != nil {
		return err
	}
	defer leave(s.writes)
	if err := s.writable(); err != nil {
		return s.deleteFailed(keys[0], err)
	}
	keys = slices.Sorted(slices.Values(keys))
	touched := map[string]bool{} // folders that names were removed from
	for i := 0; i < len(keys); {
		folder, _ := split(keys[i])
		j := i + 1
		for ; j < len(keys); j++ {
			if other, _ := split(keys[j]); other != folder {
				break
			}
		}
		if err := s.deleteIn(ctx, folder, keys[i:j], touched); err != nil {
			return err
		}
		i = j
	}
	for folder := range touched {
		if err := s.pruneAndSync(folder); err != nil {
			return s.deleteFailed(keys[0], err)
		}
	}
	return nil
}

// deleteIn removes keys of one folder.
func (s *Store) deleteIn(ctx context.Context, folder string, keys []string, touched map[string]bool) error {
	fd, err := openFolder(s.root, folder)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		if s.rootGone() {
			return fail("delete", keys[0], objstore.ErrNoBucket, s.at("open", "", err))
		}
		return nil
	}
	if err != nil {
		return s.deleteFailed(keys[0], s.at("open", folder, err))
	}
	defer closeFD(fd)
	for _, key := range keys {
		if err := ctx.Err(); err != nil {
			return fail("delete", key, objstore.ErrUnavailable, err)
		}
		_, name := split(key)
		unlock, err := s.session.lock(ctx, key)
		if err != nil {
			return s.deleteFailed(key, err)
		}
		err = s.step("unlink", key, func() error { return unlinkFile(fd, name) })
		unlock()
		switch {
		case errors.Is(err, unix.ENOENT):
		case err != nil:
			return s.deleteFailed(key, err)
		default:
			touched[folder] = true
		}
	}
	return nil
}

// unlinkFile removes a file. A folder is no object, and so a missing one.
func unlinkFile(folder int, name string) error {
	err := unix.Unlinkat(folder, name, 0)
	if err == nil || errors.Is(err, unix.ENOENT) {
		return err
	}
	var st unix.Stat_t
	if unix.Fstatat(folder, name, &st, unix.AT_SYMLINK_NOFOLLOW) == nil && isFolder(&st) {
		return unix.ENOENT
	}
	return err
}

// pruneAndSync removes the folder and those above it as far as they are empty, and syncs the one that is left.
func (s *Store) pruneAndSync(path string) error {
	for path != "." {
		above, name := split(path)
		parent, err := openFolder(s.root, above)
		if errors.Is(err, unix.ENOENT) {
			path = above // removed by another call
			continue
		}
		if err != nil {
			return s.at("open", above, err)
		}
		err = s.step("rmdir", path, func() error { return unix.Unlinkat(parent, name, unix.AT_REMOVEDIR) })
		closeFD(parent)
		if err != nil && !errors.Is(err, unix.ENOENT) {
			break // not empty, most likely; if not, it stays as it is
		}
		s.folders.drop(path)
		path = above
	}
	if s.opts.NoSync {
		return nil
	}
	fd, err := openFolder(s.root, path)
	if errors.Is(err, unix.ENOENT) {
		return nil // removed by another call, which syncs
	}
	if err != nil {
		return s.at("open", path, err)
	}
	defer closeFD(fd)
	return s.syncFolder(&folder{path: path, fd: fd})
}

func (s *Store) deleteFailed(key string, err error) error {
	if s.broken.Load() != nil {
		return fail("delete", key, objstore.ErrUnavailable, err)
	}
	return failed("delete", key, objstore.ErrUnavailable, err)
}
