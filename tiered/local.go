package tiered

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"

	"github.com/tierlog/tierlog/membuf"
	"github.com/tierlog/tierlog/record"
	"github.com/tierlog/tierlog/tiered/logid"
)

// localFiles keep the batches of acks=1 produce requests on the local disk until their WAL objects are durable, so
// that a process that dies and comes back with its disk can finish writing them. A frame in a file is
//
//	length of the batch  uint32
//	CRC-32C              uint32 of what follows up to the batch, and of the batch's first 21 bytes
//	topic id             16 bytes
//	partition            int32
//	the batch            its own CRC covers the rest
//
// Frames are written in the order of append, without fsync, as Kafka does: acks=1 survives the process, not the power.
type localFiles struct {
	dir string
	log *slog.Logger
	// settle makes a commit wait for the bucket, when the local disk does not take its batch.
	settle func(localBatch)

	mu      sync.Mutex
	queue   []localBatch // not yet written; owned by mu
	file    uint64       // number of the file that new batches go to; owned by mu
	size    int64        // bytes appended to it; owned by mu
	end     uint64       // files below it are not needed any more; owned by mu
	closed  bool         // owned by mu
	kick    chan struct{}
	stopped chan struct{}
}

// localBatch holds a reference to buf until it is written.
type localBatch struct {
	id     logid.Partition
	batch  record.Batch
	buf    *membuf.Buf
	commit *Commit
	file   uint64
}

const (
	localHeader = 28
	// localFileSize is when a new local file is begun. Small ones are reused across flushes: creating files costs more.
	localFileSize = 4 << 20
)

func openLocal(dir string, log *slog.Logger, settle func(localBatch)) (*localFiles, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("data dir: %w", err)
	}
	f := &localFiles{dir: dir, log: log, settle: settle, kick: make(chan struct{}, 1), stopped: make(chan struct{})}
	go f.run()
	return f, nil
}

// append takes over one reference to b.buf. The commit is finished when the file has the batch.
func (f *localFiles) append(b localBatch) {
	f.mu.Lock()
	b.file = f.file
	f.size += int64(len(b.batch))
	f.queue = append(f.queue, b)
	first := len(f.queue) == 1
	f.mu.Unlock()
	if first {
		f.wake()
	}
}

func (f *localFiles) wake() {
	select {
	case f.kick <- struct{}{}:
	default:
	}
}

// rotate is called before a seal: files below the returned number hold nothing that was appended later.
func (f *localFiles) rotate() uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.size >= localFileSize {
		f.file++
		f.size = 0
	}
	return f.file
}

// durable says that everything in files below end is in the bucket.
func (f *localFiles) durable(end uint64) {
	f.mu.Lock()
	more := end > f.end
	f.end = max(f.end, end)
	f.mu.Unlock()
	if more {
		f.wake()
	}
}

// close ends the writer. discard says that nothing in the files is needed any more.
func (f *localFiles) close(discard bool) error {
	f.mu.Lock()
	f.closed = true
	f.mu.Unlock()
	f.wake()
	<-f.stopped
	if !discard {
		return nil
	}
	return os.RemoveAll(f.dir)
}

func (f *localFiles) path(n uint64) string { return filepath.Join(f.dir, fmt.Sprintf("%020d.hot", n)) }

// run writes what is queued, group by group, and removes files that are no longer needed.
func (f *localFiles) run() {
	defer close(f.stopped)
	w := localWriter{f: f}
	defer w.closeFile()
	removed := uint64(0)
	for range f.kick {
		f.mu.Lock()
		queue, end, closed := f.queue, f.end, f.closed
		f.queue = nil
		f.mu.Unlock()
		w.writeAll(queue, end)
		for ; removed < end; removed++ {
			if w.file != nil && w.num == removed {
				w.closeFile()
			}
			if err := os.Remove(f.path(removed)); err != nil && !errors.Is(err, os.ErrNotExist) {
				f.log.Warn("cannot remove a local file", slog.Any("err", err))
			}
		}
		if closed {
			return
		}
	}
}

// localWriter is the state of the goroutine that writes.
type localWriter struct {
	f      *localFiles
	file   *os.File
	num    uint64 // of the file that was written to last
	size   int64  // of the good part of file num
	broken bool   // the last write failed: said once
	iov    net.Buffers
	heads  []byte
}

func (w *localWriter) closeFile() {
	if w.file != nil {
		_ = w.file.Close()
		w.file = nil
	}
}

