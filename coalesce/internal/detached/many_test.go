package detached

import (
	"context"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// TestManyDerivedContextsEndQuickly ends them in the order that is hardest for a
// list: with one, it takes far longer than with package context.
func TestManyDerivedContextsEndQuickly(t *testing.T) {
	ending := func(c context.Context) time.Duration {
		cancels := make([]context.CancelFunc, 50_000)
		for i := range cancels {
			_, cancels[i] = context.WithCancel(c)
		}
		began := time.Now()
		for i := range cancels {
			cancels[len(cancels)-1-i]()
		}
		return time.Since(began)
	}
	theirs, end := context.WithCancel(context.Background())
	defer end()
	want := ending(theirs)
	if took := ending(&Context{First: context.Background()}); took > 10*max(want, 10*time.Millisecond) {
		t.Errorf("they took %v to end, and %v with package context", took, want)
	}
}

func TestEachFunctionIsCalledOrStopped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &Context{First: context.Background()}
		const n = 100
		var called [n]atomic.Int32
		var stops [n]func() bool
		for i := range n {
			stops[i] = c.AfterFunc(func() { called[i].Add(1) })
		}
		stopped := map[int]bool{}
		for _, i := range rand.Perm(n)[:n/2] {
			stopped[i] = true
			if !stops[i]() || stops[i]() {
				t.Errorf("%d: stop is to say true once", i)
			}
		}
		c.End(context.Canceled)
		synctest.Wait()
		for i := range n {
			if called[i].Load() == 1 == stopped[i] || stops[i]() {
				t.Errorf("%d: called %d times, stopped: %v", i, called[i].Load(), stopped[i])
			}
		}
	})
}
