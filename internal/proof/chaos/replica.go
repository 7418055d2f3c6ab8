package chaos

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/fleetcall/fleetcall/internal/process"
	"github.com/fleetcall/fleetcall/internal/rig/netrig"
)

// place is where one replica of the fleet runs, in one process after another.
type place struct {
	number   int
	config   workerConfig // of every process there, but its name
	host     *netrig.Host
	program  string   // that it runs; "": this one
	old      string   // the same of the release before; "": there is none
	isOld    bool     // that is what it runs
	env      []string // what its environment has beside this process'
	commands proxy
	messages proxy

	mu      sync.Mutex
	started int // processes so far
	proc    *process.Process
	name    string
	output  *output
	ending  bool // the process' end was asked for
}

// start starts a new process, and returns when it takes calls.
func (p *place) start() error {
	path, err := os.Executable()
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.isOld:
		path = p.old
	case p.program != "":
		path = p.program
	}
	p.started++
	config := p.config
	config.Process = fmt.Sprintf("r%d.%d", p.number, p.started)
	text, err := json.Marshal(config)
	if err != nil {
		return err
	}
	p.output = &output{ready: make(chan struct{})}
	path, args, err := p.host.Command(path)
	if err != nil {
		return err
	}
	p.proc, err = process.Start(process.Spec{
		Path: path, Args: args, Env: slices.Concat(os.Environ(), p.env, []string{workerVariable + "=" + string(text)}), Stdout: p.output, Stderr: p.output,
	})
	if err != nil {
		return err
	}
	p.name, p.ending = config.Process, false
	select {
	case <-p.output.ready:
		return nil
	case <-p.proc.Done():
		return fmt.Errorf("chaos: replica %s did not start: %w\n%s", p.name, p.proc.Err(), p.output)
	case <-time.After(startLimit):
		p.proc.Kill()
		return fmt.Errorf("chaos: replica %s did not start within %v\n%s", p.name, startLimit, p.output)
	}
}

// update has the next process be of the other release, if there is one.
func (p *place) update() { p.isOld = !p.isOld && p.old != "" }

const (
	startLimit = 30 * time.Second
	// stopLimit is what a replica may take to end after SIGTERM, on a machine
	// that has much else to do.
	stopLimit = 30 * time.Second
)

// present returns the name of the process that runs now.
func (p *place) present() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.name
}

func (p *place) signal(s syscall.Signal) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.proc.Signal(s)
}

func (p *place) kill() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ending = true
	p.proc.Kill()
}

// stop sends SIGTERM. Its error says that the process did not end as it should.
func (p *place) stop() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.proc == nil || p.ending {
		return nil
	}
	p.ending = true
	if !p.proc.Stop(syscall.SIGTERM, stopLimit) {
		return fmt.Errorf("chaos: replica %s still ran %v after SIGTERM\n%s", p.name, stopLimit, p.output)
	}
	if err := p.proc.Err(); err != nil {
		return fmt.Errorf("chaos: replica %s: %w\n%s", p.name, err, p.output)
	}
	return nil
}

// died returns an error when the process ended though nobody asked it to.
func (p *place) died() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ending || p.proc.Running() {
		return nil
	}
	return fmt.Errorf("chaos: replica %s ended by itself: %v\n%s", p.name, p.proc.Err(), p.output)
}

// readyText is the start of the first line that a replica prints, when it takes calls; its
// clock stands after a space, in seconds. Releases before the first print no clock.
const readyText = "ready"

// output keeps the start of what a process prints. ready is closed by the
// first of it.
type output struct {
	ready chan struct{}
	mu    sync.Mutex
	kept  bytes.Buffer
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.kept.Len() == 0 && bytes.HasPrefix(b, []byte(readyText)) {
		close(o.ready)
	}
	const most = 64 << 10
	o.kept.Write(b[:min(len(b), max(0, most-o.kept.Len()))])
	return len(b), nil
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.kept.String()
}
