package distributed

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"time"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/internal/detached"
	"github.com/fleetcall/fleetcall/coalesce/local"
)

// call is one local flight's way through the protocol. It is in one of these
// states, each a method that returns the next:
//
//	joining → leading    the lease is ours: run the function
//	        → following  another flight has it: wait for its outcome
//	        → alone      Redis cannot be used: run the function without it
//	following → joining  the flight went away without an outcome
//	          → alone    Redis cannot be used, or could not carry the outcome
//
// It has one goroutine at a time. Where that is stuck in the Redis client,
// another takes its place; while it runs the function, happens decides what
// becomes of the call.
type call[V any] struct {
	g       *Group[V]
	local   *detached.Context // ends when the last local caller has left
	ctx     context.Context   // has the values of local, and the observer's
	fn      func(context.Context) (V, error)
	callers local.Joined[string, result[V]] // of the local flight
	key     string
	keys    keys
	names   names
	flight  string // the id of the flight this call leads, if it comes to that
	// deadline ends with the flight timeout. The function runs under it.
	deadline detached.Timed
	expiry   alarm // of deadline
	started  time.Time

	asked *request       // the join that is on its way
	ended []*endedFlight // of this replica, when it was sent

	waiter  *waiter // on the key's channel, if it was subscribed before the join
	leader  string  // the flight that is followed
	ttl     time.Duration
	attempt int64
	begun   int64 // µs of Redis' clock: when the lease was taken
	clock   redisClock
	led     time.Time // when this was known here
	lost    bool      // a followed flight went away without an outcome
	unsure  bool      // the join failed, and may have taken the lease all the same
	renewal alarm

	observed func(Flight) // nil when nobody observes
	trace    string       // "" when nobody observes; else "+" and what goes with the lease
	kept     string       // the trace of the flight that MaxAge has kept
	lag      time.Duration
	unusable bool   // what MaxAge kept cannot be read here
	cause    string // why the function runs without the lease

	running execution[V]
	over    atomic.Bool // its callers have been told, or are about to be
}

// Causes of a fallback, besides the kinds of Redis' failures.
const (
	causeTooLarge = "too large" // the outcome could not travel, or is of another version or codec
	causeGarbage  = "garbage"
)

type state[V any] func(*call[V]) state[V]

// fly starts a local flight, whose first caller arrived then and may leave when
// ctx ends. It returns what goes on with it, on a goroutine of its own, unless
// that is under way.
//
// The first join is sent on the caller's own goroutine, where the client can't
// keep the caller for longer than its deadline and the Redis timeout: a wake-up
// before it costs as much as the join itself.
func (g *Group[V]) fly(ctx context.Context, joined local.Joined[string, result[V]], key string, arrived time.Time, fn func(context.Context) (V, error)) (goOn func()) {
	flight := joined.Start(ctx).(*detached.Context)
	if err := g.enter(); err != nil {
		joined.End(result[V]{}, err, true).Tell()
		return nil
	}
	g.active.Add(1)
	c := &call[V]{g: g, local: flight, ctx: flight, fn: fn, callers: joined, key: key, started: arrived, lag: unknownLag}
	next := state[V]((*call[V]).starting)
	if deadline, ok := ctx.Deadline(); g.redis.prompt && (!ok || time.Until(deadline) > g.set.redisTimeout) {
		for range 2 { // starting and joining
			if next = c.step(next); next == nil {
				return nil
			}
		}
	}
	return func() { c.proceed(next) }
}

// starting is the first state.
func (c *call[V]) starting() state[V] {
	g := c.g
	if g.set.observer != nil {
		c.ctx, c.trace, c.observed = g.observeFlight(c.ctx, c.key)
	}
	c.keys = newKeys(g.set.namespace, c.key)
	c.flight, c.names = c.keys.flight(), c.keys.names()
	c.deadline.First, c.deadline.Until = c.ctx, c.started.Add(g.set.flightTimeout)
	g.expiries.set(&c.expiry, c, c.deadline.Until)
	select {
	case <-g.abandon:
		c.happens(closing)
	default:
	}
	return (*call[V]).joining
}

// rings makes call a ringer.
func (c *call[V]) rings(a *alarm) {
	if a == &c.renewal {
		defer func() {
			if value := recover(); value != nil {
				c.broke(value)
			}
		}()
		c.renew()
		return
	}
	c.deadline.End(context.DeadlineExceeded)
	c.happens(late)
}

// proceed goes on until the call has ended, or another goroutine goes on.
func (c *call[V]) proceed(next state[V]) {
	for next != nil {
		next = c.step(next)
	}
}

func (c *call[V]) step(current state[V]) (next state[V]) {
	defer func() {
		if value := recover(); value != nil {
			c.panicked(value)
			next = nil
		}
	}()
	return current(c)
}

// panicked ends a call that panicked itself: an observer or a log handler did. The
// function's panics are caught where it runs. When the call has ended, its
// callers can't be told.
func (c *call[V]) panicked(value any) {
	err := &coalesce.PanicError{Value: value, Stack: debug.Stack()}
	began := c.stopped()
	if !began && !c.over.Load() && (c.asked != nil || c.unsure || c.attempt > 0) {
		// Nothing else releases the lease that the join may have taken.
		c.background(func() { c.abandon(true) })
	}
	if !c.endWith(result[V]{}, err, false) {
		c.logPanic(err)
	}
}

