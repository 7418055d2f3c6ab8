package local

// Stats counts what a Group did since its first use, or since ResetStats. A call
// that joins anew, because its flight was abandoned, is counted once for each
// flight.
type Stats struct {
	Requests      uint64 // calls of Do and DoChan, and keys of DoMany, whose context had not ended before
	Leaders       uint64 // calls that started a flight
	Followers     uint64 // calls that joined one
	Errors        uint64 // flights whose function returned an error, panicked or exited
	ActiveFlights int64  // flights whose functions run now
	Waiting       int64  // callers waiting now, leaders included: one of DoMany once for each key

	Batches   uint64 // calls of DoMany and DoManyChan
	BatchRuns uint64 // calls of their functions
	BatchKeys uint64 // keys that those were given
}

// HitRate returns Followers / Requests, 0 to 1; 0 when there were none.
func (s Stats) HitRate() float64 {
	if s.Requests == 0 {
		return 0
	}
	return float64(s.Followers) / float64(s.Requests)
}

// Stats returns the counts since the first use or ResetStats. They are exact for
// calls that have returned.
func (g *Group[K, V]) Stats() Stats {
	g.resetMu.Lock()
	defer g.resetMu.Unlock()
	st := g.Totals()
	st.Requests -= g.before.Requests
	st.Leaders -= g.before.Leaders
	st.Followers -= g.before.Followers
	st.Errors -= g.before.Errors
	st.Batches -= g.before.Batches
	st.BatchRuns -= g.before.BatchRuns
	st.BatchKeys -= g.before.BatchKeys
	return st
}

// Totals returns the counts since the first use, whatever ResetStats did: for
// counters that must not go down, such as those of Prometheus.
func (g *Group[K, V]) Totals() Stats {
	var st Stats
	for i := range g.shards {
		s := &g.shards[i]
		s.mu.Lock()
		st.Requests += s.requests
		st.Followers += s.followers
		st.Errors += s.errors
		st.ActiveFlights += int64(s.active)
		st.Waiting += int64(s.waiting)
		s.mu.Unlock()
	}
	st.Leaders = st.Requests - st.Followers
	st.BatchRuns, st.BatchKeys = g.batchRuns.Load(), g.batchKeys.Load()
	st.Batches = g.batches.Load()
	return st
}

// ResetStats sets the counts to zero. ActiveFlights and Waiting stay what they
// are.
func (g *Group[K, V]) ResetStats() {
	g.resetMu.Lock()
	defer g.resetMu.Unlock()
	g.before = g.Totals()
}
