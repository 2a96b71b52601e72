package tiered

import (
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"github.com/tierlog/tierlog/membuf"
	"github.com/tierlog/tierlog/record"
)

// scanner walks the batches of a byte range of an object, through cached blocks. It verifies each batch that it
// copies: what was damaged in the bucket is not passed on.
type scanner struct {
	l    *Log
	src  *source
	pos  int64 // of the next batch
	end  int64
	next int64 // offset after the last batch that was passed; 0 before the first

	block *membuf.Buf
	num   int64
	head  [record.HeaderSize]byte
}

func (s *scanner) close() {
	if s.block != nil {
		s.block.Release()
		s.block = nil
	}
}

// at returns the bytes from pos to the end of its block, or to the end of the range.
func (s *scanner) at(ctx context.Context, pos int64) ([]byte, error) {
	if n := s.src.blockAt(pos); s.block == nil || s.num != n {
		b, err := s.l.block(ctx, s.src, n)
		if err != nil {
			return nil, err
		}
		s.close()
		s.block, s.num = b, n
	}
	mem := s.block.Bytes()[pos-s.num*BlockSize:]
	if left := s.end - pos; int64(len(mem)) > left {
		mem = mem[:left]
	}
	return mem, nil
}

// header returns the header of the next batch; nil at the end of the range.
func (s *scanner) header(ctx context.Context) (record.Batch, error) {
	if s.pos >= s.end {
		return nil, nil
	}
	mem, err := s.at(ctx, s.pos)
	if err != nil {
		return nil, err
	}
	if len(mem) >= record.HeaderSize {
		mem = mem[:record.HeaderSize]
	} else {
		n := copy(s.head[:], mem)
		if s.pos+record.HeaderSize > s.end {
			return nil, s.corrupt("%d bytes left", s.end-s.pos)
		}
		rest, err := s.at(ctx, s.pos+int64(n))
		if err != nil {
			return nil, err
		}
		copy(s.head[n:], rest)
		mem = s.head[:]
	}
	h := record.Batch(mem)
	if size := h.Size(); h.Magic() != 2 || size < record.HeaderSize || int64(size) > s.end-s.pos || h.LastOffsetDelta() < 0 {
		return nil, s.corrupt("batch of magic %d and length %d, %d bytes left", h.Magic(), size, s.end-s.pos)
	}
	return h, nil
}

func (s *scanner) corrupt(format string, args ...any) error {
	return fmt.Errorf("%w: object %s at byte %d: %w: %s", ErrStorage, s.src.key, s.pos, record.ErrCorrupt, fmt.Sprintf(format, args...))
}

// skip passes over the next batch, whose header is h.
func (s *scanner) skip(h record.Batch) {
	s.next = h.LastOffset() + 1
	s.pos += int64(h.Size())
}

// copyFrom adds the batches that end at offset or later, until the range ends or left is used up (then full).
func (s *scanner) copyFrom(ctx context.Context, offset int64, left *int, one *bool, out *Slices) (full bool, err error) {
	for {
		h, err := s.header(ctx)
		if err != nil || h == nil {
			return false, err
		}
		if h.LastOffset() < offset {
			s.skip(h)
			continue
		}
		size := h.Size()
		if size > *left && !*one {
			return true, nil
		}
		next := h.LastOffset() + 1
		if err := s.take(ctx, size, out); err != nil {
			return false, err
		}
		s.next = next
		*left, *one = *left-size, false
	}
}

// take adds the next batch of size bytes after checking its CRC.
func (s *scanner) take(ctx context.Context, size int, out *Slices) error {
	var sum uint32
	mark, done := out.mark(), 0
	var crcBytes [4]byte
	for done < size {
		mem, err := s.at(ctx, s.pos+int64(done))
		if err != nil {
			out.reset(mark)
			return err
		}
		mem = mem[:min(len(mem), size-done)]
		for i := max(17-done, 0); i < min(21-done, len(mem)); i++ {
			crcBytes[done+i-17] = mem[i]
		}
		sum = crc32.Update(sum, record.Castagnoli, mem[min(max(21-done, 0), len(mem)):])
		out.add(mem, s.block)
		done += len(mem)
	}
	if stored := binary.BigEndian.Uint32(crcBytes[:]); sum != stored {
		out.reset(mark)
		return s.corrupt("CRC is %08x, the batch says %08x", sum, stored)
	}
	s.pos += int64(size)
	return nil
}
