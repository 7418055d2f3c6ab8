package process

import (
	"errors"
	"os"
	"syscall"

	"golang.org/x/sys/windows"
)

// attributes give the child a group of its own, which Ctrl-C does not reach.
func attributes(spec Spec) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{CreationFlags: windows.CREATE_NEW_PROCESS_GROUP}
}

func signal(p *os.Process, sig syscall.Signal) error {
	if sig != syscall.SIGTERM {
		return errors.ErrUnsupported
	}
	return windows.GenerateConsoleCtrlEvent(windows.CTRL_BREAK_EVENT, uint32(p.Pid))
}

// killGroup is not to be had: Windows kills a process at a time.
func killGroup(int) error { return errors.ErrUnsupported }

// OpenFiles is not known: Windows has no such limit.
func OpenFiles() (soft, hard uint64, known bool) { return 0, 0, false }
