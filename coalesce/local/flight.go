package local

import (
	"context"
	"runtime"
	"sync"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/internal/detached"
	"github.com/fleetcall/fleetcall/coalesce/internal/errtree"
	"github.com/fleetcall/fleetcall/coalesce/internal/lost"
)

// shard fills one cache line, so that two cores that work on two keys do not
// share one.
type shard[K comparable, V any] struct {
	mu      sync.Mutex
	flights table[K, V]

	requests, followers, errors uint64
	active, waiting             int32
}

type flight[K comparable, V any] struct {
	key  K
	hash uint64
	next *flight[K, V] // in the table's chain; guarded by the shard's mu
	// ctx is what the function runs under. It is nil when the leader cannot
	// leave. It needs no guard: only the last caller to leave reads it, which
	// is the leader itself or leaves after the leader has.
	ctx *detached.Context

	// goRun is what a goroutine runs for a caller that can leave. It is made
	// once, however often the flight is used again.
	goRun func()
	fn    func(context.Context) (V, error)
	shard *shard[K, V]

	run *run[K, V] // of a batch's function; nil for a flight of its own

	// Guarded by the shard's mu.
	done     chan struct{} // closed at the end; made by the first caller that must wait
	batches  *follow[K, V] // those that follow, and what OnEnd was given
	waiters  int32         // callers that have not left
	followed bool          // somebody has joined
	finished bool

	// Written before finished is set and done is closed, read only after.
	exited    bool // by runtime.Goexit
	abandoned bool // its followers must join anew
	val       V
	err       error
	panicked  *coalesce.PanicError
}

// join makes the caller a follower of key's flight, or the leader of a new one
// that it must run. Only a follower gets the flight's done channel.
func (g *Group[K, V]) join(s *shard[K, V], key K, hash uint64) (f *flight[K, V], done <-chan struct{}) {
	s.mu.Lock()
	s.requests++
	s.waiting++
	if f = s.flights.find(key, hash); f != nil {
		s.followers++
		f.waiters++
		f.followed = true
		if f.done == nil {
			f.done = make(chan struct{})
		}
		done = f.done
		s.mu.Unlock()
		return f, done
	}
	f, _ = g.spare.Get().(*flight[K, V])
	if f == nil {
		f = new(flight[K, V])
	}
	f.key, f.hash, f.waiters = key, hash, 1
	s.flights.insert(f)
	s.active++
	s.mu.Unlock()
	return f, nil
}

// run calls fn and ends f with its result. When inline is true, it runs on the
// leader's own stack, which a panic or Goexit goes on to unwind.
func (s *shard[K, V]) run(ctx context.Context, f *flight[K, V], fn func(context.Context) (V, error), inline bool) {
	var val V
	var err error
	returned := false
	defer func() {
		if !returned {
			err = lost.Error(recover())
		}
		s.finish(f, val, err, returned).Tell()
		if panicked, ok := err.(*coalesce.PanicError); inline && !returned && ok {
			panic(panicked)
		}
	}()
	val, err = fn(ctx)
	returned = true
}

// start has a goroutine call fn, for callers that can leave.
func (f *flight[K, V]) start(s *shard[K, V], ctx *detached.Context, fn func(context.Context) (V, error)) {
	f.ctx, f.fn, f.shard = ctx, fn, s
	if f.goRun == nil {
		f.goRun = func() {
			fn := f.fn
			f.fn = nil
			f.shard.run(f.ctx, f, fn, false)
		}
	}
	go f.goRun()
}

// finish ends f, unless it has ended. After it, f is its leader's, who may
// recycle it. When a function did not return err, err says whether there was a
// panic or a Goexit.
func (s *shard[K, V]) finish(f *flight[K, V], val V, err error, returned bool) Ended {
	s.mu.Lock()
	if f.finished {
		s.mu.Unlock()
		return Ended{}
	}
	s.flights.remove(f)
	abandoned := false
	if returned && err != nil && f.followed {
		// Nobody can join any more, so that followed is final. The error's
		// methods are the user's, and may call this Group: they must not be
		// called under its lock.
		s.mu.Unlock()
		abandoned = f.abandonedBy(err)
		s.mu.Lock()
		if f.finished { // by another End meanwhile
			s.mu.Unlock()
			return Ended{}
		}
	}
	s.active--
	s.waiting -= f.waiters
	if err != nil {
		s.errors++
		if !returned {
			f.panicked, _ = err.(*coalesce.PanicError)
			f.exited = err == coalesce.ErrGoexit
		}
	}
	f.val, f.err, f.abandoned = val, err, abandoned
	f.finished = true
	ended := Ended{Callers: int(f.waiters), done: f.done, ctx: f.ctx}
	if f.batches != nil {
		ended.batches = f.batches
	}
	s.mu.Unlock()
	return ended
}

// abandonedBy says whether a function that returns err has abandoned f: it
// reports a cancellation that is not f's own.
func (f *flight[K, V]) abandonedBy(err error) bool {
	if f.ctx == nil {
		return errtree.Is(err, context.Canceled)
	}
	return detached.Abandoned(err, f.ctx)
}

// unwind does to the stack of a caller of the finished f what fn did to its own.
func (f *flight[K, V]) unwind() {
	if f.panicked != nil {
		panic(f.panicked)
	}
	if f.exited {
		// The stack of a leader that ran fn itself is being unwound already,
		// unless GODEBUG=panicnil=1 let recover stop a panic(nil), which
		// cannot be told from Goexit.
		runtime.Goexit()
	}
}

// recycle lets a finished flight be used again when nobody but its leader, which
// calls it, can hold it.
func (g *Group[K, V]) recycle(f *flight[K, V]) {
	if !f.followed {
		*f = flight[K, V]{goRun: f.goRun}
		g.spare.Put(f)
	}
}

// wait returns nil when f has ended, or the context's error when the caller
// has left it. A leader has no done channel yet: it makes one if f still runs.
func (s *shard[K, V]) wait(ctx context.Context, f *flight[K, V], done <-chan struct{}) error {
	if done == nil {
		s.mu.Lock()
		if f.finished {
			s.mu.Unlock()
			return nil
		}
		if f.done == nil {
			f.done = make(chan struct{})
		}
		done = f.done
		s.mu.Unlock()
	}

	left := ctx.Done()
	if left == nil {
		<-done
		return nil
	}
	select {
	case <-done:
		return nil
	case <-left:
	}

	s.mu.Lock()
	if f.finished {
		s.mu.Unlock()
		return nil
	}
	last := s.leave(f)
	s.mu.Unlock()
	if last {
		f.cancel()
	}
	return ctx.Err()
}

// leave says that a caller has left f, which has not ended. It returns true when that was
// the last one: then f is gone, and is to be cancelled once mu, which the caller holds, is
// released.
func (s *shard[K, V]) leave(f *flight[K, V]) (last bool) {
	f.waiters--
	s.waiting--
	if f.waiters > 0 {
		return false
	}
	s.flights.remove(f)
	return true
}

// cancel ends the context of the function, unless that runs for other flights too that
// somebody waits for.
func (f *flight[K, V]) cancel() {
	if f.run == nil || f.run.waited.Add(-1) == 0 {
		f.ctx.End(context.Canceled)
	}
}
