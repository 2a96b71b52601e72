package dir

import (
	"errors"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

// openUnnamed makes a file in the folder that has no name yet and vanishes if it never gets one.
func openUnnamed(folder int) (int, error) {
	return unix.Openat(folder, ".", unix.O_TMPFILE|unix.O_WRONLY|unix.O_CLOEXEC, filePerm)
}

// linkUnnamed names a file that openUnnamed made. The name must be free: otherwise EEXIST.
func linkUnnamed(fd, folder int, name string) error {
	// The way without /proc needs a capability on kernels before 6.10.
	return unix.Linkat(unix.AT_FDCWD, "/proc/self/fd/"+strconv.Itoa(fd), folder, name, unix.AT_SYMLINK_FOLLOW)
}

// renameNew renames a file to a name that must be free: otherwise EEXIST.
func renameNew(fromFolder int, from string, toFolder int, to string) error {
	err := unix.Renameat2(fromFolder, from, toFolder, to, unix.RENAME_NOREPLACE)
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EINVAL) { // a file system that can not do it
		return linkAndUnlink(fromFolder, from, toFolder, to)
	}
	return err
}

// setModified sets a file's modification time, in ns since 1970.
func setModified(t *temp, ns int64) error {
	times := [2]unix.Timespec{{Nsec: unix.UTIME_OMIT}, unix.NsecToTimespec(ns)}
	// The C library's futimens: utimensat without a path.
	_, _, errno := unix.Syscall6(unix.SYS_UTIMENSAT, uintptr(t.fd), 0, uintptr(unsafe.Pointer(&times[0])), 0, 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// syncData returns when a file's bytes and size are on the disk.
func syncData(fd int) error { return unix.Fdatasync(fd) }

// syncFD returns when a file or folder is on the disk, with all that is known about it.
func syncFD(fd int) error { return unix.Fsync(fd) }

// syncAll returns when all that any process has written to the file system is on the disk.
func syncAll(fd int) error { return unix.Syncfs(fd) }

// startWriteback makes the kernel begin to write a range to the disk, and does not wait.
func startWriteback(fd int, off, length int64) {
	// Only a hint: what it can not do, syncData does.
	_ = unix.SyncFileRange(fd, off, length, unix.SYNC_FILE_RANGE_WRITE)
}
