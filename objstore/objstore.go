// Package objstore is tierlog's view of a bucket: immutable-or-swapped objects, atomic create-if-absent
// and compare-and-swap, strong read-after-write and list-after-write.
//
// Invariants every Store keeps:
//
//   - Create and Swap are atomic: of any number of concurrent calls on one key and state, at most one applies.
//   - A nil error from Create or Swap means the bytes are durable: they survive the loss of the process and of power.
//   - An error other than ErrUnknown or ErrBusy means that this very call applied nothing.
//     (A retry inside the caller may still meet its own earlier write; see Put and Replace.)
//   - A driver never retries a conditional write by itself: a lost reply followed by a silent retry would
//     report "precondition failed" for our own object.
//   - Reads never return bytes of two states of an object in one call.
//
// A lost reply is not a lost race: Put and Replace read the occupant back and tell Mine, Other and Unknown apart.
package objstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"
)

// Sentinels to decide on. Drivers wrap them in *Error.
var (
	// ErrNotFound: the key does not exist.
	ErrNotFound = errors.New("object not found")
	// ErrExists: Create found the key occupied (HTTP 412). The occupant may be an earlier attempt of the caller.
	ErrExists = errors.New("object already exists")
	// ErrChanged: Swap found another version, or no object (HTTP 412).
	ErrChanged = errors.New("object changed since it was read")
	// ErrBusy: the store decided nothing because of a concurrent operation (HTTP 409 ConditionalRequestConflict). Retry.
	ErrBusy = errors.New("conflicting operation in progress")
	// ErrUnknown: the write may or may not have been applied (time-out, reset, 5xx). Retry the same bytes, or read back.
	ErrUnknown = errors.New("outcome unknown")
	// ErrUnavailable: a read, list or delete failed for a passing reason (time-out, reset, 5xx, throttled). Retry.
	ErrUnavailable = errors.New("store unavailable")
	// ErrDenied: the credentials do not allow it (HTTP 401, 403), or the directory's permissions.
	ErrDenied = errors.New("access denied")
	// ErrNoBucket: the bucket does not exist.
	ErrNoBucket = errors.New("bucket does not exist")
	// ErrInvalid: the request can never succeed (a malformed key, a full disk is not one).
	ErrInvalid = errors.New("invalid request")
	// ErrNoSpace: the directory store's disk is full. Nothing was applied.
	ErrNoSpace = errors.New("no space left")
)

// Error says which operation on which key failed and how.
type Error struct {
	Op   string // "create", "swap", "read", "head", "delete", "list"
	Key  string
	Kind error // one of the sentinels
	Err  error // the driver's own error; may be nil; never holds a credential
}

func (e *Error) Error() string {
	if e.Err == nil {
		return fmt.Sprintf("%s %q: %v", e.Op, e.Key, e.Kind)
	}
	return fmt.Sprintf("%s %q: %v: %v", e.Op, e.Key, e.Kind, e.Err)
}

// Unwrap makes errors.Is see both the sentinel and the driver's error.
func (e *Error) Unwrap() []error {
	if e.Err == nil {
		return []error{e.Kind}
	}
	return []error{e.Kind, e.Err}
}

// Version identifies one state of one key (an S3 ETag, or what a driver uses instead). Compare only for equality.
type Version string

// Info describes an object. Size is the whole object's, also where a range was read.
type Info struct {
	Key      string
	Size     int64 // bytes
	Version  Version
	Modified time.Time // the store's clock: for display and grace periods only, never for safety
}

// Page is one page of a List, in byte order of the keys.
type Page struct {
	Objects []Info
	// More says that keys after the last one of Objects exist under the prefix.
	More bool
}

// Payload is the immutable body of a write. It may be sent several times, also concurrently (hedges).
type Payload interface {
	// Size is the body's length in bytes.
	Size() int64
	// Reader returns a new independent reader over the whole body. It may also implement io.WriterTo.
	Reader() io.ReadSeeker
	// CRC32C returns the Castagnoli checksum of the whole body, if it is known without reading it.
	CRC32C() (sum uint32, known bool)
}

