package bench

import (
	"fmt"
	"math/rand/v2"
	"strings"
)

// payloadBytes is how much content there is before it repeats: more than a compressor looks back within a batch.
const payloadBytes = 8 << 20

// Payload gives the values of records. It is read-only and may be shared.
type Payload struct {
	content []byte
	step    bool // walk through the content; otherwise every value is its start
}

// NewPayload makes content for values of the given size: kind "random" does not compress, "text" compresses like logs.
// Without compression one value serves for all records, which stays in the CPU's cache.
func NewPayload(kind string, size int, compressed bool) (Payload, error) {
	n := size
	if compressed {
		n = max(payloadBytes, 2*size)
	}
	rng := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // content, not secrets
	p := Payload{step: compressed}
	switch kind {
	case "random":
		p.content = make([]byte, n)
		for i := range p.content {
			p.content[i] = byte(rng.Uint32())
		}
	case "text":
		var b strings.Builder
		for i := 0; b.Len() < n; i++ {
			fmt.Fprintf(&b, "2026-01-%02d %02d:%02d:%02d.%03d INFO  request id=%08x user=%d path=/api/v1/%s status=%d took=%dms\n",
				1+i/86400%28, i/3600%24, i/60%60, i%60, rng.IntN(1000), rng.Uint32(), rng.IntN(100000),
				[]string{"orders", "users", "carts", "payments", "search"}[rng.IntN(5)],
				[]int{200, 200, 200, 201, 304, 404, 500}[rng.IntN(7)], rng.IntN(900))
		}
		p.content = []byte(b.String())
	default:
		return p, fmt.Errorf("payload %q: want random or text", kind)
	}
	return p, nil
}

// at returns the value of the record with the given number.
func (p Payload) at(n int64, size int) []byte {
	if !p.step || size == 0 {
		return p.content[:size:size]
	}
	slots := int64(len(p.content) / size)
	off := int(n%slots) * size
	return p.content[off : off+size : off+size]
}
