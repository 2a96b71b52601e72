// Package broker answers Kafka requests from the engine (tiered), the metadata (cluster) and the settings (topicconf).
// There is one file for each API key, which names its versions and the KIPs that shaped it; errors.go is the one place
// that maps errors to Kafka's codes.
//
// Invariants:
//
//   - An API version is advertised only if it works.
//   - An error answer carries offset -1, never a plausible one.
//   - A produce request is answered with success only by the engine's commit; no other path acknowledges.
//   - The registry holds exactly the topics of the applied metadata; a partition is open in the engine before its topic
//     is in the registry, and gone from the registry before it is closed.
package broker

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tierlog/tierlog/membuf"
	"github.com/tierlog/tierlog/tiered"
	"github.com/tierlog/tierlog/topicconf"
	"github.com/tierlog/tierlog/wire"
)

// Config is what a Broker needs.
type Config struct {
	NodeID    int32
	Log       *tiered.Log
	Meta      Metadata
	Settings  *topicconf.Broker
	Responses *membuf.Budget // bounds the bytes of fetch responses that are held for slow readers
	Now       func() time.Time
	Logger    *slog.Logger
	// Serving tells whether this broker may answer for its partitions: false once its lease lapsed or it was fenced.
	Serving func() bool
}

// Broker implements wire.Handler.
type Broker struct {
	cfg      Config
	reg      registry
	settings atomic.Pointer[topicconf.Broker]
	apis     map[int16]api
	ctx      context.Context // ends with Close: what long polls and waiting requests run under
	cancel   context.CancelFunc
}

// api is one served API key.
type api struct {
	versions wire.Range
	handle   func(*Broker, context.Context, *wire.Request, *wire.Reply) error
}

// New returns a broker. Call Apply for each topic of the metadata before serving.
func New(cfg Config) *Broker {
	b := &Broker{cfg: cfg, apis: served()}
	b.settings.Store(cfg.Settings)
	b.ctx, b.cancel = context.WithCancel(context.Background())
	return b
}

// Close wakes every waiting request, which answers what it has.
func (b *Broker) Close() { b.cancel() }

// Versions implements wire.Handler.
func (b *Broker) Versions() map[int16]wire.Range {
	v := make(map[int16]wire.Range, len(b.apis))
	for key, a := range b.apis {
		v[key] = a.versions
	}
	return v
}

// Handle implements wire.Handler.
func (b *Broker) Handle(ctx context.Context, req *wire.Request, reply *wire.Reply) error {
	return b.apis[req.Key].handle(b, ctx, req, reply)
}

// parse reads the body of a request into msg, whose version it sets.
func parse[R kmsg.Request](req *wire.Request, msg R) (R, error) {
	msg.SetVersion(req.Version)
	if err := msg.ReadFrom(req.Body); err != nil {
		return msg, fmt.Errorf("malformed %s request of version %d: %w", kmsg.NameForKey(req.Key), req.Version, err)
	}
	return msg, nil
}

// plain adapts a handler that answers at once with one message.
func plain[R kmsg.Request](empty func() R, answer func(*Broker, context.Context, *wire.Request, R) (kmsg.Response, error)) func(*Broker, context.Context, *wire.Request, *wire.Reply) error {
	return func(b *Broker, ctx context.Context, req *wire.Request, reply *wire.Reply) error {
		msg, err := parse(req, empty())
		if err != nil {
			return err
		}
		resp, err := answer(b, ctx, req, msg)
		if err != nil {
			return err
		}
		resp.SetVersion(req.Version)
		reply.Send(resp)
		return nil
	}
}
