package main

import (
	"fmt"
	"math"

	"github.com/fleetcall/fleetcall/internal/load"
)

// wouldSave is what coalescing would have saved during a load of replicas in mode shadow.
type wouldSave struct {
	Requests     int64      `json:"requests"`
	QuerySeconds float64    `json:"query_seconds"`
	Local        wouldTier  `json:"local"`
	Distributed  *wouldTier `json:"distributed,omitempty"`
	Covered      float64    `json:"covered"`
}

// wouldTier is what a tier would have saved, with the standard errors.
type wouldTier struct {
	Queries        float64 `json:"queries"`
	Prevented      float64 `json:"queries_prevented"`
	PreventedError float64 `json:"queries_error"`
	HitRate        string  `json:"hit_rate"`
	SavedSeconds   float64 `json:"query_seconds_saved"`
	SecondsError   float64 `json:"query_seconds_error"`
}

// newWouldSave returns nil for replicas in another mode.
func newWouldSave(s *load.ShadowStats) *wouldSave {
	if s == nil {
		return nil
	}
	tier := func(t load.ShadowTier) wouldTier {
		prevented, seconds := s.Saved(t)
		return wouldTier{
			Queries: t.Executions, Prevented: prevented, PreventedError: t.ExecutionsError,
			HitRate: percent(int64(math.Round(prevented)), s.Requests), SavedSeconds: seconds, SecondsError: t.SecondsError,
		}
	}
	w := &wouldSave{Requests: s.Requests, QuerySeconds: s.QuerySeconds, Local: tier(s.Local), Covered: s.Covered}
	if s.Distributed != nil {
		t := tier(*s.Distributed)
		w.Distributed = &t
	}
	return w
}

// boxes returns what is printed of it, a box for each tier.
func (w *wouldSave) boxes() []box {
	boxes := []box{w.Local.box("local")}
	if w.Distributed != nil {
		boxes = append(boxes, w.Distributed.box("distributed"))
	}
	return boxes
}

func (t wouldTier) box(name string) box {
	b := box{title: name + " would have saved"}
	b.add("Queries", uncertain(t.Prevented, t.PreventedError, 0))
	b.add("of all", t.HitRate)
	b.add("Time of queries", uncertain(t.SavedSeconds, t.SecondsError, 1)+" s")
	b.add("Queries left", uncertain(t.Queries, t.PreventedError, 0))
	return b
}

// uncertain writes a figure with its standard error, if it has one.
func uncertain(x, err float64, decimals int) string {
	text := fmt.Sprintf("%.*f", decimals, x)
	if decimals == 0 {
		text = thousands(int64(math.Round(x)))
	}
	if err > 0 {
		text += fmt.Sprintf(" ± %.*f", decimals, err)
	}
	return text
}

// note says how to read the figures.
func (w *wouldSave) note() string {
	if w.Distributed == nil {
		return "The mode is shadow: every request ran its own query. Without Redis, nothing is known of the distributed tier."
	}
	if w.Covered == 0 {
		return "The mode is shadow: every request ran its own query. Nothing was counted for the distributed tier: see shadow.seconds of /stats for the reason."
	}
	return fmt.Sprintf("The mode is shadow: every request ran its own query. What distributed would have saved was counted from %.1f%% of the requests.", 100*w.Covered)
}
