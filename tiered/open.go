package tiered

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/tierlog/tierlog/objstore"
	"github.com/tierlog/tierlog/record"
	"github.com/tierlog/tierlog/tiered/logid"
	"github.com/tierlog/tierlog/tiered/manifest"
	"github.com/tierlog/tierlog/tiered/wal"
)

// Open recovers what earlier epochs left, fences those that still are open, and starts a log under cfg.Epoch.
// previous are the live epochs before it, oldest first. Call OpenPartition for what the broker leads, then Opened.
func Open(ctx context.Context, cfg Config, previous []logid.Epoch) (_ *Log, err error) {
	if err := cfg.setDefaults(); err != nil {
		return nil, err
	}
	l := &Log{
		cfg: cfg, parts: make(map[logid.Partition]*Partition), failed: make(chan struct{}), indexed: make(chan struct{}),
	}
	l.ctx, l.cancel = context.WithCancel(context.WithoutCancel(ctx))
	defer func() {
		if err != nil {
			l.cancel()
			l.tasks.Wait()
			l.unlock()
		}
	}()
	if cfg.DataDir != "" {
		if l.dirLock, err = lockDir(cfg.DataDir); err != nil {
			return nil, err
		}
	}
	if l.segments, err = newSegmentIndex(l); err != nil {
		return nil, err
	}
	if err := l.recoverEpochs(ctx, previous); err != nil {
		return nil, err
	}
	if cfg.DataDir != "" {
		dir := filepath.Join(cfg.DataDir, "hot", cfg.Epoch.Key())
		if l.local, err = openLocal(dir, cfg.Logger, l.settle); err != nil {
			return nil, err
		}
	}
	l.flush = newFlusher(l, l.own().next)
	l.maint = newMaintainer(l)
	l.tasks.Go(func() { l.flush.run(l.ctx) })
	return l, nil
}

// Opened says that all partitions are open: background work may begin, and state of partitions that are gone is
// dropped.
func (l *Log) Opened() {
	l.mu.Lock()
	l.recovered = nil
	l.mu.Unlock()
	l.tasks.Go(func() { l.loadIndex(l.ctx) })
	l.tasks.Go(func() { l.maint.run(l.ctx) })
}

func (l *Log) unlock() {
	if l.dirLock != nil {
		_ = l.dirLock.Close()
		l.dirLock = nil
	}
}

// settle makes the commit of an acks=1 batch wait for the bucket, because the local disk did not take it.
func (l *Log) settle(b localBatch) {
	p := l.Partition(b.id)
	if p == nil {
		b.commit.finish(ErrClosed)
		return
	}
	p.mu.Lock()
	last, err := b.batch.LastOffset(), p.writable()
	durable := last < p.hw
	if !durable && err == nil {
		p.dupWaiters = append(p.dupWaiters, dupWaiter{last: last, commit: b.commit})
		p.mu.Unlock()
		return
	}
	p.mu.Unlock()
	if durable {
		err = nil
	}
	b.commit.finish(err)
}

// isDamage tells errors that say something about an object from those of a bucket that is away.
func isDamage(err error) bool {
	return errors.Is(err, wal.ErrCorrupt) || errors.Is(err, wal.ErrNewer) || errors.Is(err, record.ErrCorrupt) ||
		errors.Is(err, manifest.ErrCorrupt) || errors.Is(err, objstore.ErrNotFound)
}

// DataDirFree checks that the data dir can be used, before anything is claimed in the bucket.
func DataDirFree(dir string) error {
	f, err := lockDir(dir)
	if err != nil {
		return err
	}
	probe := filepath.Join(dir, ".probe")
	err = os.WriteFile(probe, []byte("tierlog"), 0o600)
	if rerr := os.Remove(probe); err == nil {
		err = rerr
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return fmt.Errorf("data dir: %w", err)
	}
	return nil
}