// background has f done by another goroutine, beside what the call does, and keeps
// Close waiting for it. The call has not ended, or its goroutine has entered.
func (c *call[V]) background(f func()) {
	c.g.hold()
	c.g.workers.run(func() {
		defer c.g.leave()
		c.proceed(func(*call[V]) state[V] {
			f()
			return nil
		})
	})
}

// logPanic is for a panic of which nobody can be told any more.
func (c *call[V]) logPanic(err *coalesce.PanicError) {
	c.g.set.log.Error("fleetcall: panic after the end of a call", c.attrs(slog.Any("error", err))...)
}

// end is the last state.
func (c *call[V]) end(r result[V], err error) state[V] {
	c.endWith(r, err, true)
	return nil
}

// endWith ends the call and then its callers' wait, unless that has been done.
func (c *call[V]) endWith(r result[V], err error, returned bool) bool {
	ended, first := c.land(r, err, returned)
	ended.Tell()
	return first
}

// land ends the call, unless that has been done. Its callers are to be told.
func (c *call[V]) land(r result[V], err error, returned bool) (ended local.Ended, first bool) {
	if c.over.Swap(true) {
		return local.Ended{}, false
	}
	c.g.expiries.stop(&c.expiry)
	c.deadline.End(context.Canceled)
	r.trace = c.ownTrace()
	if c.waiter != nil {
		c.waiter.close()
	}
	if c.observed != nil {
		func() {
			defer func() {
				if value := recover(); value != nil {
					err, returned = &coalesce.PanicError{Value: value, Stack: debug.Stack()}, false
				}
			}()
			c.observed(c.seen(r, err))
		}()
	}
	c.count(r.role, err)
	c.g.active.Add(-1)
	c.g.leave()
	ended = c.callers.End(r, err, returned)
	c.callers = local.Joined[string, result[V]]{} // it holds the result, and the function's context may be kept
	return ended, true
}

