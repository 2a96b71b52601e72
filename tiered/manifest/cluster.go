package manifest

import "github.com/tierlog/tierlog/tiered/logid"

// Cluster is the body of cluster.json, created once and never changed.
type Cluster struct {
	Nonce Nonce `json:"-"`
	// Format is the format of the bucket when it was made. Encode sets it; Decode reports it.
	Format uint64          `json:"-"`
	ID     logid.ClusterID `json:"clusterId"`
	// MinReader is the oldest format that a reader must know to understand everything in the bucket.
	MinReader uint64 `json:"minReader"`
	// CreatedMs is the creator's wall clock in Unix milliseconds, for people.
	CreatedMs int64 `json:"createdMs"`
}

// Validate names the first field that is not allowed.
func (c *Cluster) Validate() error {
	if c.ID.IsZero() {
		return invalid("cluster: clusterId is zero")
	}
	if c.MinReader == 0 || c.MinReader > max(Format, c.Format) {
		return invalid("cluster: minReader is %d, want 1 to the format", c.MinReader)
	}
	return nil
}

// Encode returns the body.
func (c *Cluster) Encode() ([]byte, error) {
	w := *c
	w.Format = Format
	if err := w.Validate(); err != nil {
		return nil, err
	}
	return encode(KindCluster, w.Nonce, &w)
}

// DecodeCluster reads the body. A bucket of a newer format is accepted as long as its MinReader allows it.
func DecodeCluster(body []byte) (*Cluster, error) {
	n, format, _, err := unframe(KindCluster, body)
	if err != nil {
		return nil, err
	}
	c := &Cluster{}
	if _, err := decode(KindCluster, body, c, format > Format); err != nil {
		return nil, err
	}
	c.Nonce, c.Format = n, format
	if err := c.Validate(); err != nil {
		return nil, corrupt(KindCluster, "%v", err)
	}
	if c.MinReader > Format {
		return nil, &FormatError{Kind: KindCluster, Got: c.MinReader}
	}
	return c, nil
}
