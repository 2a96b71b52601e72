package history

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/tierlog/tierlog/cluster"
	"github.com/tierlog/tierlog/objstore"
	"github.com/tierlog/tierlog/record"
	"github.com/tierlog/tierlog/tiered/logid"
	"github.com/tierlog/tierlog/tiered/manifest"
)

// VerifyOptions says what Verify does. Its functions are called from one goroutine at a time.
type VerifyOptions struct {
	// Fast reads manifests, footers and sizes, and no records.
	Fast bool
	// Problem gets everything that is wrong, Note what is worth knowing and no fault: what nothing needs, gaps of offsets.
	Problem, Note func(Finding)
}

// Finding is something that Verify has to say of an object, or of a partition.
type Finding struct {
	Subject string `json:"subject"` // a key, or TOPIC/PARTITION
	What    string `json:"what"`
}

func (f Finding) String() string { return f.Subject + ": " + f.What }

// Verified counts what Verify has seen. It may be read while Verify runs.
type Verified struct {
	Objects, Batches, Records, Bytes, Problems, Notes atomic.Int64
}

func (n *Verified) count(b record.Batch) {
	n.Batches.Add(1)
	n.Records.Add(int64(b.NumRecords()))
	n.Bytes.Add(int64(len(b)))
}

// verifiers is how many objects are read at a time.
const verifiers = 4

// verifier checks one bucket.
type verifier struct {
	cfg  Config
	opts VerifyOptions
	seen *Verified

	mu   sync.Mutex
	said map[Finding]bool // guarded by mu

	meta   *cluster.Log
	view   *view
	census *census
}

// Verify reads all that is live, or with Fast what says where it is, and reports what is not as it must be. Its own error
// says that it could not do so, whatever it has reported before. A live broker may be at work.
func Verify(ctx context.Context, cfg Config, opts VerifyOptions, seen *Verified) error {
	if err := cfg.Validate(); err != nil {
		return err
	}
	cfg.setDefaults()
	ctx = objstore.WithPurpose(ctx, objstore.PurposeHistory)
	v := &verifier{cfg: cfg, opts: opts, seen: seen, said: make(map[Finding]bool)}
	sizes, err := takeCensus(ctx, cfg.Store)
	if err != nil {
		return err
	}
	if usable, err := v.metadata(ctx, sizes); err != nil || !usable {
		return err
	}
	if v.view, err = loadView(ctx, &v.cfg, v.meta, v.fault); err != nil {
		return err
	}
	v.census = newCensus(v.meta.ClusterID(), sizes, v.view)
	if err := v.census.loadJobs(ctx, cfg.Store, v.fault); err != nil {
		return err
	}
	if err := v.wals(ctx); err != nil {
		return err
	}
	if err := v.partitions(ctx); err != nil {
		return err
	}
	v.orphans()
	return nil
}

// orphans notes what nothing needs. What a broker is about to delete is summed up.
func (v *verifier) orphans() {
	var queued Measure
	for _, key := range v.census.keys() {
		why, ok := v.census.orphan(key)
		switch {
		case !ok:
		case v.census.queued[key]:
			queued.add(v.census.sizes[key])
		default:
			v.note(key, "%d bytes that nothing needs: %s", v.census.sizes[key], why)
		}
	}
	if queued.Objects > 0 {
		v.note(v.census.cluster.String()+"/gc/", "%d objects of %d bytes wait in the deletion journal", queued.Objects, queued.Bytes)
	}
}

func (v *verifier) say(to func(Finding), n *atomic.Int64, f Finding) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.said[f] {
		return
	}
	v.said[f] = true
	n.Add(1)
	if to != nil {
		to(f)
	}
}

func (v *verifier) problem(subject, format string, args ...any) {
	v.say(v.opts.Problem, &v.seen.Problems, Finding{subject, fmt.Sprintf(format, args...)})
}

func (v *verifier) note(subject, format string, args ...any) {
	v.say(v.opts.Note, &v.seen.Notes, Finding{subject, fmt.Sprintf(format, args...)})
}

// fault reports a damaged object, and the work goes on without it.
func (v *verifier) fault(key string, err error) error {
	v.problem(key, "%v", err)
	return nil
}

// outcome reports what an error says of an object; errors that say nothing of it are returned.
func (v *verifier) outcome(key string, err error) error {
	if err == nil || !isDamage(err) {
		return err
	}
	return v.fault(key, err)
}

