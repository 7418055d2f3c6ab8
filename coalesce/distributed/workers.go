package distributed

import (
	"sync"
	"time"
)

const (
	// mostIdle is how many workers are kept, and idleWorker for how long none of
	// them may have been wanted before some are let go.
	mostIdle   = 64
	idleWorker = 2 * time.Second
)

// workers are goroutines that are kept for the next flight: the Redis client's
// calls are deep, and each fresh goroutine would have to grow its stack anew.
type workers struct {
	mu     sync.Mutex
	idle   []chan func() // those that wait, last one in first out
	spare  int           // fewest that waited since the last sweep
	sweep  *time.Timer   // nil when nobody waits
	closed bool
}

// run runs f on a goroutine that is not the caller's.
func (w *workers) run(f func()) {
	w.mu.Lock()
	last := len(w.idle) - 1
	if last < 0 {
		w.mu.Unlock()
		go w.work(f)
		return
	}
	next := w.idle[last]
	w.idle = w.idle[:last]
	w.spare = min(w.spare, last)
	w.mu.Unlock()
	next <- f
}

func (w *workers) work(f func()) {
	next := make(chan func(), 1)
	for ok := true; ok; {
		f()
		f = nil // what it holds is not kept
		if !w.rest(next) {
			return
		}
		f, ok = <-next
	}
}

// rest says whether there will be something on next, or its end.
func (w *workers) rest(next chan func()) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed || len(w.idle) == mostIdle {
		return false
	}
	w.idle = append(w.idle, next)
	if w.sweep == nil {
		w.spare = 0
		w.sweep = time.AfterFunc(idleWorker, w.letGo)
	}
	return true
}

// letGo ends the workers that were not wanted since the last time.
func (w *workers) letGo() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return
	}
	for _, next := range w.idle[:w.spare] {
		close(next)
	}
	w.idle = append(w.idle[:0], w.idle[w.spare:]...)
	w.spare = len(w.idle)
	if w.spare > 0 {
		w.sweep.Reset(idleWorker)
	} else {
		w.sweep = nil
	}
}

// close ends those that wait, and the others once they have run.
func (w *workers) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
	if w.sweep != nil {
		w.sweep.Stop()
	}
	for _, next := range w.idle {
		close(next)
	}
	w.idle = nil
}
