//go:build unix

package fleet

import "syscall"

// Freeze suspends the process with SIGSTOP.
func (r *Replica) Freeze() error { return r.proc.Freeze() }

// Thaw resumes a process that Freeze suspended.
func (r *Replica) Thaw() error { return r.proc.Signal(syscall.SIGCONT) }
