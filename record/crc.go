package record

// The CRC of a concatenation follows from the CRCs of its parts: crc(A|B) = crc(A)·x^(8·len(B)) xor crc(B), in the
// field of polynomials over GF(2) modulo CRC-32C's. Batches carry their checksum, so that sections and whole objects
// get theirs without a second pass over the data.

const castagnoliReversed = 0x82f63b78

// mulMod multiplies two polynomials modulo CRC-32C's, in the reversed bit order of the checksum.
func mulMod(a, b uint32) uint32 {
	var p uint32
	for m := uint32(1) << 31; ; m >>= 1 {
		if a&m != 0 {
			p ^= b
			if a&(m-1) == 0 {
				return p
			}
		}
		if b&1 != 0 {
			b = b>>1 ^ castagnoliReversed
		} else {
			b >>= 1
		}
	}
}

// powX[k] is x^(8·2^k) modulo the polynomial.
var powX = func() (t [40]uint32) {
	p := uint32(1) << 23 // x^8: bit 31 is x^0
	for k := range t {
		t[k] = p
		p = mulMod(p, p)
	}
	return t
}()

// CombineCRC returns the CRC-32C of A|B from those of A and B; lenB is B's length in bytes, below 2^40.
func CombineCRC(crcA, crcB uint32, lenB int64) uint32 {
	if crcA == 0 {
		return crcB
	}
	for k := 0; lenB != 0; k, lenB = k+1, lenB>>1 {
		if lenB&1 != 0 {
			crcA = mulMod(powX[k], crcA)
		}
	}
	return crcA ^ crcB
}
