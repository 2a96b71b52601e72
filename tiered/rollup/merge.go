package rollup

import (
	"context"
	"errors"

	"github.com/tierlog/tierlog/tiered/logid"
	"github.com/tierlog/tierlog/tiered/manifest"
	"github.com/tierlog/tierlog/tiered/wal"
)

// MergeInput is a run to be carried out.
type MergeInput struct {
	Epoch   logid.Epoch
	Objects []manifest.Object // consecutive, in the manifest's order
	ULID    manifest.ULID     // of the output
	// Alive tells whether any record of the partition between the two offsets, both included, may still be read
	// from this object. It is called for each section.
	Alive func(p logid.Partition, base, last logid.Offset) bool
}

// Output returns the key of the merged segment, to be declared.
func (in MergeInput) Output(c logid.ClusterID) string {
	o := manifest.Object{Kind: manifest.ObjectMerged, From: in.Objects[0].From, To: in.Objects[len(in.Objects)-1].To, ULID: in.ULID}
	return o.Key(c, in.Epoch)
}

// Merged is a merged segment in the bucket. Footer says where each partition's records are in it.
type Merged struct {
	Object manifest.Object
	Footer *wal.Footer // nil: nothing was alive, nothing was written
}

// Merge writes one merged segment of what is alive in the input's objects.
func (w *Worker) Merge(ctx context.Context, in MergeInput) (Merged, error) {
	return Merged{}, errors.ErrUnsupported
}
