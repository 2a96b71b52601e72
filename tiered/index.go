package tiered

import (
	"context"
	"fmt"
	"log/slog"

	"golang.org/x/sync/errgroup"

	"github.com/tierlog/tierlog/objstore"
	"github.com/tierlog/tierlog/tiered/logid"
	"github.com/tierlog/tierlog/tiered/wal"
)

// The extents of objects that a checkpoint covers are not needed to open partitions; they are read in the background
// after the start, so that starting takes the same time however much un-rolled history there is. A read or a
// maintenance round that needs them waits.

func (l *Log) isIndexed() bool {
	select {
	case <-l.indexed:
		return true
	default:
		return false
	}
}

// waitIndexed waits until the extents are complete.
func (l *Log) waitIndexed(ctx context.Context) error {
	select {
	case <-l.indexed:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-l.failed:
		return l.Err()
	}
}

// loadIndex reads the footers of all live objects that recovery did not read. A footer that cannot be read for good
// marks its object damaged: its offsets answer ErrStorage, all others go on.
func (l *Log) loadIndex(ctx context.Context) {
	ctx = objstore.WithPurpose(ctx, objstore.PurposeRecovery)
	l.objMu.Lock()
	var todo []*object
	for _, w := range l.epochs {
		for _, o := range w.objects {
			if !o.indexed {
				todo = append(todo, o)
			}
		}
	}
	l.objMu.Unlock()
	footers := make([]*wal.Footer, len(todo))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(readAhead)
	for i, o := range todo {
		g.Go(func() error {
			var err error
			footers[i], err = l.footerUntil(gctx, o)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return // the log is closing
	}
	front := make(map[logid.Partition][]extent)
	for i, f := range footers {
		if f == nil {
			l.damaged.Add(1)
			continue
		}
		for j := range f.Sections {
			s := &f.Sections[j]
			id := logid.Partition{Topic: s.Topic, Index: s.Partition}
			front[id] = append(front[id], sectionExtent(todo[i], s))
		}
	}
	l.mu.RLock()
	for id, extents := range front {
		if p := l.parts[id]; p != nil {
			p.prepend(extents)
		}
	}
	l.mu.RUnlock()
	l.objMu.Lock()
	for i, o := range todo {
		o.indexed = footers[i] != nil
	}
	l.objMu.Unlock()
	close(l.indexed)
}

// footerUntil reads a footer, trying again while the bucket is away; nil if the object is damaged or missing.
func (l *Log) footerUntil(ctx context.Context, o *object) (*wal.Footer, error) {
	for backoff := firstBackoff; ; backoff = min(backoff*2, maxBackoff) {
		f, _, err := l.readFooter(ctx, o.key, o.m.FooterSize)
		switch {
		case err == nil:
			return f, nil
		case isDamage(err):
			l.cfg.Logger.ErrorContext(ctx, "object cannot be read: its records answer KAFKA_STORAGE_ERROR; see tierlog bucket verify", slog.Any("err", err))
			return nil, nil
		}
		if err := pause(ctx, backoff); err != nil {
			return nil, fmt.Errorf("index of %s: %w", o.key, err)
		}
	}
}

// prepend puts the extents of older objects before those that recovery and publishing added.
func (p *Partition) prepend(older []extent) {
	p.mu.Lock()
	defer p.mu.Unlock()
	merged := make([]extent, 0, len(older)+len(p.extents))
	for _, e := range older {
		if e.last < p.rolled || e.last < p.start || len(p.extents) > 0 && e.last >= p.extents[0].base {
			continue
		}
		if n := len(merged); n > 0 && e.base <= merged[n-1].last {
			continue // the same records in an object that a merge has replaced since
		}
		merged = append(merged, e)
		p.bytes += e.size
	}
	p.extents = append(merged, p.extents...)
}
