package distributed

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/internal/detached"
	"github.com/fleetcall/fleetcall/coalesce/internal/lost"
	"github.com/fleetcall/fleetcall/coalesce/internal/protocol"
	"github.com/fleetcall/fleetcall/coalesce/internal/pubsub"
	"github.com/fleetcall/fleetcall/coalesce/internal/timers"
	"github.com/fleetcall/fleetcall/coalesce/local"
)

// call is one local flight's way through the protocol. It is in one of these
// states, each of which returns the next:
//
//	starting  → joining    Redis is to be asked
//	          → unasked    it is not: run the function
//	joining   → leading    the lease is ours: run the function
//	          → following  another flight has it: wait for its outcome
//	          → awaiting   our own replica's last flight still has it: wait for its release
//	          → receiving  MaxAge has kept an outcome; fetching, where it is large
//	          → fallback   Redis cannot be used, or nothing can be shared: run the function without it
//	following → receiving  the outcome has come; fetching, where it is large
//	          → joining    the flight went away without an outcome
//	          → fallback   Redis cannot be used
//	fetching  → receiving  all pieces are here
//	          → joining    Redis has dropped them
//	          → fallback   Redis cannot be used, or the outcome is of no use here
//	receiving → fallback   the outcome is of no use here
//
// A state has what it alone needs; what is here outlives the states.
//
// A call has one goroutine at a time. Where that is stuck in the Redis client,
// another takes its place; while it runs the function, handle decides what
// becomes of the call.
type call[V any] struct {
	g       *Group[V]
	local   *detached.Context // ends when the last local caller has left
	ctx     context.Context   // has the values of local, and the hooks'
	fn      func(context.Context) (V, error)
	callers local.Joined[string, result[V]] // of the local flight; running.mu guards it from its end on
	key     string
	batch   *part[V]       // of a DoMany; nil: its caller asked for this key alone
	heat    learning       // of an adaptive Group
	names   protocol.Names // of the flight this call leads, if it comes to that
	// deadline ends with the flight timeout. The function runs under it.
	deadline detached.Timed
	expiry   timers.Timer // of deadline
	started  time.Time

	waiter *pubsub.Waiter // on the key's channel, once it is subscribed
	// mayHold: a join was sent that may have taken the lease, which nothing else is
	// going to release.
	mayHold bool
	asking  atomic.Bool // the reply to a join may be on its way
	unheard atomic.Bool // a Forget may have been missed meanwhile
	// vanished is the flight that this call followed, and that went away without an
	// outcome; "": none did.
	vanished string
	dropped  bool // Redis had dropped the outcome of a flight that this call followed
	told     told

	running execution[V]
	role    atomic.Uint32 // a coalesce.Role: what the call is so far
	// foreign: its goroutine runs a codec, which may not return. The goroutine that
	// sets it to false goes on with the call.
	foreign atomic.Bool
	over    atomic.Bool // its callers have been told, or are about to be
}

// told is what the hooks are told at the end.
type told struct {
	ended func(Flight) // nil without hooks
	trace string       // of the flight; "" without hooks
	kept  string       // the trace of the flight that MaxAge has kept
	lag   time.Duration
	cause string // why the function runs without the lease
}

// Causes of a fallback, besides the kinds of Redis' failures.
const (
	causeTooLarge     = protocol.TooLarge     // the outcome could not travel
	causeIncompatible = protocol.Incompatible // it is of another type or codec
	causeGarbage      = "garbage"
)

// state is a step of a call's way. run returns the next one; nil: the call has
// ended, or another goroutine goes on.
type state[V any] interface {
	run(c *call[V]) state[V]
}

// fly starts a local flight, whose first caller arrived then and may leave when
// ctx ends. It returns its call, and what goes on with that on a goroutine of its own,
// unless that is under way.
//
// The first join is sent on the caller's own goroutine, where the client can't
// keep the caller for longer than its deadline and the Redis timeout: a wake-up
// before it costs as much as the join itself.
func (g *Group[V]) fly(ctx context.Context, joined local.Joined[string, result[V]], key string, arrived time.Time, fn func(context.Context) (V, error)) (c *call[V], goOn func()) {
	f := g.fleet
	if c = g.newCall(ctx, joined, key, arrived); c == nil {
		return nil, nil
	}
	c.fn = fn
	next := state[V](starting[V]{})
	if deadline, ok := ctx.Deadline(); f.link.Prompt() && (!ok || time.Until(deadline) > f.set.redisTimeout) {
		next = c.step(next)
		if join, ok := next.(joining[V]); ok {
			next = c.step(join)
		}
		if next == nil {
			return c, nil
		}
	}
	return c, func() { c.proceed(next) }
}

