package history

import (
	"slices"
	"sort"
	"time"
)

// P3. With MaxAge 0 a caller only gets a flight that was still running when the
// caller came, give or take one message delivery. On the leader's own replica
// there is no such grace. An outcome that was recovered because its message was
// missed is not given to callers that came after it had finished. With MaxAge d
// a caller may also get a value that finished at most d before.

// fresh decides it for a call that got an execution's result. The call came
// when it is written down, or later; the function ended when that is written
// down, or later. Between that and the end of the flight, callers still join:
// for a time that no record tells. So there are two rules.
//
// Over: once the flight certainly was over, a call that comes gets it no more,
// however short the time. It was over for a process when a call there had
// returned with it; and for calls that start a local flight of their own, which
// ask Redis, when Redis had released its lease. A local follower may have joined
// a local flight that still waited for its message: so the first is decided for
// it only where there was one local flight.
//
// Age: in every other case, the call came at most one delivery after the
// function's end. Time in which a fault held up the leader's process, the
// caller's, or Redis for one of them does not count: a message may be under way
// for that long. A fault's Delay is added.
//
// MaxAge is added in both, for values. What excuses Over is only that Redis
// loses keys or is given garbage: a lost release brings the lease back. Losing
// messages excuses nothing.
func (c *checker) fresh(x *call) {
	e := x.got
	if e == nil || e.end.At >= x.called.At {
		return
	}
	p := x.process
	maxAge := time.Duration(0)
	if x.returned.Outcome == Value {
		maxAge = p.set.MaxAge
	}
	evidence := []*Record{x.called, x.returned, e.end}
	age := between(e.end.At, x.called.At)
	if over := c.overFor(x); later(over, maxAge) < x.called.At &&
		!c.touched("", e.end.At, x.returned.At, c.limits.aftermath(p.set), losesKeys) {
		c.violation("P3", evidence, "a call got the result of a flight that had been over for %v", between(over, x.called.At))
		return
	}
	delay := time.Duration(0)
	for _, f := range c.faults {
		if f.begin <= x.returned.At && f.end >= e.end.At {
			delay = max(delay, f.effects.Delay)
		}
	}
	late := c.uncovered(e.end.At, x.called.At, delays, p.name, e.process.name)
	if late > maxAge+c.limits.Delivery+delay {
		c.violation("P3", evidence, "a call got a result that was %v old when it came", age)
	}
}

// overFor is from when the flight that x got was certainly over for it; never
// if that is not known.
func (c *checker) overFor(x *call) int64 {
	e, name := x.got, x.process.name
	over := e.firstReturn[name]
	if x.returned.Role == localFollower {
		if e.initiators[name] > 1 || c.split(x.key, name, min(e.start.At, e.firstCall), x.returned.At) {
			return never
		}
		return over
	}
	if l := e.lease; l != nil && l.released != nil {
		over = min(over, l.released.At)
	}
	return over
}

// P4. After Forget(key) returned, no new caller of this replica joins a flight
// begun before it; on the other replicas from the moment the notice arrives.

// forgotten decides, for the calls of a key that got a result:
//
//   - a call that came to a process after a Forget had returned there, without
//     an error, got no execution that started before that Forget began. What
//     excuses it is a fault that loses keys, which may bring the lease back;
//     and, for an execution that ran without the lease, one that made commands
//     fail: such an execution's join may have reached Redis later;
//   - one that came to another process got none from one delivery after the
//     Forget had returned, by when the notice had arrived; unless any fault
//     touched the time between, or its aftermath did, or the process began
//     then: the notice may have been missed, or been late.
//
// What other processes got after the Forget had returned is reported, however
// short the time.
func (c *checker) forgotten(k *key) {
	var done []*forget
	for _, x := range k.forgets {
		if x.end != nil && x.end.Error == "" {
			done = append(done, x)
		}
	}
	c.report.Forgets.Forgets += len(done)
	if len(done) == 0 {
		return
	}
	here := map[string][]*forget{}
	for _, x := range done {
		here[x.process.name] = append(here[x.process.name], x)
	}
	// The earliest ends of the lists' tails.
	ends := earliestEnds(done)
	endsHere := map[string][]int64{}
	for name, list := range here {
		endsHere[name] = earliestEnds(list)
	}
	for _, x := range k.calls {
		if x.got == nil {
			continue
		}
		name, started := x.process.name, x.got.start.At
		if end := endOfForgetAfter(here[name], endsHere[name], started); end < x.called.At {
			c.forgottenHere(x, end)
		} else if end := endOfForgetAfter(done, ends, started); end < x.called.At {
			c.forgottenElsewhere(x, end)
		}
	}
}

func earliestEnds(list []*forget) []int64 {
	ends := make([]int64, len(list))
	earliest := int64(never)
	for i, x := range slices.Backward(list) {
		earliest = min(earliest, x.end.At)
		ends[i] = earliest
	}
	return ends
}

// endOfForgetAfter is when the first to end of the Forgets that began after at
// ended.
func endOfForgetAfter(list []*forget, ends []int64, at int64) int64 {
	i := sort.Search(len(list), func(i int) bool { return list[i].begin.At > at })
	if i == len(list) {
		return never
	}
	return ends[i]
}

func (c *checker) forgottenHere(x *call, end int64) {
	e, after := x.got, c.limits.aftermath(x.process.set)
	if c.touched("", e.start.At, x.returned.At, after, losesKeys) ||
		e.start.Role == fallback && c.touched(e.process.name, e.start.At, e.start.At, after, fails) {
		return
	}
	c.violation("P4", []*Record{x.called, x.returned, e.start},
		"a call that came %v after Forget had returned got a flight begun before it", between(end, x.called.At))
}

func (c *checker) forgottenElsewhere(x *call, end int64) {
	stale := between(end, x.called.At)
	c.report.Forgets.StaleCalls++
	c.report.Forgets.Longest = max(c.report.Forgets.Longest, stale)
	from := x.got.start.At
	if stale <= c.limits.Delivery || later(x.process.begin, c.limits.Slack) > from ||
		c.touched(x.process.name, from, x.called.At, c.limits.aftermath(x.process.set), anyEffect) {
		return
	}
	c.violation("P4", []*Record{x.called, x.returned, x.got.start},
		"a call that came %v after Forget had returned on another replica got a flight begun before it", stale)
}
