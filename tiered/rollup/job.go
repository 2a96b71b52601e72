package rollup

import (
	"context"
	"fmt"

	"github.com/tierlog/tierlog/objstore"
	"github.com/tierlog/tierlog/tiered/manifest"
)

// Work says what a job does.
type Work string

// The kinds of work.
const (
	WorkMerge  Work = "merge"
	WorkRollup Work = "rollup"
)

// Declare writes a job record that names all outputs. After it returned without error they may be written, and
// listed until the job's DeadlineMs.
func (w *Worker) Declare(ctx context.Context, work Work, outputs []string) (*manifest.Job, error) {
	ctx = objstore.WithPurpose(ctx, objstore.PurposeRollup)
	nonce, err := manifest.NewNonce(w.cfg.Random)
	if err != nil {
		return nil, err
	}
	id, err := w.NewULID()
	if err != nil {
		return nil, err
	}
	now := w.cfg.Now()
	j := &manifest.Job{
		Nonce: nonce, Version: 1, ULID: id, Work: string(work), Owner: w.cfg.Owner,
		StartedMs: now.UnixMilli(), DeadlineMs: now.Add(w.cfg.Deadline).UnixMilli(), Outputs: outputs,
	}
	body, err := j.Encode()
	if err != nil {
		return nil, fmt.Errorf("declare a job: %w", err)
	}
	return j, w.put(ctx, j.Key(w.cfg.Cluster), objstore.Bytes(body))
}

// Finish removes the record of a job whose outputs are listed, or given up for good. Until then the collector spares
// them; a record that a crash leaves behind costs no more than that.
func (w *Worker) Finish(ctx context.Context, j *manifest.Job) error {
	key := j.Key(w.cfg.Cluster)
	if err := w.cfg.Store.Delete(objstore.WithPurpose(ctx, objstore.PurposeRollup), []string{key}); err != nil {
		return fmt.Errorf("finish job %s: %w", j.ULID, err)
	}
	return nil
}
