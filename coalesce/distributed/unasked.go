package distributed

import (
	"slices"
	"sync"
	"time"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/internal/heat"
)

// learning is what a call of an adaptive Group knows for heat.Keys.
type learning struct {
	id      heat.ID
	began   time.Time // its function; zero: it has not
	unasked bool      // it runs its function, and Redis was not asked
}

// unasked runs the function though nobody was asked whether another replica does: the key is
// not known to be shared. Nothing of the flight is in Redis. So nobody follows it, nobody takes
// it over, and who forgets its key tells all replicas.
type unasked[V any] struct{}

func (unasked[V]) run(c *call[V]) state[V] {
	c.heat.unasked = true
	c.g.adaptive.flights.add(c.heat.id, c)
	return c.execute(coalesce.Leader)
}

// asks says whether a call that starts asks Redis. It always does where its Group keeps
// results, which Redis has; where its replica does not hear what others forget; and where Redis
// cannot be used, which is dealt with as ever.
func (c *call[V]) asks() bool {
	a := c.g.adaptive
	if a == nil || c.g.set.maxAge > 0 {
		return true
	}
	c.heat.id = heat.IDOf(c.g.name, c.key)
	if a.keys.Begins(c.heat.id, c.started) {
		return true
	}
	if a.fleet.subs.Hears() && !a.fleet.isDown(c.names.Channel()) {
		return false
	}
	a.keys.Asks(c.heat.id)
	return true
}

// learns says whether what becomes of the call tells something of its key.
func (c *call[V]) learns() bool { return c.g.adaptive != nil && c.g.set.maxAge == 0 }

// trip says how long its join was on its way.
func (c *call[V]) trip(took time.Duration) {
	if c.learns() {
		c.g.adaptive.keys.Trip(took)
	}
}

// asked says that the call has asked Redis, and whether its flight was shared.
func (c *call[V]) asked(shared bool) {
	if c.learns() {
		c.g.adaptive.keys.Asked(c.heat.id, shared, time.Now())
	}
}

// runs says that the function is about to run.
func (c *call[V]) runs() {
	if c.learns() {
		c.heat.began = time.Now()
	}
}

// ran says that the function has ended, if it has begun, or that nobody waits for it.
func (c *call[V]) ran() {
	if c.heat.began.IsZero() {
		return
	}
	c.g.adaptive.keys.Ran(c.heat.id, time.Since(c.heat.began))
	if c.heat.unasked {
		c.g.adaptive.flights.remove(c.heat.id, c)
	}
}

// hasLease says whether the function runs with a lease, for all that is known.
func (c *call[V]) hasLease() bool {
	return c.running.role == coalesce.Leader && !c.heat.unasked
}

// waits says that a call waits for a flight of this replica.
func (g *Group[V]) waits(key string, arrived time.Time) {
	if g.adaptive != nil && g.set.maxAge == 0 {
		g.adaptive.keys.Waits(heat.IDOf(g.name, key), arrived)
	}
}

// unaskedFlights are those of a replica that run, by key, so that they can be told that it
// was forgotten.
type unaskedFlights struct {
	shards [16]struct {
		mu  sync.Mutex
		all map[heat.ID][]forgetter
	}
}

// forgetter is a call: forget makes the callers to come start a new flight.
type forgetter interface{ forget() }

func (u *unaskedFlights) add(id heat.ID, c forgetter) {
	s := &u.shards[id%16]
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.all == nil {
		s.all = map[heat.ID][]forgetter{}
	}
	s.all[id] = append(s.all[id], c)
}

func (u *unaskedFlights) remove(id heat.ID, c forgetter) {
	s := &u.shards[id%16]
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.all[id] = slices.DeleteFunc(s.all[id], func(other forgetter) bool { return other == c }); len(s.all[id]) == 0 {
		delete(s.all, id)
	}
}

// forget has callers to come start a new flight of a key.
func (u *unaskedFlights) forget(id heat.ID) {
	s := &u.shards[id%16]
	s.mu.Lock()
	flights := slices.Clone(s.all[id])
	s.mu.Unlock()
	for _, c := range flights {
		c.forget()
	}
}

// forgetAll does so for all keys: a notice that one was forgotten may have been missed.
func (u *unaskedFlights) forgetAll() {
	for i := range u.shards {
		s := &u.shards[i]
		s.mu.Lock()
		var flights []forgetter
		for _, some := range s.all {
			flights = append(flights, some...)
		}
		s.mu.Unlock()
		for _, c := range flights {
			c.forget()
		}
	}
}
