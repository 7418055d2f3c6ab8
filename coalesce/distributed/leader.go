package distributed

import (
	"context"
	"fmt"
	"log/slog"
	"runtime"
	"runtime/debug"
	"sync"
	"time"

	"fleetcall/coalesce"
)

// returned is how a caller's function ended.
type returned[V any] struct {
	val      V
	err      error
	panicked *coalesce.PanicError
	exited   bool      // by runtime.Goexit
	ended    time.Time // no later than any caller returned
}

// leading runs the function with the lease.
func (c *call[V]) leading() state[V] {
	if c.lost {
		c.g.set.log.InfoContext(c.ctx, "fleetcall: took over", c.attrs(slog.String("from", c.leader), slog.Int64("attempt", c.attempt))...)
	}
	c.renewal = c.renew()
	defer c.renewal.stop()
	return c.execute(coalesce.Leader)
}

// alone runs the function without the lease. If the join may have taken it all
// the same, it is given up at once: nobody can tell from when the flight would
// be, nor so who joins it before its end.
func (c *call[V]) alone() state[V] {
	if c.unsure {
		c.g.background(func() { c.abandon(true) })
	}
	return c.execute(coalesce.Fallback)
}

// execute runs the function and ends the call with what came of it.
func (c *call[V]) execute(role coalesce.Role) state[V] {
	leased := role == coalesce.Leader
	g := c.g
	// The function has a goroutine of its own: it may ignore its context, and
	// its callers must not wait for it past the flight timeout.
	ends := make(chan returned[V], 1)
	go run(c.deadline, c.observe(role), ends)

	left := c.ctx.Done()
	for {
		select {
		case r := <-ends:
			return c.returned(r, role)
		case <-left:
			if !leased || c.abandon(false) {
				return c.end(result[V]{role: role}, c.ctx.Err())
			}
			left = nil // another replica waits
		case <-c.deadline.Done():
			if c.lost && leased {
				// The function had only what was left of the timeout after
				// the leader before it. Those who joined since have time.
				c.abandon(true)
				return c.end(result[V]{role: role}, coalesce.ErrFlightTimeout)
			}
			return c.returned(returned[V]{err: coalesce.ErrFlightTimeout, ended: time.Now()}, role)
		case <-g.abandon:
			if leased {
				c.abandon(true)
			}
			return c.end(result[V]{role: role}, coalesce.ErrClosed)
		}
	}
}

// observe wraps the function for the observer.
func (c *call[V]) observe(role coalesce.Role) func(context.Context) (V, error) {
	observer := c.g.set.observer
	if observer == nil {
		return c.fn
	}
	return observeFunction(observer, Run{Key: c.key, Flight: c.flight, Role: role, Cause: c.cause, Takeover: c.lost}, c.fn)
}

func observeFunction[V any](observer Observer, run Run, fn func(context.Context) (V, error)) func(context.Context) (V, error) {
	return func(ctx context.Context) (val V, err error) {
		ctx, ended := observer.Run(ctx, run)
		err = coalesce.ErrGoexit
		defer func() {
			if value := recover(); value != nil {
				panicked := asPanic(value)
				ended(panicked)
				panic(panicked)
			}
			ended(err)
		}()
		return fn(ctx)
	}
}

// asPanic returns what a function panicked with as the tiers hand it on.
func asPanic(value any) *coalesce.PanicError {
	if panicked, ok := value.(*coalesce.PanicError); ok {
		return panicked
	}
	return &coalesce.PanicError{Value: value, Stack: debug.Stack()}
}

// run calls fn so that every way it may end arrives.
func run[V any](ctx context.Context, fn func(context.Context) (V, error), ends chan<- returned[V]) {
	var r returned[V]
	done := false
	defer func() {
		if !done {
			if value := recover(); value != nil {
				r.panicked = &coalesce.PanicError{Value: value, Stack: debug.Stack()}
				if inner, ok := value.(*coalesce.PanicError); ok {
					r.panicked = inner
				}
			} else {
				r.exited = true
			}
		}
		r.ended = time.Now()
		ends <- r
	}()
	r.val, r.err = fn(ctx)
	done = true
}

// returned gives the result to the local callers and then, off their path, to
// the followers.
func (c *call[V]) returned(r returned[V], role coalesce.Role) state[V] {
	if role == coalesce.Leader {
		c.renewal.stop()
		wanted, released := c.g.finishing.add(c.keys.channel, c.flight)
		// Another local flight may follow this one: after a Forget, a
		// reconnect, or when this one's callers have left. Those who come
		// from now on must not join that either.
		c.g.local.Forget(c.key)
		c.g.background(func() {
			defer released()
			c.finish(r, wanted)
		})
	}
	c.end(result[V]{val: r.val, role: role, flight: c.flight, finished: r.ended}, r.err)
	switch {
	case r.panicked != nil:
		c.err = r.panicked
		panic(r.panicked)
	case r.exited:
		c.err = coalesce.ErrGoexit
		runtime.Goexit()
	}
	return nil
}

// outcome is how the function ended, as it travels. An error whose methods
// panic, such as a nil pointer, cannot.
func (c *call[V]) outcome(r returned[V]) (o outcome) {
	set := &c.g.set
	defer func() {
		if value := recover(); value != nil {
			err := fmt.Errorf("fleetcall: the function returned an error that panics: %v", value)
			o = errorOutcome(kindError, c.flight, err)
		}
	}()
	o = outcome{kind: kindTooLarge, flight: c.flight}
	switch {
	case r.panicked != nil:
		o = errorOutcome(kindPanic, c.flight, fmt.Errorf("%w: %v", coalesce.ErrRemotePanic, r.panicked.Value))
	case r.exited:
		o = errorOutcome(kindError, c.flight, coalesce.ErrGoexit)
	case r.err != nil:
		o = errorOutcome(kindError, c.flight, r.err)
	default:
		payload, err := marshal(set.codec, r.val)
		if err != nil {
			set.log.ErrorContext(c.ctx, "fleetcall: result cannot be encoded; followers run their own", c.attrs(slog.Any("error", err))...)
			break
		}
		if len(payload) <= set.payloadLimit {
			o = outcome{kind: kindValue, flight: c.flight, codec: set.codec.Name(), payload: payload}
		}
	}
	if len(o.payload) > set.payloadLimit {
		o = outcome{kind: kindTooLarge, flight: c.flight}
	}
	return o
}

