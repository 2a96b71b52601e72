package tiered

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	mrand "math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strconv"

	"github.com/tierlog/tierlog/objstore"
	"github.com/tierlog/tierlog/tiered/logid"
	"github.com/tierlog/tierlog/tiered/wal"
)

// Batches that acks=1 acknowledged may be on this process's disk only. They go into the first slot of the new epoch, and
// not into the slot where the old one ended: behind that there may be objects that the dead process had in flight, which
// nobody was told of and whose producers send them again. As members of the log they would be records out of order.

// localFate says what recovery does with a batch of the local disk.
type localFate int

const (
	inBucket   localFate = iota
	toReplay             // nobody has written at its offsets since
	overridden           // another broker has led the partition since
)

// fate compares a batch with what the bucket holds. A leader epoch has one writer, so that the epoch at its offset
// tells whose records are there.
func (r *recovery) fate(b *localBatch) localFate {
	p := r.parts[b.id]
	if p == nil {
		return toReplay
	}
	base, epoch := b.batch.BaseOffset(), b.batch.LeaderEpoch()
	switch i := sort.Search(len(p.epochs), func(i int) bool { return p.epochs[i].Start > base }); {
	case base < p.next && i > 0 && p.epochs[i-1].Epoch == epoch:
		return inBucket
	case base < p.next || len(p.epochs) > 0 && p.epochs[len(p.epochs)-1].Epoch > epoch:
		return overridden
	default:
		return toReplay
	}
}

// replayLocal writes what only the local disk holds into slot 0 of this broker's epoch, and sets aside, counts and
// reports what cannot be in the log any more. All earlier epochs are replayed and fenced by then.
func (r *recovery) replayLocal(ctx context.Context) error {
	dirs, err := r.localDirs()
	if err != nil {
		return err
	}
	var replay []localBatch
	lost := make(map[string]int)
	for _, dir := range dirs {
		local, err := readLocal(dir)
		if err != nil {
			return err
		}
		for i := range local {
			switch r.fate(&local[i]) {
			case toReplay:
				replay = append(replay, local[i])
			case overridden:
				lost[dir]++
			case inBucket:
			}
		}
	}
	if len(replay) > 0 {
		if err := r.writeReplay(ctx, replay); err != nil {
			return err
		}
	}
	for _, dir := range dirs {
		if lost[dir] == 0 {
			err = errors.Join(err, os.RemoveAll(dir))
			continue
		}
		err = errors.Join(err, r.setAside(dir, lost[dir]))
	}
	return err
}

// localDirs returns the folders of earlier epochs' local files, oldest first.
func (r *recovery) localDirs() ([]string, error) {
	if r.l.cfg.DataDir == "" {
		return nil, nil
	}
	hot := filepath.Join(r.l.cfg.DataDir, "hot")
	entries, err := os.ReadDir(hot) // sorted by name, which has fixed width
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("data dir: %w", err)
	}
	var dirs []string
	for _, e := range entries {
		if n, err := strconv.ParseUint(e.Name(), 10, 64); err == nil && e.IsDir() && logid.Epoch(n) < r.l.cfg.Epoch {
			dirs = append(dirs, filepath.Join(hot, e.Name()))
		}
	}
	return dirs, nil
}

// writeReplay writes the batches into slot 0 of this broker's epoch and replays it.
func (r *recovery) writeReplay(ctx context.Context, local []localBatch) error {
	w := r.l.own()
	key := r.slotKey(w.epoch, 0)
	if err := r.l.putSlot(objstore.WithPurpose(ctx, objstore.PurposeWAL), key, r.replayObject(w.epoch, local)); err != nil {
		return err
	}
	f, _, err := r.l.readFooter(ctx, key, 0)
	if err != nil {
		return err
	}
	r.counts.replayed += len(local)
	r.applySlot(w, f)
	return nil
}

func (r *recovery) replayObject(e logid.Epoch, local []localBatch) *objstore.Parts {
	slices.SortStableFunc(local, func(a, b localBatch) int { return a.id.Compare(b.id) })
	b := wal.NewBuilder(wal.Header{Kind: wal.Data, Cluster: r.l.cfg.Cluster, Epoch: e, Nonce: mrand.Uint64()})
	var open logid.Partition
	epoch := int32(-1)
	for _, lb := range local {
		if lb.id != open || lb.batch.LeaderEpoch() != epoch {
			open, epoch = lb.id, lb.batch.LeaderEpoch()
			b.Section(open.Topic, open.Index, epoch)
		}
		b.Batch(lb.batch)
	}
	o := b.Finish()
	return objstore.Bytes(o.Parts...).WithCRC32C(o.CRC)
}

// setAside keeps the files of records that will not be in the log, for the operator.
func (r *recovery) setAside(dir string, batches int) error {
	r.counts.setAside += batches
	aside := dir + ".set-aside"
	r.l.cfg.Logger.Error("records that were acknowledged with acks=1 only did not reach the bucket before another broker took over; their local files are set aside",
		slog.Int("batches", batches), slog.String("path", aside))
	r.l.cfg.Metrics.setAside(batches)
	return os.Rename(dir, aside)
}
