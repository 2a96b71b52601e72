package rollup_test

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tierlog/tierlog/objstore"
	"github.com/tierlog/tierlog/objstore/objtest"
	"github.com/tierlog/tierlog/tiered/logid"
	"github.com/tierlog/tierlog/tiered/manifest"
	"github.com/tierlog/tierlog/tiered/rollup"
)

// job does one merge and one log segment as a broker does: declare, write, (list,) finish. It returns the declared keys.
func job(ctx context.Context, w *rollup.Worker, of *world, id logid.Partition) (m rollup.Merged, out rollup.Written, err error) {
	in := rollup.MergeInput{Epoch: epoch, Objects: of.objects, Alive: all}
	if in.ULID, err = w.NewULID(); err != nil {
		return m, out, err
	}
	j, err := w.Declare(ctx, rollup.WorkMerge, []string{in.Output(cluster)})
	if err != nil {
		return m, out, err
	}
	if m, err = w.Merge(ctx, in); err != nil {
		return m, out, err
	}
	if err := w.Finish(ctx, j); err != nil {
		return m, out, err
	}
	extents := of.extents(id, true)
	p := rollup.SegmentPlan{Partition: id, Topic: "orders", Last: extents[len(extents)-1].Last, PrevEpoch: logid.NoLeaderEpoch, Extents: extents}
	if p.ULID, err = w.NewULID(); err != nil {
		return m, out, err
	}
	if j, err = w.Declare(ctx, rollup.WorkRollup, p.Outputs(cluster)); err != nil {
		return m, out, err
	}
	if out, err = w.WriteSegment(ctx, p, nil); err != nil {
		return m, out, err
	}
	return m, out, w.Finish(ctx, j)
}

func jobWorld(t *testing.T) *world {
	r := rand.New(rand.NewPCG(41, 42))
	w := newWorld()
	for i := range 4 {
		w.flush(t, r, int32(i/2), parts(3), func() int { return 30 << 10 })
	}
	return w
}

func TestGoldenBucketCalls(t *testing.T) {
	w := jobWorld(t)
	rec := objtest.NewRecorder(w.store, objtest.RecorderConfig{Names: map[string]string{cluster.String(): "CLUSTER", topicA.String(): "TOPIC"}})
	work := newWorker(t, rec, func(c *rollup.Config) { c.Reads = 1 })
	m, _, err := job(t.Context(), work, w, parts(3)[1])
	if err != nil {
		t.Fatal(err)
	}
	check(t, w.store, m, w.logs)
	rec.Golden(t, "jobs.txt")
}

// Whatever happens to one answer, the result is the same and there is no error.
func TestOneFaultAtAnyWrite(t *testing.T) {
	id := parts(3)[1]
	for _, fault := range []objtest.Fault{
		objtest.LostReply, objtest.LostRequest, objtest.LateApply, objtest.Busy, objtest.OwnExists, objtest.Status500, objtest.Status503, objtest.Reset,
	} {
		writes := 0
		for hit := 1; hit == 1 || hit <= writes; hit++ {
			w := jobWorld(t)
			n := 0
			f := objtest.NewFaulty(w.store, objtest.FaultConfig{Seed: uint64(hit), Script: func(c objtest.Call) objtest.Fault {
				if c.Op != "create" {
					return objtest.NoFault
				}
				if n++; n == hit {
					return fault
				}
				return objtest.NoFault
			}})
			work := newWorker(t, f, func(c *rollup.Config) { c.Reads = 1 })
			m, out, err := job(t.Context(), work, w, id)
			if err != nil {
				t.Fatalf("%v at write %d: %v", fault, hit, err)
			}
			f.ApplyLate(-1)
			check(t, w.store, m, w.logs)
			p := rollup.SegmentPlan{Partition: id, Topic: "orders", ULID: out.Segment.ULID, Last: out.Segment.Last, Extents: w.extents(id, true)}
			checkSegment(t, w.store, p, out, w.logs[id])
			writes = n
		}
		if writes < 5 {
			t.Fatalf("only %d writes", writes)
		}
	}
}

