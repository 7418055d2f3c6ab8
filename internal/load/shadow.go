package load

import (
	"context"
	"time"
)

// ShadowStats is what coalescing would have saved, as the replicas count it in mode shadow.
type ShadowStats struct {
	Requests     int64       `json:"requests"`
	QuerySeconds float64     `json:"query_seconds"`
	Local        ShadowTier  `json:"local"`
	Distributed  *ShadowTier `json:"distributed,omitempty"` // nil: without Redis
	Covered      float64     `json:"covered"`
	Pending      int64       `json:"pending"`
	Sample       int         `json:"sample"`
	Hottest      []ShadowKey `json:"hottest,omitempty"` // since each became one of the hottest
}

// ShadowTier is what a tier would have run, and what it would have saved.
type ShadowTier struct {
	Executions      float64 `json:"executions"`
	ExecutionsError float64 `json:"executions_error"` // standard error
	QuerySeconds    float64 `json:"query_seconds"`
	SecondsError    float64 `json:"seconds_error"`
}

// ShadowKey is one of the hottest keys.
type ShadowKey struct {
	Key         string `json:"key"`
	Requests    int64  `json:"requests"`
	Local       int64  `json:"local"`
	Distributed int64  `json:"distributed"`
}

// Saved returns how many executions the tier would have spared of all, and how many
// seconds of queries.
func (s *ShadowStats) Saved(t ShadowTier) (executions, seconds float64) {
	return max(float64(s.Requests)-t.Executions, 0), max(s.QuerySeconds-t.QuerySeconds, 0)
}

// shadowWait bounds how long Counted waits until the replicas have counted all requests.
// They need some two seconds.
const shadowWait = 10 * time.Second

// settled asks again until the replicas have counted all requests for mode shadow. While
// others ask, too, they never have: then it returns what they have after shadowWait.
func (t Target) settled(ctx context.Context, s Stats, again func() (Stats, error)) (Stats, error) {
	until := time.Now().Add(shadowWait)
	for s.Shadow != nil && s.Shadow.Pending > 0 && time.Now().Before(until) {
		select {
		case <-time.After(t.pause()):
		case <-ctx.Done():
			return s, nil
		}
		next, err := again()
		if err != nil {
			return s, err
		}
		s = next
	}
	return s, nil
}

// since returns what was counted since before. The errors stay: that of a difference is
// not known, and is no larger.
func (s *ShadowStats) since(before *ShadowStats) *ShadowStats {
	if s == nil || before == nil {
		return s
	}
	d := *s
	d.Requests -= before.Requests
	d.QuerySeconds -= before.QuerySeconds
	d.Local = s.Local.since(before.Local)
	if s.Distributed != nil && before.Distributed != nil {
		tier := s.Distributed.since(*before.Distributed)
		d.Distributed = &tier
	}
	return &d
}

func (t ShadowTier) since(before ShadowTier) ShadowTier {
	t.Executions = max(t.Executions-before.Executions, 0)
	t.QuerySeconds = max(t.QuerySeconds-before.QuerySeconds, 0)
	return t
}
