package s3wire

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"strconv"
	"strings"

	"github.com/tierlog/tierlog/objstore"
)

// Body is the body of an answer.
type Body = io.ReadCloser

// maxTries bounds how often a read starts again because the object changed between two requests.
const maxTries = 4

// ReadAt implements objstore.Store.
func (s *Store) ReadAt(ctx context.Context, key string, p []byte, off int64) (int, objstore.Info, error) {
	if err := s.check(ctx, opRead, key); err != nil {
		return 0, objstore.Info{}, err
	}
	if off < 0 {
		return 0, objstore.Info{}, invalid(opRead, key, "offset %d is negative", off)
	}
	if len(p) == 0 {
		info, err := s.head(ctx, opRead, key)
		return 0, info, err
	}
	last := off + min(int64(len(p)), math.MaxInt64-off) - 1
	return s.read(ctx, key, wanted{text: fmt.Sprintf("bytes=%d-%d", off, last), p: p, off: off})
}

// ReadSuffix implements objstore.Store.
func (s *Store) ReadSuffix(ctx context.Context, key string, p []byte) (int, objstore.Info, error) {
	if err := s.check(ctx, opRead, key); err != nil {
		return 0, objstore.Info{}, err
	}
	if len(p) == 0 {
		return 0, objstore.Info{}, invalid(opRead, key, "the suffix is empty")
	}
	return s.read(ctx, key, wanted{text: fmt.Sprintf("bytes=-%d", len(p)), p: p, suffix: true})
}

// wanted is a range of an object of a size that is not known yet.
type wanted struct {
	text   string // the Range header
	p      []byte
	off    int64
	suffix bool
}

// span returns the part [from, to) of an object of this size.
func (w wanted) span(size int64) (from, to int64) {
	if w.suffix {
		return max(0, size-int64(len(w.p))), size
	}
	from = min(w.off, size)
	return from, from + min(int64(len(w.p)), size-from)
}

func (s *Store) read(ctx context.Context, key string, w wanted) (int, objstore.Info, error) {
	for range maxTries {
		n, info, beyond, err := s.get(ctx, key, w)
		if !beyond {
			return n, info, err
		}
		// The range is not satisfiable, or the object is empty. That answer does not describe the object.
		info, err = s.head(ctx, opRead, key)
		if err != nil {
			return 0, objstore.Info{}, err
		}
		if from, to := w.span(info.Size); from == to {
			return 0, info, nil
		}
		// It has grown in between.
	}
	return 0, objstore.Info{}, &objstore.Error{
		Op: opRead, Key: key, Kind: objstore.ErrUnavailable, Err: errors.New("the object keeps changing"),
	}
}

// get makes one ranged request. beyond says that no byte of the object is in the range.
func (s *Store) get(ctx context.Context, key string, w wanted) (n int, info objstore.Info, beyond bool, err error) {
	inner, c := begin(ctx, opRead, key, s.limits.budget(int64(len(w.p))))
	defer c.stop()
	body, err := s.client.Get(inner, s.root+key, w.text)
	if err != nil {
		if c.status() == http.StatusRequestedRangeNotSatisfiable {
			return 0, objstore.Info{}, true, nil
		}
		return 0, objstore.Info{}, false, c.error(ctx, inner, err)
	}
	defer func() { _ = body.Close() }()
	n, info, err = w.fill(c, key, body)
	if err != nil {
		return 0, objstore.Info{}, false, c.error(ctx, inner, err)
	}
	return n, info, false, nil
}

// fill checks that the answer is what was asked for, and reads it into p.
func (w wanted) fill(c *call, key string, body io.Reader) (int, objstore.Info, error) {
	h, length := c.header()
	size, start := length, int64(0)
	if c.status() == http.StatusPartialContent {
		var err error
		if start, size, err = parseContentRange(h.Get("Content-Range")); err != nil {
			return 0, objstore.Info{}, err
		}
	}
	info, err := infoOf(key, h, size)
	if err != nil {
		return 0, objstore.Info{}, err
	}
	from, to := w.span(size)
	if from != start && from != to {
		return 0, objstore.Info{}, fmt.Errorf("asked for %s of %d bytes, the answer starts at byte %d", w.text, size, start)
	}
	n, err := io.ReadFull(body, w.p[:to-from])
	if err != nil {
		return 0, objstore.Info{}, fmt.Errorf("after %d of %d bytes: %w", n, to-from, err)
	}
	return n, info, nil
}

// parseContentRange parses "bytes 5-9/10" into the first position and the object's size.
// MinIO answers the suffix of an empty object with "bytes 0--1/0".
func parseContentRange(s string) (start, size int64, err error) {
	span, total, ok1 := strings.Cut(strings.TrimPrefix(s, "bytes "), "/")
	first, last, ok2 := strings.Cut(span, "-")
	if !ok1 || !ok2 {
		return 0, 0, fmt.Errorf("the answer has the Content-Range %q", s)
	}
	start, err1 := strconv.ParseInt(first, 10, 64)
	end, err2 := strconv.ParseInt(last, 10, 64)
	size, err3 := strconv.ParseInt(total, 10, 64)
	if err := errors.Join(err1, err2, err3); err != nil || start < 0 || end < start && (size != 0 || start != 0) || size <= end {
		return 0, 0, fmt.Errorf("the answer has the Content-Range %q", s)
	}
	return start, size, nil
}
