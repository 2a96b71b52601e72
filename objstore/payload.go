package objstore

import (
	"errors"
	"io"
	"net"
)

// Parts is a Payload over slices that are sent one after the other, without joining them.
// The slices must not change until the last reader is done.
type Parts struct {
	parts []([]byte)
	size  int64
	crc   uint32
	known bool
}

// Bytes returns a payload over the given slices.
func Bytes(parts ...[]byte) *Parts {
	p := &Parts{parts: parts}
	for _, b := range parts {
		p.size += int64(len(b))
	}
	return p
}

// WithCRC32C returns p with the checksum of its whole body set; the caller vouches for it.
func (p *Parts) WithCRC32C(sum uint32) *Parts {
	p.crc, p.known = sum, true
	return p
}

// Size implements Payload.
func (p *Parts) Size() int64 { return p.size }

// Slices returns the parts in order, for drivers that write them with one vectored call. The caller changes nothing.
func (p *Parts) Slices() [][]byte { return p.parts }

// CRC32C implements Payload.
func (p *Parts) CRC32C() (uint32, bool) { return p.crc, p.known }

// Reader implements Payload. The reader also implements io.WriterTo with vectored writes.
func (p *Parts) Reader() io.ReadSeeker { return &partsReader{p: p} }

// partsReader reads the parts in order. pos is absolute; part and off point at the same byte.
type partsReader struct {
	p    *Parts
	pos  int64
	part int
	off  int
}

func (r *partsReader) Read(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	n := 0
	for n < len(b) && r.part < len(r.p.parts) {
		c := copy(b[n:], r.p.parts[r.part][r.off:])
		n += c
		r.off += c
		if r.off == len(r.p.parts[r.part]) {
			r.part, r.off = r.part+1, 0
		}
	}
	r.pos += int64(n)
	if n == 0 {
		return 0, io.EOF
	}
	return n, nil
}

func (r *partsReader) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += r.pos
	case io.SeekEnd:
		offset += r.p.size
	}
	if offset < 0 {
		return 0, errors.New("seek before the start of the payload")
	}
	r.pos, r.part, r.off = offset, 0, 0
	left := offset
	for r.part < len(r.p.parts) && left >= int64(len(r.p.parts[r.part])) {
		left -= int64(len(r.p.parts[r.part]))
		r.part++
	}
	if r.part < len(r.p.parts) {
		r.off = int(left)
	}
	return offset, nil
}

// WriteTo writes what is left with vectored writes where w supports them.
func (r *partsReader) WriteTo(w io.Writer) (int64, error) {
	if r.part >= len(r.p.parts) {
		return 0, nil
	}
	bufs := make(net.Buffers, 0, len(r.p.parts)-r.part)
	bufs = append(bufs, r.p.parts[r.part][r.off:])
	bufs = append(bufs, r.p.parts[r.part+1:]...)
	n, err := bufs.WriteTo(w)
	r.pos += n
	_, serr := r.Seek(r.pos, io.SeekStart)
	return n, errors.Join(err, serr)
}
