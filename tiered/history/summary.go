package history

import (
	"context"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/tierlog/tierlog/cluster"
	"github.com/tierlog/tierlog/objstore"
	"github.com/tierlog/tierlog/tiered/logid"
)

// Summary says what is live in a bucket.
type Summary struct {
	Cluster string           `json:"clusterId"`
	Slot    uint64           `json:"metadataSlot"` // the last one of the metadata log
	Brokers []BrokerSummary  `json:"brokers"`
	Epochs  []EpochSummary   `json:"epochs"`
	Topics  []TopicSummary   `json:"topics"`
	Usage   map[Kind]Measure `json:"usage,omitempty"` // only from Take
	Garbage Measure          `json:"garbage"`         // of all kinds, what nothing needs; only from Take
	// Total is of the whole bucket, Records of the batches that can be read; only from Take.
	Total   Measure `json:"total"`
	Records int64   `json:"recordBytes"`
	Damaged int     `json:"damagedObjects"` // whose footers cannot be read
}

// Measure counts objects.
type Measure struct {
	Objects int64 `json:"objects"`
	Bytes   int64 `json:"bytes"`
}

func (m *Measure) add(size int64) {
	m.Objects++
	m.Bytes += size
}

// BrokerSummary is a broker that has not been removed.
type BrokerSummary struct {
	Node    int32  `json:"node"`
	Epoch   uint64 `json:"epoch"`
	Address string `json:"address"`
	Version string `json:"version,omitempty"`
}

// EpochSummary is a WAL that may hold live records.
type EpochSummary struct {
	Epoch uint64 `json:"epoch"`
	Node  int32  `json:"node"`
	Live  bool   `json:"live"`
	// Slots is where the WAL ends: its fence, if Fenced, or the next slot.
	Slots  uint64 `json:"slots"`
	Fenced bool   `json:"fenced"`
	// MergedThrough is the first slot that the manifest does not account for, Unlisted the objects from there on.
	MergedThrough uint64  `json:"mergedThrough"`
	WAL           Measure `json:"wal"`
	Merged        Measure `json:"merged"`
	Checkpoint    bool    `json:"checkpoint"`
}

// TopicSummary is a topic and its partitions.
type TopicSummary struct {
	Name       string             `json:"name"`
	ID         string             `json:"id"`
	Partitions []PartitionSummary `json:"partitions"`
	Bytes      int64              `json:"bytes"`   // of batches
	Records    int64              `json:"records"` // as the offsets say
}

// PartitionSummary says where a partition's records are.
type PartitionSummary struct {
	Partition     int32  `json:"partition"`
	Start         int64  `json:"start"`
	End           int64  `json:"end"`
	RolledThrough int64  `json:"rolledThrough"`
	Segments      int    `json:"segments"`
	SegmentBytes  int64  `json:"segmentBytes"`
	Sections      int    `json:"sections"` // in WAL objects and merged segments
	SectionBytes  int64  `json:"sectionBytes"`
	LeaderEpoch   int32  `json:"leaderEpoch"`
	Error         string `json:"error,omitempty"` // why it cannot be told
}

// Bytes is the size of the partition's batches.
func (p *PartitionSummary) Bytes() int64 { return p.SegmentBytes + p.SectionBytes }

// Records is the number of records, as the offsets say.
func (p *PartitionSummary) Records() int64 { return p.End - p.Start }

// Summarize says what is live, of the topics whose names start with a prefix. It does not list the bucket.
func (r *Reader) Summarize(ctx context.Context, prefix string) (*Summary, error) {
	ctx = objstore.WithPurpose(ctx, objstore.PurposeHistory)
	v := r.current()
	s := &Summary{Cluster: r.ClusterID().String(), Slot: uint64(r.meta.State().Slot()), Brokers: []BrokerSummary{}, Topics: []TopicSummary{}, Damaged: len(v.faults)}
	for _, b := range r.meta.State().Brokers() {
		s.Brokers = append(s.Brokers, BrokerSummary{Node: int32(b.Node), Epoch: uint64(b.Epoch), Address: b.Address(), Version: b.Version})
	}
	for _, e := range v.epochs {
		s.Epochs = append(s.Epochs, e.summary())
	}
	for _, t := range r.Topics() {
		if !strings.HasPrefix(t.Name, prefix) {
			continue
		}
		ts, err := r.summarizeTopic(ctx, t)
		if err != nil {
			return nil, err
		}
		s.Topics = append(s.Topics, ts)
	}
	return s, nil
}

