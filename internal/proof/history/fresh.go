package history

import (
	"slices"
	"sort"
	"time"
)

// P3. With MaxAge 0, a caller gets only a flight that was still running when the caller
// came, give or take one message delivery. On the leader's own replica even that is not
// allowed. An outcome that was fetched because its message was missed is not given to
// callers that came after the flight had finished. With MaxAge d, a caller may also get
// a value that finished at most d before.

// checkFreshness checks a call that got an execution's result. The call came when it
// was recorded, or later. The function ended when that was recorded, or later. Between
// the function's end and the flight's end callers still join, for a time that no record
// tells. Hence there are two rules.
//
// Over: a call that came after the flight was certainly over must not get its result,
// however short the time was. A flight was over for a process when a call there had
// returned with its result. For calls that start a local flight, which ask Redis, it
// was also over when Redis had released its lease. A local follower may have joined a
// local flight that was still waiting for its message, so for local followers the rule
// is applied only if there was one local flight.
//
// Age: in all other cases, the call came at most one delivery after the function's end.
// Time does not count while a fault delayed the leader's process, the caller's process,
// or Redis for one of them, because a message may take that long. The Delay of a fault
// is added.
//
// For values, MaxAge is added in both rules. The only excuse for Over is that Redis
// lost keys or got garbage, because then a lost release brings the lease back. Lost
// messages are no excuse.
func (c *checker) checkFreshness(x *call) {
	e := x.got
	if e == nil || e.end.At >= x.called.At {
		return
	}
	p := x.process
	maxAge := time.Duration(0)
	if x.returned.Outcome == Value {
		maxAge = p.settings.MaxAge
	}
	evidence := []*Record{x.called, x.returned, e.end}
	age := between(e.end.At, x.called.At)
	if over := c.overFor(x); later(over, maxAge) < x.called.At &&
		!c.faultTouched("", e.end.At, x.returned.At, c.limits.aftermath(p.settings), losesKeys) {
		c.violation("P3", evidence, "a call got the result of a flight that had been over for %v", between(over, x.called.At))
		return
	}
	delay := time.Duration(0)
	for _, f := range c.faults {
		if f.begin <= x.returned.At && f.end >= e.end.At {
			delay = max(delay, f.effects.Delay)
		}
	}
	late := c.timeWithoutFault(e.end.At, x.called.At, delays, p.name, e.process.name)
	if late > maxAge+c.limits.Delivery+delay {
		c.violation("P3", evidence, "a call got a result that was %v old when it came", age)
	}
}

// overFor returns the time from which the flight that x got was certainly over for x,
// or never if that is not known.
func (c *checker) overFor(x *call) int64 {
	e, name := x.got, x.process.name
	over := e.firstReturn[name]
	if x.returned.Role == localFollower {
		if e.initiators[name] > 1 || c.mayHaveTwoFlights(x.key, name, min(e.start.At, e.firstCall), x.returned.At) {
			return never
		}
		return over
	}
	if l := e.lease; l != nil && l.released != nil {
		over = min(over, l.released.At)
	}
	return over
}

// P4. After Forget(key) has returned, no new caller on this replica joins a flight that
// began before it. On other replicas, this holds from the moment when the notice
// arrives.

// checkForgets checks the calls of a key that got a result:
//
//   - A call that came to a process after a Forget had returned there without an
//     error must not get an execution that started before that Forget began. The
//     excuse is a fault that loses keys, because it may bring the lease back. For
//     an execution without a lease, a fault that makes commands fail is an excuse
//     too, because the execution's join may have reached Redis later.
//   - A call that came to another process must not get one either, from one
//     delivery after the Forget had returned, because by then the notice should
//     have arrived. Here any fault in between, its aftermath, or a start of the
//     process in between is an excuse, because the notice may have been missed or
//     late.
//
// The report has what other processes got after the Forget had returned, however short
// the time was.
func (c *checker) checkForgets(k *key) {
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
	// ends[i] is the earliest end of done[i:].
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

// endOfForgetAfter returns the earliest end of the Forgets that began after at.
func endOfForgetAfter(list []*forget, ends []int64, at int64) int64 {
	i := sort.Search(len(list), func(i int) bool { return list[i].begin.At > at })
	if i == len(list) {
		return never
	}
	return ends[i]
}

func (c *checker) forgottenHere(x *call, end int64) {
	e, after := x.got, c.limits.aftermath(x.process.settings)
	if c.faultTouched("", e.start.At, x.returned.At, after, losesKeys) ||
		e.start.Role == fallback && c.faultTouched(e.process.name, e.start.At, e.start.At, after, fails) {
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
		c.faultTouched(x.process.name, from, x.called.At, c.limits.aftermath(x.process.settings), anyEffect) {
		return
	}
	c.violation("P4", []*Record{x.called, x.returned, x.got.start},
		"a call that came %v after Forget had returned on another replica got a flight begun before it", stale)
}
