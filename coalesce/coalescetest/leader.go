package coalescetest

import "github.com/fleetcall/fleetcall/coalesce"

// Leader is a replica elsewhere in the fleet that leads one flight. A test says
// how its flight ends, with one of Return, Panic and Die; what comes after that
// has no effect.
type Leader[V any] struct{ flight *flight }

// LeadElsewhere has a replica that is none of the fleet's Groups lead key, from
// now on. It panics when the key is led already or Redis is stopped: that is a
// mistake in the test.
func (g *Group[V]) LeadElsewhere(key string) *Leader[V] {
	return &Leader[V]{g.fleet.leadElsewhere(place{g.name, key})}
}

// Await waits until at least n Groups follow the flight, or it has ended. The
// callers of one Group follow as one.
func (l *Leader[V]) Await(n int) {
	fleet := l.flight.fleet
	fleet.mu.Lock()
	defer fleet.mu.Unlock()
	for l.flight.followers < n && !l.flight.ended {
		fleet.changed.Wait()
	}
}

// Return ends the flight as a function that returned v and err. Followers get v
// as it is after encoding and decoding, or err as a *coalesce.RemoteError. When v
// cannot be encoded, they run their own function as Fallback. When err is a
// context.Canceled, the leader has abandoned its flight, and one of them leads.
func (l *Leader[V]) Return(v V, err error) { l.flight.end(outcomeOf(l.flight, v, err)) }

// Panic ends the flight as a function that panicked with value. Followers get
// coalesce.ErrRemotePanic.
func (l *Leader[V]) Panic(value any) {
	l.flight.end(panicOutcome(&coalesce.PanicError{Value: value}))
}

// Die ends the leader's process before it has a result: one of its followers
// takes over and leads.
func (l *Leader[V]) Die() { l.flight.end(outcome{fate: joinAnew}) }
