package cluster

import (
	"fmt"
	"time"

	"github.com/tierlog/tierlog/tiered/logid"
	"github.com/tierlog/tierlog/tiered/manifest"
)

// leaseBody is the body of lease/<node id>.
type leaseBody struct {
	Cluster logid.ClusterID `json:"cluster"`
	Node    NodeID          `json:"node"`
	Epoch   logid.Epoch     `json:"epoch"`
	// Version grows with every renewal of the epoch.
	Version uint64 `json:"version"`
	// TTLMs is how long the holder serves without a renewal; observers wait at least as long.
	TTLMs   int64  `json:"ttlMs"`
	Address string `json:"address"`
	TimeMs  int64  `json:"timeMs"` // the holder's wall clock, for people
}

// maxTTL bounds how long a lease makes an observer wait, whoever wrote it.
const maxTTL = 24 * time.Hour

func (b *leaseBody) encode(n manifest.Nonce) ([]byte, error) {
	return manifest.EncodeBody(kindLease, n, b)
}

func decodeLease(body []byte, c logid.ClusterID, node NodeID) (*leaseBody, error) {
	b := &leaseBody{}
	if _, err := manifest.DecodeBody(kindLease, body, b); err != nil {
		return nil, bodyError(err)
	}
	if b.TTLMs < 0 || b.TTLMs > maxTTL.Milliseconds() {
		return nil, fmt.Errorf("ttlMs is %d, want 0 to %d: %w", b.TTLMs, maxTTL.Milliseconds(), ErrCorrupt)
	}
	if b.Cluster != c || b.Node != node {
		return nil, fmt.Errorf("the body is that of node %d of cluster %s, want node %d of %s: %w", b.Node, b.Cluster, node, c, ErrCorrupt)
	}
	return b, nil
}

// holder is the pure part of keeping a lease. Times are of one monotonic clock.
//
// Invariant: validUntil is at most TTL after a moment before some renewal became visible, so that an observer who saw
// that renewal and then waits for the TTL on its own clock sees the lease end later than the holder does.
type holder struct {
	ttl, every time.Duration
	version    uint64
	validUntil time.Time
	next       time.Time // of the next attempt
	failures   int
}

// newHolder starts a lease that is valid from joined on: a moment before the join became visible.
func newHolder(ttl, every time.Duration, joined time.Time) *holder {
	return &holder{ttl: ttl, every: every, validUntil: joined.Add(ttl), next: joined}
}

// attempt starts a renewal: the version to write, which no earlier attempt wrote.
func (h *holder) attempt() uint64 {
	h.version++
	return h.version
}

// renewed says that the renewal that was sent at that time is in the bucket.
func (h *holder) renewed(sent time.Time) {
	h.validUntil, h.next, h.failures = sent.Add(h.ttl), sent.Add(h.every), 0
}

// failed says that a renewal is not known to be in the bucket. Attempts come faster than renewals, with growing pauses.
func (h *holder) failed(now time.Time) {
	pause := h.every / 10 << min(h.failures, 3)
	h.failures++
	h.next = now.Add(min(pause, h.every/2))
}

// lapsed reports whether the lease is over at that time.
func (h *holder) lapsed(now time.Time) bool { return !now.Before(h.validUntil) }

// verdict is what an observer knows of another broker.
type verdict uint8

const (
	watching verdict = iota // not known yet
	alive                   // the lease changed while it was watched
	gone                    // the lease stayed as it is for the TTL
)

// observer is the pure part of watching another broker's lease. Times are of one monotonic clock: the holder's is not
// compared with it.
type observer struct {
	ttl   time.Duration // the longest that anyone said
	seen  string        // identity of the lease at the first sight
	since time.Time     // a moment after which it was seen first
	begun bool
}

// observe takes what a read that was sent at that time has found: any text that differs for different lease objects.
// A read that failed says nothing and must not be given.
func (o *observer) observe(sent time.Time, id string, ttl time.Duration) verdict {
	if !o.begun {
		o.begun, o.seen = true, id
	}
	o.ttl = max(o.ttl, ttl)
	switch {
	case id != o.seen:
		return alive
	case o.since.IsZero() || sent.Sub(o.since) < o.ttl:
		return watching
	default:
		return gone
	}
}

// received says when the answer to the first read came; the wait starts there.
func (o *observer) received(now time.Time) {
	if o.since.IsZero() {
		o.since = now
	}
}
