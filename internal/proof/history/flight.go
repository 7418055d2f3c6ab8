package history

import (
	"slices"
	"time"
)

// P1. While a flight for a key holds a live lease, no other replica runs the
// function for that key.

// leaseMargin is for Redis counting in milliseconds, by a clock that NTP may
// slow down or speed up.
func leaseMargin(ttl time.Duration) time.Duration { return 10*time.Millisecond + ttl/1000 }

// leaseIs gathers the records of a lease.
func (g *gatherer) leaseIs(r *Record, p *process) {
	l := g.leases[r.Flight]
	if l == nil {
		l = &lease{flight: r.Flight, process: p}
		g.leases[r.Flight] = l
		k := g.keyOf(r.Key)
		k.leases = append(k.leases, l)
	}
	if l.process != p {
		g.violation("P1", []*Record{r}, "two processes hold the lease of one flight")
		return
	}
	switch r.State {
	case "taken":
		l.taken = r
		l.held = append(l.held, r)
	case "renewed":
		l.held = append(l.held, r)
	case "lost":
		l.lost = r
	case "released":
		l.released = r
	default:
		g.violation("log", []*Record{r}, "a lease cannot be %q", r.State)
	}
}

// runs decides that an execution may start:
//
//   - the leader's has the lease: Redis has answered that this very flight took
//     it, in this process, before the start;
//   - one flight runs the function once.
//
// No fault excuses either. Without the lease a function runs as a fallback.
func (g *gatherer) runs(e *execution) {
	r := e.start
	l := g.leases[r.Flight]
	if l == nil {
		l = &lease{flight: r.Flight, process: e.process}
		g.leases[r.Flight] = l
		e.key.leases = append(e.key.leases, l)
	}
	if other := l.execution; other != nil {
		g.violation("P1", []*Record{other.start, r}, "one flight ran the function twice")
		return
	}
	l.execution = e
	switch r.Role {
	case leader:
		e.lease = l
		if l.taken == nil || l.process != e.process || l.taken.Key != r.Key {
			g.violation("P1", []*Record{r}, "a leader ran the function without having taken the lease")
		}
	case fallback:
	default:
		g.violation("log", []*Record{r}, "%q is no role to run a function in", r.Role)
	}
}

// oneFlight decides that Redis gave nobody a lease that somebody had: no lease
// was taken while another flight's certainly lived, as certain says. A lease
// that was taken is one that a leader runs under (runs), so that a leader that
// starts late, after its own lease, is none of this: it was held up, and took
// the lease when it was free.
//
// It also decides that each function that ran without the lease had a reason.
func (c *checker) oneFlight(k *key) {
	type life struct {
		lease    *lease
		held     *Record
		from, to int64
	}
	var lives []life
	var taken []*lease
	for _, l := range k.leases {
		if l.taken != nil {
			taken = append(taken, l)
		}
		for i, to := range c.certain(k, l) {
			lives = append(lives, life{l, l.held[i], l.held[i].At, to})
		}
	}
	sortBy(lives, func(l life) int64 { return l.from })
	sortBy(taken, func(l *lease) int64 { return l.taken.Asked })

	// Of the lives that began before a lease was asked for, the one that lasts
	// longest, and the longest of all other flights.
	var longest, second life
	next := 0
	for _, l := range taken {
		for ; next < len(lives) && lives[next].from <= l.taken.Asked; next++ {
			switch x := lives[next]; {
			case x.lease == longest.lease && x.to > longest.to:
				longest = x
			case x.lease == longest.lease:
			case x.to > longest.to:
				longest, second = x, longest
			case x.to > second.to:
				second = x
			}
		}
		other := longest
		if other.lease == l {
			other = second
		}
		if other.lease != nil && other.to > l.taken.At {
			c.violation("P1", []*Record{other.held, l.taken, other.lease.released},
				"flight %s took the lease while flight %s of %s held it, for %v more",
				l.flight, other.lease.flight, other.lease.process.name, between(l.taken.At, other.to))
		}
	}
	for _, e := range k.executions {
		if e.start.Role == fallback {
			c.reason(e)
		}
	}
}

