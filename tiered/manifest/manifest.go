// Package manifest holds the bodies and the keys of the bucket's small objects: what is live, where the state of a broker
// was last written down, and what maintenance intends. It does no I/O and reads no clock.
//
// Invariants:
//
//   - What Encode returns, the Decode function of its kind reads back as an equal value.
//   - Every body differs from every other within its first 64 bytes (a nonce), so that objstore.Put and Replace can tell
//     two writers apart, and two states of a manifest never have equal bytes (and hence equal ETags).
//   - Decode returns a value that Validate accepts, ErrCorrupt or ErrNewer; it never panics and allocates at most a
//     small multiple of its input.
//   - Encode never writes what Decode would refuse.
//   - An edit checks that its inputs are exactly what the manifest holds, never moves a log start, mergedThrough or
//     rolledThrough back, and changes nothing when it fails. Next makes the copy to edit.
//
// The formats are described in docs/format/manifests.md and docs/format/checkpoint.md.
package manifest

import (
	"errors"
	"fmt"
)

// Format is the newest version of the formats in this package, and the one that is written.
const Format = 1

// RootLimit is the size in bytes above which Partition.Spill moves the oldest segments to pages.
const RootLimit = 128 << 10

// MaxBody is the size in bytes of the largest JSON body: what a reader must be ready to hold.
const MaxBody = 8 << 20

// Sentinels to decide on.
var (
	// ErrCorrupt: the bytes are not what any version wrote at this key. Quarantine it, touch nothing that it may name.
	ErrCorrupt = errors.New("corrupt")
	// ErrNewer: a newer version wrote it. Upgrade before reading; never overwrite it. See FormatError.
	ErrNewer = errors.New("written by a newer version")
	// ErrInvalid: a value that Encode refuses to write. The error names the field.
	ErrInvalid = errors.New("invalid")
	// ErrConflict: an edit's inputs are not what the manifest holds. Read the manifest again and plan anew.
	ErrConflict = errors.New("conflicts with the manifest")
)

// FormatError says which object is too new. It wraps ErrNewer.
type FormatError struct {
	Kind Kind
	Got  uint64 // the format, or for the cluster body the oldest format that a reader must know
}

func (e *FormatError) Error() string {
	return fmt.Sprintf("%s has format %d, this version reads up to %d: %v", e.Kind, e.Got, Format, ErrNewer)
}

// Unwrap returns ErrNewer.
func (e *FormatError) Unwrap() error { return ErrNewer }

func corrupt(k Kind, format string, args ...any) error {
	return fmt.Errorf("%s: %s: %w", k, fmt.Sprintf(format, args...), ErrCorrupt)
}

func invalid(format string, args ...any) error {
	return fmt.Errorf("%s: %w", fmt.Sprintf(format, args...), ErrInvalid)
}

func conflict(format string, args ...any) error {
	return fmt.Errorf("%s: %w", fmt.Sprintf(format, args...), ErrConflict)
}
