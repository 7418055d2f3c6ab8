// Package coalesceprom shows Prometheus what the tiers of fleetcall do.
//
// There are two halves, and a program registers both. NewCollector and
// NewLocalCollector read the tiers' own counts when Prometheus asks: they cost
// calls nothing and never disagree with Stats, except that ResetStats does not
// set them back. A Hook measures what no count tells: how long callers waited,
// functions ran and Redis took.
//
// One collector and one Hook are enough for a Fleet: what belongs to a Group has
// its name as the label group. Durations are in seconds. No label has a key, a
// flight or a replica for a value: the number of series does not grow with what is
// called.
package coalesceprom

import (
	"context"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/distributed"
)

const namespace = "fleetcall"

var (
	// callBuckets reach from a local tier's hit to the default flight timeout.
	callBuckets = []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30}
	// redisBuckets reach from a round trip on one machine to ten times the
	// default Redis timeout.
	redisBuckets = []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5}
	// lagBuckets reach from there to the default flight timeout: a lost message
	// costs the lease TTL.
	lagBuckets = append(redisBuckets[:len(redisBuckets):len(redisBuckets)], 5, 10, 30)
)

// Hook measures calls. It is a hook for distributed.WithHooks or
// distributed.Observed, and a prometheus.Collector to register.
type Hook struct {
	wait, function, command, lag *prometheus.HistogramVec
	fallbacks, downs             *prometheus.CounterVec
	all                          []prometheus.Collector
	distributed                  bool
	known                        sync.Map // the groups that have their series
	ended                        func(distributed.Flight)
}

var (
	_ distributed.FlightHook  = (*Hook)(nil)
	_ distributed.CallHook    = (*Hook)(nil)
	_ distributed.RunHook     = (*Hook)(nil)
	_ distributed.CommandHook = (*Hook)(nil)
	_ distributed.ServerHook  = (*Hook)(nil)
	_ prometheus.Collector    = (*Hook)(nil)
)

// NewLocalHook returns a Hook without the metrics of the distributed tier, for
// distributed.Observed. groups are as in NewHook.
func NewLocalHook(groups ...string) *Hook {
	h := newHook()
	h.all = []prometheus.Collector{h.wait, h.function}
	h.know(groups)
	return h
}

// NewHook returns a Hook that has seen nothing. The series of these groups are there
// from the start, with the value 0, so that a rate sees their first increment; the
// series of other groups are made at the first call.
func NewHook(groups ...string) *Hook {
	h := newHook()
	h.distributed = true
	h.all = []prometheus.Collector{h.wait, h.function, h.command, h.lag, h.fallbacks, h.downs}
	for _, step := range []string{"join", "finish"} {
		h.command.WithLabelValues(step, coalesce.OutcomeOK.String())
	}
	for _, kind := range distributed.FailureKinds() {
		h.downs.WithLabelValues(kind)
	}
	h.know(groups)
	return h
}

func newHook() *Hook {
	h := &Hook{
		wait: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Namespace: namespace, Name: "call_wait_seconds", Buckets: callBuckets,
			Help: "How long callers waited for a result, by how they got it and how it ended.",
		}, []string{"group", "role", "outcome"}),
		function: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Namespace: namespace, Name: "function_duration_seconds", Buckets: callBuckets,
			Help: "How long functions ran here, by role (leader, or fallback: without the lease) and how they ended.",
		}, []string{"group", "role", "outcome"}),
		command: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Namespace: namespace, Name: "redis_command_duration_seconds", Buckets: redisBuckets,
			Help: "How long the protocol's steps took, from when they were to be sent until Redis' reply or until they were given up, by result: ok, or the kind of failure.",
		}, []string{"step", "result"}),
		lag: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Namespace: namespace, Name: "follower_lag_seconds", Buckets: lagBuckets,
			Help: "From the end of a function on its leader until a follower here had the outcome, by Redis' clock.",
		}, []string{"group"}),
		fallbacks: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: namespace, Subsystem: "distributed", Name: "fallbacks_total",
			Help: "Flights that ran their function without the lease, by cause.",
		}, []string{"group", "cause"}),
		downs: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: namespace, Subsystem: "redis", Name: "server_downs_total",
			Help: "How often a Redis server went down, by the kind of failure.",
		}, []string{"kind"}),
	}
	h.ended = h.flightEnded
	return h
}

func (h *Hook) know(groups []string) {
	for _, group := range groups {
		h.series(group)
	}
}

// series makes the series of a group that has none yet: the first increment of one
// that was not there is invisible to a rate.
func (h *Hook) series(group string) {
	if _, known := h.known.Load(group); known {
		return
	}
	for _, role := range []coalesce.Role{coalesce.Leader, coalesce.LocalFollower} {
		h.wait.WithLabelValues(group, role.String(), coalesce.OutcomeOK.String())
	}
	for _, role := range []coalesce.Role{coalesce.Leader, coalesce.Fallback} {
		for _, end := range coalesce.Outcomes() {
			if end != coalesce.OutcomeRefused {
				h.function.WithLabelValues(group, role.String(), end.String())
			}
		}
	}
	if h.distributed {
		h.lag.WithLabelValues(group)
		for _, cause := range distributed.FallbackCauses() {
			h.fallbacks.WithLabelValues(group, cause)
		}
	}
	h.known.Store(group, true)
}

// Describe makes Hook a prometheus.Collector.
func (h *Hook) Describe(descs chan<- *prometheus.Desc) {
	for _, c := range h.all {
		c.Describe(descs)
	}
}

// Collect makes Hook a prometheus.Collector.
func (h *Hook) Collect(metrics chan<- prometheus.Metric) {
	for _, c := range h.all {
		c.Collect(metrics)
	}
}

// Called makes Hook a distributed.CallHook.
func (h *Hook) Called(_ context.Context, call distributed.Call) {
	h.series(call.Group)
	h.wait.WithLabelValues(call.Group, call.Role.String(), coalesce.OutcomeOf(call.Err).String()).Observe(call.Wait.Seconds())
}

// Run makes Hook a distributed.RunHook.
func (h *Hook) Run(ctx context.Context, run distributed.Run) (context.Context, func(error)) {
	h.series(run.Group)
	role, began := run.Role.String(), time.Now()
	return ctx, func(err error) {
		h.function.WithLabelValues(run.Group, role, coalesce.OutcomeOf(err).String()).Observe(time.Since(began).Seconds())
	}
}

// Flight makes Hook a distributed.FlightHook.
func (h *Hook) Flight(ctx context.Context, start distributed.FlightStart) (context.Context, string, func(distributed.Flight)) {
	h.series(start.Group)
	return ctx, "", h.ended
}

func (h *Hook) flightEnded(flight distributed.Flight) {
	if flight.Role == coalesce.Fallback {
		h.fallbacks.WithLabelValues(flight.Group, flight.Cause).Inc()
	}
	if flight.Lag >= 0 {
		h.lag.WithLabelValues(flight.Group).Observe(flight.Lag.Seconds())
	}
}

// Command makes Hook a distributed.CommandHook.
func (h *Hook) Command(command distributed.Command) {
	result := command.Kind
	if result == "" {
		result = coalesce.OutcomeOK.String()
	}
	h.command.WithLabelValues(command.Step, result).Observe(command.Took.Seconds())
}

// Server makes Hook a distributed.ServerHook.
func (h *Hook) Server(change distributed.ServerChange) {
	if change.State == distributed.ServerDown {
		h.downs.WithLabelValues(change.Kind).Inc()
	}
}
