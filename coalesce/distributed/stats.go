package distributed

import (
	"maps"

	"github.com/fleetcall/fleetcall/coalesce/local"
)

// Stats counts what both tiers did since New, or since ResetStats.
type Stats struct {
	Local       local.Stats
	Distributed TierStats
}

// TierStats counts the flights that the local tier handed to the distributed
// one. A finished request has one role, or ended with an error before it had
// one: Leaders + Followers + Cached + Fallbacks + NoRole = Requests.
type TierStats struct {
	Requests      uint64            // flights handed over that have ended
	Leaders       uint64            // ran the function with the lease
	Followers     uint64            // took another replica's outcome
	Cached        uint64            // took an outcome that had finished within MaxAge
	Fallbacks     uint64            // ran the function without the lease
	NoRole        uint64            // ended before they had a role
	Takeovers     uint64            // leaders that were followers of a flight that never ended
	LeaseLost     uint64            // leases that ran out or were taken before the function ended, as far as Redis can tell
	Errors        uint64            // requests that ended with an error
	RedisErrors   uint64            // commands and connections that failed
	RedisErrorsBy map[string]uint64 // the same by kind: timeout, connection, oom, readonly, …
	Garbage       uint64            // messages and values that could not be read, and were ignored
	ActiveFlights int64             // requests in progress
	Breaker       string            // "closed", "half-open" or "open"
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

// since returns what was counted after before. Gauges and the breaker stay what
// they are.
func (s TierStats) since(before TierStats) TierStats {
	s.Requests -= before.Requests
	s.Leaders -= before.Leaders
	s.Followers -= before.Followers
	s.Cached -= before.Cached
	s.Fallbacks -= before.Fallbacks
	s.NoRole -= before.NoRole
	s.Takeovers -= before.Takeovers
	s.LeaseLost -= before.LeaseLost
	s.Errors -= before.Errors
	s.RedisErrors -= before.RedisErrors
	s.Garbage -= before.Garbage
	s.RedisErrorsBy = maps.Clone(s.RedisErrorsBy)
	for kind, n := range before.RedisErrorsBy {
		if s.RedisErrorsBy[kind] -= n; s.RedisErrorsBy[kind] == 0 {
			delete(s.RedisErrorsBy, kind)
		}
	}
	return s
}
