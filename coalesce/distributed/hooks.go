package distributed

import (
	"context"
	"errors"
	"time"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/internal/lost"
	"github.com/fleetcall/fleetcall/coalesce/internal/protocol"
	"github.com/fleetcall/fleetcall/coalesce/internal/redislink"
)

// Hook is told what a Fleet does, as it happens: for metrics, traces and histories.
// It implements as many of the one-method interfaces below as it wants to:
// FlightHook, FollowHook, CallHook, RunHook, LeaseHook, CommandHook, ServerHook.
//
// Hooks are called concurrently, on paths that callers wait on. They must be quick,
// and must not call a Group of the Fleet.
type Hook any

// FlightHook is told that a flight begins: a local flight enters the distributed
// tier. ctx has the values of its first caller; the context returned, which must be
// made from ctx, is given to Followed, to Run and to the Redis client. trace, such as a
// W3C traceparent, goes with the lease if this replica takes it, for Followed on other
// replicas: at most 128 visible ASCII characters; anything else is as good as "", none.
// ended is called once, when the flight has what its callers get.
type FlightHook interface {
	Flight(ctx context.Context, start FlightStart) (flight context.Context, trace string, ended func(Flight))
}

// FollowHook is told that a flight follows one of another replica. ctx is the one
// that Flight returned.
type FollowHook interface {
	Followed(ctx context.Context, leader Followed)
}

// CallHook is told of a Do that ended, and of each key of a DoMany that did. ctx is its
// caller's.
type CallHook interface {
	Called(ctx context.Context, call Call)
}

// RunHook is told that a function is about to run. The function gets the context
// returned; ended is called with its error when it has returned: a
// *coalesce.PanicError or coalesce.ErrGoexit if it did not. Of a function that runs for many
// keys, it is told for each, with the context of that key's flight and that key's error; the
// function gets the context that was returned for the first.
type RunHook interface {
	Run(ctx context.Context, run Run) (fn context.Context, ended func(error))
}

// LeaseHook is told of each change of a lease that this replica holds.
type LeaseHook interface {
	Lease(lease Lease)
}

// CommandHook is told of each command that Redis was sent.
type CommandHook interface {
	Command(command Command)
}

// FlightStart is a flight that begins.
type FlightStart struct {
	Group string // the name of its Group
	Key   string
}

// Call is a Do that ended, or what a DoMany was for one of its keys.
type Call struct {
	Group  string // the name of its Group
	Key    string
	Flight string        // whose result it got; empty when it left or panicked
	Trace  string        // what Flight returned for the local flight that brought it; empty when there is none
	Role   coalesce.Role // 0 when it ended before it had one
	Err    error
	Wait   time.Duration // from its start to its end
}

// Flight is one local flight's way through the distributed tier, at its end.
type Flight struct {
	Group    string
	Key      string
	Flight   string        // whose outcome it got; empty when it got none
	Role     coalesce.Role // 0 when it ended before it had one
	Cause    string        // as in Run
	Takeover bool          // a Leader whose flight before this one, which it followed, went away without an outcome
	Err      error         // a *coalesce.PanicError or coalesce.ErrGoexit if the function did not return
	Wait     time.Duration // since its first caller came
	// Lag is how long the outcome of a RemoteFollower was on its way: from the
	// function's end on the leader until it was here, by Redis' clock, and up to a
	// round trip more. It is negative when it is not known, and for other roles.
	Lag time.Duration
	// Kept is what Flight returned on the replica that led the flight whose outcome
	// a Cached got. It is empty when there is none, and for other roles.
	Kept string
}

// Followed is the flight of another replica that one here waits for.
type Followed struct {
	Group  string
	Key    string
	Flight string
	Trace  string // what the FlightHook of the leader returned; visible ASCII, at most 128 bytes, empty when there is none
}

// Run is one execution of a function, for one key: that of a batch is one for each.
type Run struct {
	Group    string
	Key      string
	Flight   string
	Role     coalesce.Role // Leader, or Fallback: without the lease, because Redis could not be used
	Cause    string        // of a Fallback: the kind of Redis' failure, or "too large", "incompatible" or "garbage"
	Takeover bool          // of a flight that went away without an outcome
}

// Lease is a change of a lease that this replica holds, or held.
type Lease struct {
	Group  string
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
	LeaseRenewed             // Redis extended it, or gave it back after it was lost
	LeaseLost                // it had run out, or been taken, before its function ended: told once, when it was to be renewed or released
	LeaseReleased            // Redis has taken the outcome, or knows that there is none
)

// Command is one script that Redis was sent.
type Command struct {
	Step string        // join, peek, renew, finish, abandon, leave, forget or probe; of a piece of a large result, store, fetch or expire; tell, of a notice to all replicas
	Took time.Duration // until its reply, or until it was given up; from when it was to be sent, a wait for its turn included
	Kind string        // of its failure, as in FailureKinds; empty when it had a reply
}

// FailureKinds are the kinds of Redis' failures, all of them: the keys of
// RedisStats.ErrorsBy, and Command.Kind. They are "timeout", "connection",
// "subscription" (one was lost or not confirmed), "pool" (no connection of the client's
// was free), "oom", "readonly", "misconf", "noreplicas", "loading", "cluster", "auth",
// "maxclients" and "reply"
// (any other error that Redis replied).
func FailureKinds() []string { return redislink.FailureKinds() }

