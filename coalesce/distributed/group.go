// Package distributed is the second tier of fleetcall: it merges, through
// Redis, the flights of the local tier across the replicas of a fleet, so that
// one replica runs a function and all get its result.
//
// A process opens one Fleet and makes a Group for each kind of result. While a flight
// holds a live lease in Redis, no other replica runs the function for its key. The
// lease saves work; it is not a mutex for writes: a failover of Redis that loses the
// last writes, or a leader that was stopped for longer than its lease, lets two
// replicas run at once.
//
// When Redis is slow or gone, callers wait for it at most one Redis timeout,
// and then each replica runs its own function. Results are shared between
// callers: do not change them.
//
// docs/protocol.md tells how the replicas agree. The files of this package follow it:
// joining, leading, finishing and following are the states of a flight.
package distributed

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/internal/protocol"
	"github.com/fleetcall/fleetcall/coalesce/internal/wire"
	"github.com/fleetcall/fleetcall/coalesce/local"
)

// Group merges concurrent calls for equal keys in all the replicas whose Fleet has
// the same namespace and Redis, and whose Group has the same name.
type Group[V any] struct {
	*core[V]
	set  groupSettings
	args protocol.Settings
	err  error // of With: what Do returns
}

// core is what a Group and all that With made of it have in common.
type core[V any] struct {
	fleet *Fleet
	hooks *hooks
	name  string
	space protocol.Space
	set   groupSettings // of the Group that NewGroup returned

	adaptive    *adaptive // nil: every flight asks Redis
	codec       coalesce.Codec[V]
	codecName   string
	fingerprint uint64
	tag         string // of both, for leases

	local     local.Group[string, result[V]]
	finishing finishing
	mixed     atomic.Bool // With has made a Group of another flight timeout
	counters

	resetMu sync.Mutex
	before  TierStats // the counts at the last ResetStats; guarded by resetMu

	// What a line is logged for that may be for each of many flights.
	poisoned, unshared, unencoded, undecoded logLimit
}

type counters struct {
	leaders, followers, cached, fallbacks, noRole atomic.Uint64
	unasked                                       atomic.Uint64 // of leaders
	takeovers, leaseLost, errors, incompatible    atomic.Uint64
	batches, batchRuns, batchKeys                 atomic.Uint64
	active                                        atomic.Int64
}

// logLimit keeps a log from being flooded: one line a second.
type logLimit struct{ last atomic.Int64 } // Unix seconds

// allow says whether to log a line now.
func (l *logLimit) allow() bool {
	now, last := time.Now().Unix(), l.last.Load()
	return now != last && l.last.CompareAndSwap(last, now)
}

// result is what a local flight brings its callers.
type result[V any] struct {
	val    V
	role   coalesce.Role
	flight string
	trace  string // of the local flight; "" without hooks
	// finished is the latest moment, by this process's clock, at which the
	// function certainly had not ended yet. It is zero where no function ended.
	finished  time.Time
	timeout   time.Duration // the flight's
	abandoned bool          // the function gave up though its flight lived: others lead
	late      bool          // the flight timeout has passed
	refused   bool          // Redis cannot be used, and the flight's first caller fails closed
	lost      bool          // the function panicked or exited
}

// maxNameLen is how many bytes the name of a Group may have.
const maxNameLen = 100

// NewGroup returns the Group of that name, 1 to 100 bytes. The name is part of every
// key: Groups of one name share flights with each other on all replicas, and a Group
// is made once for all calls. It lives as long as its Fleet, and costs a few
// kilobytes, but no connection and no goroutine.
//
// NewGroup refuses a name that another type of results has in this Fleet, and a V that
// its codec would change on the way to other replicas, naming the field and the ways
// out. A second NewGroup of one name and type returns the same Group with its own
// settings, as With does.
func NewGroup[V any](f *Fleet, name string, opts ...GroupOption) (*Group[V], error) {
	if f == nil {
		return nil, errors.New("fleetcall: NewGroup: the Fleet is nil; Open returns one")
	}
	if len(name) == 0 || len(name) > maxNameLen {
		return nil, fmt.Errorf("fleetcall: NewGroup: the name %.32q has %d bytes, not 1 to %d; it tells this Group's keys from those of others", name, len(name), maxNameLen)
	}
	refuse := func(err error) (*Group[V], error) {
		return nil, fmt.Errorf("fleetcall: NewGroup %q: %w", name, err)
	}
	set := f.set.group
	for i, opt := range opts {
		if opt == nil {
			return refuse(fmt.Errorf("option %d is nil; leave it out", i+1))
		}
		if err := opt.applyToGroup(&set); err != nil {
			return refuse(err)
		}
	}
	if err := set.check(f.set.redisTimeout); err != nil {
		return refuse(err)
	}
	codec, err := codecOf[V](&set)
	if err != nil {
		return refuse(err)
	}
	if f.inflight.closing() {
		return refuse(coalesce.ErrClosed)
	}
	c := &core[V]{
		fleet: f, hooks: &f.set.hooks, name: name,
		space: protocol.NewSpace(f.set.namespace, name, f.database, f.id), set: set,
		codec: codec, codecName: codec.Name(), fingerprint: fingerprintOf(codec),
	}
	c.tag = wire.Tag(c.codecName, c.fingerprint)
	if set.adaptive {
		c.adaptive = f.adapt()
	}
	if c, err = c.register(); err != nil {
		return refuse(err)
	}
	f.subs.Hasten(set.leaseTTL / 3)
	if set.flightTimeout != c.set.flightTimeout {
		c.mixed.Store(true)
	}
	return &Group[V]{core: c, set: set, args: set.protocol(&f.set, c.set.flightTimeout, c.tag)}, nil
}

