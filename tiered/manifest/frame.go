package manifest

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"strconv"
)

// Kind says what a body is, so that one read from a wrong key is not taken for another.
type Kind string

// The kinds of bodies.
const (
	KindCluster    Kind = "cluster"
	KindWAL        Kind = "wal-manifest"
	KindPartition  Kind = "partition-manifest"
	KindPage       Kind = "partition-page"
	KindJob        Kind = "job"
	KindDeletion   Kind = "deletion"
	KindCheckpoint Kind = "checkpoint" // binary; see checkpoint.go
)

// The frame of a JSON body, the same in every format version:
//
//	{"nonce":"<32 hex>","format":<n>,"kind":"<kind>",<fields>,"crc32c":"<8 hex>"}\n
//
// The checksum covers all bytes before the comma that stands before "crc32c".
const (
	frameNonce  = `{"nonce":"`
	frameFormat = `","format":`
	frameKind   = `,"kind":"`
	frameCRC    = `,"crc32c":"`
	frameEnd    = "\"}\n"
	nonceDigits = 2 * len(Nonce{})
	crcDigits   = 8
	tailSize    = len(frameCRC) + crcDigits + len(frameEnd)
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// encode frames v's fields. v must marshal to an object of at least one field.
func encode(k Kind, n Nonce, v any) ([]byte, error) {
	if n == (Nonce{}) {
		return nil, invalid("%s: nonce is zero", k)
	}
	fields, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", k, err)
	}
	b := make([]byte, 0, len(fields)+128)
	b = append(b, frameNonce...)
	b = hex.AppendEncode(b, n[:])
	b = append(b, frameFormat...)
	b = strconv.AppendInt(b, Format, 10)
	b = append(b, frameKind...)
	b = append(b, k...)
	b = append(b, `",`...)
	b = append(b, fields[1:len(fields)-1]...)
	sum := crc32.Checksum(b, castagnoli)
	b = append(b, frameCRC...)
	b = fmt.Appendf(b, "%08x", sum)
	if b = append(b, frameEnd...); len(b) > MaxBody {
		return nil, invalid("%s: %d bytes, more than %d", k, len(b), MaxBody)
	}
	return b, nil
}

// decode checks the frame and fills v. Only lenient bodies may hold fields that v does not know.
func decode(k Kind, body []byte, v any, lenient bool) (Nonce, error) {
	n, format, fields, err := unframe(k, body)
	if err != nil {
		return n, err
	}
	if format > Format && !lenient {
		return n, &FormatError{Kind: k, Got: format}
	}
	d := json.NewDecoder(io.MultiReader(bytes.NewReader([]byte("{")), bytes.NewReader(fields), bytes.NewReader([]byte("}"))))
	if !lenient {
		d.DisallowUnknownFields()
	}
	if err := d.Decode(v); err != nil {
		// Offsets count from one before the first field.
		at := len(body) - tailSize - len(fields) - 1
		var syn *json.SyntaxError
		var typ *json.UnmarshalTypeError
		switch {
		case errors.As(err, &syn):
			at += int(syn.Offset)
		case errors.As(err, &typ):
			at += int(typ.Offset)
		}
		return n, corrupt(k, "fields near byte %d: %v", at, err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return n, corrupt(k, "more than one JSON value")
	}
	return n, nil
}

// unframe checks everything that is the same in every format version and returns the bytes of the fields.
func unframe(k Kind, body []byte) (n Nonce, format uint64, fields []byte, err error) {
	fail := func(format string, args ...any) (Nonce, uint64, []byte, error) {
		return Nonce{}, 0, nil, corrupt(k, format, args...)
	}
	head := len(frameNonce) + nonceDigits + len(frameFormat)
	if len(body) > MaxBody {
		return fail("%d bytes, more than %d", len(body), MaxBody)
	}
	if len(body) < head+tailSize {
		return fail("%d bytes, shorter than an empty frame", len(body))
	}
	covered, tail := body[:len(body)-tailSize], body[len(body)-tailSize:]
	if !bytes.HasPrefix(tail, []byte(frameCRC)) || !bytes.HasSuffix(tail, []byte(frameEnd)) {
		return fail("byte %d: no checksum at the end; truncated?", len(covered))
	}
	want := fmt.Sprintf("%08x", crc32.Checksum(covered, castagnoli))
	if got := tail[len(frameCRC) : len(frameCRC)+crcDigits]; string(got) != want {
		return fail("checksum is %s, the %d bytes before it have %s", clip(string(got)), len(covered), want)
	}
	rest := covered
	if !bytes.HasPrefix(rest, []byte(frameNonce)) || !bytes.HasPrefix(rest[len(frameNonce)+nonceDigits:], []byte(frameFormat)) {
		return fail("byte 0: does not begin with nonce and format")
	}
	if n, err = ParseNonce(string(rest[len(frameNonce) : len(frameNonce)+nonceDigits])); err != nil || n == (Nonce{}) {
		return fail("byte %d: nonce %s, %v", len(frameNonce), n, err)
	}
	digits, rest, ok := bytes.Cut(rest[head:], []byte(frameKind))
	if format, err = strconv.ParseUint(string(digits), 10, 32); !ok || err != nil || format == 0 {
		return fail("byte %d: format is not a positive number followed by a kind", head)
	}
	got, rest, ok := bytes.Cut(rest, []byte(`",`))
	if !ok || string(got) != string(k) {
		return fail("byte %d: kind is %q", head+len(digits)+len(frameKind), clip(string(got)))
	}
	return n, format, rest, nil
}
