package distributed

import (
	"sync"

	"github.com/fleetcall/fleetcall/coalesce"
)

// inflight counts what Close waits for. Unlike a sync.WaitGroup, it can be closed:
// then nothing new begins.
type inflight struct {
	mu     sync.Mutex
	n      int
	closed bool
	closes chan struct{} // closed by close
	idle   chan struct{} // closed when n is 0 after close
}

func newInflight() inflight {
	return inflight{closes: make(chan struct{}), idle: make(chan struct{})}
}

// enter counts one more, until leave is called.
func (i *inflight) enter() error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.closed {
		return coalesce.ErrClosed
	}
	i.n++
	return nil
}

// add is enter for a part of what has entered and has not left.
func (i *inflight) add() {
	i.mu.Lock()
	i.n++
	i.mu.Unlock()
}

func (i *inflight) leave() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.n--
	if i.closed && i.n == 0 {
		close(i.idle)
	}
}

// close lets nothing new begin. It may be called again.
func (i *inflight) close() {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.closed {
		return
	}
	i.closed = true
	close(i.closes)
	if i.n == 0 {
		close(i.idle)
	}
}

func (i *inflight) closing() bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.closed
}
