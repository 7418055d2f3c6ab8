package coalescetest

import (
	"context"
	"fmt"
	"reflect"
	"sync/atomic"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/internal/lost"
	"github.com/fleetcall/fleetcall/coalesce/local"
)

// Group is a coalesce.Group of one replica of a Fleet.
type Group[V any] struct {
	fleet      *Fleet
	name       string
	failClosed bool

	local   local.Group[string, V] // merges the calls of this replica
	settled atomic.Int64           // local flights that have joined the fleet's
}

var _ coalesce.Group[any] = (*Group[any])(nil)

// GroupOption is a setting of a Group.
type GroupOption func(*settings)

type settings struct{ failClosed, allowLossy bool }

// FailClosed makes callers get coalesce.ErrUnavailable when Redis cannot be used,
// instead of one execution in each replica.
func FailClosed() GroupOption { return func(s *settings) { s.failClosed = true } }

// AllowLossy accepts results that JSON changes on the way to other replicas.
func AllowLossy() GroupOption { return func(s *settings) { s.allowLossy = true } }

// maxNameLen is how many bytes the name of a Group may have, as in package distributed.
const maxNameLen = 100

// NewGroup returns the Group of a replica of its own. Groups of the same name
// share their flights. One of another V is a replica of another version of the
// program: it does not decode the others' results, and runs its own function, as
// Fallback.
//
// NewGroup panics where distributed.NewGroup returns an error: for a nil Fleet or
// option, a name that is empty or too long, and a V that JSON would change.
func NewGroup[V any](fleet *Fleet, name string, opts ...GroupOption) *Group[V] {
	if fleet == nil {
		panic("fleetcall: coalescetest: NewGroup: the Fleet is nil; NewFleet returns one")
	}
	if len(name) == 0 || len(name) > maxNameLen {
		panic(fmt.Sprintf("fleetcall: coalescetest: NewGroup: the name %.32q has %d bytes, not 1 to %d", name, len(name), maxNameLen))
	}
	var s settings
	for i, opt := range opts {
		if opt == nil {
			panic(fmt.Sprintf("fleetcall: coalescetest: NewGroup %q: option %d is nil; leave it out", name, i+1))
		}
		opt(&s)
	}
	if err := check[V](); err != nil && !s.allowLossy {
		panic(fmt.Sprintf("fleetcall: coalescetest: NewGroup %q: %v", name, err))
	}
	g := &Group[V]{fleet: fleet, name: name, failClosed: s.failClosed}
	fleet.mu.Lock()
	defer fleet.mu.Unlock()
	fleet.replicas[name] = append(fleet.replicas[name], g.local.Forget)
	return g
}

// Do makes Group a coalesce.Group.
func (g *Group[V]) Do(ctx context.Context, key string, fn func(context.Context) (V, error)) (V, coalesce.Role, error) {
	c := call[V]{g: g, key: key, fn: fn}
	v, role, err := g.local.Do(ctx, key, c.run)
	if role == coalesce.Leader { // of its own replica
		role = coalesce.Role(c.role.Load())
	}
	return v, role, err
}

// Forget makes Group a coalesce.Group. While Redis is stopped, it forgets the keys
// on this replica only, and returns an error that is coalesce.ErrUnavailable.
func (g *Group[V]) Forget(_ context.Context, keys ...string) error {
	for _, key := range keys {
		g.local.Forget(key)
	}
	return g.fleet.forget(g.name, keys)
}

// Waiting returns how many callers wait on this replica, those included whose
// function runs. It is 0 while a flight of this replica has not joined the
// fleet's yet: callers that are counted get the result of the flight that runs
// now. When that is abandoned or its leader dies, they count until they know.
func (g *Group[V]) Waiting() int {
	st := g.local.Stats()
	if g.settled.Load() != st.ActiveFlights {
		return 0
	}
	return int(st.Waiting)
}

// Cache keeps v as the result of a flight of key that finished within MaxAge:
// callers on every replica get it as Cached, until the key is forgotten.
func (g *Group[V]) Cache(key string, v V) {
	value, err := encode(v)
	if err != nil {
		panic("fleetcall: coalescetest: Cache: the value cannot be encoded: " + err.Error())
	}
	g.fleet.mu.Lock()
	defer g.fleet.mu.Unlock()
	g.fleet.cached[place{g.name, key}] = outcome{value: value, of: reflect.TypeFor[V]()}
}

// Poison makes the fleet believe that the leaders of key died one after another:
// callers that come, or that would take over, get coalesce.ErrPoisoned, until the
// key is forgotten.
func (g *Group[V]) Poison(key string) {
	g.fleet.mu.Lock()
	defer g.fleet.mu.Unlock()
	g.fleet.poisoned[place{g.name, key}] = true
}

// call is what a caller runs when it leads its own replica's callers.
type call[V any] struct {
	g    *Group[V]
	key  string
	fn   func(context.Context) (V, error)
	role atomic.Uint32 // a coalesce.Role, once it is decided: a caller that leaves reads it
}

// is notes the role of the call. 0 means that it has none yet, or no more.
func (c *call[V]) is(role coalesce.Role) {
	before := c.role.Swap(uint32(role))
	switch {
	case before == 0 && role != 0:
		c.g.settled.Add(1)
	case before != 0 && role == 0:
		c.g.settled.Add(-1)
	}
}

// run goes through the fleet. ctx ends when no caller of this replica waits.
func (c *call[V]) run(ctx context.Context) (v V, err error) {
	defer func() {
		if c.role.Load() != 0 {
			c.g.settled.Add(-1)
		}
	}()
	for ctx.Err() == nil {
		j := c.g.fleet.join(ctx, place{c.g.name, c.key})
		o, role := j.kept, coalesce.Cached
		switch {
		case j.leads:
			c.is(coalesce.Leader)
			return c.lead(ctx, j.flight)
		case j.flight != nil:
			role = coalesce.RemoteFollower
			c.is(role)
			if o, err = j.flight.follow(ctx); err != nil {
				return v, err
			}
		}
		switch {
		case o.fate == joinAnew:
			c.is(0)
			continue
		case o.fate == noRedis && c.g.failClosed:
			c.is(0)
			return v, coalesce.ErrUnavailable
		case o.err != nil:
			return v, o.err
		case o.fate == takeResult && o.of == reflect.TypeFor[V]():
			if v, err = decode[V](o.value); err == nil {
				c.is(role)
				return v, nil
			}
		}
		c.is(coalesce.Fallback)
		return c.fn(ctx)
	}
	return v, ctx.Err()
}

// lead runs the function for the whole fleet. The followers on other replicas are
// told before the callers of this one.
func (c *call[V]) lead(ctx context.Context, f *flight) (v V, err error) {
	stop := context.AfterFunc(ctx, f.leave)
	returned := false
	defer func() {
		stop()
		defer f.ctx.End(context.Canceled)
		if returned {
			f.end(outcomeOf(f, v, err))
			return
		}
		what := lost.Error(recover())
		f.end(panicOutcome(what))
		if panicked, ok := what.(*coalesce.PanicError); ok {
			panic(panicked)
		}
	}()
	v, err = c.fn(f.ctx)
	returned = true
	if err != nil {
		v = *new(V) // a value beside an error does not travel, and is nobody's
	}
	return v, err
}
