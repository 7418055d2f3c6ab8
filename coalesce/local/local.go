// Package local is the first tier of fleetcall: it merges concurrent calls for
// the same key inside one process. It needs nothing but the standard library.
//
// A flight's function runs under a context that carries the values of the
// caller who started it. That context is not cancelled when one caller leaves,
// and is cancelled when the last one has left. A caller whose own context ends
// returns at once.
//
// A finished or cancelled flight is gone from the Group before anyone learns
// of its end: whoever calls later starts a new one.
//
// What is not promised: a function that ignores its context goes on after its
// last caller has left, beside a new flight for the same key. A function that
// calls for its own key under its own context waits for itself.
package local

import (
	"context"
	"hash/maphash"
	"runtime"
	"sync"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/internal/detached"
	"github.com/fleetcall/fleetcall/coalesce/internal/lost"
)

// shardCount spreads the keys over this many locks. It is a power of two.
const shardCount = 64

// seed is the process's: Group must work as its zero value.
var seed = maphash.MakeSeed()

// Group merges concurrent calls for equal keys. The zero value is ready to
// use. A Group must not be copied after first use. Keys must equal themselves:
// a NaN is never found again.
type Group[K comparable, V any] struct {
	shards [shardCount]shard[K, V]
	spare  sync.Pool // of *flight[K, V] that nobody holds any more

	resetMu sync.Mutex
	before  Stats // the counts at the last ResetStats; guarded by resetMu
}

// shard fills one cache line, so that two cores on two keys do not share one.
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
	// What the function runs under; nil: its caller can't leave. It is not
	// guarded: the last caller who leaves reads it, who is the leader, or leaves
	// after the leader has.
	ctx *detached.Context

	// What a goroutine runs for a caller who can leave. The first is made once,
	// for as often as the flight is used again.
	goRun func()
	fn    func(context.Context) (V, error)
	shard *shard[K, V]

	// Guarded by the shard's mu.
	done     chan struct{} // closed at the end; made by the first who must wait
	waiters  int32         // callers that have not left
	followed bool          // somebody has joined
	finished bool

	// Written before finished is set and done is closed, read only after.
	exited   bool // by runtime.Goexit
	val      V
	err      error
	panicked *coalesce.PanicError
}

// Result is what DoChan delivers.
type Result[V any] struct {
	Val  V
	Err  error
	Role coalesce.Role
}

// Do returns the result of fn for key. Of the calls that overlap, one runs fn
// and is the Leader; the others wait for its result as LocalFollower.
//
// When ctx ends first, Do returns ctx.Err() at once. When fn panics, Do panics
// in every caller with a *coalesce.PanicError; when fn calls runtime.Goexit,
// every caller's goroutine exits. A panic that comes after the last caller has
// left is counted in Stats.Errors and goes no further.
func (g *Group[K, V]) Do(ctx context.Context, key K, fn func(context.Context) (V, error)) (V, coalesce.Role, error) {
	if err := ctx.Err(); err != nil {
		var zero V
		return zero, 0, err
	}
	s, hash := g.shard(key)
	f, done := g.join(s, key, hash)
	if done == nil {
		return g.lead(ctx, s, f, fn)
	}
	// A follower's stack is kept small: a herd has a hundred thousand of them.
	if ctx.Done() == nil {
		<-done
	} else if err := s.wait(ctx, f, done); err != nil {
		var zero V
		return zero, coalesce.LocalFollower, err
	}
	f.unwind()
	return f.val, coalesce.LocalFollower, f.err
}

// lead runs fn for the caller who started f.
func (g *Group[K, V]) lead(ctx context.Context, s *shard[K, V], f *flight[K, V], fn func(context.Context) (V, error)) (val V, role coalesce.Role, err error) {
	if ctx.Done() == nil {
		// This caller cannot leave: it runs fn itself, without a goroutine and
		// under its own context.
		s.run(ctx, f, fn, true)
	} else {
		f.run(s, &detached.Context{First: ctx}, fn)
		// A function that does little has ended when this goroutine gets its
		// turn again: then nobody needs to be woken.
		runtime.Gosched()
		if err := s.wait(ctx, f, nil); err != nil {
			return val, coalesce.Leader, err
		}
	}
	f.unwind()
	val, err = f.val, f.err
	g.recycle(f)
	return val, coalesce.Leader, err
}

