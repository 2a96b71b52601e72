package s3wire

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/tierlog/tierlog/objstore"
)

// Client is what the package needs of an SDK. Keys are whole: the store's prefix is part of them. Each method makes one
// request, through a client of HTTPClient and under the context it is given. What the answer's header says, the
// transport has seen; a Client returns only what is in the body.
type Client interface {
	// Get asks for a range of the object. The caller closes the body.
	Get(ctx context.Context, key, byteRange string) (Body, error)
	// Head asks for the object's header.
	Head(ctx context.Context, key string) error
	// Put writes the object under put's condition.
	Put(ctx context.Context, key string, put Put) error
	// Delete removes up to 1,000 keys and returns those that were refused.
	Delete(ctx context.Context, keys []string) ([]Refusal, error)
	// List returns the first objects, at most limit, that start with prefix and are greater than after.
	List(ctx context.Context, prefix, after string, limit int) (objects []objstore.Info, more bool, err error)
	// Close releases idle connections.
	Close()
}

// Refusal is a key that a batch of deletions did not delete.
type Refusal struct{ Key, Code, Message string }

// Config says where in a bucket a store lives.
type Config struct {
	Prefix string // without slashes at the ends; empty for the whole bucket
	Limits Limits
}

// Store implements objstore.Store over a Client.
type Store struct {
	client Client
	root   string // the prefix with a slash, or empty
	limits Limits
}

var _ objstore.Store = (*Store)(nil)

// New returns a store that owns the client.
func New(client Client, c Config) *Store {
	root := c.Prefix
	if root != "" {
		root += "/"
	}
	return &Store{client: client, root: root, limits: c.Limits.withDefaults()}
}

// CheckPrefix says what is wrong with a prefix.
func CheckPrefix(prefix string) error {
	if prefix == "" {
		return nil
	}
	if err := objstore.CheckKey(prefix); err != nil {
		return fmt.Errorf("prefix: %q: %s", prefix, strings.Replace(err.Error(), "key", "it", 1))
	}
	if len(prefix) > objstore.MaxKeySize/2 {
		return fmt.Errorf("prefix: it has %d bytes, at most %d are allowed", len(prefix), objstore.MaxKeySize/2)
	}
	return nil
}

// The operations, as errors name them.
const (
	opCreate = "create"
	opSwap   = "swap"
	opRead   = "read"
	opHead   = "head"
	opDelete = "delete"
	opList   = "list"
)

// check refuses a key that no store takes, and does not start under a context that has ended.
func (s *Store) check(ctx context.Context, op, key string) error {
	if err := objstore.CheckedKey(op, key); err != nil {
		return err
	}
	if n := len(s.root) + len(key); n > objstore.MaxKeySize {
		return invalid(op, key, "key and prefix have %d bytes, at most %d are allowed", n, objstore.MaxKeySize)
	}
	return s.alive(ctx, op, key)
}

func (s *Store) alive(ctx context.Context, op, key string) error {
	if err := ctx.Err(); err != nil {
		return &objstore.Error{Op: op, Key: key, Kind: passing(op), Err: err}
	}
	return nil
}

// Head implements objstore.Store.
func (s *Store) Head(ctx context.Context, key string) (objstore.Info, error) {
	if err := s.check(ctx, opHead, key); err != nil {
		return objstore.Info{}, err
	}
	return s.head(ctx, opHead, key)
}

func (s *Store) head(ctx context.Context, op, key string) (objstore.Info, error) {
	inner, c := begin(ctx, op, key, s.limits.Timeout)
	defer c.stop()
	err := s.client.Head(inner, s.root+key)
	if err != nil {
		return objstore.Info{}, c.error(ctx, inner, err)
	}
	h, size := c.header()
	info, err := infoOf(key, h, size)
	if err != nil {
		return objstore.Info{}, c.error(ctx, inner, err)
	}
	return info, nil
}