// register returns the Fleet's core of this name, which is c if there was none.
func (c *core[V]) register() (*core[V], error) {
	f := c.fleet
	f.groupsMu.Lock()
	defer f.groupsMu.Unlock()
	switch other := f.groups[c.name].(type) {
	case nil:
		f.groups[c.name] = c
		return c, nil
	case *core[V]:
		if other.codecName != c.codecName || other.fingerprint != c.fingerprint {
			return nil, fmt.Errorf("this name has the codec %s already, not %s; choose another name", other.codecName, c.codecName)
		}
		if name := differs(&other.set, &c.set); name != "" {
			return nil, fmt.Errorf("this name has another %s already; choose another name", name)
		}
		return other, nil
	default:
		return nil, fmt.Errorf("this name has results of another type already (%v, not %v); choose another name", other.resultType(), c.resultType())
	}
}

func (*core[V]) resultType() reflect.Type { return reflect.TypeFor[V]() }

// differs names an option that all calls of a flight must agree on, and do not.
func differs(a, b *groupSettings) string {
	switch {
	case a.leaseTTL != b.leaseTTL:
		return "lease TTL"
	case a.maxTakeovers != b.maxTakeovers:
		return "number of takeovers"
	case a.inlineLimit != b.inlineLimit:
		return "inline limit"
	case a.payloadLimit != b.payloadLimit:
		return "payload limit"
	case a.adaptive != b.adaptive:
		return "WithAdaptive"
	}
	return ""
}

// codecOf returns the codec of a Group, unless that would change V on the way.
func codecOf[V any](set *groupSettings) (coalesce.Codec[V], error) {
	var codec coalesce.Codec[V]
	switch c := set.codec.(type) {
	case nil:
		codec = coalesce.JSON[V]()
		if raw, ok := any(coalesce.Raw[[]byte]()).(coalesce.Codec[V]); ok {
			codec = raw
		}
	case coalesce.Codec[V]:
		codec = c
	default:
		return nil, fmt.Errorf("WithCodec has a codec of another type (%T); this Group needs a coalesce.Codec of %v", c, reflect.TypeFor[V]())
	}
	if checker, ok := codec.(coalesce.Checker); ok && !set.allowLossy {
		if err := checker.Check(); err != nil {
			return nil, err
		}
	}
	return codec, nil
}

// fingerprintOf returns what tells results of one structure from another's.
func fingerprintOf[V any](codec coalesce.Codec[V]) uint64 {
	if own, ok := codec.(coalesce.Fingerprinter); ok {
		return own.Fingerprint()
	}
	return wire.Fingerprint(reflect.TypeFor[V]())
}

// With returns the same Group with other settings for its calls: they share flights
// with those of g, and are counted with them. It takes the options that say so:
// WithMaxAge, WithFlightTimeout, WithFailClosed, WithFailOpen. It is cheap enough to be
// called for one Do. Of an option that makes no sense, Do and Forget return the error.
func (g *Group[V]) With(opts ...GroupOption) *Group[V] {
	w := &Group[V]{core: g.core, set: g.set, err: g.err}
	for i, opt := range opts {
		err := error(nil)
		switch {
		case opt == nil:
			err = fmt.Errorf("fleetcall: With: option %d is nil; leave it out", i+1)
		case opt.together() != "":
			err = fmt.Errorf("fleetcall: With does not take %s: all calls of a flight share it; give it to NewGroup", opt.together())
		default:
			err = opt.applyToGroup(&w.set)
		}
		if w.err == nil {
			w.err = err
		}
	}
	if w.set.flightTimeout != g.core.set.flightTimeout {
		w.mixed.Store(true)
	}
	w.args = w.set.protocol(&g.fleet.set, g.core.set.flightTimeout, g.tag)
	return w
}

