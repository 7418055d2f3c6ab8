package distributed

import (
	"context"
	"fmt"
	"log/slog"
	"runtime"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/internal/detached"
	"github.com/fleetcall/fleetcall/coalesce/internal/lost"
)

// returned is how a caller's function ended.
type returned[V any] struct {
	val   V
	err   error
	lost  bool      // it did not return: err is a *coalesce.PanicError or coalesce.ErrGoexit
	ended time.Time // no later than any caller returned
}

// leading runs the function with the lease.
func (c *call[V]) leading() state[V] {
	if c.lost {
		c.g.set.log.InfoContext(c.ctx, "fleetcall: took over", c.attrs(slog.String("from", c.leader), slog.Int64("attempt", c.attempt))...)
	}
	c.running.leased = c.led
	c.renewAfter(c.led)
	return c.execute(coalesce.Leader)
}

// alone runs the function without the lease. If the join may have taken it all
// the same, it is given up at once: nobody can tell from when the flight would
// be, nor so who joins it before its end.
func (c *call[V]) alone() state[V] {
	if c.unsure {
		c.background(func() { c.abandon(true) })
	}
	return c.execute(coalesce.Fallback)
}

// event is what happens to a call whose function runs.
type event uint8

const (
	left    event = 1 << iota // its last local caller has left
	late                      // the flight timeout has passed
	closing                   // its replica waits no longer
	back                      // the function has ended
	broken                    // an observer or a log handler panicked beside it
	begins                    // the function is about to run: nothing is decided before
)

// execution is a call's while its function runs.
type execution[V any] struct {
	role     coalesce.Role
	watching detached.Callback // of the context that ends when the last local caller leaves

	mu       sync.Mutex
	began    bool
	happened event
	back     returned[V]
	broken   *coalesce.PanicError
	deciding bool // a goroutine is acting on what happened
	over     bool
	leased   time.Time // the lease was taken or, for all that is known, renewed by then
	lost     bool      // Redis has told that it has it no more
}

// execute runs the function on this goroutine, so that nobody has to be woken to
// start it, nor to take its result. It may ignore its context, and its callers
// do not wait for it past the flight timeout: then the call ends while this
// goroutine still runs.
func (c *call[V]) execute(role coalesce.Role) state[V] {
	e := &c.running
	e.role = role
	c.local.Notify(&e.watching, c)
	if c.local.Err() != nil {
		c.happens(left) // before the function begins, for nobody here
	}
	if c.happens(begins) {
		return nil
	}

	var r returned[V]
	did := false
	defer func() { // of a function that panics or exits, too
		if !did {
			r.lost, r.err = true, lost.Error(recover())
		}
		r.ended = time.Now()
		e.mu.Lock()
		e.back = r
		e.mu.Unlock()
		c.happens(back)
	}()
	fn := c.observe(role)
	c.fn = nil
	r.val, r.err = fn(&c.deadline)
	did = true
	return nil
}

// ContextEnded makes call a detached.Ender: its last local caller has left.
func (c *call[V]) ContextEnded() { c.happens(left) }

// broke ends the call, whose function may still run, with a panic that is not the
// function's.
func (c *call[V]) broke(value any) {
	e := &c.running
	err := &coalesce.PanicError{Value: value, Stack: debug.Stack()}
	e.mu.Lock()
	over := e.over
	e.broken = err
	e.mu.Unlock()
	if over {
		c.logPanic(err)
		return
	}
	c.happens(broken)
}

// happens notes an event, and acts on all that happened unless another goroutine
// does. It says whether the call is over.
func (c *call[V]) happens(ev event) (over bool) {
	e := &c.running
	defer func() {
		if value := recover(); value != nil { // nobody decides after it
			c.panicked(value)
			over = true
		}
	}()
	e.mu.Lock()
	e.happened |= ev &^ begins
	e.began = e.began || ev == begins
	if !e.began || e.deciding || e.over {
		defer e.mu.Unlock()
		if e.over && ev == back {
			e.back = returned[V]{} // nobody wants it
		}
		return e.over
	}
	e.deciding = true
	var act func()
	for act == nil && e.happened != 0 {
		happened := e.happened
		e.happened = 0
		e.mu.Unlock()
		act = c.decide(happened)
		e.mu.Lock()
	}
	e.deciding = false
	e.over = act != nil
	e.mu.Unlock()
	if act == nil {
		return false
	}
	c.stopped()
	act()
	return true
}

// stopped lets go of what goes on while the function runs, and says if that has
// begun.
func (c *call[V]) stopped() (began bool) {
	e := &c.running
	e.mu.Lock()
	e.over, began = true, e.began
	e.mu.Unlock()
	c.local.Dismiss(&e.watching)
	c.g.renewals.stop(&c.renewal)
	return began
}

