package coalesceotel

import (
	"context"
	"errors"
	"fmt"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/distributed"
	"github.com/fleetcall/fleetcall/coalesce/local"
)

// RegisterStats makes observable instruments of what a Fleet and its Groups count.
// totals is the Fleet's Totals. The registration ends with its Unregister.
func RegisterStats(totals func() distributed.FleetStats, opts ...Option) (metric.Registration, error) {
	i := instruments{meter: newConfig(opts).meters.Meter(scope)}
	observeLocal, observeDistributed, observeRedis := i.local(), i.distributed(), i.redis()
	hotKeys := i.gauge("fleetcall.distributed.hot_keys", "{key}", "Keys that Redis is asked for, of those of adaptive groups that were called for of late.")
	return i.register(func(o metric.Observer) {
		st := totals()
		for group, of := range st.Groups {
			observeLocal(o, group, of.Local)
			observeDistributed(o, group, of.Distributed)
		}
		o.ObserveInt64(hotKeys, int64(st.HotKeys))
		observeRedis(o, st.Redis)
	})
}

// RegisterLocalStats does the same for a local tier that stands alone. totals is a
// local.Group's Totals, and group the name that tells it from others.
func RegisterLocalStats(group string, totals func() local.Stats, opts ...Option) (metric.Registration, error) {
	i := instruments{meter: newConfig(opts).meters.Meter(scope)}
	observe := i.local()
	return i.register(func(o metric.Observer) { observe(o, group, totals()) })
}

// instruments makes them and keeps what went wrong.
type instruments struct {
	meter metric.Meter
	all   []metric.Observable
	errs  []error
}

func (i *instruments) counter(name, unit, description string) metric.Int64ObservableCounter {
	c, err := i.meter.Int64ObservableCounter(name, metric.WithUnit(unit), metric.WithDescription(description))
	i.all, i.errs = append(i.all, c), append(i.errs, err)
	return c
}

func (i *instruments) gauge(name, unit, description string) metric.Int64ObservableGauge {
	g, err := i.meter.Int64ObservableGauge(name, metric.WithUnit(unit), metric.WithDescription(description))
	i.all, i.errs = append(i.all, g), append(i.errs, err)
	return g
}

func (i *instruments) register(observe func(metric.Observer)) (metric.Registration, error) {
	if err := errors.Join(i.errs...); err != nil {
		return nil, fmt.Errorf("fleetcall: making instruments: %w", err)
	}
	registration, err := i.meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		observe(o)
		return nil
	}, i.all...)
	if err != nil {
		return nil, fmt.Errorf("fleetcall: registering statistics: %w", err)
	}
	return registration, nil
}

func with(attributes ...attribute.KeyValue) metric.MeasurementOption {
	return metric.WithAttributeSet(attribute.NewSet(attributes...))
}

func withRole(group attribute.KeyValue, role coalesce.Role) metric.MeasurementOption {
	return with(group, RoleKey.String(role.String()))
}

func (i *instruments) local() func(metric.Observer, string, local.Stats) {
	requests := i.counter("fleetcall.local.requests", "{call}", "Calls that reached the local tier.")
	errs := i.counter("fleetcall.local.flight.errors", "{flight}", "Flights of the local tier that ended with an error, or panicked.")
	active := i.gauge("fleetcall.local.active_flights", "{flight}", "Flights of the local tier under way.")
	waiting := i.gauge("fleetcall.local.waiting_callers", "{call}", "Callers that wait in the local tier.")
	return func(o metric.Observer, name string, st local.Stats) {
		group := GroupKey.String(name)
		o.ObserveInt64(requests, int64(st.Leaders), withRole(group, coalesce.Leader))
		o.ObserveInt64(requests, int64(st.Followers), withRole(group, coalesce.LocalFollower))
		o.ObserveInt64(errs, int64(st.Errors), with(group))
		o.ObserveInt64(active, st.ActiveFlights, with(group))
		o.ObserveInt64(waiting, st.Waiting, with(group))
	}
}

func (i *instruments) distributed() func(metric.Observer, string, distributed.TierStats) {
	flights := i.counter("fleetcall.distributed.flights", "{flight}", "Flights of the distributed tier that have ended.")
	unasked := i.counter("fleetcall.distributed.unasked_flights", "{flight}", "Flights, leaders all, that ran their function without asking Redis: of adaptive groups.")
	errs := i.counter("fleetcall.distributed.flight.errors", "{flight}", "Flights that ended with an error.")
	takeovers := i.counter("fleetcall.distributed.takeovers", "{flight}", "Flights led here because the one they followed had gone without an outcome.")
	lost := i.counter("fleetcall.distributed.leases_lost", "{lease}", "Leases that ran out or were taken while the function ran here.")
	incompatible := i.counter("fleetcall.distributed.incompatible", "{flight}", "Outcomes of another type or codec, which were not decoded.")
	active := i.gauge("fleetcall.distributed.active_flights", "{flight}", "Flights of the distributed tier under way.")
	return func(o metric.Observer, name string, st distributed.TierStats) {
		group := GroupKey.String(name)
		o.ObserveInt64(flights, int64(st.Leaders), withRole(group, coalesce.Leader))
		o.ObserveInt64(flights, int64(st.Followers), withRole(group, coalesce.RemoteFollower))
		o.ObserveInt64(flights, int64(st.Cached), withRole(group, coalesce.Cached))
		o.ObserveInt64(flights, int64(st.Fallbacks), withRole(group, coalesce.Fallback))
		o.ObserveInt64(flights, int64(st.NoRole), withRole(group, 0))
		o.ObserveInt64(unasked, int64(st.Unasked), with(group))
		o.ObserveInt64(errs, int64(st.Errors), with(group))
		o.ObserveInt64(takeovers, int64(st.Takeovers), with(group))
		o.ObserveInt64(lost, int64(st.LeaseLost), with(group))
		o.ObserveInt64(incompatible, int64(st.Incompatible), with(group))
		o.ObserveInt64(active, st.ActiveFlights, with(group))
	}
}

func (i *instruments) redis() func(metric.Observer, distributed.RedisStats) {
	failures := i.counter("fleetcall.distributed.redis.failures", "{failure}", "Commands and connections to Redis that failed.")
	garbage := i.counter("fleetcall.distributed.garbage", "{message}", "Messages and values of Redis that could not be read.")
	up := i.gauge("fleetcall.redis.server.up", "{server}", "1 for a Redis server that is up, 0 for one that is down.")
	return func(o metric.Observer, st distributed.RedisStats) {
		for _, kind := range distributed.FailureKinds() {
			o.ObserveInt64(failures, int64(st.ErrorsBy[kind]), with(attribute.String("kind", kind)))
		}
		o.ObserveInt64(garbage, int64(st.Garbage))
		for _, server := range st.Servers {
			is := int64(0)
			if server.State == distributed.ServerUp {
				is = 1
			}
			o.ObserveInt64(up, is, with(attribute.String("server", server.Address)))
		}
	}
}
