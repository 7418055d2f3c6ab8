package api

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/labstack/echo/v4"
)

// counts counts the requests of the coalesced endpoint by their outcome.
type counts struct {
	total, hits, misses, errors atomic.Uint64
	active                      atomic.Int64
}

// Stats is the body that /stats returns, for one replica or summed over the fleet.
type Stats struct {
	Scope            string         `json:"scope"`   // replica or fleet
	Replica          string         `json:"replica"` // that answered the request
	Mode             string         `json:"mode"`
	UptimeSeconds    float64        `json:"uptime_seconds"`     // over a fleet, the longest
	Hits             uint64         `json:"hits"`               // coalesced requests answered without a query of their own
	Misses           uint64         `json:"misses"`             // queries of the coalesced endpoint
	Errors           uint64         `json:"errors"`             // coalesced requests that failed
	ActiveCalls      int64          `json:"active_calls"`       // coalesced requests under way
	HitRate          string         `json:"hit_rate"`           // hits divided by hits and misses
	TotalRequests    uint64         `json:"total_requests"`     // of the coalesced endpoint
	QueriesPrevented uint64         `json:"queries_prevented"`  // the same as hits
	Database         DatabaseStats  `json:"database,omitzero"`  // absent of a proxy
	Upstream         *UpstreamStats `json:"upstream,omitempty"` // of a proxy alone
	Batches          BatchStats     `json:"batches"`
	Tiers            Tiers          `json:"tiers"`
	Shadow           *ShadowStats   `json:"shadow,omitempty"` // in mode shadow

	// The fields below are set only over a fleet.

	Replicas []Stats `json:"replicas,omitempty"`
	Missing  *int    `json:"missing,omitempty"` // live replicas that did not answer
	Note     string  `json:"note,omitempty"`    // why the sum does not cover the whole fleet
}

// DatabaseStats describes the pool of database connections of a replica.
type DatabaseStats struct {
	Queries uint64 `json:"queries"` // queries sent, by all product endpoints
	Errors  uint64 `json:"errors"`
	InUse   int    `json:"in_use"`
	Idle    int    `json:"idle"`
	Max     int    `json:"max"`
}

// Tiers has the counts of the tiers that are on. A tier that is off is nil.
type Tiers struct {
	Local       *LocalTier       `json:"local,omitempty"`
	Distributed *DistributedTier `json:"distributed,omitempty"`
}

// LocalTier has the counts of the tier that merges the callers of one process.
type LocalTier struct {
	Requests      uint64 `json:"requests"`
	Leaders       uint64 `json:"leaders"`
	Followers     uint64 `json:"followers"`
	Errors        uint64 `json:"errors"`
	ActiveFlights int64  `json:"active_flights"`
	Waiting       int64  `json:"waiting"`
	Batches       uint64 `json:"batches,omitempty"`    // calls for many keys
	BatchRuns     uint64 `json:"batch_runs,omitempty"` // calls of their functions
	BatchKeys     uint64 `json:"batch_keys,omitempty"` // keys that those were given
	HitRate       string `json:"hit_rate"`
}

// DistributedTier has the counts of the tier that merges the replicas.
type DistributedTier struct {
	Requests      uint64            `json:"requests"`
	Leaders       uint64            `json:"leaders"`
	Unasked       uint64            `json:"unasked,omitempty"`  // of the leaders, those that did not ask Redis
	HotKeys       int               `json:"hot_keys,omitempty"` // keys that Redis is asked for, where it is not for all
	Followers     uint64            `json:"followers"`
	Cached        uint64            `json:"cached"`
	Fallbacks     uint64            `json:"fallbacks"`
	Takeovers     uint64            `json:"takeovers"`
	LeaseLost     uint64            `json:"lease_lost"`
	Errors        uint64            `json:"errors"`
	Incompatible  uint64            `json:"incompatible"` // results of another type or codec, which were not decoded
	RedisErrors   uint64            `json:"redis_errors"`
	RedisErrorsBy map[string]uint64 `json:"redis_errors_by,omitempty"` // by kind
	Garbage       uint64            `json:"garbage,omitempty"`
	ActiveFlights int64             `json:"active_flights"`
	Batches       uint64            `json:"batches,omitempty"`    // calls for many keys
	BatchRuns     uint64            `json:"batch_runs,omitempty"` // calls of their functions
	BatchKeys     uint64            `json:"batch_keys,omitempty"` // keys that those were given
	HitRate       string            `json:"hit_rate"`
	RedisServers  []RedisServer     `json:"redis_servers"` // sorted by address
}

