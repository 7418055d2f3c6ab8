package distributed

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"fleetcall/coalesce"
)

// call is one local flight's way through the protocol. It is in one of these
// states, each a method that returns the next:
//
//	joining → leading    the lease is ours: run the function
//	        → following  another flight has it: wait for its outcome
//	        → alone      Redis cannot be used: run the function without it
//	following → joining  the flight went away without an outcome
//	          → alone    Redis cannot be used, or could not carry the outcome
type call[V any] struct {
	g      *Group[V]
	ctx    context.Context // ends when the last local caller has left
	fn     func(context.Context) (V, error)
	key    string
	keys   keys
	flight string // the id of the flight this call leads, if it comes to that
	// deadline ends with the flight timeout. The function runs under it.
	deadline context.Context
	started  time.Time

	waiter  *waiter // on the key's channel, if it was subscribed before the join
	leader  string  // the flight that is followed
	ttl     time.Duration
	attempt int64
	begun   int64 // µs of Redis' clock: when the lease was taken
	clock   redisClock
	led     time.Time // when this was known here
	lost    bool      // a followed flight went away without an outcome
	unsure  bool      // the join failed, and may have taken the lease all the same
	renewal *renewal

	trace    string // "" when nobody observes; else "+" and what goes with the lease
	lag      time.Duration
	unusable bool   // what MaxAge kept cannot be read here
	cause    string // why the function runs without the lease

	result result[V]
	err    error
}

// Causes of a fallback, besides the kinds of Redis' failures.
const (
	causeTooLarge = "too large" // the outcome could not travel, or is of another version or codec
	causeGarbage  = "garbage"
)

type state[V any] func(*call[V]) state[V]

// fly is the function of a local flight, whose first caller arrived then.
func (g *Group[V]) fly(ctx context.Context, key string, arrived time.Time, fn func(context.Context) (V, error)) (result[V], error) {
	leave, err := g.enter()
	if err != nil {
		return result[V]{}, err
	}
	defer leave()
	g.active.Add(1)
	defer g.active.Add(-1)

	trace, ended := "", (func(Flight))(nil)
	if g.set.observer != nil {
		ctx, trace, ended = g.observeFlight(ctx, key)
	}
	c := &call[V]{
		g: g, ctx: ctx, fn: fn, key: key,
		keys:    newKeys(g.set.namespace, key),
		started: arrived,
		trace:   trace,
		lag:     unknownLag,
	}
	var done context.CancelFunc
	c.deadline, done = context.WithDeadline(context.WithoutCancel(ctx), arrived.Add(g.set.flightTimeout))
	defer done()
	defer func() { // of a function that panics or exits, too
		if c.waiter != nil {
			c.waiter.close()
		}
		c.count()
		if ended != nil {
			ended(c.seen())
		}
	}()
	for next := state[V]((*call[V]).joining); next != nil; {
		next = next(c)
	}
	return c.result, c.err
}

// end is the last state.
func (c *call[V]) end(r result[V], err error) state[V] {
	c.result, c.err = r, err
	return nil
}

func (c *call[V]) count() {
	g := c.g
	g.requests.Add(1)
	switch c.result.role {
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
	}
	if c.err != nil {
		g.counters.errors.Add(1)
	}
}

func (c *call[V]) joining() state[V] {
	g := c.g
	if err := c.ctx.Err(); err != nil {
		return c.end(result[V]{}, err)
	}
	if c.deadline.Err() != nil {
		return c.end(result[V]{}, coalesce.ErrFlightTimeout)
	}
	if c.waiter == nil {
		c.waiter = g.subs.existing(c.keys.channel)
	}
	if c.flight == "" {
		c.flight = newFlightID()
	}
	maxAge := g.set.maxAge
	if c.unusable {
		maxAge = 0
	}
	ended := g.finishing.on(c.keys.channel)
	sent := time.Now()
	word, rest, err := words(g.redis.run(c.ctx, joinScript,
		[]string{c.keys.lease, c.keys.attempts, c.keys.latest, c.keys.detached(c.flight)},
		c.flight, g.set.replicaID, g.set.leaseTTL.Milliseconds(), g.set.flightTimeout.Milliseconds(),
		g.set.maxTakeovers+1, maxAge.Microseconds(), c.keys.results, c.trace))
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
				return c.afterOwn(e)
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
			c.leader = strings.Clone(o.flight)
			return c.receive(o, coalesce.Cached, finishedAt(sent, number(rest, 1)))
		}
		g.garbage.Add(1)
		return c.withoutLatest()
	case "poisoned":
		if now, last := time.Now().Unix(), g.poisonLogged.Load(); now > last && g.poisonLogged.CompareAndSwap(last, now) {
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
func (c *call[V]) afterOwn(e endedFlight) state[V] {
	select {
	case e.wanted <- struct{}{}:
	default: // somebody has asked
	}
	late := time.NewTimer(c.g.set.redisTimeout)
	defer late.Stop()
	select {
	case <-e.released:
		return (*call[V]).joining
	case <-late.C:
		return c.withoutRedis(fmt.Errorf("%w: %w", coalesce.ErrUnavailable, context.DeadlineExceeded))
	case <-c.ctx.Done():
		return c.end(result[V]{}, c.ctx.Err())
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
			g.set.log.WarnContext(c.ctx, "fleetcall: result cannot be decoded", c.attrs(slog.Any("error", err))...)
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
