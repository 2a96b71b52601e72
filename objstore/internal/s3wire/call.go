package s3wire

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/tierlog/tierlog/objstore"
)

// call is one call of a driver: at most one request, and what came of it.
type call struct {
	op     string
	key    string // as the caller knows it
	cancel context.CancelFunc

	mu     sync.Mutex // guards the rest
	sent   bool
	second bool    // a second request was refused
	err    error   // of the transport
	answer *answer // the head of the answer has come
}

// begin starts a call. The context it returns ends with the budget, with stop, and as soon as the call has failed:
// minio-go would otherwise wait for its next try before it returns.
func begin(ctx context.Context, op, key string, budget time.Duration) (context.Context, *call) {
	c := &call{op: op, key: key}
	ctx, c.cancel = context.WithTimeoutCause(ctx, budget, &timeoutError{fmt.Sprintf("no answer within %v", budget.Round(time.Millisecond))})
	return withCall(ctx, c), c
}

func (c *call) stop() { c.cancel() }

type timeoutError struct{ text string }

func (e *timeoutError) Error() string { return e.text }

func (e *timeoutError) Timeout() bool { return true }

// claim reports whether this is the call's first request.
func (c *call) claim() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.sent {
		c.second = true
		c.cancel()
		return false
	}
	c.sent = true
	return true
}

func (c *call) failed(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.err = err
	c.cancel()
}

func (c *call) answered(a *answer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.answer = a
	if a.Status >= 300 {
		c.cancel()
	}
}

func (c *call) stopped() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.second
}

// status returns the answer's status, or 0.
func (c *call) status() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.answer == nil {
		return 0
	}
	return c.answer.Status
}

// noSuchKey reports whether the store answered that it does not have the object.
func (c *call) noSuchKey() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.answer != nil && c.answer.Status == http.StatusNotFound && c.answer.Code != "NoSuchBucket"
}

// header returns the answer's header, which may be empty but not nil.
func (c *call) header() (h http.Header, length int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.answer == nil {
		return http.Header{}, -1
	}
	return c.answer.Header, c.answer.Length
}

// error turns what the SDK returned into an error of the store. outer is the caller's context, inner the call's.
func (c *call) error(outer, inner context.Context, err error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	kind, cause := c.verdict(outer, inner, err)
	return &objstore.Error{Op: c.op, Key: c.key, Kind: kind, Err: cause}
}

// verdict needs mu.
func (c *call) verdict(outer, inner context.Context, err error) (kind, cause error) {
	var timeout *timeoutError
	switch {
	case c.answer != nil && c.answer.Status >= 300:
		return c.answer.kind(c.op), c.answer
	case outer.Err() != nil:
		return passing(c.op), outer.Err()
	case errors.As(context.Cause(inner), &timeout):
		return passing(c.op), timeout
	case errors.Is(c.err, context.DeadlineExceeded), errors.Is(c.err, context.Canceled):
		// The network's time-outs claim to be the context's. The caller's context has not ended.
		return passing(c.op), &timeoutError{c.err.Error()}
	case c.err != nil:
		return passing(c.op), c.err
	case c.answer != nil:
		return passing(c.op), fmt.Errorf("the answer broke off or makes no sense: %w", err)
	default:
		return passing(c.op), fmt.Errorf("no request could be made: %w", err) // no credentials to be had, mostly
	}
}

// invalid is the error of a call that is not worth sending.
func invalid(op, key, format string, args ...any) error {
	return &objstore.Error{Op: op, Key: key, Kind: objstore.ErrInvalid, Err: fmt.Errorf(format, args...)}
}

// passing is the kind of a failure that may be gone the next time.
func passing(op string) error {
	if isWrite(op) {
		return objstore.ErrUnknown
	}
	return objstore.ErrUnavailable
}

func isWrite(op string) bool { return op == opCreate || op == opSwap }

// kind says what an answer other than success means for the operation.
func (a *answer) kind(op string) error {
	if kind := kindOfCode(op, a.Code); kind != nil {
		return kind
	}
	switch a.Status {
	case http.StatusPreconditionFailed:
		return refused(op)
	case http.StatusNotFound:
		return missing(op)
	case http.StatusConflict:
		if isWrite(op) {
			return objstore.ErrBusy
		}
		return objstore.ErrUnavailable
	case http.StatusUnauthorized, http.StatusForbidden:
		return objstore.ErrDenied
	case http.StatusTemporaryRedirect, http.StatusRequestTimeout, http.StatusTooManyRequests, 499: // 499: a proxy's client went away
		return passing(op)
	}
	if a.Status >= 500 {
		return passing(op)
	}
	return objstore.ErrInvalid
}

// kindOfCode knows the codes that say more than their status; nil for the others.
func kindOfCode(op, code string) error {
	switch code {
	case "NoSuchBucket":
		return objstore.ErrNoBucket
	case "ExpiredToken", "InvalidToken", "TokenRefreshRequired", "RequestExpired":
		return objstore.ErrDenied
	case "NotImplemented": // with 501: the store knows no conditions, for instance
		return objstore.ErrInvalid
	case "XMinioObjectExistsAsDirectory", "XMinioParentIsObject": // 409, yet it will not pass
		return objstore.ErrInvalid
	case "RequestTimeout", "IncompleteBody": // 400, yet the same request may succeed
		return passing(op)
	default:
		return nil
	}
}

func refused(op string) error {
	switch op {
	case opCreate:
		return objstore.ErrExists
	case opSwap:
		return objstore.ErrChanged
	default:
		return objstore.ErrInvalid // nothing else sends a condition
	}
}

func missing(op string) error {
	switch op {
	case opCreate:
		return objstore.ErrUnknown // makes no sense; a proxy's answer perhaps
	case opSwap:
		return objstore.ErrChanged
	case opList:
		return objstore.ErrNoBucket
	case opDelete:
		return objstore.ErrUnavailable
	default:
		return objstore.ErrNotFound
	}
}
