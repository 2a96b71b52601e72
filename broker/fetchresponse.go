package broker

import (
	"encoding/binary"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/tierlog/tierlog/wire"
)

// The fetch response is encoded by hand, because a generated encoder would copy the records: here the fixed fields
// come from one small buffer, and between its pieces stand the stored bytes themselves.

// fetchEncoder builds the parts of a response body. Pieces of head are cut where records go in.
type fetchEncoder struct {
	version  int16
	flexible bool
	head     []byte
	cut      int // head[cut:] is not in parts yet
	parts    [][]byte
}

func (e *fetchEncoder) i16(v int16) { e.head = binary.BigEndian.AppendUint16(e.head, uint16(v)) }
func (e *fetchEncoder) i32(v int32) { e.head = binary.BigEndian.AppendUint32(e.head, uint32(v)) }
func (e *fetchEncoder) i64(v int64) { e.head = binary.BigEndian.AppendUint64(e.head, uint64(v)) }

func (e *fetchEncoder) uvarint(v uint32) { e.head = binary.AppendUvarint(e.head, uint64(v)) }

// count appends the length of an array or of bytes; -1 is null.
func (e *fetchEncoder) count(n int) {
	if e.flexible {
		e.uvarint(uint32(n + 1))
	} else {
		e.i32(int32(n))
	}
}

// tags ends a structure without tagged fields.
func (e *fetchEncoder) tags() {
	if e.flexible {
		e.uvarint(0)
	}
}

// data puts stored bytes after what was encoded so far. The space for head is allocated up front, so that its pieces
// stay where they are.
func (e *fetchEncoder) data(parts [][]byte) {
	e.flush()
	e.parts = append(e.parts, parts...)
}

func (e *fetchEncoder) flush() {
	if len(e.head) > e.cut {
		e.parts = append(e.parts, e.head[e.cut:len(e.head):len(e.head)])
		e.cut = len(e.head)
	}
}

// maxPartitionHead is the most that one partition takes without its records, in bytes.
const maxPartitionHead = 96

// send answers with what was read.
func (f *fetching) send(reply *wire.Reply) {
	size, pieces := 64, 1
	for i := range f.req.Topics {
		size += 32 + len(f.req.Topics[i].Topic)
	}
	for i := range f.parts {
		size += maxPartitionHead
		pieces += 1 + len(f.parts[i].data.Parts)
	}
	e := &fetchEncoder{version: f.version, flexible: f.version >= 12, head: make([]byte, 0, size), parts: make([][]byte, 0, pieces)}
	e.i32(0) // throttle time
	if f.version >= 7 {
		e.i16(0)
		e.i32(0) // session id: none
	}
	e.count(len(f.req.Topics))
	next := 0
	for i := range f.req.Topics {
		rt := &f.req.Topics[i]
		e.topic(rt)
		e.count(len(rt.Partitions))
		for range rt.Partitions {
			e.partition(&f.parts[next], f)
			next++
		}
		e.tags()
	}
	e.tags()
	e.flush()
	reply.SendParts(e.parts, f.release)
}

func (e *fetchEncoder) topic(rt *kmsg.FetchRequestTopic) {
	if e.version >= 13 {
		e.head = append(e.head, rt.TopicID[:]...)
		return
	}
	if e.flexible {
		e.uvarint(uint32(len(rt.Topic) + 1))
	} else {
		e.i16(int16(len(rt.Topic)))
	}
	e.head = append(e.head, rt.Topic...)
}

func (e *fetchEncoder) partition(fp *fetchPartition, f *fetching) {
	e.i32(fp.req.Partition)
	e.i16(codeOf(fp.err))
	e.i64(fp.offsets.HighWatermark)
	e.i64(fp.offsets.LastStable)
	if e.version >= 5 {
		e.i64(fp.offsets.LogStart)
	}
	if f.req.IsolationLevel == 1 {
		e.count(0) // aborted transactions
	} else {
		e.count(-1)
	}
	if e.version >= 11 {
		e.i32(-1) // preferred read replica
	}
	e.count(fp.data.Size)
	if fp.data.Size > 0 {
		e.data(fp.data.Parts)
	}
	if !e.flexible {
		return
	}
	if fp.divergingEpoch < 0 {
		e.uvarint(0)
		return
	}
	e.uvarint(1) // one tagged field: 0, DivergingEpoch, 13 bytes
	e.uvarint(0)
	e.uvarint(13)
	e.i32(fp.divergingEpoch)
	e.i64(fp.divergingEnd)
	e.uvarint(0)
}

// sendError answers the whole request with one error.
func (f *fetching) sendError(reply *wire.Reply, err *kerr.Error) {
	resp := kmsg.NewPtrFetchResponse()
	resp.Version = f.version
	resp.ErrorCode = err.Code
	reply.Send(resp)
}
