// Package bench loads a Kafka broker and measures it, at a cost in client CPU that is as low as the client allows.
//
// Invariants:
//
//   - With a rate, latency counts from the time a record was due, not from when it could be sent:
//     a stall of the broker shows in every record it delayed.
//   - Every record is accounted for: acknowledged or failed; a report says how many of each.
//   - Producing allocates nothing per record: records, their callbacks and payloads are made once and used again.
//   - Latencies are kept in a Histogram; its percentiles are at most 1/128 too high, extremes and mean are exact.
package bench

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// Dial returns a client that has reached the broker.
type Dial func(ctx context.Context, opts ...kgo.Opt) (*kgo.Client, error)

// Latency summarizes a histogram, in milliseconds.
type Latency struct {
	Samples int64   `json:"samples"`
	Mean    float64 `json:"mean_ms"`
	P50     float64 `json:"p50_ms"`
	P90     float64 `json:"p90_ms"`
	P99     float64 `json:"p99_ms"`
	P999    float64 `json:"p99_9_ms"`
	Max     float64 `json:"max_ms"`
	// From says what the time was taken from, and of which records.
	From string `json:"from"`
}

// Report is what a run came to.
type Report struct {
	Command    string  `json:"command"`
	Topic      string  `json:"topic"`
	Partitions int     `json:"partitions"`
	Clients    int     `json:"clients"`
	Records    int64   `json:"records"` // acknowledged, or read
	Failed     int64   `json:"failed"`
	Bytes      int64   `json:"bytes"`      // of keys and values
	WireBytes  int64   `json:"wire_bytes"` // sent and received, all requests
	Seconds    float64 `json:"seconds"`
	PerSecond  float64 `json:"records_per_second"`
	MiB        float64 `json:"mib_per_second"`
	// ClientCPU is what this process used, user and system, in seconds.
	ClientCPU float64  `json:"client_cpu_seconds"`
	Ack       *Latency `json:"ack_latency,omitempty"`        // until acknowledged
	EndToEnd  *Latency `json:"end_to_end_latency,omitempty"` // until read by a consumer
	// RatePerSecond is what was asked for; 0: as fast as possible.
	RatePerSecond float64 `json:"rate_per_second,omitempty"`
}

// finish fills in what follows from the time taken.
func (r *Report) finish(took, cpu time.Duration) {
	r.Seconds = took.Seconds()
	r.ClientCPU = cpu.Seconds()
	if took > 0 {
		r.PerSecond = float64(r.Records) / r.Seconds
		r.MiB = float64(r.Bytes) / (1 << 20) / r.Seconds
	}
}

// cpuTime returns what the process has used, user and system.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// wire counts the bytes of clients on the network.
type wire struct{ bytes atomic.Int64 }

// OnBrokerWrite implements kgo.HookBrokerWrite.
//
//nolint:revive // the interface has that many arguments
func (w *wire) OnBrokerWrite(_ kgo.BrokerMetadata, _ int16, n int, _, _ time.Duration, _ error) {
	w.bytes.Add(int64(n))
}

// OnBrokerRead implements kgo.HookBrokerRead.
//
//nolint:revive // the interface has that many arguments
func (w *wire) OnBrokerRead(_ kgo.BrokerMetadata, _ int16, n int, _, _ time.Duration, _ error) {
	w.bytes.Add(int64(n))
}

// Load says how much is produced and how fast.
type Load struct {
	Topic      string
	Partitions int
	Producers  int           // clients, each with its own connection
	Records    int64         // in all; 0: no limit
	Duration   time.Duration // 0: no limit
	Rate       float64       // records per second in all; 0: as fast as possible
	RecordSize int           // bytes of a value
	Payload    Payload
	// Options are the producers' further options.
	Options []kgo.Opt
	// Now reads the clock.
	Now func() time.Time
	// Watch, if set, is called when the run starts, with what tells how far it is; what it returns is called at the end.
	Watch Watch
}

// Watch shows the progress of a run.
type Watch func(state func() (records, bytes int64)) (stop func())

// start begins to watch a run, if anybody does.
func (w Watch) start(state func() (records, bytes int64)) (stop func()) {
	if w == nil {
		return func() {}
	}
	return w(state)
}

// Validate names what is wrong with a load.
func (l Load) Validate() error {
	switch {
	case l.Topic == "":
		return errors.New("topic is empty")
	case l.Producers < 1 || l.Producers > 1024:
		return fmt.Errorf("producers %d: want 1 to 1024", l.Producers)
	case l.Records < 0:
		return fmt.Errorf("records %d: want 1 or more, or 0 for no limit", l.Records)
	case l.Duration < 0:
		return fmt.Errorf("duration %s: want more than 0, or 0 for no limit", l.Duration)
	case l.Records == 0 && l.Duration == 0:
		return errors.New("give records, duration, or both")
	case l.Rate < 0:
		return fmt.Errorf("rate %g: want more than 0, or 0 for as fast as possible", l.Rate)
	case l.RecordSize < 0 || l.RecordSize > 1<<30:
		return fmt.Errorf("record-size %d: want 0 to 1 GiB", l.RecordSize)
	}
	return nil
}
