package rollup

import (
	"fmt"
	"time"

	"github.com/tierlog/tierlog/tiered/manifest"
)

// MergeConfig says when objects are rewritten. Zero fields get the defaults that are named.
type MergeConfig struct {
	// Target is the size in bytes of a merged segment (default 128 MiB).
	Target int64
	// MaxInputs is how many objects one run takes at most (default 1,024).
	MaxInputs int
	// MaxFooters is how many bytes of footers one run takes at most: they are held in memory (default 8 MiB).
	MaxFooters int64
	// Age is how long WAL objects wait for others before they are merged all the same (default 5 minutes).
	Age time.Duration
	// MinInputs is how many objects are worth a run that does not reach Target or MaxInputs (default 8).
	MinInputs int
	// Closed says that the WAL has ended: nothing will come to wait for, so that two fresh objects are worth a run.
	Closed bool
	// Adopt is the average size of a section in bytes from which on a WAL object stays as it is (default 512 KiB).
	Adopt int64
	// Settle is the age from which on what is alive in an object is expected to stay (default 24 hours): by then the
	// records of all but quiet partitions are in log segments.
	Settle time.Duration
	// MaxObjects and MaxSections are how much may be live before small merged segments are merged again: each object
	// costs a line in the manifest and a footer to read at start, each section about a hundred bytes of memory
	// (default 1,024 and 1,000,000).
	MaxObjects  int
	MaxSections int

	minFresh int
}

func (c MergeConfig) withDefaults() MergeConfig {
	def(&c.Target, 128<<20)
	def(&c.MaxInputs, 1024)
	def(&c.MaxFooters, 8<<20)
	def(&c.Age, 5*time.Minute)
	def(&c.MinInputs, 8)
	c.minFresh = c.MinInputs
	if c.Closed {
		c.minFresh = 2
	}
	def(&c.Adopt, 512<<10)
	def(&c.Settle, 24*time.Hour)
	def(&c.MaxObjects, 1024)
	def(&c.MaxSections, 1_000_000)
	return c
}

func def[T ~int | ~int64](v *T, d T) {
	if *v <= 0 {
		*v = d
	}
}

// ObjectStat is a live object of one WAL epoch.
type ObjectStat struct {
	manifest.Object
	Alive    int64 // bytes of its sections that are alive
	Sections int   // how many of its sections are alive
	// WrittenMs is when its newest bytes were written, in Unix milliseconds of any clock; 0, not known, counts as long ago.
	WrittenMs int64
}

// Run is what to do with consecutive objects.
type Run struct {
	From, To int    // indexes of the objects: From <= i < To
	Drop     bool   // nothing in them is alive: take them off the list; otherwise merge them
	Alive    int64  // bytes to be written, without the footer
	Why      Reason // for logs
}

// Reason says why a run is due.
type Reason string

// The reasons.
const (
	Dead     Reason = "dead"     // nothing alive
	Fresh    Reason = "fresh"    // WAL objects with small sections
	Wasteful Reason = "wasteful" // mostly dead
	Crowded  Reason = "crowded"  // too many objects or sections are live
)

// PlanMerges says which consecutive objects to rewrite as one merged segment, and which to drop. The objects are those
// that one WAL manifest lists, in its order; runs are in that order and do not overlap.
//
//   - Nothing alive: dropped; inside a run they are taken along.
//   - Fresh WAL objects are merged at Target bytes or MaxInputs objects, or MinInputs of them when the oldest is Age
//     old. Those whose sections average Adopt bytes or more stay as they are: they read as well as a merged segment,
//     and soon are in log segments. So do fewer than MinInputs between two that stay.
//   - Wasteful objects (at most 1/16 alive, or less than half and settled) are rewritten with wasteful neighbours,
//     MinInputs at a time or at Target. Younger ones wait: most of what is alive in them is about to die.
//   - While more than MaxObjects objects or MaxSections sections would stay, objects of less than half Target are merged,
//     the smallest and oldest first, if together they reach Target, or are MinInputs of which none has more than a
//     quarter of the bytes. So each merge puts a byte into a segment at least four times as large or into a full one.
func PlanMerges(objects []ObjectStat, cfg MergeConfig, nowMs int64) []Run {
	p := mergePlanner{cfg: cfg.withDefaults(), objects: objects, nowMs: nowMs, taken: make([]bool, len(objects))}
	p.gather(p.fresh, Fresh, p.freshDue)
	p.gather(p.wasteful, Wasteful, func(r Run, full bool) bool { return full && p.living(r) > 1 || p.living(r) >= p.cfg.MinInputs })
	for tier := p.cfg.Target / 2 / tierStep / tierStep / tierStep; tier <= p.cfg.Target/2 && p.crowded(); tier *= tierStep {
		p.gather(func(o *ObjectStat) bool { return o.Alive < tier }, Crowded, p.crowdedDue)
	}
	p.dropDead()
	return p.sorted()
}

// mergePlanner collects runs. taken are the objects that have one.
type mergePlanner struct {
	cfg     MergeConfig
	objects []ObjectStat
	nowMs   int64
	taken   []bool
	runs    []Run
}

func (o *ObjectStat) dead() bool { return o.Alive <= 0 || o.Sections <= 0 }

