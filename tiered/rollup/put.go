package rollup

import (
	"context"
	"errors"
	"fmt"

	"github.com/tierlog/tierlog/objstore"
)

// maxTries bounds the attempts of one write. What fails is planned again in the next round.
const maxTries = 8

// errTaken: an output's key, which nobody else should know, holds other bytes.
var errTaken = errors.New("taken by another object")

// put creates key with body and tries again while the outcome is open. A body that cannot be read ends it with
// the reason for that.
func (w *Worker) put(ctx context.Context, key string, body objstore.Payload) error {
	for try := 1; ; try++ {
		out, _, err := objstore.Put(ctx, w.cfg.Store, key, body)
		if s, ok := body.(*stream); ok {
			s.endPasses()
			if out != objstore.Mine && s.failure() != nil {
				return fmt.Errorf("write %s: %w", key, s.failure())
			}
		}
		switch {
		case out == objstore.Mine:
			return nil
		case out == objstore.Other:
			return fmt.Errorf("write %s: %w", key, errTaken)
		case final(err) || try == maxTries:
			return fmt.Errorf("write %s: %w", key, err)
		}
		if w.cfg.Backoff.Wait(ctx, try) != nil {
			return fmt.Errorf("write %s: %w", key, err)
		}
	}
}

// final tells whether trying again at once is of no use.
func final(err error) bool {
	for _, kind := range []error{objstore.ErrDenied, objstore.ErrNoBucket, objstore.ErrInvalid, objstore.ErrNoSpace} {
		if errors.Is(err, kind) {
			return true
		}
	}
	return false
}
