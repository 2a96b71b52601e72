// Package s3wire holds what the drivers for S3-compatible stores share, whatever SDK they sit on: one request per call,
// the meaning of every answer, and reads into the caller's buffer.
//
// Invariants:
//
//   - A call sends at most one HTTP request. The transport refuses a second one, so no SDK can retry behind our back.
//   - No PUT leaves without a condition (If-None-Match or If-Match).
//   - When Create or Swap returns, the payload is not read any more, also if the transport still holds on to the request.
//   - Only an answer of the store decides that a write was not applied; whatever else goes wrong is ErrUnknown.
//   - Errors are made of the status, code and message of the answer, or of the network error. They hold no header and no
//     body of a request, hence no credential.
package s3wire
