package sim

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tierlog/tierlog/cli"
	"github.com/tierlog/tierlog/objstore"
	"github.com/tierlog/tierlog/objstore/backend"
	"github.com/tierlog/tierlog/objstore/mem"
	"github.com/tierlog/tierlog/objstore/objtest"
	"github.com/tierlog/tierlog/server"
	"github.com/tierlog/tierlog/topicconf"
)

const (
	topic      = "t"
	partitions = 3
)

// errKilled is what calls of a dead broker get.
var errKilled = errors.New("killed")

// world is one simulation: a bucket, a network, and one broker at a time.
type world struct {
	t     *testing.T
	cfg   plan
	store objstore.Store // what brokers write to, before faults
	net   Network
	dir   string

	mu    sync.Mutex
	calls int // calls of all brokers to the bucket; owned by mu
	kill  chan struct{}
	node  *node
	lives int
	abort func() // ends what the simulation does now
}

// plan is what happens in a run.
type plan struct {
	seed     uint64
	killAt   []int // the brokers die at these calls, counted over the run, from 1
	applied  bool  // the call at which a broker dies is applied first
	keepDisk bool
	acks     kgo.Acks
	rates    map[objtest.Fault]float64
	records  int // per partition
}

// node is one life of the broker.
type node struct {
	ln     *Listener
	faulty *objtest.Faulty
	cancel context.CancelFunc
	ended  chan struct{}
	dead   atomic.Bool // killed by the simulation, not ended by itself
}

func newWorld(t *testing.T, p plan) *world {
	return &world{t: t, cfg: p, store: mem.New(), dir: t.TempDir(), kill: make(chan struct{}, 100)}
}

// counted counts a call and tells whether the broker dies at it.
func (w *world) counted() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.calls++
	return slices.Contains(w.cfg.killAt, w.calls)
}

// start begins another life of the broker.
func (w *world) start() {
	w.lives++
	n := &node{ln: w.net.Listen(), ended: make(chan struct{})}
	die := func() error {
		n.faulty.Cut()
		w.kill <- struct{}{}
		return &objstore.Error{Op: "any", Kind: objstore.ErrUnknown, Err: errKilled}
	}
	cfg := objtest.FaultConfig{Seed: w.cfg.seed<<16 + uint64(w.lives), Rates: w.cfg.rates, Slow: 300 * time.Millisecond, Late: 2 * time.Second}
	hit := func() error {
		if w.counted() {
			return die()
		}
		return nil
	}
	if w.cfg.applied {
		cfg.After = func(context.Context, objtest.Call, error) error { return hit() }
	} else {
		cfg.Before = func(context.Context, objtest.Call) error { return hit() }
	}
	n.faulty = objtest.NewFaulty(w.store, cfg)
	spec, err := backend.Parse("mem:")
	if err != nil {
		w.t.Fatal(err)
	}
	conf, err := topicconf.NewBroker(map[string]string{"num.partitions": fmt.Sprint(partitions), "memory.limit": "134217728"})
	if err != nil {
		w.t.Fatal(err)
	}
	dir := filepath.Join(w.dir, "disk")
	if !w.cfg.keepDisk {
		dir = filepath.Join(w.dir, fmt.Sprintf("disk%d", w.lives))
	}
	bc := cli.BrokerConfig{Listen: "broker.sim:9092", Store: spec, DataDir: dir, NodeID: 1, Broker: conf}
	ctx, cancel := context.WithCancel(context.Background())
	n.cancel = cancel
	log := slog.New(slog.DiscardHandler)
	if os.Getenv("SIM_LOG") != "" {
		log = slog.New(slog.NewTextHandler(os.Stderr, nil)).With(slog.Int("life", w.lives))
	}
	go func() {
		err := server.Serve(ctx, bc, log, n.ln, n.faulty)
		if !n.dead.Load() {
			log.Warn("the broker ended by itself; it is started again, as a supervisor does", slog.Any("err", err))
			w.kill <- struct{}{}
		}
		close(n.ended)
	}()
	w.node = n
}

// during runs f and starts brokers again that die meanwhile. It fails the test if f takes more than 20 minutes.
func (w *world) during(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	stuck := time.NewTimer(20 * time.Minute)
	defer stuck.Stop()
	for {
		select {
		case <-w.kill:
			w.crash()
			w.start()
		case <-stuck.C:
			w.t.Errorf("nothing goes on after 20 simulated minutes; plan %+v", w.cfg)
			w.abort()
			<-done
			return
		case <-done:
			return
		}
	}
}

