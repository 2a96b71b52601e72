package manifest

import (
	"encoding/json"
	"fmt"
	"slices"

	"github.com/tierlog/tierlog/tiered/logid"
)

// Page holds older segments of a partition. It is written once under a name that is never used again.
type Page struct {
	Nonce    Nonce         `json:"-"`
	Topic    string        `json:"topic"`
	TopicID  logid.TopicID `json:"topicId"`
	Index    int32         `json:"partition"`
	ULID     ULID          `json:"ulid"`
	Segments []Segment     `json:"segments"` // at least one; sorted, without overlap
}

// PageRef names a page in the root and says enough of it to find an offset or a time without reading it.
type PageRef struct {
	Base logid.Offset `json:"base"` // of the first segment in it
	Last logid.Offset `json:"last"` // of the last segment in it
	ULID ULID         `json:"ulid"`
	// Count is the number of segments, Bytes the sum of the sizes of their .log files.
	Count int   `json:"count"`
	Bytes int64 `json:"bytes"`
	// MaxTimestamp is the largest of the segments.
	MaxTimestamp int64 `json:"maxTimestamp"`
}

func validatePages(pages []PageRef) error {
	for i, r := range pages {
		switch {
		case r.Base < 0 || r.Last < r.Base:
			return invalid("pages[%d]: offsets %d to %d", i, r.Base, r.Last)
		case i > 0 && r.Base <= pages[i-1].Last:
			return invalid("pages[%d] from %d does not follow pages[%d] to %d", i, r.Base, i-1, pages[i-1].Last)
		case r.ULID.IsZero():
			return invalid("pages[%d]: without ulid", i)
		case r.Count <= 0 || r.Bytes <= 0:
			return invalid("pages[%d]: count %d and bytes %d, want more than 0", i, r.Count, r.Bytes)
		}
	}
	return nil
}

// Ref returns the page's entry in the root.
func (p *Page) Ref() PageRef {
	first, last := p.Segments[0], p.Segments[len(p.Segments)-1]
	r := PageRef{Base: first.Base, Last: last.Last, ULID: p.ULID, Count: len(p.Segments), MaxTimestamp: first.MaxTimestamp}
	for _, s := range p.Segments {
		r.Bytes += s.Size
		r.MaxTimestamp = max(r.MaxTimestamp, s.MaxTimestamp)
	}
	return r
}

// Validate names the first field that is not allowed.
func (p *Page) Validate() error {
	if err := checkTopicName(p.Topic); err != nil {
		return invalid("page: %v", err)
	}
	switch {
	case p.TopicID.IsZero() || p.Index < 0:
		return invalid("page: of partition %d of topic %s", p.Index, p.TopicID)
	case p.ULID.IsZero():
		return invalid("page: without ulid")
	case len(p.Segments) == 0:
		return invalid("page: without segments")
	}
	if err := validateSegments(p.Segments); err != nil {
		return invalid("page %s: %v", p.ULID, err)
	}
	return nil
}

// Encode returns the body.
func (p *Page) Encode() ([]byte, error) {
	if err := p.Validate(); err != nil {
		return nil, err
	}
	return encode(KindPage, p.Nonce, p)
}

// DecodePage reads the body that the root of partition part names with ref.
func DecodePage(body []byte, part logid.Partition, ref PageRef) (*Page, error) {
	p := &Page{}
	n, err := decode(KindPage, body, p, false)
	if err != nil {
		return nil, err
	}
	p.Nonce = n
	if err := p.Validate(); err != nil {
		return nil, corrupt(KindPage, "%v", err)
	}
	if got := (logid.Partition{Topic: p.TopicID, Index: p.Index}); got != part {
		return nil, corrupt(KindPage, "is of %s, its key says %s", got, part)
	}
	if got := p.Ref(); got != ref {
		return nil, corrupt(KindPage, "is %+v, the manifest says %+v", got, ref)
	}
	return p, nil
}

// Spill moves the oldest segments to new pages if the root is larger than limit bytes (RootLimit), until it is about
// half of that: then the next segments make no new pages. The pages must be durable before the root that names them
// replaces the older one. newID is called once for each page.
func (m *Partition) Spill(limit int, newID func() (ULID, Nonce, error)) ([]Page, error) {
	body, err := m.Encode()
	if err != nil || len(body) <= limit {
		return nil, err
	}
	sizes := make([]int, len(m.Segments))
	for i, s := range m.Segments {
		b, err := json.Marshal(s)
		if err != nil {
			return nil, fmt.Errorf("encode segment %d: %w", s.Base, err)
		}
		sizes[i] = len(b) + 1
	}
	edited, size := *m, len(body)
	var pages []Page
	for size > limit/2 && len(edited.Segments) > 0 {
		n, moved := 0, 0
		for n < len(edited.Segments) && size-moved > limit/2 && (n == 0 || moved+sizes[n] <= limit) {
			moved += sizes[n]
			n++
		}
		p := Page{Topic: m.Topic, TopicID: m.TopicID, Index: m.Index, Segments: edited.Segments[:n:n]}
		if p.ULID, p.Nonce, err = newID(); err != nil {
			return nil, fmt.Errorf("name a page: %w", err)
		}
		if err := p.Validate(); err != nil {
			return nil, err
		}
		pages = append(pages, p)
		edited.Pages = append(slices.Clip(edited.Pages), p.Ref())
		edited.Segments, sizes, size = edited.Segments[n:], sizes[n:], size-moved
	}
	return pages, m.apply(edited)
}
