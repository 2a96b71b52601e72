package history

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/tierlog/tierlog/cluster"
	"github.com/tierlog/tierlog/objstore"
	"github.com/tierlog/tierlog/tiered/logid"
	"github.com/tierlog/tierlog/tiered/manifest"
	"github.com/tierlog/tierlog/tiered/wal"
)

// view is what the WALs hold at one time.
type view struct {
	epochs     []*epoch // ascending
	checkpoint *manifest.Checkpoint
	sections   map[logid.Partition][]section // in offset order
	// faults are the damaged objects whose records are not in sections; of which partitions they are is not known.
	faults []error
}

// epoch is one broker epoch's WAL as far as it is alive.
type epoch struct {
	cluster.WALEpoch
	manifest *manifest.WAL // nil before the broker wrote one
	objects  []object      // in slot order: those that the manifest lists, then those in the slots after
	end      logid.Slot    // the first missing slot, or the fence's
	fenced   bool
}

// object is a live WAL object or merged segment.
type object struct {
	manifest.Object
	key    string
	listed bool
}

// section is one partition's run of records in an object; no entries are kept.
type section struct {
	obj        *object
	epoch      *epoch
	base, last int64
	maxTs      int64
	pos, size  int64
}

// fault decides about an object that cannot be used: strict ends the work, Verify notes it and goes on. It is called
// from several goroutines.
type fault func(key string, err error) error

func strict(key string, err error) error { return fmt.Errorf("%s: %w", key, err) }

// faults collects what is wrong with objects of records, so that the others can be read, and is strict with the rest.
type faults struct {
	mu   sync.Mutex
	errs []error // guarded by mu
}

