package distributed

import (
	"context"
	"strings"
	"time"

	"github.com/fleetcall/fleetcall/coalesce"
)

// longestTrace is how long a trace may be that goes with a lease; a W3C
// traceparent has 55 bytes.
const longestTrace = 128

// validTrace says whether trace may go with a lease: the scripts find it by the
// character before it, which is not one of these.
func validTrace(trace string) bool {
	if trace == "" || len(trace) > longestTrace {
		return false
	}
	for i := range len(trace) {
		if trace[i] < '!' || trace[i] > '~' {
			return false
		}
	}
	return true
}

// traceOf returns a trace that came from Redis, unless it is none: a lease may
// be anybody's.
func traceOf(trace string) string {
	if !validTrace(trace) {
		return ""
	}
	return trace
}

// observeFlight tells the observer that a flight begins. What it returns as
// trace is join's argument: the "+" asks it for what an observer wants to know.
func (g *Group[V]) observeFlight(ctx context.Context, key string) (flight context.Context, trace string, ended func(Flight)) {
	flight, trace, ended = g.set.observer.Flight(ctx, key)
	return flight, "+" + traceOf(trace), ended
}

// ownTrace is what the observer returned for the call's flight.
func (c *call[V]) ownTrace() string { return strings.TrimPrefix(c.trace, "+") }

// seen is what the observer is told of the call's end.
func (c *call[V]) seen(r result[V], err error) Flight {
	f := Flight{
		Key: c.key, Flight: r.flight, Role: r.role, Cause: c.cause,
		Takeover: c.lost && r.role == coalesce.Leader,
		Err:      err, Wait: time.Since(c.started), Lag: unknownLag,
	}
	switch f.Role {
	case coalesce.RemoteFollower:
		f.Lag = c.lag
	case coalesce.Cached:
		f.Kept = c.kept
	}
	return f
}
