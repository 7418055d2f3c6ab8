package shadow

import (
	"maps"
	"slices"
	"time"
)

// Seconds says how many seconds count, and why others do not.
type Seconds struct {
	Counted uint64
	// Unheard are those of which this replica did not hear its own report: Redis did not
	// answer, or not in time.
	Unheard uint64
	// Silent are those in which another replica that was there did not report.
	Silent uint64
	// Differing are those in which the replicas did not follow the same keys, as in the
	// first seconds after one was started, or with different options.
	Differing uint64
	// Partial are those in which a replica had more to report than it can, or had just been
	// started. If they are many, follow fewer keys: WithSample.
	Partial uint64
}

const (
	// goneAfter is how many seconds a replica that does not report is waited for.
	goneAfter = 3
	// maxAhead is how many seconds a report may be ahead of this replica's clock, or behind.
	maxAhead = 3
	// maxHeld bounds the bytes of the reports of a second.
	maxHeld = 64 << 20
)

// judge decides of each second whether it counts, and counts it. Only the Fleet's run uses
// it.
type judge struct {
	fleet   *Fleet
	replay  replay
	heard   map[uint64]int64 // the last second that a replica has reported
	first   map[uint64]int64 // and the first one
	pending map[int64]*second
	next    int64 // the next second to collect
	offset  int64 // of the clock
	known   bool
	partial bool // the next second has begun before
}

// second is what is known of a second.
type second struct {
	reports map[uint64][]byte
	held    int
	own     []event
	counts  map[*counted]recent
	hot     map[*hotKey]sums
	begun   bool // this replica has collected it
}

// take takes a report.
func (j *judge) take(message []byte) {
	replica, of, gone, err := head(message)
	if err != nil || of < j.next-maxAhead || of > j.next+maxAhead {
		return
	}
	if gone {
		delete(j.heard, replica)
		delete(j.first, replica)
		return
	}
	s := j.at(of)
	if _, twice := s.reports[replica]; twice || s.held+len(message) > maxHeld {
		return
	}
	if _, seen := j.heard[replica]; !seen {
		if len(j.heard) >= maxReplicas {
			return
		}
		j.first[replica] = of
	}
	j.heard[replica] = max(j.heard[replica], of)
	s.reports[replica] = message
	s.held += len(message)
}

// at returns what is known of a second.
func (j *judge) at(of int64) *second {
	s := j.pending[of]
	if s == nil {
		s = &second{reports: map[uint64][]byte{}}
		j.pending[of] = s
	}
	return s
}

// tick collects the seconds that have ended, and judges those of which the reports had a
// second to come.
func (j *judge) tick() {
	offset, trip, known := j.fleet.clock.read()
	if !known {
		offset = j.fleet.begun.UnixMicro()
	}
	current := (offset + j.fleet.now().Microseconds()) / period
	if known != j.known || current < j.next-1 || current > j.next+maxAhead {
		j.restart(current)
	}
	j.offset, j.known = offset, known
	// A leader's function begins a round trip after its call, and Redis knows of its end
	// half a round trip late: the flight of a call that is coalesced is longer by as much.
	j.replay.hold = max(trip, j.fleet.set.maxAge).Microseconds()
	for ; j.next < current; j.next++ {
		j.collect(j.next)
	}
	for _, of := range slices.Sorted(maps.Keys(j.pending)) {
		if of < current-1 {
			j.judge(of, j.pending[of])
			delete(j.pending, of)
		}
	}
}

// restart begins anew with a second that has begun.
func (j *judge) restart(current int64) {
	for of, s := range j.pending {
		j.skip(s)
		delete(j.pending, of)
	}
	_, _ = j.fleet.collect(j.fleet.now())
	j.skip(&second{counts: j.fleet.recent()})
	j.replay.forget((current + 1) * period)
	j.next, j.partial = current, true
}

// untilNext returns how long it is until the next second can be collected.
func (j *judge) untilNext() time.Duration {
	end := time.Duration((j.next+1)*period-j.offset) * time.Microsecond
	return max(end-j.fleet.now(), time.Millisecond) + slack
}

// slack is how long a call that ended in a second may take to note that.
const slack = 20 * time.Millisecond

