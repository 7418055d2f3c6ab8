package distributed

import (
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// busy has n workers at once, and then none.
func busy(w *workers, n int) {
	var started, all sync.WaitGroup
	started.Add(n)
	release := make(chan struct{})
	for range n {
		all.Add(1)
		w.run(func() {
			started.Done()
			<-release
			all.Done()
		})
	}
	started.Wait()
	close(release)
	all.Wait()
}

func TestWorkersAreUsedAgainBoundedAndLetGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var w workers
		idle := func() int {
			synctest.Wait()
			w.mu.Lock()
			defer w.mu.Unlock()
			return len(w.idle)
		}
		busy(&w, 10*mostIdle)
		if n := idle(); n != mostIdle {
			t.Errorf("%d workers are kept, not %d", n, mostIdle)
		}
		// Ten are wanted all the time, whatever becomes of the others.
		for range 30 {
			busy(&w, 10)
			synctest.Wait()
			time.Sleep(idleWorker / 10)
		}
		if n := idle(); n < 10 || n > 20 {
			t.Errorf("%d workers are kept where 10 are wanted", n)
		}
		time.Sleep(3 * idleWorker)
		if n := idle(); n != 0 {
			t.Errorf("%d workers are kept that nobody wants", n)
		}
		busy(&w, 3) // it starts again
		w.close()
		if n := idle(); n != 0 {
			t.Errorf("%d workers are kept after the end", n)
		}
		busy(&w, 3) // who comes late is served, and not kept
	})
}

func TestAWorkerWhoseFunctionExitsIsReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var w workers
		defer w.close()
		for range 3 {
			done := make(chan struct{})
			w.run(func() {
				defer close(done)
				runtime.Goexit()
			})
			<-done
		}
		busy(&w, 1)
	})
}
