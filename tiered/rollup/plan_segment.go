package rollup

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/tierlog/tierlog/tiered/logid"
	"github.com/tierlog/tierlog/tiered/manifest"
)

// SegmentConfig says when partitions get log segments. Zero fields get the defaults that are named.
type SegmentConfig struct {
	// Min is how many bytes are worth a log segment (default 1 MiB).
	Min int64
	// Age is how old Min bytes become before they are put into a log segment, however few they are (default 24 hours).
	Age time.Duration
	// MaxExtents is how many extents may be left over all partitions, since each costs about a hundred bytes of memory
	// (default 500,000). Over it, partitions of at least Min bytes get log segments early, those with most extents first.
	MaxExtents int
}

func (c SegmentConfig) withDefaults() SegmentConfig {
	def(&c.Min, 1<<20)
	def(&c.Age, 24*time.Hour)
	def(&c.MaxExtents, 500_000)
	return c
}

// PartitionStat is a partition as far as it is not in log segments.
type PartitionStat struct {
	Partition logid.Partition
	Topic     string
	// RolledThrough is the first offset that is in no log segment, LogStart the first that is alive.
	RolledThrough logid.Offset
	LogStart      logid.Offset
	// RolledEpoch is the leader epoch of the last record below RolledThrough, logid.NoLeaderEpoch if there is none.
	RolledEpoch logid.LeaderEpoch
	// SegmentBytes and SegmentMs are the topic's segment.bytes and segment.ms; 0 or less: no bound.
	SegmentBytes int64
	SegmentMs    int64
	// Count and Bytes are of all extents; a partition of fewer than SegmentConfig.Min bytes needs none below.
	Count int
	Bytes int64
	// Extents are the durable ones in offset order, without overlap. Those that end below RolledThrough or LogStart are
	// passed over.
	Extents []Extent
}

// Extent is a run of a partition's records in a bucket object: a section of it.
type Extent struct {
	Base, Last logid.Offset
	Epoch      logid.LeaderEpoch
	MaxTs      int64  // of its records in Unix milliseconds, -1 for none
	WrittenMs  int64  // when it was written, by any clock; 0, not known, counts as long ago
	Key        string // of the object
	Pos, Len   int64  // bytes of the object
	CRC        uint32 // CRC-32C of the section, if HasCRC: it saves S3 stores a second read of the records
	HasCRC     bool
}

// SegmentPlan is a log segment to be written: the records of From and later in the extents.
type SegmentPlan struct {
	Partition logid.Partition
	Topic     string
	// ULID names the segment. It is zero in a plan; the caller sets it before it declares the outputs.
	ULID manifest.ULID
	// From is the partition's RolledThrough; the first extent may begin before it. Last is the last offset.
	From, Last logid.Offset
	// PrevEpoch is the leader epoch of the record before the segment.
	PrevEpoch logid.LeaderEpoch
	Bytes     int64 // of the extents
	Extents   []Extent
	Why       Reason
}

// Reasons for log segments.
const (
	Full    Reason = "full"    // segment.bytes
	Aged    Reason = "aged"    // enough bytes that are old enough, or segment.ms
	Pressed Reason = "pressed" // too many extents
)

// PlanSegments says which records to put into log segments, partition by partition in the order of parts, and in
// offset order within one. A partition gets segments
//
//   - of segment.bytes each, as long as it has so many bytes: a segment ends before the extent that would make it larger,
//     so that only one that is a single extent is;
//   - and one of all the rest, when Min bytes of it are Age old, or the oldest is segment.ms old and there are Min;
//   - and likewise while the extents over all partitions are too many.
//
// The rest is taken whole, the newest records too, so that a slow partition gets a segment a day and not a small one
// every round. No segment exceeds what Kafka's formats hold: 2^31-1 bytes, and offsets 2^31-1 after the first.
func PlanSegments(parts []PartitionStat, cfg SegmentConfig, nowMs int64) []SegmentPlan {
	cfg = cfg.withDefaults()
	pressed := pressedParts(parts, cfg)
	var plans []SegmentPlan
	for i := range parts {
		p := &parts[i]
		if p.Bytes < cfg.Min {
			continue
		}
		c := cutter{part: p, cfg: cfg, nowMs: nowMs, from: max(p.RolledThrough, 0), epoch: p.RolledEpoch}
		plans = append(plans, c.cut(pressed[i])...)
	}
	return plans
}

