//go:build linux || darwin

package dir

import (
	"errors"
	"fmt"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// temp is a file that is being written and has no key yet.
type temp struct {
	fd      int
	folder  int    // descriptor of the folder it has its name in
	name    string // empty: none, or it has become an object's
	subject string // for errors
}

// newTemp makes a file that is to become an object in f.
func (s *Store) newTemp(f *folder) (t *temp, err error) {
	if !s.session.unnamed {
		return s.newNamedTemp()
	}
	err = s.step("create", f.path, func() error {
		t, err = s.session.newUnnamed(f.fd)
		return err
	})
	if err != nil {
		var st unix.Stat_t
		if errors.Is(err, unix.ENOENT) || unix.Fstat(f.fd, &st) == nil && st.Nlink == 0 { // ext4 says EPERM
			return nil, errFolderGone
		}
		return nil, err
	}
	t.subject = f.path
	return t, nil
}

// newNamedTemp makes a file that is to replace an object: that takes a name.
func (s *Store) newNamedTemp() (t *temp, err error) {
	err = s.step("create", filepath.Join(home, tmpFolder), func() error {
		t, err = s.session.newNamed()
		return err
	})
	if errors.Is(err, unix.ENOENT) {
		// Not wrapped: it must not be taken for the object's absence.
		return nil, fmt.Errorf("folder %s was removed while in use: %v", home, err) //nolint:errorlint // see above
	}
	return t, err
}

func (n *session) tempName() string { return n.id + "-" + strconv.FormatUint(n.nextTmp.Add(1), 10) }

func (n *session) newUnnamed(folder int) (*temp, error) {
	fd, err := openUnnamed(folder)
	if err != nil {
		return nil, err
	}
	return &temp{fd: fd}, nil
}

func (n *session) newNamed() (*temp, error) {
	name := n.tempName()
	fd, err := unix.Openat(n.tmp, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC, filePerm)
	if err != nil {
		return nil, err
	}
	return &temp{fd: fd, folder: n.tmp, name: name, subject: filepath.Join(home, tmpFolder, name)}, nil
}

// link makes the file an object, if the name is free.
func (t *temp) link(folder int, name string) error {
	if t.name == "" {
		return linkUnnamed(t.fd, folder, name)
	}
	err := renameNew(t.folder, t.name, folder, name)
	if err == nil {
		t.name = ""
	}
	return err
}

// renameOver makes the file an object in the place of another.
func (t *temp) renameOver(folder int, name string) error {
	err := unix.Renameat(t.folder, t.name, folder, name)
	if err == nil {
		t.name = ""
	}
	return err
}

// discard closes the file, and removes it unless it has become an object.
func (t *temp) discard() {
	closeFD(t.fd)
	if t.name != "" {
		_ = unix.Unlinkat(t.folder, t.name, 0)
	}
}
