package sim

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tierlog/tierlog/objstore"
	"github.com/tierlog/tierlog/objstore/objtest"
)

// simulate runs one plan on simulated time and fails the test with how to run it again.
func simulate(t *testing.T, p plan) (calls int) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		var err error
		if calls, err = newWorld(t, p).run(); err != nil {
			t.Errorf("%v\nplan %+v\nagain: go test ./test/sim -run '^%s$' (SIM_LOG=1 shows the brokers' logs)", err, p, t.Name())
		}
	})
	return calls
}

// TestKilledAtEveryCall kills the broker at each call that it makes to the bucket, before and after the call is applied.
func TestKilledAtEveryCall(t *testing.T) {
	base := plan{acks: kgo.AllISRAcks(), records: 12}
	calls := simulate(t, base)
	if calls < 20 {
		t.Fatalf("only %d calls to the bucket: the simulation does not exercise it", calls)
	}
	for k := 1; k <= calls; k++ {
		for _, applied := range []bool{false, true} {
			p := base
			p.killAt, p.applied, p.keepDisk = []int{k}, applied, k%2 == 0
			t.Run(fmt.Sprintf("call%d_applied=%v", k, applied), func(t *testing.T) { simulate(t, p) })
		}
	}
}

// TestAcksOneSurvivesWithTheDisk kills the broker while records are acknowledged by the local disk only.
func TestAcksOneSurvivesWithTheDisk(t *testing.T) {
	base := plan{acks: kgo.LeaderAck(), records: 12, keepDisk: true}
	calls := simulate(t, base)
	for k := 1; k <= calls; k++ {
		p := base
		p.killAt, p.applied = []int{k}, k%2 == 0
		t.Run(fmt.Sprintf("call%d", k), func(t *testing.T) { simulate(t, p) })
	}
}

// TestFaultyBucket runs seeded mixtures of faults and several deaths. SIM_SEED is the first seed, SIM_SEEDS how many.
func TestFaultyBucket(t *testing.T) {
	seeds, first := 30, uint64(1)
	if s, err := strconv.ParseUint(os.Getenv("SIM_SEED"), 10, 64); err == nil {
		seeds, first = 1, s
	}
	if n, err := strconv.Atoi(os.Getenv("SIM_SEEDS")); err == nil {
		seeds = n
	}
	for i := range seeds {
		seed := first + uint64(i)
		t.Run(fmt.Sprintf("SIM_SEED=%d", seed), func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 0))
			p := plan{acks: kgo.AllISRAcks(), records: 20, seed: seed, keepDisk: r.IntN(2) == 0, applied: r.IntN(2) == 0, rates: map[objtest.Fault]float64{}}
			for f := objtest.LostReply; f <= objtest.Slow; f++ {
				p.rates[f] = r.Float64() * 0.06
			}
			for range r.IntN(4) {
				p.killAt = append(p.killAt, 1+r.IntN(250))
			}
			simulate(t, p)
		})
	}
}

// lying acknowledges WAL objects before it has them: a planted early acknowledgement.
type lying struct {
	objstore.Store
	dropped int
}

func (s *lying) Create(ctx context.Context, key string, body objstore.Payload) (objstore.Version, error) {
	if strings.Contains(key, "/wal/") && !strings.Contains(key, "checkpoint") && !strings.HasSuffix(key, ".json") {
		if s.dropped++; s.dropped > 5 {
			return "planted", nil
		}
	}
	return s.Store.Create(ctx, key, body)
}

// TestEarlyAcknowledgementIsFound shows that the simulation can fail.
func TestEarlyAcknowledgementIsFound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, plan{acks: kgo.AllISRAcks(), records: 12})
		w.store = &lying{Store: w.store}
		if _, err := w.run(); err == nil {
			t.Error("records that were acknowledged too early and lost went unnoticed")
		}
	})
}