// unwind does to the stack of a caller of the finished f what fn did to its own.
func (f *flight[K, V]) unwind() {
	if f.panicked != nil {
		panic(f.panicked)
	}
	if f.exited {
		// A leader's own stack is being unwound already, unless
		// GODEBUG=panicnil=1 let recover stop a panic(nil), which nobody can
		// tell from Goexit.
		runtime.Goexit()
	}
}

// DoChan is Do with the result on a channel of capacity one. The call has
// started or joined its flight when DoChan returns.
//
// A receiver has no stack for a panic of fn to unwind: as any panic in a
// goroutine of its own, it ends the program, with the original stack in its
// message. runtime.Goexit arrives as coalesce.ErrGoexit.
func (g *Group[K, V]) DoChan(ctx context.Context, key K, fn func(context.Context) (V, error)) <-chan Result[V] {
	ch := make(chan Result[V], 1)
	if err := ctx.Err(); err != nil {
		ch <- Result[V]{Err: err}
		return ch
	}
	s, hash := g.shard(key)
	f, done := g.join(s, key, hash)
	role := coalesce.LocalFollower
	if done == nil {
		role = coalesce.Leader
		f.run(s, &detached.Context{First: ctx}, fn)
	}
	go func() {
		err := s.wait(ctx, f, done)
		switch {
		case err != nil:
			ch <- Result[V]{Err: err, Role: role}
		case f.panicked != nil:
			panic(f.panicked)
		case f.exited:
			ch <- Result[V]{Err: coalesce.ErrGoexit, Role: role}
		default:
			ch <- Result[V]{Val: f.val, Err: f.err, Role: role}
		}
	}()
	return ch
}

// Joined is a caller's part in a flight, for work that is done elsewhere.
type Joined[K comparable, V any] struct {
	s    *shard[K, V]
	f    *flight[K, V]
	done <-chan struct{} // nil: the caller is the leader
}

// Join is Do for work that is done elsewhere, step by step: a follower, of whom
// there may be a herd, needs no stack for what the leader does. Whoever joins
// must Wait; who leads must Start the flight before that, and see to it that it
// is ended, by whomever.
func (g *Group[K, V]) Join(key K) Joined[K, V] {
	s, hash := g.shard(key)
	f, done := g.join(s, key, hash)
	return Joined[K, V]{s, f, done}
}

// Leads says whether the caller must start the flight.
func (j Joined[K, V]) Leads() bool { return j.done == nil }

// Start returns what the flight's work runs under.
func (j Joined[K, V]) Start(ctx context.Context) *detached.Context {
	j.f.ctx = &detached.Context{First: ctx}
	return j.f.ctx
}

// End ends the flight, unless it has ended: whoever comes now starts another.
// With returned false, err is a *coalesce.PanicError, with which every caller
// panics, or coalesce.ErrGoexit, which exits their goroutines.
func (j Joined[K, V]) End(val V, err error, returned bool) Ended {
	return j.s.finish(j.f, val, err, returned)
}

// Ended is a flight that has ended, and whose callers are to be told.
type Ended struct {
	Callers int

	done chan struct{}
	ctx  *detached.Context
}

// Tell lets the callers return. Of a herd, that takes its time.
func (e Ended) Tell() {
	if e.done != nil {
		close(e.done)
	}
	if e.ctx != nil {
		e.ctx.End(context.Canceled)
	}
}

// Wait returns the flight's result, which all of its callers share, or nil and
// ctx.Err() when ctx ends first.
func (j Joined[K, V]) Wait(ctx context.Context) (*V, error) {
	if j.done != nil && ctx.Done() == nil {
		<-j.done
	} else if err := j.s.wait(ctx, j.f, j.done); err != nil {
		return nil, err
	}
	j.f.unwind()
	return &j.f.val, j.f.err
}

