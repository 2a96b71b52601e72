package rollup_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sort"
	"testing"

	"github.com/tierlog/tierlog/tiered/logid"
	"github.com/tierlog/tierlog/tiered/manifest"
	"github.com/tierlog/tierlog/tiered/rollup"
)

// Bytes that the formats add, rounded up.
const (
	objectOverhead  = 64 + 64 + 32 + 8 // header, its copy in the footer, trailer
	sectionOverhead = 40
	entryOverhead   = 13
	indexEvery      = 4096 // bytes of a .log file for an entry in .index and one in .timeindex
	indexOverhead   = 8 + 12
	segmentOverhead = 12 + 1024 // the last time index entry, a snapshot of twenty producers
)

// simSection is a section of a live object.
type simSection struct {
	part       int
	obj        *simObject
	base, last int64
	bytes      int64
	entries    int64
}

type simObject struct {
	stat     rollup.ObjectStat
	sections []*simSection
}

type simPartition struct {
	next, rolled, start int64
	extents             []*simSection
	bytes               int64
	segments            int
}

// sim lets the planners look after a broker's log that nobody reads.
type sim struct {
	nowMs    int64
	objects  []*simObject
	parts    []simPartition
	segBytes int64
	slot     logid.Slot

	produced, merged, rolled int64 // bytes
	rounds, merges           int
	mostObjects, mostExtents int
	extents                  int
	sinceBytes               int64
	sinceSlots               int
	sinceMs                  int64
	merge                    rollup.MergeConfig
	segment                  rollup.SegmentConfig
}

func newSim(partitions int, segBytes int64) *sim {
	return &sim{nowMs: 1_800_000_000_000, parts: make([]simPartition, partitions), segBytes: segBytes}
}

// put is what one partition adds to a flush: batches of some bytes each.
type put struct {
	part    int
	batches int64
	bytes   int64 // of each
}

func (s *sim) flush(puts []put) {
	o := &simObject{}
	for _, x := range puts {
		p := &s.parts[x.part]
		sec := &simSection{part: x.part, obj: o, base: p.next, last: p.next + x.batches - 1, bytes: x.batches * x.bytes, entries: x.batches}
		p.next += x.batches
		p.extents = append(p.extents, sec)
		p.bytes += sec.bytes
		o.sections = append(o.sections, sec)
		s.produced += sec.bytes
		s.sinceBytes += sec.bytes
		s.extents++
	}
	s.slot++
	o.stat = rollup.ObjectStat{Object: manifest.Object{Kind: manifest.ObjectWAL, From: s.slot, To: s.slot}, WrittenMs: s.nowMs}
	o.size()
	s.objects = append(s.objects, o)
	s.sinceSlots++
	if s.sinceBytes >= 128<<20 || s.sinceSlots >= 1024 || s.nowMs-s.sinceMs >= 300_000 {
		s.round()
	}
}

// size computes an object's size when it is written: all of it is alive.
func (o *simObject) size() {
	alive, footer := int64(0), int64(objectOverhead)
	for _, sec := range o.sections {
		alive += sec.bytes
		footer += sectionOverhead + entryOverhead*sec.entries
	}
	o.stat.Alive, o.stat.Sections, o.stat.FooterSize, o.stat.Size = alive, len(o.sections), footer, alive+footer
}

// round is what a broker does: log segments first, since what they take need not be merged any more.
func (s *sim) round() {
	s.sinceBytes, s.sinceSlots, s.sinceMs = 0, 0, s.nowMs
	s.rounds++
	s.rollUp()
	s.mergeAll()
	s.mostObjects, s.mostExtents = max(s.mostObjects, len(s.objects)), max(s.mostExtents, s.extents)
}

