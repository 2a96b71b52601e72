//go:build linux || darwin

package dir

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tierlog/tierlog/objstore"
)

// The store's own files. Every process that writes has a file in writersFolder, locked for as long as it lives: so
// others know what of tmpFolder is garbage, and whether somebody died between naming a file and syncing its folder.
const (
	home          = objstore.ReservedPart
	tmpFolder     = "tmp"
	locksFolder   = "locks"
	writersFolder = "writers"
)

// stripes is the number of locks that keys are spread over.
const stripes = 64

// session is what a process needs to write. It begins with the first write, so that reading a directory changes nothing in it.
type session struct {
	store *Store
	begun atomic.Bool // set last; what is below is then immutable, but for the stripes

	mu      sync.Mutex // held while the session begins and ends
	id      string
	marker  int // descriptor of the file in writersFolder
	home    int
	tmp     int
	locks   int
	writers int
	unnamed bool // files can be made without a name
	synced  bool // syncOnce was called
	nextTmp atomic.Uint64

	stripe [stripes]stripe
}

// stripe is a lock that holds between goroutines by its token, and between processes by flock on its file.
type stripe struct {
	token chan struct{}
	fd    int // -1: not open; owned by who has the token
}

// begin starts the session unless it has begun.
func (n *session) begin() error {
	if n.begun.Load() {
		return nil
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.begun.Load() {
		return nil
	}
	n.home, n.tmp, n.locks, n.writers, n.marker = -1, -1, -1, -1, -1
	n.synced, n.unnamed = false, false
	if err := n.start(); err != nil {
		n.release()
		return err
	}
	n.begun.Store(true)
	return nil
}

func (n *session) start() error {
	s := n.store
	for _, f := range []struct {
		fd   *int
		at   *int
		name string
	}{
		{&n.home, &s.root, home},
		{&n.tmp, &n.home, tmpFolder},
		{&n.locks, &n.home, locksFolder},
		{&n.writers, &n.home, writersFolder},
	} {
		err := s.step("mkdir", f.name, func() error { return unix.Mkdirat(*f.at, f.name, folderPerm) })
		if err != nil && !errors.Is(err, unix.EEXIST) {
			return err
		}
		fd, err := openFolder(*f.at, f.name)
		if err != nil {
			return s.at("open", home, err)
		}
		*f.fd = fd
	}
	for i := range n.stripe {
		n.stripe[i] = stripe{token: make(chan struct{}, 1), fd: -1}
	}
	if err := n.enlist(); err != nil {
		return err
	}
	if err := n.settle(); err != nil {
		return err
	}
	return n.tryOut()
}

// enlist makes this process's file in writersFolder.
func (n *session) enlist() error {
	for range maxAttempts {
		var raw [8]byte
		_, _ = rand.Read(raw[:]) // never fails
		n.id = hex.EncodeToString(raw[:])
		fd, err := unix.Openat(n.writers, n.id, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC, filePerm)
		if err != nil {
			return n.store.at("create", home, err)
		}
		var st unix.Stat_t
		err = unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB)
		if err == nil && unix.Fstat(fd, &st) == nil && st.Nlink > 0 {
			n.marker = fd
			return nil
		}
		closeFD(fd) // another process took it for a dead one's before it was locked
	}
	return n.store.at("lock", home, errors.New("could not keep a lock"))
}

// settle removes what dead processes left. What they named but perhaps did not sync is on the disk afterwards, before
// anything is written on its strength.
func (n *session) settle() error {
	names, err := readNames(n.writers)
	if err != nil {
		return n.store.at("read", home, err)
	}
	alive := map[string]bool{n.id: true}
	for _, name := range names {
		if name == n.id {
			continue
		}
		fd, err := unix.Openat(n.writers, name, unix.O_RDWR|unix.O_CLOEXEC, 0)
		if err != nil {
			continue // settled by another process
		}
		defer closeFD(fd) // the lock is kept to the end: a process that is just enlisting takes another name
		alive[name] = unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) != nil
	}
	if err := n.removeTemps(alive); err != nil {
		return err
	}
	for name, lives := range alive {
		if lives {
			continue
		}
		if err := n.syncOnce(); err != nil {
			return err
		}
		_ = unix.Unlinkat(n.writers, name, 0)
	}
	return nil
}

// syncOnce syncs the whole file system. Without syncs this process's own file, which stays, asks for it later.
func (n *session) syncOnce() error {
	if n.synced || n.store.opts.NoSync {
		return nil
	}
	n.synced = true
	return n.store.step("syncall", "", func() error { return syncAll(n.store.root) })
}

