package coalesceprom

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/fleetcall/fleetcall/coalesce/shadow"
)

var (
	shadowCalls    = desc("shadow", "calls_total", "Calls of groups in shadow, each of which ran its function; each key of a batch is one.", "group")
	shadowTime     = desc("shadow", "function_seconds_total", "How long their functions ran.", "group")
	shadowRuns     = desc("shadow", "executions", "Functions that a tier would have run for these calls, since the start; of the tier distributed an estimate.", "group", "tier")
	shadowRunsErr  = desc("shadow", "executions_error", "Standard error of that estimate.", "group", "tier")
	shadowTook     = desc("shadow", "executions_seconds", "How long the functions took that a tier would have run, since the start.", "group", "tier")
	shadowTookErr  = desc("shadow", "executions_seconds_error", "Standard error of that estimate.", "group", "tier")
	shadowCovered  = desc("shadow", "covered_ratio", "Part of the calls, 0 to 1, that the tier distributed was counted from.", "group")
	shadowSeconds  = desc("shadow", "seconds_total", "Seconds that were counted for the tier distributed, and that were not, by reason.", "verdict")
	shadowReplicas = desc("shadow", "replicas", "Replicas that reported in the last second that was counted.")
)

type shadowCollector struct{ totals func() shadow.FleetStats }

// NewShadowCollector returns a collector of what a shadow Fleet counts. totals is the
// Fleet's Totals. The estimates are gauges, although they are of all calls since the start:
// what is learnt later may make them smaller.
func NewShadowCollector(totals func() shadow.FleetStats) prometheus.Collector {
	return shadowCollector{totals}
}

// Describe makes shadowCollector a prometheus.Collector.
func (shadowCollector) Describe(descs chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		shadowCalls, shadowTime, shadowRuns, shadowRunsErr, shadowTook, shadowTookErr, shadowCovered, shadowSeconds, shadowReplicas,
	} {
		descs <- d
	}
}

// Collect makes shadowCollector a prometheus.Collector.
func (c shadowCollector) Collect(metrics chan<- prometheus.Metric) {
	st := c.totals()
	for group, of := range st.Groups {
		counter(metrics, shadowCalls, of.Requests, group)
		metrics <- prometheus.MustNewConstMetric(shadowTime, prometheus.CounterValue, of.Time.Seconds(), group)
		gauge(metrics, shadowCovered, of.Covered, group)
		for tier, t := range map[string]shadow.Tier{"local": of.Local, "distributed": of.Distributed} {
			gauge(metrics, shadowRuns, t.Executions, group, tier)
			gauge(metrics, shadowRunsErr, t.ExecutionsError, group, tier)
			gauge(metrics, shadowTook, t.Time.Seconds(), group, tier)
			gauge(metrics, shadowTookErr, t.TimeError.Seconds(), group, tier)
		}
	}
	for verdict, n := range map[string]uint64{
		"counted": st.Seconds.Counted, "unheard": st.Seconds.Unheard, "silent": st.Seconds.Silent,
		"differing": st.Seconds.Differing, "partial": st.Seconds.Partial,
	} {
		counter(metrics, shadowSeconds, n, verdict)
	}
	gauge(metrics, shadowReplicas, float64(st.Replicas))
}
