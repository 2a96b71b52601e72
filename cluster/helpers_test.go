package cluster

import (
	"bytes"
	"fmt"
	"hash/crc32"
	"io"
	"log/slog"

	"github.com/tierlog/tierlog/tiered/manifest"
)

// crcTail is how the frame of a body ends; 8 is the digits of the checksum.
const crcTail = `,"crc32c":"`

// seal gives a body the checksum that it should have, so that changes reach the decoder behind it.
func seal(b []byte) []byte {
	i := bytes.LastIndex(b, []byte(crcTail))
	if i < 0 {
		return b
	}
	sum := crc32.Checksum(b[:i], crc32.MakeTable(crc32.Castagnoli))
	return append(bytes.Clone(b[:i]), fmt.Sprintf("%s%08x\"}\n", crcTail, sum)...)
}

// reframe replaces a part of a body and seals it.
func reframe(b []byte, old, with string) []byte {
	return seal(bytes.Replace(b, []byte(old), []byte(with), 1))
}

// wrap frames bytes as the fields of a body, whether they are JSON or not, so that a fuzzer's changes reach the fields.
func wrap(k manifest.Kind, fields []byte) []byte {
	head := fmt.Sprintf(`{"nonce":"%032x","format":1,"kind":"%s",`, 1, k)
	return seal(append(append([]byte(head), fields...), crcTail...))
}

// fields returns the fields of a body: what wrap takes.
func fields(b []byte) []byte {
	_, rest, _ := bytes.Cut(b, []byte(`"kind":"`))
	_, rest, _ = bytes.Cut(rest, []byte(`",`))
	return rest[:bytes.LastIndex(rest, []byte(crcTail))]
}

// textLogger writes to w what a person would see.
func textLogger(w io.Writer) *slog.Logger { return slog.New(slog.NewTextHandler(w, nil)) }
