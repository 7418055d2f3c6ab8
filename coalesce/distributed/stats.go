package distributed

import (
	"maps"

	"github.com/fleetcall/fleetcall/coalesce/local"
)

// Stats counts what both tiers did since NewGroup, or since ResetStats. Calls for many
// keys are counted in Distributed alone, as Batches, BatchRuns and BatchKeys; Local has
// each of their keys as a request.
type Stats struct {
	Local       local.Stats
	Distributed TierStats
}

// TierStats counts the flights that the local tier handed to the distributed
// one. A finished request has one role, or ended with an error before it had
// one: Leaders + Followers + Cached + Fallbacks + NoRole = Requests.
type TierStats struct {
	Requests      uint64 // flights handed over that have ended
	Leaders       uint64 // ran the function with the lease, or without asking Redis
	Unasked       uint64 // of the leaders, those that ran it without asking Redis: see WithAdaptive
	Followers     uint64 // took another replica's outcome
	Cached        uint64 // took an outcome that had finished within MaxAge
	Fallbacks     uint64 // ran the function without the lease
	NoRole        uint64 // ended before they had a role
	Takeovers     uint64 // leaders that were followers of a flight that never ended
	LeaseLost     uint64 // leases that ran out or were taken before the function ended, as far as Redis can tell
	Errors        uint64 // requests that ended with an error
	Incompatible  uint64 // outcomes of another type or codec, which were not decoded
	Batches       uint64 // calls of DoMany
	BatchRuns     uint64 // calls of the functions that DoMany was given
	BatchKeys     uint64 // keys that these were given, each of which counts as a request, too
	ActiveFlights int64  // requests in progress
}

// FleetStats counts what all Groups of a Fleet did since Open, or since ResetStats.
type FleetStats struct {
	Stats                   // summed over the Groups
	Groups map[string]Stats // by name
	Redis  RedisStats
	// HotKeys is how many keys this replica asks Redis for, of those that it was called for
	// of late: see WithAdaptive.
	HotKeys int
}

// RedisStats counts what went wrong between a Fleet and Redis.
type RedisStats struct {
	Errors   uint64            // commands and connections that failed
	ErrorsBy map[string]uint64 // the same by kind: see FailureKinds
	Garbage  uint64            // messages and values that could not be read, and were ignored
	Servers  []ServerStats     // by address: one, or on a Redis Cluster the masters that were asked of late
}

// HitRate returns the share of finished requests that ran no function, 0 to
// 1; 0 when there were none.
func (s TierStats) HitRate() float64 {
	ran := s.Leaders + s.Fallbacks
	hits := s.Followers + s.Cached
	if ran+hits == 0 {
		return 0
	}
	return float64(hits) / float64(ran+hits)
}

// since returns what was counted after before. Gauges stay what they are.
func (s TierStats) since(before TierStats) TierStats {
	s.Requests -= before.Requests
	s.Leaders -= before.Leaders
	s.Unasked -= before.Unasked
	s.Followers -= before.Followers
	s.Cached -= before.Cached
	s.Fallbacks -= before.Fallbacks
	s.NoRole -= before.NoRole
	s.Takeovers -= before.Takeovers
	s.LeaseLost -= before.LeaseLost
	s.Errors -= before.Errors
	s.Incompatible -= before.Incompatible
	s.Batches -= before.Batches
	s.BatchRuns -= before.BatchRuns
	s.BatchKeys -= before.BatchKeys
	return s
}

func (s *TierStats) add(other TierStats) {
	s.Requests += other.Requests
	s.Leaders += other.Leaders
	s.Unasked += other.Unasked
	s.Followers += other.Followers
	s.Cached += other.Cached
	s.Fallbacks += other.Fallbacks
	s.NoRole += other.NoRole
	s.Takeovers += other.Takeovers
	s.LeaseLost += other.LeaseLost
	s.Errors += other.Errors
	s.Incompatible += other.Incompatible
	s.Batches += other.Batches
	s.BatchRuns += other.BatchRuns
	s.BatchKeys += other.BatchKeys
	s.ActiveFlights += other.ActiveFlights
}

