package server

import (
	"runtime/debug"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tierlog/tierlog/objstore"
	"github.com/tierlog/tierlog/wire"
)

// observer turns what wire and objstore report into metrics; docs/METRICS.md lists them.
type observer struct {
	connections  prometheus.Gauge
	opened       prometheus.Counter
	closed       *prometheus.CounterVec
	refused      prometheus.Counter
	requests     *prometheus.CounterVec
	requestTime  *prometheus.HistogramVec
	responseWait prometheus.Histogram
	bytes        *prometheus.CounterVec

	bucketRequests *prometheus.CounterVec
	bucketBytes    *prometheus.CounterVec
	bucketTime     *prometheus.HistogramVec

	writeFailures atomic.Int32 // in a row
}

var fast = prometheus.ExponentialBuckets(0.0001, 2.5, 14)

func newObserver(r *prometheus.Registry) *observer {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	o := &observer{
		connections:  prometheus.NewGauge(prometheus.GaugeOpts{Name: "tierlog_connections", Help: "Open client connections."}),
		opened:       prometheus.NewCounter(prometheus.CounterOpts{Name: "tierlog_connections_opened_total", Help: "Client connections that were opened."}),
		closed:       counter("tierlog_connections_closed_total", "Client connections that ended, by reason.", "reason"),
		refused:      prometheus.NewCounter(prometheus.CounterOpts{Name: "tierlog_connections_refused_total", Help: "Connections over the limit."}),
		requests:     counter("tierlog_requests_total", "Kafka requests, by API and version.", "api", "version"),
		requestTime:  prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "tierlog_request_seconds", Help: "Time to answer a Kafka request, waiting in long polls included.", Buckets: fast}, []string{"api"}),
		responseWait: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "tierlog_response_wait_seconds", Help: "Time from a response being complete to its being written.", Buckets: fast}),
		bytes:        counter("tierlog_request_bytes_total", "Bytes of Kafka requests and responses, by API and direction.", "api", "direction"),

		bucketRequests: counter("tierlog_bucket_requests_total", "Requests to the bucket, by operation, purpose and outcome.", "op", "purpose", "outcome"),
		bucketBytes:    counter("tierlog_bucket_bytes_total", "Bytes read from and written to the bucket.", "op", "purpose"),
		bucketTime:     prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "tierlog_bucket_request_seconds", Help: "Time of a request to the bucket.", Buckets: prometheus.ExponentialBuckets(0.0002, 2.5, 13)}, []string{"op", "purpose"}),
	}
	r.MustRegister(o.connections, o.opened, o.closed, o.refused, o.requests, o.requestTime, o.responseWait, o.bytes,
		o.bucketRequests, o.bucketBytes, o.bucketTime,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return o
}

// ConnectionOpened implements wire.Observer.
func (o *observer) ConnectionOpened() {
	o.connections.Inc()
	o.opened.Inc()
}

// ConnectionClosed implements wire.Observer.
func (o *observer) ConnectionClosed(r wire.Reason) {
	o.connections.Dec()
	o.closed.WithLabelValues(string(r)).Inc()
}

// ConnectionRefused implements wire.Observer.
func (o *observer) ConnectionRefused() { o.refused.Inc() }

// RequestDone implements wire.Observer.
func (o *observer) RequestDone(s wire.Sample) {
	api := kmsg.NameForKey(s.Key)
	o.requests.WithLabelValues(api, strconv.Itoa(int(s.Version))).Inc()
	o.requestTime.WithLabelValues(api).Observe(s.Handle.Seconds())
	o.responseWait.Observe(s.Wait.Seconds())
	o.bytes.WithLabelValues(api, "in").Add(float64(s.BytesIn))
	o.bytes.WithLabelValues(api, "out").Add(float64(s.BytesOut))
}

// Observe implements objstore.Observer.
func (o *observer) Observe(op string, p objstore.Purpose, outcome string, bytes int64, d time.Duration) {
	o.bucketRequests.WithLabelValues(op, string(p), outcome).Inc()
	o.bucketTime.WithLabelValues(op, string(p)).Observe(d.Seconds())
	if bytes > 0 {
		o.bucketBytes.WithLabelValues(op, string(p)).Add(float64(bytes))
	}
	if op == "create" || op == "swap" {
		if outcome == "ok" {
			o.writeFailures.Store(0)
		} else if outcome != objstore.OutcomeOf(objstore.ErrExists) && outcome != objstore.OutcomeOf(objstore.ErrChanged) {
			o.writeFailures.Add(1)
		}
	}
}

// failing tells whether the last few writes to the bucket all failed.
func (o *observer) failing() bool { return o.writeFailures.Load() >= 3 }

// registerMemory exposes the uses of memory.
func registerMemory(r *prometheus.Registry, m *memory) {
	uses := map[string]func() int64{
		"ingest": m.ingest.Used, "requests": m.other.Used, "responses": m.responses.Used,
		"buffers": m.pool.Live, "free": m.pool.Kept, "cache": func() int64 { return m.blocks.Stats().Bytes },
	}
	for use, f := range uses {
		r.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "tierlog_memory_bytes", Help: "Memory by use.", ConstLabels: prometheus.Labels{"use": use},
		}, func() float64 { return float64(f()) }))
	}
	for name, f := range map[string]func() int64{
		"hits": func() int64 { return m.blocks.Stats().Hits }, "misses": func() int64 { return m.blocks.Stats().Misses },
		"evictions": func() int64 { return m.blocks.Stats().Evictions },
	} {
		r.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "tierlog_cache_" + name + "_total", Help: "Block cache: " + name + ".",
		}, func() float64 { return float64(f()) }))
	}
}

// limitMemory tells the runtime its bound.
func limitMemory(limit int64) { debug.SetMemoryLimit(limit) }