func (p *mergePlanner) olderThan(o *ObjectStat, d time.Duration) bool {
	return p.nowMs-o.WrittenMs >= d.Milliseconds()
}

func (p *mergePlanner) fresh(o *ObjectStat) bool {
	return o.Kind == manifest.ObjectWAL && o.Alive < p.cfg.Adopt*int64(o.Sections)
}

// deadShare is how much of an object must be dead for it to be rewritten before it has settled: 15 of 16 parts, so
// that such rewriting costs at most 1/15 of the bytes that were produced.
const deadShare = 16

func (p *mergePlanner) wasteful(o *ObjectStat) bool {
	return o.Alive*deadShare <= o.Size || o.Alive*2 < o.Size && p.olderThan(o, p.cfg.Settle)
}

// tierStep is the factor between the sizes below which objects are merged when there are too many: merging the
// smallest takes the most objects off the list for each byte written.
const tierStep = 8

// gather cuts every stretch of free, eligible objects into runs, oldest first, and keeps those that are due. Dead ones
// belong to any stretch.
func (p *mergePlanner) gather(eligible func(*ObjectStat) bool, why Reason, due func(r Run, full bool) bool) {
	for i := 0; i < len(p.objects); {
		if o := &p.objects[i]; p.taken[i] || o.dead() || !eligible(o) {
			i++
			continue
		}
		r, full := p.longest(i, eligible)
		r.Why = why
		if !due(r, full) {
			// Not from here, but perhaps without the first.
			i++
			if why == Fresh {
				i = r.To
			}
			continue
		}
		p.take(r)
		i = r.To
	}
}

// longest returns the run from i on that ends at the end of the stretch or, then full, at a limit.
func (p *mergePlanner) longest(i int, eligible func(*ObjectStat) bool) (r Run, full bool) {
	r = Run{From: i, To: i}
	footers := int64(0)
	for j := i; j < len(p.objects); j++ {
		o := &p.objects[j]
		if p.taken[j] || !o.dead() && !eligible(o) {
			break
		}
		if footers += o.FooterSize; j > i && footers > p.cfg.MaxFooters {
			return r, true
		}
		if o.dead() {
			continue
		}
		r.To, r.Alive = j+1, r.Alive+o.Alive
		if r.Alive >= p.cfg.Target || j+1-i >= p.cfg.MaxInputs {
			return r, true
		}
	}
	return r, false
}

// living counts the objects of a run that are not dead.
func (p *mergePlanner) living(r Run) int {
	n := 0
	for i := r.From; i < r.To; i++ {
		if !p.objects[i].dead() {
			n++
		}
	}
	return n
}

func (p *mergePlanner) freshDue(r Run, full bool) bool {
	if full {
		// One object alone may have the bytes: rewriting it would give the same again, but for the dead ones.
		return p.living(r) > 1
	}
	return p.living(r) >= p.cfg.minFresh && p.olderThan(&p.objects[r.From], p.cfg.Age)
}

func (p *mergePlanner) crowdedDue(r Run, full bool) bool {
	n := p.living(r)
	if !p.crowded() || n < 2 {
		return false
	}
	if full && r.Alive >= p.cfg.Target {
		return true
	}
	largest := int64(0)
	for i := r.From; i < r.To; i++ {
		largest = max(largest, p.objects[i].Alive)
	}
	return n >= p.cfg.MinInputs && largest <= r.Alive/4
}

// crowded tells whether too much stays live after the runs so far, without the fresh objects that wait for others. A run's sections are not known before it is done;
// that they become as few as the largest input has is near enough, since inputs of a run share their partitions.
func (p *mergePlanner) crowded() bool {
	objects, sections := 0, 0
	for i := range p.objects {
		if o := &p.objects[i]; !p.taken[i] && !o.dead() && !p.fresh(o) {
			objects, sections = objects+1, sections+o.Sections
		}
	}
	for _, r := range p.runs {
		most := 0
		for i := r.From; i < r.To; i++ {
			most = max(most, p.objects[i].Sections)
		}
		objects, sections = objects+1, sections+most
	}
	return objects > p.cfg.MaxObjects || sections > p.cfg.MaxSections
}

func (p *mergePlanner) take(r Run) {
	for i := r.From; i < r.To; i++ {
		p.taken[i] = true
	}
	p.runs = append(p.runs, r)
}

func (p *mergePlanner) dropDead() {
	for i := 0; i < len(p.objects); i++ {
		j := i
		for j < len(p.objects) && !p.taken[j] && p.objects[j].dead() {
			j++
		}
		if j > i {
			p.take(Run{From: i, To: j, Drop: true, Why: Dead})
			i = j
		}
	}
}

func (p *mergePlanner) sorted() []Run {
	// Few runs, mostly in order already: insertion keeps it simple.
	for i := 1; i < len(p.runs); i++ {
		for j := i; j > 0 && p.runs[j].From < p.runs[j-1].From; j-- {
			p.runs[j], p.runs[j-1] = p.runs[j-1], p.runs[j]
		}
	}
	return p.runs
}

// String says what the run does, for logs.
func (r Run) String() string {
	if r.Drop {
		return fmt.Sprintf("drop objects %d to %d", r.From, r.To-1)
	}
	return fmt.Sprintf("merge objects %d to %d: %d bytes alive, %s", r.From, r.To-1, r.Alive, r.Why)
}