// certain returns, for each record of the lease being held, until when it
// certainly was in Redis. From when Redis was asked to take or renew it, it
// lives for its TTL, less a margin for the clocks; but no longer than
//
//   - its function ran: then it is released;
//   - until it was asked to be released, or, as this may be asked for in vain
//     at first, until a call of its process returned with no result, less the
//     slack: the last one that leaves gives the flight up;
//   - until a Forget of the key began, which detaches it for good; one that
//     failed may take effect until the slack after it, and after the fault;
//   - until Redis began to lose keys, or garbage was written into them. One
//     that is renewed after that is certain again.
//
// That a lease was lost, as its holder found, excuses nothing: it must live.
func (c *checker) certain(k *key, l *lease) []int64 {
	if len(l.held) == 0 {
		return nil
	}
	end := int64(never)
	switch {
	case l.execution != nil:
		end = l.execution.endAt()
	case l.process.killed == never:
		end = l.held[0].At // given up before the function ran
	}
	if l.released != nil {
		end = min(end, l.released.Asked)
	}
	if left := firstFrom(k.in(l.process.name).left, l.held[0].At); left != never {
		end = min(end, left-int64(c.limits.Slack))
	}
	first, _ := slices.BinarySearch(k.forgottenUntil, l.held[0].Asked)
	for _, x := range k.forgets[first:] {
		if x.begin.At >= end {
			break
		}
		if c.forgottenUntil(x) >= l.held[0].Asked {
			end = x.begin.At
		}
	}
	ttl := l.process.set.LeaseTTL
	lives := make([]int64, len(l.held))
	for i, r := range l.held {
		lives[i] = min(end, r.Asked+int64(ttl-leaseMargin(ttl)))
		for _, x := range c.faults {
			if losesKeys(x.effects) && x.begin < lives[i] && x.end >= r.Asked {
				lives[i] = x.begin
			}
		}
	}
	return lives
}

// forgottenUntil is until when a Forget may take effect in Redis.
func (f *facts) forgottenUntil(x *forget) int64 {
	switch {
	case x.end != nil && x.end.Error == "":
		return x.end.At
	case x.end != nil:
		return f.extended(later(x.end.At, f.limits.Slack), "", fails)
	}
	return f.extended(later(min(x.process.killed, x.process.exit, f.last), f.limits.Slack), "", fails)
}

// extended is at, or, when a fault of the wanted effects hit the process then or
// began within the slack before, the slack after that fault's end.
func (f *facts) extended(at int64, process string, want func(Effects) bool) int64 {
	for _, x := range f.faults {
		if x.begin > at {
			break
		}
		if want(x.effects) && x.hits(process) && x.end >= at-int64(f.limits.Slack) {
			at = max(at, later(x.end, f.limits.Slack))
		}
	}
	return at
}

// reason decides that a function that ran without the lease had to. It had
// when its outcome could not travel ("too large"), or when a fault hit its
// process: it lasted at its start, or had ended no longer before than its
// aftermath.
//
// A machine that is slow may time a command out without any fault, if the Redis
// timeout is not above the slack. That is counted as unexplained.
func (c *checker) reason(e *execution) {
	p := e.process
	waited := []string{"timeout", "breaker", "pool", "subscription"}
	switch {
	case e.start.Cause == "too large":
	case c.touched(p.name, e.start.At, e.start.At, c.limits.aftermath(p.set), disturbs):
	case slices.Contains(waited, e.start.Cause) && p.set.RedisTimeout <= c.limits.Slack:
		c.report.Unexplained++
	default:
		c.violation("P1", []*Record{e.start}, "a function ran without the lease (%s), and there was no fault", e.start.Cause)
	}
}
