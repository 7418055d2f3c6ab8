package fleet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/fleetcall/fleetcall/internal/loopback"
	"github.com/fleetcall/fleetcall/internal/process"
)

// Replica is one replica of a fleet: a process that runs fleetcall serve.
type Replica struct {
	// ID is the name of the replica, which its responses carry in X-Replica.
	ID string
	// URL is the base URL of the replica itself, without a slash at its end. Requests
	// to it bypass the balancer.
	URL string

	number    int // position in the order of starting, from 1
	addr      string
	proc      *process.Process
	ending    atomic.Bool // Stop or Kill was called
	stopGrace time.Duration
}

// Stop sends SIGTERM and returns when the process has ended. It returns an error if the
// process had to be killed or did not exit with status 0.
func (r *Replica) Stop() error {
	r.ending.Store(true)
	if !r.proc.Stop(syscall.SIGTERM, r.stopGrace) {
		return fmt.Errorf("fleetcall: stopping replica %s: it was killed because it still ran %v after SIGTERM", r.ID, r.stopGrace)
	}
	if err := r.proc.Err(); err != nil {
		return fmt.Errorf("fleetcall: stopping replica %s: %w", r.ID, err)
	}
	return nil
}

// Kill ends the process with SIGKILL and returns when it is gone.
func (r *Replica) Kill() {
	r.ending.Store(true)
	r.proc.Kill()
}

// Pid returns the process id.
func (r *Replica) Pid() int { return r.proc.Pid() }

// Use sets the program that replicas are started from, from now on: with one of
// another version, adding and restarting replicas is a rolling upgrade.
func (f *Fleet) Use(binary string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.binary = binary
}

var errPortTaken = errors.New("another process took its port")

func (f *Fleet) startReplica(ctx context.Context) (*Replica, error) {
	f.mu.Lock()
	if f.closed {
		f.mu.Unlock()
		return nil, errors.New("fleetcall: starting a replica: the fleet is closed")
	}
	f.started++
	number := f.started
	f.mu.Unlock()
	return f.launch(ctx, number)
}

// launch starts the replica with a number. It tries again if another process takes the
// port that was chosen.
func (f *Fleet) launch(ctx context.Context, number int) (*Replica, error) {
	id := "replica-" + strconv.Itoa(number)
	var r *Replica
	var err error
	for range 5 {
		if r, err = f.tryReplica(ctx, id); !errors.Is(err, errPortTaken) {
			break
		}
	}
	if err != nil {
		return nil, fmt.Errorf("fleetcall: starting %s: %w", id, err)
	}
	r.number = number
	f.mu.Lock()
	f.replicas = append(f.replicas, r)
	slices.SortFunc(f.replicas, func(a, b *Replica) int { return a.number - b.number })
	closed := f.closed
	f.mu.Unlock()
	if closed {
		r.Kill()
		return nil, errors.New("fleetcall: starting a replica: the fleet is closed")
	}
	go f.watch(r)
	return r, nil
}

func (f *Fleet) watch(r *Replica) {
	<-r.proc.Done()
	if r.ending.Load() {
		return
	}
	how := "with exit status 0"
	if err := r.proc.Err(); err != nil {
		how = err.Error()
	}
	f.report(fmt.Sprintf("%s (process %d) ended by itself: %s", r.ID, r.Pid(), how))
}

func (f *Fleet) tryReplica(ctx context.Context, id string) (*Replica, error) {
	port, err := loopback.FreePort()
	if err != nil {
		return nil, err
	}
	addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	f.mu.Lock()
	binary := f.binary
	f.mu.Unlock()
	output := &tail{w: f.logs.named(id)}
	proc, err := process.Start(process.Spec{
		Path: binary, Args: []string{"serve"}, Env: f.environment(id, addr), Stdout: output, Stderr: output,
	})
	if err != nil {
		return nil, err
	}
	r := &Replica{ID: id, URL: "http://" + addr, addr: addr, proc: proc, stopGrace: f.config.StopGrace}
	if err := f.waitReady(ctx, r); err != nil {
		proc.Kill()
		if strings.Contains(output.String(), "address already in use") {
			return nil, errPortTaken
		}
		return nil, fmt.Errorf("%w; its last lines:\n%s", err, output.String())
	}
	return r, nil
}

func (f *Fleet) waitReady(ctx context.Context, r *Replica) error {
	ctx, cancel := context.WithTimeout(ctx, f.config.StartTimeout)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := f.ready(ctx, r)
		if err == nil {
			return nil
		}
		select {
		case <-r.proc.Done():
			return fmt.Errorf("it ended before it was ready: %w", errors.Join(r.proc.Err(), err))
		case <-ctx.Done():
			return fmt.Errorf("it is not ready: %w", err)
		case <-tick.C:
		}
	}
}

// ready asks /readyz, or /health if there is no /readyz. It also checks the replica's
// name, because another process might have taken the port.
func (f *Fleet) ready(ctx context.Context, r *Replica) error {
	status, _, err := f.get(ctx, r.URL+"/readyz")
	if err != nil {
		return err
	}
	if status != http.StatusOK && status != http.StatusNotFound {
		return fmt.Errorf("/readyz answers %d", status)
	}
	ready := status == http.StatusOK
	status, body, err := f.get(ctx, r.URL+"/health")
	if err != nil {
		return err
	}
	if !ready && status != http.StatusOK {
		return fmt.Errorf("/health answers %d", status)
	}
	var health struct {
		Replica string `json:"replica"`
	}
	if err := json.Unmarshal(body, &health); err != nil {
		return fmt.Errorf("/health: %w", err)
	}
	if health.Replica != r.ID {
		return fmt.Errorf("/health is answered by replica %q", health.Replica)
	}
	return nil
}

func (f *Fleet) get(ctx context.Context, url string) (int, []byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, nil, err
	}
	resp, err := f.client.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	return resp.StatusCode, body, err
}
