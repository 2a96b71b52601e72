package objtest

import (
	"context"
	"io"
	"slices"

	"github.com/tierlog/tierlog/objstore"
)

// ReadAt implements objstore.Store.
func (f *Faulty) ReadAt(ctx context.Context, key string, p []byte, off int64) (n int, info objstore.Info, err error) {
	return f.read(ctx, key, p, func(p []byte) (int, objstore.Info, error) { return f.base.ReadAt(ctx, key, p, off) })
}

// ReadSuffix implements objstore.Store.
func (f *Faulty) ReadSuffix(ctx context.Context, key string, p []byte) (n int, info objstore.Info, err error) {
	return f.read(ctx, key, p, func(p []byte) (int, objstore.Info, error) { return f.base.ReadSuffix(ctx, key, p) })
}

func (f *Faulty) read(ctx context.Context, key string, p []byte, read func([]byte) (int, objstore.Info, error)) (n int, info objstore.Info, err error) {
	err = f.do(ctx, "read", key, func() error {
		var rerr error
		n, info, rerr = read(p)
		return rerr
	}, nil)
	if err != nil {
		clear(p[n/2 : n]) // a caller that uses bytes of a failed read shall find them wrong
		return 0, objstore.Info{}, err
	}
	return n, info, nil
}

// Head implements objstore.Store.
func (f *Faulty) Head(ctx context.Context, key string) (info objstore.Info, err error) {
	err = f.do(ctx, "head", key, func() error {
		var herr error
		info, herr = f.base.Head(ctx, key)
		return herr
	}, nil)
	if err != nil {
		return objstore.Info{}, err
	}
	return info, nil
}

// Create implements objstore.Store.
func (f *Faulty) Create(ctx context.Context, key string, body objstore.Payload) (v objstore.Version, err error) {
	err = f.do(ctx, "create", key, func() error {
		var cerr error
		v, cerr = f.base.Create(ctx, key, body)
		return cerr
	}, func() func() {
		own := owned(body)
		return func() { _, _ = f.base.Create(context.WithoutCancel(ctx), key, own) }
	})
	if err != nil {
		return "", err
	}
	return v, nil
}

// Swap implements objstore.Store.
func (f *Faulty) Swap(ctx context.Context, key string, old objstore.Version, body objstore.Payload) (v objstore.Version, err error) {
	err = f.do(ctx, "swap", key, func() error {
		var serr error
		v, serr = f.base.Swap(ctx, key, old, body)
		return serr
	}, func() func() {
		own := owned(body)
		return func() { _, _ = f.base.Swap(context.WithoutCancel(ctx), key, old, own) }
	})
	if err != nil {
		return "", err
	}
	return v, nil
}

// Delete implements objstore.Store.
func (f *Faulty) Delete(ctx context.Context, keys []string) error {
	return f.do(ctx, "delete", firstKey(keys), func() error {
		return f.base.Delete(ctx, keys)
	}, func() func() {
		own := slices.Clone(keys)
		return func() { _ = f.base.Delete(context.WithoutCancel(ctx), own) }
	})
}

// List implements objstore.Store.
func (f *Faulty) List(ctx context.Context, prefix, after string, limit int) (page objstore.Page, err error) {
	err = f.do(ctx, "list", prefix, func() error {
		var lerr error
		page, lerr = f.base.List(ctx, prefix, after, limit)
		return lerr
	}, nil)
	if err != nil {
		return objstore.Page{}, err
	}
	return page, nil
}

// owned copies a body: its slices may be used again as soon as the call has returned.
func owned(body objstore.Payload) objstore.Payload {
	data, err := io.ReadAll(body.Reader())
	if err != nil {
		panic("objtest: reading a payload: " + err.Error()) // payloads are in memory
	}
	return objstore.Bytes(data)
}

func firstKey(keys []string) string {
	if len(keys) == 0 {
		return ""
	}
	return keys[0]
}
