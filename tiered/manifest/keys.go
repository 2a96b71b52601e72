package manifest

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/tierlog/tierlog/tiered/logid"
)

// ClusterKey is the key of the one object outside the folder of its cluster.
const ClusterKey = "cluster.json"

// maxTopicPart is the longest part of a topic's name in a key. Names of up to 249 bytes are legal in Kafka, and a
// directory store can hold 255 bytes between two slashes, of which the topic id takes 23.
const maxTopicPart = 200

// cutMark follows a topic name that was cut. It is illegal in a topic name, so that a cut name is no other topic's.
const cutMark = "~"

// KeyKind says what is at a key.
type KeyKind uint8

// The kinds of keys, in the order of the layout.
const (
	KeyCluster           KeyKind = iota + 1 // cluster.json
	KeyMeta                                 // metadata log slot
	KeyMetaSnapshot                         // state of the metadata log
	KeyLease                                // liveness of a broker
	KeyWAL                                  // WAL object or fence
	KeyWALManifest                          // see WAL
	KeyCheckpoint                           // see Checkpoint
	KeyMerged                               // merged segment
	KeyPartitionManifest                    // see Partition
	KeyPage                                 // see Page
	KeySegmentFile                          // one file of a log segment
	KeyJob                                  // see Job
	KeyDeletion                             // see Deletion
)

// FileKind is the extension of one file of a log segment.
type FileKind string

// The files of a log segment.
const (
	FileLog       FileKind = "log"
	FileIndex     FileKind = "index"
	FileTimeIndex FileKind = "timeindex"
	FileTxnIndex  FileKind = "txnindex"
	FileSnapshot  FileKind = "snapshot"
)

// Key is one key of the layout. Fields that its kind does not use are zero.
type Key struct {
	Kind    KeyKind
	Cluster logid.ClusterID
	// Slot is the slot of a metadata record, WAL object, snapshot or checkpoint, or the first one of a merged segment.
	Slot logid.Slot
	To   logid.Slot // last slot of a merged segment
	// Epoch is the broker epoch of everything below wal/.
	Epoch logid.Epoch
	// Broker is the node id of a lease.
	Broker int32
	// Topic is the topic's name as far as the key holds it, see TopicPart; Partition is the identity.
	Topic     string
	Partition logid.Partition
	Base      logid.Offset // first offset of a page or log segment
	Last      logid.Offset // last offset of a page
	File      FileKind     // of a log segment
	FileBase  logid.Offset // the offset in the file's own name
	ULID      ULID
	Date      string // YYYY-MM-DD of a deletion
}

// TopicPart returns what a key holds of a topic's name: all of it, or the beginning and a mark that it was cut.
func TopicPart(name string) string {
	if len(name) > maxTopicPart {
		return name[:maxTopicPart] + cutMark
	}
	return name
}

// String builds the key. Numbers in keys have 20 digits, so that a listing is in their order; node ids and partitions
// are as people write them.
func (k Key) String() string {
	root := k.Cluster.String() + "/"
	switch k.Kind {
	case KeyCluster:
		return ClusterKey
	case KeyMeta:
		return root + "meta/log/" + k.Slot.Key()
	case KeyMetaSnapshot:
		return root + "meta/snapshot/" + k.Slot.Key()
	case KeyLease:
		return root + "lease/" + strconv.Itoa(int(k.Broker))
	case KeyWAL:
		return root + "wal/" + k.Epoch.Key() + "/" + k.Slot.Key()
	case KeyWALManifest:
		return root + "wal/" + k.Epoch.Key() + "/manifest.json"
	case KeyCheckpoint:
		return root + "wal/" + k.Epoch.Key() + "/checkpoint/" + k.Slot.Key() + "-" + k.ULID.String()
	case KeyMerged:
		return root + "wal/" + k.Epoch.Key() + "/merged/" + k.Slot.Key() + "-" + k.To.Key() + "-" + k.ULID.String()
	case KeyJob:
		return root + "job/" + k.ULID.String()
	case KeyDeletion:
		return root + "gc/" + k.Date + "/" + k.ULID.String()
	default:
		return root + k.partitionPath()
	}
}