func (s *Stats) add(other Stats) {
	l, o := &s.Local, other.Local
	l.Requests += o.Requests
	l.Leaders += o.Leaders
	l.Followers += o.Followers
	l.Errors += o.Errors
	l.ActiveFlights += o.ActiveFlights
	l.Waiting += o.Waiting
	l.Batches += o.Batches
	l.BatchRuns += o.BatchRuns
	l.BatchKeys += o.BatchKeys
	s.Distributed.add(other.Distributed)
}

// Stats returns the counts of both tiers since NewGroup or ResetStats. They are exact
// for calls that have returned.
func (g *Group[V]) Stats() Stats { return g.stats() }

// Totals returns the counts of both tiers since NewGroup, whatever ResetStats did:
// for counters that must not go down, such as those of Prometheus.
func (g *Group[V]) Totals() Stats { return g.totals() }

// ResetStats sets the counts to zero. Gauges stay what they are.
func (g *Group[V]) ResetStats() { g.resetStats() }

func (c *core[V]) stats() Stats {
	c.resetMu.Lock()
	defer c.resetMu.Unlock()
	return Stats{c.local.Stats(), c.totals().Distributed.since(c.before)}
}

func (c *core[V]) totals() Stats {
	// Before the roles: they are never more.
	takeovers, errs, unasked := c.takeovers.Load(), c.counters.errors.Load(), c.unasked.Load()
	st := Stats{
		Local: c.local.Totals(),
		Distributed: TierStats{
			Leaders:       c.leaders.Load(),
			Unasked:       unasked,
			Followers:     c.followers.Load(),
			Cached:        c.cached.Load(),
			Fallbacks:     c.fallbacks.Load(),
			NoRole:        c.noRole.Load(),
			Takeovers:     takeovers,
			LeaseLost:     c.leaseLost.Load(),
			Errors:        errs,
			Incompatible:  c.incompatible.Load(),
			Batches:       c.batches.Load(),
			BatchRuns:     c.batchRuns.Load(),
			BatchKeys:     c.batchKeys.Load(),
			ActiveFlights: c.active.Load(),
		},
	}
	d := &st.Distributed
	d.Requests = d.Leaders + d.Followers + d.Cached + d.Fallbacks + d.NoRole
	return st
}

func (c *core[V]) resetStats() {
	c.resetMu.Lock()
	defer c.resetMu.Unlock()
	c.local.ResetStats()
	c.before = c.totals().Distributed
}

// Stats returns the counts since Open or ResetStats. They are exact for calls that
// have returned.
func (f *Fleet) Stats() FleetStats {
	f.resetMu.Lock()
	defer f.resetMu.Unlock()
	st := f.sum(member.stats)
	r := &st.Redis
	r.Errors -= f.before.Errors
	r.Garbage -= f.before.Garbage
	r.ErrorsBy = maps.Clone(r.ErrorsBy)
	for kind, n := range f.before.ErrorsBy {
		if r.ErrorsBy[kind] -= n; r.ErrorsBy[kind] == 0 {
			delete(r.ErrorsBy, kind)
		}
	}
	return st
}

// Totals returns the counts since Open, whatever ResetStats did: for counters that
// must not go down, such as those of Prometheus.
func (f *Fleet) Totals() FleetStats { return f.sum(member.totals) }

// ResetStats sets the counts of the Fleet and of all its Groups to zero. Gauges and
// the health of servers stay what they are.
func (f *Fleet) ResetStats() {
	f.resetMu.Lock()
	defer f.resetMu.Unlock()
	for _, group := range f.members() {
		group.resetStats()
	}
	f.before = f.redisStats()
}

func (f *Fleet) sum(of func(member) Stats) FleetStats {
	st := FleetStats{Groups: map[string]Stats{}, Redis: f.redisStats(), HotKeys: f.adaptiveGroups().hot()}
	for name, group := range f.members() {
		one := of(group)
		st.Groups[name] = one
		st.Stats.add(one)
	}
	return st
}

func (f *Fleet) redisStats() RedisStats {
	errs, byKind := f.link.Counts()
	return RedisStats{Errors: errs, ErrorsBy: byKind, Garbage: f.garbage.Load(), Servers: f.serverStats()}
}
