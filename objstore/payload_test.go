package objstore_test

import (
	"bytes"
	"io"
	"testing"
	"testing/iotest"

	"github.com/tierlog/tierlog/objstore"
)

func TestPartsReader(t *testing.T) {
	parts := [][]byte{nil, []byte("one"), {}, []byte("two, three"), []byte("."), {}}
	want := []byte("onetwo, three.")
	body := objstore.Bytes(parts...).WithCRC32C(7)
	if sum, known := body.CRC32C(); body.Size() != int64(len(want)) || sum != 7 || !known {
		t.Errorf("size %d, crc %d %v", body.Size(), sum, known)
	}
	if err := iotest.TestReader(body.Reader(), want); err != nil {
		t.Error(err)
	}
	for off := range int64(len(want)) + 3 {
		r := body.Reader()
		if pos, err := r.Seek(off, io.SeekStart); pos != off || err != nil {
			t.Fatalf("seek to %d: %d, %v", off, pos, err)
		}
		var b bytes.Buffer
		n, err := r.(io.WriterTo).WriteTo(&b)
		if rest := want[min(off, int64(len(want))):]; err != nil || n != int64(len(rest)) || !bytes.Equal(b.Bytes(), rest) {
			t.Errorf("from %d: wrote %q, %d, %v", off, b.Bytes(), n, err)
		}
		if pos, err := r.Seek(0, io.SeekCurrent); err != nil || pos != max(off, int64(len(want))) {
			t.Errorf("position after writing is %d, %v", pos, err)
		}
	}
	if !bytes.Equal(bytes.Join(parts, nil), want) {
		t.Error("reading changed the parts")
	}
	if _, err := body.Reader().Seek(-1, io.SeekStart); err == nil {
		t.Error("seek before the start passed")
	}
}