// Do returns the result of fn for key. Of the calls that overlap, in all
// replicas, one runs fn; the others get its result, or its error as one that
// errors.Is recognises if it was registered with coalesce.RegisterError, and
// errors.As if its type was with coalesce.RegisterErrorType. Beside an error there is
// no value: the result is V's zero value for all.
//
// fn runs under a context with the values of its first caller, which ends with
// the flight timeout, or when all callers of the fleet have left: at once when those of
// this replica are the last, otherwise within a third of the lease TTL. A function that returns context.Canceled, though the context it
// was given has not ended, has abandoned its flight: its caller gets that error, and the others lead a flight of
// their own.
//
// When ctx ends first, Do returns ctx.Err() at once, or, when
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
	if len(g.hooks.called) > 0 {
		return g.observed(ctx, key, arrived, fn)
	}
	r, role, err := g.call(ctx, key, arrived, fn)
	return r.val, role, err
}

// call returns a result that all callers of the local flight share. It is never
// nil. Nearly all of many callers only follow, on stacks of their own: what those
// need counts.
func (g *Group[V]) call(ctx context.Context, key string, arrived time.Time, fn func(context.Context) (V, error)) (*result[V], coalesce.Role, error) {
	if g.err != nil {
		return new(result[V]), 0, g.err
	}
	for role := coalesce.Role(0); ; role = coalesce.LocalFollower {
		if err := ctx.Err(); err != nil {
			return new(result[V]), role, err
		}
		joined := g.local.Join(key)
		if joined.Leads() {
			return g.lead(ctx, joined, key, arrived, fn)
		}
		g.waits(key, arrived)
		r, err := g.follow(ctx, joined, arrived)
		if r == nil {
			return new(result[V]), coalesce.LocalFollower, err
		}
		if g.takes(r, err, arrived) {
			joined.Unwind()
			return r, coalesce.LocalFollower, err
		}
	}
}

// follow waits for the end of a local flight that another caller leads. The result
// is nil when the caller has left, or its own time is over.
func (g *Group[V]) follow(ctx context.Context, joined local.Joined[string, result[V]], arrived time.Time) (*result[V], error) {
	if !g.mixed.Load() {
		return joined.Outcome(ctx)
	}
	timed, cancel := context.WithDeadline(ctx, arrived.Add(g.set.flightTimeout))
	defer cancel()
	r, err := joined.Outcome(timed)
	if r == nil && ctx.Err() == nil {
		err = coalesce.ErrFlightTimeout
	}
	return r, err
}

// takes says whether a caller that arrived then may have what its local flight came
// to. If not, it calls anew.
func (g *Group[V]) takes(r *result[V], err error, arrived time.Time) bool {
	maxAge := g.set.maxAge
	switch {
	case r.abandoned:
		return false
	case err == nil:
	case r.refused && !g.set.failClosed:
		return false // the flight's first caller fails closed, and this one does not
	case r.late && r.timeout < g.set.flightTimeout:
		return false // the flight's first caller had less time
	default:
		maxAge = 0
	}
	// The local flight was there when this caller joined it, but its function may have
	// ended before.
	return r.finished.IsZero() || !arrived.After(r.finished.Add(maxAge))
}

// lead starts the local flight and waits for it.
func (g *Group[V]) lead(ctx context.Context, joined local.Joined[string, result[V]], key string, arrived time.Time, fn func(context.Context) (V, error)) (*result[V], coalesce.Role, error) {
	c, goOn := g.fly(ctx, joined, key, arrived, fn)
	if goOn != nil && ctx.Err() == nil {
		g.fleet.workers.Run(goOn)
		goOn = nil
		runtime.Gosched() // a function that does little has ended after it
	}
	r, err := joined.Wait(ctx)
	if goOn != nil {
		g.fleet.workers.Run(goOn) // this caller has left; for others, if there are any
	}
	if r != nil {
		return r, r.role, err
	}
	role := coalesce.Role(0)
	if c != nil { // its caller has left
		role = coalesce.Role(c.role.Load())
	}
	return new(result[V]), role, err
}

var _ coalesce.Group[any] = (*Group[any])(nil)
