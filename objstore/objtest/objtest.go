// Package objtest tests object stores and what is built on them: a conformance suite for drivers, a store in
// memory, seeded faults, hooks before every call, and golden transcripts of calls.
//
// Invariants:
//
//   - Conformance holds a driver to the contract in package objstore and to nothing beyond it.
//   - The same seed and the same sequence of calls give the same faults.
//   - A fault never breaks the contract: a write that answers ErrUnknown or ErrBusy may or may not apply, now or later;
//     every other error means that this call applied nothing.
//   - Nothing here does real I/O or reads a clock but through package time, so it all runs inside synctest bubbles.
package objtest

import (
	"crypto/rand"
	"encoding/hex"

	"github.com/tierlog/tierlog/objstore"
	"github.com/tierlog/tierlog/objstore/mem"
)

// Mem is a store in memory.
type Mem = mem.Store

// NewMem returns an empty store in memory.
func NewMem() *Mem { return mem.New() }

// Body returns a payload that starts with a fresh nonce, as every body given to Put and Replace must, followed by rest.
func Body(rest string) *objstore.Parts {
	return objstore.Bytes(append([]byte(nonce()+" "), rest...))
}

func nonce() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}
