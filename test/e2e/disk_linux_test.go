package e2e

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
)

// smallDisk makes dir a file system of one megabyte.
func smallDisk(t *testing.T, dir string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o750); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"); err != nil {
		t.Fatalf("a small file system is needed for a full disk, and cannot be mounted: %v (run as root)", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
}

// TestFullDisk fills the disk under the data dir: acks=1 goes on, acknowledged by the bucket, and is all there after
// a crash.
func TestFullDisk(t *testing.T) {
	b := newBroker(t, filepath.Join(t.TempDir(), "bucket"))
	smallDisk(t, b.dir)
	b.start()
	b.createTopic(topic, partitions)
	filler, err := os.Create(filepath.Join(b.dir, "filler"))
	if err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = filler.Write(make([]byte, 4096))
	}
	_ = filler.Close()
	l := startLoad(t, b, 2, 2000, kgo.LeaderAck())
	want := l.finish()
	if len(want) != 4000 {
		t.Errorf("%d records acknowledged, want 4000", len(want))
	}
	b.says("cannot write the local file")
	b.kill()
	if err := os.Remove(filler.Name()); err != nil {
		t.Fatal(err)
	}
	b.start()
	r := startReader(t, b)
	r.until(len(want))
	r.check(t, want, false)
}