func (s *sim) rollUp() {
	stats := make([]rollup.PartitionStat, len(s.parts))
	for i := range s.parts {
		p := &s.parts[i]
		stats[i] = rollup.PartitionStat{
			Partition: logid.Partition{Topic: topicA, Index: int32(i)}, RolledThrough: logid.Offset(p.rolled), LogStart: logid.Offset(p.start),
			SegmentBytes: s.segBytes, SegmentMs: 7 * 24 * 3600_000, Count: len(p.extents), Bytes: p.bytes,
		}
		if p.bytes < 1<<20 {
			continue
		}
		for _, e := range p.extents {
			stats[i].Extents = append(stats[i].Extents, rollup.Extent{Base: logid.Offset(e.base), Last: logid.Offset(e.last), WrittenMs: e.obj.stat.WrittenMs, Len: e.bytes})
		}
	}
	for _, plan := range rollup.PlanSegments(stats, s.segment, s.nowMs) {
		p := &s.parts[plan.Partition.Index]
		if plan.Bytes < 1<<20 {
			panic("a tiny log segment")
		}
		s.rolled += plan.Bytes + plan.Bytes/indexEvery*indexOverhead + segmentOverhead
		p.rolled = int64(plan.Last) + 1
		p.segments++
		s.kill(p, p.rolled)
	}
}

// kill drops a partition's extents below an offset.
func (s *sim) kill(p *simPartition, below int64) {
	n := 0
	for n < len(p.extents) && p.extents[n].last < below {
		e := p.extents[n]
		e.obj.stat.Alive -= e.bytes
		e.obj.stat.Sections--
		p.bytes -= e.bytes
		n++
	}
	p.extents = p.extents[n:]
	s.extents -= n
}

func (s *sim) alive(e *simSection) bool {
	return e.last >= max(s.parts[e.part].rolled, s.parts[e.part].start)
}

func (s *sim) mergeAll() {
	stats := make([]rollup.ObjectStat, len(s.objects))
	for i, o := range s.objects {
		stats[i] = o.stat
	}
	runs := rollup.PlanMerges(stats, s.merge, s.nowMs)
	for _, r := range slices.Backward(runs) {
		var with []*simObject
		if !r.Drop {
			with = append(with, s.mergeRun(s.objects[r.From:r.To], r))
		}
		s.objects = slices.Replace(s.objects, r.From, r.To, with...)
	}
}

func (s *sim) mergeRun(in []*simObject, r rollup.Run) *simObject {
	o := &simObject{}
	byPart := map[int]*simSection{}
	written := int64(0)
	for _, old := range in {
		written = max(written, old.stat.WrittenMs)
		for _, e := range old.sections {
			if !s.alive(e) {
				continue
			}
			if n := byPart[e.part]; n != nil {
				n.last, n.bytes, n.entries = e.last, n.bytes+e.bytes, n.entries+e.entries
				continue
			}
			n := &simSection{part: e.part, obj: o, base: e.base, last: e.last, bytes: e.bytes, entries: e.entries}
			byPart[e.part] = n
			o.sections = append(o.sections, n)
		}
	}
	for _, n := range o.sections {
		p := &s.parts[n.part]
		i := sort.Search(len(p.extents), func(i int) bool { return p.extents[i].base >= n.base })
		j := sort.Search(len(p.extents), func(j int) bool { return p.extents[j].base > n.last })
		s.extents -= j - i - 1
		p.extents = slices.Replace(p.extents, i, j, n)
	}
	o.stat.Object = manifest.Object{Kind: manifest.ObjectMerged, From: in[0].stat.From, To: in[len(in)-1].stat.To}
	o.stat.WrittenMs = written
	o.size()
	if o.stat.Alive != r.Alive {
		panic(fmt.Sprintf("planned %d bytes, merged %d", r.Alive, o.stat.Alive))
	}
	s.merged += o.stat.Size
	s.merges++
	return o
}

// settle lets the days pass after the last record, so that no write is left out of the account.
func (s *sim) settle(days int) {
	for range days * 24 {
		s.nowMs += 3600_000
		s.round()
	}
}

