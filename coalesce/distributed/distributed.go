// Package distributed is the second tier of fleetcall: it merges, through
// Redis, the flights of the local tier across the replicas of a fleet, so that
// one replica runs a function and all get its result.
//
// While a flight holds a live lease in Redis, no other replica runs the
// function for its key. The lease saves work; it is not a mutex for writes: a
// failover of Redis that loses the last writes, or a leader that was stopped
// for longer than its lease, lets two replicas run at once.
//
// When Redis is slow or gone, callers wait for it at most one Redis timeout,
// and then each replica runs its own function. Results are shared between
// callers: do not change them.
//
// docs/protocol.md tells how the replicas agree.
package distributed

import (
	"context"
	"crypto/rand"
	"errors"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/local"
)

// Group merges concurrent calls for equal keys in all the replicas whose Group
// has the same namespace and Redis.
type Group[V any] struct {
	set      settings
	instance string // tells this Group's own notices from those of others
	local    local.Group[string, result[V]]
	redis    *commander
	subs     *subscriptions
	workers  workers
	expiries alarms // of the calls that have not ended
	renewals alarms
	counters

	resetMu sync.Mutex
	before  TierStats // the counts at the last ResetStats; guarded by resetMu

	finishing     finishing
	connectedOnce bool // used by the subscription loop alone

	// What a line is logged for that may be for each of many flights.
	poisoned, unshared, unencoded, undecoded seldom

	lifeMu  sync.Mutex
	flights int           // what Close waits for; guarded by lifeMu
	closed  bool          // guarded by lifeMu
	idle    chan struct{} // closed when flights is 0 after Close
	abandon chan struct{} // closed when Close waits no longer
	down    chan struct{} // closed when the subscriptions are

	abandonOnce, closeOnce sync.Once
}

type counters struct {
	leaders, followers, cached, fallbacks, noRole atomic.Uint64
	takeovers, leaseLost, errors, garbage         atomic.Uint64
	active                                        atomic.Int64
}

// seldom keeps a log from being flooded.
type seldom struct{ last atomic.Int64 } // Unix seconds

// now says whether to log a line now: one a second.
func (s *seldom) now() bool {
	now, last := time.Now().Unix(), s.last.Load()
	return now != last && s.last.CompareAndSwap(last, now)
}

// result is what a local flight brings its callers.
type result[V any] struct {
	val    V
	role   coalesce.Role
	flight string
	trace  string // of the local flight; "" when nobody observes
	// finished is the latest moment, by this process's clock, at which the
	// function certainly had not ended yet. It is zero for an outcome that
	// came by message: nobody knows, and it was on its way just now.
	finished time.Time
}

// New returns a Group that talks to the client's Redis. It returns at once,
// whether Redis is there or not. The client stays the caller's: Close does not
// close it.
//
// With a redis.Client whose ContextTimeoutEnabled is set, a caller sends its
// flight's first command itself, which spares a wake-up. The client's hooks must
// then keep the command's context, too: they would keep that caller.
func New[V any](client redis.UniversalClient, opts ...Option) (*Group[V], error) {
	if client == nil {
		return nil, errors.New("fleetcall: New: the Redis client must not be nil")
	}
	if _, ok := client.(*redis.Ring); ok {
		return nil, errors.New("fleetcall: New: a redis.Ring has no server that all replicas share channels on; use a Client, FailoverClient or ClusterClient")
	}
	g := &Group[V]{
		set:      defaults(),
		instance: rand.Text(),
		idle:     make(chan struct{}),
		abandon:  make(chan struct{}),
		down:     make(chan struct{}),
	}
	for _, opt := range opts {
		if err := opt(&g.set); err != nil {
			return nil, err
		}
	}
	if g.set.codec == nil {
		g.set.codec = coalesce.JSON
		if _, ok := any(*new(V)).([]byte); ok {
			g.set.codec = coalesce.Raw
		}
	}
	g.set.args = g.set.arguments()
	g.subs = newSubscriptions(client, &g.set)
	g.subs.onControl, g.subs.onConnect = g.control, g.connected
	g.subs.onGarbage = func() { g.garbage.Add(1) }
	g.redis = newCommander(client, &g.set, g.subs.wakeAll)
	g.subs.onFailure = func() { g.redis.count(failureKind(errUnconfirmed)) }
	g.subs.start()
	return g, nil
}

