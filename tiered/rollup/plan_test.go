package rollup_test

import (
	"fmt"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/tierlog/tierlog/tiered/logid"
	"github.com/tierlog/tierlog/tiered/manifest"
	"github.com/tierlog/tierlog/tiered/rollup"
)

const (
	nowMs = int64(1_800_000_000_000)
	kib   = int64(1 << 10)
	mib   = int64(1 << 20)
	hour  = int64(3600_000)
)

// objects reads a list of objects: kind (w or m), size, alive, sections, age.
//
//	w 100K/100K:50 1m    a WAL object of 100 KiB, all alive, in 50 sections, written a minute ago
//	8*w 1K/1K:1 6m       eight of them
func objects(t *testing.T, text string) []rollup.ObjectStat {
	t.Helper()
	var out []rollup.ObjectStat
	for line := range strings.SplitSeq(strings.TrimSpace(text), "\n") {
		n := 1
		line = strings.TrimSpace(line)
		if times, rest, ok := strings.Cut(line, "*"); ok {
			if _, err := fmt.Sscan(times, &n); err != nil {
				t.Fatal(err)
			}
			line = rest
		}
		var kind, age string
		var size, alive float64
		var su, au rune
		var sections int
		if _, err := fmt.Sscanf(line, "%s %f%c/%f%c:%d %s", &kind, &size, &su, &alive, &au, &sections, &age); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		units := map[rune]float64{'K': 1 << 10, 'M': 1 << 20}
		d, err := time.ParseDuration(age)
		if err != nil {
			t.Fatal(err)
		}
		for range n {
			o := rollup.ObjectStat{
				Object: manifest.Object{Kind: manifest.ObjectWAL, Size: int64(size * units[su]), FooterSize: 200},
				Alive:  int64(alive * units[au]), Sections: sections, WrittenMs: nowMs - d.Milliseconds(),
			}
			if kind == "m" {
				o.Kind = manifest.ObjectMerged
			}
			out = append(out, o)
		}
	}
	return out
}

