package local

import (
	"context"

	"github.com/fleetcall/fleetcall/coalesce/internal/detached"
)

// Joined is a caller's part in a flight whose work is done elsewhere.
type Joined[K comparable, V any] struct {
	s    *shard[K, V]
	f    *flight[K, V]
	done <-chan struct{} // nil: the caller is the leader
}

// Join is Do for work that is done elsewhere, step by step: a follower, of which
// there may be very many, needs no stack for what the leader does. Every caller
// that joins must Wait. A leader must Start the flight before that, and see to it
// that the flight is ended, on any goroutine.
func (g *Group[K, V]) Join(key K) Joined[K, V] {
	s, hash := g.shard(key)
	f, done := g.join(s, key, hash)
	return Joined[K, V]{s, f, done}
}

// Leads says whether the caller must start the flight.
func (j Joined[K, V]) Leads() bool { return j.done == nil }

// Start returns the context that the flight's work runs under. It has the values
// of ctx, and ends when the last caller has left or the flight has ended.
func (j Joined[K, V]) Start(ctx context.Context) context.Context {
	j.f.ctx = &detached.Context{First: ctx}
	return j.f.ctx
}

// End ends the flight, unless it has ended: a caller that comes now starts
// another. When returned is false, err is a *coalesce.PanicError, with which
// every caller panics, or coalesce.ErrGoexit, which exits their goroutines.
func (j Joined[K, V]) End(val V, err error, returned bool) Ended {
	return j.s.finish(j.f, val, err, returned)
}

// Forget is Group.Forget for this flight alone, and not for one that has its key
// since. It may be called at any time.
func (j Joined[K, V]) Forget() {
	j.s.mu.Lock()
	j.s.flights.remove(j.f)
	j.s.mu.Unlock()
}

// Ended is a flight that has ended, and whose callers are still to be told.
type Ended struct {
	Callers int

	done    chan struct{}
	batches interface{ tellAll() } // nil: no batch follows
	ctx     *detached.Context
}

// Tell lets the callers return. With many of them, that takes its time.
func (e Ended) Tell() {
	e.tellFollowers()
	if e.ctx != nil {
		e.ctx.End(context.Canceled)
	}
}

func (e Ended) tellFollowers() {
	if e.done != nil {
		close(e.done)
	}
	if e.batches != nil {
		e.batches.tellAll()
	}
}

// Wait returns the flight's result, which all of its callers share, or nil and
// ctx.Err() when ctx ends first.
func (j Joined[K, V]) Wait(ctx context.Context) (*V, error) {
	val, err := j.Outcome(ctx)
	if val != nil {
		j.Unwind()
	}
	return val, err
}

// Unwind does to the caller's stack what the function did to its own, if that panicked or
// exited. It may be called when Outcome has returned a result.
func (j Joined[K, V]) Unwind() { j.f.unwind() }

// Outcome is Wait for a caller whose stack is not to be unwound, or not yet: of a flight
// that panicked or exited, it returns the *coalesce.PanicError or coalesce.ErrGoexit.
func (j Joined[K, V]) Outcome(ctx context.Context) (*V, error) {
	if j.done != nil && ctx.Done() == nil {
		<-j.done
	} else if err := j.s.wait(ctx, j.f, j.done); err != nil {
		return nil, err
	}
	return &j.f.val, j.f.err
}

// OnEnd has told called once when the flight has ended, at once if it has: for a caller
// that waits for many keys, and would see only one after the other with Wait, which then
// returns immediately. told may be called after the caller has left, on any goroutine; it
// must not block.
func (j Joined[K, V]) OnEnd(told func()) {
	j.s.mu.Lock()
	if !j.f.finished {
		j.f.follow(&follow[K, V]{told: told})
		j.s.mu.Unlock()
		return
	}
	j.s.mu.Unlock()
	told()
}

// Abandoned says whether the caller must join anew, because the flight was
// abandoned: its function returned a context.Canceled that was not the flight's
// own. It may be called after Wait has returned a result. It is false for the
// leader, who gets the error.
func (j Joined[K, V]) Abandoned() bool { return j.done != nil && j.f.abandoned }
