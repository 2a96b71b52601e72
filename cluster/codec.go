package cluster

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/tierlog/tierlog/tiered/logid"
	"github.com/tierlog/tierlog/tiered/manifest"
)

// The kinds of this package's bodies; see manifest.EncodeBody for the frame around them.
const (
	kindEntry    manifest.Kind = "metadata-record"
	kindSnapshot manifest.Kind = "metadata-snapshot"
	kindLease    manifest.Kind = "lease"
)

// entry is the body of one slot of the metadata log.
type entry struct {
	Cluster logid.ClusterID `json:"cluster"`
	Slot    logid.Slot      `json:"slot"`
	// By is the proposer's epoch; 0 before it joined.
	By     logid.Epoch `json:"by,omitempty"`
	TimeMs int64       `json:"timeMs"` // the proposer's wall clock, for people
	// Records holds one object of one field each: the record's kind and the record.
	Records []json.RawMessage `json:"records"`
}

// encodeEntry returns the body of a slot.
func encodeEntry(e entry, n manifest.Nonce, records []Record) ([]byte, error) {
	e.Records = make([]json.RawMessage, len(records))
	for i, r := range records {
		b, err := json.Marshal(map[string]Record{r.kind(): r})
		if err != nil {
			return nil, fmt.Errorf("encode %s: %w", r.kind(), err)
		}
		e.Records[i] = b
	}
	b, err := manifest.EncodeBody(kindEntry, n, &e)
	if errors.Is(err, manifest.ErrInvalid) {
		return nil, fmt.Errorf("%d records: %w: %w", len(records), ErrTooLarge, err)
	}
	return b, err
}

// decodeEntry reads the body of a slot. Errors wrap ErrCorrupt or ErrNewer.
func decodeEntry(body []byte, c logid.ClusterID, slot logid.Slot) (*entry, []Record, error) {
	e := &entry{}
	if _, err := manifest.DecodeBody(kindEntry, body, e); err != nil {
		return nil, nil, bodyError(err)
	}
	if e.Cluster != c || e.Slot != slot {
		return nil, nil, fmt.Errorf("the body is that of slot %d of cluster %s, want slot %d of %s: %w", e.Slot, e.Cluster, slot, c, ErrCorrupt)
	}
	records := make([]Record, len(e.Records))
	for i, raw := range e.Records {
		r, err := decodeRecord(raw)
		if err != nil {
			return nil, nil, fmt.Errorf("record %d: %w", i, err)
		}
		records[i] = r
	}
	return e, records, nil
}

func decodeRecord(raw json.RawMessage) (Record, error) {
	var one map[string]json.RawMessage
	if err := json.Unmarshal(raw, &one); err != nil || len(one) != 1 {
		return nil, fmt.Errorf("not an object of one field: %w", ErrCorrupt)
	}
	for kind, fields := range one {
		r := newRecord(kind)
		switch {
		case slices.Contains(reservedKinds, kind):
			return nil, fmt.Errorf("a record of kind %q, which this version does not know: %w", kind, ErrNewer)
		case r == nil:
			return nil, fmt.Errorf("a record of unknown kind %q: %w", clip(kind), ErrCorrupt)
		}
		if err := strict(fields, r); err != nil {
			return nil, fmt.Errorf("%s: %w: %w", kind, ErrCorrupt, err)
		}
		if err := r.check(); err != nil {
			return nil, fmt.Errorf("%s: %w: %w", kind, ErrCorrupt, err)
		}
		return r, nil
	}
	return nil, ErrCorrupt
}

// strict decodes one JSON object that holds no unknown field; null is none.
func strict(b []byte, v any) error {
	if len(b) == 0 || b[0] != '{' {
		return errors.New("not a JSON object")
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("more than one JSON value")
	}
	return nil
}

// bodyError turns the frame's errors into this package's.
func bodyError(err error) error {
	if errors.Is(err, manifest.ErrNewer) {
		return fmt.Errorf("%w: %w", ErrNewer, err)
	}
	return fmt.Errorf("%w: %w", ErrCorrupt, err)
}