// summarizeTopic looks at some partitions at a time. What cannot be read of one is said there.
func (r *Reader) summarizeTopic(ctx context.Context, t *cluster.Topic) (TopicSummary, error) {
	ts := TopicSummary{Name: t.Name, ID: t.ID.String(), Partitions: make([]PartitionSummary, len(t.Partitions))}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(lookups)
	for i := range t.Partitions {
		g.Go(func() error {
			ps, err := r.summarize(gctx, part{t.Name, logid.Partition{Topic: t.ID, Index: int32(i)}})
			if err != nil && !isDamage(err) {
				return err
			}
			if err != nil {
				ps.Error = err.Error()
			}
			ps.LeaderEpoch = int32(t.Partitions[i].LeaderEpoch)
			ts.Partitions[i] = ps
			return nil
		})
	}
	err := g.Wait()
	for i := range ts.Partitions {
		ts.Bytes += ts.Partitions[i].Bytes()
		ts.Records += ts.Partitions[i].Records()
	}
	return ts, err
}

func (e *epoch) summary() EpochSummary {
	s := EpochSummary{Epoch: uint64(e.Epoch), Node: int32(e.Node), Live: e.Live, Slots: uint64(e.end), Fenced: e.fenced}
	if e.manifest != nil {
		s.MergedThrough = uint64(e.manifest.MergedThrough)
		s.Checkpoint = e.manifest.Checkpoint != nil
	}
	for i := range e.objects {
		o := &e.objects[i]
		if o.ULID.IsZero() {
			s.WAL.add(o.Size)
		} else {
			s.Merged.add(o.Size)
		}
	}
	return s
}

func (r *Reader) summarize(ctx context.Context, p part) (PartitionSummary, error) {
	ps := PartitionSummary{Partition: p.id.Index}
	pl, err := r.plan(ctx, p)
	if err != nil {
		return ps, err
	}
	ps.Start, ps.End = pl.start, pl.end
	if pl.manifest != nil {
		ps.RolledThrough = int64(pl.manifest.RolledThrough)
	}
	for _, pc := range pl.pieces {
		if pc.segment != nil {
			ps.Segments++
			ps.SegmentBytes += pc.size
		} else {
			ps.Sections++
			ps.SectionBytes += pc.size
		}
	}
	return ps, nil
}

// Take lists the whole bucket and says what each kind of object takes, and how much of it nothing needs.
func Take(ctx context.Context, cfg Config) (*Summary, error) {
	ctx = objstore.WithPurpose(ctx, objstore.PurposeHistory)
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	sizes, err := takeCensus(ctx, cfg.Store)
	if err != nil {
		return nil, err
	}
	r, err := Open(ctx, cfg)
	if err != nil {
		return nil, err
	}
	s, err := r.Summarize(ctx, "")
	if err != nil {
		return nil, err
	}
	v := r.current()
	n := newCensus(r.ClusterID(), sizes, v)
	if err := n.loadJobs(ctx, cfg.Store, func(string, error) error { return nil }); err != nil {
		return nil, err
	}
	l := &loader{store: r.cfg.Store, cluster: r.ClusterID(), fault: func(string, error) error { return nil }}
	for _, t := range r.Topics() {
		n.live[t.ID] = true
		for i := range t.Partitions {
			m, err := l.partitionManifest(ctx, part{t.Name, logid.Partition{Topic: t.ID, Index: int32(i)}})
			if err != nil {
				return nil, err
			}
			segments, err := l.segments(ctx, m)
			if err != nil {
				return nil, err
			}
			n.addPlan(m, segments)
		}
	}
	for i := range s.Topics {
		s.Records += s.Topics[i].Bytes
	}
	s.Usage = make(map[Kind]Measure)
	for key, size := range sizes {
		s.Total.add(size)
		if _, dead := n.orphan(key); dead {
			s.Garbage.add(size)
		}
		kind := n.kind(key)
		m := s.Usage[kind]
		m.add(size)
		s.Usage[kind] = m
	}
	return s, nil
}
