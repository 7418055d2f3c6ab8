//go:build unix

package process

import (
	"os"
	"syscall"
)

func (c *Credential) system() *syscall.Credential {
	if c == nil {
		return nil
	}
	return &syscall.Credential{Uid: c.Uid, Gid: c.Gid}
}

func signal(p *os.Process, sig syscall.Signal) error { return p.Signal(sig) }

// killGroup kills the process group that a child of this package leads.
func killGroup(pid int) error { return syscall.Kill(-pid, syscall.SIGKILL) }

// OpenFiles returns how many files this process may have open, and how many it may allow
// itself. It is not known everywhere.
func OpenFiles() (soft, hard uint64, known bool) {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 0, 0, false
	}
	return uint64(limit.Cur), uint64(limit.Max), true
}