// decide returns how the call ends; nil: the function goes on.
func (c *call[V]) decide(happened event) func() {
	e := &c.running
	leased := e.role == coalesce.Leader
	none := result[V]{role: e.role}
	switch {
	case happened&broken != 0:
		return func() {
			defer c.endWith(none, e.broken, false)
			if leased {
				c.abandon(true)
			}
		}
	case happened&back != 0:
		return c.cameBack
	case happened&closing != 0:
		return func() {
			if leased {
				c.abandon(true)
			}
			c.end(none, coalesce.ErrClosed)
		}
	case happened&late != 0 && c.lost && leased:
		// The function had only what was left of the timeout after the leader
		// before it. Those who joined since have time.
		return func() {
			c.abandon(true)
			c.end(none, coalesce.ErrFlightTimeout)
		}
	case happened&late != 0:
		return func() { c.returned(returned[V]{err: coalesce.ErrFlightTimeout, ended: time.Now()}) }
	case !leased || c.abandon(false):
		return func() { c.end(none, c.local.Err()) }
	}
	return nil // another replica waits
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
				panicked := lost.Error(value)
				ended(panicked)
				panic(panicked)
			}
			ended(err)
		}()
		return fn(ctx)
	}
}

// fewCallers are so many that their turn comes before the followers'. Telling a
// herd, and the turns of all of its callers, would keep the outcome from the
// followers, while others join a flight that has ended.
const fewCallers = 8

// cameBack takes what the function returned.
func (c *call[V]) cameBack() {
	r := c.running.back
	c.running.back = returned[V]{}
	c.returned(r)
}

// returned gives the result to the local callers, and to the followers.
func (c *call[V]) returned(r returned[V]) {
	g := c.g
	result := result[V]{val: r.val, role: c.running.role, flight: c.flight, finished: r.ended}
	if c.running.role != coalesce.Leader {
		c.endWith(result, r.err, !r.lost)
		return
	}
	ended := g.finishing.add(c.keys.channel(), c.flight, r.ended)
	// Another local flight may follow this one: after a Forget, a reconnect, or
	// when this one's callers have left. Those who come from now on must not join
	// that either.
	g.local.Forget(c.key)
	g.hold()
	landed, _ := c.land(result, r.err, !r.lost)
	if landed.Callers > fewCallers {
		g.workers.run(func() {
			c.proceed(func(*call[V]) state[V] {
				c.finish(r, ended)
				return nil
			})
		})
		landed.Tell()
		return
	}
	landed.Tell()
	if !g.redis.sender.busy() {
		runtime.Gosched() // their turn; where the outcome has to wait for its own, they have it then
	}
	c.finish(r, ended)
}

