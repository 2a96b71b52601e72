package tiered

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics are the log's own measures; docs/METRICS.md lists them. All methods work on a nil *Metrics.
type Metrics struct {
	flushBytes    prometheus.Histogram
	flushSeconds  prometheus.Histogram
	flushParts    prometheus.Histogram
	flushFailures prometheus.Counter
	tailBytes     prometheus.Gauge
	aside         prometheus.Counter
	maintFailures prometheus.Counter
	unrolled      prometheus.Gauge
	rolledBytes   *prometheus.CounterVec
}

// NewMetrics registers the log's metrics.
func NewMetrics(r prometheus.Registerer) *Metrics {
	m := &Metrics{
		flushBytes: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "tierlog_flush_bytes", Help: "Size of WAL objects in bytes of records.", Buckets: prometheus.ExponentialBuckets(1<<10, 4, 8),
		}),
		flushSeconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "tierlog_flush_seconds", Help: "Time until the bucket held a WAL object.", Buckets: prometheus.ExponentialBuckets(0.0005, 2, 14),
		}),
		flushParts: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "tierlog_flush_partitions", Help: "Partitions in a WAL object.", Buckets: prometheus.ExponentialBuckets(1, 4, 8),
		}),
		flushFailures: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "tierlog_flush_failures_total", Help: "WAL objects that were given up: the log was fenced or closed.",
		}),
		tailBytes: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "tierlog_tail_bytes", Help: "Durable records kept in memory for readers.",
		}),
		aside: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "tierlog_recovery_set_aside_batches_total", Help: "Batches acknowledged with acks=1 only that did not reach the bucket before another broker led their partition.",
		}),
		maintFailures: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "tierlog_maintenance_failures_total", Help: "Rounds of maintenance that failed and will be tried again.",
		}),
		unrolled: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "tierlog_rollup_lag_bytes", Help: "Bytes of records that are not in log segments yet.",
		}),
		rolledBytes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tierlog_rollup_bytes_total", Help: "Bytes written by rollup, by output: merged segments and log segments.",
		}, []string{"output"}),
	}
	r.MustRegister(m.flushBytes, m.flushSeconds, m.flushParts, m.flushFailures, m.tailBytes, m.aside, m.maintFailures, m.unrolled, m.rolledBytes)
	return m
}

func (m *Metrics) sealed(fl *flight) {
	if m != nil {
		m.flushBytes.Observe(float64(fl.bytes))
		m.flushParts.Observe(float64(len(fl.sections)))
	}
}

func (m *Metrics) flushed(d time.Duration, err error) {
	switch {
	case m == nil:
	case err != nil:
		m.flushFailures.Inc()
	default:
		m.flushSeconds.Observe(d.Seconds())
	}
}

func (m *Metrics) tail(bytes int64) {
	if m != nil {
		m.tailBytes.Set(float64(bytes))
	}
}

func (m *Metrics) setAside(batches int) {
	if m != nil {
		m.aside.Add(float64(batches))
	}
}

func (m *Metrics) maintenanceFailed() {
	if m != nil {
		m.maintFailures.Inc()
	}
}

func (m *Metrics) lag(bytes int64) {
	if m != nil {
		m.unrolled.Set(float64(bytes))
	}
}

func (m *Metrics) rolled(output string, bytes int64) {
	if m != nil {
		m.rolledBytes.WithLabelValues(output).Add(float64(bytes))
	}
}
