package load

import (
	"encoding/json"
	"math"
	"time"
)

// MarshalJSON returns the result as one object, with durations in milliseconds with
// three decimals.
func (r *Result) MarshalJSON() ([]byte, error) {
	ms := func(d time.Duration) float64 {
		return math.Round(float64(d)/float64(time.Microsecond)) / 1000
	}
	type latency struct {
		Average float64 `json:"average"`
		P50     float64 `json:"p50"`
		P95     float64 `json:"p95"`
		P99     float64 `json:"p99"`
		Max     float64 `json:"max"`
	}
	type bar struct {
		From  float64 `json:"from_ms"`
		To    float64 `json:"to_ms"`
		Count int     `json:"count"`
	}
	type slice struct {
		Start   float64 `json:"start_ms"`
		OK      int     `json:"ok"`
		Failed  int     `json:"failed"`
		Average float64 `json:"average_ms"`
		Max     float64 `json:"max_ms"`
	}
	histogram, timeline := []bar{}, []slice{}
	for _, b := range r.Histogram {
		histogram = append(histogram, bar{ms(b.From), ms(b.To), b.Count})
	}
	for _, s := range r.Timeline {
		timeline = append(timeline, slice{ms(s.Start), s.OK, s.Failed, ms(s.Average), ms(s.Max)})
	}
	return json.Marshal(struct {
		Requests  int            `json:"requests"`
		OK        int            `json:"ok"`
		Failed    int            `json:"failed"`
		Duration  float64        `json:"duration_ms"`
		PerSecond float64        `json:"requests_per_second"`
		Latency   latency        `json:"latency_ms"`
		Statuses  map[int]int    `json:"statuses"`
		Errors    map[string]int `json:"errors"`
		Replicas  map[string]int `json:"replicas"`
		Roles     map[string]int `json:"roles"`
		Histogram []bar          `json:"latency_histogram"`
		Timeline  []slice        `json:"timeline"`
	}{
		r.Requests, r.OK, r.Failed, ms(r.Duration), math.Round(r.PerSecond()*100) / 100,
		latency{ms(r.Latency.Average), ms(r.Latency.P50), ms(r.Latency.P95), ms(r.Latency.P99), ms(r.Latency.Max)},
		r.Statuses, r.Errors, r.Replicas, r.Roles, histogram, timeline,
	})
}
