// Package process runs child processes that do not outlive their parent.
//
// A child gets a process group of its own, so that a terminal's Ctrl-C reaches
// only the parent, which then stops its children in order. On Linux the kernel
// signals the child when the parent dies, however it dies. Elsewhere a parent
// that is killed leaves its children running.
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

// Spec says what to run.
type Spec struct {
	Path   string   // of the executable
	Args   []string // without the executable's name
	Env    []string // nil: the parent's
	Dir    string   // empty: the parent's
	Stdout io.Writer
	Stderr io.Writer
	// Credential is the user to run as; nil: the parent's. Only root may
	// set it.
	Credential *syscall.Credential
	// DeathSignal is what the kernel sends when the parent dies; zero:
	// SIGKILL. A program with workers of its own needs one that it hands
	// on to them.
	DeathSignal syscall.Signal
}

// Process is a running or finished child.
type Process struct {
	cmd  *exec.Cmd
	done chan struct{}
	err  error // of Wait; set before done is closed
}

// Start starts the child. Every started child must be ended by Stop or Kill,
// or be seen to end through Done.
func Start(spec Spec) (*Process, error) {
	cmd := exec.Command(spec.Path, spec.Args...)
	cmd.Env, cmd.Dir = spec.Env, spec.Dir
	cmd.Stdout, cmd.Stderr = spec.Stdout, spec.Stderr
	// A grandchild that inherited the output pipe must not keep Wait from
	// returning.
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

// Done is closed once the child has ended and its output was read.
func (p *Process) Done() <-chan struct{} { return p.done }

// Err returns how the child ended: nil for exit status 0, else an
// *exec.ExitError. It may only be called after Done is closed.
func (p *Process) Err() error { return p.err }

// Running tells whether the child has not ended yet.
func (p *Process) Running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// Signal sends sig to the child. It is not an error when the child has ended.
func (p *Process) Signal(sig syscall.Signal) error {
	err := p.cmd.Process.Signal(sig)
	if err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("fleetcall: signalling process %d: %w", p.Pid(), err)
	}
	return nil
}

// Kill ends the child's process group with SIGKILL and waits for the child.
func (p *Process) Kill() {
	if p.Running() {
		// The group still exists while its leader was not waited for.
		if err := syscall.Kill(-p.Pid(), syscall.SIGKILL); err != nil {
			_ = p.cmd.Process.Kill()
		}
	}
	<-p.done
}

// Stop sends sig, waits up to grace for the child to end, and kills it when it
// has not. It reports whether the child ended by itself.
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