// released is called once, when Redis has the end of a flight, or will not be
// told.
func (c *call[V]) released(ended *endedFlight) {
	c.g.finishing.release(c.keys.channel(), ended)
	c.g.leave()
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
	case r.lost && r.err != coalesce.ErrGoexit:
		o = errorOutcome(kindPanic, c.flight, fmt.Errorf("%w: %v", coalesce.ErrRemotePanic, r.err.(*coalesce.PanicError).Value))
	case r.err != nil:
		o = errorOutcome(kindError, c.flight, r.err)
	default:
		payload, err := marshal(set.codec, r.val)
		if err != nil {
			if c.g.unencoded.now() {
				set.log.ErrorContext(c.ctx, "fleetcall: result cannot be encoded; followers run their own", c.attrs(slog.Any("error", err))...)
			}
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

// Places among the arguments of finish, and one of its replies.
const (
	finishMessage, finishAge = 13, 17
	finishLost               = int64(-1)
)

// finish releases the lease and publishes the outcome. While Redis does not
// take it, it tries again: for as long as the flight timeout, because until it
// is released the flight counts as one whose leader died; when the group is
// closing, for as long as the lease.
//
// A try that fails may leave the lease for others to join, though the function
// has ended, and a try that was given up may still reach Redis, late. They must
// not get its result: from the second try on, or over an age, followers are only
// given notice, and learn the outcome's age as they fetch it.
func (c *call[V]) finish(r returned[V], ended *endedFlight) {
	g := c.g
	asked := false
	defer func() {
		if !asked { // something panics
			c.released(ended)
		}
	}()
	o := c.outcome(r)
	o.finished = c.clock.at(r.ended)
	encoded := o.encode()
	notice := noticeOf(o, len(encoded)).encode()
	age, message := time.Since(r.ended), "inline"
	if len(o.payload) > g.set.inlineLimit || age > g.set.redisTimeout {
		// Too large, or too old to be given to whoever joined since.
		message = "notice"
	}
	maxAge := int64(0)
	if o.kind == kindValue {
		maxAge = g.set.maxAge.Milliseconds()
	}
	// By Redis' clock; too early by the time that the reply to the join took.
	earliest := c.begun + r.ended.Sub(c.led).Microseconds()
	expired := 0
	c.running.mu.Lock()
	if r.ended.Sub(c.running.leased) > g.set.leaseTTL {
		expired = 1
	}
	c.running.mu.Unlock()
	n := &c.names
	args := []any{"evalsha", finishScript.hash, 5,
		n.lease, n.attempts, c.keys.result(), n.latest, n.detached,
		n.flight, encoded, notice, c.keys.channel(), g.subs.publish, message,
		g.set.args.handoffTTL, maxAge,
		earliest, age.Microseconds(), allowed(g.set.redisTimeout, len(encoded)).Microseconds(), expired, c.ownTrace()}
	f := g.redis.request(c.ctx, len(encoded), finishScript, args)
	f.breaker = g.redis.must()
	f.then = func() {
		if f.err == nil && f.reply != finishLost && g.set.observer == nil {
			c.finished(f, ended) // takes no time
			return
		}
		g.workers.run(func() {
			c.proceed(func(*call[V]) state[V] {
				c.finished(f, ended)
				return nil
			})
		})
	}
	here := g.redis.sender.sendHere(f)
	asked = true
	if here {
		c.finished(f, ended)
	}
}

// finished goes on when the first try has been answered.
func (c *call[V]) finished(f *request, ended *endedFlight) {
	defer c.released(ended)
	g := c.g
	reply, err := g.redis.result(f)
	err = c.insist(g.set.flightTimeout, ended, f.began, err, func() (err error) {
		args := slices.Clone(f.args)
		args[finishMessage], args[finishAge] = "again", time.Since(ended.at).Microseconds()
		again := g.redis.request(c.ctx, f.bytes, finishScript, args)
		again.breaker = g.redis.must()
		reply, err = g.redis.wait(again)
		return err
	})
	if reply == finishLost {
		c.running.mu.Lock()
		defer c.running.mu.Unlock()
		c.loseLease(f.began)
	}
	if err != nil && g.unshared.now() {
		g.set.log.WarnContext(c.ctx, "fleetcall: outcome could not be shared", c.attrs(slog.Any("error", err))...)
	}
}

// insist sends a step that releases the lease until Redis takes it, for up to
// limit after the first try, which was asked then and ended with err. It tries
// again at once when somebody waits for the ended flight, which may be nil.
func (c *call[V]) insist(limit time.Duration, ended *endedFlight, asked time.Time, err error, send func() error) error {
	g := c.g
	began := asked
	for wait := g.set.redisTimeout / 4; ; wait = min(2*wait, time.Second) {
		if err == nil {
			c.leaseIs(LeaseReleased, asked)
			return nil
		}
		var wanted <-chan struct{}
		if ended != nil {
			wanted, _ = g.finishing.wait(ended)
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
		asked = time.Now()
		err = send()
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
		c.background(func() {
			_ = c.insist(c.g.set.leaseTTL, nil, asked, err, func() error {
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
		[]string{k.lease(), k.attempts(), k.detached()},
		c.flight, outcome{kind: kindAbandoned, flight: c.flight}.encode(), k.channel(), force, c.g.subs.publish,
		c.g.set.handoffTTL().Milliseconds())
	done, _ := reply.(int64)
	return done == 1, err
}

// renewAfter has the lease renewed when a third of its TTL has passed since then. A
// flight that is shorter costs nothing.
func (c *call[V]) renewAfter(then time.Time) {
	c.g.renewals.set(&c.renewal, c, then.Add(c.g.set.leaseTTL/3))
}

func (c *call[V]) renew() {
	g, e := c.g, &c.running
	e.mu.Lock()
	if e.over {
		e.mu.Unlock()
		return
	}
	g.hold()
	e.mu.Unlock()
	defer g.leave()

	asked := time.Now()
	reply, err := g.redis.mustRun(c.ctx, renewScript,
		[]string{c.keys.lease(), c.keys.detached()}, c.flight, g.set.leaseTTL.Milliseconds())
	held, _ := reply.(int64)

	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case e.over:
		// A finish that overtook this renewal released the lease, or tells that
		// it was lost.
	case err == nil && held == 0:
		c.loseLease(asked)
	default:
		if err == nil || !neverSent(err) { // then it may have been renewed
			e.leased = time.Now()
		}
		if err == nil {
			c.leaseIs(LeaseRenewed, asked)
		}
		c.renewAfter(time.Now())
	}
}

// loseLease tells that the lease has been lost, once. c.running is locked.
func (c *call[V]) loseLease(asked time.Time) {
	if c.running.lost {
		return
	}
	c.running.lost = true
	c.g.leaseLost.Add(1)
	c.leaseIs(LeaseLost, asked)
	c.g.set.log.WarnContext(c.ctx, "fleetcall: lease lost", c.attrs()...)
}
