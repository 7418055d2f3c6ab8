package history

import (
	"slices"
	"time"
)

// P2. Every caller returns by its own deadline or the flight timeout, with a result, an
// error, or a flight of its own.

// checkDeadline checks that a call returned by its deadline, or by the flight timeout
// after it began, whichever is earlier. It may take longer by
//
//   - one Redis timeout and the slack, because the last command before the flight
//     timeout is waited for, and the machine may be slow;
//   - the time until the slack after its process was resumed, if the process was
//     stopped when the call was due, because its timers fire then.
//
// No other fault allows more time. A call may have no end if its process was killed
// before the call was due. In a process that exited cleanly every call must have an
// end.
func (c *checker) checkDeadline(x *call) {
	p := x.process
	due := later(x.called.At, p.settings.FlightTimeout)
	if x.called.Deadline != 0 {
		due = min(due, x.called.Deadline)
	}
	limit := c.extendedByFaults(later(max(due, x.called.At), p.settings.RedisTimeout+c.limits.Slack), p.name, stops)
	switch {
	case x.returned != nil:
		if x.returned.At > limit {
			c.violation("P2", []*Record{x.called, x.returned}, "a call returned %v after it was due", between(due, x.returned.At))
		}
	case p.exit != never:
		x.hurt = true
		c.violation("P2", []*Record{x.called}, "a call never returned, though its process ended in good order")
	case min(p.killed, c.last) > limit:
		x.hurt = true
		c.violation("P2", []*Record{x.called}, "a call had not returned %v after it was due", between(due, min(p.killed, c.last)))
	}
}

// P5. A Redis that is slow, gone, full or failing over costs a caller at most one Redis
// timeout until its replica knows that the server is down, and never an error.

// checkFailOpen checks two things.
//
// First, no call fails because of Redis, unless the group fails closed. No fault
// excuses it.
//
// Second, no call waits for a Redis that is unusable for its process. A call that comes
// during the fault waits for one Redis timeout. A call that was waiting for another
// replica when the fault began waits for its patience. When that and the slack have
// passed, the call must have returned, or a function for its key must have run in its
// process since the call came.
//
// A fault is recorded shortly before it begins and shortly after it ends. So a call
// that comes within the slack after its begin may still find a leader, and the slack
// before its end proves nothing. Nor does a time in which the process was stopped or
// killed. If commands fail only sometimes (Unreliable), a call may wait as long as
// another replica's function runs, and only P2 bounds it.
func (c *checker) checkFailOpen(x *call) {
	p := x.process
	if x.returned != nil && x.returned.Outcome == Unavailable && !p.settings.FailClosed {
		x.hurt = true
		c.violation("P5", []*Record{x.called, x.returned}, "a call failed because Redis could not be used")
	}
	for _, fault := range c.faults {
		if fault.begin > x.endAt() {
			break
		}
		if !unusable(fault.effects) || !fault.hits(p.name) {
			continue
		}
		until := later(x.called.At, p.settings.RedisTimeout)
		if x.called.At < later(fault.begin, c.limits.Slack) {
			until = later(max(x.called.At, fault.begin), patience(p.settings))
		}
		until = later(until, c.limits.Slack)
		if x.batch != nil && c.waitsForOthers(x, until) {
			continue
		}
		if later(until, c.limits.Slack) >= fault.end || until >= x.endAt() || until >= min(p.killed, p.exit, c.last) ||
			c.faultTouched(p.name, x.called.At, until, c.limits.Slack, stops) {
			continue
		}
		local := x.key.in(p.name)
		if !anyOpen(local.executions, local.runsUntil, x.called.At, until) {
			x.hurt = true
			c.violation("P5", []*Record{x.called, x.returned}, "a call still waited for Redis %v after %q had made it unusable",
				between(fault.begin, until), fault.name)
			return
		}
	}
}

// patience returns how long a follower may wait in an otherwise idle replica until it
// notices that Redis does not answer. After a third of the lease TTL it sends a ping,
// which fails after the Redis timeout. Then it sends a command, which fails after the
// same time.
func patience(s Settings) time.Duration { return s.LeaseTTL/3 + 2*s.RedisTimeout }