func (k Key) partitionPath() string {
	dir := "topics/" + TopicPart(k.Topic) + "." + k.Partition.Topic.String() + "/" + strconv.Itoa(int(k.Partition.Index)) + "/"
	switch k.Kind {
	case KeyPartitionManifest:
		return dir + "manifest.json"
	case KeyPage:
		return dir + "pages/" + k.Base.Key() + "-" + k.Last.Key() + "-" + k.ULID.String() + ".json"
	case KeySegmentFile:
		return dir + k.Base.Key() + "-" + k.ULID.String() + "/" + k.FileBase.Key() + "." + string(k.File)
	default:
		panic("manifest: key of unknown kind " + strconv.Itoa(int(k.Kind)))
	}
}

// Prefix of a kind of keys, to list them. Only maintenance and operators list.
func Prefix(c logid.ClusterID, kind KeyKind) string {
	root := c.String() + "/"
	switch kind {
	case KeyCluster:
		return ClusterKey
	case KeyMeta:
		return root + "meta/log/"
	case KeyMetaSnapshot:
		return root + "meta/snapshot/"
	case KeyLease:
		return root + "lease/"
	case KeyJob:
		return root + "job/"
	case KeyDeletion:
		return root + "gc/"
	case KeyPartitionManifest, KeyPage, KeySegmentFile:
		return root + "topics/"
	default:
		return root + "wal/"
	}
}

// WALPrefix is the folder of one broker epoch.
func WALPrefix(c logid.ClusterID, e logid.Epoch) string { return c.String() + "/wal/" + e.Key() + "/" }

// PartitionPrefix is the folder of one partition; topic is its full name.
func PartitionPrefix(c logid.ClusterID, topic string, p logid.Partition) string {
	k := Key{Kind: KeyPartitionManifest, Cluster: c, Topic: topic, Partition: p}
	return strings.TrimSuffix(k.String(), "manifest.json")
}

// ParseKey reads what Key.String built. Errors wrap logid.ErrSyntax.
func ParseKey(s string) (Key, error) {
	if s == ClusterKey {
		return Key{Kind: KeyCluster}, nil
	}
	p := keyParser{parts: strings.Split(s, "/")}
	k := Key{}
	k.Cluster, p.err = logid.ParseClusterID(p.part())
	switch area := p.part(); area {
	case "meta":
		p.meta(&k)
	case "lease":
		k.Kind, k.Broker = KeyLease, p.index()
	case "wal":
		p.wal(&k)
	case "topics":
		p.topics(&k)
	case "job":
		k.Kind, k.ULID = KeyJob, p.ulid(p.part())
	case "gc":
		k.Kind, k.Date, k.ULID = KeyDeletion, p.date(), p.ulid(p.part())
	default:
		p.failf("no such area %q", clip(area))
	}
	if len(p.parts) != 0 {
		p.failf("%d parts too many", len(p.parts))
	}
	// One thing has one key: whatever the parts allow, only what String builds is accepted.
	if p.err == nil && k.String() != s {
		p.failf("not in canonical form")
	}
	if p.err != nil {
		return Key{}, fmt.Errorf("key %q: %w", clip(s), p.err)
	}
	return k, nil
}

// keyParser consumes the parts of a key and keeps the first error.
type keyParser struct {
	parts []string
	err   error
}

func (p *keyParser) failf(format string, args ...any) {
	if p.err == nil {
		p.err = fmt.Errorf("%s: %w", fmt.Sprintf(format, args...), logid.ErrSyntax)
	}
}

func (p *keyParser) keep(err error) {
	if p.err == nil {
		p.err = err
	}
}

// part returns the next part, or an empty one, which nothing accepts.
func (p *keyParser) part() string {
	if len(p.parts) == 0 {
		return ""
	}
	s := p.parts[0]
	p.parts = p.parts[1:]
	return s
}

func (p *keyParser) slot(s string) logid.Slot {
	v, err := logid.ParseSlot(s)
	p.keep(err)
	return v
}

func (p *keyParser) offset(s string) logid.Offset {
	v, err := logid.ParseOffset(s)
	p.keep(err)
	return max(v, 0)
}

