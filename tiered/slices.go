package tiered

import (
	"unsafe"

	"github.com/tierlog/tierlog/membuf"
)

// Slices collects stored batches for a response, in place: each part is a piece of a buffer that Slices holds a
// reference to until Release.
type Slices struct {
	Parts [][]byte
	Size  int // bytes in Parts
	bufs  []*membuf.Buf
}

// add appends bytes of buf; pieces that follow each other in memory become one part.
func (s *Slices) add(b []byte, buf *membuf.Buf) {
	s.Size += len(b)
	if n := len(s.Parts); n > 0 && s.bufs[len(s.bufs)-1] == buf {
		mem, last := buf.Bytes(), s.Parts[n-1]
		if at := offsetIn(mem, last); at+len(last) == offsetIn(mem, b) {
			s.Parts[n-1] = mem[at : at+len(last)+len(b)]
		} else {
			s.Parts = append(s.Parts, b)
		}
		return
	}
	buf.Retain()
	s.bufs = append(s.bufs, buf)
	s.Parts = append(s.Parts, b)
}

// offsetIn returns where piece, a non-empty part of mem, starts in it.
func offsetIn(mem, piece []byte) int {
	return int(uintptr(unsafe.Pointer(unsafe.SliceData(piece))) - uintptr(unsafe.Pointer(unsafe.SliceData(mem))))
}

// slicesMark is a point to go back to.
type slicesMark struct {
	parts, bufs, size int
	last              []byte // the last part, which may be extended in place
}

func (s *Slices) mark() slicesMark {
	m := slicesMark{parts: len(s.Parts), bufs: len(s.bufs), size: s.Size}
	if m.parts > 0 {
		m.last = s.Parts[m.parts-1]
	}
	return m
}

// reset takes back what was added since the mark.
func (s *Slices) reset(m slicesMark) {
	for _, b := range s.bufs[m.bufs:] {
		b.Release()
	}
	s.Parts, s.bufs, s.Size = s.Parts[:m.parts], s.bufs[:m.bufs], m.size
	if m.parts > 0 {
		s.Parts[m.parts-1] = m.last
	}
}

// Release gives the references back. The parts must not be used afterwards.
func (s *Slices) Release() {
	for _, b := range s.bufs {
		b.Release()
	}
	*s = Slices{}
}