// Store is a bucket, or a prefix of one. All methods may be called concurrently.
// Keys are non-empty, use '/' between parts, and have no empty, "." or ".." part; see CheckKey. No key may be another
// key's folder ("a" beside "a/b"): a directory can not hold both. A call whose context has ended before it starts does
// nothing and wraps the context's error in ErrUnknown (Create, Swap) or ErrUnavailable (all others).
type Store interface {
	// ReadAt fills p with the object's bytes from off on. n < len(p) with a nil error happens only at the
	// object's end; off at or past the end gives n = 0. Errors: ErrNotFound, ErrUnavailable, ErrDenied, ErrNoBucket.
	ReadAt(ctx context.Context, key string, p []byte, off int64) (n int, info Info, err error)

	// ReadSuffix fills p[:n] with the last min(len(p), size) bytes of the object. len(p) must be positive.
	ReadSuffix(ctx context.Context, key string, p []byte) (n int, info Info, err error)

	// Head returns the object's description.
	Head(ctx context.Context, key string) (Info, error)

	// Create writes the object only if the key does not exist. When it returns nil the bytes are durable.
	// Errors: ErrExists, ErrBusy, ErrUnknown, ErrDenied, ErrNoBucket, ErrInvalid, ErrNoSpace.
	Create(ctx context.Context, key string, body Payload) (Version, error)

	// Swap replaces the object only if its version is still old. When it returns nil the bytes are durable.
	// Errors: ErrChanged (also when the key is gone), ErrBusy, ErrUnknown, ErrDenied, ErrNoBucket, ErrInvalid, ErrNoSpace.
	Swap(ctx context.Context, key string, old Version, body Payload) (Version, error)

	// Delete removes the keys; a missing key is no error. It may have removed some of them when it fails.
	Delete(ctx context.Context, keys []string) error

	// List returns up to limit (at most 1,000; 0 means 1,000) objects whose keys start with prefix and are
	// greater than after (empty: from the start), in byte order. A prefix that no key can start with lists nothing. Listing is for start-up, operators and
	// garbage collection; nothing lists in steady state.
	List(ctx context.Context, prefix, after string, limit int) (Page, error)

	// Close releases what the driver holds. No other call may be running or follow.
	Close() error
}

// Purpose says what a request is for; metrics count requests by it. See WithPurpose.
type Purpose string

// The purposes that requests are counted by.
const (
	PurposeWAL        Purpose = "wal"        // WAL objects and fences
	PurposeFetch      Purpose = "fetch"      // reads for consumers
	PurposeMeta       Purpose = "meta"       // metadata log and snapshots
	PurposeLease      Purpose = "lease"      // liveness
	PurposeRecovery   Purpose = "recovery"   // start-up and takeover
	PurposeRollup     Purpose = "rollup"     // merged segments and log segments
	PurposeRetention  Purpose = "retention"  // log start pointers
	PurposeGC         Purpose = "gc"         // deletion of garbage
	PurposeManifest   Purpose = "manifest"   // manifests and checkpoints
	PurposeProbe      Purpose = "probe"      // the start-up probe
	PurposeHistory    Purpose = "history"    // readers without a broker
	PurposeUnassigned Purpose = "unassigned" // a caller that did not say
)

type purposeKey struct{}

// WithPurpose marks the requests made under the context.
func WithPurpose(ctx context.Context, p Purpose) context.Context {
	return context.WithValue(ctx, purposeKey{}, p)
}

// PurposeOf returns the purpose set by WithPurpose, or PurposeUnassigned.
func PurposeOf(ctx context.Context) Purpose {
	if p, ok := ctx.Value(purposeKey{}).(Purpose); ok {
		return p
	}
	return PurposeUnassigned
}
