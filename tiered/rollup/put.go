package rollup

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tierlog/tierlog/objstore"
)

// Tries of one write or read, and the waits between them.
const (
	maxTries     = 8
	firstBackoff = 50 * time.Millisecond
	maxBackoff   = 2 * time.Second
)

// errTaken: an output's key, which nobody else should know, holds other bytes.
var errTaken = errors.New("taken by another object")

// put creates key with body and tries again while the outcome is open. A body that cannot be read ends it: see stream.
func (w *Worker) put(ctx context.Context, key string, body objstore.Payload) error {
	backoff := firstBackoff
	for try := 1; ; try++ {
		out, _, err := objstore.Put(ctx, w.cfg.Store, key, body)
		if s, ok := body.(*stream); ok && out == objstore.Unknown && s.failure() != nil {
			err = s.failure()
			return fmt.Errorf("write %s: %w", key, err)
		}
		switch {
		case out == objstore.Mine:
			return nil
		case out == objstore.Other:
			return fmt.Errorf("write %s: %w", key, errTaken)
		case final(err) || try == maxTries || ctx.Err() != nil:
			return fmt.Errorf("write %s: %w", key, err)
		}
		if perr := pause(ctx, backoff); perr != nil {
			return fmt.Errorf("write %s: %w", key, err)
		}
		backoff = min(2*backoff, maxBackoff)
	}
}

// final tells whether trying again at once is of no use.
func final(err error) bool {
	for _, kind := range []error{objstore.ErrDenied, objstore.ErrNoBucket, objstore.ErrInvalid, objstore.ErrNoSpace, objstore.ErrNotFound} {
		if errors.Is(err, kind) {
			return true
		}
	}
	return false
}

// pause waits for d or until ctx is done.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
