package objstore

import (
	"context"
	"errors"
	"log/slog"
	"time"
)

// Persist says how PutUntil and ReplaceUntil keep trying. The zero value waits as Backoff's does, lets every attempt
// take as long as it likes, and logs nothing.
type Persist struct {
	Backoff
	// Attempt bounds one attempt; 0 means only the context does. An attempt that it ends counts as unknown.
	Attempt time.Duration
	// Log gets a warning for each failed attempt; nil means none.
	Log *slog.Logger
}

// PutUntil repeats Put with the same key and body until the outcome is known or the context ends. What looks permanent,
// such as ErrDenied, is repeated too: an earlier attempt may have been applied, and credentials get repaired.
// Only ErrInvalid ends it at once.
//
// It returns Mine or Other with the version and no error; or Unknown with an error that wraps the last attempt's and, if
// that ended it, the context's.
func PutUntil(ctx context.Context, s Store, key string, body Payload, p Persist) (Outcome, Version, error) {
	return p.until(ctx, "create", key, func(ctx context.Context) (Outcome, Version, error) {
		return Put(ctx, s, key, body)
	})
}

// ReplaceUntil repeats Replace as PutUntil repeats Put. An object that is gone ends it: Unknown with ErrChanged.
func ReplaceUntil(ctx context.Context, s Store, key string, r Replacement, p Persist) (Outcome, Version, error) {
	return p.until(ctx, "swap", key, func(ctx context.Context) (Outcome, Version, error) {
		return Replace(ctx, s, key, r.Old, r.Body)
	})
}

// Replacement is a body and the version that it replaces.
type Replacement struct {
	Old  Version
	Body Payload
}

func (p Persist) until(ctx context.Context, op, key string, try func(context.Context) (Outcome, Version, error)) (Outcome, Version, error) {
	for n := 1; ; n++ {
		out, v, err := p.once(ctx, try)
		if out != Unknown {
			return out, v, nil
		}
		if errors.Is(err, ErrInvalid) || isGone(err) {
			return Unknown, "", err
		}
		if cerr := ctx.Err(); cerr != nil {
			return Unknown, "", errors.Join(err, cerr)
		}
		if p.Log != nil {
			p.Log.LogAttrs(ctx, slog.LevelWarn, "bucket write failed, trying again",
				slog.String("op", op), slog.String("key", key), slog.Int("attempt", n), slog.Any("error", err))
		}
		if cerr := p.Wait(ctx, n); cerr != nil {
			return Unknown, "", errors.Join(err, cerr)
		}
	}
}

// isGone reports whether a swap was refused and its occupant does not exist. An occupant that could not be read is another
// matter: the error then says both.
func isGone(err error) bool {
	return errors.Is(err, ErrChanged) && !errors.Is(err, ErrUnavailable) && !errors.Is(err, ErrDenied) && !errors.Is(err, ErrNoBucket)
}

func (p Persist) once(ctx context.Context, try func(context.Context) (Outcome, Version, error)) (Outcome, Version, error) {
	if p.Attempt > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, p.Attempt)
		defer cancel()
	}
	return try(ctx)
}
