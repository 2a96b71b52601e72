//go:build linux || darwin

package dir

import (
	"errors"

	"golang.org/x/sys/unix"
)

// Permissions of what the store makes, before the process's umask.
const (
	filePerm   = 0o644
	folderPerm = 0o755
)

// linkAndUnlink renames a file to a name that must be free. Between its two steps the file has both names.
func linkAndUnlink(fromFolder int, from string, toFolder int, to string) error {
	if err := unix.Linkat(fromFolder, from, toFolder, to, 0); err != nil {
		return err
	}
	_ = unix.Unlinkat(fromFolder, from, 0) // what stays is removed with the session's other files
	return nil
}

func openFolder(at int, path string) (fd int, err error) {
	err = retry(func() error {
		fd, err = unix.Openat(at, path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		return err
	})
	return fd, err
}

// closeFD ignores the error: all that had to be on the disk was synced before.
func closeFD(fd int) { _ = unix.Close(fd) }

// retry repeats a system call that a signal interrupted.
func retry(f func() error) error {
	for {
		if err := f(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

func isFile(st *unix.Stat_t) bool   { return st.Mode&unix.S_IFMT == unix.S_IFREG }
func isFolder(st *unix.Stat_t) bool { return st.Mode&unix.S_IFMT == unix.S_IFDIR }