// setHitRates computes every hit rate from the counts.
func (s *Stats) setHitRates() {
	s.HitRate = hitRate(s.Hits, s.Hits+s.Misses)
	s.QueriesPrevented = s.Hits
	s.Batches.setKeysPerQuery()
	if s.Shadow != nil {
		s.Shadow.setSaved()
	}
	if t := s.Tiers.Local; t != nil {
		t.HitRate = hitRate(t.Followers, t.Requests)
	}
	if t := s.Tiers.Distributed; t != nil {
		hits := t.Followers + t.Cached
		t.HitRate = hitRate(hits, hits+t.Leaders+t.Fallbacks)
	}
}

// hitRate returns a percentage with one decimal. It rounds to "100.0%" only if all are
// hits. The rate of nothing is "0.0%".
func hitRate(hits, total uint64) string {
	if total == 0 {
		return "0.0%"
	}
	text := fmt.Sprintf("%.1f%%", 100*float64(hits)/float64(total))
	if text == "100.0%" && hits < total {
		return "99.9%"
	}
	return text
}

// served returns the counts of what this replica serves.
func (s *Server) served() *counts {
	if s.config.Upstream != nil {
		return &s.config.Upstream.counts
	}
	return &s.counts
}

// Stats returns the statistics of this replica. They include every request that has
// been answered.
func (s *Server) Stats() Stats {
	counts := s.served()
	st := Stats{
		Scope:         scopeReplica,
		Replica:       s.config.Replica,
		Mode:          s.config.Mode,
		UptimeSeconds: float64(time.Since(s.started).Milliseconds()) / 1000,
		Hits:          counts.hits.Load(),
		Misses:        counts.misses.Load(),
		Errors:        counts.errors.Load(),
		ActiveCalls:   counts.active.Load(),
		TotalRequests: counts.total.Load(),
		Batches:       s.batches.stats(),
		Tiers:         s.config.Tiers(),
		Shadow:        s.shadow(),
	}
	if s.config.Upstream != nil {
		st.Upstream = s.config.Upstream.stats()
	} else {
		db := s.config.Store.Stats()
		st.Database = DatabaseStats{Queries: db.Queries, Errors: db.Errors, InUse: db.InUse, Idle: db.Idle, Max: db.Max}
	}
	if t := st.Tiers.Distributed; t != nil && t.RedisServers == nil {
		t.RedisServers = []RedisServer{}
	}
	st.setHitRates()
	return st
}

// ResetStats sets the counts of this replica to zero. Requests under way still count as
// active.
func (s *Server) ResetStats() {
	counts := s.served()
	counts.total.Store(0)
	counts.hits.Store(0)
	counts.misses.Store(0)
	counts.errors.Store(0)
	s.batches.reset()
	if s.config.Upstream != nil {
		s.config.Upstream.reset()
	} else {
		s.config.Store.ResetStats()
	}
	s.config.ResetTiers()
	s.latency.reset()
}

const (
	scopeReplica = "replica"
	scopeFleet   = "fleet"

	askStats = "stats"
)

// Answer answers a question that a replica asked through its Fleet. It returns no bytes
// and no error if the question is not for this replica.
func (s *Server) Answer(ctx context.Context, question string) ([]byte, error) {
	if order, ok := strings.CutPrefix(question, askOrder); ok {
		return s.obey(ctx, order)
	}
	switch question {
	case askStats:
		return json.Marshal(s.Stats())
	case askLive:
		return json.Marshal(s.replicaSnapshot())
	case askRollCall:
		return json.Marshal(member{s.config.Replica, s.instance, s.config.Upstream != nil})
	}
	return nil, fmt.Errorf("fleetcall: unknown question %q", question)
}

// allReplicas stands for the number of expected answers when that number is not known.
const allReplicas = 0

// ask asks the fleet. The note is not empty if answers has fewer than were expected.
func (s *Server) ask(ctx context.Context, question string, expected int) (answers [][]byte, missing int, note string, err error) {
	if s.config.Fleet == nil {
		own, err := s.Answer(ctx, question)
		return [][]byte{own}, 0, "This replica alone: without Redis it knows no other.", err
	}
	answers, missing, err = s.config.Fleet.Ask(ctx, question, expected)
	switch {
	case len(answers) == 0 && err != nil:
		return nil, 0, "", err
	case err != nil:
		s.log.Debug("asking the fleet", "error", err)
		note = "This replica alone: Redis cannot be used to ask the others."
	case missing > 0:
		note = "Some live replicas did not answer."
	}
	return answers, missing, note, nil
}

