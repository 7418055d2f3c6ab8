// Package coalesceprom shows Prometheus what the tiers of fleetcall do.
//
// There are two halves, and a program registers both. NewCollector and
// NewLocalCollector read the tiers' own counts when Prometheus asks: they cost
// calls nothing and never disagree with Stats, except that ResetStats does not
// set them back. An Observer measures what no count tells: how long callers
// waited, functions ran and Redis took.
//
// Durations are in seconds. No label has a key, a flight or a replica for a
// value: the number of series does not grow with what is called. A program with
// several Groups tells them apart with prometheus.WrapRegistererWith.
package coalesceprom

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/distributed"
	"github.com/fleetcall/fleetcall/coalesce/internal/outcome"
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

// Observer measures calls. It is a distributed.Observer and a
// prometheus.Collector: give it to distributed.WithObserver and
// register it.
type Observer struct {
	distributed.NoObserver
	wait, function, command *prometheus.HistogramVec
	lag                     prometheus.Histogram
	fallbacks, breaker      *prometheus.CounterVec
	all                     []prometheus.Collector
	ended                   func(distributed.Flight) // landed; made once
}

var (
	_ distributed.Observer = (*Observer)(nil)
	_ prometheus.Collector = (*Observer)(nil)
)

// NewLocalObserver returns an Observer without the metrics of the distributed
// tier: for distributed.Observed.
func NewLocalObserver() *Observer {
	o := NewObserver()
	o.all = []prometheus.Collector{o.wait, o.function}
	return o
}

// NewObserver returns an Observer that has seen nothing.
func NewObserver() *Observer {
	o := &Observer{
		wait: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Namespace: namespace, Name: "call_wait_seconds", Buckets: callBuckets,
			Help: "How long callers waited for a result, by how they got it and how it ended.",
		}, []string{"role", "outcome"}),
		function: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Namespace: namespace, Name: "function_duration_seconds", Buckets: callBuckets,
			Help: "How long functions ran here, by role (leader, or fallback: without the lease) and how they ended.",
		}, []string{"role", "outcome"}),
		command: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Namespace: namespace, Name: "redis_command_duration_seconds", Buckets: redisBuckets,
			Help: "How long the protocol's steps took, from when they were to be sent until Redis' reply or until they were given up, by result: ok, or the kind of failure.",
		}, []string{"step", "result"}),
		lag: prometheus.NewHistogram(prometheus.HistogramOpts{
			Namespace: namespace, Name: "follower_lag_seconds", Buckets: lagBuckets,
			Help: "From the end of a function on its leader until a follower here had the outcome, by Redis' clock.",
		}),
		fallbacks: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: namespace, Subsystem: "distributed", Name: "fallbacks_total",
			Help: "Flights that ran their function without the lease, by cause.",
		}, []string{"cause"}),
		breaker: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: namespace, Subsystem: "distributed", Name: "breaker_transitions_total",
			Help: "Changes of the circuit breaker before Redis, by the state it went to.",
		}, []string{"to"}),
	}
	// Series that are there from the start: the first increment of one that
	// was not is invisible to rate.
	for _, role := range []coalesce.Role{coalesce.Leader, coalesce.LocalFollower} {
		o.wait.WithLabelValues(role.String(), outcome.OK)
	}
	for _, role := range []coalesce.Role{coalesce.Leader, coalesce.Fallback} {
		for _, end := range outcome.All {
			if end != outcome.Refused {
				o.function.WithLabelValues(role.String(), end)
			}
		}
	}
	for _, step := range []string{"join", "finish"} {
		o.command.WithLabelValues(step, outcome.OK)
	}
	for _, cause := range distributed.FallbackCauses() {
		o.fallbacks.WithLabelValues(cause)
	}
	for _, state := range breakerStates {
		o.breaker.WithLabelValues(state)
	}
	o.all = []prometheus.Collector{o.wait, o.function, o.command, o.lag, o.fallbacks, o.breaker}
	o.ended = o.landed
	return o
}

// Describe makes Observer a prometheus.Collector.
func (o *Observer) Describe(descs chan<- *prometheus.Desc) {
	for _, c := range o.all {
		c.Describe(descs)
	}
}

// Collect makes Observer a prometheus.Collector.
func (o *Observer) Collect(metrics chan<- prometheus.Metric) {
	for _, c := range o.all {
		c.Collect(metrics)
	}
}

// Called makes Observer a distributed.Observer.
func (o *Observer) Called(_ context.Context, call distributed.Call) {
	o.wait.WithLabelValues(call.Role.String(), outcome.Of(call.Err)).Observe(call.Wait.Seconds())
}

// Run makes Observer a distributed.Observer.
func (o *Observer) Run(ctx context.Context, run distributed.Run) (context.Context, func(error)) {
	role, began := run.Role.String(), time.Now()
	return ctx, func(err error) {
		o.function.WithLabelValues(role, outcome.Of(err)).Observe(time.Since(began).Seconds())
	}
}

// Flight makes Observer a distributed.Observer.
func (o *Observer) Flight(ctx context.Context, _ string) (context.Context, string, func(distributed.Flight)) {
	return ctx, "", o.ended
}

func (o *Observer) landed(flight distributed.Flight) {
	if flight.Role == coalesce.Fallback {
		o.fallbacks.WithLabelValues(flight.Cause).Inc()
	}
	if flight.Lag >= 0 {
		o.lag.Observe(flight.Lag.Seconds())
	}
}

// Command makes Observer a distributed.Observer.
func (o *Observer) Command(command distributed.Command) {
	result := command.Kind
	if result == "" {
		result = outcome.OK
	}
	o.command.WithLabelValues(command.Step, result).Observe(command.Took.Seconds())
}

// Breaker makes Observer a distributed.Observer.
func (o *Observer) Breaker(_, to string) { o.breaker.WithLabelValues(to).Inc() }
