package local

import (
	"context"
	"sync/atomic"

	"github.com/fleetcall/fleetcall/coalesce/internal/detached"
	"github.com/fleetcall/fleetcall/coalesce/internal/outcomes"
)

// run is one call of a batch's function, and the flights of the keys that it is given.
type run[K comparable, V any] struct {
	b   *batch[K, V]
	ctx *detached.Context // nil: the caller cannot leave, and the function has its context

	flights []flight[K, V] // in one piece, which does not move
	waited  atomic.Int32   // flights that somebody waits for

	// Written before the batch is told that the run has ended.
	outcomes outcomes.Outcomes[K, V]
	ended    bool
	followed bool
}

// newRun returns a run for up to n keys.
func (b *batch[K, V]) newRun(n int) *run[K, V] {
	r, _ := b.g.spareRuns.Get().(*run[K, V])
	if r == nil || cap(r.flights) < n {
		r = &run[K, V]{flights: make([]flight[K, V], 0, n)}
	}
	r.b = b
	if b.ctx.Done() != nil {
		r.ctx = &detached.Context{First: b.ctx}
	}
	return r
}

// add returns a new flight of the run, for a caller that holds the shard's mu. Its fields
// are set one by one: they are zero, and a copy of all of them costs more.
func (r *run[K, V]) add(s *shard[K, V], key K, hash uint64) *flight[K, V] {
	n := len(r.flights)
	r.flights = r.flights[:n+1]
	f := &r.flights[n]
	f.key, f.hash, f.shard, f.run, f.ctx = key, hash, s, r, r.ctx
	f.waiters = 1
	return f
}

// run calls the function and ends the flights with what each key gets of that.
func (r *run[K, V]) run() {
	keys := make([]K, len(r.flights)) // the function may keep them
	for i := range r.flights {
		keys[i] = r.flights[i].key
	}
	g := r.b.g
	g.batchRuns.Add(1)
	g.batchKeys.Add(uint64(len(keys)))
	ctx := r.b.ctx
	if r.ctx != nil {
		ctx = r.ctx
	}
	r.end(outcomes.Run(ctx, keys, r.b.fn, r.end))
}

// end ends the run, unless it has ended: with GODEBUG=panicnil=1, a panic(nil) looks like
// an exit, and goes no further.
func (r *run[K, V]) end(o outcomes.Outcomes[K, V]) {
	if r.ended {
		return
	}
	r.ended, r.outcomes = true, o
	for i := range r.flights {
		f := &r.flights[i]
		val, err := o.Key(f.key)
		ended := f.shard.finish(f, val, err, o.Returned())
		r.followed = r.followed || f.followed // final: nobody can join any more
		ended.tellFollowers()
	}
	if r.ctx != nil {
		r.ctx.End(context.Canceled)
	}
	r.b.ranOut()
}

// recycle lets an ended run be used again, for a batch that has all its results, unless a
// follower may still look at a flight.
func (r *run[K, V]) recycle() {
	if r.followed {
		return
	}
	clear(r.flights)
	g := r.b.g
	*r = run[K, V]{flights: r.flights[:0]}
	g.spareRuns.Put(r)
}
