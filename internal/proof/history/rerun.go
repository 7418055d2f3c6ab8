package history

import (
	"slices"
	"sort"
)

// P6. If a function panics, it does not run again for the callers that waited: they get
// an error that says so. A leader that dies takes at most MaxTakeovers further replicas
// with it, and then callers get an error.
//
// P7. A function's error reaches every caller of the flight, and only once. A leader's
// own cancellation is not such an error: its followers elect another leader.

// checkReruns checks that no function ran again for callers that had waited for one
// that failed. If a call waited for a leader's execution that ended in a panic (P6) or
// an error of the function (P7), it must not get an execution that started after that
// end. The function matches checks that what it got of the failed execution is the
// panic or the error.
//
// A call certainly waited for the execution if both had been there for Held before the
// end, because no record says when a call joins, only that it soon does. There must
// also be no reason to go elsewhere: no fault from its aftermath before the call on,
// and no Forget of the key. So executions that are shorter than Held prove nothing
// here.
//
// Only leaders count, because a fallback's result is not shared. And only leaders whose
// lease was released after their function had ended, because nobody waits for a leader
// that gave its flight up or lost its lease. A function that returned because its
// context was cancelled or had reached its deadline may run again: by then its callers
// had left, or have time of their own.
func (c *checker) checkReruns(k *key) {
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
		after := c.limits.aftermath(x.process.settings) + x.process.settings.LeaseTTL
		if c.faultTouched("", x.called.At, got.start.At, after, anyEffect) ||
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

func failure(o Outcome) bool {
	return o == Panic || o == KnownError || o == OtherError || o == NoResult
}

// checkPoison checks that at most MaxTakeovers + 1 leaders of a key were killed one
// after another while they ran its function.
//
// The chain of such leaders ends when a function for the key ended or its lease was
// released, because then the key had an outcome. It also ends when nobody took the
// lease for the flight timeout, because then the attempts are forgotten so that the key
// recovers. A Forget of the key and a fault that loses keys end it too.
func (c *checker) checkPoison(k *key) {
	var over []int64 // times at which a chain ends
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
			if between(last.Asked, l.taken.At) >= e.process.settings.FlightTimeout ||
				firstFrom(over, first.Asked) <= l.taken.At ||
				k.forgottenBetween(first.Asked, l.taken.At, c.limits.Slack) ||
				c.faultTouched("", first.Asked, l.taken.At, 0, losesKeys) {
				chain = nil
			}
		}
		chain = append(chain, l.taken)
		if len(chain) > e.process.settings.MaxTakeovers+1 {
			c.violation("P6", chain, "%d leaders of a key were killed one after another", len(chain))
			chain = nil
		}
	}
}

// poisonDeserved reports whether a call was rightly refused as poisoned: at least
// MaxTakeovers + 1 attempts had no outcome, each within the flight timeout of the next.
// Such an attempt is a death (died), a function that ran without a lease because Redis
// failed, since its join may have reached Redis, and a killed process, since it may have
// taken a lease without recording it. Under a fault that makes commands fail it returns
// true, because Redis may not have got the outcomes, and likewise when Redis' clock was
// set, or its keys were forged. That Redis lost keys is no excuse: nobody has died of it.
func (c *checker) poisonDeserved(x *call) bool {
	set, to := x.process.settings, x.returned.At
	attempts := set.MaxTakeovers + 1
	from := to - int64(attempts)*int64(set.FlightTimeout+c.limits.Slack)
	if c.faultTouched("", from, to, c.limits.aftermath(set), func(e Effects) bool { return fails(e) || e.Garbage || e.SetsClock }) {
		return true
	}
	found := 0
	counted := map[*process]bool{}
	for _, l := range x.key.leases {
		if l.taken != nil && l.taken.At >= from && c.died(l, to) {
			found++
			counted[l.process] = true
		}
	}
	for _, e := range x.key.executions {
		if e.start.Role == fallback && !unshared(e) && e.start.At >= from && e.start.At <= later(to, c.limits.Slack) {
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

// died reports whether a leader had to be taken for dead by then: its lease had run out
// without having been renewed or released, while its process was killed or did not run. A
// leader that lives and could tell Redis so is not dead, whatever became of its lease.
func (c *checker) died(l *lease, by int64) bool {
	held := l.taken.Asked
	for _, r := range l.held {
		if r.Asked <= by {
			held = max(held, r.Asked)
		}
	}
	ttl := l.process.settings.LeaseTTL
	due := later(held, ttl-leaseMargin(ttl))
	if due > by || l.released != nil && l.released.Asked < due {
		return false
	}
	return c.faultTouched(l.process.name, held, due, 0, func(e Effects) bool { return e.Stops || e.Kills })
}
