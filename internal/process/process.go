// Package process runs child processes that do not outlive their parent.
//
// A child gets its own process group, so that Ctrl-C in a terminal reaches only the
// parent, which then stops its children in order. On Linux, the kernel signals the
// child when the parent dies for any reason. On other systems, a parent that is killed
// leaves its children running. On Windows a child's own children are not killed with it.
package process

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// Spec describes the process to start.
type Spec struct {
	Path   string   // of the executable
	Args   []string // without the executable's name
	Env    []string // nil: the parent's
	Dir    string   // the working directory; empty: the parent's
	Stdout io.Writer
	Stderr io.Writer
	// Credential is the user that the process runs as. If it is nil, that is the
	// parent's user. Only root may set it.
	Credential *Credential
	// DeathSignal is the signal that the kernel sends when the parent dies. Zero stands
	// for SIGKILL. A program that has workers needs a signal on which it stops them.
	DeathSignal syscall.Signal
}

// Credential is a user of the system.
type Credential struct{ Uid, Gid uint32 }

// Process is a child that is running or has ended.
type Process struct {
	cmd  *exec.Cmd
	done chan struct{}
	err  error // returned by Wait; written before done is closed
}

// Start starts the child. The caller must end it with Stop or Kill, or wait for Done.
func Start(spec Spec) (*Process, error) {
	cmd := exec.Command(spec.Path, spec.Args...)
	cmd.Env, cmd.Dir = spec.Env, spec.Dir
	cmd.Stdout, cmd.Stderr = spec.Stdout, spec.Stderr
	// Wait must return even if a grandchild has inherited the pipe for the output and
	// keeps it open.
	cmd.WaitDelay = 2 * time.Second
	if spec.DeathSignal == 0 {
		spec.DeathSignal = syscall.SIGKILL
	}
	cmd.SysProcAttr = attributes(spec)
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("fleetcall: starting %s: %w", filepath.Base(spec.Path), err)
	}
	p := &Process{cmd: cmd, done: make(chan struct{})}
	go func() {
		p.err = cmd.Wait()
		if errors.Is(p.err, exec.ErrWaitDelay) {
			p.err = nil
		}
		close(p.done)
	}()
	return p, nil
}

// Pid returns the child's process id.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// Done is closed when the child has ended and its output has been read.
func (p *Process) Done() <-chan struct{} { return p.done }

// Err returns nil if the child ended with exit status 0, and an *exec.ExitError
// otherwise. Call it only after Done is closed.
func (p *Process) Err() error { return p.err }

// Running reports whether the child has not ended yet.
func (p *Process) Running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// Signal sends sig to the child. It returns no error if the child has ended. Windows knows
// SIGTERM alone, which arrives as Ctrl-Break.
func (p *Process) Signal(sig syscall.Signal) error {
	err := signal(p.cmd.Process, sig)
	if err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("fleetcall: signalling process %d: %w", p.Pid(), err)
	}
	return nil
}

// Kill sends SIGKILL to the child's process group and waits for the child. On Windows it
// ends the child alone.
func (p *Process) Kill() {
	if p.Running() {
		// The group exists at least until Wait has returned for the child.
		if err := killGroup(p.Pid()); err != nil {
			_ = p.cmd.Process.Kill()
		}
	}
	<-p.done
}

// Stop sends sig and waits for the child to end. If it has not ended after grace, Stop
// kills it. It reports whether the child ended without being killed.
func (p *Process) Stop(sig syscall.Signal, grace time.Duration) bool {
	if err := p.Signal(sig); err != nil {
		p.Kill()
		return false
	}
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case <-p.done:
		return true
	case <-timer.C:
		p.Kill()
		return false
	}
}
