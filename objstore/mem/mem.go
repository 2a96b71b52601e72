// Package mem is an object store in memory: for tests, simulations and trying things out.
//
// Invariants:
//
//   - An object's bytes are copied in and never change; a swap installs another object.
//   - Versions are numbers from one counter, so no state of any key ever shares a version with another.
//   - No call blocks, and no call reads a clock other than for Info.Modified: it runs inside synctest bubbles.
//
// "Durable" means as long as the process lives.
package mem

import (
	"context"
	"errors"
	"io"
	"slices"
	"sort"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/tierlog/tierlog/objstore"
)

// Store is a bucket in memory. The zero value is not usable; see New.
type Store struct {
	mu      sync.RWMutex
	objects map[string]*object // guarded by mu
	keys    []string           // sorted keys of objects, or nil when they must be sorted anew; guarded by mu
	next    uint64             // the last version given out; guarded by mu
}

// object is immutable once it is in the map.
type object struct {
	data []byte
	info objstore.Info
}

// New returns an empty store.
func New() *Store { return &Store{objects: map[string]*object{}} }

var _ objstore.Store = (*Store)(nil)

// ReadAt implements objstore.Store.
func (s *Store) ReadAt(ctx context.Context, key string, p []byte, off int64) (int, objstore.Info, error) {
	o, err := s.get(ctx, "read", key)
	if err != nil {
		return 0, objstore.Info{}, err
	}
	if off < 0 {
		return 0, objstore.Info{}, fail("read", key, objstore.ErrInvalid, errors.New("negative offset"))
	}
	if off >= o.info.Size {
		return 0, o.info, nil
	}
	return copy(p, o.data[off:]), o.info, nil
}

// ReadSuffix implements objstore.Store.
func (s *Store) ReadSuffix(ctx context.Context, key string, p []byte) (int, objstore.Info, error) {
	o, err := s.get(ctx, "read", key)
	if err != nil {
		return 0, objstore.Info{}, err
	}
	if len(p) == 0 {
		return 0, objstore.Info{}, fail("read", key, objstore.ErrInvalid, errors.New("empty suffix"))
	}
	return copy(p, o.data[max(0, len(o.data)-len(p)):]), o.info, nil
}

// Head implements objstore.Store.
func (s *Store) Head(ctx context.Context, key string) (objstore.Info, error) {
	o, err := s.get(ctx, "head", key)
	if err != nil {
		return objstore.Info{}, err
	}
	return o.info, nil
}

// Create implements objstore.Store.
func (s *Store) Create(ctx context.Context, key string, body objstore.Payload) (objstore.Version, error) {
	data, err := s.take(ctx, "create", key, body)
	if err != nil {
		return "", err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.objects[key] != nil {
		return "", fail("create", key, objstore.ErrExists, nil)
	}
	s.keys = nil
	return s.install(key, data), nil
}

// Swap implements objstore.Store.
func (s *Store) Swap(ctx context.Context, key string, old objstore.Version, body objstore.Payload) (objstore.Version, error) {
	data, err := s.take(ctx, "swap", key, body)
	if err != nil {
		return "", err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if o := s.objects[key]; o == nil || o.info.Version != old {
		return "", fail("swap", key, objstore.ErrChanged, nil)
	}
	return s.install(key, data), nil
}

// Delete implements objstore.Store.
func (s *Store) Delete(ctx context.Context, keys []string) error {
	for _, key := range keys {
		if err := objstore.CheckedKey("delete", key); err != nil {
			return err
		}
	}
	if err := ctx.Err(); err != nil {
		return fail("delete", first(keys), objstore.ErrUnavailable, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, key := range keys {
		if _, ok := s.objects[key]; ok {
			delete(s.objects, key)
			s.keys = nil
		}
	}
	return nil
}

// List implements objstore.Store.
func (s *Store) List(ctx context.Context, prefix, after string, limit int) (objstore.Page, error) {
	if err := ctx.Err(); err != nil {
		return objstore.Page{}, fail("list", prefix, objstore.ErrUnavailable, err)
	}
	limit = objstore.ListLimit(limit)
	s.mu.Lock()
	defer s.mu.Unlock()
	keys := s.sorted()
	i := sort.SearchStrings(keys, prefix)
	if after >= prefix {
		i = sort.Search(len(keys), func(i int) bool { return keys[i] > after })
	}
	var page objstore.Page
	for ; i < len(keys) && strings.HasPrefix(keys[i], prefix); i++ {
		if len(page.Objects) == limit {
			page.More = true
			break
		}
		page.Objects = append(page.Objects, s.objects[keys[i]].info)
	}
	return page, nil
}

// Close implements objstore.Store.
func (s *Store) Close() error { return nil }

// Tamper replaces an object's bytes by f(copy of them) without a new version, as decay of a disk would.
// It reports whether the key exists.
func (s *Store) Tamper(key string, f func(data []byte) []byte) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	o := s.objects[key]
	if o == nil {
		return false
	}
	data := f(slices.Clone(o.data))
	info := o.info
	info.Size = int64(len(data))
	s.objects[key] = &object{data: data, info: info}
	return true
}

// Keys returns all keys in byte order.
func (s *Store) Keys() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.sorted())
}

// Size returns the number of objects and their bytes.
func (s *Store) Size() (objects int, bytes int64) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, o := range s.objects {
		bytes += o.info.Size
	}
	return len(s.objects), bytes
}

func (s *Store) get(ctx context.Context, op, key string) (*object, error) {
	if err := objstore.CheckedKey(op, key); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, fail(op, key, objstore.ErrUnavailable, err)
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	o := s.objects[key]
	if o == nil {
		return nil, fail(op, key, objstore.ErrNotFound, nil)
	}
	return o, nil
}

// take copies the body before the lock is taken.
func (s *Store) take(ctx context.Context, op, key string, body objstore.Payload) ([]byte, error) {
	if err := objstore.CheckedKey(op, key); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, fail(op, key, objstore.ErrUnknown, err)
	}
	data := make([]byte, body.Size())
	if _, err := io.ReadFull(body.Reader(), data); err != nil {
		return nil, fail(op, key, objstore.ErrInvalid, err)
	}
	return data, nil
}

// install needs mu.
func (s *Store) install(key string, data []byte) objstore.Version {
	s.next++
	v := objstore.Version(strconv.FormatUint(s.next, 10))
	info := objstore.Info{Key: key, Size: int64(len(data)), Version: v, Modified: time.Now()}
	s.objects[key] = &object{data: data, info: info}
	return v
}

// sorted needs mu for writing.
func (s *Store) sorted() []string {
	if s.keys == nil {
		s.keys = make([]string, 0, len(s.objects))
		for k := range s.objects {
			s.keys = append(s.keys, k)
		}
		sort.Strings(s.keys)
	}
	return s.keys
}

func first(keys []string) string {
	if len(keys) == 0 {
		return ""
	}
	return keys[0]
}

func fail(op, key string, kind, err error) error {
	return &objstore.Error{Op: op, Key: key, Kind: kind, Err: err}
}
