package distributed

import (
	"context"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/internal/detached"
	"github.com/fleetcall/fleetcall/coalesce/internal/errtree"
	"github.com/fleetcall/fleetcall/coalesce/internal/lost"
	"github.com/fleetcall/fleetcall/coalesce/internal/protocol"
	"github.com/fleetcall/fleetcall/coalesce/internal/timers"
)

// leading runs the function with the lease.
type leading[V any] struct{ lease lease }

// lease is what Redis said when this flight took its lease.
type lease struct {
	attempt int64
	start   int64     // µs of Redis' clock
	taken   time.Time // when it was known here
	clock   *protocol.Clock
}

func (s leading[V]) run(c *call[V]) state[V] {
	if c.vanished != "" {
		c.g.fleet.set.log.InfoContext(c.ctx, "fleetcall: took over", c.attrs(slog.String("from", c.vanished), slog.Int64("attempt", s.lease.attempt))...)
	}
	c.running.lease, c.running.renewed = s.lease, s.lease.taken
	c.renewAfter(s.lease.taken)
	return c.execute(coalesce.Leader)
}

// fallback runs the function without the lease. If the join may have taken it all
// the same, it is given up at once: nothing tells from when the flight would
// be, nor so which callers join it before its end.
type fallback[V any] struct{ cause string }

func (s fallback[V]) run(c *call[V]) state[V] {
	c.told.cause = s.cause
	c.releaseUnsure()
	// It has nothing in Redis by which it could be told that the key is forgotten.
	if !c.g.fleet.isDown(c.names.Channel()) {
		c.listen()
		c.waiter.Mute()
	}
	return c.execute(coalesce.Fallback)
}

// releaseUnsure gives up the lease that a join may have taken whose reply is unknown.
func (c *call[V]) releaseUnsure() {
	if c.mayHold {
		c.mayHold = false
		c.background(func() { c.abandon(true) })
	}
}

// returned is how a caller's function ended.
type returned[V any] struct {
	val   V
	err   error
	lost  bool      // it did not return: err is a *coalesce.PanicError or coalesce.ErrGoexit
	ended time.Time // no later than any caller returned
}

// event is what happens to a call whose function runs.
type event uint8

const (
	left    event = 1 << iota // its last local caller has left
	late                      // the flight timeout has passed
	closing                   // its replica waits no longer
	back                      // the function has ended
	broken                    // a hook or a log handler panicked beside it
	begins                    // the function is about to run: nothing is decided before
)

// execution is a call's while its function runs.
type execution[V any] struct {
	role     coalesce.Role
	lease    lease             // of a Leader
	watching detached.Callback // of the context that ends when the last local caller leaves
	renewal  timers.Timer      // until the lease is released

	mu       sync.Mutex
	began    bool
	happened event
	back     returned[V]
	broken   error // a *coalesce.PanicError of what panicked beside it
	deciding bool  // a goroutine is acting on what happened
	over     bool
	run      *batchRun[V] // of the function, with other calls of a batch; nil: it runs for this call alone
	leftRun  bool         // the run knows that the call is over
	renewed  time.Time    // the lease was taken or, for all that is known, renewed by then
	lost     bool         // Redis has told that it had it no more
	wanted   bool         // Redis has told that another replica waits; only decide uses it

	encoding *endedFlight // whose outcome is being encoded, and then sent
	storing  bool         // its payload is being stored, and the lease renewed
	finished atomic.Bool  // the finish has been sent, or given up
}