func (w *localWriter) writeAll(queue []localBatch, end uint64) {
	for len(queue) > 0 {
		n := 1
		for n < len(queue) && queue[n].file == queue[0].file && n < 256 {
			n++
		}
		group := queue[:n]
		queue = queue[n:]
		var err error
		if group[0].file >= end {
			err = w.write(group)
		}
		w.report(err)
		for i := range group {
			if err != nil {
				w.f.settle(group[i])
			} else {
				group[i].commit.finish(nil)
			}
			group[i].buf.Release()
		}
	}
}

func (w *localWriter) report(err error) {
	if (err != nil) == w.broken {
		return
	}
	w.broken = err != nil
	if err != nil {
		w.f.log.Error("cannot write the local file of the hot segment: acks=1 waits for the bucket until it can", slog.Any("err", err))
	} else {
		w.f.log.Info("the local file of the hot segment can be written again")
	}
}

// write appends one group to its file with vectored writes.
func (w *localWriter) write(group []localBatch) error {
	if err := w.open(group[0].file); err != nil {
		return err
	}
	w.iov, w.heads = w.iov[:0], w.heads[:0]
	if need := len(group) * localHeader; cap(w.heads) < need {
		w.heads = make([]byte, 0, need)
	}
	total := int64(0)
	for i := range group {
		at := len(w.heads)
		w.heads = appendLocalHeader(w.heads, &group[i])
		w.iov = append(w.iov, w.heads[at:], group[i].batch)
		total += localHeader + int64(len(group[i].batch))
	}
	if err := writeVector(w.file, w.iov); err != nil {
		// Cut what was written of the group, so that later frames are found.
		if rerr := w.rewind(); rerr != nil {
			w.closeFile() // open repairs it
		}
		return err
	}
	w.size += total
	return nil
}

// open makes a file the one that is written to. One that was closed after a failed write keeps its good part.
func (w *localWriter) open(num uint64) error {
	if w.file != nil && w.num == num {
		return nil
	}
	w.closeFile()
	if w.num != num {
		w.num, w.size = num, 0
	}
	file, err := os.OpenFile(w.f.path(num), os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	w.file = file
	if err := w.rewind(); err != nil {
		w.closeFile()
		return err
	}
	return nil
}

// rewind cuts the file behind its good part.
func (w *localWriter) rewind() error {
	if err := w.file.Truncate(w.size); err != nil {
		return err
	}
	_, err := w.file.Seek(w.size, io.SeekStart)
	return err
}

func appendLocalHeader(dst []byte, b *localBatch) []byte {
	be := binary.BigEndian
	dst = be.AppendUint32(dst, uint32(len(b.batch)))
	at := len(dst)
	dst = append(dst, 0, 0, 0, 0)
	dst = append(dst, b.id.Topic[:]...)
	dst = be.AppendUint32(dst, uint32(b.id.Index))
	sum := crc32.Update(crc32.Checksum(dst[at+4:], record.Castagnoli), record.Castagnoli, b.batch[:21])
	be.PutUint32(dst[at:], sum)
	return dst
}

// readLocal returns the batches of all files in dir, in the order they were appended, up to the first damaged frame
// of each file. Frames are slices of the files' contents.
func readLocal(dir string) ([]localBatch, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("data dir: %w", err)
	}
	var out []localBatch
	for _, e := range entries { // sorted by name, which has fixed width
		if !strings.HasSuffix(e.Name(), ".hot") {
			continue
		}
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			return nil, fmt.Errorf("data dir: %w", err)
		}
		out = append(out, parseLocal(b)...)
	}
	return out, nil
}

func parseLocal(b []byte) []localBatch {
	var out []localBatch
	be := binary.BigEndian
	for len(b) >= localHeader+record.HeaderSize {
		n := int64(be.Uint32(b))
		if n < record.HeaderSize || n > int64(len(b)-localHeader) {
			break
		}
		batch := record.Batch(b[localHeader : localHeader+n : localHeader+n])
		sum := crc32.Update(crc32.Checksum(b[8:localHeader], record.Castagnoli), record.Castagnoli, batch[:21])
		if sum != be.Uint32(b[4:]) || int64(batch.Size()) != n || batch.VerifyCRC() != nil {
			break
		}
		id := logid.Partition{Topic: logid.TopicID(b[8:24]), Index: int32(be.Uint32(b[24:]))}
		out = append(out, localBatch{id: id, batch: batch})
		b = b[localHeader+n:]
	}
	return slices.Clip(out)
}

// lockDir takes an exclusive lock on the data dir: two brokers must not share it.
func lockDir(dir string) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("data dir: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("data dir: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("data dir %s is used by another running broker: give each its own --data-dir", dir)
	}
	return f, nil
}