// metadata checks the cluster's identity, the metadata log, its snapshots and the leases. usable says that the state of
// the cluster is known.
func (v *verifier) metadata(ctx context.Context, sizes map[string]int64) (usable bool, err error) {
	body, _, err := objstore.ReadAll(ctx, v.cfg.Store, manifest.ClusterKey, manifest.MaxBody)
	if errors.Is(err, objstore.ErrNotFound) {
		return false, cluster.ErrNoCluster
	}
	if err != nil {
		return false, err
	}
	c, err := manifest.DecodeCluster(body)
	if err != nil {
		return false, v.outcome(manifest.ClusterKey, err)
	}
	v.seen.Objects.Add(1)
	sound, err := v.slots(ctx, c.ID, sizes)
	if err != nil {
		return false, err
	}
	open := cluster.Config{Store: v.cfg.Store, Logger: v.cfg.Logger, Now: v.cfg.Now, ReadOnly: true}
	if sound {
		// From the first slot on: a snapshot could hide that the slots do not follow from each other.
		open.Store = withoutSnapshots{v.cfg.Store, manifest.Prefix(c.ID, manifest.KeyMetaSnapshot)}
	}
	v.meta, err = cluster.Open(ctx, open)
	if errors.Is(err, cluster.ErrCorrupt) || errors.Is(err, cluster.ErrNewer) {
		v.problem(manifest.Prefix(c.ID, manifest.KeyMeta), "the state of the cluster is not known: %v", err)
		return false, nil
	}
	return err == nil, err
}

// The kinds of the metadata's bodies.
const (
	kindRecord   manifest.Kind = "metadata-record"
	kindSnapshot manifest.Kind = "metadata-snapshot"
	kindLease    manifest.Kind = "lease"
)

// slots checks each body of the metadata, and that no slot is missing.
func (v *verifier) slots(ctx context.Context, c logid.ClusterID, sizes map[string]int64) (sound bool, err error) {
	sound = true
	slots := make(map[logid.Slot]bool)
	last := logid.Slot(0)
	var mu sync.Mutex
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(lookups)
	for key := range sizes {
		k, err := manifest.ParseKey(key)
		if err != nil || k.Cluster != c {
			continue
		}
		kind, ok := map[manifest.KeyKind]manifest.Kind{
			manifest.KeyMeta: kindRecord, manifest.KeyMetaSnapshot: kindSnapshot, manifest.KeyLease: kindLease,
		}[k.Kind]
		if !ok {
			continue
		}
		if k.Kind == manifest.KeyMeta {
			slots[k.Slot] = true
			last = max(last, k.Slot)
		}
		g.Go(func() error {
			good, err := v.body(gctx, key, kind)
			mu.Lock()
			defer mu.Unlock()
			sound = sound && (good || k.Kind != manifest.KeyMeta)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return false, err
	}
	for s := cluster.FirstSlot; s < last; s++ {
		if !slots[s] {
			sound = false
			key := manifest.Key{Kind: manifest.KeyMeta, Cluster: c, Slot: s}.String()
			v.problem(key, "it is missing, and the metadata log goes on to slot %d", last)
		}
	}
	return sound, nil
}

// body checks the frame of a body of the metadata.
func (v *verifier) body(ctx context.Context, key string, kind manifest.Kind) (good bool, err error) {
	b, _, err := objstore.ReadAll(ctx, v.cfg.Store, key, manifest.MaxBody)
	if errors.Is(err, objstore.ErrNotFound) {
		return true, nil // a snapshot or lease that a broker deleted; a slot shows as missing when the log is read
	}
	if err == nil {
		var fields map[string]any
		_, err = manifest.DecodeBody(kind, b, &fields)
	}
	if err != nil {
		return false, v.outcome(key, err)
	}
	v.seen.Objects.Add(1)
	return true, nil
}

// withoutSnapshots is a store that lists no snapshots of the metadata log.
type withoutSnapshots struct {
	objstore.Store
	prefix string
}

func (s withoutSnapshots) List(ctx context.Context, prefix, after string, limit int) (objstore.Page, error) {
	if prefix == s.prefix {
		return objstore.Page{}, nil
	}
	return s.Store.List(ctx, prefix, after, limit)
}

// exists checks that an object is there with the size that a manifest says, as far as the listing or a look can tell.
func (v *verifier) exists(ctx context.Context, key string, size int64, named func(context.Context) (bool, error)) error {
	got, ok := v.census.sizes[key]
	if !ok || got != size {
		// Written, or replaced, since the listing?
		info, err := v.cfg.Store.Head(ctx, key)
		if errors.Is(err, objstore.ErrNotFound) {
			still, err := named(ctx)
			if err == nil && still {
				v.problem(key, "it is missing, and a manifest names it")
			}
			return err
		}
		if err != nil {
			return err
		}
		got = info.Size
	}
	if got != size {
		v.problem(key, "it has %d bytes, the manifest says %d: truncated or overwritten", got, size)
	}
	return nil
}
