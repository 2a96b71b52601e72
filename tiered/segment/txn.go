package segment

import (
	"encoding/binary"
	"fmt"
)

// abortedSize is the size of an entry in bytes: int16 version, then four int64.
const abortedSize = 34

// abortedVersion is the one version of an entry that there is.
const abortedVersion = 0

// AbortedTxn is an entry of the index of aborted transactions.
type AbortedTxn struct {
	ProducerID int64
	First      int64 // offset of the transaction's first record in the partition
	Last       int64 // offset of the abort marker; the entry is in the index of the segment that holds it
	// LastStable is the last stable offset right after the marker: where other transactions may still be open.
	LastStable int64
}

// AppendAborted appends one entry of a .txnindex file.
func AppendAborted(b []byte, a AbortedTxn) []byte {
	b = binary.BigEndian.AppendUint16(b, abortedVersion)
	for _, v := range [...]int64{a.ProducerID, a.First, a.Last, a.LastStable} {
		b = binary.BigEndian.AppendUint64(b, uint64(v))
	}
	return b
}

// TxnIndex holds the aborted transactions of a segment in ascending order of their last offsets.
type TxnIndex []AbortedTxn

// ParseTxnIndex checks a .txnindex file of a segment whose markers are at offsets base to last.
func ParseTxnIndex(b []byte, base, last int64) (TxnIndex, error) {
	if over := len(b) % abortedSize; over != 0 {
		return nil, fmt.Errorf("txnindex: %d bytes, %d more than whole entries of %d: %w", len(b), over, abortedSize, ErrCorrupt)
	}
	x := make(TxnIndex, 0, len(b)/abortedSize)
	for at := 0; at < len(b); at += abortedSize {
		if v := binary.BigEndian.Uint16(b[at:]); v != abortedVersion {
			return nil, fmt.Errorf("txnindex byte %d: version %d, want %d: %w", at, v, abortedVersion, ErrCorrupt)
		}
		field := func(i int) int64 { return int64(binary.BigEndian.Uint64(b[at+2+8*i:])) }
		a := AbortedTxn{ProducerID: field(0), First: field(1), Last: field(2), LastStable: field(3)}
		switch {
		case a.ProducerID < 0 || a.First < 0 || a.Last < a.First || a.LastStable < 0:
			return nil, fmt.Errorf("txnindex byte %d: producer %d, offsets %d to %d, last stable %d: %w", at, a.ProducerID, a.First, a.Last, a.LastStable, ErrCorrupt)
		case a.Last < base || a.Last > last:
			return nil, fmt.Errorf("txnindex byte %d: marker at offset %d, the segment has %d to %d: %w", at, a.Last, base, last, ErrCorrupt)
		case len(x) > 0 && a.Last <= x[len(x)-1].Last:
			return nil, fmt.Errorf("txnindex byte %d: marker at offset %d follows one at %d: %w", at, a.Last, x[len(x)-1].Last, ErrCorrupt)
		}
		x = append(x, a)
	}
	return x, nil
}

// Collect returns the aborted transactions that a reader of offsets from <= offset < upper must know. done says that the
// indexes of later segments have no more of them.
func (x TxnIndex) Collect(from, upper int64) (found []AbortedTxn, done bool) {
	for _, a := range x {
		if a.Last >= from && a.First < upper {
			found = append(found, a)
		}
		if a.LastStable >= upper {
			return found, true
		}
	}
	return found, false
}