// FallbackCauses are the values of Run.Cause and Flight.Cause, all of them. "down"
// is the cause of a fallback alone: the server was down, so nothing was sent.
func FallbackCauses() []string {
	return append(FailureKinds(), redislink.DownKind, causeTooLarge, causeIncompatible, causeGarbage)
}

// hooks are those of a Fleet, by what they implement.
type hooks struct {
	flight   []FlightHook
	followed []FollowHook
	called   []CallHook
	run      []RunHook
	lease    []LeaseHook
	command  []CommandHook
	server   []ServerHook
}

func (h *hooks) add(hook Hook) error {
	before := h.count()
	h.flight = appendIf(h.flight, hook)
	h.followed = appendIf(h.followed, hook)
	h.called = appendIf(h.called, hook)
	h.run = appendIf(h.run, hook)
	h.lease = appendIf(h.lease, hook)
	h.command = appendIf(h.command, hook)
	h.server = appendIf(h.server, hook)
	switch {
	case hook == nil:
		return errors.New("is nil; leave it out")
	case h.count() == before:
		return errors.New("implements none of FlightHook, FollowHook, CallHook, RunHook, LeaseHook, CommandHook, ServerHook")
	}
	return nil
}

func (h *hooks) count() int {
	return len(h.flight) + len(h.followed) + len(h.called) + len(h.run) + len(h.lease) + len(h.command) + len(h.server)
}

func appendIf[H any](all []H, hook Hook) []H {
	if h, ok := hook.(H); ok {
		return append(all, h)
	}
	return all
}

// traces says whether somebody wants to know whom a flight follows, and since when.
func (h *hooks) traces() bool { return len(h.flight)+len(h.followed) > 0 }

// tellOfCommands says whether a hook is told of commands or leases.
func (h *hooks) tellOfCommands() bool { return len(h.command)+len(h.lease) > 0 }

// begin tells of a flight that begins. Each hook's context carries those before it.
// The first trace that is one goes with the lease. They are told of the end the other
// way round.
func (h *hooks) begin(ctx context.Context, start FlightStart) (_ context.Context, trace string, ended func(Flight)) {
	all := make([]func(Flight), 0, len(h.flight))
	defer func() {
		if len(all) < len(h.flight) { // a hook panics or exits
			value := recover()
			err := lost.Error(value)
			endAll(all, Flight{Group: start.Group, Key: start.Key, Err: err, Lag: protocol.UnknownLag})
			if value != nil {
				panic(err)
			}
		}
	}()
	for _, hook := range h.flight {
		var t string
		var end func(Flight)
		ctx, t, end = hook.Flight(ctx, start)
		all = append(all, end)
		if trace == "" {
			trace = traceOf(t)
		}
	}
	return ctx, trace, func(flight Flight) { endAll(all, flight) }
}

// endAll tells hooks of the end of what they were told of, the last one first. Each is
// told, though another one panics.
func endAll[T any](all []func(T), what T) {
	for _, ended := range all {
		defer ended(what)
	}
}

func (h *hooks) follow(ctx context.Context, leader Followed) {
	for _, hook := range h.followed {
		hook.Followed(ctx, leader)
	}
}

func (h *hooks) callEnded(ctx context.Context, call Call) {
	for _, hook := range h.called {
		hook.Called(ctx, call)
	}
}

func (h *hooks) leaseIs(lease Lease) {
	for _, hook := range h.lease {
		hook.Lease(lease)
	}
}

func (h *hooks) commandSent(step string, took time.Duration, kind string) {
	for _, hook := range h.command {
		hook.Command(Command{Step: step, Took: took, Kind: kind})
	}
}

func (h *hooks) serverChanged(change ServerChange) {
	for _, hook := range h.server {
		hook.Server(change)
	}
}

// wrap returns fn with the hooks told that it runs, or fn without hooks.
func wrap[V any](h *hooks, run Run, fn func(context.Context) (V, error)) func(context.Context) (V, error) {
	if len(h.run) == 0 {
		return fn
	}
	return func(ctx context.Context) (val V, err error) {
		all := make([]func(error), 0, len(h.run))
		err = coalesce.ErrGoexit
		defer func() {
			if value := recover(); value != nil {
				panicked := lost.Error(value)
				endAll(all, panicked)
				panic(panicked)
			}
			endAll(all, err)
		}()
		for _, hook := range h.run {
			var ended func(error)
			ctx, ended = hook.Run(ctx, run)
			all = append(all, ended)
		}
		return fn(ctx)
	}
}

// longestTrace is how long a trace may be that goes with a lease; a W3C
// traceparent has 55 bytes.
const longestTrace = 128

// traceOf returns trace if it may go with a lease, or "": the scripts find it by the
// character before it, which is not visible, and a lease in Redis may be anybody's.
func traceOf(trace string) string {
	if len(trace) > longestTrace {
		return ""
	}
	for i := range len(trace) {
		if trace[i] < '!' || trace[i] > '~' {
			return ""
		}
	}
	return trace
}
