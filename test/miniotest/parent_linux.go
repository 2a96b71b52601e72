package miniotest

import (
	"os/exec"
	"runtime"
	"syscall"
)

// dieWithParent makes the kernel end the process when this one dies without a clean-up, by a time-out for instance.
// The kernel means the thread that starts it, so the caller must keep its thread until the process has ended.
func dieWithParent(cmd *exec.Cmd) (unlock func()) {
	runtime.LockOSThread()
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return runtime.UnlockOSThread
}