// newCall returns the call of a local flight that starts, or nil when the Fleet is closed:
// then the flight has ended.
func (g *Group[V]) newCall(ctx context.Context, joined local.Joined[string, result[V]], key string, arrived time.Time) *call[V] {
	flight := joined.Start(ctx).(*detached.Context)
	if err := g.fleet.inflight.enter(); err != nil {
		joined.End(result[V]{}, err, true).Tell()
		return nil
	}
	g.active.Add(1)
	return &call[V]{g: g, local: flight, ctx: flight, callers: joined, key: key, started: arrived, told: told{lag: protocol.UnknownLag}}
}

// starting is the first state.
type starting[V any] struct{}

func (starting[V]) run(c *call[V]) state[V] {
	g := c.g
	if g.hooks.traces() {
		c.ctx, c.told.trace, c.told.ended = g.hooks.begin(c.ctx, FlightStart{Group: g.name, Key: c.key})
	}
	c.names = protocol.NewNames(g.space, c.key)
	c.deadline.First, c.deadline.Until = c.ctx, c.started.Add(g.set.flightTimeout)
	g.fleet.expiries.Set(&c.expiry, c, c.deadline.Until)
	select {
	case <-g.fleet.abandon:
		c.handle(closing)
	default:
	}
	if !c.asks() {
		return unasked[V]{}
	}
	return joining[V]{}
}

// OnExpire makes call a timers.Owner.
func (c *call[V]) OnExpire(t *timers.Timer) {
	if t == &c.running.renewal {
		defer func() {
			if value := recover(); value != nil {
				c.lostBeside(lost.Error(value))
			}
		}()
		c.renew()
		return
	}
	c.deadline.End(context.DeadlineExceeded)
	if run := c.running.of(); run != nil {
		run.ctx.End(context.DeadlineExceeded)
	}
	c.batch.hasten()
	c.handle(late)
}

// proceed goes on until the call has ended, or another goroutine goes on.
func (c *call[V]) proceed(next state[V]) {
	for next != nil {
		next = c.step(next)
	}
}

func (c *call[V]) step(current state[V]) (next state[V]) {
	returned := false
	defer func() {
		if returned {
			return
		}
		value := recover()
		next = nil
		if value == nil && c.hasBegun() {
			return // the function exits, which has been handled
		}
		c.lost(lost.Error(value))
	}()
	next = current.run(c)
	returned = true
	return next
}

// lost ends a call that panicked itself, or whose goroutine exits: a hook, a codec or
// a log handler did that. The function's panics are caught where it runs. When the call
// has ended, its callers can't be told.
func (c *call[V]) lost(err error) {
	began := c.stopped()
	if !began && !c.over.Load() && c.mayHold {
		c.background(func() { c.abandon(true) })
	}
	// A panic is everybody's; that a hook or a codec ends its goroutine is an error.
	if !c.endWith(result[V]{}, err, err == coalesce.ErrGoexit) {
		c.logLost(err)
	}
}

// beside is a state that does something and ends nothing.
type beside[V any] func()

func (f beside[V]) run(*call[V]) state[V] {
	f()
	return nil
}

// background has f done by another goroutine, beside what the call does, and keeps
// Close waiting for it. The call has not ended, or its goroutine has entered.
func (c *call[V]) background(f func()) {
	fleet := c.g.fleet
	fleet.inflight.add()
	fleet.workers.Run(func() {
		defer fleet.inflight.leave()
		c.proceed(beside[V](f))
	})
}

// logLost is for a panic or an exit of which no caller can be told any more.
func (c *call[V]) logLost(err error) {
	defer func() { _ = recover() }() // of the log handler, perhaps again
	c.g.fleet.set.log.Error("fleetcall: panic after the end of a call", c.attrs(slog.Any("error", err))...)
}

