package rollup

import (
	"context"
	"errors"

	"github.com/tierlog/tierlog/tiered/logid"
	"github.com/tierlog/tierlog/tiered/manifest"
)

// Memory bounds the bytes of records in memory for each output that is being written.
const Memory = 16 << 20

// SegmentState is what the files beside the .log hold that is not in its records.
type SegmentState struct {
	// Producers is the state at the segment's end, after SegmentPlan.Last; empty: no .snapshot is written.
	Producers []manifest.ProducerState
	// Aborted are transactions; those whose marker lies in the segment go to its .txnindex.
	Aborted []manifest.AbortedTxn
}

// Outputs returns the keys that WriteSegment may create, to be declared. The plan's ULID must be set.
func (p SegmentPlan) Outputs(c logid.ClusterID) []string {
	var keys []string
	for _, f := range []manifest.FileKind{manifest.FileLog, manifest.FileIndex, manifest.FileTimeIndex, manifest.FileTxnIndex, manifest.FileSnapshot} {
		keys = append(keys, p.key(c, f))
	}
	return keys
}

func (p SegmentPlan) key(c logid.ClusterID, f manifest.FileKind) string {
	m := manifest.Partition{Topic: p.Topic, TopicID: p.Partition.Topic, Index: p.Partition.Index}
	return m.SegmentKey(c, manifest.Segment{Base: max(p.From, p.Extents[0].Base), Last: p.Last, ULID: p.ULID}, f)
}

// WriteSegment writes the log segment and returns its line for the partition's manifest. It may end before
// the plan's Last, where Kafka's formats could not hold all: what follows the returned Last is to be planned again.
func (w *Worker) WriteSegment(ctx context.Context, p SegmentPlan, s SegmentState) (manifest.Segment, error) {
	return manifest.Segment{}, errors.ErrUnsupported
}
