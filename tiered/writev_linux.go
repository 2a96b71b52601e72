package tiered

import (
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// maxIovecs is the kernel's bound on the vectors of one call (IOV_MAX).
const maxIovecs = 1024

// writeVector writes all buffers to a file, in few system calls.
func writeVector(f *os.File, bufs [][]byte) error {
	for len(bufs) > 0 {
		n, err := unix.Writev(int(f.Fd()), bufs[:min(len(bufs), maxIovecs)])
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return &os.PathError{Op: "write", Path: f.Name(), Err: err}
		}
		if n == 0 {
			return &os.PathError{Op: "write", Path: f.Name(), Err: io.ErrShortWrite}
		}
		for n > 0 {
			if n < len(bufs[0]) {
				bufs[0] = bufs[0][n:]
				break
			}
			n -= len(bufs[0])
			bufs = bufs[1:]
		}
		for len(bufs) > 0 && len(bufs[0]) == 0 {
			bufs = bufs[1:]
		}
	}
	return nil
}