// end is the last state.
func (c *call[V]) end(r result[V], err error) state[V] {
	c.endWith(r, err, true)
	return nil
}

// endWith ends the call and then its callers' wait, unless that has been done.
func (c *call[V]) endWith(r result[V], err error, returned bool) bool {
	ended, first := c.complete(r, err, returned)
	ended.Tell()
	return first
}

// complete ends the call, unless that has been done. Its callers are to be told.
func (c *call[V]) complete(r result[V], err error, returned bool) (ended local.Ended, first bool) {
	if c.over.Swap(true) {
		return local.Ended{}, false
	}
	f := c.g.fleet
	f.expiries.Stop(&c.expiry)
	c.deadline.End(context.Canceled)
	c.running.leaveRun()
	c.batch.settle()
	c.ran()
	r.trace, r.timeout, r.lost = c.told.trace, c.g.set.flightTimeout, !returned
	if c.told.ended != nil {
		exits := true
		defer func() {
			if exits { // a hook does that: an error, as elsewhere
				c.close(result[V]{}, coalesce.ErrGoexit, true).Tell()
			}
		}()
		func() {
			defer func() {
				if value := recover(); value != nil {
					err, returned, r.lost = lost.Error(value), false, true
				}
			}()
			c.told.ended(c.summary(r, err))
		}()
		exits = false
	}
	return c.close(r, err, returned), true
}

// close ends the local flight of a call that is over.
func (c *call[V]) close(r result[V], err error, returned bool) local.Ended {
	c.count(r.role, err)
	c.g.active.Add(-1)
	c.g.fleet.inflight.leave()
	ended := c.callers.End(r, err, returned)
	c.running.mu.Lock()
	c.callers = local.Joined[string, result[V]]{} // it holds the result, and the function's context may be kept
	c.running.mu.Unlock()
	if c.waiter != nil {
		c.waiter.Close() // not before: nobody joins any more who had to hear of a Forget
	}
	return ended
}

// summary is what the hooks are told of the call's end.
func (c *call[V]) summary(r result[V], err error) Flight {
	f := Flight{
		Group: c.g.name, Key: c.key, Flight: r.flight, Role: r.role, Cause: c.told.cause,
		Takeover: c.vanished != "" && r.role == coalesce.Leader,
		Err:      err, Wait: time.Since(c.started), Lag: protocol.UnknownLag,
	}
	switch f.Role {
	case coalesce.RemoteFollower:
		f.Lag = c.told.lag
	case coalesce.Cached:
		f.Kept = c.told.kept
	}
	return f
}

func (c *call[V]) count(role coalesce.Role, err error) {
	g := c.g
	switch role {
	case coalesce.Leader:
		g.leaders.Add(1)
		if c.heat.unasked {
			g.unasked.Add(1)
		}
		if c.vanished != "" {
			g.takeovers.Add(1)
		}
	case coalesce.RemoteFollower:
		g.followers.Add(1)
	case coalesce.Cached:
		g.cached.Add(1)
	case coalesce.Fallback:
		g.fallbacks.Add(1)
	default:
		g.noRole.Add(1)
	}
	if err != nil {
		g.counters.errors.Add(1)
	}
}

// flight is the id of the flight that this call leads, if it comes to that.
func (c *call[V]) flight() string { return c.names.Flight() }

// leaseIs tells the hooks of a change of the call's lease.
func (c *call[V]) leaseIs(state LeaseState, asked time.Time) {
	c.g.hooks.leaseIs(Lease{Group: c.g.name, Key: c.key, Flight: c.flight(), State: state, Asked: asked})
}

// attrs are what every log line of a call says.
func (c *call[V]) attrs(more ...any) []any {
	const shown = 64
	key := c.key
	if len(key) > shown {
		key = key[:shown] + "…"
	}
	return append([]any{
		slog.String("replica", c.g.fleet.set.replicaID),
		slog.String("group", c.g.name),
		slog.String("key", fmt.Sprintf("%q", key)),
		slog.String("flight", c.flight()),
	}, more...)
}
