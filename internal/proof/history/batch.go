package history

import (
	"slices"
	"time"
)

// A call for many keys has a record of each key, and each promise is decided for each key
// by itself. What it adds:
//
//   - It returns once, so that what came of one key may have been there long before.
//   - Its function is one for several keys, and must not wait for those that others lead.

// batch connects the calls of the keys of one call, and checks that they are of different
// keys and that all return, or none.
func (g *collector) batch(calls []*call) {
	keys, returned := map[*key]bool{}, 0
	for _, c := range calls {
		c.batch = calls
		keys[c.key] = true
		if c.returned != nil {
			returned++
		}
	}
	first := calls[0].called
	if len(keys) < len(calls) {
		g.violation("log", []*Record{first}, "a call for many keys was recorded twice for a key")
	}
	if p := calls[0].process; returned > 0 && returned < len(calls) && p.killed == never {
		g.violation("P2", []*Record{first}, "a call for %d keys has returned with %d of them", len(calls), returned)
	}
}

// checkStarts checks P2 for functions: that a leader runs its function as soon as it has
// the lease, within the Redis timeout and the slack, because those who follow wait for it.
// A call for many keys may wait until its other joins have been answered, and for nothing
// else: not for a flight that it follows. A process that is stopped is excused.
func (c *checker) checkStarts(k *key) {
	for _, e := range k.executions {
		l, p := e.lease, e.process
		if l == nil || l.taken == nil {
			continue
		}
		limit := later(l.taken.At, p.settings.RedisTimeout+c.limits.Slack)
		if e.start.At > c.extendedByFaults(limit, p.name, stops) {
			c.violation("P2", []*Record{l.taken, e.start}, "a leader ran its function %v after it had the lease", between(l.taken.At, e.start.At))
		}
	}
}

// waitsForOthers reports whether a call of one key of many may have had that key's result
// by then, and waited for other keys.
func (c *checker) waitsForOthers(x *call, until int64) bool {
	if x.got == nil || x.got.endAt() > until {
		return false
	}
	return slices.ContainsFunc(x.batch, func(o *call) bool {
		return o != x && (o.got == nil || o.got.endAt() > until-int64(time.Millisecond))
	})
}

// answered returns by when a call certainly had its answer, if that was before it returned:
// one key of many had it when its flight ended, and was over by its own flight timeout.
func (x *call) answered() int64 {
	if x.batch == nil {
		return never
	}
	due := later(x.called.At, x.process.settings.FlightTimeout)
	for _, l := range x.key.leases {
		if l.flight == x.returned.Flight && l.execution != nil {
			return min(due, l.execution.endAt())
		}
	}
	return due
}

// noResult reports whether a function returned no result for a call's key while the call
// waited.
func noResult(x *call) bool {
	return slices.ContainsFunc(x.key.executions, func(e *execution) bool {
		return e.end != nil && e.end.Outcome == NoResult && e.end.At >= x.called.At && e.end.At <= x.returned.At
	})
}

// unwound reports whether the call for many keys that x is one key of has panicked.
func unwound(x *call) bool {
	return slices.ContainsFunc(x.batch, func(o *call) bool {
		return o.returned != nil && o.returned.Outcome == Panic && o.got != nil && o.got.process == o.process
	})
}