// A process that dies between any two calls leaves nothing that is listed, and nothing that was not declared; the next
// one does the same work under other names.
func TestACrashLeavesOnlyWhatWasDeclared(t *testing.T) {
	id := parts(3)[1]
	died := errors.New("died")
	for stop := 1; ; stop++ {
		w := jobWorld(t)
		inputs := keys(t, w.store)
		n := 0
		f := objtest.NewFaulty(w.store, objtest.FaultConfig{})
		crash := objtest.NewFaulty(w.store, objtest.FaultConfig{Before: func(_ context.Context, c objtest.Call) error {
			if c.Op == "create" || c.Op == "delete" {
				n++
			}
			if n >= stop {
				return died
			}
			return nil
		}})
		work := newWorker(t, crash, func(c *rollup.Config) { c.Reads = 1 })
		_, _, err := job(t.Context(), work, w, id)
		if err == nil {
			if stop < 8 {
				t.Fatalf("only %d writes", stop)
			}
			return
		}
		if !errors.Is(err, died) {
			t.Fatal(err)
		}
		declared := map[string]bool{}
		for _, k := range keys(t, w.store) {
			key, err := manifest.ParseKey(k)
			if err != nil {
				t.Fatal(err)
			}
			if key.Kind != manifest.KeyJob {
				continue
			}
			j, err := manifest.DecodeJob(readAll(t, w.store, k), cluster, key.ULID)
			if err != nil {
				t.Fatal(err)
			}
			for _, o := range j.Outputs {
				declared[o] = true
			}
		}
		merged := 0
		for _, k := range keys(t, w.store) {
			key, _ := manifest.ParseKey(k)
			switch {
			case key.Kind == manifest.KeyJob || slices.Contains(inputs, k) || declared[k]:
			case key.Kind == manifest.KeyMerged && merged == 0:
				merged++ // its job was finished: a broker has listed it before
			default:
				t.Errorf("died at write %d: %s was not declared", stop, k)
			}
		}
		again := newWorker(t, f, func(c *rollup.Config) { c.Random = seeded(200) })
		m, out, err := job(t.Context(), again, w, id)
		if err != nil {
			t.Fatalf("died at write %d, then: %v", stop, err)
		}
		check(t, w.store, m, w.logs)
		p := rollup.SegmentPlan{Partition: id, Topic: "orders", ULID: out.Segment.ULID, Last: out.Segment.Last, Extents: w.extents(id, true)}
		checkLog(t, w.store, p, out, w.logs[id])
	}
}

func keys(t *testing.T, s objstore.Store) []string {
	t.Helper()
	page, err := s.List(t.Context(), "", "", 0)
	if err != nil || page.More {
		t.Fatal(err)
	}
	var out []string
	for _, o := range page.Objects {
		out = append(out, o.Key)
	}
	return out
}

func TestAnOutputIsNeverOverwritten(t *testing.T) {
	w := jobWorld(t)
	work := newWorker(t, w.store, nil)
	in := rollup.MergeInput{Epoch: epoch, Objects: w.objects, ULID: ulidOf(t, work), Alive: all}
	if _, err := w.store.Create(t.Context(), in.Output(cluster), objstore.Bytes([]byte("another's"))); err != nil {
		t.Fatal(err)
	}
	if _, err := work.Merge(t.Context(), in); err == nil {
		t.Error("a taken name was accepted")
	}
	if got := string(readAll(t, w.store, in.Output(cluster))); got != "another's" {
		t.Errorf("the occupant is %q", got)
	}
}

func TestConfigNamesWhatIsWrong(t *testing.T) {
	for name, edit := range map[string]func(*rollup.Config){
		"Store":          func(c *rollup.Config) { c.Store = nil },
		"Now":            func(c *rollup.Config) { c.Now = nil },
		"Logger":         func(c *rollup.Config) { c.Logger = nil },
		"Cluster":        func(c *rollup.Config) { c.Cluster = logid.ClusterID{} },
		"Reads":          func(c *rollup.Config) { c.Reads = 1000 },
		"Deadline":       func(c *rollup.Config) { c.Deadline = -1 },
		"ProducerExpiry": func(c *rollup.Config) { c.ProducerExpiry = -1 },
		"first":          func(c *rollup.Config) { c.Backoff.First = -1 },
	} {
		cfg := rollup.Config{Store: objtest.NewMem(), Cluster: cluster, Now: time.Now, Logger: slog.New(slog.DiscardHandler)}
		if _, err := rollup.New(cfg); err != nil {
			t.Fatal(err)
		}
		edit(&cfg)
		if _, err := rollup.New(cfg); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("a bad %s gives %v", name, err)
		}
	}
}
