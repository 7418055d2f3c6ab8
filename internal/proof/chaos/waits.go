package chaos

import (
	"slices"
	"time"

	"github.com/fleetcall/fleetcall/internal/proof/history"
)

func (p *past) time(row *Row, b bound, incidents []incident) {
	for _, i := range incidents {
		if p.stoodStill(i) {
			continue
		}
		switch b.measure {
		case takeover:
			row.Waits = append(row.Waits, p.takeover(i)...)
		case waiters:
			row.Waits = append(row.Waits, p.waits(i)...)
		}
		if b.arriving > 0 {
			row.Arriving = append(row.Arriving, p.arriving(i)...)
		}
	}
}

// stoodStill tells whether the machine did, when waits would have been
// measured: they say nothing then.
func (p *past) stoodStill(i incident) bool {
	return slices.ContainsFunc(p.records, func(r history.Record) bool {
		return r.Kind == history.FaultEnd && r.Fault == heldUp && r.At > i.began.At && r.At-int64(r.Took) < i.until+int64(leaseTTL)
	})
}

// takeover returns how long it took until the key of the flight that was hit
// was led by another replica, if somebody still wanted it.
func (p *past) takeover(i incident) []time.Duration {
	for _, e := range p.runsOf[i.began.Key] {
		if e.began.At > i.began.At && e.began.Process != i.began.Target {
			if !p.wanted(i, e) {
				return nil
			}
			return []time.Duration{time.Duration(e.began.At - i.began.At)}
		}
	}
	return nil
}

// wanted tells whether a caller of any replica but the one that was hit had waited for the
// execution since the fault began.
func (p *past) wanted(i incident, e execution) bool {
	return slices.ContainsFunc(p.callsOf[e.began.Key], func(c call) bool {
		return c.began.Batch == "" && c.began.Process != i.began.Target && c.began.At < i.began.At && c.ended.At > e.began.At
	})
}

// waits returns how long those who waited for another replica waited on for
// nothing. A call for many keys says nothing: it waits for all of them.
func (p *past) waits(i incident) []time.Duration {
	var waits []time.Duration
	for _, c := range p.calls {
		if c.began.Batch != "" || c.began.At > i.began.At || c.ended.At < i.began.At || c.began.Process == i.began.Target && stops(i) {
			continue
		}
		if wait, ok := p.wait(i, c); ok {
			waits = append(waits, wait)
		}
	}
	return waits
}

func stops(i incident) bool { return i.began.Effects.Stops || i.began.Effects.Kills }

// wait returns how long a caller that waited for another replica when the
// fault began waited on for nothing, if the fault can have had to do with it.
func (p *past) wait(i incident, c call) (time.Duration, bool) {
	elsewhere := false
	for _, e := range p.runsOf[c.began.Key] {
		if e.runsAt(i.began.At) {
			if e.began.Process == c.began.Process {
				return 0, false // it waits for its own replica
			}
			elsewhere = true
		}
	}
	if !elsewhere {
		return 0, false
	}
	from, to := i.began.At, c.ended.At
	result, known := p.executions[c.ended.Execution]
	switch {
	case !known:
		return 0, false // it left
	case result.began.Process == c.began.Process && result.began.At > from:
		to = result.began.At
		running, ended := p.elsewhere(c, to)
		if running && !failed(result.began.Cause) {
			return 0, false // what runs there is not what it waited for: its caller left, or it was forgotten
		}
		if !running {
			from = max(from, ended)
		}
	case result.ended < to:
		from = max(from, result.ended)
	default:
		return 0, false
	}
	if running, _ := p.elsewhere(c, i.until-1); to > i.until && (running || from > i.until) {
		return 0, false // what it waited for then, this fault had nothing to do with
	}
	return time.Duration(max(0, to-from)), true
}

// elsewhere tells whether another replica runs a function for the call's key
// at t, and when the last one before has ended.
func (p *past) elsewhere(c call, t int64) (running bool, ended int64) {
	for _, e := range p.runsOf[c.began.Key] {
		switch {
		case e.began.Process == c.began.Process || e.began.At > t:
		case e.runsAt(t):
			running = true
		default:
			ended = max(ended, e.ended)
		}
	}
	return running, ended
}

// failed tells whether a function ran without the lease because Redis failed.
func failed(cause string) bool { return cause != "" && cause != "too large" }

// arriving returns how long callers that came while Redis could not be used,
// and whose key no other replica ran, waited until their function ran.
func (p *past) arriving(i incident) []time.Duration {
	var waits []time.Duration
	for _, c := range p.calls {
		if c.began.At < i.began.At || c.began.At > i.ended || c.ended.Role != "fallback" {
			continue
		}
		e, known := p.executions[c.ended.Execution]
		if !known || !failed(e.began.Cause) || e.began.At < c.began.At {
			continue
		}
		if running, _ := p.elsewhere(c, c.began.At); !running {
			waits = append(waits, time.Duration(e.began.At-c.began.At))
		}
	}
	return waits
}