func TestPlanMerges(t *testing.T) {
	for _, c := range []struct {
		name, objects string
		cfg           rollup.MergeConfig
		want          []string // from-to why
	}{
		{"nothing", "w 1K/1K:1 1m", rollup.MergeConfig{}, nil},
		{"too few, however old", "7*w 1K/1K:1 9h", rollup.MergeConfig{}, nil},
		{"too young", "8*w 1K/1K:1 4m", rollup.MergeConfig{}, nil},
		{"old enough", "8*w 1K/1K:1 5m", rollup.MergeConfig{}, []string{"0-8 fresh"}},
		{"the oldest decides", "w 1K/1K:1 5m\n20*w 1K/1K:1 1m", rollup.MergeConfig{}, []string{"0-21 fresh"}},
		{"many slots", "2500*w 1K/1K:1 1m", rollup.MergeConfig{}, []string{"0-1024 fresh", "1024-2048 fresh"}},
		{"target reached", "40*w 8M/8M:100 1m", rollup.MergeConfig{}, []string{"0-16 fresh", "16-32 fresh"}},
		{"large sections stay", "40*w 8M/8M:16 1h", rollup.MergeConfig{}, nil},
		{"a little smaller ones do not", "40*w 8M/8M:17 1h", rollup.MergeConfig{}, []string{"0-16 fresh", "16-32 fresh", "32-40 fresh"}},
		{"few between large ones stay", "w 8M/8M:1 1h\n7*w 1K/1K:1 1h\nw 8M/8M:1 1h\n7*w 1K/1K:1 1h", rollup.MergeConfig{}, nil},
		{"many between large ones do not", "w 8M/8M:1 1h\n8*w 1K/1K:1 1h\nw 8M/8M:1 1h\n9*w 1K/1K:1 1h", rollup.MergeConfig{}, []string{"1-9 fresh", "10-19 fresh"}},
		{"few of a WAL that has ended", "w 1K/1K:1 1h\nw 1K/1K:1 5m", rollup.MergeConfig{Closed: true}, []string{"0-2 fresh"}},
		{"one of a WAL that has ended", "w 1K/1K:1 1h", rollup.MergeConfig{Closed: true}, nil},
		{"footers are bounded", "100*w 1K/1K:1 1h", rollup.MergeConfig{MaxFooters: 4000}, []string{"0-20 fresh", "20-40 fresh", "40-60 fresh", "60-80 fresh", "80-100 fresh"}},
		{"merged once is enough", "500*m 1M/1M:1 9h", rollup.MergeConfig{}, nil},

		{"dead ones go", "w 1K/1K:1 1m\n2*m 8M/0K:0 1m\nw 1K/1K:1 1m\nw 1K/0K:0 1m", rollup.MergeConfig{}, []string{"1-3 dead drop", "4-5 dead drop"}},
		{"dead ones are taken along", "4*w 1K/1K:1 6m\n3*w 1K/0K:0 6m\n4*w 1K/1K:1 6m\nw 1K/0K:0 1m", rollup.MergeConfig{}, []string{"0-11 fresh", "11-12 dead drop"}},

		{"half dead and young", "20*m 100M/40M:9 23h", rollup.MergeConfig{}, nil},
		{"half dead and settled", "20*m 100M/40M:9 25h", rollup.MergeConfig{}, []string{"0-4 wasteful", "4-8 wasteful", "8-12 wasteful", "12-16 wasteful", "16-20 wasteful"}},
		{"half alive and settled", "20*m 100M/50M:9 25h", rollup.MergeConfig{}, nil},
		{"nearly dead and young", "8*m 128M/8M:9 1m", rollup.MergeConfig{}, []string{"0-8 wasteful"}},
		{"nearly dead, but too few", "7*m 128M/8M:9 1m", rollup.MergeConfig{}, nil},
		{"nearly dead large sections", "8*w 8M/0.5M:1 1m", rollup.MergeConfig{}, []string{"0-8 wasteful"}},
		{"nearly dead apart", "5*m 128M/1M:9 1m\nm 128M/128M:9 1m\n5*m 128M/1M:9 1m", rollup.MergeConfig{}, nil},

		{"too many objects", "1100*m 1M/1M:1 9h", rollup.MergeConfig{}, []string{"0-128 crowded"}},
		{"too many of them", "1200*m 1M/1M:1 9h", rollup.MergeConfig{}, []string{"0-128 crowded", "128-256 crowded"}},
		{"fresh ones do not crowd", "1000*m 1M/1M:1 9h\n100*w 1K/1K:1 1m", rollup.MergeConfig{}, nil},
		{"too many sections", "150*m 5M/5M:10000 9h", rollup.MergeConfig{}, []string{"0-26 crowded", "26-52 crowded"}},
		{"the small ones first", "m 60M/60M:1 9h\n8*m 1M/1M:1 9h\n4*m 60M/60M:1 9h", rollup.MergeConfig{MaxObjects: 9}, []string{"1-9 crowded"}},
		{"and large ones, if they fill one", "4*m 60M/60M:1 9h", rollup.MergeConfig{MaxObjects: 3}, []string{"0-3 crowded"}},
		{"not one large with a few small ones", "m 60M/60M:1 9h\n8*m 9K/9K:1 9h", rollup.MergeConfig{MaxObjects: 8}, []string{"1-9 crowded"}},
		{"nor one of a size", "m 7M/7M:1 9h\n8*m 1.1M/1.1M:1 9h", rollup.MergeConfig{MaxObjects: 8}, []string{"1-9 crowded"}},
		{"large sections too", "200*w 2M/2M:1 9h", rollup.MergeConfig{MaxObjects: 150}, []string{"0-64 crowded"}},
		{"full ones cannot help it", "200*m 64M/64M:9 9h", rollup.MergeConfig{MaxObjects: 150}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			in := objects(t, c.objects)
			var got []string
			for _, r := range rollup.PlanMerges(in, c.cfg, nowMs) {
				s := fmt.Sprintf("%d-%d %s", r.From, r.To, r.Why)
				if r.Drop {
					s += " drop"
				}
				got = append(got, s)
				alive := int64(0)
				for _, o := range in[r.From:r.To] {
					alive += o.Alive
				}
				if alive != r.Alive || r.Drop != (alive == 0) || r.String() == "" {
					t.Errorf("%v: %d bytes are alive", r, alive)
				}
			}
			if !reflect.DeepEqual(got, c.want) {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

// extentsOf makes extents of some bytes each, ten offsets long, oldest first; ages in hours.
func extentsOf(bytes int64, ages ...float64) []rollup.Extent {
	var out []rollup.Extent
	for i, age := range ages {
		out = append(out, rollup.Extent{
			Base: logid.Offset(i * 10), Last: logid.Offset(i*10 + 9), Epoch: logid.LeaderEpoch(i / 4), Len: bytes, WrittenMs: nowMs - int64(age*float64(hour)),
		})
	}
	return out
}

func ages(n int, age float64) []float64 {
	out := make([]float64, n)
	for i := range out {
		out[i] = age
	}
	return out
}

func TestPlanSegments(t *testing.T) {
	far := extentsOf(mib, ages(3, 1)...)
	far[1].Base, far[1].Last = math.MaxInt32, math.MaxInt32+5
	far[2].Base, far[2].Last = math.MaxInt32+6, math.MaxInt32+9
	for _, c := range []struct {
		name string
		stat rollup.PartitionStat
		cfg  rollup.SegmentConfig
		want []string // from-last bytes in MiB, why
	}{
		{"nothing", rollup.PartitionStat{}, rollup.SegmentConfig{}, nil},
		{"too few bytes, however old", rollup.PartitionStat{Extents: extentsOf(mib/2-1, 99, 99)}, rollup.SegmentConfig{}, nil},
		{"young", rollup.PartitionStat{SegmentBytes: 10 * mib, Extents: extentsOf(mib, ages(9, 23)...)}, rollup.SegmentConfig{}, nil},
		{"full", rollup.PartitionStat{SegmentBytes: 10 * mib, Extents: extentsOf(mib, ages(25, 0)...)}, rollup.SegmentConfig{}, []string{"0-99 10 full", "100-199 10 full"}},
		{"not over segment.bytes", rollup.PartitionStat{SegmentBytes: 10 * mib, Extents: extentsOf(3*mib, ages(7, 0)...)}, rollup.SegmentConfig{}, []string{"0-29 9 full", "30-59 9 full"}},
		{"an extent is not cut", rollup.PartitionStat{SegmentBytes: mib, Extents: extentsOf(3*mib, ages(2, 0)...)}, rollup.SegmentConfig{}, []string{"0-9 3 full", "10-19 3 full"}},
		{"aged, with all the rest", rollup.PartitionStat{SegmentBytes: 100 * mib, Extents: extentsOf(mib, 25, 3, 2, 0)}, rollup.SegmentConfig{}, []string{"0-39 4 aged"}},
		{"not enough of it aged", rollup.PartitionStat{SegmentBytes: 100 * mib, Extents: extentsOf(mib-1, 25, 3, 2, 0)}, rollup.SegmentConfig{}, nil},
		{"full, then aged", rollup.PartitionStat{SegmentBytes: 2 * mib, Extents: extentsOf(mib, 25, 25, 25)}, rollup.SegmentConfig{}, []string{"0-19 2 full", "20-29 1 aged"}},
		{"segment.ms", rollup.PartitionStat{SegmentBytes: 100 * mib, SegmentMs: 2 * hour, Extents: extentsOf(mib/2, 2, 0)}, rollup.SegmentConfig{}, []string{"0-19 1 aged"}},
		{"segment.ms of too little", rollup.PartitionStat{SegmentBytes: 100 * mib, SegmentMs: 2 * hour, Extents: extentsOf(mib/2, 9)}, rollup.SegmentConfig{}, nil},
		{"time not known", rollup.PartitionStat{SegmentBytes: 100 * mib, Extents: extentsOf(mib, float64(nowMs)/float64(hour))}, rollup.SegmentConfig{}, []string{"0-9 1 aged"}},
		{"rolled and dead ones are passed over", rollup.PartitionStat{SegmentBytes: 3 * mib, RolledThrough: 10, LogStart: 22, Extents: extentsOf(mib, ages(6, 0)...)}, rollup.SegmentConfig{}, []string{"10-49 3 full"}},
		{"begins within an extent", rollup.PartitionStat{SegmentBytes: 2 * mib, RolledThrough: 15, Extents: extentsOf(mib, ages(3, 0)...)}, rollup.SegmentConfig{}, []string{"15-29 2 full"}},
		{"2^31-1 bytes", rollup.PartitionStat{SegmentBytes: 0, Extents: extentsOf(1<<30, ages(4, 0)...)}, rollup.SegmentConfig{}, []string{"0-9 1024 full", "10-19 1024 full", "20-29 1024 full"}},
		{"2^31-1 offsets", rollup.PartitionStat{SegmentBytes: 100 * mib, Extents: far}, rollup.SegmentConfig{Age: time.Hour}, []string{"0-9 1 full", "10-2147483656 2 aged"}},
		{"too many extents", rollup.PartitionStat{SegmentBytes: 100 * mib, Extents: extentsOf(mib, ages(9, 0)...)}, rollup.SegmentConfig{MaxExtents: 8}, []string{"0-89 9 pressed"}},
		{"too many extents of too little", rollup.PartitionStat{SegmentBytes: 100 * mib, Extents: extentsOf(mib/10, ages(9, 0)...)}, rollup.SegmentConfig{MaxExtents: 8}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.stat.Topic, c.stat.RolledEpoch, c.stat.Count = "t", logid.NoLeaderEpoch, len(c.stat.Extents)
			for _, e := range c.stat.Extents {
				c.stat.Bytes += e.Len
			}
			var got []string
			from, prev := c.stat.RolledThrough, logid.NoLeaderEpoch
			for _, p := range rollup.PlanSegments([]rollup.PartitionStat{c.stat}, c.cfg, nowMs) {
				got = append(got, fmt.Sprintf("%d-%d %d %s", p.From, p.Last, p.Bytes/mib, p.Why))
				if p.From != from || p.PrevEpoch != prev || p.Extents[len(p.Extents)-1].Last != p.Last || p.String() == "" {
					t.Errorf("%v: from %d after %d, leader epoch %d after %d", p, p.From, from, p.PrevEpoch, prev)
				}
				from, prev = p.Last+1, p.Extents[len(p.Extents)-1].Epoch
			}
			if !reflect.DeepEqual(got, c.want) {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestPlanSegmentsPressesThoseWithMostExtents(t *testing.T) {
	var stats []rollup.PartitionStat
	for i, n := range []int{5, 9, 2, 7} {
		stats = append(stats, rollup.PartitionStat{
			Partition: logid.Partition{Topic: topicA, Index: int32(i)}, SegmentBytes: 100 * mib, Count: n, Bytes: int64(n) * mib, Extents: extentsOf(mib, ages(n, 0)...),
		})
	}
	var got []int32
	for _, p := range rollup.PlanSegments(stats, rollup.SegmentConfig{MaxExtents: 8}, nowMs) {
		got = append(got, p.Partition.Index)
	}
	if want := []int32{1, 3}; !reflect.DeepEqual(got, want) {
		t.Errorf("partitions %v, want %v", got, want)
	}
}
