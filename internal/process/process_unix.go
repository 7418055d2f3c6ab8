//go:build unix

package process

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"
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

// freezeLimit is how long a child may take to stand still.
const freezeLimit = time.Minute

// Freeze suspends the child with SIGSTOP, and waits until each of its threads stands still:
// the kernel stops all when one of them handles the signal, and on a busy machine the others
// run on until then. Where there is no /proc, Freeze does not wait.
func (p *Process) Freeze() error {
	if err := p.Signal(syscall.SIGSTOP); err != nil {
		return err
	}
	for deadline := time.Now().Add(freezeLimit); p.Running() && !p.stopped(); {
		if time.Now().After(deadline) {
			return fmt.Errorf("fleetcall: process %d runs %v after SIGSTOP", p.Pid(), freezeLimit)
		}
		time.Sleep(time.Millisecond) // a parent that waits for its child's end is told of nothing else
	}
	return nil
}

// stopped says whether no thread of the child is known to run.
func (p *Process) stopped() bool {
	threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", p.Pid())) // the pattern is none that is malformed
	for _, thread := range threads {
		stat, err := os.ReadFile(thread)
		// The state follows the program's name, which is in brackets.
		if err == nil && !bytes.HasPrefix(stat[bytes.LastIndexByte(stat, ')')+1:], []byte(" T")) {
			return false
		}
	}
	return true
}