// Forget makes the next call for key start a new flight. Callers of the
// present one keep it.
func (g *Group[K, V]) Forget(key K) {
	s, hash := g.shard(key)
	s.mu.Lock()
	if f := s.flights.find(key, hash); f != nil {
		s.flights.remove(f)
	}
	s.mu.Unlock()
}

// ForgetAll is Forget for every key.
func (g *Group[K, V]) ForgetAll() {
	for i := range g.shards {
		s := &g.shards[i]
		s.mu.Lock()
		s.flights = table[K, V]{}
		s.mu.Unlock()
	}
}

// Stats returns the counts since the first use or ResetStats. They are exact for
// calls that have returned.
func (g *Group[K, V]) Stats() Stats {
	g.resetMu.Lock()
	defer g.resetMu.Unlock()
	st := g.Totals()
	st.Requests -= g.before.Requests
	st.Leaders -= g.before.Leaders
	st.Followers -= g.before.Followers
	st.Errors -= g.before.Errors
	return st
}

// Totals returns the counts since the first use, whatever ResetStats did: for
// counters that must not go down, such as those of Prometheus.
func (g *Group[K, V]) Totals() Stats {
	var st Stats
	for i := range g.shards {
		s := &g.shards[i]
		s.mu.Lock()
		st.Requests += s.requests
		st.Followers += s.followers
		st.Errors += s.errors
		st.ActiveFlights += int64(s.active)
		st.Waiting += int64(s.waiting)
		s.mu.Unlock()
	}
	st.Leaders = st.Requests - st.Followers
	return st
}

// ResetStats sets the counts to zero. ActiveFlights and Waiting stay what they
// are.
func (g *Group[K, V]) ResetStats() {
	g.resetMu.Lock()
	defer g.resetMu.Unlock()
	g.before = g.Totals()
}

func (g *Group[K, V]) shard(key K) (s *shard[K, V], hash uint64) {
	hash = maphash.Comparable(seed, key)
	return &g.shards[hash%shardCount], hash
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

// run calls fn and ends f with what came of it. When inline, it runs on the
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

// run has a goroutine call fn, for callers who can leave.
func (f *flight[K, V]) run(s *shard[K, V], ctx *detached.Context, fn func(context.Context) (V, error)) {
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

// finish ends f, unless it has ended. Then f is its leader's, who may let it go.
// Where err was not returned by a function, it says if there was a panic or a
// Goexit.
func (s *shard[K, V]) finish(f *flight[K, V], val V, err error, returned bool) Ended {
	s.mu.Lock()
	if f.finished {
		s.mu.Unlock()
		return Ended{}
	}
	s.flights.remove(f)
	s.active--
	s.waiting -= f.waiters
	if err != nil {
		s.errors++
		if !returned {
			f.panicked, _ = err.(*coalesce.PanicError)
			f.exited = err == coalesce.ErrGoexit
		}
	}
	f.val, f.err = val, err
	f.finished = true
	ended := Ended{int(f.waiters), f.done, f.ctx}
	s.mu.Unlock()
	return ended
}

// recycle lets a finished flight be used again, if only its leader, who calls
// it, can hold it.
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
	f.waiters--
	s.waiting--
	last := f.waiters == 0
	if last {
		s.flights.remove(f)
	}
	s.mu.Unlock()
	if last {
		f.ctx.End(context.Canceled)
	}
	return ctx.Err()
}

// Tier makes g a coalesce.Group, so that a program can choose it by
// configuration.
func Tier[V any](g *Group[string, V]) coalesce.Group[V] { return tier[V]{g} }

type tier[V any] struct{ *Group[string, V] }

func (t tier[V]) Forget(_ context.Context, keys ...string) error {
	for _, key := range keys {
		t.Group.Forget(key)
	}
	return nil
}