func (f *faults) note(key string, err error) error {
	err = strict(key, err)
	k, bad := manifest.ParseKey(key)
	if bad != nil || k.Kind != manifest.KeyWAL && k.Kind != manifest.KeyMerged {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.errs = append(f.errs, err)
	return nil
}

// loader reads a view.
type loader struct {
	store   objstore.Store
	cluster logid.ClusterID
	fault   fault
}

// loadView reads the WALs. The state of meta must not be older than the WALs that are wanted.
func loadView(ctx context.Context, cfg *Config, meta *cluster.Log, f fault) (*view, error) {
	l := &loader{store: cfg.Store, cluster: meta.ClusterID(), fault: f}
	for range reloads {
		v, err := l.load(ctx, meta.State().Epochs())
		if !errors.Is(err, errMoved) {
			return v, err
		}
	}
	return nil, errors.New("the WALs change faster than they can be read")
}

// reloads is how often something that a live broker replaced is looked up again.
const reloads = 10

// errMoved: what was read has been replaced meanwhile.
var errMoved = errors.New("replaced by a live broker")

func (l *loader) load(ctx context.Context, epochs []cluster.WALEpoch) (*view, error) {
	v := &view{epochs: make([]*epoch, len(epochs))}
	footers := make([][]*wal.Footer, len(epochs))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(lookups)
	for i, e := range epochs {
		g.Go(func() (err error) {
			v.epochs[i], footers[i], err = l.loadEpoch(gctx, e)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	if err := l.loadCheckpoint(ctx, v); err != nil {
		return nil, err
	}
	v.sections = make(map[logid.Partition][]section)
	for i, e := range v.epochs {
		listed := len(e.objects) - len(footers[i])
		if err := l.loadFooters(ctx, v, e, e.objects[:listed]); err != nil {
			return nil, err
		}
		for j, f := range footers[i] {
			v.add(e, &e.objects[listed+j], f)
		}
	}
	return v, nil
}

// loadEpoch reads an epoch's manifest, and the footers of the objects in the slots that it does not account for.
func (l *loader) loadEpoch(ctx context.Context, we cluster.WALEpoch) (*epoch, []*wal.Footer, error) {
	m, err := l.walManifest(ctx, we.Epoch)
	if err != nil {
		return nil, nil, err
	}
	for range reloads {
		e := &epoch{WALEpoch: we, manifest: m}
		if m != nil {
			e.end = m.MergedThrough
			for _, o := range m.Objects {
				e.objects = append(e.objects, object{Object: o, key: o.Key(l.cluster, we.Epoch), listed: true})
			}
			if m.Fence != nil && *m.Fence == m.MergedThrough {
				e.fenced = true
				return e, nil, nil
			}
		}
		footers, err := l.walk(ctx, e)
		if err != nil || e.fenced {
			return e, footers, err
		}
		// A slot may be missing because it was merged and collected since the manifest was read.
		if m, err = l.walManifest(ctx, we.Epoch); err != nil {
			return nil, nil, err
		}
		if m == nil || m.MergedThrough <= e.end {
			return e, footers, nil
		}
	}
	return nil, nil, errMoved
}

// walManifest returns the manifest of an epoch, nil if there is none or it was noted as faulty.
func (l *loader) walManifest(ctx context.Context, e logid.Epoch) (*manifest.WAL, error) {
	key := (&manifest.WAL{Epoch: e}).Key(l.cluster)
	body, _, err := objstore.ReadAll(ctx, l.store, key, manifest.MaxBody)
	if errors.Is(err, objstore.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, l.failed(key, err)
	}
	m, err := manifest.DecodeWAL(body, e)
	if err != nil {
		return nil, l.fault(key, err)
	}
	return m, nil
}

// failed tells what is wrong with an object, which the fault decides about, from a store that is away.
func (l *loader) failed(key string, err error) error {
	if isDamage(err) {
		return l.fault(key, err)
	}
	return err
}

// isDamage tells errors that say something about an object from those of a store that is away.
func isDamage(err error) bool {
	return errors.Is(err, ErrCorrupt) || errors.Is(err, objstore.ErrNotFound) || errors.Is(err, objstore.ErrInvalid) ||
		errors.Is(err, wal.ErrCorrupt) || errors.Is(err, wal.ErrNewer) || errors.Is(err, manifest.ErrCorrupt) || errors.Is(err, manifest.ErrNewer)
}

// walk finds the objects from the epoch's end on, several at a time, and moves the end to the first missing slot or the
// fence. A damaged object that was noted counts as one without records.
func (l *loader) walk(ctx context.Context, e *epoch) ([]*wal.Footer, error) {
	var all []*wal.Footer
	for window := 1; ; window = lookups {
		footers := make([]*wal.Footer, window)
		missing := make([]bool, window)
		g, gctx := errgroup.WithContext(ctx)
		for i := range window {
			g.Go(func() (err error) {
				footers[i], missing[i], err = l.slot(gctx, e.Epoch, e.end+logid.Slot(i))
				return err
			})
		}
		if err := g.Wait(); err != nil {
			return nil, err
		}
		for i, f := range footers {
			if missing[i] {
				return all, nil
			}
			if f.Header.Kind == wal.Fence {
				e.fenced = true
				return all, nil
			}
			o := manifest.Object{Kind: manifest.ObjectWAL, From: e.end, To: e.end, Size: f.Size, FooterSize: f.FooterSize}
			e.objects = append(e.objects, object{Object: o, key: o.Key(l.cluster, e.Epoch)})
			all = append(all, f)
			e.end++
		}
	}
}

// slot reads the footer of one slot of a WAL.
func (l *loader) slot(ctx context.Context, e logid.Epoch, s logid.Slot) (f *wal.Footer, missing bool, err error) {
	key := slotKey(l.cluster, e, s)
	f, err = readFooter(ctx, l.store, key, 0)
	if errors.Is(err, objstore.ErrNotFound) {
		return nil, true, nil
	}
	if err == nil && (f.Header.Epoch != e || f.Header.Slot != s || f.Header.Cluster != l.cluster) {
		err = fmt.Errorf("%w: it says slot %d of epoch %d", wal.ErrCorrupt, f.Header.Slot, f.Header.Epoch)
	}
	if err != nil {
		f = &wal.Footer{Header: wal.Header{Kind: wal.Data}}
		err = l.failed(key, err)
	}
	return f, false, err
}

func slotKey(c logid.ClusterID, e logid.Epoch, s logid.Slot) string {
	return manifest.Key{Kind: manifest.KeyWAL, Cluster: c, Epoch: e, Slot: s}.String()
}

// loadCheckpoint reads the newest checkpoint of all epochs.
func (l *loader) loadCheckpoint(ctx context.Context, v *view) error {
	for _, e := range slices.Backward(v.epochs) {
		if e.manifest == nil || e.manifest.Checkpoint == nil {
			continue
		}
		ref := *e.manifest.Checkpoint
		key := ref.Key(l.cluster, e.Epoch)
		body, _, err := objstore.ReadAll(ctx, l.store, key, math.MaxInt32)
		if err == nil {
			v.checkpoint, err = manifest.DecodeCheckpoint(body, l.cluster, e.Epoch, ref)
		}
		switch {
		case err == nil:
			return nil
		case errors.Is(err, objstore.ErrNotFound):
			return l.moved(ctx, e, key, func(m *manifest.WAL) bool { return m.Checkpoint != nil && *m.Checkpoint == ref })
		default:
			return l.failed(key, err)
		}
	}
	return nil
}

// moved decides about an object that an epoch's manifest names and that is not there: errMoved if it is no longer named.
func (l *loader) moved(ctx context.Context, e *epoch, key string, named func(*manifest.WAL) bool) error {
	m, err := l.walManifest(ctx, e.Epoch)
	if err != nil {
		return err
	}
	if m == nil || !named(m) {
		return errMoved
	}
	return l.fault(key, fmt.Errorf("%w: the manifest names it, and it is not there: %w", ErrCorrupt, objstore.ErrNotFound))
}

// loadFooters adds the sections of objects, in order.
func (l *loader) loadFooters(ctx context.Context, v *view, e *epoch, objects []object) error {
	for len(objects) > 0 {
		group := objects[:min(lookups, len(objects))]
		objects = objects[len(group):]
		footers := make([]*wal.Footer, len(group))
		g, gctx := errgroup.WithContext(ctx)
		for i := range group {
			g.Go(func() (err error) {
				footers[i], err = l.footer(gctx, e, &group[i])
				return err
			})
		}
		if err := g.Wait(); err != nil {
			return err
		}
		for i, f := range footers {
			v.add(e, &group[i], f)
		}
	}
	return nil
}

// footer reads the footer of an object that the manifest lists; nil if it was noted as faulty.
func (l *loader) footer(ctx context.Context, e *epoch, o *object) (*wal.Footer, error) {
	f, err := readFooter(ctx, l.store, o.key, o.FooterSize)
	if errors.Is(err, objstore.ErrNotFound) {
		return nil, l.moved(ctx, e, o.key, func(m *manifest.WAL) bool { return slices.Contains(m.Objects, o.Object) })
	}
	if err == nil {
		err = l.checkListed(e, o, f)
	}
	if err != nil {
		return nil, l.failed(o.key, err)
	}
	return f, nil
}

// checkListed compares an object's own words with the manifest's.
func (l *loader) checkListed(e *epoch, o *object, f *wal.Footer) error {
	h := f.Header
	want := wal.Data
	if o.Kind == manifest.ObjectMerged {
		want = wal.Merged
	}
	switch {
	case h.Kind != want || h.Cluster != l.cluster || h.Epoch != e.Epoch || h.Slot != o.From || h.Through != o.To:
		return fmt.Errorf("%w: it is a %v of slots %d to %d of epoch %d, the manifest says a %v of %d to %d of epoch %d",
			wal.ErrCorrupt, h.Kind, h.Slot, h.Through, h.Epoch, want, o.From, o.To, e.Epoch)
	case f.Size != o.Size || f.FooterSize != o.FooterSize:
		return fmt.Errorf("%w: it has %d bytes with a footer of %d, the manifest says %d with %d",
			wal.ErrCorrupt, f.Size, f.FooterSize, o.Size, o.FooterSize)
	}
	return nil
}

// add notes where an object's sections are. f may be nil.
func (v *view) add(e *epoch, o *object, f *wal.Footer) {
	if f == nil {
		return
	}
	for i := range f.Sections {
		s := &f.Sections[i]
		id := logid.Partition{Topic: s.Topic, Index: s.Partition}
		v.sections[id] = append(v.sections[id], section{
			obj: o, epoch: e, base: s.BaseOffset(), last: s.LastOffset(), maxTs: s.MaxTimestamp(), pos: s.Pos, size: s.Len,
		})
	}
}

// readFooter reads the metadata of a WAL object, merged segment or fence with one request if footerSize, the bytes that
// hold it, is known (0: unknown), and with at most two otherwise.
func readFooter(ctx context.Context, s objstore.Store, key string, footerSize int64) (*wal.Footer, error) {
	if footerSize <= 0 {
		footerSize = wal.TailHint
	}
	for {
		tail := tails.get(footerSize)
		n, info, err := s.ReadSuffix(ctx, key, tail)
		if err != nil {
			tails.put(tail)
			return nil, err
		}
		f, need, err := wal.ParseTail(tail[:n], info.Size)
		tails.put(tail)
		switch {
		case err != nil:
			return nil, err
		case f != nil:
			return f, nil
		case need <= int64(n):
			return nil, fmt.Errorf("%w: its footer cannot be read", wal.ErrCorrupt)
		}
		footerSize = need
	}
}

// tails reuses the buffers that footers are read into.
var tails tailPool

type tailPool struct{ p sync.Pool }

func (t *tailPool) get(n int64) []byte {
	if b, ok := t.p.Get().(*[]byte); ok && int64(cap(*b)) >= n {
		return (*b)[:n]
	}
	return make([]byte, n)
}

func (t *tailPool) put(b []byte) { t.p.Put(&b) }
