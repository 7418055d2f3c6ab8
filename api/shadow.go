package api

import (
	"cmp"
	"fmt"
	"math"
	"slices"
)

// ShadowStats is what coalescing would have saved in mode shadow, in which every request
// runs its own query.
type ShadowStats struct {
	Requests     uint64      `json:"requests"`              // that have ended; each product of a request for many is one
	QuerySeconds float64     `json:"query_seconds"`         // how long their queries ran, together
	Local        ShadowTier  `json:"local"`                 // exact
	Distributed  *ShadowTier `json:"distributed,omitempty"` // absent without Redis
	Covered      float64     `json:"covered"`               // the part of the requests that the tier distributed was counted from, 0 to 1
	Pending      uint64      `json:"pending"`               // requests that are not counted yet
	Sample       int         `json:"sample"`                // one of so many keys is followed at the moment, besides the hottest; 1: all are
	Seconds      ShadowTime  `json:"seconds"`               // over a fleet, the sum
	Hottest      []ShadowKey `json:"hottest"`               // the hottest first
}

// ShadowTier is what a tier would have done.
type ShadowTier struct {
	Executions      float64 `json:"executions"`       // queries that it would have run
	ExecutionsError float64 `json:"executions_error"` // standard error of that, and of what is saved
	Saved           float64 `json:"saved"`            // queries that it would have spared
	SavedRate       string  `json:"saved_rate"`       // of all
	QuerySeconds    float64 `json:"query_seconds"`    // how long the queries that it would have run took
	SavedSeconds    float64 `json:"saved_seconds"`
	SecondsError    float64 `json:"seconds_error"` // standard error of both
}

// ShadowTime says how many seconds were counted for the tier distributed, and why others
// were not.
type ShadowTime struct {
	Counted   uint64 `json:"counted"`
	Unheard   uint64 `json:"unheard"`   // Redis did not answer in time
	Silent    uint64 `json:"silent"`    // a replica did not report
	Differing uint64 `json:"differing"` // the replicas followed other keys than each other
	Partial   uint64 `json:"partial"`   // a replica had just been started, or had too much to report
}

// ShadowKey is one of the hottest keys, since it is one.
type ShadowKey struct {
	Key         string  `json:"key"`
	Requests    uint64  `json:"requests"`
	Local       uint64  `json:"local"`       // queries that the tier local would have run
	Distributed uint64  `json:"distributed"` // queries that the tier distributed would have run
	Seconds     float64 `json:"query_seconds"`
}

// shadowHottest is how many of the hottest keys are told.
const shadowHottest = 32

// shadow returns what the mode shadow counts, or nil in other modes.
func (s *Server) shadow() *ShadowStats {
	if s.config.Shadow == nil {
		return nil
	}
	st := s.config.Shadow()
	if st.Hottest == nil {
		st.Hottest = []ShadowKey{}
	}
	return &st
}

// add adds a replica's. Standard errors are added too: the replicas follow the same keys,
// so that their errors go the same way.
func (sum *ShadowStats) add(r ShadowStats) {
	if all := float64(sum.Requests + r.Requests); all > 0 {
		sum.Covered = (sum.Covered*float64(sum.Requests) + r.Covered*float64(r.Requests)) / all
	}
	sum.Requests += r.Requests
	sum.QuerySeconds += r.QuerySeconds
	sum.Local.add(r.Local)
	if r.Distributed != nil {
		if sum.Distributed == nil {
			sum.Distributed = &ShadowTier{}
		}
		sum.Distributed.add(*r.Distributed)
	}
	sum.Pending += r.Pending
	sum.Sample = max(sum.Sample, r.Sample)
	sum.Seconds.Counted += r.Seconds.Counted
	sum.Seconds.Unheard += r.Seconds.Unheard
	sum.Seconds.Silent += r.Seconds.Silent
	sum.Seconds.Differing += r.Seconds.Differing
	sum.Seconds.Partial += r.Seconds.Partial
	sum.addHottest(r.Hottest)
}

func (sum *ShadowTier) add(r ShadowTier) {
	sum.Executions += r.Executions
	sum.ExecutionsError += r.ExecutionsError
	sum.QuerySeconds += r.QuerySeconds
	sum.SecondsError += r.SecondsError
}

func (sum *ShadowStats) addHottest(keys []ShadowKey) {
	for _, k := range keys {
		i := slices.IndexFunc(sum.Hottest, func(other ShadowKey) bool { return other.Key == k.Key })
		if i < 0 {
			sum.Hottest = append(sum.Hottest, k)
			continue
		}
		of := &sum.Hottest[i]
		of.Requests += k.Requests
		of.Local += k.Local
		of.Distributed += k.Distributed
		of.Seconds = round(of.Seconds+k.Seconds, 3)
	}
}

// setSaved computes what is saved from what would have run.
func (sum *ShadowStats) setSaved() {
	sum.QuerySeconds = round(sum.QuerySeconds, 3)
	sum.Covered = round(sum.Covered, 4)
	sum.Local.setSaved(sum)
	if sum.Distributed != nil {
		sum.Distributed.setSaved(sum)
	}
	slices.SortFunc(sum.Hottest, func(a, b ShadowKey) int {
		return cmp.Or(cmp.Compare(b.Requests, a.Requests), cmp.Compare(a.Key, b.Key))
	})
	sum.Hottest = sum.Hottest[:min(len(sum.Hottest), shadowHottest)]
}

func (t *ShadowTier) setSaved(of *ShadowStats) {
	t.Executions, t.ExecutionsError = round(t.Executions, 1), round(t.ExecutionsError, 1)
	t.QuerySeconds, t.SecondsError = round(t.QuerySeconds, 3), round(t.SecondsError, 3)
	t.Saved = round(max(float64(of.Requests)-t.Executions, 0), 1)
	t.SavedSeconds = round(max(of.QuerySeconds-t.QuerySeconds, 0), 3)
	t.SavedRate = "0.0%"
	if of.Requests > 0 {
		t.SavedRate = fmt.Sprintf("%.1f%%", 100*t.Saved/float64(of.Requests))
	}
}

func round(x float64, decimals int) float64 {
	power := math.Pow10(decimals)
	return math.Round(x*power) / power
}
