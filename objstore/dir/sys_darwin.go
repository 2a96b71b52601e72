package dir

import "golang.org/x/sys/unix"

// openUnnamed makes a file without a name; this system has none.
func openUnnamed(int) (int, error) { return -1, unix.ENOTSUP }

// linkUnnamed names a file that openUnnamed made.
func linkUnnamed(int, int, string) error { return unix.ENOTSUP }

// renameNew renames a file to a name that must be free: otherwise EEXIST.
func renameNew(fromFolder int, from string, toFolder int, to string) error {
	return linkAndUnlink(fromFolder, from, toFolder, to)
}

// setModified sets a file's modification time, in ns since 1970.
func setModified(t *temp, ns int64) error {
	ts := unix.NsecToTimespec(ns)
	return unix.UtimesNanoAt(t.folder, t.name, []unix.Timespec{ts, ts}, 0)
}

// syncData returns when a file's bytes and size are on the disk.
func syncData(fd int) error { return syncFD(fd) }

// syncFD returns when a file or folder is on the disk, and not only in the disk's cache, where plain fsync leaves it here.
func syncFD(fd int) error {
	_, err := unix.FcntlInt(uintptr(fd), unix.F_FULLFSYNC, 0)
	return err
}

// syncAll returns when all that any process has written is on its way to the disk.
func syncAll(int) error { return unix.Sync() }

// startWriteback is a hint that this system does not take.
func startWriteback(int, int64, int64) {}
