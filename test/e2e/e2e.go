// Package e2e tests the real binary as a user would run it: killed, stopped, starved of its bucket or its disk, and
// started wrongly. Clients are real, and so are the directory and the MinIO that it writes to.
//
// Invariants that the tests check:
//
//   - Every acknowledged record is read back at the offset that was acknowledged, once, in its producer's order.
//   - A broker that may not serve says why, ends with a failure, and acknowledges nothing afterwards.
package e2e
