package shadow

import (
	"cmp"
	"slices"
	"time"
)

// Stats is what a Group would have saved on this replica. The counts of several replicas
// may be added, and so may their errors: the replicas have the same sample, so that their
// errors go the same way, and the sum is at most a bit too large.
type Stats struct {
	Requests uint64        // calls that have ended; each key of a batch is one
	Time     time.Duration // how long their functions ran, together

	Local Tier // what the tier local would have run here: exact, and without errors
	// Distributed is what the tier distributed would have run here. Without Redis, and
	// before the first second counts, it is Local, and the errors are as large.
	Distributed Tier

	// Covered is the part of the calls, 0 to 1, that Distributed was counted from. The
	// others are taken to be like these.
	Covered float64
	// Pending calls have ended, but in a second that is not judged yet. It takes some two
	// seconds.
	Pending uint64
}

// Tier is what a tier would have run.
type Tier struct {
	Executions      float64 // calls of functions
	ExecutionsError float64 // its standard error
	Time            time.Duration
	TimeError       time.Duration
}

// Key is one of the hottest keys, in the seconds that count since it is one of them or since
// ResetStats.
type Key struct {
	Group, Key  string // of a long key, its first 200 bytes
	Requests    uint64
	Local       uint64 // what the tier local would have run here
	Distributed uint64 // what the tier distributed would have run here
	Time        time.Duration
	// LocalTime and DistributedTime are how long the functions of these would have run.
	LocalTime, DistributedTime time.Duration
}

// FleetStats is what a Fleet knows.
type FleetStats struct {
	Groups   map[string]Stats // by name
	Hottest  []Key            // the hottest first
	Seconds  Seconds          // since the Fleet was opened or ResetStats
	Replicas int              // in the last second that counts, this one included
	Full     bool             // all keys are followed at the moment, and not a sample
	Sample   int              // one of so many keys is followed, when not all are
}

// Stats returns the counts since the last ResetStats.
func (g *Group[V]) Stats() Stats {
	f := g.fleet
	sum := f.sum(g.group)
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.stats(g.group, sum.all, true)
}

// stats returns a group's Stats, since the last ResetStats or since the start. The caller
// holds mu.
func (f *Fleet) stats(g *counted, total sums, sinceReset bool) Stats {
	pending := total.calls - min(g.judged.ended, total.calls)
	j := g.judged
	if sinceReset {
		total.plus(g.sumsAt, -1)
		j = j.minus(g.judgedAt)
	}
	st := Stats{
		Requests: total.calls,
		Time:     total.time,
		Local:    Tier{Executions: float64(total.led.flights), Time: total.led.time},
		Pending:  pending,
	}
	st.Distributed = Tier{st.Local.Executions, st.Local.Executions, st.Local.Time, st.Local.Time}
	if !f.set.alone {
		st.Distributed = j.estimate(total.led, f.set.sample)
		if total.calls > 0 {
			st.Covered = min(float64(j.all.calls)/float64(total.calls), 1)
		}
	}
	return st
}

// Stats returns what the Fleet knows since the last ResetStats.
func (f *Fleet) Stats() FleetStats { return f.fleetStats(true) }

// Totals returns what the Fleet knows since it was opened, which ResetStats does not
// change: for counters such as those of Prometheus. It leaves out the hottest keys.
func (f *Fleet) Totals() FleetStats { return f.fleetStats(false) }

func (f *Fleet) fleetStats(sinceReset bool) FleetStats {
	f.mu.Lock()
	groups := f.groups
	f.mu.Unlock()
	now := f.followed.Load()
	st := FleetStats{Groups: make(map[string]Stats, len(groups)), Full: now.all, Sample: int(f.set.sample)}
	for _, g := range groups {
		sum := f.sum(g)
		f.mu.Lock()
		st.Groups[g.name] = f.stats(g, sum.all, sinceReset)
		f.mu.Unlock()
	}
	if sinceReset {
		st.Hottest = f.hottest(now)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	st.Replicas, st.Seconds = f.replicas, f.seconds
	if sinceReset {
		st.Seconds = f.seconds.minus(f.secondsAt)
	}
	return st
}

// hottest returns the hottest keys that this replica has calls for.
func (f *Fleet) hottest(now *followed) (keys []Key) {
	for hash, h := range now.hot {
		s := &f.shards[hash>>shardShift]
		s.mu.Lock()
		f.mu.Lock()
		if h.name != "" && h.calls.calls > 0 {
			k := Key{
				Group: h.group.name, Key: h.name, Requests: h.calls.calls,
				Local: h.calls.led.flights, Distributed: h.fleet.flights,
				Time: h.calls.time, LocalTime: h.calls.led.time, DistributedTime: h.fleet.time,
			}
			keys = append(keys, k)
		}
		f.mu.Unlock()
		s.mu.Unlock()
	}
	slices.SortFunc(keys, func(a, b Key) int {
		return cmp.Or(cmp.Compare(b.Requests, a.Requests), cmp.Compare(a.Group, b.Group), cmp.Compare(a.Key, b.Key))
	})
	return keys
}

// ResetStats makes all counts begin at zero.
func (f *Fleet) ResetStats() {
	f.mu.Lock()
	groups := f.groups
	f.mu.Unlock()
	for _, g := range groups {
		sum := f.sum(g)
		f.mu.Lock()
		g.sumsAt, g.judgedAt = sum.all, g.judged
		f.mu.Unlock()
	}
	for hash, h := range f.followed.Load().hot {
		s := &f.shards[hash>>shardShift]
		s.mu.Lock()
		f.mu.Lock()
		h.recent, h.calls, h.fleet = sums{}, sums{}, tally{}
		f.mu.Unlock()
		s.mu.Unlock()
	}
	f.mu.Lock()
	f.secondsAt, f.resetAt = f.seconds, f.now()
	f.mu.Unlock()
}

func (s Seconds) minus(o Seconds) Seconds {
	return Seconds{s.Counted - o.Counted, s.Unheard - o.Unheard, s.Silent - o.Silent, s.Differing - o.Differing, s.Partial - o.Partial}
}
