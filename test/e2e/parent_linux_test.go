package e2e

import (
	"os/exec"
	"syscall"
)

// dieWithParent has the kernel end the process when the thread that starts it ends.
func dieWithParent(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