// collect takes what happened here in a second, and reports it.
func (j *judge) collect(of int64) {
	f := j.fleet
	events, dropped := f.collect(time.Duration((of+1)*period-j.offset) * time.Microsecond)
	now := f.followed.Load()
	s := j.at(of)
	s.begun = true
	s.own = events
	s.counts, s.hot = f.recent(), f.recentHot(now)
	r := &report{replica: f.id, second: of, fingerprint: now.fingerprint(f.set), all: now.all, partial: dropped || j.partial, candidates: f.candidates()}
	j.partial = false
	for _, c := range s.counts {
		r.calls += c.all.calls
	}
	if !j.known {
		return
	}
	if !r.partial {
		for i := range events {
			r.events = append(r.events, j.reported(&events[i]))
		}
	}
	select {
	case f.outbox <- r.encode():
	default: // Redis is slow: the second will not count
	}
}

func (j *judge) reported(e *event) reported {
	return reported{e.key, j.offset + e.at.Microseconds(), e.number, e.kind}
}

// judge counts a second, if it counts.
func (j *judge) judge(of int64, s *second) {
	reports, why := j.verdict(of, s)
	j.fleet.mu.Lock()
	*why(&j.fleet.seconds)++
	j.fleet.mu.Unlock()
	if len(reports) > 0 {
		j.fleet.followed.Store(choose(reports, j.fleet.set, j.fleet.followed.Load()))
	}
	if why(&j.fleet.seconds) != &j.fleet.seconds.Counted {
		j.skip(s)
		j.replay.forget((of + 1) * period)
		return
	}
	j.count(of, s, reports)
}

// skip notes that the calls of a second are not counted.
func (j *judge) skip(s *second) {
	j.fleet.mu.Lock()
	defer j.fleet.mu.Unlock()
	for g, c := range s.counts {
		g.judged.ended += c.all.calls
	}
}

// verdict returns the reports of a second, and which of the Seconds it is.
func (j *judge) verdict(of int64, s *second) (reports []*report, why func(*Seconds) *uint64) {
	counted := func(s *Seconds) *uint64 { return &s.Counted }
	why = counted
	for replica, last := range j.heard {
		switch {
		case last < of-goneAfter:
			delete(j.heard, replica)
			delete(j.first, replica)
		case j.first[replica] <= of && s.reports[replica] == nil:
			why = func(s *Seconds) *uint64 { return &s.Silent }
		}
	}
	if !s.begun || s.reports[j.fleet.id] == nil {
		why = func(s *Seconds) *uint64 { return &s.Unheard }
	}
	for replica := range s.reports {
		r, err := decode(s.reports[replica])
		if err != nil {
			why = func(s *Seconds) *uint64 { return &s.Silent }
			continue
		}
		reports = append(reports, r)
	}
	for _, r := range reports {
		switch {
		case r.partial:
			why = func(s *Seconds) *uint64 { return &s.Partial }
		case r.fingerprint != reports[0].fingerprint:
			why = func(s *Seconds) *uint64 { return &s.Differing }
		}
	}
	return reports, why
}

// count replays a second, and counts this replica's calls that ended in it.
func (j *judge) count(of int64, s *second, reports []*report) {
	var all []happened
	for i := range s.own {
		e := happened{j.reported(&s.own[i]), j.fleet.id, &s.own[i]}
		e.at = min(max(e.at, of*period), (of+1)*period-1)
		all = append(all, e)
	}
	for _, r := range reports {
		if r.replica == j.fleet.id {
			continue
		}
		for _, e := range r.events {
			all = append(all, happened{e, r.replica, nil})
		}
	}
	inOrder(all)
	j.fleet.mu.Lock()
	defer j.fleet.mu.Unlock()
	j.fleet.replicas = len(reports)
	for g, c := range s.counts {
		g.judged.take(c)
	}
	if time.Duration((of+1)*period-j.offset)*time.Microsecond > j.fleet.resetAt {
		for h, c := range s.hot {
			h.calls.plus(c, 1)
		}
	}
	for _, e := range all {
		led, known := j.replay.next(e)
		if e.own != nil && (e.kind == ended || e.kind == left) {
			e.own.group.judged.count(e.own, led, known)
			if h := e.own.hot; h != nil && (led || !known && e.own.leads) && e.own.at >= j.fleet.resetAt {
				h.fleet.add(e.own.part)
			}
		}
	}
	j.replay.sweep((of + 1) * period)
}