// crash ends the broker's life: nothing that it still does reaches the bucket or a client.
func (w *world) crash() {
	w.node.dead.Store(true)
	w.node.faulty.Cut()
	w.node.ln.Cut()
	w.node.cancel()
	<-w.node.ended
	if err := w.node.faulty.Close(); err != nil {
		w.t.Error(err)
	}
}

// client is a real client on the simulated network.
func (w *world) client(opts ...kgo.Opt) *kgo.Client {
	cl, err := kgo.NewClient(append([]kgo.Opt{
		kgo.SeedBrokers("broker.sim:9092"), kgo.Dialer(w.net.Dial),
		kgo.RetryBackoffFn(func(int) time.Duration { return 100 * time.Millisecond }),
		kgo.MetadataMinAge(50 * time.Millisecond), kgo.RequestTimeoutOverhead(2 * time.Second),
	}, opts...)...)
	if err != nil {
		w.t.Fatal(err)
	}
	return cl
}

// acked is what a producer was told.
type acked struct {
	value  string
	offset int64
}

// produce sends the plan's records to every partition and returns what was acknowledged. Brokers that die are started
// again meanwhile.
func (w *world) produce() [partitions][]acked {
	opts := []kgo.Opt{
		kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerLinger(0), kgo.MaxBufferedRecords(7),
		kgo.AllowAutoTopicCreation(), kgo.UnknownTopicRetries(-1), kgo.RequiredAcks(w.cfg.acks), kgo.ProduceRequestTimeout(3 * time.Second),
	}
	if w.cfg.acks != kgo.AllISRAcks() {
		opts = append(opts, kgo.DisableIdempotentWrite())
	}
	cl := w.client(opts...)
	defer cl.Close()
	var mu sync.Mutex
	var out [partitions][]acked
	w.abort = cl.Close
	w.during(func() {
		var wg sync.WaitGroup
		for i := range w.cfg.records {
			for p := range partitions {
				wg.Add(1)
				r := &kgo.Record{Topic: topic, Partition: int32(p), Value: fmt.Appendf(nil, "%d-%05d", p, i)}
				cl.Produce(context.Background(), r, func(r *kgo.Record, err error) {
					defer wg.Done()
					mu.Lock()
					defer mu.Unlock()
					if err == nil {
						out[r.Partition] = append(out[r.Partition], acked{string(r.Value), r.Offset})
					} else if w.cfg.acks == kgo.AllISRAcks() {
						w.t.Errorf("record %s failed for good: %v", r.Value, err)
					}
				})
			}
			time.Sleep(3 * time.Millisecond) // simulated: spreads the records over several flushes
		}
		wg.Wait()
	})
	mu.Lock()
	defer mu.Unlock()
	return out
}

// check reads everything back and compares it with what was acknowledged.
func (w *world) check(ctx context.Context, want [partitions][]acked) error {
	for p := range partitions {
		cl := w.client(kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {int32(p): kgo.NewOffset().AtStart()}}))
		got := make(map[int64]string)
		last, order := int64(-1), ""
		missing := len(want[p])
		for missing > 0 {
			fs := cl.PollFetches(ctx)
			if err := fs.Err0(); err != nil {
				cl.Close()
				return fmt.Errorf("partition %d: %d acknowledged records are not there: %w", p, missing, err)
			}
			var bad error
			fs.EachRecord(func(r *kgo.Record) {
				if r.Offset <= last {
					bad = fmt.Errorf("partition %d: offset %d after %d", p, r.Offset, last)
				}
				if w.cfg.acks == kgo.AllISRAcks() && string(r.Value) <= order {
					bad = fmt.Errorf("partition %d offset %d: %s after %s: out of order or twice", p, r.Offset, r.Value, order)
				}
				last, order = r.Offset, string(r.Value)
				got[r.Offset] = order
			})
			if bad != nil {
				cl.Close()
				return bad
			}
			missing = 0
			for _, a := range want[p] {
				switch v, ok := got[a.offset]; {
				case !ok && a.offset <= last:
					cl.Close()
					return fmt.Errorf("partition %d: acknowledged %s at offset %d is gone", p, a.value, a.offset)
				case !ok:
					missing++
				case v != a.value:
					cl.Close()
					return fmt.Errorf("partition %d: offset %d holds %s, acknowledged was %s", p, a.offset, v, a.value)
				}
			}
		}
		cl.Close()
	}
	return nil
}

// run does a whole simulation and returns how many calls to the bucket it took.
func (w *world) run() (int, error) {
	w.start()
	want := w.produce()
	w.crash() // what was acknowledged must survive this too
	w.cfg.killAt = nil
	w.start()
	var err error
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Minute)
	w.abort = cancel
	w.during(func() { err = w.check(ctx, want) })
	cancel()
	w.crash()
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.calls, err
}
