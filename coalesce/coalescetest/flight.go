package coalescetest

import (
	"context"
	"fmt"
	"reflect"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/internal/detached"
	"github.com/fleetcall/fleetcall/coalesce/internal/errtree"
)

// flight is one execution for a key of the fleet, and the replicas that wait for
// it.
type flight struct {
	fleet *Fleet
	place place
	// ctx is what the function runs under. It is nil when the flight is led by
	// LeadElsewhere, which has no function.
	ctx *detached.Context
	run *run // of a batch's function, whose context ctx is; nil for a function of its own

	// Guarded by the fleet's mu.
	followers  int      // replicas that wait
	leaderLeft bool     // no caller of the leader's replica waits any more
	ended      bool     // done is closed
	batches    []func() // of batches that follow: told under mu that it has ended

	done    chan struct{}
	outcome outcome // written before done is closed, read only after
}

// fate says what a follower does when its flight has ended.
type fate int

const (
	takeResult fate = iota
	joinAnew        // the leader is gone without a result
	runOwn          // the result cannot travel
	noRedis         // Redis cannot be used any more
)

// outcome is what a flight's followers are told.
type outcome struct {
	fate  fate
	value []byte // encoded
	of    reflect.Type
	err   error
}

// outcomeOf is what other replicas are told of a function that returned. A result
// whose methods panic cannot travel.
func outcomeOf[V any](f *flight, v V, err error) (o outcome) {
	defer func() {
		if recover() != nil {
			o = outcome{fate: runOwn}
		}
	}()
	if err != nil {
		if f.ctx == nil && errtree.Is(err, context.Canceled) || f.ctx != nil && detached.Abandoned(err, f.ctx) {
			return outcome{fate: joinAnew} // the function has abandoned its flight
		}
		return outcome{err: remoteError(err)}
	}
	value, err := encode(v)
	if err != nil {
		return outcome{fate: runOwn}
	}
	return outcome{value: value, of: reflect.TypeFor[V]()}
}

// panicOutcome is what other replicas are told of a function that panicked, or
// exited: err is what became of it.
func panicOutcome(err error) outcome {
	if panicked, ok := err.(*coalesce.PanicError); ok {
		err = fmt.Errorf("%w: %v", coalesce.ErrRemotePanic, panicked.Value)
	}
	return outcome{err: remoteError(err)}
}

// end tells the followers, unless they have been told. A call that comes later
// starts a new flight.
func (f *flight) end(o outcome) {
	f.fleet.mu.Lock()
	defer f.fleet.mu.Unlock()
	f.endLocked(o)
}

func (f *flight) endLocked(o outcome) {
	if f.ended {
		return
	}
	f.removeLocked()
	delete(f.fleet.running, f)
	f.outcome, f.ended, f.followers = o, true, 0
	close(f.done)
	for _, tell := range f.batches {
		tell()
	}
	f.batches = nil
	f.fleet.changed.Broadcast()
}

// removeLocked makes the next call start a new flight. After Forget, another
// flight may have the place.
func (f *flight) removeLocked() {
	if f.fleet.flights[f.place] == f {
		delete(f.fleet.flights, f.place)
	}
}

// follow waits for the end of a flight that the caller's replica has joined.
func (f *flight) follow(ctx context.Context) (outcome, error) {
	select {
	case <-f.done:
		return f.outcome, nil
	case <-ctx.Done():
	}
	f.fleet.mu.Lock()
	defer f.fleet.mu.Unlock()
	if !f.ended {
		f.followers--
		f.fleet.changed.Broadcast()
		f.cancelIfLeft()
	}
	return outcome{}, ctx.Err()
}

// leave says that no caller of the leader's replica waits any more.
func (f *flight) leave() {
	f.fleet.mu.Lock()
	defer f.fleet.mu.Unlock()
	f.leaderLeft = true
	f.cancelIfLeft()
}

// cancelIfLeft cancels the function when nobody in the fleet waits for it. The
// flight is gone before the function learns of it.
func (f *flight) cancelIfLeft() {
	if f.leaderLeft && f.followers == 0 && f.ctx != nil {
		f.removeLocked()
		if f.run != nil {
			f.run.leftLocked()
		} else {
			f.ctx.End(context.Canceled)
		}
	}
}
