package history

import (
	"slices"
	"sort"
	"time"
)

// P3. With MaxAge 0, a caller gets only the result of a function that had not ended when
// the caller came. With MaxAge d, a caller may also get a value of a function that had
// ended at most d before.

// checkFreshness checks a call that got an execution's result. The call came when it was
// recorded, or later. The function had ended when that was recorded, or before. So no
// slack is needed, and no fault is an excuse, but for one: Redis' clock says which was
// first, and when that is set while the function runs or its callers come, the result may
// be as old as one delivery.
//
// Redis' clock measures MaxAge, and runs as much faster or slower as NTP lets it.
func (c *checker) checkFreshness(x *call) {
	e := x.got
	if e == nil {
		return
	}
	allowed := time.Duration(0)
	if x.returned.Outcome == Value {
		allowed = x.process.settings.MaxAge + x.process.settings.MaxAge/1000
	}
	if c.faultTouched("", e.start.At, x.returned.At, 0, setsClock) {
		allowed += c.limits.Delivery
	}
	if later(e.end.At, allowed) < x.called.At {
		c.violation("P3", []*Record{x.called, x.returned, e.end},
			"a call got the result of a function that had ended %v before it came", between(e.end.At, x.called.At))
	}
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
