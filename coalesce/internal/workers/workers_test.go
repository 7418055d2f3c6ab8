package workers

import (
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// busy has n workers at once, and then none.
func busy(w *Pool, n int) {
	var started, all sync.WaitGroup
	started.Add(n)
	release := make(chan struct{})
	for range n {
		all.Add(1)
		w.Run(func() {
			started.Done()
			<-release
			all.Done()
		})
	}
	started.Wait()
	close(release)
	all.Wait()
}

func TestWorkersAreUsedAgainBoundedAndTrimmed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var w Pool
		idle := func() int {
			synctest.Wait()
			w.mu.Lock()
			defer w.mu.Unlock()
			return len(w.idle)
		}
		busy(&w, 10*maxIdle)
		if n := idle(); n != maxIdle {
			t.Errorf("%d workers are kept, not %d", n, maxIdle)
		}
		// Ten are wanted all the time, whatever becomes of the others.
		for range 30 {
			busy(&w, 10)
			synctest.Wait()
			time.Sleep(idleTime / 10)
		}
		if n := idle(); n < 10 || n > 20 {
			t.Errorf("%d workers are kept where 10 are wanted", n)
		}
		time.Sleep(3 * idleTime)
		if n := idle(); n != 0 {
			t.Errorf("%d workers are kept that nobody wants", n)
		}
		busy(&w, 3) // it starts again
		w.Close()
		if n := idle(); n != 0 {
			t.Errorf("%d workers are kept after the end", n)
		}
		busy(&w, 3) // what comes late runs, and its goroutine is not kept
	})
}

func TestAWorkerWhoseFunctionExitsIsReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var w Pool
		defer w.Close()
		for range 3 {
			done := make(chan struct{})
			w.Run(func() {
				defer close(done)
				runtime.Goexit()
			})
			<-done
		}
		busy(&w, 1)
	})
}
