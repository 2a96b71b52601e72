package manifest

import (
	"encoding/hex"
	"fmt"
	"io"

	"github.com/oklog/ulid/v2"

	"github.com/tierlog/tierlog/tiered/logid"
)

// Nonce makes a body differ from every other. It is drawn anew for every body that is written, never copied.
type Nonce [16]byte

// NewNonce draws a nonce from random, a source such as crypto/rand.Reader.
func NewNonce(random io.Reader) (Nonce, error) {
	var n Nonce
	if _, err := io.ReadFull(random, n[:]); err != nil {
		return Nonce{}, fmt.Errorf("draw a nonce: %w", err)
	}
	return n, nil
}

// String returns the nonce as 32 lower-case hexadecimal digits.
func (n Nonce) String() string { return hex.EncodeToString(n[:]) }

// ParseNonce reads what String wrote.
func ParseNonce(s string) (Nonce, error) {
	var n Nonce
	if len(s) != 2*len(n) {
		return n, fmt.Errorf("nonce of %d characters, want %d: %w", len(s), 2*len(n), logid.ErrSyntax)
	}
	if _, err := hex.Decode(n[:], []byte(s)); err != nil || n.String() != s {
		return Nonce{}, fmt.Errorf("nonce %q: not lower-case hexadecimal: %w", s, logid.ErrSyntax)
	}
	return n, nil
}

// ULID names an output that is never named again. Convert from ulid.ULID, whose own decoder accepts several texts
// of one value; here there is one, since the text is part of a key.
type ULID ulid.ULID

// ulidWidth is the length of a ULID's text.
const ulidWidth = ulid.EncodedSize

// IsZero reports whether the id names nothing.
func (u ULID) IsZero() bool { return u == ULID{} }

// String returns the 26 characters of the ULID, in upper case.
func (u ULID) String() string { return ulid.ULID(u).String() }

// MarshalText makes the id a JSON string.
func (u ULID) MarshalText() ([]byte, error) { return []byte(u.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (u *ULID) UnmarshalText(b []byte) error {
	v, err := ParseULID(string(b))
	if err == nil {
		*u = v
	}
	return err
}

// ParseULID reads what String wrote and nothing else.
func ParseULID(s string) (ULID, error) {
	v, err := ulid.ParseStrict(s)
	if err != nil || v.String() != s {
		return ULID{}, fmt.Errorf("ulid %q: want %d characters of Crockford's base 32 in upper case: %w", clip(s), ulidWidth, logid.ErrSyntax)
	}
	return ULID(v), nil
}

// clip keeps hostile input out of error texts.
func clip(s string) string {
	if len(s) > 64 {
		return s[:64] + "…"
	}
	return s
}
