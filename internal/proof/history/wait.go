package history

import "time"

// P2. Every caller returns by its own deadline or the flight timeout, with a
// result, an error, or a flight of its own.

// returns decides that a call returned in time: by its deadline or the flight
// timeout after it was called, whichever is first. What may be added is
//
//   - one Redis timeout and the slack: the last command before the flight
//     timeout is waited for, and the machine may be slow;
//   - the time until the slack after its process ran again, when it was stopped
//     when the call was due: its timers go on, and fire then.
//
// No other fault adds anything. A call may be without an end when its process
// was killed before it was due. In a process that ended in good order it may
// not, however short it was.
func (c *checker) returns(x *call) {
	p := x.process
	due := later(x.called.At, p.set.FlightTimeout)
	if x.called.Deadline != 0 {
		due = min(due, x.called.Deadline)
	}
	limit := c.extended(later(max(due, x.called.At), p.set.RedisTimeout+c.limits.Slack), p.name, stops)
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

// P5. Redis slow, gone, full or failing over costs a caller at most one Redis
// timeout per breaker window, and no error of its own.

// failsOpen decides it in two parts.
//
// No call is refused for Redis' sake, unless the group fails closed. No fault
// excuses it.
//
// And no call waits for a Redis that is unusable for its process: a call that
// comes then waits one Redis timeout, and one that waited for another replica as
// the fault began has patience. By then, and the slack, it has returned, or a
// function for its key has run in its process since it came. A fault is written
// down a little before it begins and after it ends, so that a call that comes in
// the slack after its begin may still find a leader, and nothing is decided in
// the slack before its end. Nor is it when the process was stopped or killed
// meanwhile. Where commands fail now and then (Unreliable), a call may wait as
// long as another replica's function runs, and P2 is what bounds it.
func (c *checker) failsOpen(x *call) {
	p := x.process
	if x.returned != nil && x.returned.Outcome == Unavailable && !p.set.FailClosed {
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
		until := later(x.called.At, p.set.RedisTimeout)
		if x.called.At < later(fault.begin, c.limits.Slack) {
			until = later(max(x.called.At, fault.begin), patience(p.set))
		}
		until = later(until, c.limits.Slack)
		if later(until, c.limits.Slack) >= fault.end || until >= x.endAt() || until >= min(p.killed, p.exit, c.last) ||
			c.touched(p.name, x.called.At, until, c.limits.Slack, stops) {
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

// patience is how long a follower may wait in an otherwise idle replica until it
// learns that Redis does not answer: after a third of the lease TTL it pings, and
// what is not answered within the Redis timeout has failed; so has the command
// that it sends then.
func patience(s Settings) time.Duration { return s.LeaseTTL/3 + 2*s.RedisTimeout }

// hurt: what no fault may do to a caller, besides what P1 to P7 say.

// unhurt decides that a call that got no result has a reason for it:
//
//   - Strange is never right, nor an error that is neither the function's nor
//     the library's;
//   - Closed is right when Close of its process had begun;
//   - FlightTimeout is right when a function for the key was running then, in
//     any process, or less than the slack before: a killed one runs until its
//     lease ends. Faults that lose messages or keys may hide its end for as
//     long as its lease, and a look; a process that is stopped may hide it from
//     itself;
//   - Poisoned is right when as many leaders went away (deserved).
func (c *checker) unhurt(x *call) {
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
		if x.got == nil && !c.timeoutDeserved(x) {
			wrong = "a call timed out though no function was running"
		}
	case Poisoned:
		if !c.deserved(x) {
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
	p, at := x.process, x.returned.At
	if c.touched(p.name, x.called.At, at, c.limits.Slack, stops) {
		return true
	}
	hidden := c.limits.Slack
	if c.touched(p.name, x.called.At, at, c.limits.aftermath(p.set), disturbs) {
		hidden += p.set.LeaseTTL + p.set.RedisTimeout
	}
	return anyOpen(x.key.executions, x.key.openUntil, at-int64(hidden), at)
}
