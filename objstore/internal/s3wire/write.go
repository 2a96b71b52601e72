package s3wire

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"strings"
	"sync"

	"github.com/tierlog/tierlog/objstore"
)

// Put is a write and its condition.
type Put struct {
	// Old is the version that the object must have; empty: the object must not exist.
	Old objstore.Version
	// Body is seekable, but may not be read or sought after Put has returned.
	Body io.ReadSeeker
	Size int64
	// CRC32C is the body's Castagnoli checksum as x-amz-checksum-crc32c wants it.
	CRC32C string
}

// Create implements objstore.Store.
func (s *Store) Create(ctx context.Context, key string, body objstore.Payload) (objstore.Version, error) {
	return s.write(ctx, key, "", body)
}

// Swap implements objstore.Store.
func (s *Store) Swap(ctx context.Context, key string, old objstore.Version, body objstore.Payload) (objstore.Version, error) {
	if old == "" || old == "*" || strings.ContainsAny(string(old), "\r\n") {
		// An If-Match that is empty or a wildcard would be no condition, or another one.
		return "", invalid(opSwap, key, "%q is not a version", old)
	}
	return s.write(ctx, key, old, body)
}

// ETag returns the version as If-Match wants it.
func ETag(v objstore.Version) string {
	if strings.HasPrefix(string(v), "W/") {
		return string(v)
	}
	return `"` + string(v) + `"`
}

func (s *Store) write(ctx context.Context, key string, old objstore.Version, body objstore.Payload) (objstore.Version, error) {
	op := opCreate
	if old != "" {
		op = opSwap
	}
	if err := s.check(ctx, op, key); err != nil {
		return "", err
	}
	sum, err := checksum(body)
	if err != nil {
		return "", invalid(op, key, "the payload can not be read: %w", err)
	}
	inner, c := begin(ctx, op, key, s.limits.budget(body.Size()))
	defer c.stop()
	lent := &lent{r: body.Reader()}
	defer lent.takeBack()
	err = s.client.Put(inner, s.root+key, Put{Old: old, Body: lent, Size: body.Size(), CRC32C: sum})
	if err != nil {
		return "", c.error(ctx, inner, err)
	}
	h, _ := c.header()
	version := versionOf(h.Get("ETag"))
	if version == "" {
		return "", c.error(ctx, inner, errors.New("the answer has no ETag"))
	}
	return version, nil
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// checksum returns the body's CRC-32C, which costs one pass over the body if nobody knows it.
// A trailing checksum would cost the same pass and the chunked encoding on top.
func checksum(body objstore.Payload) (string, error) {
	sum, known := body.CRC32C()
	if !known {
		h := crc32.New(castagnoli)
		n, err := io.Copy(h, body.Reader())
		if err != nil {
			return "", err
		}
		if n != body.Size() {
			return "", errors.New("it is not as long as it says")
		}
		sum = h.Sum32()
	}
	return base64.StdEncoding.EncodeToString(binary.BigEndian.AppendUint32(nil, sum)), nil
}

// lent is a payload's reader on loan to the HTTP transport. The transport may go on reading a body after it has
// returned an error; the payload's memory belongs to the caller again by then.
type lent struct {
	mu sync.Mutex
	r  io.ReadSeeker // nil once taken back
}

var errTakenBack = errors.New("the call is over")

// Read implements io.Reader.
func (l *lent) Read(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.r == nil {
		return 0, errTakenBack
	}
	return l.r.Read(p)
}

// Seek implements io.Seeker.
func (l *lent) Seek(offset int64, whence int) (int64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.r == nil {
		return 0, errTakenBack
	}
	return l.r.Seek(offset, whence)
}

// takeBack waits for a read that is under way; later ones fail.
func (l *lent) takeBack() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.r = nil
}
