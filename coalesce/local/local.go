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
	"runtime/debug"
	"sync"

	"fleetcall/coalesce"
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

	resetMu sync.Mutex
	before  Stats // the counts at the last ResetStats; guarded by resetMu
}

// shard fills one cache line, so that two cores on two keys do not share one.
type shard[K comparable, V any] struct {
	mu      sync.Mutex
	flights map[K]*flight[K, V]

	requests, followers, errors uint64
	active, waiting             int64
	_                           [8]byte
}

type flight[K comparable, V any] struct {
	key K
	ctx flightContext // what the function runs under, unless its caller can't leave

	// Guarded by the shard's mu.
	waiters  int           // callers that have not left
	done     chan struct{} // closed at the end; made by the first who must wait
	finished bool

	// Written by the function's goroutine before finished is set and done is
	// closed, read only after.
	val      V
	err      error
	panicked *coalesce.PanicError
	exited   bool // by runtime.Goexit
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
	s := g.shard(key)
	f, role, done := s.join(ctx, key)
	if role == coalesce.Leader {
		if ctx.Done() == nil {
			// This caller cannot leave: it runs fn itself, without a
			// goroutine and under its own context.
			s.run(f, ctx, fn, true)
			if f.exited {
				// Only with GODEBUG=panicnil=1, where recover stops a
				// panic(nil) and nobody can tell it from Goexit.
				runtime.Goexit()
			}
			return f.val, role, f.err
		}
		go s.run(f, &f.ctx, fn, false)
	}
	if err := s.wait(ctx, f, done); err != nil {
		var zero V
		return zero, role, err
	}
	if f.panicked != nil {
		panic(f.panicked)
	}
	if f.exited {
		runtime.Goexit()
	}
	return f.val, role, f.err
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
	s := g.shard(key)
	f, role, done := s.join(ctx, key)
	if role == coalesce.Leader {
		go s.run(f, &f.ctx, fn, false)
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

// Forget makes the next call for key start a new flight. Callers of the
// present one keep it.
func (g *Group[K, V]) Forget(key K) {
	s := g.shard(key)
	s.mu.Lock()
	delete(s.flights, key)
	s.mu.Unlock()
}

// ForgetAll is Forget for every key.
func (g *Group[K, V]) ForgetAll() {
	for i := range g.shards {
		s := &g.shards[i]
		s.mu.Lock()
		clear(s.flights)
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
		st.ActiveFlights += s.active
		st.Waiting += s.waiting
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

func (g *Group[K, V]) shard(key K) *shard[K, V] {
	return &g.shards[maphash.Comparable(seed, key)%shardCount]
}

// join makes the caller a follower of key's flight, or the leader of a new one
// that it must run. A follower gets the flight's done channel.
func (s *shard[K, V]) join(ctx context.Context, key K) (f *flight[K, V], role coalesce.Role, done <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests++
	s.waiting++
	if f, ok := s.flights[key]; ok {
		s.followers++
		f.waiters++
		if f.done == nil {
			f.done = make(chan struct{})
		}
		return f, coalesce.LocalFollower, f.done
	}
	f = &flight[K, V]{key: key, waiters: 1}
	f.ctx.first = ctx
	if s.flights == nil {
		s.flights = make(map[K]*flight[K, V])
	}
	s.flights[key] = f
	s.active++
	return f, coalesce.Leader, nil
}

// run calls fn and ends f with what came of it. When inline, it runs on the
// leader's own stack, which a panic or Goexit goes on to unwind.
func (s *shard[K, V]) run(f *flight[K, V], ctx context.Context, fn func(context.Context) (V, error), inline bool) {
	returned := false
	defer func() {
		if !returned {
			// A panic never recovers as nil (panic(nil) became a
			// *runtime.PanicNilError in Go 1.21), so nil is Goexit.
			if value := recover(); value != nil {
				f.panicked = panicError(value)
			} else {
				f.exited = true
			}
		}
		s.finish(f)
		if inline && f.panicked != nil {
			panic(f.panicked)
		}
	}()
	f.val, f.err = fn(ctx)
	returned = true
}

// panicError keeps a panic that has crossed a goroutine before as it is: its
// stack is the original one.
func panicError(value any) *coalesce.PanicError {
	if e, ok := value.(*coalesce.PanicError); ok {
		return e
	}
	return &coalesce.PanicError{Value: value, Stack: debug.Stack()}
}

func (s *shard[K, V]) finish(f *flight[K, V]) {
	s.mu.Lock()
	s.remove(f)
	s.active--
	s.waiting -= int64(f.waiters)
	if f.err != nil || f.panicked != nil || f.exited {
		s.errors++
	}
	f.finished = true
	done := f.done
	s.mu.Unlock()
	if done != nil {
		close(done)
	}
	f.ctx.cancel()
}

// remove takes f out of the map, unless Forget did and another flight has its
// place. The caller holds s.mu.
func (s *shard[K, V]) remove(f *flight[K, V]) {
	if s.flights[f.key] == f {
		delete(s.flights, f.key)
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
		s.remove(f)
	}
	s.mu.Unlock()
	if last {
		f.ctx.cancel()
	}
	return ctx.Err()
}

// Tier makes g a coalesce.Group, so that a program can choose it by
// configuration.
func Tier[V any](g *Group[string, V]) coalesce.Group[V] { return tier[V]{g} }

type tier[V any] struct{ *Group[string, V] }

func (t tier[V]) Forget(_ context.Context, key string) error {
	t.Group.Forget(key)
	return nil
}
