package history

import (
	"slices"
	"sort"
)

// P6. A function that panics is not run again for those who waited: they get an
// error that says so. A leader that dies takes at most MaxTakeovers further
// replicas with it before callers get an error.
//
// P7. A function's error reaches every caller of the flight once. A leader's own
// cancellation is no such error: its followers elect another.

// rerun decides that no function was run again for callers who waited for one
// that failed: a call that waited for a leader's execution that ended in a
// panic (P6) or an error of the function (P7) did not get an execution that
// started after that end. (That what it got of the failed one is the panic or
// the error, matches decides.)
//
// A call certainly waited for it when both had been there for Held before the
// end: nothing says when a call joins, but that it does so soon. And when
// nothing may have led it elsewhere: no fault from its aftermath before the call
// on, and no Forget of the key. So executions that are shorter than Held decide
// nothing here.
//
// A leader only, because a fallback's result is not everybody's; and one whose
// lease was released after its function ended, because one that gave its flight
// up before, or lost it, has nobody waiting. A function that gave up at its
// context's deadline or cancellation may be run again: by then its callers had
// left, or have time of their own.
func (c *checker) rerun(k *key) {
	var failed []*execution
	for _, e := range k.executions {
		l := e.lease
		if l == nil || e.end == nil || !failure(e.end.Outcome) || between(e.start.At, e.end.At) < c.limits.Held {
			continue
		}
		if l.released != nil && l.released.Asked >= e.end.At {
			failed = append(failed, e)
		}
	}
	if len(failed) == 0 {
		return
	}
	sortBy(failed, (*execution).endAt)
	for _, x := range k.calls {
		got := x.got
		if got == nil {
			continue
		}
		joined := later(x.called.At, c.limits.Held)
		i := sort.Search(len(failed), func(i int) bool { return failed[i].end.At >= joined })
		if i == len(failed) || failed[i].end.At >= got.start.At || failed[i] == got {
			continue
		}
		after := c.limits.aftermath(x.process.set) + x.process.set.LeaseTTL
		if c.touched("", x.called.At, got.start.At, after, anyEffect) ||
			k.forgottenBetween(failed[i].start.At, got.start.At, after) {
			continue
		}
		promise := "P7"
		if failed[i].end.Outcome == Panic {
			promise = "P6"
		}
		c.violation(promise, []*Record{x.called, failed[i].start, failed[i].end, got.start, x.returned},
			"a call that had waited for a function that failed got another execution, that started %v later",
			between(failed[i].end.At, got.start.At))
	}
}

func failure(o Outcome) bool { return o == Panic || o == KnownError || o == OtherError }

// noPoison decides that no more leaders of a key than MaxTakeovers + 1 were
// killed one after another while they ran its function.
//
// A chain of them ends where a function for the key ended, or its lease was
// released: the key had an outcome. It ends when nobody took the lease for the
// flight timeout: then the attempts are forgotten, so that the key recovers. A
// Forget of the key, and a fault that loses keys, end it too.
func (c *checker) noPoison(k *key) {
	var over []int64 // when a chain ends
	for _, l := range k.leases {
		if l.released != nil {
			over = append(over, l.released.At)
		}
	}
	for _, e := range k.executions {
		if e.end != nil {
			over = append(over, e.end.At)
		}
	}
	slices.Sort(over)

	var chain []*Record
	for _, e := range k.executions {
		l := e.lease
		if l == nil || l.taken == nil || !e.killed() || l.released != nil {
			continue
		}
		if len(chain) > 0 {
			first, last := chain[0], chain[len(chain)-1]
			if between(last.Asked, l.taken.At) >= e.process.set.FlightTimeout ||
				firstFrom(over, first.Asked) <= l.taken.At ||
				k.forgottenBetween(first.Asked, l.taken.At, c.limits.Slack) ||
				c.touched("", first.Asked, l.taken.At, 0, losesKeys) {
				chain = nil
			}
		}
		chain = append(chain, l.taken)
		if len(chain) > e.process.set.MaxTakeovers+1 {
			c.violation("P6", chain, "%d leaders of a key were killed one after another", len(chain))
			chain = nil
		}
	}
}

// deserved decides that a call that was refused as poisoned came when at least
// MaxTakeovers + 1 attempts had gone without an outcome, each within the flight
// timeout of the next. Such an attempt is a lease that was taken and not
// released, or only after it may have run out; a function that ran without
// lease, whose join may have reached Redis; and a process that was killed, which
// may not have come to write down what it had taken. Under a fault of Redis,
// outcomes may not have been told it: nothing is decided.
func (c *checker) deserved(x *call) bool {
	set, to := x.process.set, x.returned.At
	attempts := set.MaxTakeovers + 1
	from := to - int64(attempts)*int64(set.FlightTimeout+c.limits.Slack)
	if c.touched("", from, to, c.limits.aftermath(set), func(e Effects) bool { return fails(e) || losesKeys(e) }) {
		return true
	}
	found := 0
	counted := map[*process]bool{}
	for _, l := range x.key.leases {
		switch {
		case l.taken == nil || l.taken.At < from || l.taken.Asked > to:
		case l.released == nil || l.released.At > x.called.At, l.lost != nil,
			l.released.Asked >= later(l.last().Asked, set.LeaseTTL-leaseMargin(set.LeaseTTL)):
			found++
			counted[l.process] = true
		}
	}
	for _, e := range x.key.executions {
		if e.start.Role == fallback && e.start.At >= from && e.start.At <= later(to, c.limits.Slack) {
			found++
		}
	}
	for _, p := range c.process {
		if !counted[p] && p.killed >= from && p.killed <= to {
			found++
		}
	}
	return found >= attempts
}