func parseScope(c echo.Context) (string, error) {
	switch scope := c.QueryParam("scope"); scope {
	case "", scopeReplica:
		return scopeReplica, nil
	case scopeFleet:
		return scopeFleet, nil
	}
	return "", problemBadScope
}

func (s *Server) stats(c echo.Context) error {
	scope, err := parseScope(c)
	if err != nil {
		return err
	}
	if scope == scopeReplica {
		return c.JSONPretty(http.StatusOK, s.Stats(), "  ")
	}
	answers, missing, note, err := s.ask(c.Request().Context(), askStats, allReplicas)
	if err != nil {
		return err
	}
	sum := Stats{Scope: scopeFleet, Replica: s.config.Replica, Mode: s.config.Mode, Note: note}
	for _, answer := range answers {
		var replica Stats
		if json.Unmarshal(answer, &replica) != nil {
			missing++
			continue
		}
		sum.add(replica)
	}
	sum.Missing = &missing
	sum.setHitRates()
	sum.setRedisServers()
	return c.JSONPretty(http.StatusOK, sum, "  ")
}

// add adds a replica to the list and its counts to the sum.
func (sum *Stats) add(r Stats) {
	sum.Replicas = append(sum.Replicas, r)
	sum.UptimeSeconds = max(sum.UptimeSeconds, r.UptimeSeconds)
	sum.Hits += r.Hits
	sum.Misses += r.Misses
	sum.Errors += r.Errors
	sum.ActiveCalls += r.ActiveCalls
	sum.TotalRequests += r.TotalRequests
	sum.Batches.add(r.Batches)
	if r.Upstream != nil {
		if sum.Upstream == nil {
			sum.Upstream = &UpstreamStats{}
		}
		sum.Upstream.add(*r.Upstream)
	}
	sum.Database.Queries += r.Database.Queries
	sum.Database.Errors += r.Database.Errors
	sum.Database.InUse += r.Database.InUse
	sum.Database.Idle += r.Database.Idle
	sum.Database.Max += r.Database.Max
	if r.Shadow != nil {
		if sum.Shadow == nil {
			sum.Shadow = &ShadowStats{Hottest: []ShadowKey{}}
		}
		sum.Shadow.add(*r.Shadow)
	}
	if t := r.Tiers.Local; t != nil {
		if sum.Tiers.Local == nil {
			sum.Tiers.Local = &LocalTier{}
		}
		sum.Tiers.Local.add(*t)
	}
	if t := r.Tiers.Distributed; t != nil {
		if sum.Tiers.Distributed == nil {
			sum.Tiers.Distributed = &DistributedTier{}
		}
		sum.Tiers.Distributed.add(*t)
	}
}

func (sum *LocalTier) add(t LocalTier) {
	sum.Requests += t.Requests
	sum.Leaders += t.Leaders
	sum.Followers += t.Followers
	sum.Errors += t.Errors
	sum.ActiveFlights += t.ActiveFlights
	sum.Waiting += t.Waiting
	sum.Batches += t.Batches
	sum.BatchRuns += t.BatchRuns
	sum.BatchKeys += t.BatchKeys
}

func (sum *DistributedTier) add(t DistributedTier) {
	sum.Requests += t.Requests
	sum.Leaders += t.Leaders
	sum.Unasked += t.Unasked
	sum.HotKeys = max(sum.HotKeys, t.HotKeys) // about the same keys on all replicas
	sum.Followers += t.Followers
	sum.Cached += t.Cached
	sum.Fallbacks += t.Fallbacks
	sum.Takeovers += t.Takeovers
	sum.LeaseLost += t.LeaseLost
	sum.Errors += t.Errors
	sum.Incompatible += t.Incompatible
	sum.RedisErrors += t.RedisErrors
	for kind, n := range t.RedisErrorsBy {
		if sum.RedisErrorsBy == nil {
			sum.RedisErrorsBy = make(map[string]uint64)
		}
		sum.RedisErrorsBy[kind] += n
	}
	sum.Garbage += t.Garbage
	sum.ActiveFlights += t.ActiveFlights
	sum.Batches += t.Batches
	sum.BatchRuns += t.BatchRuns
	sum.BatchKeys += t.BatchKeys
}
