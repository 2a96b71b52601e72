package record

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"slices"
	"sync"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/snappy"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
)

// smallWindow is the largest zstd window of pooled decoders, which have memory for one. Levels above 19 have larger ones.
const (
	smallWindow = 8 << 20
	largeWindow = 128 << 20
)

// Decompress returns the batch's records uncompressed: part of the batch itself where they are not compressed, new
// memory otherwise. More than limit bytes are ErrTooLarge; little more is ever allocated, whatever the input.
func Decompress(b Batch, limit int) ([]byte, error) {
	src := b[HeaderSize:]
	var out []byte
	var err error
	switch b.Codec() {
	case None:
		out = src
		if len(src) > limit {
			err = errLimit
		}
	case Gzip:
		out, err = gunzip(src, limit)
	case Snappy:
		out, err = unsnappy(src, limit)
	case LZ4:
		out, err = unlz4(src, limit)
	case Zstd:
		out, err = unzstd(src, limit)
	default:
		return nil, bad(ErrCodec, "codec %d, allowed are 0 to 4", b.Codec())
	}
	switch {
	case errors.Is(err, errLimit):
		return nil, bad(ErrTooLarge, "offset %d: the records (%s) are more than %d bytes", b.BaseOffset(), b.Codec(), limit)
	case err != nil:
		return nil, bad(ErrCorrupt, "offset %d: %s: %v", b.BaseOffset(), b.Codec(), err)
	}
	return out, nil
}

var errLimit = errors.New("over the limit")

// readAll reads r to its end, which must come within limit bytes. hint is the length of the compressed bytes.
func readAll(r io.Reader, hint, limit int) ([]byte, error) {
	out := make([]byte, 0, min(max(4*hint, 512), limit))
	for {
		if len(out) == cap(out) {
			if len(out) >= limit {
				return out, atEnd(r)
			}
			out = slices.Grow(out, min(cap(out), limit-len(out)))
			out = out[:len(out):min(cap(out), limit)]
		}
		n, err := r.Read(out[len(out):cap(out)])
		out = out[:len(out)+n]
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, err
		}
	}
}

// atEnd returns nil at the end of r and errLimit before it.
func atEnd(r io.Reader) error {
	var one [1]byte
	for {
		n, err := r.Read(one[:])
		switch {
		case n > 0:
			return errLimit
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
	}
}

// inflater is a pooled gzip decoder.
type inflater struct {
	src bytes.Reader
	z   gzip.Reader
}

var inflaters = sync.Pool{New: func() any { return new(inflater) }}

func gunzip(src []byte, limit int) ([]byte, error) {
	d := inflaters.Get().(*inflater)
	defer inflaters.Put(d)
	d.src.Reset(src)
	defer d.src.Reset(nil)
	if err := d.z.Reset(&d.src); err != nil {
		return nil, ended(err)
	}
	out, err := readAll(&d.z, len(src), limit)
	return out, ended(err)
}

// ended gives an end in the wrong place its own error: readAll must not take it for the end.
func ended(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

var unlz4ers = sync.Pool{New: func() any { return lz4.NewReader(nil) }}

func unlz4(src []byte, limit int) ([]byte, error) {
	if len(src) == 0 {
		return nil, io.ErrUnexpectedEOF
	}
	d := unlz4ers.Get().(*lz4.Reader)
	defer unlz4ers.Put(d)
	d.Reset(bytes.NewReader(src))
	defer d.Reset(nil)
	return readAll(d, len(src), limit)
}

var unzstders = sync.Pool{New: func() any { return newUnzstd(smallWindow) }}

func newUnzstd(window uint64) *zstd.Decoder {
	d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(window))
	if err != nil {
		panic("record: zstd options: " + err.Error())
	}
	return d
}

// largeZstd admits one large window at a time: it is allocated before a byte is decoded.
var largeZstd sync.Mutex

func unzstd(src []byte, limit int) ([]byte, error) {
	if len(src) == 0 {
		return nil, io.ErrUnexpectedEOF
	}
	d := unzstders.Get().(*zstd.Decoder)
	out, err := unzstdWith(d, src, limit)
	unzstders.Put(d)
	if !errors.Is(err, zstd.ErrWindowSizeExceeded) {
		return out, err
	}
	largeZstd.Lock()
	defer largeZstd.Unlock()
	d = newUnzstd(largeWindow)
	defer d.Close()
	return unzstdWith(d, src, limit)
}

func unzstdWith(d *zstd.Decoder, src []byte, limit int) ([]byte, error) {
	if err := d.Reset(bytes.NewReader(src)); err != nil {
		return nil, ended(err)
	}
	out, err := readAll(d, len(src), limit)
	return out, errors.Join(err, d.Reset(nil))
}

// maxSnappyRatio is more than a snappy block can expand: an element of three bytes copies at most 64.
const maxSnappyRatio = 32

// xerial is how the framing of snappy-java starts, which Java clients use: this, two versions of 32 bits, then blocks
// with a length each. Other clients send one bare block.
var xerial = []byte{0x82, 'S', 'N', 'A', 'P', 'P', 'Y', 0}

func unsnappy(src []byte, limit int) ([]byte, error) {
	if !bytes.HasPrefix(src, xerial) {
		return appendSnappy(nil, src, limit)
	}
	const head = 16
	if len(src) < head {
		return nil, io.ErrUnexpectedEOF
	}
	var out []byte
	for src = src[head:]; len(src) > 0; {
		if len(src) < 4 {
			return nil, io.ErrUnexpectedEOF
		}
		n := int64(binary.BigEndian.Uint32(src))
		src = src[4:]
		if n > int64(len(src)) {
			return nil, io.ErrUnexpectedEOF
		}
		var err error
		if out, err = appendSnappy(out, src[:n], limit); err != nil {
			return nil, err
		}
		src = src[n:]
	}
	return out, nil
}

// appendSnappy appends a decoded block to out, which must not become longer than limit.
func appendSnappy(out, block []byte, limit int) ([]byte, error) {
	n, err := snappy.DecodedLen(block)
	if err != nil {
		return nil, err
	}
	if n > maxSnappyRatio*len(block) {
		return nil, errors.New("impossible length")
	}
	if n > limit-len(out) {
		return nil, errLimit
	}
	at := len(out)
	out = slices.Grow(out, n)
	if _, err := snappy.Decode(out[at:at+n], block); err != nil {
		return nil, err
	}
	return out[:at+n], nil
}