// removeTemps removes the temporary files of processes that are not alive. A process enlists before it makes any, so one
// that is not among the names read just before, but has files now, enlisted meanwhile: its own are left alone.
func (n *session) removeTemps(alive map[string]bool) error {
	names, err := readNames(n.tmp)
	if err != nil {
		return n.store.at("read", home, err)
	}
	for _, name := range names {
		id, _, _ := strings.Cut(name, "-")
		lives, known := alive[id]
		if !known {
			lives = unix.Faccessat(n.writers, id, unix.F_OK, 0) == nil
		}
		if !lives {
			_ = unix.Unlinkat(n.tmp, name, 0)
		}
	}
	return nil
}

// tryOut finds out what the file system can do, and refuses one that can not keep versions.
func (n *session) tryOut() error {
	t, err := n.newUnnamed(n.tmp)
	if err == nil {
		name := n.tempName()
		if err := linkUnnamed(t.fd, n.tmp, name); err == nil {
			n.unnamed = true
			_ = unix.Unlinkat(n.tmp, name, 0)
		}
		t.discard()
	}
	t, err = n.newNamed()
	if err != nil {
		return err
	}
	defer t.discard()
	var st unix.Stat_t
	const odd = 1_700_000_000_123_456_789
	if err := setModified(t, odd); err != nil {
		return n.store.at("set time", home, err)
	}
	if err := unix.Fstat(t.fd, &st); err != nil {
		return n.store.at("stat", home, err)
	}
	if got := unix.TimespecToNsec(st.Mtim); got != odd {
		return n.store.at("set time", home, fmt.Errorf("the file system rounds times by %d ns, versions need exact ones", odd-got))
	}
	return nil
}

// end leaves; a later write would begin anew.
func (n *session) end() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.begun.Swap(false) {
		return nil
	}
	n.release()
	return nil
}

// release needs mu.
func (n *session) release() {
	if n.marker >= 0 && !n.store.opts.NoSync && n.store.broken.Load() == nil {
		_ = unix.Unlinkat(n.writers, n.id, 0) // else it stays, for the next process that syncs
	}
	for i := range n.stripe {
		if n.stripe[i].token != nil && n.stripe[i].fd >= 0 {
			closeFD(n.stripe[i].fd)
		}
		n.stripe[i].fd = -1
	}
	for _, fd := range []int{n.marker, n.home, n.tmp, n.locks, n.writers} {
		if fd >= 0 {
			closeFD(fd)
		}
	}
}

// lock excludes other swaps and deletes of the key, in all processes, until unlock is called.
func (n *session) lock(ctx context.Context, key string) (unlock func(), err error) {
	h := fnv.New32a()
	_, _ = h.Write([]byte(key))
	number := int(h.Sum32() % stripes)
	st := &n.stripe[number]
	select {
	case st.token <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if err := n.flock(ctx, st, strconv.Itoa(number)); err != nil {
		<-st.token
		return nil, err
	}
	return func() {
		_ = unix.Flock(st.fd, unix.LOCK_UN)
		<-st.token
	}, nil
}

// flock locks the stripe's file. One that somebody removed while it was open excludes nobody, and is opened anew.
func (n *session) flock(ctx context.Context, st *stripe, name string) error {
	pause := 50 * time.Microsecond
	for {
		if st.fd < 0 {
			fd, err := unix.Openat(n.locks, name, unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC, filePerm)
			if errors.Is(err, unix.ENOENT) {
				// Not wrapped: it must not be taken for the object's absence.
				return fmt.Errorf("folder %s was removed while in use: %v", home, err) //nolint:errorlint // see above
			}
			if err != nil {
				return n.store.at("open", home, err)
			}
			st.fd = fd
		}
		err := unix.Flock(st.fd, unix.LOCK_EX|unix.LOCK_NB)
		switch {
		case err == nil:
			var stat unix.Stat_t
			if unix.Fstat(st.fd, &stat) == nil && stat.Nlink > 0 {
				return nil
			}
			closeFD(st.fd)
			st.fd = -1
		case errors.Is(err, unix.EINTR):
		case !errors.Is(err, unix.EWOULDBLOCK):
			return n.store.at("lock", home, err)
		default:
			if err := sleep(ctx, pause); err != nil {
				return err
			}
			pause = min(2*pause, 5*time.Millisecond)
		}
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// readNames returns the names in an open folder.
func readNames(folder int) ([]string, error) {
	fd, err := openFolder(folder, ".")
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "")
	defer func() { _ = f.Close() }()
	names, err := f.Readdirnames(-1)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return names, err
}