func (p *keyParser) ulid(s string) ULID {
	v, err := ParseULID(s)
	p.keep(err)
	return v
}

func (p *keyParser) index() int32 {
	v, err := logid.ParseIndex(p.part())
	p.keep(err)
	return v
}

func (p *keyParser) date() string {
	s := p.part()
	if t, err := time.Parse(time.DateOnly, s); err != nil || t.Format(time.DateOnly) != s {
		p.failf("%q is no date", clip(s))
	}
	return s
}

// cut splits at the first separator and takes a missing one for an error.
func (p *keyParser) cut(s, sep string) (before, after string) {
	before, after, ok := strings.Cut(s, sep)
	if !ok {
		p.failf("no %q in %q", sep, clip(s))
	}
	return before, after
}

func (p *keyParser) meta(k *Key) {
	switch p.part() {
	case "log":
		k.Kind = KeyMeta
	case "snapshot":
		k.Kind = KeyMetaSnapshot
	default:
		p.failf("neither metadata log nor snapshot")
	}
	k.Slot = p.slot(p.part())
}

func (p *keyParser) wal(k *Key) {
	var err error
	k.Epoch, err = logid.ParseEpoch(p.part())
	p.keep(err)
	switch name := p.part(); name {
	case "manifest.json":
		k.Kind = KeyWALManifest
	case "checkpoint":
		k.Kind = KeyCheckpoint
		slot, id := p.cut(p.part(), "-")
		k.Slot, k.ULID = p.slot(slot), p.ulid(id)
	case "merged":
		k.Kind = KeyMerged
		from, rest := p.cut(p.part(), "-")
		to, id := p.cut(rest, "-")
		k.Slot, k.To, k.ULID = p.slot(from), p.slot(to), p.ulid(id)
	default:
		k.Kind, k.Slot = KeyWAL, p.slot(name)
	}
}

func (p *keyParser) topics(k *Key) {
	topic := p.part()
	dot := strings.LastIndexByte(topic, '.')
	if dot < 0 {
		p.failf("no topic id in %q", clip(topic))
		return
	}
	id, err := logid.ParseTopicID(topic[dot+1:])
	p.keep(err)
	k.Topic = topic[:dot]
	if name, cut := strings.CutSuffix(k.Topic, cutMark); cut && len(name) == maxTopicPart {
		// String cuts it again at the same place; any longer name gives the same part.
		p.keep(checkTopicName(name))
	} else {
		p.keep(checkTopicName(k.Topic))
	}
	k.Partition = logid.Partition{Topic: id, Index: p.index()}
	switch name := p.part(); name {
	case "manifest.json":
		k.Kind = KeyPartitionManifest
	case "pages":
		k.Kind = KeyPage
		page, ok := strings.CutSuffix(p.part(), ".json")
		if !ok {
			p.failf("a page ends in .json")
		}
		base, rest := p.cut(page, "-")
		last, uid := p.cut(rest, "-")
		k.Base, k.Last, k.ULID = p.offset(base), p.offset(last), p.ulid(uid)
	default:
		k.Kind = KeySegmentFile
		base, uid := p.cut(name, "-")
		fileBase, ext := p.cut(p.part(), ".")
		k.Base, k.ULID, k.FileBase = p.offset(base), p.ulid(uid), p.offset(fileBase)
		k.File = FileKind(ext)
		switch k.File {
		case FileLog, FileIndex, FileTimeIndex, FileTxnIndex, FileSnapshot:
		default:
			p.failf("no file of a log segment ends in .%s", clip(ext))
		}
	}
}

// checkTopicName applies Kafka's rule for names of topics.
func checkTopicName(name string) error {
	if name == "" || name == "." || name == ".." || len(name) > 249 {
		return fmt.Errorf("topic name %q: want 1 to 249 characters, not . or ..: %w", clip(name), logid.ErrSyntax)
	}
	for i := range len(name) {
		switch c := name[i]; {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '.', c == '_', c == '-':
		default:
			return fmt.Errorf("topic name %q: %q is not a letter, digit, '.', '_' or '-': %w", clip(name), c, logid.ErrSyntax)
		}
	}
	return nil
}
