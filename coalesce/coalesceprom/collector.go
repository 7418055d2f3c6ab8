package coalesceprom

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/distributed"
	"github.com/fleetcall/fleetcall/coalesce/local"
)

// desc describes a metric of a tier.
func desc(tier, name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(prometheus.BuildFQName(namespace, tier, name), help, labels, nil)
}

var (
	localRequests = desc("local", "requests_total", "Calls that reached the local tier, by role: leader started a flight, local-follower joined one.", "group", "role")
	localErrors   = desc("local", "flight_errors_total", "Flights of the local tier that ended with an error, or panicked.", "group")
	localActive   = desc("local", "active_flights", "Flights of the local tier under way.", "group")
	localBatches  = desc("local", "batches_total", "Calls for many keys that reached the local tier alone.", "group")
	localRuns     = desc("local", "batch_runs_total", "Calls of the functions of batches.", "group")
	localKeys     = desc("local", "batch_keys_total", "Keys that the functions of batches were given: divided by their calls, the keys per call.", "group")
	localWaiting  = desc("local", "waiting_callers", "Callers that wait in the local tier, those that lead included.", "group")

	flights      = desc("distributed", "flights_total", "Flights that the local tier handed to the distributed one and that have ended, by role; none: ended before it had one.", "group", "role")
	unasked      = desc("distributed", "unasked_flights_total", "Flights, leaders all, that ran their function without asking Redis, because their key was not known to be shared: of adaptive groups.", "group")
	flightErrors = desc("distributed", "flight_errors_total", "Flights that ended with an error.", "group")
	takeovers    = desc("distributed", "takeovers_total", "Flights led here because the one they followed had gone without an outcome.", "group")
	leasesLost   = desc("distributed", "leases_lost_total", "Leases that ran out or were taken while the function ran here.", "group")
	incompatible = desc("distributed", "incompatible_total", "Outcomes of another type or codec, which were not decoded: their followers ran their own function.", "group")
	batches      = desc("distributed", "batches_total", "Calls for many keys.", "group")
	batchRuns    = desc("distributed", "batch_runs_total", "Calls of the functions of batches.", "group")
	batchKeys    = desc("distributed", "batch_keys_total", "Keys that the functions of batches were given: divided by their calls, the keys per call.", "group")
	active       = desc("distributed", "active_flights", "Flights of the distributed tier under way.", "group")

	hotKeys       = desc("distributed", "hot_keys", "Keys that Redis is asked for, of those of adaptive groups that were called for of late.")
	redisFailures = desc("distributed", "redis_failures_total", "Commands and connections to Redis that failed, by kind.", "kind")
	garbage       = desc("distributed", "garbage_total", "Messages and values of Redis that could not be read, and were ignored.")
	serverUp      = desc("redis", "server_up", "1 for a Redis server that is up, 0 for one that is down.", "server")
)

type collector struct{ totals func() distributed.FleetStats }

// NewCollector returns a collector of what a Fleet and its Groups count. totals is
// the Fleet's Totals; its Stats would do as well if they were never reset. A Group
// that is made later is collected from then on.
func NewCollector(totals func() distributed.FleetStats) prometheus.Collector {
	return collector{totals}
}

// Describe makes collector a prometheus.Collector.
func (collector) Describe(descs chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		localRequests, localErrors, localActive, localWaiting, localBatches, localRuns, localKeys,
		flights, unasked, flightErrors, takeovers, leasesLost, incompatible, active, batches, batchRuns, batchKeys, hotKeys, redisFailures, garbage, serverUp,
	} {
		descs <- d
	}
}

// Collect makes collector a prometheus.Collector.
func (c collector) Collect(metrics chan<- prometheus.Metric) {
	st := c.totals()
	for group, of := range st.Groups {
		collectLocal(metrics, group, of.Local)
		collectDistributed(metrics, group, of.Distributed)
	}
	gauge(metrics, hotKeys, float64(st.HotKeys))
	collectRedis(metrics, st.Redis)
}

type localCollector struct {
	group  string
	totals func() local.Stats
}

// NewLocalCollector returns a collector of what a local tier that stands alone
// counts. totals is a local.Group's Totals, and group the name that tells it from
// others: one registry takes any number of local collectors, beside that of a Fleet.
// Two of one name are an error when they are collected.
func NewLocalCollector(group string, totals func() local.Stats) prometheus.Collector {
	return localCollector{group, totals}
}

// Describe sends nothing: the descriptions would be the same for each group, and a
// registry refuses a second collector of the same descriptions.
func (localCollector) Describe(chan<- *prometheus.Desc) {}

// Collect makes localCollector a prometheus.Collector.
func (c localCollector) Collect(metrics chan<- prometheus.Metric) {
	collectLocal(metrics, c.group, c.totals())
}

func counter(metrics chan<- prometheus.Metric, desc *prometheus.Desc, n uint64, labels ...string) {
	metrics <- prometheus.MustNewConstMetric(desc, prometheus.CounterValue, float64(n), labels...)
}

func gauge(metrics chan<- prometheus.Metric, desc *prometheus.Desc, n float64, labels ...string) {
	metrics <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, n, labels...)
}

func collectLocal(metrics chan<- prometheus.Metric, group string, st local.Stats) {
	counter(metrics, localRequests, st.Leaders, group, coalesce.Leader.String())
	counter(metrics, localRequests, st.Followers, group, coalesce.LocalFollower.String())
	counter(metrics, localErrors, st.Errors, group)
	gauge(metrics, localActive, float64(st.ActiveFlights), group)
	gauge(metrics, localWaiting, float64(st.Waiting), group)
	counter(metrics, localBatches, st.Batches, group)
	counter(metrics, localRuns, st.BatchRuns, group)
	counter(metrics, localKeys, st.BatchKeys, group)
}

func collectDistributed(metrics chan<- prometheus.Metric, group string, st distributed.TierStats) {
	for role, n := range map[coalesce.Role]uint64{
		coalesce.Leader: st.Leaders, coalesce.RemoteFollower: st.Followers, coalesce.Cached: st.Cached, coalesce.Fallback: st.Fallbacks, 0: st.NoRole,
	} {
		counter(metrics, flights, n, group, role.String())
	}
	counter(metrics, unasked, st.Unasked, group)
	counter(metrics, flightErrors, st.Errors, group)
	counter(metrics, takeovers, st.Takeovers, group)
	counter(metrics, leasesLost, st.LeaseLost, group)
	counter(metrics, incompatible, st.Incompatible, group)
	gauge(metrics, active, float64(st.ActiveFlights), group)
	counter(metrics, batches, st.Batches, group)
	counter(metrics, batchRuns, st.BatchRuns, group)
	counter(metrics, batchKeys, st.BatchKeys, group)
}

func collectRedis(metrics chan<- prometheus.Metric, st distributed.RedisStats) {
	failures := map[string]uint64{}
	for _, kind := range distributed.FailureKinds() {
		failures[kind] = 0
	}
	for kind, n := range st.ErrorsBy {
		failures[kind] = n
	}
	for kind, n := range failures {
		counter(metrics, redisFailures, n, kind)
	}
	counter(metrics, garbage, st.Garbage)
	for _, server := range st.Servers {
		up := 0.0
		if server.State == distributed.ServerUp {
			up = 1
		}
		gauge(metrics, serverUp, up, server.Address)
	}
}
