package tiered

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/tierlog/tierlog/objstore"
	"github.com/tierlog/tierlog/tiered/manifest"
)

// newULID returns a name that is never used again.
func newULID(now time.Time) (manifest.ULID, error) {
	id, err := ulid.New(ulid.Timestamp(now), rand.Reader)
	return manifest.ULID(id), err
}

// garbage deletes objects that nothing names any more: first a journal entry, then, after the grace, the objects, then
// the entry. Deleting is idempotent, so that a crash at any point only repeats it. Owned by who has the maintainer's turn.
type garbage struct {
	l       *Log
	fresh   []string             // keys not in a journal entry yet
	entries []*manifest.Deletion // journal entries whose objects are still there
	loaded  bool
}

// add marks keys that no manifest names any more.
func (g *garbage) add(keys ...string) { g.fresh = append(g.fresh, keys...) }

// load reads the journal that an earlier process left. It lists, once at start.
func (g *garbage) load(ctx context.Context) error {
	if g.loaded {
		return nil
	}
	ctx = objstore.WithPurpose(ctx, objstore.PurposeGC)
	if err := g.each(ctx, manifest.KeyDeletion, g.loadEntry); err != nil {
		return err
	}
	if err := g.each(ctx, manifest.KeyJob, g.loadJob); err != nil {
		return err
	}
	g.loaded = true
	return nil
}

// each calls f for every key of a kind.
func (g *garbage) each(ctx context.Context, kind manifest.KeyKind, f func(context.Context, string) error) error {
	prefix := manifest.Prefix(g.l.cfg.Cluster, kind)
	for after := ""; ; {
		page, err := g.l.cfg.Store.List(ctx, prefix, after, 0)
		if err != nil {
			return err
		}
		for _, o := range page.Objects {
			after = o.Key
			if err := f(ctx, o.Key); err != nil {
				return err
			}
		}
		if !page.More {
			return nil
		}
	}
}

// loadJob looks at the record of a job that an earlier process did not finish. Once its deadline is over by the grace,
// nobody lists its outputs any more: what no manifest names is garbage.
func (g *garbage) loadJob(ctx context.Context, key string) error {
	k, err := manifest.ParseKey(key)
	if err != nil {
		return fmt.Errorf("job records: %w", err)
	}
	body, _, err := objstore.ReadAll(ctx, g.l.cfg.Store, key, manifest.MaxBody)
	if errors.Is(err, objstore.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	j, err := manifest.DecodeJob(body, g.l.cfg.Cluster, k.ULID)
	if err != nil {
		g.l.cfg.Logger.ErrorContext(ctx, "damaged job record: its outputs stay", slog.String("key", key), slog.Any("err", err))
		return nil
	}
	if j.DeadlineMs+g.l.cfg.Maintenance.Grace.Milliseconds() > g.l.cfg.Now().UnixMilli() {
		return nil // a later start deals with it
	}
	for _, out := range j.Outputs {
		named, err := g.named(ctx, out)
		if err != nil {
			return err
		}
		if !named {
			g.add(out)
		}
	}
	g.add(key)
	return nil
}

// named tells whether a manifest names a job's output.
func (g *garbage) named(ctx context.Context, key string) (bool, error) {
	k, err := manifest.ParseKey(key)
	if err != nil {
		return true, fmt.Errorf("job records: %w", err)
	}
	if k.Kind == manifest.KeyMerged {
		g.l.objMu.Lock()
		defer g.l.objMu.Unlock()
		for _, w := range g.l.epochs {
			if slices.ContainsFunc(w.objects, func(o *object) bool { return o.key == key }) {
				return true, nil
			}
		}
		return false, nil
	}
	p := g.l.Partition(k.Partition)
	if k.Kind != manifest.KeySegmentFile || p == nil {
		return false, nil
	}
	segs, err := g.l.segments.all(ctx, p, 0)
	if err != nil {
		return true, err
	}
	return slices.ContainsFunc(segs, func(s rolledSegment) bool { return s.ULID == k.ULID }), nil
}

func (g *garbage) loadEntry(ctx context.Context, key string) error {
	k, err := manifest.ParseKey(key)
	if err != nil {
		return fmt.Errorf("deletion journal: %w", err)
	}
	body, _, err := objstore.ReadAll(ctx, g.l.cfg.Store, key, manifest.MaxBody)
	if errors.Is(err, objstore.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	d, err := manifest.DecodeDeletion(body, g.l.cfg.Cluster, k.ULID)
	if err != nil {
		g.l.cfg.Logger.ErrorContext(ctx, "damaged entry of the deletion journal: its objects stay", slog.String("key", key), slog.Any("err", err))
		return nil
	}
	g.entries = append(g.entries, d)
	return nil
}

// collect journals what is new and deletes what is old enough.
func (g *garbage) collect(ctx context.Context) error {
	ctx = objstore.WithPurpose(ctx, objstore.PurposeGC)
	for len(g.fresh) > 0 {
		keys := g.fresh[:min(len(g.fresh), 1000)]
		d, err := g.journal(ctx, keys)
		if err != nil {
			return err
		}
		g.entries = append(g.entries, d)
		g.fresh = slices.Clone(g.fresh[len(keys):])
	}
	now := g.l.cfg.Now().UnixMilli()
	keep := g.entries[:0]
	var failed error
	for _, d := range g.entries {
		if failed != nil || d.NotBeforeMs > now {
			keep = append(keep, d)
			continue
		}
		if failed = g.l.cfg.Store.Delete(ctx, append(slices.Clone(d.Keys), d.Key(g.l.cfg.Cluster))); failed != nil {
			keep = append(keep, d)
		}
	}
	g.entries = keep
	return failed
}

func (g *garbage) journal(ctx context.Context, keys []string) (*manifest.Deletion, error) {
	nonce, err := manifest.NewNonce(rand.Reader)
	if err != nil {
		return nil, err
	}
	now := g.l.cfg.Now()
	id, err := newULID(now)
	if err != nil {
		return nil, err
	}
	d := &manifest.Deletion{
		Nonce: nonce, ULID: id, Keys: slices.Clone(keys), Reason: "replaced or expired",
		NotBeforeMs: now.Add(g.l.cfg.Maintenance.Grace).UnixMilli(),
	}
	body, err := d.Encode()
	if err != nil {
		return nil, fmt.Errorf("deletion journal: %w", err)
	}
	return d, g.l.putSlot(ctx, d.Key(g.l.cfg.Cluster), objstore.Bytes(body))
}
