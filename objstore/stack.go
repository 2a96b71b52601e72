package objstore

// StackConfig says what Stack puts on a store. The zero value only retries.
type StackConfig struct {
	// Observer, if set, is told of every request: retries and second requests too.
	Observer Observer
	// Limit bounds requests.
	Limit LimitConfig
	// Hedge sends slow requests twice. Of no use for a store without a network.
	Hedge HedgeConfig
	// Retry repeats reads, lists and deletes that failed for a passing reason.
	Retry RetryConfig
}

// Validate names the field that is out of range.
func (c StackConfig) Validate() error {
	for _, v := range []interface{ Validate() error }{c.Limit, c.Hedge, c.Retry} {
		if err := v.Validate(); err != nil {
			return err
		}
	}
	return nil
}

// Stack decorates a driver: the one place that says in which order.
//
//   - Metrics sit on the driver: they count what a bill counts, and time requests without the wait for their turn.
//   - The limit comes next, so that second requests and retries count against it.
//   - A hedge answers for one try of a retry, not for all.
func Stack(base Store, cfg StackConfig) Store {
	s := base
	if cfg.Observer != nil {
		s = WithMetrics(s, cfg.Observer)
	}
	if cfg.Limit != (LimitConfig{}) {
		s = WithLimit(s, cfg.Limit)
	}
	if cfg.Hedge.Reads || cfg.Hedge.Creates {
		s = WithHedge(s, cfg.Hedge)
	}
	if cfg.Retry.Attempts != 1 {
		s = WithRetry(s, cfg.Retry)
	}
	return s
}
