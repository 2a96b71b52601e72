package manifest

import (
	"strings"
	"time"

	"github.com/tierlog/tierlog/tiered/logid"
)

// Job declares what a maintenance job is going to write, before it writes it: the collector takes none of the outputs
// of a live job for garbage.
type Job struct {
	Nonce   Nonce  `json:"-"`
	Version uint64 `json:"version"`
	ULID    ULID   `json:"ulid"`
	// Work is what the job does ("merge", "rollup", "compaction"), Owner who runs it; both are for people.
	Work  string `json:"work"`
	Owner string `json:"owner"`
	// StartedMs is the owner's wall clock in Unix milliseconds; after DeadlineMs the owner commits nothing any more. The
	// collector waits for its grace after that, because clocks differ.
	StartedMs  int64 `json:"startedMs"`
	DeadlineMs int64 `json:"deadlineMs"`
	// Outputs are the keys that the job may create.
	Outputs []string `json:"outputs"`
}

// Key returns the key of the job.
func (j *Job) Key(c logid.ClusterID) string {
	return Key{Kind: KeyJob, Cluster: c, ULID: j.ULID}.String()
}

// Validate names the first field that is not allowed.
func (j *Job) Validate() error {
	switch {
	case j.Version == 0:
		return invalid("job: version is 0, want at least 1")
	case j.ULID.IsZero():
		return invalid("job: without ulid")
	case j.Work == "":
		return invalid("job %s: work is empty", j.ULID)
	case j.DeadlineMs <= j.StartedMs:
		return invalid("job %s: deadlineMs %d is not after startedMs %d", j.ULID, j.DeadlineMs, j.StartedMs)
	}
	for i, s := range j.Outputs {
		k, err := ParseKey(s)
		if err != nil {
			return invalid("job %s: outputs[%d]: %v", j.ULID, i, err)
		}
		switch k.Kind {
		case KeyMerged, KeyPage, KeySegmentFile, KeyCheckpoint:
		default:
			return invalid("job %s: outputs[%d] is %q, want a name that is never used again", j.ULID, i, clip(s))
		}
	}
	return nil
}

// Encode returns the body.
func (j *Job) Encode() ([]byte, error) {
	if err := j.Validate(); err != nil {
		return nil, err
	}
	return encode(KindJob, j.Nonce, j)
}

// DecodeJob reads the body found at the key of job id in cluster c.
func DecodeJob(body []byte, c logid.ClusterID, id ULID) (*Job, error) {
	j := &Job{}
	n, err := decode(KindJob, body, j, false)
	if err != nil {
		return nil, err
	}
	j.Nonce = n
	if err := j.Validate(); err != nil {
		return nil, corrupt(KindJob, "%v", err)
	}
	if j.ULID != id {
		return nil, corrupt(KindJob, "is %s, its key says %s", j.ULID, id)
	}
	if err := sameCluster(j.Outputs, c); err != nil {
		return nil, corrupt(KindJob, "%v", err)
	}
	return j, nil
}

// Deletion is an entry of the deletion journal: keys that no manifest names any more. Who carries it out, once or
// several times, deletes the keys and then the entry.
type Deletion struct {
	Nonce  Nonce  `json:"-"`
	ULID   ULID   `json:"ulid"`
	Reason string `json:"reason"` // for people
	// NotBeforeMs is the wall clock in Unix milliseconds before which nothing is deleted, so that readers of an
	// older manifest finish.
	NotBeforeMs int64    `json:"notBeforeMs"`
	Keys        []string `json:"keys"` // at least one
}

// Key returns the key of the entry, under the day of NotBeforeMs in UTC.
func (d *Deletion) Key(c logid.ClusterID) string {
	date := time.UnixMilli(d.NotBeforeMs).UTC().Format(time.DateOnly)
	return Key{Kind: KeyDeletion, Cluster: c, Date: date, ULID: d.ULID}.String()
}

// maxDateMs is the last millisecond of the year 9999, after which a date has no four-digit year.
const maxDateMs = 253402300799999

// Validate names the first field that is not allowed.
func (d *Deletion) Validate() error {
	switch {
	case d.ULID.IsZero():
		return invalid("deletion: without ulid")
	case d.NotBeforeMs < 0 || d.NotBeforeMs > maxDateMs:
		return invalid("deletion %s: notBeforeMs is %d, want 0 to %d", d.ULID, d.NotBeforeMs, int64(maxDateMs))
	case len(d.Keys) == 0:
		return invalid("deletion %s: without keys", d.ULID)
	}
	for i, s := range d.Keys {
		k, err := ParseKey(s)
		if err != nil {
			return invalid("deletion %s: keys[%d]: %v", d.ULID, i, err)
		}
		// A collector that freed a slot would let a zombie acknowledge into it. Whether a WAL slot is the fence does
		// not show in its key: the planner must know.
		if k.Kind == KeyCluster || k.Kind == KeyMeta {
			return invalid("deletion %s: keys[%d] is %q, which is never deleted", d.ULID, i, clip(s))
		}
	}
	return nil
}

// Encode returns the body.
func (d *Deletion) Encode() ([]byte, error) {
	if err := d.Validate(); err != nil {
		return nil, err
	}
	return encode(KindDeletion, d.Nonce, d)
}

// DecodeDeletion reads the body found at the key of entry id in cluster c.
func DecodeDeletion(body []byte, c logid.ClusterID, id ULID) (*Deletion, error) {
	d := &Deletion{}
	n, err := decode(KindDeletion, body, d, false)
	if err != nil {
		return nil, err
	}
	d.Nonce = n
	if err := d.Validate(); err != nil {
		return nil, corrupt(KindDeletion, "%v", err)
	}
	if d.ULID != id {
		return nil, corrupt(KindDeletion, "is %s, its key says %s", d.ULID, id)
	}
	if err := sameCluster(d.Keys, c); err != nil {
		return nil, corrupt(KindDeletion, "%v", err)
	}
	return d, nil
}

// sameCluster keeps an entry that was copied here from deleting, or protecting, what belongs to another cluster.
func sameCluster(keys []string, c logid.ClusterID) error {
	prefix := c.String() + "/"
	for i, k := range keys {
		if !strings.HasPrefix(k, prefix) {
			return invalid("key %d is %q, not of cluster %s", i, clip(k), c)
		}
	}
	return nil
}
