package objstore

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// Limits that hold for every store, so that data can be copied from one kind to another.
const (
	// MaxKeySize is the longest key in bytes (S3's limit; a driver's prefix counts too).
	MaxKeySize = 1024
	// MaxPartSize is the longest part of a key in bytes (a file name in a directory store, also behind MinIO).
	MaxPartSize = 255
	// MaxListLimit is the largest page of a List.
	MaxListLimit = 1000
	// ReservedPart can not be a key's first part: the directory store keeps its own files there.
	ReservedPart = ".tierlog"
)

// CheckKey says why a key is malformed; nil means that every store takes it.
func CheckKey(key string) error {
	switch {
	case key == "":
		return errors.New("key is empty")
	case len(key) > MaxKeySize:
		return fmt.Errorf("key has %d bytes, at most %d are allowed", len(key), MaxKeySize)
	case !utf8.ValidString(key):
		return errors.New("key is not valid UTF-8")
	}
	for i := range len(key) {
		if key[i] < 0x20 || key[i] == 0x7f {
			return fmt.Errorf("key holds the control character 0x%02x", key[i])
		}
	}
	for i, rest, more := 0, key, true; more; i++ {
		var part string
		part, rest, more = strings.Cut(rest, "/")
		switch {
		case part == "" || part == "." || part == "..":
			return fmt.Errorf("key has the part %q", part)
		case len(part) > MaxPartSize:
			return fmt.Errorf("key has a part of %d bytes, at most %d are allowed", len(part), MaxPartSize)
		case i == 0 && part == ReservedPart:
			return fmt.Errorf("key starts with the reserved part %q", part)
		}
	}
	return nil
}

// CheckedKey returns nil, or an *Error of kind ErrInvalid for the operation.
func CheckedKey(op, key string) error {
	if err := CheckKey(key); err != nil {
		return &Error{Op: op, Key: key, Kind: ErrInvalid, Err: err}
	}
	return nil
}

// ListLimit returns the page size that a List with this limit uses.
func ListLimit(limit int) int {
	if limit <= 0 || limit > MaxListLimit {
		return MaxListLimit
	}
	return limit
}
