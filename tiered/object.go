package tiered

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/tierlog/tierlog/membuf"
	"github.com/tierlog/tierlog/objstore"
	"github.com/tierlog/tierlog/tiered/logid"
	"github.com/tierlog/tierlog/tiered/manifest"
	"github.com/tierlog/tierlog/tiered/wal"
)

// source is an immutable bucket object that blocks are read from.
type source struct {
	id   uint64 // process-wide: the cache's name of it
	key  string
	size int64 // bytes
}

// blocks is how many blocks the object is read in. What is left after the last whole one is read with it, unless it is
// worth a request of its own.
func (s *source) blocks() int64 {
	n, rest := s.size/BlockSize, s.size%BlockSize
	if rest >= BlockSize/2 || n == 0 {
		n++
	}
	return n
}

// blockAt returns the block that holds the byte at pos.
func (s *source) blockAt(pos int64) int64 { return min(pos/BlockSize, s.blocks()-1) }

var sourceIDs atomic.Uint64

func newSource(key string, size int64) source {
	return source{id: sourceIDs.Add(1), key: key, size: size}
}

// object is a live WAL object or merged segment. source, epoch and m do not change; the rest is owned by Log.objMu.
type object struct {
	source
	epoch logid.Epoch
	m     manifest.Object

	records int64
	minTs   int64
	maxTs   int64
	indexed bool  // its sections are in the extents
	written int64 // when, in ms of this broker's clock; 0: before this process
}

func (l *Log) newObjectOf(epoch logid.Epoch, m manifest.Object) *object {
	return &object{
		source: newSource(m.Key(l.cfg.Cluster, epoch), m.Size), epoch: epoch, m: m,
		records: m.Records, minTs: m.MinTimestamp, maxTs: m.MaxTimestamp,
	}
}

// newObject describes an object of this broker's own WAL that holds records which are being published.
func (l *Log) newObject(m manifest.Object) *object {
	o := l.newObjectOf(l.cfg.Epoch, m)
	o.indexed = true
	o.written = l.cfg.Now().UnixMilli()
	return o
}

func (o *object) noteTime(ts int64) {
	o.maxTs = max(o.maxTs, ts)
	if ts >= 0 && (o.minTs < 0 || ts < o.minTs) {
		o.minTs = ts
	}
}

// entry is the object's line in the manifest.
func (o *object) entry() manifest.Object {
	m := o.m
	m.Records, m.MinTimestamp, m.MaxTimestamp = o.records, o.minTs, o.maxTs
	return m
}

// epochLog is one broker epoch's WAL as far as it is alive. Owned by Log.objMu.
type epochLog struct {
	epoch   logid.Epoch
	m       *manifest.WAL // as last written; nil before the first write
	version objstore.Version
	objects []*object // in slot order; those at or beyond m.MergedThrough are not in m yet
	next    logid.Slot
}

func (l *Log) own() *epochLog { return l.epochs[len(l.epochs)-1] }

// appendObject adds a published WAL object to this broker's list.
func (l *Log) appendObject(o *object) {
	l.objMu.Lock()
	defer l.objMu.Unlock()
	w := l.own()
	w.objects = append(w.objects, o)
	w.next = o.m.To + 1
}

// readFooter reads an object's metadata. size is its length if known, else -1.
func (l *Log) readFooter(ctx context.Context, key string, footerSize int64) (*wal.Footer, objstore.Info, error) {
	return ReadFooter(ctx, l.cfg.Store, key, footerSize)
}

// ReadFooter reads the metadata of a WAL object, merged segment or fence with one request if footerSize, the bytes
// that hold it, is known (0: unknown), and with at most two otherwise.
func ReadFooter(ctx context.Context, s objstore.Store, key string, footerSize int64) (*wal.Footer, objstore.Info, error) {
	if footerSize <= 0 {
		footerSize = wal.TailHint
	}
	for {
		tail := make([]byte, footerSize)
		n, info, err := s.ReadSuffix(ctx, key, tail)
		if err != nil {
			return nil, info, err
		}
		f, need, err := wal.ParseTail(tail[:n], info.Size)
		if err != nil {
			return nil, info, fmt.Errorf("object %s: %w", key, err)
		}
		if f != nil {
			return f, info, nil
		}
		if need <= int64(n) {
			return nil, info, fmt.Errorf("object %s: %w: its footer cannot be read", key, wal.ErrCorrupt)
		}
		footerSize = need
	}
}

// block returns one block of an object with a reference for the caller, from the cache or the bucket.
func (l *Log) block(ctx context.Context, s *source, n int64) (*membuf.Buf, error) {
	return l.cfg.Cache.Get(ctx, BlockID{Object: s.id, Block: n}, l.blockLoader(s, n))
}

// prefetch starts loading a block that a sequential reader will want next.
func (l *Log) prefetch(s *source, n int64) {
	if n < s.blocks() {
		l.cfg.Cache.Prefetch(BlockID{Object: s.id, Block: n}, l.blockLoader(s, n))
	}
}

func (l *Log) blockLoader(s *source, n int64) func(context.Context) (*membuf.Buf, error) {
	key, off, want := s.key, n*BlockSize, 0
	switch last := s.blocks() - 1; {
	case n < last:
		want = BlockSize
	case n == last:
		want = int(s.size - off)
	}
	return func(ctx context.Context) (*membuf.Buf, error) {
		if want <= 0 {
			return nil, fmt.Errorf("%w: object %s: block %d is beyond its %d bytes", ErrStorage, key, n, off)
		}
		buf := l.cfg.Pool.Get(want)
		got, _, err := l.cfg.Store.ReadAt(objstore.WithPurpose(ctx, objstore.PurposeFetch), key, buf.Bytes(), off)
		if err == nil && got != want {
			err = fmt.Errorf("%d bytes at %d, expected %d: truncated", got, off, want)
		}
		if err != nil {
			buf.Release()
			if errors.Is(err, context.Canceled) {
				return nil, err
			}
			return nil, fmt.Errorf("%w: object %s: %w", ErrStorage, key, err)
		}
		return buf, nil
	}
}