// Do returns the result of fn for key. Of the calls that overlap, in all
// replicas, one runs fn; the others get its result, or its error as one that
// errors.Is recognises if it was registered with coalesce.RegisterError.
//
// fn runs under a context with the values of its first caller, which ends with
// the flight timeout, or when all callers of this replica have left and no
// other replica waits. When ctx ends first, Do returns ctx.Err() at once, or, when
// this caller's command is on its way to Redis, once that is answered: a Redis that
// hangs keeps it from noticing its cancellation, but not its deadline, for up to
// the Redis timeout. When fn panics, Do panics with a *coalesce.PanicError on this replica; elsewhere
// it returns coalesce.ErrRemotePanic.
//
// Do returns coalesce.ErrFlightTimeout, coalesce.ErrPoisoned,
// coalesce.ErrClosed, and, if the Group fails closed,
// coalesce.ErrUnavailable.
func (g *Group[V]) Do(ctx context.Context, key string, fn func(context.Context) (V, error)) (V, coalesce.Role, error) {
	arrived := time.Now()
	if g.set.observer != nil {
		return g.observed(ctx, key, arrived, fn)
	}
	r, role, err := g.call(ctx, key, arrived, fn)
	return r.val, role, err
}

func (g *Group[V]) observed(ctx context.Context, key string, arrived time.Time, fn func(context.Context) (V, error)) (_ V, role coalesce.Role, err error) {
	var r *result[V]
	defer func() {
		var value any
		flight, trace := "", ""
		if r != nil {
			flight, trace = r.flight, r.trace
		} else {
			value = recover()
			err = coalesce.ErrGoexit
			if panicked, ok := value.(*coalesce.PanicError); ok {
				err = panicked
			}
		}
		g.set.observer.Called(ctx, Call{Key: key, Flight: flight, Trace: trace, Role: role, Err: err, Wait: time.Since(arrived)})
		if value != nil {
			panic(value)
		}
	}()
	r, role, err = g.call(ctx, key, arrived, fn)
	return r.val, role, err
}

// call returns a result that all callers of the local flight share. It is never
// nil. Of a herd, all but one only follow: what their stacks need counts.
func (g *Group[V]) call(ctx context.Context, key string, arrived time.Time, fn func(context.Context) (V, error)) (*result[V], coalesce.Role, error) {
	for {
		if err := ctx.Err(); err != nil {
			return new(result[V]), 0, err
		}
		joined := g.local.Join(key)
		if joined.Leads() {
			return g.lead(ctx, joined, key, arrived, fn)
		}
		r, err := joined.Wait(ctx)
		if r == nil {
			return new(result[V]), coalesce.LocalFollower, err
		}
		maxAge := g.set.maxAge
		if err != nil {
			maxAge = 0
		}
		if r.finished.IsZero() || !arrived.After(r.finished.Add(maxAge)) {
			return r, coalesce.LocalFollower, err
		}
		// The local flight was there when this caller joined it, but what it
		// got is older: its message had been missed, or its function had
		// ended a moment ago.
	}
}

// lead starts the local flight and waits for it.
func (g *Group[V]) lead(ctx context.Context, joined local.Joined[string, result[V]], key string, arrived time.Time, fn func(context.Context) (V, error)) (*result[V], coalesce.Role, error) {
	goOn := g.fly(ctx, joined, key, arrived, fn)
	if goOn != nil && ctx.Err() == nil {
		g.workers.run(goOn)
		goOn = nil
		runtime.Gosched() // a function that does little has ended after it
	}
	r, err := joined.Wait(ctx)
	if goOn != nil {
		g.workers.run(goOn) // this caller has left; for others, if there are any
	}
	if r == nil {
		r = new(result[V])
	}
	return r, r.role, err
}

// Stats returns the counts of both tiers since New or ResetStats. They are exact
// for calls that have returned.
func (g *Group[V]) Stats() Stats {
	g.resetMu.Lock()
	defer g.resetMu.Unlock()
	return Stats{g.local.Stats(), g.Totals().Distributed.since(g.before)}
}

// Totals returns the counts of both tiers since New, whatever ResetStats did:
// for counters that must not go down, such as those of Prometheus.
func (g *Group[V]) Totals() Stats {
	redisErrors, byKind := g.redis.counts()
	// Before the roles: they are never more.
	takeovers, errs := g.takeovers.Load(), g.counters.errors.Load()
	st := Stats{
		Local: g.local.Totals(),
		Distributed: TierStats{
			Leaders:       g.leaders.Load(),
			Followers:     g.followers.Load(),
			Cached:        g.cached.Load(),
			Fallbacks:     g.fallbacks.Load(),
			NoRole:        g.noRole.Load(),
			Takeovers:     takeovers,
			LeaseLost:     g.leaseLost.Load(),
			Errors:        errs,
			RedisErrors:   redisErrors,
			RedisErrorsBy: byKind,
			Garbage:       g.garbage.Load(),
			ActiveFlights: g.active.Load(),
			Breaker:       g.redis.breaker.State().String(),
		},
	}
	d := &st.Distributed
	d.Requests = d.Leaders + d.Followers + d.Cached + d.Fallbacks + d.NoRole
	return st
}