// finish releases the lease and publishes the outcome. While Redis does not
// take it, it tries again: for as long as the flight timeout, because until it
// is released the flight counts as one whose leader died; when the group is
// closing, for as long as the lease.
//
// A try that fails may leave the lease for others to join, though the function
// has ended, and a try that was given up may still reach Redis, late. They must
// not get its result: from the second try on, or over an age, followers are only
// given notice, and learn the outcome's age as they fetch it.
func (c *call[V]) finish(r returned[V], wanted <-chan struct{}) {
	g := c.g
	o := c.outcome(r)
	o.finished = c.clock.at(r.ended)
	encoded := o.encode()
	notice := outcome{kind: kindNotice, flight: c.flight, finished: o.finished}.encode()
	message := "inline"
	if len(o.payload) > g.set.inlineLimit {
		message = "notice"
	}
	maxAge := int64(0)
	if o.kind == kindValue {
		maxAge = g.set.maxAge.Milliseconds()
	}
	// By Redis' clock; too early by the time that the reply to the join took.
	earliest := c.begun + r.ended.Sub(c.led).Microseconds()
	k := c.keys
	err := c.insist(g.set.flightTimeout, wanted, func() error {
		_, err := g.redis.mustRun(c.ctx, finishScript,
			[]string{k.lease, k.attempts, k.result(c.flight), k.latest, k.detached(c.flight)},
			c.flight, encoded, notice, k.channel, g.subs.publish, message,
			g.set.handoffTTL().Milliseconds(), maxAge,
			earliest, time.Since(r.ended).Microseconds(), g.set.redisTimeout.Microseconds())
		message = "again"
		return err
	})
	if err != nil {
		g.set.log.WarnContext(c.ctx, "fleetcall: outcome could not be shared", c.attrs(slog.Any("error", err))...)
	}
}

// insist sends a step that releases the lease until Redis takes it, for up to
// limit. It tries again at once when it is wanted.
func (c *call[V]) insist(limit time.Duration, wanted <-chan struct{}, send func() error) error {
	g := c.g
	began := time.Now()
	for wait := g.set.redisTimeout / 4; ; wait = min(2*wait, time.Second) {
		asked := time.Now()
		err := send()
		if err == nil {
			c.leaseIs(LeaseReleased, asked)
			return nil
		}
		if g.closing() {
			limit = min(limit, g.set.leaseTTL)
		}
		if time.Since(began) > limit {
			return err
		}
		select {
		case <-time.After(wait):
		case <-wanted:
		case <-g.abandon:
			return err
		}
	}
}

// abandon gives the flight up. Unless forced, it does not when a follower
// waits, and says so by false. When Redis cannot tell, nobody else is known to
// wait, and Redis is told once it can be, while the lease may live.
func (c *call[V]) abandon(forced bool) bool {
	asked := time.Now()
	abandoned, err := c.sendAbandon(forced)
	switch {
	case err != nil:
		c.g.background(func() {
			_ = c.insist(c.g.set.leaseTTL, nil, func() error {
				_, err := c.sendAbandon(true)
				return err
			})
		})
		return true
	case abandoned:
		c.leaseIs(LeaseReleased, asked)
	}
	return abandoned
}

func (c *call[V]) sendAbandon(forced bool) (abandoned bool, err error) {
	force := 0
	if forced {
		force = 1
	}
	k := c.keys
	reply, err := c.g.redis.mustRun(c.ctx, abandonScript,
		[]string{k.lease, k.attempts, k.detached(c.flight)},
		c.flight, outcome{kind: kindAbandoned, flight: c.flight}.encode(), k.channel, force, c.g.subs.publish,
		c.g.set.handoffTTL().Milliseconds())
	done, _ := reply.(int64)
	return done == 1, err
}

// renewal extends a lease at every third of its TTL. Its timer first fires
// then: a shorter flight costs nothing.
type renewal struct {
	mu      sync.Mutex
	stopped bool
	timer   *time.Timer
}

func (c *call[V]) renew() *renewal {
	g := c.g
	every := g.set.leaseTTL / 3
	r := &renewal{}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.timer = time.AfterFunc(every, func() {
		r.mu.Lock()
		if r.stopped {
			r.mu.Unlock()
			return
		}
		g.hold()
		r.mu.Unlock()
		defer g.leave()

		asked := time.Now()
		reply, err := g.redis.mustRun(c.ctx, renewScript,
			[]string{c.keys.lease, c.keys.detached(c.flight)}, c.flight, g.set.leaseTTL.Milliseconds())
		held, _ := reply.(int64)

		r.mu.Lock()
		defer r.mu.Unlock()
		switch {
		case r.stopped:
			// A finish that overtook this renewal released the lease.
		case err == nil && held == 0:
			g.leaseLost.Add(1)
			c.leaseIs(LeaseLost, asked)
			g.set.log.WarnContext(c.ctx, "fleetcall: lease lost", c.attrs()...)
		default:
			if err == nil {
				c.leaseIs(LeaseRenewed, asked)
			}
			r.timer.Reset(every)
		}
	})
	return r
}

func (r *renewal) stop() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stopped = true
	r.timer.Stop()
}