// pressedParts chooses the partitions that get segments early.
func pressedParts(parts []PartitionStat, cfg SegmentConfig) map[int]bool {
	total := 0
	for i := range parts {
		total += parts[i].Count
	}
	if total <= cfg.MaxExtents {
		return nil
	}
	var order []int
	for i := range parts {
		if parts[i].Bytes >= cfg.Min {
			order = append(order, i)
		}
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(parts[b].Count, parts[a].Count) })
	pressed := make(map[int]bool)
	for _, i := range order {
		if total <= cfg.MaxExtents {
			break
		}
		pressed[i] = true
		total -= parts[i].Count
	}
	return pressed
}

// cutter cuts one partition's extents into segments.
type cutter struct {
	part  *PartitionStat
	cfg   SegmentConfig
	nowMs int64
	from  logid.Offset
	epoch logid.LeaderEpoch
}

func (c *cutter) cut(pressed bool) []SegmentPlan {
	var plans []SegmentPlan
	alive := c.part.Extents
	for len(alive) > 0 && alive[0].Last < max(c.part.RolledThrough, c.part.LogStart) {
		alive = alive[1:]
	}
	rest := alive
	for {
		n := c.fill(rest)
		if n == 0 {
			break
		}
		plans = append(plans, c.plan(rest[:n], Full))
		rest = rest[n:]
	}
	if why, due := c.restDue(rest, pressed); due {
		plans = append(plans, c.plan(rest, why))
	}
	return plans
}

// fill returns how many extents fill a segment, 0 if there are too few.
func (c *cutter) fill(extents []Extent) int {
	limit := int64(math.MaxInt32)
	if c.part.SegmentBytes > 0 {
		limit = min(limit, c.part.SegmentBytes)
	}
	size := int64(0)
	for i := range extents {
		e := &extents[i]
		if i > 0 && (size+e.Len > limit || int64(e.Last-max(extents[0].Base, c.from)) > math.MaxInt32) {
			return i
		}
		if size += e.Len; size >= limit {
			return i + 1
		}
	}
	return 0
}

func (c *cutter) restDue(rest []Extent, pressed bool) (Reason, bool) {
	size, old := int64(0), int64(0)
	for i := range rest {
		size += rest[i].Len
		if c.nowMs-rest[i].WrittenMs >= c.cfg.Age.Milliseconds() {
			old += rest[i].Len
		}
	}
	switch {
	case size < c.cfg.Min:
		return "", false
	case old >= c.cfg.Min, c.part.SegmentMs > 0 && c.nowMs-rest[0].WrittenMs >= c.part.SegmentMs:
		return Aged, true
	default:
		return Pressed, pressed
	}
}

func (c *cutter) plan(extents []Extent, why Reason) SegmentPlan {
	last := extents[len(extents)-1]
	p := SegmentPlan{
		Partition: c.part.Partition, Topic: c.part.Topic, From: c.from, Last: last.Last, PrevEpoch: c.epoch,
		Extents: slices.Clone(extents), Why: why,
	}
	for i := range extents {
		p.Bytes += extents[i].Len
	}
	c.from, c.epoch = last.Last+1, last.Epoch
	return p
}

// String says what is to be written, for logs.
func (p SegmentPlan) String() string {
	return fmt.Sprintf("log segment of %s-%d: offsets %d to %d, %d bytes, %s",
		p.Topic, p.Partition.Index, max(p.From, p.Extents[0].Base), p.Last, p.Bytes, p.Why)
}
