package history

import (
	"slices"
	"time"
)

// P1. While a flight holds a live lease for a key, no other replica runs the function
// for that key.

// leaseMargin allows for the clock of Redis, which counts milliseconds and which NTP
// may slow down or speed up.
func leaseMargin(ttl time.Duration) time.Duration { return 10*time.Millisecond + ttl/1000 }

// leaseRecord collects a record of a lease.
func (g *collector) leaseRecord(r *Record, p *process) {
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

// checkStart checks that an execution may start:
//
//   - A leader holds the lease: Redis has confirmed before the start that this
//     flight took it, in this process.
//   - A flight runs the function only once.
//
// No fault excuses a violation, because a function that has no lease runs as a
// fallback.
func (g *collector) checkStart(e *execution) {
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

// checkLeases checks that Redis gave no lease away that was held: none was taken while
// the lease of another flight was certainly alive (certainUntil). It looks at the times
// when leases were taken, not when functions started. A leader may start long after its
// lease has expired, but then it was delayed, and took the lease when it was free.
//
// It also checks that each fallback had a cause.
func (c *checker) checkLeases(k *key) {
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
		for i, to := range c.certainUntil(k, l) {
			lives = append(lives, life{l, l.held[i], l.held[i].At, to})
		}
	}
	sortBy(lives, func(l life) int64 { return l.from })
	sortBy(taken, func(l *lease) int64 { return l.taken.Asked })

	// Of all periods in which a lease was alive and which began before this lease was
	// asked for: the one that lasts longest, and the longest one of another flight.
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
			c.checkFallback(e)
		}
	}
}

// certainUntil returns, for each record of the lease being held, until when the lease
// was certainly in Redis. It lives for its TTL, less a margin for the clocks, from the
// time when Redis was asked to take or renew it. But it may end earlier:
//
//   - when its function ended, because then it is released;
//   - when its release was asked for. As the first attempt may have failed without
//     a record, it may also end when a call of its process returned without a
//     result, less the slack: the last caller that leaves gives the flight up;
//   - when a Forget of the key began, which detaches the lease for good. A Forget
//     that failed may take effect until the slack after it, and after a fault;
//   - when Redis began to lose keys, or when garbage was written into them. A
//     lease that was renewed after that is certain again;
//   - when its holder had learned that it was lost: what it renews then may be what
//     its own followers wait for, while another flight has the lease.
//
// That the holder found its lease lost is no excuse for what came before: the lease should
// have been alive.
func (c *checker) certainUntil(k *key, l *lease) []int64 {
	if len(l.held) == 0 {
		return nil
	}
	end := int64(never)
	switch {
	case l.execution != nil:
		end = l.execution.endAt()
	case l.process.killed == never:
		end = l.held[0].At // it was given up before the function ran
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
	ttl := l.process.settings.LeaseTTL
	lives := make([]int64, len(l.held))
	for i, r := range l.held {
		if l.lost != nil && r.At > l.lost.At {
			lives[i] = r.At
			continue
		}
		lives[i] = min(end, r.Asked+int64(ttl-leaseMargin(ttl)))
		for _, x := range c.faults {
			if losesKeys(x.effects) && x.begin < lives[i] && x.end >= r.Asked {
				lives[i] = x.begin
			}
		}
	}
	return lives
}

// forgottenUntil returns until when a Forget may take effect in Redis.
func (f *facts) forgottenUntil(x *forget) int64 {
	switch {
	case x.end != nil && x.end.Error == "":
		return x.end.At
	case x.end != nil:
		return f.extendedByFaults(later(x.end.At, f.limits.Slack), "", fails)
	}
	return f.extendedByFaults(later(min(x.process.killed, x.process.exit, f.last), f.limits.Slack), "", fails)
}

// extendedByFaults returns at. If a fault with such effects hit the process at that
// time or within the slack before it, it returns the fault's end plus the slack.
func (f *facts) extendedByFaults(at int64, process string, want func(Effects) bool) int64 {
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

// checkFallback checks that a function that ran without a lease had a cause: either its
// outcome was too large to travel, or a fault hit its process and its key, at most its
// aftermath before the start.
//
// On a slow machine, a command may time out without a fault if the Redis timeout is not
// longer than the slack. Such a fallback counts as unexplained.
func (c *checker) checkFallback(e *execution) {
	p := e.process
	waited := []string{"timeout", "down", "pool", "subscription"}
	switch {
	case e.start.Cause == "too large":
	case c.touched(e.start.At, e.start.At, c.limits.aftermath(p.settings), func(x *fault) bool {
		return disturbs(x.effects) && x.hits(p.name) && x.hitsKey(e.start.Key)
	}):
	case slices.Contains(waited, e.start.Cause) && p.settings.RedisTimeout <= c.limits.Slack:
		c.report.Unexplained++
	default:
		c.violation("P1", []*Record{e.start}, "a function ran without the lease (%s), and there was no fault", e.start.Cause)
	}
}
