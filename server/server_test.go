package server_test

import (
	"context"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tierlog/tierlog/cli"
	"github.com/tierlog/tierlog/objstore"
	"github.com/tierlog/tierlog/objstore/backend"
	"github.com/tierlog/tierlog/objstore/mem"
	"github.com/tierlog/tierlog/server"
	"github.com/tierlog/tierlog/test/sim"
	"github.com/tierlog/tierlog/topicconf"
)

// life is one broker on simulated time. It must be used inside a synctest bubble.
type life struct {
	t     *testing.T
	store objstore.Store
	dir   string
	net   sim.Network
	set   map[string]string

	cancel context.CancelFunc
	ended  chan error
}

func newLife(t *testing.T, store objstore.Store) *life {
	return &life{t: t, store: store, dir: t.TempDir(), set: map[string]string{"memory.limit": "134217728"}}
}

func (l *life) start() {
	l.t.Helper()
	spec, err := backend.Parse("mem:")
	if err != nil {
		l.t.Fatal(err)
	}
	conf, err := topicconf.NewBroker(l.set)
	if err != nil {
		l.t.Fatal(err)
	}
	cfg := cli.BrokerConfig{Listen: "broker.sim:9092", Store: spec, DataDir: l.dir, NodeID: 1, Broker: conf}
	ctx, cancel := context.WithCancel(context.Background())
	ln := l.net.Listen()
	l.cancel, l.ended = cancel, make(chan error, 1)
	go func() { l.ended <- server.Serve(ctx, cfg, slog.New(slog.DiscardHandler), ln, l.store) }()
}

// stop ends the broker in order.
func (l *life) stop() {
	l.t.Helper()
	l.cancel()
	if err := <-l.ended; err != nil {
		l.t.Errorf("the broker ended with %v", err)
	}
}

func (l *life) client(opts ...kgo.Opt) *kgo.Client {
	l.t.Helper()
	cl, err := kgo.NewClient(append([]kgo.Opt{
		kgo.SeedBrokers("broker.sim:9092"), kgo.Dialer(l.net.Dial), kgo.AllowAutoTopicCreation(), kgo.ProducerLinger(0),
	}, opts...)...)
	if err != nil {
		l.t.Fatal(err)
	}
	return cl
}

// TestIdleBrokerFlushesAtOnce produces to a broker with nothing else to do: no time passes before the acknowledgement.
func TestIdleBrokerFlushesAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLife(t, mem.New())
		l.start()
		cl := l.client()
		if err := cl.ProduceSync(context.Background(), &kgo.Record{Topic: "t", Value: []byte("first")}).FirstErr(); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		if err := cl.ProduceSync(context.Background(), &kgo.Record{Topic: "t", Value: []byte("second")}).FirstErr(); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(start); took > 5*time.Millisecond {
			t.Errorf("acknowledged after %v", took)
		}
		cl.Close()
		start = time.Now()
		l.stop()
		if took := time.Since(start); took > 50*time.Millisecond {
			t.Errorf("an idle broker took %v to stop", took)
		}
	})
}