// infoOf makes sense of an answer's header.
func infoOf(key string, h http.Header, size int64) (objstore.Info, error) {
	info := objstore.Info{Key: key, Size: size, Version: versionOf(h.Get("ETag"))}
	if info.Version == "" {
		return info, errors.New("the answer has no ETag")
	}
	if size < 0 {
		return info, errors.New("the answer does not say the object's size")
	}
	if t, err := http.ParseTime(h.Get("Last-Modified")); err == nil {
		info.Modified = t
	}
	return info, nil
}

// versionOf drops the quotes of an ETag, since lists and SDKs differ in them.
func versionOf(etag string) objstore.Version {
	return objstore.Version(strings.Trim(etag, `"`))
}

// Listed makes the description of a listed object from what an SDK returns.
func Listed(key string, size int64, etag string, modified time.Time) objstore.Info {
	return objstore.Info{Key: key, Size: size, Version: versionOf(etag), Modified: modified}
}

// Delete implements objstore.Store.
func (s *Store) Delete(ctx context.Context, keys []string) error {
	whole := make([]string, 0, len(keys))
	for _, key := range keys {
		if err := s.check(ctx, opDelete, key); err != nil {
			return err
		}
		whole = append(whole, s.root+key)
	}
	slices.Sort(whole)
	for batch := range slices.Chunk(slices.Compact(whole), objstore.MaxListLimit) {
		if err := s.deleteBatch(ctx, batch); err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) deleteBatch(ctx context.Context, batch []string) error {
	first := strings.TrimPrefix(batch[0], s.root)
	if err := s.alive(ctx, opDelete, first); err != nil {
		return err
	}
	inner, c := begin(ctx, opDelete, first, s.limits.Timeout)
	defer c.stop()
	refused, err := s.client.Delete(inner, batch)
	if err != nil {
		if c.noSuchKey() {
			return nil // of a single key: some stores say so
		}
		return c.error(ctx, inner, err)
	}
	for _, r := range refused {
		if r.Code == "NoSuchKey" {
			continue
		}
		kind := objstore.ErrUnavailable
		if r.Code == "AccessDenied" {
			kind = objstore.ErrDenied
		}
		return &objstore.Error{
			Op: opDelete, Key: strings.TrimPrefix(r.Key, s.root), Kind: kind,
			Err: fmt.Errorf("%s: %s (%d of %d keys refused)", r.Code, r.Message, len(refused), len(batch)),
		}
	}
	return nil
}

// List implements objstore.Store.
func (s *Store) List(ctx context.Context, prefix, after string, limit int) (objstore.Page, error) {
	if err := s.alive(ctx, opList, prefix); err != nil {
		return objstore.Page{}, err
	}
	if !beginsAKey(prefix) {
		return objstore.Page{}, nil
	}
	after, some := listStart(prefix, after)
	if !some {
		return objstore.Page{}, nil
	}
	if after != "" {
		after = s.root + after
	}
	inner, c := begin(ctx, opList, prefix, s.limits.Timeout)
	defer c.stop()
	objects, more, err := s.client.List(inner, s.root+prefix, after, objstore.ListLimit(limit))
	if err != nil {
		return objstore.Page{}, c.error(ctx, inner, err)
	}
	for i := range objects {
		objects[i].Key = strings.TrimPrefix(objects[i].Key, s.root)
	}
	return objstore.Page{Objects: objects, More: more}, nil
}

// listStart returns a start that is empty or under the prefix, since some stores answer with nothing when it is not.
// It is false when no key under the prefix can be greater than after.
func listStart(prefix, after string) (start string, some bool) {
	if i := strings.IndexFunc(after, func(r rune) bool { return r < ' ' }); i >= 0 {
		after = after[:i] // no key has a control character, and XML can not hold one
	}
	switch {
	case after < prefix:
		return "", true
	case !strings.HasPrefix(after, prefix):
		return "", false
	default:
		return after, true
	}
}

// beginsAKey reports whether any key can start with prefix.
func beginsAKey(prefix string) bool {
	return objstore.CheckKey(prefix) == nil || objstore.CheckKey(prefix+"x") == nil
}

// Close implements objstore.Store.
func (s *Store) Close() error {
	s.client.Close()
	return nil
}