// execute runs the function on this goroutine, so that no goroutine has to be woken to
// start it, nor to take its result. It may ignore its context, and its callers
// do not wait for it past the flight timeout: then the call ends while this
// goroutine still runs.
func (c *call[V]) execute(role coalesce.Role) state[V] {
	e := &c.running
	e.role = role
	c.runs()
	c.role.Store(uint32(role))
	if c.asking.Store(false); c.hasLease() && c.unheard.Load() {
		c.background(c.look)
	}
	if c.batch != nil {
		c.batch.ready()
		return nil
	}
	if c.begin() {
		return nil
	}

	var r returned[V]
	did := false
	defer func() { // of a function that panics or exits, too
		if !did {
			r.lost, r.err = true, lost.Error(recover())
		}
		if r.ended.IsZero() {
			r.ended = time.Now()
		}
		e.mu.Lock()
		e.back = r
		e.mu.Unlock()
		c.handle(back)
	}()
	fn, hooks := c.fn, c.g.hooks
	c.fn = nil
	if len(hooks.run) > 0 {
		own := fn
		fn = wrap(hooks, c.asRun(), func(ctx context.Context) (V, error) {
			defer func() { r.ended = time.Now() }() // before the hooks are told, which takes time
			return own(ctx)
		})
	}
	r.val, r.err = fn(&c.deadline)
	did = true
	return nil
}

// begin is called before the function runs. It says whether the call is over.
func (c *call[V]) begin() (over bool) {
	c.local.Notify(&c.running.watching, c)
	if c.local.Err() != nil {
		c.handle(left) // before the function begins: no caller here wants it
	}
	return c.handle(begins)
}

// asRun is what the hooks are told of the function's run.
func (c *call[V]) asRun() Run {
	return Run{Group: c.g.name, Key: c.key, Flight: c.flight(), Role: c.running.role, Cause: c.told.cause, Takeover: c.vanished != ""}
}

// of returns what the function runs in, with other calls of a batch; nil: it runs for this
// call alone.
func (e *execution[V]) of() *batchRun[V] {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.run
}

// functionCtx is the context that the function runs under.
func (c *call[V]) functionCtx() context.Context {
	if run := c.running.of(); run != nil {
		return &run.ctx
	}
	return &c.deadline
}

// ContextEnded makes call a detached.Ender: its last local caller has left.
func (c *call[V]) ContextEnded() { c.handle(left) }

// lostBeside ends the call, whose function may still run, with a panic that is not
// the function's.
func (c *call[V]) lostBeside(err error) {
	e := &c.running
	e.mu.Lock()
	over := e.over
	e.broken = err
	e.mu.Unlock()
	if over {
		c.logLost(err)
		return
	}
	c.handle(broken)
}

