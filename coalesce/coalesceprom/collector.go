package coalesceprom

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/distributed"
	"github.com/fleetcall/fleetcall/coalesce/local"
)

var breakerStates = []string{"closed", "half-open", "open"}

// desc describes a metric of a tier.
func desc(tier, name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(prometheus.BuildFQName(namespace, tier, name), help, labels, nil)
}

var (
	localRequests = desc("local", "requests_total", "Calls that reached the local tier, by role: leader started a flight, local-follower joined one.", "role")
	localErrors   = desc("local", "flight_errors_total", "Flights of the local tier that ended with an error, or panicked.")
	localActive   = desc("local", "active_flights", "Flights of the local tier under way.")
	localWaiting  = desc("local", "waiting_callers", "Callers that wait in the local tier, those that lead included.")

	flights       = desc("distributed", "flights_total", "Flights that the local tier handed to the distributed one and that have ended, by role; none: ended before it had one.", "role")
	flightErrors  = desc("distributed", "flight_errors_total", "Flights that ended with an error.")
	takeovers     = desc("distributed", "takeovers_total", "Flights led here because the one they followed had gone without an outcome.")
	leasesLost    = desc("distributed", "leases_lost_total", "Leases that ran out or were taken while the function ran here.")
	redisFailures = desc("distributed", "redis_failures_total", "Commands and connections to Redis that failed, by kind.", "kind")
	garbage       = desc("distributed", "garbage_total", "Messages and values of Redis that could not be read, and were ignored.")
	active        = desc("distributed", "active_flights", "Flights of the distributed tier under way.")
	breaker       = desc("distributed", "breaker_state", "1 for the state that the circuit breaker before Redis has.", "state")
)

type collector struct {
	descs []*prometheus.Desc
	local func() local.Stats       // nil: none
	both  func() distributed.Stats // nil: local alone
}

// NewCollector returns a collector of what both tiers count. totals is a
// Group's Totals; its Stats would do as well if they were never reset.
func NewCollector(totals func() distributed.Stats) prometheus.Collector {
	return &collector{both: totals, descs: []*prometheus.Desc{
		localRequests, localErrors, localActive, localWaiting,
		flights, flightErrors, takeovers, leasesLost, redisFailures, garbage, active, breaker,
	}}
}

// NewLocalCollector returns a collector of what a local tier that stands alone
// counts. totals is a local.Group's Totals.
func NewLocalCollector(totals func() local.Stats) prometheus.Collector {
	return &collector{local: totals, descs: []*prometheus.Desc{localRequests, localErrors, localActive, localWaiting}}
}

// Describe makes collector a prometheus.Collector.
func (c *collector) Describe(descs chan<- *prometheus.Desc) {
	for _, d := range c.descs {
		descs <- d
	}
}

// Collect makes collector a prometheus.Collector.
func (c *collector) Collect(metrics chan<- prometheus.Metric) {
	if c.both == nil {
		collectLocal(metrics, c.local())
		return
	}
	st := c.both()
	collectLocal(metrics, st.Local)
	collectDistributed(metrics, st.Distributed)
}

func counter(metrics chan<- prometheus.Metric, desc *prometheus.Desc, n uint64, labels ...string) {
	metrics <- prometheus.MustNewConstMetric(desc, prometheus.CounterValue, float64(n), labels...)
}

func gauge(metrics chan<- prometheus.Metric, desc *prometheus.Desc, n float64, labels ...string) {
	metrics <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, n, labels...)
}

func collectLocal(metrics chan<- prometheus.Metric, st local.Stats) {
	counter(metrics, localRequests, st.Leaders, coalesce.Leader.String())
	counter(metrics, localRequests, st.Followers, coalesce.LocalFollower.String())
	counter(metrics, localErrors, st.Errors)
	gauge(metrics, localActive, float64(st.ActiveFlights))
	gauge(metrics, localWaiting, float64(st.Waiting))
}

func collectDistributed(metrics chan<- prometheus.Metric, st distributed.TierStats) {
	for role, n := range map[coalesce.Role]uint64{
		coalesce.Leader: st.Leaders, coalesce.RemoteFollower: st.Followers, coalesce.Cached: st.Cached, coalesce.Fallback: st.Fallbacks, 0: st.NoRole,
	} {
		counter(metrics, flights, n, role.String())
	}
	counter(metrics, flightErrors, st.Errors)
	counter(metrics, takeovers, st.Takeovers)
	counter(metrics, leasesLost, st.LeaseLost)
	failures := map[string]uint64{}
	for _, kind := range distributed.FailureKinds() {
		failures[kind] = 0
	}
	for kind, n := range st.RedisErrorsBy {
		failures[kind] = n
	}
	for kind, n := range failures {
		counter(metrics, redisFailures, n, kind)
	}
	counter(metrics, garbage, st.Garbage)
	gauge(metrics, active, float64(st.ActiveFlights))
	for _, state := range breakerStates {
		is := 0.0
		if st.Breaker == state {
			is = 1
		}
		gauge(metrics, breaker, is, state)
	}
}
