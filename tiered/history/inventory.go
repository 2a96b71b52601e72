package history

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/tierlog/tierlog/objstore"
	"github.com/tierlog/tierlog/tiered/logid"
	"github.com/tierlog/tierlog/tiered/manifest"
)

// Kind is what an object of the bucket is, for people.
type Kind string

// The kinds of objects, in the order of listings.
const (
	KindCluster    Kind = "cluster"
	KindMetadata   Kind = "metadata"   // metadata log and its snapshots
	KindLease      Kind = "lease"      // of brokers
	KindManifest   Kind = "manifest"   // of WALs and partitions, and their pages
	KindCheckpoint Kind = "checkpoint" // state of partitions
	KindWAL        Kind = "wal"        // WAL objects
	KindFence      Kind = "fence"      // ends of WALs
	KindMerged     Kind = "merged"     // merged segments
	KindSegment    Kind = "segment"    // .log files of log segments
	KindIndex      Kind = "index"      // the files beside them
	KindJob        Kind = "job"        // intents of maintenance, and the deletion journal
	KindForeign    Kind = "foreign"    // not of this cluster's layout
)

// Kinds returns all kinds in order.
func Kinds() []Kind {
	return []Kind{
		KindCluster, KindMetadata, KindLease, KindManifest, KindCheckpoint, KindWAL, KindFence, KindMerged, KindSegment,
		KindIndex, KindJob, KindForeign,
	}
}

// Entry is one object of the bucket.
type Entry struct {
	Key  string `json:"key"`
	Size int64  `json:"size"` // bytes
	Kind Kind   `json:"kind"`
}

// List calls fn with every object whose key starts with prefix, in the order of the keys. A WAL object that is no larger
// than a fence is told from one by Take and Verify alone; here it is a WAL object.
func List(ctx context.Context, s objstore.Store, prefix string, fn func(Entry) error) error {
	ctx = objstore.WithPurpose(ctx, objstore.PurposeHistory)
	for after := ""; ; {
		page, err := s.List(ctx, prefix, after, 0)
		if err != nil {
			return err
		}
		for _, o := range page.Objects {
			after = o.Key
			if err := fn(Entry{Key: o.Key, Size: o.Size, Kind: kindOf(o.Key)}); err != nil {
				return err
			}
		}
		if !page.More || len(page.Objects) == 0 {
			return nil
		}
	}
}

func kindOf(key string) Kind {
	k, err := manifest.ParseKey(key)
	if err != nil {
		return KindForeign
	}
	switch k.Kind {
	case manifest.KeyCluster:
		return KindCluster
	case manifest.KeyMeta, manifest.KeyMetaSnapshot:
		return KindMetadata
	case manifest.KeyLease:
		return KindLease
	case manifest.KeyWAL:
		return KindWAL
	case manifest.KeyWALManifest, manifest.KeyPartitionManifest, manifest.KeyPage:
		return KindManifest
	case manifest.KeyCheckpoint:
		return KindCheckpoint
	case manifest.KeyMerged:
		return KindMerged
	case manifest.KeySegmentFile:
		if k.File == manifest.FileLog {
			return KindSegment
		}
		return KindIndex
	case manifest.KeyJob, manifest.KeyDeletion:
		return KindJob
	default:
		return KindForeign
	}
}

// fenceSize is the size of a fence in bytes; no object with records is as small.
const fenceSize = 72

// census is the bucket's listing and what of it is named.
type census struct {
	cluster logid.ClusterID
	sizes   map[string]int64
	named   map[string]bool
	epochs  map[logid.Epoch]*epoch
	live    map[logid.TopicID]bool
	jobs    map[string]bool // declared outputs of jobs
	queued  map[string]bool // in the deletion journal
	// beyond counts the objects in slots after the end of a WAL; the others count what is in its folders.
	beyond, checkpoints, merged map[logid.Epoch]int
}

// takeCensus lists the bucket. It must be done before what names objects is read: what is written in between is then
// named and not listed, which a look at the object settles.
func takeCensus(ctx context.Context, s objstore.Store) (map[string]int64, error) {
	sizes := make(map[string]int64)
	err := List(ctx, s, "", func(e Entry) error {
		sizes[e.Key] = e.Size
		return nil
	})
	return sizes, err
}

