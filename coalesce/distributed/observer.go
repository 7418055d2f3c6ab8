package distributed

import (
	"context"
	"time"

	"github.com/fleetcall/fleetcall/coalesce"
)

// Observer is told what a Group does, as it happens: for metrics, traces and
// histories. Its methods are called concurrently, on paths that callers wait
// on. They must be quick, and must not call the Group. Embed NoObserver to keep
// up with methods that are added later.
type Observer interface {
	// Flight is told that a flight begins: a local flight enters the
	// distributed tier. ctx has the values of its first caller; the context
	// returned, which must be made from ctx, is given to Followed, to Run and
	// to the Redis client. trace, such as a W3C traceparent, goes with the
	// lease if this replica takes it, for Followed on other replicas: at most
	// 128 visible ASCII characters; anything else is as good as "", none.
	// ended is called once, when the flight has what its callers get.
	Flight(ctx context.Context, key string) (flight context.Context, trace string, ended func(Flight))
	// Followed is told that a flight follows one of another replica. ctx is
	// the one that Flight returned.
	Followed(ctx context.Context, leader Followed)
	// Called is told of a Do that ended. ctx is its caller's.
	Called(ctx context.Context, call Call)
	// Run is told that a function is about to run. The function gets the
	// context returned; ended is called with its error when it has returned:
	// a *coalesce.PanicError or coalesce.ErrGoexit if it did not.
	Run(ctx context.Context, run Run) (fn context.Context, ended func(error))
	// Lease is told of each change of a lease this replica holds.
	Lease(lease Lease)
	// Command is told of each script that Redis was sent.
	Command(command Command)
	// Breaker is told of each change of the circuit breaker, by its states:
	// "closed", "half-open" or "open". They may arrive out of order.
	Breaker(from, to string)
}

// Call is a Do that ended.
type Call struct {
	Key    string
	Flight string        // whose result it got; empty when it left or panicked
	Trace  string        // what Flight returned for the local flight that brought it; empty when there is none
	Role   coalesce.Role // 0 when it ended before it had one
	Err    error
	Wait   time.Duration // from its start to its end
}

// Flight is one local flight's way through the distributed tier, at its end.
type Flight struct {
	Key      string
	Flight   string        // whose outcome it got; empty when it got none
	Role     coalesce.Role // 0 when it ended before it had one
	Cause    string        // as in Run
	Takeover bool          // a Leader whose flight before this one, which it followed, went away without an outcome
	Err      error         // a *coalesce.PanicError or coalesce.ErrGoexit if the function did not return
	Wait     time.Duration // since its first caller came
	// Lag is how long the outcome of a RemoteFollower was on its way: from the
	// function's end on the leader until it was here, by Redis' clock, to about
	// a round trip. It is negative when it is not known, and for other roles.
	Lag time.Duration
	// Kept is what Flight returned on the replica that led the flight whose outcome
	// a Cached got. It is empty when there is none, and for other roles.
	Kept string
}

// Followed is the flight of another replica that one here waits for.
type Followed struct {
	Key    string
	Flight string
	Trace  string // what the leader's Observer returned; visible ASCII, at most 128 bytes, empty when there is none
}

// Run is one execution of a function.
type Run struct {
	Key      string
	Flight   string
	Role     coalesce.Role // Leader, or Fallback: without the lease
	Cause    string        // of a Fallback: the kind of Redis' failure, "too large" or "garbage"
	Takeover bool          // of a flight that went away without an outcome
}

// Lease is a change of a lease that this replica holds, or held.
type Lease struct {
	Key    string
	Flight string
	State  LeaseState
	// Asked is when Redis was asked. A lease that was taken or renewed lives
	// at least for the lease TTL from then on.
	Asked time.Time
}

// LeaseState says what became of a lease.
type LeaseState uint8

// The states of a lease.
const (
	LeaseTaken    LeaseState = 1 + iota
	LeaseRenewed             // Redis extended it
	LeaseLost                // it had run out, or been taken, before its function ended: told when it was to be renewed or released
	LeaseReleased            // Redis has taken the outcome, or knows that there is none
)

// Command is one script that Redis was sent.
type Command struct {
	Step string        // join, peek, renew, finish, abandon, forget or probe
	Took time.Duration // until its reply, or until it was given up; from when it was to be sent, a wait for its turn included
	Kind string        // of its failure, as in TierStats.RedisErrorsBy; empty when it had a reply
}

// NoObserver does nothing.
type NoObserver struct{}

var _ Observer = NoObserver{}

// Flight returns ctx and no trace.
func (NoObserver) Flight(ctx context.Context, _ string) (context.Context, string, func(Flight)) {
	return ctx, "", func(Flight) {}
}

// Followed does nothing.
func (NoObserver) Followed(context.Context, Followed) {}

// Called does nothing.
func (NoObserver) Called(context.Context, Call) {}

// Run returns ctx.
func (NoObserver) Run(ctx context.Context, _ Run) (context.Context, func(error)) {
	return ctx, func(error) {}
}

// Lease does nothing.
func (NoObserver) Lease(Lease) {}

// Command does nothing.
func (NoObserver) Command(Command) {}

// Breaker does nothing.
func (NoObserver) Breaker(string, string) {}

// observers are two, the first of whom may be two again.
type observers struct{ first, second Observer }

// Flight lets the second's context carry the first's, and ends them the other
// way round. The first trace that is one goes with the lease.
func (o observers) Flight(ctx context.Context, key string) (context.Context, string, func(Flight)) {
	ctx, trace, firstEnded := o.first.Flight(ctx, key)
	ctx, second, secondEnded := o.second.Flight(ctx, key)
	if !validTrace(trace) {
		trace = second
	}
	return ctx, trace, func(flight Flight) {
		secondEnded(flight)
		firstEnded(flight)
	}
}

func (o observers) Followed(ctx context.Context, leader Followed) {
	o.first.Followed(ctx, leader)
	o.second.Followed(ctx, leader)
}

func (o observers) Called(ctx context.Context, call Call) {
	o.first.Called(ctx, call)
	o.second.Called(ctx, call)
}

// Run lets the second's context carry the first's, and ends them the other way
// round.
func (o observers) Run(ctx context.Context, run Run) (context.Context, func(error)) {
	ctx, firstEnded := o.first.Run(ctx, run)
	ctx, secondEnded := o.second.Run(ctx, run)
	return ctx, func(err error) {
		secondEnded(err)
		firstEnded(err)
	}
}

func (o observers) Lease(lease Lease) {
	o.first.Lease(lease)
	o.second.Lease(lease)
}

func (o observers) Command(command Command) {
	o.first.Command(command)
	o.second.Command(command)
}

func (o observers) Breaker(from, to string) {
	o.first.Breaker(from, to)
	o.second.Breaker(from, to)
}