// Besides P1 to P7, there are outcomes that no fault excuses. They are the violations
// "hurt".

// checkOutcome checks that a call that got no result had a reason:
//
//   - Strange is always a violation, and so is an error that is neither the
//     function's nor the library's.
//   - Closed is right if Close had been called in its process.
//   - FlightTimeout is right if a function for the key was running in any process
//     at that time, or less than the slack before. An execution whose process was
//     killed runs until its lease expires. Faults that lose messages or keys may
//     hide the end of a function for the time of its lease and one more look. A
//     process that is stopped may not see the end. But it is wrong if the call could
//     have had a result (missed).
//   - Poisoned is right if enough leaders had died (poisonDeserved).
func (c *checker) checkOutcome(x *call) {
	if x.returned == nil {
		return
	}
	r, p := x.returned, x.process
	wrong := ""
	switch r.Outcome {
	case Strange:
		wrong = "a call ended as none may"
	case OtherError:
		if r.Execution == "" {
			wrong = "a call got an error that no function returned"
		}
	case Closed:
		if r.At < p.closing {
			wrong = "a call was refused before its process was closed"
		}
	case FlightTimeout:
		switch {
		case x.got != nil:
		case !c.timeoutDeserved(x):
			wrong = "a call timed out though no function was running"
		case c.missed(x):
			wrong = "a call timed out though it could have had a result"
		}
	case NoResult:
		if x.got == nil && !noResult(x) {
			wrong = "a call got no result though no function for its key had returned none"
		}
	case Unwound:
		if !unwound(x) {
			wrong = "what came of a key is not known though its call has not panicked"
		}
	case Poisoned:
		if !c.poisonDeserved(x) {
			wrong = "a key was poisoned though not that many leaders had died of it"
		}
	case Value, KnownError, Panic, Cancelled, Unavailable:
	default:
		wrong = "a call ended in no known way"
	}
	if wrong != "" {
		x.hurt = true
		c.violation("hurt", []*Record{x.called, r}, "%s: %s %s", wrong, r.Outcome, r.Error)
	}
}

func (c *checker) timeoutDeserved(x *call) bool {
	p, at := x.process, min(x.returned.At, x.answered())
	if c.faultTouched(p.name, x.called.At, at, c.limits.Slack, stops) {
		return true
	}
	hidden := c.limits.Slack
	if c.faultTouched(p.name, x.called.At, at, c.limits.aftermath(p.settings), disturbs) {
		hidden += p.settings.LeaseTTL + p.settings.RedisTimeout
	}
	return anyOpen(x.key.executions, x.key.openUntil, at-int64(hidden), at)
}

// missed reports whether a call that timed out could have had a result. It follows a
// flight whose leader has died for two lease TTLs at most, even if Redis' clock was set,
// and after that the next one. Whatever Redis lost, it waits for a leader that lives. So
// it could have had the outcome of a flight that began later and ended in time, unless
// another function ran when that ended, for which it may have waited.
//
// A fault that keeps the outcome from its process is an excuse.
func (c *checker) missed(x *call) bool {
	p, at := x.process, min(x.returned.At, x.answered())
	set := p.settings
	hides := func(e Effects) bool { return fails(e) || e.Garbage || e.Stops || e.LosesMessages }
	if c.faultTouched(p.name, x.called.At, at, set.LeaseTTL+c.limits.Held, hides) {
		return false
	}
	from := later(x.called.At, 2*set.LeaseTTL+set.RedisTimeout+c.limits.Held)
	return slices.ContainsFunc(x.key.executions, func(e *execution) bool {
		if e.start.At < from || e.lease == nil || later(e.endAt(), c.limits.Held) > at || x.key.useful(e) < e.endAt() {
			return false
		}
		return !slices.ContainsFunc(x.key.executions, func(o *execution) bool {
			return o != e && o.start.At <= e.endAt() && o.openEnd(c.limits) >= e.endAt()
		})
	})
}
