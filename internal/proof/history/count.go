package history

import "time"

// count fills in the report's numbers. Those of a fault cover the processes that it
// hits, from its start to the end of its aftermath.
func (c *checker) count() {
	r := &c.report
	r.Calls = len(c.calls)
	r.Faults = map[string]FaultReport{}
	flights := map[string]struct{}{}
	groups := map[string][]group{}
	for name, k := range c.keys {
		r.Executions += len(k.executions)
		for _, e := range k.executions {
			flights[e.start.Flight] = struct{}{}
		}
		groups[name] = c.groups(k)
	}
	r.Flights = len(flights)
	for name, windows := range c.windows() {
		r.Faults[name] = c.faultReport(windows, groups)
	}
}

// window is an injected fault together with its aftermath.
type window struct {
	*fault
	until int64
}

func (c *checker) windows() map[string][]window {
	after := c.limits.aftermath(Settings{})
	for _, p := range c.process {
		after = max(after, c.limits.aftermath(p.settings))
	}
	windows := map[string][]window{}
	for _, f := range c.faults {
		windows[f.name] = append(windows[f.name], window{f, later(f.end, after)})
	}
	return windows
}

// group is a number of executions of one key, each of which overlaps another one or
// takes over from it. An execution whose process was killed lasts until its lease has
// expired.
type group struct {
	from, to   int64
	executions int
}

func (c *checker) groups(k *key) []group {
	var groups []group
	for i, e := range k.executions {
		if i == 0 || k.openUntil[i-1] < e.start.At {
			groups = append(groups, group{from: e.start.At})
		}
		g := &groups[len(groups)-1]
		g.executions++
		g.to = k.openUntil[i]
	}
	return groups
}

func (c *checker) faultReport(windows []window, groups map[string][]group) FaultReport {
	r := FaultReport{Injected: len(windows)}
	during := func(process string, from, to int64) bool {
		for _, w := range windows {
			if w.begin <= to && from <= w.until && w.hits(process) {
				return true
			}
		}
		return false
	}
	for _, x := range c.calls {
		if during(x.process.name, x.called.At, min(x.endAt(), x.process.killed, c.last)) {
			r.Calls++
			if x.hurt {
				r.Hurt++
			}
		}
	}
	flights := map[string]struct{}{}
	served, together := 0, 0
	for name, k := range c.keys {
		for _, e := range k.executions {
			if during(e.process.name, e.start.At, min(e.endAt(), e.process.killed, c.last)) {
				r.Executions++
				flights[e.start.Flight] = struct{}{}
			}
		}
		for _, g := range groups[name] {
			if during("", g.from, min(g.to, c.last)) {
				served++
				together += g.executions
				r.ExecutionsPerFlightMax = max(r.ExecutionsPerFlightMax, g.executions)
			}
		}
	}
	r.Flights = len(flights)
	if served > 0 {
		r.ExecutionsPerFlightMean = float64(together) / float64(served)
	}
	for _, w := range windows {
		r.Worst = max(r.Worst, w.worst)
		r.Recovery = append(r.Recovery, c.recovery(w)...)
	}
	return r
}

// recovery returns, for each execution that the fault broke, the time from the start of
// the fault until another execution started in its place. A leader that was killed or
// stopped is replaced by a takeover in another process. Other faults break the wait of
// followers, which then run fallbacks.
func (c *checker) recovery(w window) []time.Duration {
	var took []time.Duration
	for _, k := range c.keys {
		broken := w.effects.Kills || w.effects.Stops
		for _, e := range k.executions {
			if e.start.At > w.until {
				break
			}
			switch {
			case broken && e.process.name == w.target && e.start.At <= w.begin && e.endAt() > w.begin:
				if next := k.takeover(e, w.begin); next != nil {
					took = append(took, between(w.begin, next.start.At))
				}
			case !broken && e.start.Role == fallback && e.start.At >= w.begin && w.hits(e.process.name) && e.firstCall <= w.begin:
				took = append(took, between(w.begin, e.start.At))
			}
		}
	}
	return took
}

// takeover returns the first execution after at that took over from e in another
// process.
func (k *key) takeover(e *execution, at int64) *execution {
	for _, next := range k.executions {
		if next.start.At > at && next.start.Takeover && next.process != e.process {
			return next
		}
	}
	return nil
}
