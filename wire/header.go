package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"github.com/twmb/franz-go/pkg/kmsg"
)

const (
	keyProduce            = 0
	keyControlledShutdown = 7 // its version 0 has a header without a client id
	keyAPIVersions        = 18

	// minFrame is the smallest request: key, version and correlation id.
	minFrame = 8
	// maxFrame is the largest length of a frame.
	maxFrame = math.MaxInt32
)

// api is what framing must know about one API key.
type api struct {
	served   bool
	versions Range
	// flexible is the first version with tagged fields: request header v2, response header v1.
	flexible int16
}

// apis is indexed by key.
type apis []api

func newAPIs(versions map[int16]Range) apis {
	last := int16(keyAPIVersions)
	for key := range versions {
		last = max(last, key)
	}
	table := make(apis, last+1)
	for key := range table {
		table[key] = api{flexible: firstFlexible(int16(key))}
		if r, ok := versions[int16(key)]; ok {
			table[key].served, table[key].versions = true, r
		}
	}
	return table
}

func firstFlexible(key int16) int16 {
	req := kmsg.RequestForKey(key)
	if req == nil {
		return math.MaxInt16
	}
	for v := int16(0); v <= req.MaxVersion(); v++ {
		if req.SetVersion(v); req.IsFlexible() {
			return v
		}
	}
	return math.MaxInt16
}

// lookup tells whether a request is served. An ApiVersions request of an unknown version is, as unsupported.
func (t apis) lookup(key, version int16) (unsupported bool, err error) {
	if key < 0 || int(key) >= len(t) || !t[key].served {
		return false, fmt.Errorf("api key %d (version %d) is not served", key, version)
	}
	if r := t[key].versions; version < r.Min || version > r.Max {
		if key == keyAPIVersions {
			return true, nil
		}
		return false, fmt.Errorf("%s (api key %d) version %d is not served, versions %d to %d are",
			kmsg.NameForKey(key), key, version, r.Min, r.Max)
	}
	return false, nil
}

// flexibleRequest tells whether a request has header version 2.
func (t apis) flexibleRequest(key, version int16) bool { return version >= t[key].flexible }

// flexibleResponse tells whether a response has header version 1. An ApiVersions response never has: the client does
// not know yet what the broker speaks.
func (t apis) flexibleResponse(key, version int16) bool {
	return key != keyAPIVersions && version >= t[key].flexible
}

var errHeader = errors.New("malformed request header")

// header is a request header after key and version.
type header struct {
	correlationID int32
	clientID      []byte // nil where null
}

// parseHeader reads the header of a frame, which has at least minFrame bytes and starts with key and version, and
// returns what follows it. The client id is a string with a 16-bit length also in flexible headers (KIP-482).
func parseHeader(frame []byte, flexible bool) (h header, body []byte, err error) {
	h.correlationID = int32(binary.BigEndian.Uint32(frame[4:]))
	b := frame[minFrame:]
	if binary.BigEndian.Uint32(frame) == keyControlledShutdown<<16 {
		return h, b, nil
	}
	if len(b) < 2 {
		return h, nil, fmt.Errorf("%w: no client id in %d bytes", errHeader, len(frame))
	}
	n := int(int16(binary.BigEndian.Uint16(b)))
	b = b[2:]
	switch {
	case n < -1 || n > len(b):
		return h, nil, fmt.Errorf("%w: client id of %d bytes, %d are left", errHeader, n, len(b))
	case n >= 0:
		h.clientID, b = b[:n:n], b[n:]
	}
	if !flexible {
		return h, b, nil
	}
	body, err = skipTags(b)
	return h, body, err
}

// skipTags skips a section of tagged fields: a count, then for each a tag, a length and bytes.
func skipTags(b []byte) ([]byte, error) {
	count, b, err := uvarint(b)
	if err != nil {
		return nil, err
	}
	for range count { // each turn takes two bytes at least, or fails
		var size uint32
		if _, b, err = uvarint(b); err != nil {
			return nil, err
		}
		if size, b, err = uvarint(b); err != nil {
			return nil, err
		}
		if uint64(size) > uint64(len(b)) {
			return nil, fmt.Errorf("%w: tagged field of %d bytes, %d are left", errHeader, size, len(b))
		}
		b = b[size:]
	}
	return b, nil
}

func uvarint(b []byte) (uint32, []byte, error) {
	v, n := binary.Uvarint(b)
	if n <= 0 || v > math.MaxUint32 {
		return 0, nil, fmt.Errorf("%w: bad varint in tagged fields", errHeader)
	}
	return uint32(v), b[n:], nil
}