// handle notes an event, and acts on all that happened unless another goroutine
// does. It says whether the call is over.
func (c *call[V]) handle(ev event) (over bool) {
	e := &c.running
	defer func() {
		if value := recover(); value != nil { // nothing is decided after it
			c.lost(lost.Error(value))
			over = true
		}
	}()
	if ev&(late|closing) != 0 && c.foreign.CompareAndSwap(true, false) {
		c.leaveForeign(ev)
		return true
	}
	e.mu.Lock()
	e.happened |= ev &^ begins
	e.began = e.began || ev == begins
	if !e.began || e.deciding || e.over {
		defer e.mu.Unlock()
		if e.over && ev == back {
			e.back = returned[V]{} // no caller wants it
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

// leaveForeign ends a call whose goroutine may never come back from a codec.
func (c *call[V]) leaveForeign(ev event) {
	if ev == late {
		c.endLate()
		return
	}
	c.end(result[V]{}, coalesce.ErrClosed)
}

// stopped ends what goes on while the function runs, and says if that has begun.
func (c *call[V]) stopped() (began bool) {
	e := &c.running
	e.mu.Lock()
	e.over, began = true, e.began
	e.mu.Unlock()
	c.local.Dismiss(&e.watching)
	return began
}

func (c *call[V]) hasBegun() bool {
	c.running.mu.Lock()
	defer c.running.mu.Unlock()
	return c.running.began
}

// decide returns how the call ends; nil: the function goes on.
func (c *call[V]) decide(happened event) func() {
	e := &c.running
	leads := c.hasLease()
	none := result[V]{role: e.role}
	if happened&back != 0 && c.obeyedTimeout() {
		happened = happened&^back | late
	}
	switch {
	case happened&broken != 0:
		return func() {
			defer c.endWith(none, e.broken, false)
			if leads {
				c.abandon(true)
			}
		}
	case happened&back != 0:
		return c.cameBack
	case happened&closing != 0:
		return func() {
			if leads {
				c.abandon(true)
			}
			c.end(none, coalesce.ErrClosed)
		}
	case happened&late != 0 && leads && (c.vanished != "" || c.g.set.flightTimeout < c.g.core.set.flightTimeout):
		// The function had only what was left of the timeout after the leader
		// before it, or what With has left its caller. Those who joined have time.
		return func() {
			c.abandon(true)
			c.end(result[V]{role: e.role, late: true}, coalesce.ErrFlightTimeout)
		}
	case happened&late != 0:
		return func() { c.returned(returned[V]{err: coalesce.ErrFlightTimeout, ended: time.Now()}) }
	case !leads || c.abandon(false):
		return func() { c.end(none, c.local.Err()) }
	}
	return nil // another replica waits
}

// obeyedTimeout says whether the function came back because the flight timeout has
// passed, before that was told.
func (c *call[V]) obeyedTimeout() bool {
	e := &c.running
	return c.functionCtx().Err() == context.DeadlineExceeded && !e.back.lost && errtree.Is(e.back.err, context.DeadlineExceeded)
}

// cameBack takes what the function returned. A value beside an error does not travel:
// no caller gets it, so that all get the same.
func (c *call[V]) cameBack() {
	r := c.running.back
	c.running.back = returned[V]{}
	if r.err != nil {
		r.val = *new(V)
	}
	if !r.lost && detached.Abandoned(r.err, c.functionCtx()) {
		c.gaveUp(r)
		return
	}
	c.returned(r)
}

// cameBackWith says what the function of a batch has come to for this call.
func (c *call[V]) cameBackWith(r returned[V]) {
	c.running.mu.Lock()
	c.running.back = r
	c.running.mu.Unlock()
	c.handle(back)
}

// gaveUp ends a flight whose function returned a cancellation though its own context has
// not ended: it used another one, such as its caller's. That is no answer for anybody
// else. Its caller gets it; the others, here or on other replicas, lead.
func (c *call[V]) gaveUp(r returned[V]) {
	if c.hasLease() {
		c.abandon(true)
	}
	c.endWith(result[V]{val: r.val, role: c.running.role, flight: c.flight(), finished: r.ended, abandoned: true}, r.err, true)
}

// fewCallers are so many that their turn comes before the followers'. To tell
// thousands, and their turns, would keep the outcome from the followers, while others
// join a flight that has ended.
const fewCallers = 8

// returned gives the result to the local callers, and to the followers.
func (c *call[V]) returned(r returned[V]) {
	g := c.g
	result := result[V]{val: r.val, role: c.running.role, flight: c.flight(), finished: r.ended, late: r.err == coalesce.ErrFlightTimeout}
	if !c.hasLease() {
		c.endWith(result, r.err, !r.lost)
		return
	}
	ended, followed := g.finishing.add(c.names.Channel(), c.flight(), r.ended, r.ended.Add(g.set.leaseTTL/3+g.fleet.set.redisTimeout))
	if followed {
		g.local.Forget(c.key) // callers that come from now on must not join the follower
	}
	g.fleet.inflight.add()
	if run := c.running.of(); run != nil {
		c.running.mu.Lock()
		c.running.encoding = ended
		c.running.mu.Unlock()
		defer run.finishLater(func() { c.finish(r, ended) }, c)
		c.endWith(result, r.err, !r.lost)
		return
	}
	exits := true
	defer func() {
		if exits { // a hook has ended this goroutine
			c.finish(r, ended)
		}
	}()
	told, _ := c.complete(result, r.err, !r.lost)
	exits = false
	if told.Callers > fewCallers {
		g.fleet.workers.Run(func() { c.proceed(beside[V](func() { c.finish(r, ended) })) })
		told.Tell()
		return
	}
	told.Tell()
	if !g.fleet.link.Busy(c.names.Channel()) {
		runtime.Gosched() // their turn; where the outcome has to wait for its own, they have it then
	}
	c.finish(r, ended)
}