// Maintenance writes at most 2.1 bytes for each byte of records, whatever the load.
func TestWriteBudget(t *testing.T) {
	const mib = 1 << 20
	r := rand.New(rand.NewPCG(51, 52))
	for _, c := range []struct {
		name                    string
		run                     func() *sim
		mostObjects, mostExtent int
	}{
		{"trickle of 4 records a second, three days", func() *sim {
			s := newSim(1, 256*mib)
			for range 3 * 24 * 3600 * 4 {
				s.flush([]put{{0, 1, 1100}})
				s.nowMs += 250
			}
			return s
		}, 1400, 1400},
		{"1,000 records a second, each its own flush, half an hour", func() *sim {
			s := newSim(1, 256*mib)
			for range 1800 * 1000 {
				s.flush([]put{{0, 1, 1100}})
				s.nowMs++
			}
			return s
		}, 1400, 1400},
		{"10,000 quiet partitions, a day, little memory", func() *sim {
			s := newSim(10_000, 256*mib)
			s.merge.MaxSections = 200_000
			for i := range 24 * 3600 / 2 {
				var puts []put
				for k := range 33 { // each has a record in ten minutes
					puts = append(puts, put{(i*33 + k) % 10_000, 1, 1100})
				}
				s.flush(puts)
				s.nowMs += 2000
			}
			return s
		}, 1100, 220_000},
		{"8 busy partitions", func() *sim {
			s := newSim(8, 256*mib)
			for range 8000 {
				var puts []put
				for p := range 8 {
					puts = append(puts, put{p, 16, 64 << 10})
				}
				s.flush(puts)
				s.nowMs += 250
			}
			return s
		}, 400, 3000},
		{"1,000 partitions alike", func() *sim {
			s := newSim(1000, 4*mib)
			for range 1000 {
				puts := make([]put, 1000)
				for p := range puts {
					puts[p] = put{p, 1, 8 << 10}
				}
				s.flush(puts)
				s.nowMs += 125
			}
			return s
		}, 400, 400_000},
		{"8 busy partitions of uneven rates among 2,000 quiet ones", func() *sim {
			s := newSim(2008, 256*mib)
			for i := range 8000 {
				var puts []put
				for p := range 8 {
					puts = append(puts, put{p, int64(4 * (p + 1)), 64 << 10})
				}
				for k := range 8 {
					puts = append(puts, put{8 + (i*8+k)%2000, 1, 1100})
				}
				s.flush(puts)
				s.nowMs += 250
			}
			return s
		}, 400, 50_000},
		{"200 partitions of very uneven rates", func() *sim {
			s := newSim(200, 32*mib)
			z := rand.NewZipf(r, 1.2, 2, 199)
			for range 2500 {
				counts := make([]int64, 200)
				for range 512 {
					counts[z.Uint64()]++
				}
				var puts []put
				for p, n := range counts {
					if n > 0 {
						puts = append(puts, put{p, n, 16 << 10})
					}
				}
				s.flush(puts)
				s.nowMs += 250
			}
			return s
		}, 400, 50_000},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := c.run()
			s.settle(3)
			ratio := float64(s.merged+s.rolled) / float64(s.produced)
			segments := 0
			for i := range s.parts {
				segments += s.parts[i].segments
			}
			t.Logf("%.2f GiB produced: %.3f merged + %.3f in log segments = %.3f written; %d rounds, %d merges, %d segments, at most %d objects and %d extents, %d objects left",
				float64(s.produced)/(1<<30), float64(s.merged)/float64(s.produced), float64(s.rolled)/float64(s.produced), ratio,
				s.rounds, s.merges, segments, s.mostObjects, s.mostExtents, len(s.objects))
			if ratio > 2.1 {
				t.Errorf("%.3f bytes written for each byte produced, the budget is 2.1", ratio)
			}
			if s.mostObjects > c.mostObjects || s.mostExtents > c.mostExtent {
				t.Errorf("%d objects and %d extents were live, want at most %d and %d", s.mostObjects, s.mostExtents, c.mostObjects, c.mostExtent)
			}
		})
	}
}