func (c *call[V]) count(role coalesce.Role, err error) {
	g := c.g
	switch role {
	case coalesce.Leader:
		g.leaders.Add(1)
		if c.lost {
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

func (c *call[V]) joining() state[V] {
	g := c.g
	if err := c.local.Err(); err != nil {
		return c.end(result[V]{}, err)
	}
	if c.deadline.Err() != nil {
		return c.end(result[V]{}, coalesce.ErrFlightTimeout)
	}
	if c.waiter == nil {
		c.waiter = g.subs.existing(c.keys.channel())
	}
	maxAge := g.set.args.maxAge
	if c.unusable {
		maxAge = 0
	}
	done, err := g.redis.may()
	if err != nil {
		return c.withoutRedis(err)
	}
	c.ended = g.finishing.on(c.keys.channel())
	n := &c.names
	r := g.redis.request(c.ctx, 0, joinScript, []any{"evalsha", joinScript.hash, 4,
		n.lease, n.attempts, n.latest, n.detached,
		n.flight, g.set.args.replicaID, g.set.args.leaseTTL, g.set.args.flightTimeout,
		g.set.args.attempts, maxAge, c.keys.results(), c.trace})
	r.breaker = done
	r.then = func() { g.workers.run(func() { c.proceed((*call[V]).joined) }) }
	c.asked = r
	if !g.redis.sender.sendHere(r) {
		return nil
	}
	return c.joined()
}

// joined goes on when the join has been answered.
func (c *call[V]) joined() state[V] {
	g, sent, ended := c.g, c.asked.began, c.ended
	reply, err := g.redis.result(c.asked)
	c.asked, c.ended = nil, nil
	word, rest, err := words(reply, err)
	if err != nil {
		c.unsure = !neverSent(err)
		return c.withoutRedis(err)
	}
	switch word {
	case "lead":
		c.attempt, c.begun, c.led = number(rest, 0), number(rest, 1), time.Now()
		c.clock = newRedisClock(c.begun, sent, c.led)
		c.leaseIs(LeaseTaken, sent)
		return (*call[V]).leading
	case "follow":
		c.leader, c.ttl = text(rest, 0), time.Duration(number(rest, 1))*time.Millisecond
		for _, e := range ended {
			if e.flight == c.leader {
				return func(c *call[V]) state[V] { return c.afterOwn(e) } // takes its time
			}
		}
		if g.set.observer != nil {
			c.clock = newRedisClock(number(rest, 2), sent, time.Now())
			g.set.observer.Followed(c.ctx, Followed{Key: c.key, Flight: c.leader, Trace: traceOf(text(rest, 3))})
		}
		return (*call[V]).following
	case "done":
		o, err := decodeOutcome(text(rest, 0))
		if err == nil && o.kind == kindValue && o.codec == g.set.codec.Name() {
			c.leader, c.kept = strings.Clone(o.flight), traceOf(text(rest, 2))
			finished := finishedAt(sent, number(rest, 1))
			return func(c *call[V]) state[V] { return c.receive(o, coalesce.Cached, finished) } // large ones take their time
		}
		g.garbage.Add(1)
		return c.withoutLatest()
	case "poisoned":
		if g.poisoned.now() {
			g.set.log.ErrorContext(c.ctx, "fleetcall: key is poisoned", c.attrs(slog.Int64("attempts", number(rest, 0)))...)
		}
		return c.end(result[V]{}, coalesce.ErrPoisoned)
	}
	return c.withoutRedis(fmt.Errorf("%w: unexpected reply %q", coalesce.ErrUnavailable, word))
}

// afterOwn waits until the flight that this replica has ended is ended in
// Redis too. Its result went to callers who had come before; this one must not
// get it. Redis answers again: if it did not take the release before, it may
// now.
func (c *call[V]) afterOwn(e *endedFlight) state[V] {
	wanted, released := c.g.finishing.wait(e)
	select {
	case wanted <- struct{}{}:
	default: // somebody has asked
	}
	late := time.NewTimer(c.g.set.redisTimeout)
	defer late.Stop()
	select {
	case <-released:
		return (*call[V]).joining
	case <-late.C:
		return c.withoutRedis(fmt.Errorf("%w: %w", coalesce.ErrUnavailable, context.DeadlineExceeded))
	case <-c.local.Done():
		return c.end(result[V]{}, c.local.Err())
	case <-c.deadline.Done():
		return c.end(result[V]{}, coalesce.ErrFlightTimeout)
	case <-c.g.abandon:
		return c.end(result[V]{}, coalesce.ErrClosed)
	}
}

// withoutLatest joins as if MaxAge had kept nothing: what it kept is garbage, or
// of another codec, and the flight that is joined or led now replaces it.
func (c *call[V]) withoutLatest() state[V] {
	c.unusable = true
	return (*call[V]).joining
}

func (c *call[V]) withoutRedis(err error) state[V] {
	if c.g.set.failClosed {
		return c.end(result[V]{}, err)
	}
	return c.goAlone(failureKind(err))
}

func (c *call[V]) goAlone(cause string) state[V] {
	c.cause = cause
	return (*call[V]).alone
}

// finishedAt turns the age that an outcome had in Redis into a moment of this
// process's clock. Counted from before the question was sent, it is never
// later than the true one.
func finishedAt(sent time.Time, ageMicros int64) time.Time {
	return sent.Add(-time.Duration(ageMicros) * time.Microsecond)
}

// receive ends the call with an outcome of another flight.
func (c *call[V]) receive(o outcome, role coalesce.Role, finished time.Time) state[V] {
	g := c.g
	if role == coalesce.RemoteFollower && g.set.observer != nil {
		c.lag = c.clock.since(o.finished, g.set.flightTimeout)
	}
	switch o.kind {
	case kindValue:
		if o.codec != g.set.codec.Name() {
			return c.goAlone(causeTooLarge)
		}
		r := result[V]{role: role, flight: c.leader, finished: finished}
		if err := unmarshal(g.set.codec, o.payload, &r.val); err != nil {
			g.garbage.Add(1)
			if g.undecoded.now() {
				g.set.log.WarnContext(c.ctx, "fleetcall: result cannot be decoded", c.attrs(slog.Any("error", err))...)
			}
			if role == coalesce.Cached {
				return c.withoutLatest()
			}
			return c.goAlone(causeGarbage)
		}
		return c.end(r, nil)
	case kindError, kindPanic:
		remote, err := o.remoteError()
		if err != nil {
			g.garbage.Add(1)
			return c.goAlone(causeGarbage)
		}
		return c.end(result[V]{role: role, flight: c.leader, finished: finished}, remote)
	case kindAbandoned:
		c.lost = true
		return (*call[V]).joining
	}
	return c.goAlone(causeTooLarge)
}

// unmarshal makes a panic of the codec an error: garbage must hurt nobody.
func unmarshal(codec coalesce.Codec, data []byte, v any) (err error) {
	defer recoverAs(&err)
	return codec.Unmarshal(data, v)
}

// marshal makes a panic of the codec an error: nobody could recover it where
// outcomes are encoded.
func marshal(codec coalesce.Codec, v any) (b []byte, err error) {
	defer recoverAs(&err)
	return codec.Marshal(v)
}

func recoverAs(err *error) {
	if value := recover(); value != nil {
		*err = fmt.Errorf("fleetcall: panic: %v", value)
	}
}

// leaseIs tells the observer of a change of the call's lease.
func (c *call[V]) leaseIs(state LeaseState, asked time.Time) {
	if c.g.set.observer != nil {
		c.g.set.observer.Lease(Lease{Key: c.key, Flight: c.flight, State: state, Asked: asked})
	}
}

// attrs are what every log line of a call says.
func (c *call[V]) attrs(more ...any) []any {
	const shown = 64
	key := c.key
	if len(key) > shown {
		key = key[:shown] + "…"
	}
	return append([]any{
		slog.String("replica", c.g.set.replicaID),
		slog.String("key", fmt.Sprintf("%q", key)),
		slog.String("flight", c.flight),
	}, more...)
}
