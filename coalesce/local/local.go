// Package local is the first tier of fleetcall: it merges concurrent calls for
// the same key inside one process. It needs nothing but the standard library.
//
// A flight's function runs under a context that carries the values of the
// caller that started it. That context is not cancelled when one caller leaves,
// and is cancelled when the last one has left. A caller whose own context ends
// returns at once.
//
// A finished or cancelled flight is gone from the Group before anyone learns
// of its end: a call that comes later starts a new one.
//
// A function that returns context.Canceled, wrapped or not, although its flight
// has not been cancelled has abandoned its flight. Most often it used its
// caller's context instead of the one that it was given, and that caller has
// gone. Its caller gets the error. The others join anew, so that one of them
// leads, with its own function.
//
// What is not promised: a function that ignores its context goes on after its
// last caller has left, beside a new flight for the same key. A function that
// calls for its own key under its own context waits for itself. The context of
// a function ends with its flight only where its caller can leave: a caller
// whose context never ends runs the function under that very context, because
// another one would cost as much as the rest of the call.
package local

import (
	"context"
	"hash/maphash"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/internal/detached"
)

// shardCount is the number of locks among which the keys are spread. It is a
// power of two.
const shardCount = 64

// seed is one for the process, because the zero value of Group must work.
var seed = maphash.MakeSeed()

// Group merges concurrent calls for equal keys. The zero value is ready to
// use. A Group must not be copied after first use. Keys must equal themselves:
// a NaN is never found again.
type Group[K comparable, V any] struct {
	shards [shardCount]shard[K, V]
	spare  sync.Pool // of *flight[K, V] that nobody holds any more

	spareRuns                     sync.Pool // of *run[K, V] likewise
	batches, batchRuns, batchKeys atomic.Uint64

	resetMu sync.Mutex
	before  Stats // the counts at the last ResetStats; guarded by resetMu
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
// When ctx ends first, Do returns ctx.Err() at once, with the role that the
// caller had when it left. The role is 0 when ctx had ended before the call.
//
// When fn panics, Do panics in every caller with a *coalesce.PanicError; when
// fn calls runtime.Goexit, every caller's goroutine exits. A panic that comes
// after the last caller has left is counted in Stats.Errors and goes no
// further. A nil fn panics when it is called: in a leader, not in a follower.
func (g *Group[K, V]) Do(ctx context.Context, key K, fn func(context.Context) (V, error)) (V, coalesce.Role, error) {
	// The stack of a follower is kept small: a flight may have a hundred
	// thousand of them.
	var role coalesce.Role
	for {
		if err := ctx.Err(); err != nil {
			var zero V
			return zero, role, err
		}
		s, hash := g.shard(key)
		f, done := g.join(s, key, hash)
		if done == nil {
			return g.lead(ctx, s, f, fn)
		}
		role = coalesce.LocalFollower
		if ctx.Done() == nil {
			<-done
		} else if err := s.wait(ctx, f, done); err != nil {
			var zero V
			return zero, role, err
		}
		if f.abandoned {
			continue // with another flight, which this caller may lead
		}
		f.unwind()
		return f.val, role, f.err
	}
}

// lead runs fn for the caller that started f.
func (g *Group[K, V]) lead(ctx context.Context, s *shard[K, V], f *flight[K, V], fn func(context.Context) (V, error)) (val V, role coalesce.Role, err error) {
	if ctx.Done() == nil {
		// This caller cannot leave: it runs fn on its own goroutine and under
		// its own context.
		s.run(ctx, f, fn, true)
	} else {
		f.start(s, &detached.Context{First: ctx}, fn)
		// A function that does little has ended when this goroutine gets its
		// turn again. Then nobody needs to be woken.
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
	s, f, done := g.startOrJoin(ctx, key, fn)
	go func() {
		for {
			r, abandoned := result(ctx, s, f, done)
			switch {
			case !abandoned:
			case ctx.Err() != nil:
				r = Result[V]{Err: ctx.Err(), Role: coalesce.LocalFollower}
			default:
				s, f, done = g.startOrJoin(ctx, key, fn)
				continue
			}
			ch <- r
			return
		}
	}()
	return ch
}

// startOrJoin starts a flight with fn, or joins the one that key has. Only a
// follower gets the flight's done channel.
func (g *Group[K, V]) startOrJoin(ctx context.Context, key K, fn func(context.Context) (V, error)) (*shard[K, V], *flight[K, V], <-chan struct{}) {
	s, hash := g.shard(key)
	f, done := g.join(s, key, hash)
	if done == nil {
		f.start(s, &detached.Context{First: ctx}, fn)
	}
	return s, f, done
}

// result waits for what DoChan delivers. The flight of a follower may have been
// abandoned: then there is no result.
func result[K comparable, V any](ctx context.Context, s *shard[K, V], f *flight[K, V], done <-chan struct{}) (r Result[V], abandoned bool) {
	r.Role = coalesce.LocalFollower
	if done == nil {
		r.Role = coalesce.Leader
	}
	err := s.wait(ctx, f, done)
	switch {
	case err != nil:
		r.Err = err
	case f.panicked != nil:
		panic(f.panicked)
	case f.exited:
		r.Err = coalesce.ErrGoexit
	case f.abandoned && done != nil:
		return r, true
	default:
		r.Val, r.Err = f.val, f.err
	}
	return r, false
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

func (g *Group[K, V]) shard(key K) (s *shard[K, V], hash uint64) {
	hash = hashOf(key)
	return &g.shards[hash%shardCount], hash
}

func hashOf[K comparable](key K) uint64 { return maphash.Comparable(seed, key) }

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
