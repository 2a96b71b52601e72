// Package wire listens for Kafka clients: it frames requests, keeps their order, applies back-pressure and writes
// responses. It knows request headers and nothing of request bodies, which a Handler answers.
//
// Every connection has one goroutine that reads frames and calls the Handler, and one that writes responses. A
// Produce frame is read from the socket into a membuf.Buf whose parts the handler may keep; a response is either
// a message that is encoded straight into the connection's output, or a list of byte slices that is written without
// a copy. Replies may be completed by any goroutine, in any order.
//
// Invariants:
//
//   - The Handler sees a connection's requests in the order they were sent, one at a time. It sees the next one only
//     after the reply to this one is completed, unless the reply was marked with Pipeline.
//   - Responses leave in request order, whatever the order in which replies are completed.
//   - Each reply's release function runs exactly once, also where the connection dies or the reply comes too late.
//   - Memory for a Produce frame is taken from the Budget before its body is read. A connection that waits for it does
//     not read, so that the peer's TCP window fills, and keeps nothing of the budget that a request does not use.
//   - A connection has at most MaxPending replies that are not written.
//   - A panic or an error of the Handler ends its connection and nothing else; replies to earlier requests are
//     still completed and written first.
package wire

import (
	"context"
	"time"

	"github.com/tierlog/tierlog/membuf"
)

// Range is the range of versions of one API that a handler serves, both ends included.
type Range struct{ Min, Max int16 }

// Handler answers requests.
type Handler interface {
	// Versions returns the API keys served and their version ranges. It is called once, by New.
	// Requests outside it end the connection, but for ApiVersions; see Request.Unsupported.
	Versions() map[int16]Range

	// Handle begins to answer req. The reply must be completed exactly once by one of its methods, during the call
	// or later, by any goroutine; completing it again has no effect but to run the release function.
	// ctx is done when the connection is gone. An error closes the connection after the earlier replies are written.
	Handle(ctx context.Context, req *Request, reply *Reply) error
}

// Request is one request frame.
type Request struct {
	Key, Version  int16
	CorrelationID int32
	ClientID      string // empty where the client sent none

	// Unsupported is set on an ApiVersions request of a version that is not served. The answer is a version 0
	// response with UNSUPPORTED_VERSION and the list of what is served; Body may be nil.
	Unsupported bool

	// Body is what follows the request header. A Produce request's Body lies in Buf, together with other requests':
	// it is valid until Handle returns, and longer for who calls Buf.Retain before that. For other requests Buf is
	// nil and Body is ordinary memory that may be kept.
	Body []byte
	Buf  *membuf.Buf

	Conn     *Conn
	Received time.Time // when the frame had been read

	size    int   // bytes of the frame with its length
	charged int64 // bytes of OtherBudget
}

// Sample describes one request that has ended.
type Sample struct {
	Key, Version int16
	BytesIn      int           // request frame with its length
	BytesOut     int           // response frame with its length; 0 where none was due or it was not sent
	Handle       time.Duration // from the frame being read to the reply being completed
	Wait         time.Duration // from there until the response was written: earlier replies, the peer's window
	Sent         bool          // false where the connection died first
}

// Observer receives what metrics count. Its methods are called on the hot path, by many goroutines: they must not
// block.
type Observer interface {
	ConnectionOpened()
	ConnectionClosed(Reason)
	// ConnectionRefused counts connections closed at once because of a connection limit.
	ConnectionRefused()
	// RequestDone is called exactly once for each request that Handle was called for.
	RequestDone(Sample)
}

type noObserver struct{}

func (noObserver) ConnectionOpened()       {}
func (noObserver) ConnectionClosed(Reason) {}
func (noObserver) ConnectionRefused()      {}
func (noObserver) RequestDone(Sample)      {}