func newCensus(c logid.ClusterID, sizes map[string]int64, v *view) *census {
	n := &census{
		cluster: c, sizes: sizes, named: make(map[string]bool), epochs: make(map[logid.Epoch]*epoch), live: make(map[logid.TopicID]bool),
		jobs: make(map[string]bool), queued: make(map[string]bool),
		beyond: make(map[logid.Epoch]int), checkpoints: make(map[logid.Epoch]int), merged: make(map[logid.Epoch]int),
	}
	for _, e := range v.epochs {
		n.epochs[e.Epoch] = e
		for i := range e.objects {
			n.named[e.objects[i].key] = true
		}
		if e.manifest != nil && e.manifest.Checkpoint != nil {
			n.named[e.manifest.Checkpoint.Key(c, e.Epoch)] = true
		}
	}
	for key := range sizes {
		k, err := manifest.ParseKey(key)
		if err != nil || k.Cluster != c {
			continue
		}
		switch e := n.epochs[k.Epoch]; {
		case e == nil:
		case k.Kind == manifest.KeyWAL && k.Slot > e.end:
			n.beyond[k.Epoch]++
		case k.Kind == manifest.KeyMerged:
			n.merged[k.Epoch]++
		case k.Kind == manifest.KeyCheckpoint:
			n.checkpoints[k.Epoch]++
		}
	}
	return n
}

// addPlan names what a partition's manifest names, dead segments included.
func (n *census) addPlan(m *manifest.Partition, segments []manifest.Segment) {
	if m == nil {
		return
	}
	n.named[m.Key(n.cluster)] = true
	for _, ref := range m.Pages {
		n.named[m.PageKey(n.cluster, ref)] = true
	}
	for _, s := range segments {
		for _, f := range segmentFiles {
			if s.FileSize(f) > 0 {
				n.named[m.SegmentKey(n.cluster, s, f)] = true
			}
		}
	}
}

var segmentFiles = [...]manifest.FileKind{
	manifest.FileLog, manifest.FileIndex, manifest.FileTimeIndex, manifest.FileTxnIndex, manifest.FileSnapshot,
}

// loadJobs notes the outputs of jobs and the keys of the deletion journal. What cannot be read is bad's business.
func (n *census) loadJobs(ctx context.Context, s objstore.Store, bad fault) error {
	for key := range n.sizes {
		if kindOf(key) != KindJob || !strings.HasPrefix(key, n.cluster.String()+"/") {
			continue
		}
		k, err := manifest.ParseKey(key)
		if err != nil {
			return err
		}
		body, _, err := objstore.ReadAll(ctx, s, key, manifest.MaxBody)
		switch {
		case errors.Is(err, objstore.ErrNotFound): // done meanwhile
		case err != nil:
			return err
		default:
			if err := n.addJob(k, body); err != nil {
				if err := bad(key, err); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func (n *census) addJob(k manifest.Key, body []byte) error {
	if k.Kind == manifest.KeyDeletion {
		d, err := manifest.DecodeDeletion(body, n.cluster, k.ULID)
		if err != nil {
			return err
		}
		for _, key := range d.Keys {
			n.queued[key] = true
		}
		return nil
	}
	j, err := manifest.DecodeJob(body, n.cluster, k.ULID)
	if err != nil {
		return err
	}
	for _, key := range j.Outputs {
		n.jobs[key] = true
	}
	return nil
}

// kind tells fences from WAL objects.
func (n *census) kind(key string) Kind {
	k := kindOf(key)
	switch {
	case k == KindWAL && n.sizes[key] == fenceSize:
		return KindFence
	case k != KindCluster && !strings.HasPrefix(key, n.cluster.String()+"/"):
		return KindForeign
	}
	return k
}

// orphan says why nothing needs an object; ok is false for one that is needed or may yet be.
func (n *census) orphan(key string) (why string, ok bool) {
	kind := n.kind(key)
	switch kind {
	case KindCluster, KindMetadata, KindLease, KindJob, KindFence:
		return "", false
	case KindForeign:
		return "it is not of this cluster's layout", true
	default:
	}
	k, err := manifest.ParseKey(key)
	if err != nil || n.named[key] {
		return "", false
	}
	if n.queued[key] {
		return "it waits in the deletion journal", true
	}
	if n.jobs[key] {
		return "a maintenance job made it, or is at work on it", true
	}
	return n.unnamed(k)
}

// unnamed says why an object that nothing names is there.
func (n *census) unnamed(k manifest.Key) (why string, ok bool) {
	switch k.Kind {
	case manifest.KeyWAL, manifest.KeyWALManifest, manifest.KeyMerged, manifest.KeyCheckpoint:
		e := n.epochs[k.Epoch]
		switch {
		case e == nil:
			return "its broker epoch is retired", true
		case k.Kind == manifest.KeyWALManifest:
			return "", false
		case k.Kind != manifest.KeyWAL:
			return "no manifest names it", true
		case k.Slot < e.end:
			return "other objects have replaced it", true
		case e.fenced:
			return fmt.Sprintf("the WAL ends with the fence in slot %d", e.end), true
		default:
			return "", false // in flight, or after a hole that Verify looks into
		}
	default:
		if !n.live[k.Partition.Topic] {
			return "its topic does not exist", true
		}
		return "no manifest names it", true
	}
}

// keys returns the listed keys in order.
func (n *census) keys() []string {
	keys := make([]string, 0, len(n.sizes))
	for k := range n.sizes {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
