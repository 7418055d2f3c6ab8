// Package coalesce holds what the tiers of fleetcall share: the Group
// interface, the role of a caller, errors that keep their identity from one
// replica to the next, and codecs for results.
//
// Words used throughout: a flight is one execution of a caller's function for
// one key, and everyone who waits for it. Its leader runs the function; its
// followers wait for the result.
//
// A tier is chosen by configuration: Off, local.Group (through local.Tier)
// and distributed.Group all are a Group.
package coalesce

import (
	"context"
	"fmt"
	"runtime/debug"
)

// Group merges concurrent calls for the same key into one execution.
type Group[V any] interface {
	// Do returns the result of fn for key, from an execution that was still
	// running when Do was called, or from one of its own. An error of fn is
	// returned to every caller of its flight.
	//
	// When ctx ends first, Do returns ctx.Err() at once, with the role that the
	// caller had when it left: Leader or Fallback when its function was running
	// here, LocalFollower or RemoteFollower when it waited for another caller, 0
	// when that was not decided yet. When ctx had ended before the call, Do runs
	// nothing and the role is 0.
	//
	// A function that returns context.Canceled, wrapped or not, although its
	// flight has not been cancelled has abandoned its flight: its caller gets
	// the error, and the others run one of their own functions. A panic of fn
	// is a panic of Do with a *PanicError in the process that ran it, and
	// ErrRemotePanic elsewhere. A nil fn panics when it is called, as a nil
	// function does.
	Do(ctx context.Context, key string, fn func(context.Context) (V, error)) (V, Role, error)
	// DoMany is Do for many keys, with one call of fn for all those that nobody runs a
	// function for: fn is given these, each once, in the order of keys. For the others
	// DoMany waits. fn does not wait for them, so that two batches never wait for each
	// other, whatever the order of their keys. A Do follows a key of a batch, and the
	// other way round. A key that is given twice counts once.
	//
	// The map has a Result for each key. What the function came to is each key's by
	// itself, as ResultOf says: a value, an error of a BatchError, an error that is
	// every key's, or ErrNoResult. The context of fn has the values of ctx. It ends when
	// nobody waits for any of its keys any more.
	//
	// The error is nil when every key has what its flight came to. When ctx ends first,
	// it is ctx.Err(): the keys that were not there yet have ctx.Err() too, and the role
	// that they had. The caller leaves all its keys at once, and fn goes on for those
	// that others wait for.
	//
	// When fn panics, DoMany panics with a *PanicError once all keys are there. To a key
	// that it follows, the panic of another's function in its process is a *PanicError
	// too, but as the key's error. A key whose flight has been abandoned is joined anew,
	// and fn may be called another time, for such keys alone: then by another goroutine,
	// perhaps while its first call still runs.
	DoMany(ctx context.Context, keys []string, fn func(ctx context.Context, keys []string) (map[string]V, error)) (map[string]Result[V], error)
	// Forget makes callers of these keys that come after it start a new flight.
	// Callers that already wait keep theirs.
	Forget(ctx context.Context, keys ...string) error
}

// Role tells how one caller got its result.
type Role uint8

const (
	// Leader ran the function.
	Leader Role = iota + 1
	// LocalFollower took the result of another caller of its process.
	LocalFollower
	// RemoteFollower took the result of another replica.
	RemoteFollower
	// Fallback ran the function here because Redis could not be used, or
	// could not carry the result.
	Fallback
	// Cached took a result that had finished within MaxAge.
	Cached
)

// String returns the role in lower case with hyphens, as in the
// X-Coalesce-Role header. The zero Role is "none": the call ended before it
// had one.
func (r Role) String() string {
	switch r {
	case 0:
		return "none"
	case Leader:
		return "leader"
	case LocalFollower:
		return "local-follower"
	case RemoteFollower:
		return "remote-follower"
	case Fallback:
		return "fallback"
	case Cached:
		return "cached"
	}
	return fmt.Sprintf("role(%d)", uint8(r))
}

// Off is the Group that merges nothing: every call runs its own function.
type Off[V any] struct{}

// Do runs fn with ctx, on the caller's goroutine: a fn that does not obey ctx
// keeps its caller. A panic of fn reaches the caller as in the other tiers, as a
// *PanicError.
func (Off[V]) Do(ctx context.Context, _ string, fn func(context.Context) (V, error)) (val V, role Role, err error) {
	if err := ctx.Err(); err != nil {
		return val, 0, err
	}
	returned := false
	defer panicsAsPanicError(&returned)
	val, err = fn(ctx)
	returned = true
	return val, Leader, err
}

// DoMany runs fn with ctx for all keys, as Do does.
func (Off[V]) DoMany(ctx context.Context, keys []string, fn func(context.Context, []string) (map[string]V, error)) (map[string]Result[V], error) {
	results := make(map[string]Result[V], len(keys))
	distinct := make([]string, 0, len(keys))
	ended := ctx.Err()
	for _, key := range keys {
		if _, twice := results[key]; !twice {
			results[key] = Result[V]{Err: ended}
			distinct = append(distinct, key)
		}
	}
	if ended != nil || len(distinct) == 0 {
		return results, ended
	}
	returned := false
	defer panicsAsPanicError(&returned)
	vals, err := fn(ctx, distinct)
	for key := range results {
		val, err := ResultOf(vals, err, key)
		results[key] = Result[V]{Val: val, Role: Leader, Err: err}
	}
	returned = true
	return results, nil
}

// panicsAsPanicError is deferred around a function: it makes a *PanicError of a panic,
// unless the function has returned.
func panicsAsPanicError(returned *bool) {
	if *returned {
		return
	}
	switch value := recover().(type) {
	case nil: // runtime.Goexit, which goes on
	case *PanicError:
		if value == nil {
			panic(&PanicError{Value: value, Stack: debug.Stack()})
		}
		panic(value) // it has crossed a goroutine, and has the original stack
	default:
		panic(&PanicError{Value: value, Stack: debug.Stack()})
	}
}

// Forget has nothing to forget.
func (Off[V]) Forget(context.Context, ...string) error { return nil }