// ResetStats sets the counts to zero. Gauges and the breaker stay what they
// are.
func (g *Group[V]) ResetStats() {
	g.resetMu.Lock()
	defer g.resetMu.Unlock()
	g.local.ResetStats()
	g.before = g.Totals().Distributed
}

// Close lets calls end that have started, and refuses new ones with
// coalesce.ErrClosed. When ctx ends first, it gives up the flights that this
// replica leads, so that others take over at once, and returns ctx.Err(); the
// callers left here get coalesce.ErrClosed. Close may be called again, with a
// context that ends sooner.
func (g *Group[V]) Close(ctx context.Context) error {
	g.lifeMu.Lock()
	if !g.closed {
		g.closed = true
		if g.flights == 0 {
			close(g.idle)
		}
	}
	g.lifeMu.Unlock()

	var err error
	select {
	case <-g.idle:
	case <-ctx.Done():
		err = ctx.Err()
		g.abandonOnce.Do(g.abandonAll)
		<-g.idle // soon: no flight waits for anything but Redis, within its timeout
	}
	// A client that is dialling a server that hangs lets go of its connection
	// when its own timeouts pass.
	g.closeOnce.Do(func() {
		go func() {
			g.subs.close()
			g.redis.close()
			g.workers.close()
			g.expiries.close()
			g.renewals.close()
			close(g.down)
		}()
	})
	select {
	case <-g.down:
	case <-ctx.Done():
		select {
		case <-g.down:
		case <-time.After(g.set.redisTimeout): // as for any command
			err = ctx.Err()
		}
	}
	return err
}

// abandonAll ends every call, whatever it waits for.
func (g *Group[V]) abandonAll() {
	close(g.abandon) // a call that is not in the list yet will look
	for _, c := range g.expiries.owners() {
		go c.(*call[V]).happens(closing)
	}
}

// enter keeps Close waiting until leave is called.
func (g *Group[V]) enter() error {
	g.lifeMu.Lock()
	defer g.lifeMu.Unlock()
	if g.closed {
		return coalesce.ErrClosed
	}
	g.flights++
	return nil
}

func (g *Group[V]) closing() bool {
	g.lifeMu.Lock()
	defer g.lifeMu.Unlock()
	return g.closed
}

// hold is enter for those who know that somebody else has entered and not
// left.
func (g *Group[V]) hold() {
	g.lifeMu.Lock()
	g.flights++
	g.lifeMu.Unlock()
}

func (g *Group[V]) leave() {
	g.lifeMu.Lock()
	defer g.lifeMu.Unlock()
	g.flights--
	if g.closed && g.flights == 0 {
		close(g.idle)
	}
}

// finishing holds this replica's flights whose function has ended but whose
// lease Redis may still hold. A caller that comes now must not get them, though
// Redis lets it join:
//
//	flight F: function ends, its callers return
//	caller:   comes after them, sends join
//	Redis:    join → follow F
//	Redis:    finish of F
//
// By the time the reply to the join is read, F may have left this list: a
// caller takes its copy before it joins.
type finishing struct {
	mu    sync.Mutex
	ended map[string][]*endedFlight // by channel; the slices are never changed
}

// endedFlight is guarded by finishing.mu, except for what never changes.
type endedFlight struct {
	flight string
	at     time.Time // its function ended
	over   bool      // Redis has released the lease, or will not be told

	// Made for those who wait; nil before.
	wanted   chan struct{} // capacity one: a caller waits for the release
	released chan struct{} // closed when it is over
}

func (f *finishing) add(channel, flight string, at time.Time) *endedFlight {
	e := &endedFlight{flight: flight, at: at}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.ended == nil {
		f.ended = map[string][]*endedFlight{}
	}
	f.ended[channel] = append(slices.Clone(f.ended[channel]), e)
	return e
}

// release takes e out.
func (f *finishing) release(channel string, e *endedFlight) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if all := f.ended[channel]; len(all) == 1 && all[0] == e {
		delete(f.ended, channel)
	} else {
		f.ended[channel] = slices.DeleteFunc(slices.Clone(all), func(other *endedFlight) bool { return other == e })
	}
	e.over = true
	if e.released != nil {
		close(e.released)
	}
}

// wait is for those who release e, and those who wait for that.
func (f *finishing) wait(e *endedFlight) (wanted chan struct{}, released <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if e.wanted == nil {
		e.wanted, e.released = make(chan struct{}, 1), make(chan struct{})
		if e.over {
			close(e.released)
		}
	}
	return e.wanted, e.released
}

func (f *finishing) on(channel string) []*endedFlight {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.ended[channel]
}
