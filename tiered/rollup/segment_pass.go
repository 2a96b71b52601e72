package rollup

import (
	"fmt"
	"hash/crc32"
	"sync"

	"github.com/tierlog/tierlog/record"
	"github.com/tierlog/tierlog/tiered/logid"
	"github.com/tierlog/tierlog/tiered/segment"
	"github.com/tierlog/tierlog/tiered/wal"
)

// segmentPass is the observer of one pass over a .log file: it checks every extent against its section's checksum or, if
// that is not known, every batch against its own, and what the batches say against the extents; and it makes the files
// beside the .log from them. So a segment takes no read but those of its records, and the files describe the very bytes
// that were sent.
type segmentPass struct {
	plan    *SegmentPlan
	extents []Extent
	build   *segment.Builder
	state   *segment.Producers
	done    *segmentResult

	i    int    // extent
	at   int64  // bytes of it seen
	sum  uint32 // of them, if the extent has a checksum
	head [record.HeaderSize]byte
	have int    // bytes in head
	left int64  // bytes of the batch after its header that are to come
	crc  uint32 // of the batch so far, if the extent has none
	last int64  // offset of the last whole batch
	ctrl []byte // a control batch, whole: its marker is looked into
}

// maxControl bounds what is held of a control batch; a marker has some 80 bytes.
const maxControl = 64 << 10

func newSegmentPass(p *SegmentPlan, extents []Extent, before []segment.ProducerEntry, done *segmentResult) *segmentPass {
	state, _ := segment.NewProducers(before) // was tried before
	build, _ := segment.NewBuilder(segment.Config{Base: int64(p.base()), Producers: state})
	return &segmentPass{plan: p, extents: extents, build: build, state: state, done: done}
}

func (s *segmentPass) see(i int, b []byte) error {
	e := &s.extents[i]
	if e.HasCRC {
		s.sum = crc32.Update(s.sum, record.Castagnoli, b)
	}
	for len(b) > 0 {
		var n int
		if s.have < record.HeaderSize {
			n = copy(s.head[s.have:], b)
			s.have, s.at = s.have+n, s.at+int64(n)
			if s.have == record.HeaderSize {
				if err := s.begin(e); err != nil {
					return err
				}
			}
		} else {
			n = int(min(s.left, int64(len(b))))
			s.body(b[:n], !e.HasCRC)
		}
		b = b[n:]
		if s.have == record.HeaderSize && s.left == 0 {
			if err := s.end(e); err != nil {
				return err
			}
		}
	}
	if s.at == e.Len {
		return s.endExtent(e)
	}
	return nil
}

func (s *segmentPass) corrupt(e *Extent, format string, args ...any) error {
	return &InputError{Key: e.Key, Err: fmt.Errorf("%w: %s at %d: %s", wal.ErrCorrupt, s.plan.Partition, e.Pos+s.at, fmt.Sprintf(format, args...))}
}

// begin looks at the header of the next batch.
func (s *segmentPass) begin(e *Extent) error {
	b := record.Batch(s.head[:])
	size, start := int64(b.Size()), s.at-record.HeaderSize
	switch {
	case b.Magic() != 2 || size < record.HeaderSize || size > e.Len-start:
		return s.corrupt(e, "a batch of magic %d and %d bytes", b.Magic(), size)
	case logid.LeaderEpoch(b.LeaderEpoch()) != e.Epoch:
		return s.corrupt(e, "a batch of leader epoch %d among those of %d", b.LeaderEpoch(), e.Epoch)
	case logid.Offset(b.BaseOffset()) < e.Base || logid.Offset(b.LastOffset()) > e.Last || start == 0 && logid.Offset(b.BaseOffset()) != e.Base:
		return s.corrupt(e, "a batch of offsets %d to %d among %d to %d", b.BaseOffset(), b.LastOffset(), e.Base, e.Last)
	case b.Control() && size > maxControl:
		return s.corrupt(e, "a control batch of %d bytes", size)
	}
	s.left = size - record.HeaderSize
	s.crc = crc32.Checksum(s.head[crcStart:], record.Castagnoli)
	if s.ctrl = nil; b.Control() {
		s.ctrl = append(make([]byte, 0, size), s.head[:]...)
	}
	return nil
}

// body takes in bytes of a batch after its header.
func (s *segmentPass) body(b []byte, sum bool) {
	if sum {
		s.crc = crc32.Update(s.crc, record.Castagnoli, b)
	}
	if s.ctrl != nil {
		s.ctrl = append(s.ctrl, b...)
	}
	s.left, s.at = s.left-int64(len(b)), s.at+int64(len(b))
}

// crcStart is where the bytes begin that a batch's checksum covers.
const crcStart = 21

// end takes in a batch whose last byte was seen.
func (s *segmentPass) end(e *Extent) error {
	b := record.Batch(s.head[:])
	if !e.HasCRC && s.crc != b.CRC() {
		return s.corrupt(e, "the batch at offset %d before it has CRC %08x, it says %08x", b.BaseOffset(), s.crc, b.CRC())
	}
	if s.ctrl != nil {
		b = s.ctrl
	}
	d, err := segment.BatchOf(b)
	if err != nil {
		return s.corrupt(e, "%v", err)
	}
	if err := s.build.Add(&d); err != nil {
		return s.corrupt(e, "%v", err)
	}
	s.have, s.last = 0, b.LastOffset()
	return nil
}

// endExtent checks the extent as a whole, and after the last one hands the files over.
func (s *segmentPass) endExtent(e *Extent) error {
	switch {
	case s.have != 0:
		return s.corrupt(e, "ends within a batch")
	case logid.Offset(s.last) != e.Last:
		return s.corrupt(e, "ends with offset %d, not %d", s.last, e.Last)
	case e.HasCRC && s.sum != e.CRC:
		return s.corrupt(e, "the section before it has CRC %08x, its footer says %08x", s.sum, e.CRC)
	}
	s.i, s.at, s.sum = s.i+1, 0, 0
	if s.i == len(s.extents) {
		files := s.build.Finish()
		s.done.set(&files, s.state.Entries())
	}
	return nil
}

// segmentResult takes what the first complete pass found; later ones find the same.
type segmentResult struct {
	mu        sync.Mutex
	files     *segment.Files          // owned by mu
	producers []segment.ProducerEntry // owned by mu
}

func (r *segmentResult) set(f *segment.Files, producers []segment.ProducerEntry) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.files == nil {
		r.files, r.producers = f, producers
	}
}

func (r *segmentResult) get() (*segment.Files, []segment.ProducerEntry) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.files, r.producers
}
