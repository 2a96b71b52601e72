package objstore

import (
	"bytes"
	"context"
	"errors"
	"io"
)

// IdentitySize is how many leading bytes tell two writers' bodies apart: every body given to Put or Replace
// must hold a random nonce within its first IdentitySize bytes (or be shorter and wholly unique).
const IdentitySize = 64

// Outcome says whose bytes are at a key after a conditional write.
type Outcome uint8

// The outcomes of Put and Replace.
const (
	// Unknown: it could not be told in time whether the write applied; the error says why.
	Unknown Outcome = iota
	// Mine: the bucket holds this caller's bytes at the key (or did, before a later Swap).
	Mine
	// Other: somebody else's bytes are there. Of a Put: this caller's were not applied and never will be. Of a Replace: they
	// were not applied, or they were and a later swap has replaced them; what is there now tells, if it has to be known.
	Other
)

func (o Outcome) String() string {
	switch o {
	case Mine:
		return "mine"
	case Other:
		return "other"
	default:
		return "unknown"
	}
}

// Put tries once to create key with body and, where the answer leaves it open, reads the occupant's identity.
//
// It returns Mine with the version when the bucket holds body; Other when another writer's object is there;
// and Unknown with an error when neither is certain: call again with the same body, the same key.
// Errors that say that nothing was applied and nobody holds the key (ErrDenied, ErrNoBucket, ErrNoSpace, ErrInvalid)
// also come with Unknown, since an earlier attempt may have been applied.
func Put(ctx context.Context, s Store, key string, body Payload) (Outcome, Version, error) {
	v, err := s.Create(ctx, key, body)
	switch {
	case err == nil:
		return Mine, v, nil
	case errors.Is(err, ErrExists), errors.Is(err, ErrUnknown):
		return occupant(ctx, s, key, body, err)
	default:
		return Unknown, "", err
	}
}

// Replace tries once to swap key from version old to body and, where the answer leaves it open, reads the occupant's
// identity. Results are as for Put; Other means that the caller must read the object again before it plans anew.
func Replace(ctx context.Context, s Store, key string, old Version, body Payload) (Outcome, Version, error) {
	v, err := s.Swap(ctx, key, old, body)
	switch {
	case err == nil:
		return Mine, v, nil
	case errors.Is(err, ErrUnknown):
		out, v2, rerr := occupant(ctx, s, key, body, err)
		if out == Other && v2 == old {
			// Not applied so far; a late apply is still possible, so it stays unknown.
			return Unknown, "", err
		}
		return out, v2, rerr
	case errors.Is(err, ErrChanged):
		return occupant(ctx, s, key, body, err)
	default:
		return Unknown, "", err
	}
}

// occupant compares the object at key with body. cause is the error that made it necessary.
func occupant(ctx context.Context, s Store, key string, body Payload, cause error) (Outcome, Version, error) {
	var mine, theirs [IdentitySize]byte
	want := int(min(body.Size(), IdentitySize))
	if _, err := io.ReadFull(body.Reader(), mine[:want]); err != nil {
		return Unknown, "", err
	}
	n, info, err := s.ReadAt(ctx, key, theirs[:], 0)
	switch {
	case errors.Is(err, ErrNotFound):
		return Unknown, "", cause // gone, or not applied (yet)
	case err != nil:
		return Unknown, "", errors.Join(cause, err)
	case info.Size == body.Size() && bytes.Equal(mine[:want], theirs[:n]):
		return Mine, info.Version, nil
	default:
		return Other, info.Version, nil
	}
}

// ReadAll returns a whole object of at most limit bytes; a larger one is ErrInvalid.
func ReadAll(ctx context.Context, s Store, key string, limit int64) ([]byte, Info, error) {
	buf := make([]byte, min(limit, 64<<10))
	for {
		n, info, err := s.ReadAt(ctx, key, buf, 0)
		if err != nil {
			return nil, Info{}, err
		}
		if info.Size > limit {
			return nil, info, &Error{Op: "read", Key: key, Kind: ErrInvalid, Err: errors.New("object larger than expected")}
		}
		if int64(n) == info.Size {
			return buf[:n:n], info, nil
		}
		buf = make([]byte, info.Size)
	}
}
