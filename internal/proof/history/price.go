package history

import (
	"cmp"
	"slices"
)

// What a fault costs is the executions that a round of callers had beyond its one. A
// round is the calls for one key that overlap, as far as one result can serve them.

// price fills in which executions of a key were beyond the one of their round: those
// whose callers could all have had the result of an execution that began before. Where
// that one was a fallback, of which no other replica could know, and this one's is shared,
// the fallback is the one beyond.
//
// A caller could have had a result if it had come, and its join had had the time to
// arrive, before the function ended (P3). It could not if the flight was given up or
// forgotten, or if its outcome is nobody's (P7). An execution that nobody got counts by
// its own start. A function that ran because an outcome could not travel is no fault's
// price, and nor does anybody else get its result.
func (c *checker) price(k *key) {
	came := map[*execution]int64{} // the last of its callers
	for _, x := range k.calls {
		if x.got != nil {
			came[x.got] = max(came[x.got], x.called.At)
		}
	}
	var shared int64       // until when one that is shared was useful
	var alone []*execution // fallbacks that are not beyond
	for _, e := range k.executions {
		if unshared(e) {
			continue
		}
		at := later(cmp.Or(came[e], e.start.At), c.limits.Join)
		alone = slices.DeleteFunc(alone, func(f *execution) bool { return k.useful(f) <= at })
		leads := e.start.Role == leader
		switch {
		case at < shared, !leads && len(alone) > 0:
			c.report.Beyond[e.start.Execution] = true
		case leads:
			for _, f := range alone {
				c.report.Beyond[f.start.Execution] = true
			}
			alone = nil
		default:
			alone = append(alone, e)
		}
		if leads {
			shared = k.useful(e) // whoever led before has lost its lease
		}
	}
}

func unshared(e *execution) bool {
	return e.start.Cause == "too large" || e.start.Cause == "incompatible"
}

// useful returns until when callers that come could have the execution's result.
func (k *key) useful(e *execution) int64 {
	if e.end != nil && (e.end.Outcome == Cancelled || e.end.Outcome == FlightTimeout) {
		return e.start.At
	}
	until := min(e.endAt(), e.process.killed, later(e.start.At, e.process.settings.FlightTimeout))
	if e.lease != nil && e.lease.released != nil {
		until = min(until, e.lease.released.At)
	}
	for _, x := range k.forgets {
		if x.begin.At > until {
			break
		}
		if x.end == nil || x.end.At >= e.start.At {
			until = max(e.start.At, x.begin.At)
		}
	}
	return until
}
