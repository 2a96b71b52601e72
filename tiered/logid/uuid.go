package logid

import (
	"cmp"
	"encoding/base64"
	"fmt"
	"io"
)

// uuidWidth is the length of the text of 16 bytes in Kafka's form: URL-safe base64 without padding.
const uuidWidth = 22

// TopicID is the identity of a topic, which outlives its name and differs between two topics of one name.
// Its text is Kafka's: URL-safe base64 without padding, 22 characters.
type TopicID [16]byte

// IsZero reports whether the id is the one that names no topic.
func (t TopicID) IsZero() bool { return t == TopicID{} }

// String returns Kafka's form of the id.
func (t TopicID) String() string { return base64.RawURLEncoding.EncodeToString(t[:]) }

// MarshalText makes the id a JSON string and a JSON map key.
func (t TopicID) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (t *TopicID) UnmarshalText(b []byte) error {
	v, err := parseUUID("topic id", string(b))
	if err == nil {
		*t = v
	}
	return err
}

// Compare orders ids by their bytes.
func (t TopicID) Compare(o TopicID) int { return cmp.Compare(string(t[:]), string(o[:])) }

// ParseTopicID reads what String wrote.
func ParseTopicID(s string) (TopicID, error) {
	v, err := parseUUID("topic id", s)
	return v, err
}

// NewTopicID draws an id from random, a source such as crypto/rand.Reader.
func NewTopicID(random io.Reader) (TopicID, error) {
	v, err := newUUID(random)
	return v, err
}

// ClusterID is the identity of a cluster and the first part of nearly all its keys. Its text is Kafka's, as that of TopicID.
type ClusterID [16]byte

// IsZero reports whether the id is the one that names no cluster.
func (c ClusterID) IsZero() bool { return c == ClusterID{} }

// String returns Kafka's form of the id.
func (c ClusterID) String() string { return base64.RawURLEncoding.EncodeToString(c[:]) }

// MarshalText makes the id a JSON string.
func (c ClusterID) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (c *ClusterID) UnmarshalText(b []byte) error {
	v, err := parseUUID("cluster id", string(b))
	if err == nil {
		*c = v
	}
	return err
}

// ParseClusterID reads what String wrote.
func ParseClusterID(s string) (ClusterID, error) {
	v, err := parseUUID("cluster id", s)
	return v, err
}

// NewClusterID draws an id from random, a source such as crypto/rand.Reader.
func NewClusterID(random io.Reader) (ClusterID, error) {
	v, err := newUUID(random)
	return v, err
}

// newUUID draws a version 4 UUID. Like Kafka's it never starts with '-', which command lines would take for an option,
// and with version and variant bits set it is none of the values Kafka reserves.
func newUUID(random io.Reader) ([16]byte, error) {
	for {
		var v [16]byte
		if _, err := io.ReadFull(random, v[:]); err != nil {
			return v, fmt.Errorf("draw a random id: %w", err)
		}
		v[6], v[8] = v[6]&0x0f|0x40, v[8]&0x3f|0x80
		if v[0]>>2 != 62 { // the six bits that base64 writes as '-'
			return v, nil
		}
	}
}

// parseUUID refuses text with bits set that are never written, so that one thing cannot be known under two texts.
func parseUUID(what, s string) ([16]byte, error) {
	var v [16]byte
	if len(s) != uuidWidth {
		return v, fmt.Errorf("%s %q: has %d characters, want %d: %w", what, clip(s), len(s), uuidWidth, ErrSyntax)
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(s)
	if err != nil || len(b) != len(v) {
		return v, fmt.Errorf("%s %q: not URL-safe base64 of 16 bytes: %w", what, s, ErrSyntax)
	}
	return [16]byte(b), nil
}
