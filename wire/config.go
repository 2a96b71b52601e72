package wire

import (
	"fmt"
	"log/slog"
	"time"

	"github.com/tierlog/tierlog/membuf"
)

// Config is what a Server needs. Fields without a default are required.
type Config struct {
	Handler Handler
	Pool    *membuf.Pool   // memory of Produce frames
	Budget  *membuf.Budget // bounds the memory of Produce frames that is in use, of all connections
	Now     func() time.Time
	Logger  *slog.Logger // default: discard
	// Observer receives counts; default: none.
	Observer Observer

	// OtherBudget bounds the bytes of large frames other than Produce, while they are handled; default 64 MiB.
	OtherBudget *membuf.Budget

	MaxRequestBytes     int // socket.request.max.bytes; default 104857600
	MaxConnections      int // of this server; 0: no limit
	MaxConnectionsPerIP int // 0: no limit
	MaxPending          int // replies that one connection may have outstanding; default 128

	IdleTimeout  time.Duration // connections.max.idle.ms; default 10 minutes, negative: never
	BodyTimeout  time.Duration // without progress in the middle of a frame; default 30 s
	WriteTimeout time.Duration // without progress of a response; default 60 s
}

func (c Config) withDefaults() Config {
	def(&c.MaxRequestBytes, 104857600)
	def(&c.MaxPending, 128)
	def(&c.IdleTimeout, 10*time.Minute)
	def(&c.BodyTimeout, 30*time.Second)
	def(&c.WriteTimeout, 60*time.Second)
	if c.OtherBudget == nil {
		c.OtherBudget = membuf.NewBudget(64 << 20)
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Observer == nil {
		c.Observer = noObserver{}
	}
	return c
}

func def[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// Validate names the first bad field, its value and what is allowed.
func (c Config) Validate() error {
	c = c.withDefaults()
	switch {
	case c.Handler == nil:
		return fmt.Errorf("wire: Handler is nil, it is required")
	case c.Pool == nil:
		return fmt.Errorf("wire: Pool is nil, it is required")
	case c.Budget == nil:
		return fmt.Errorf("wire: Budget is nil, it is required")
	case c.Now == nil:
		return fmt.Errorf("wire: Now is nil, a clock is required")
	case c.MaxRequestBytes < minFrame || c.MaxRequestBytes > maxFrame:
		return fmt.Errorf("wire: MaxRequestBytes is %d, allowed are %d to %d", c.MaxRequestBytes, minFrame, maxFrame)
	case c.MaxConnections < 0:
		return fmt.Errorf("wire: MaxConnections is %d, allowed are 0 (no limit) and up", c.MaxConnections)
	case c.MaxConnectionsPerIP < 0:
		return fmt.Errorf("wire: MaxConnectionsPerIP is %d, allowed are 0 (no limit) and up", c.MaxConnectionsPerIP)
	case c.MaxPending < 1:
		return fmt.Errorf("wire: MaxPending is %d, allowed are 1 and up", c.MaxPending)
	case c.BodyTimeout < 0:
		return fmt.Errorf("wire: BodyTimeout is %v, allowed are 0 (default) and up", c.BodyTimeout)
	case c.WriteTimeout < 0:
		return fmt.Errorf("wire: WriteTimeout is %v, allowed are 0 (default) and up", c.WriteTimeout)
	}
	for key, r := range c.Handler.Versions() {
		if key < 0 || r.Min < 0 || r.Max < r.Min {
			return fmt.Errorf("wire: Versions has key %d with range %d to %d, allowed are keys from 0 on and 0 <= Min <= Max", key, r.Min, r.Max)
		}
	}
	return nil
}
