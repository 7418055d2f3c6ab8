// Package coalesceotel makes OpenTelemetry spans and metrics of what the tiers
// of fleetcall do.
//
// A flight that enters the distributed tier is a span, "fleetcall flight", and
// a function that runs is a child of it, "fleetcall function". The flight of a
// follower has a link to the flight of its leader, on another replica: the
// leader's traceparent travels with its lease. A caller that only waits for another
// caller's flight has a span for that, "fleetcall wait", with a link to the flight.
//
// Metrics are instruments of the same names as coalesceprom's, as OpenTelemetry
// writes them: fleetcall.call.wait in s is fleetcall_call_wait_seconds, and so on.
// Their attributes have names of their own: what is the label role there is
// fleetcall.role here.
//
// One Hook and one RegisterStats are enough for a Fleet: spans and metrics of a
// Group have its name as the attribute fleetcall.group.
package coalesceotel

import (
	"context"
	"fmt"
	"sync"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/distributed"
)

// scope names the instrumentation.
const scope = "github.com/fleetcall/fleetcall/coalesce/coalesceotel"

// The attributes of spans and metrics.
const (
	GroupKey    = attribute.Key("fleetcall.group")          // the name of the Group
	RoleKey     = attribute.Key("fleetcall.role")           // as coalesce.Role writes it
	OutcomeKey  = attribute.Key("fleetcall.outcome")        // ok, error, panic, timeout, canceled or refused
	CauseKey    = attribute.Key("fleetcall.fallback.cause") // of a fallback
	TakeoverKey = attribute.Key("fleetcall.takeover")       // of spans: true for a leader that took over
	FlightKey   = attribute.Key("fleetcall.flight.id")      // of spans
	LagKey      = attribute.Key("fleetcall.follower.lag")   // of spans of remote followers: seconds
	KeyKey      = attribute.Key("fleetcall.key")            // of spans, with WithKeys
	StepKey     = attribute.Key("fleetcall.step")           // of a Redis command
	ResultKey   = attribute.Key("fleetcall.result")         // of a Redis command: ok, or the kind of failure
	LinkKey     = attribute.Key("fleetcall.link")           // of a link: to the leader on another replica, or to the flight on this one
)

type config struct {
	tracers trace.TracerProvider
	meters  metric.MeterProvider
	keys    bool
	groups  []string
}

// Option changes what a Hook does.
type Option func(*config)

// WithTracerProvider sets where spans go; the default is OpenTelemetry's global
// provider.
func WithTracerProvider(provider trace.TracerProvider) Option {
	return func(c *config) { c.tracers = provider }
}

// WithMeterProvider sets where metrics go; the default is OpenTelemetry's
// global provider.
func WithMeterProvider(provider metric.MeterProvider) Option {
	return func(c *config) { c.meters = provider }
}

// WithKeys makes the caller's key an attribute of spans. By default it is not:
// keys may be many, and may be secrets. It never is one of metrics.
func WithKeys() Option { return func(c *config) { c.keys = true } }

// WithGroups names Groups whose counters are there from the start, with the value 0,
// so that a rate sees what is counted first. Those of other Groups are made at the
// first call.
func WithGroups(names ...string) Option {
	return func(c *config) { c.groups = append(c.groups, names...) }
}

func newConfig(opts []Option) config {
	c := config{tracers: otel.GetTracerProvider(), meters: otel.GetMeterProvider()}
	for _, opt := range opts {
		opt(&c)
	}
	return c
}

// Hook makes spans and measures. It is a hook for distributed.WithHooks or
// distributed.Observed.
type Hook struct {
	tracer trace.Tracer
	keys   bool
	known  sync.Map // the groups that have their counters

	wait, function, command, lag metric.Float64Histogram
	fallbacks, downs             metric.Int64Counter
}

var (
	_ distributed.FlightHook  = (*Hook)(nil)
	_ distributed.FollowHook  = (*Hook)(nil)
	_ distributed.CallHook    = (*Hook)(nil)
	_ distributed.RunHook     = (*Hook)(nil)
	_ distributed.CommandHook = (*Hook)(nil)
	_ distributed.ServerHook  = (*Hook)(nil)
)

// NewHook returns a Hook. Its error is the meter provider's.
func NewHook(opts ...Option) (*Hook, error) {
	c := newConfig(opts)
	h := &Hook{tracer: c.tracers.Tracer(scope), keys: c.keys}
	meter := c.meters.Meter(scope)
	var err error
	histogram := func(name, description string) (made metric.Float64Histogram) {
		if err == nil {
			made, err = meter.Float64Histogram(name, metric.WithUnit("s"), metric.WithDescription(description),
				metric.WithExplicitBucketBoundaries(.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30))
		}
		return made
	}
	counter := func(name, unit, description string) (n metric.Int64Counter) {
		if err == nil {
			n, err = meter.Int64Counter(name, metric.WithUnit(unit), metric.WithDescription(description))
		}
		return n
	}
	h.wait = histogram("fleetcall.call.wait", "How long callers waited for a result.")
	h.function = histogram("fleetcall.function.duration", "How long functions ran here.")
	h.command = histogram("fleetcall.redis.command.duration", "How long the protocol's steps took in Redis.")
	h.lag = histogram("fleetcall.follower.lag", "From the end of a function on its leader until a follower had the outcome.")
	h.fallbacks = counter("fleetcall.distributed.fallbacks", "{flight}", "Flights that ran their function without the lease.")
	h.downs = counter("fleetcall.redis.server.downs", "{down}", "How often a Redis server went down.")
	if err != nil {
		return nil, fmt.Errorf("fleetcall: making instruments: %w", err)
	}
	for _, kind := range distributed.FailureKinds() {
		h.downs.Add(context.Background(), 0, with(attribute.String("kind", kind)))
	}
	for _, group := range c.groups {
		h.counters(group)
	}
	return h, nil
}

// counters makes the counters of a group that has none yet: what is counted first is
// invisible to a rate, unless zero was there before.
func (h *Hook) counters(group string) {
	if _, known := h.known.Load(group); known {
		return
	}
	for _, cause := range distributed.FallbackCauses() {
		h.fallbacks.Add(context.Background(), 0, with(GroupKey.String(group), CauseKey.String(cause)))
	}
	h.known.Store(group, true)
}

var propagator propagation.TraceContext

const traceparent = "traceparent"

// Flight makes Hook a distributed.FlightHook. A span that is not sampled
// does not travel: a link to it would lead nowhere.
func (h *Hook) Flight(ctx context.Context, start distributed.FlightStart) (context.Context, string, func(distributed.Flight)) {
	h.counters(start.Group)
	ctx, span := h.tracer.Start(ctx, "fleetcall flight")
	parent := ""
	if span.SpanContext().IsSampled() {
		carrier := propagation.MapCarrier{}
		propagator.Inject(ctx, carrier)
		parent = carrier[traceparent]
	}
	return ctx, parent, func(flight distributed.Flight) { h.flightEnded(ctx, span, flight) }
}

func (h *Hook) flightEnded(ctx context.Context, span trace.Span, flight distributed.Flight) {
	if flight.Role == coalesce.Fallback {
		h.fallbacks.Add(ctx, 1, with(GroupKey.String(flight.Group), CauseKey.String(flight.Cause)))
	}
	if flight.Lag >= 0 {
		record(ctx, h.lag, flight.Lag, GroupKey.String(flight.Group))
	}
	defer span.End()
	if !span.IsRecording() {
		return
	}
	addLinks(span, linkTo(flight.Kept, flight.Flight, toLeader))
	h.describe(span, flight.Group, flight.Key, flight.Role, flight.Flight)
	if flight.Cause != "" {
		span.SetAttributes(CauseKey.String(flight.Cause))
	}
	if flight.Takeover {
		span.SetAttributes(TakeoverKey.Bool(true))
	}
	if flight.Lag >= 0 {
		span.SetAttributes(LagKey.Float64(flight.Lag.Seconds()))
	}
	ended(span, flight.Err)
}

// describe notes whose result came, and how.
func (h *Hook) describe(span trace.Span, group, key string, role coalesce.Role, flight string) {
	span.SetAttributes(GroupKey.String(group), RoleKey.String(role.String()))
	if flight != "" {
		span.SetAttributes(FlightKey.String(flight))
	}
	if h.keys {
		span.SetAttributes(KeyKey.String(key))
	}
}

// record spares a histogram that nobody reads its attributes.
func record(ctx context.Context, h metric.Float64Histogram, took time.Duration, attributes ...attribute.KeyValue) {
	if h.Enabled(ctx) {
		h.Record(ctx, took.Seconds(), metric.WithAttributes(attributes...))
	}
}

// ended notes how it ended. The error's text may have what nobody outside the
// program is to know, so that it stays inside.
func ended(span trace.Span, err error) {
	kind := coalesce.OutcomeOf(err).String()
	span.SetAttributes(OutcomeKey.String(kind))
	if err != nil {
		span.SetStatus(codes.Error, kind)
	}
}

// The values of LinkKey.
var (
	toLeader = LinkKey.String("leader")
	toFlight = LinkKey.String("flight")
)

// linkTo returns a link to the span that parent, a traceparent, is of, if there is
// one.
func linkTo(parent, flight string, kind attribute.KeyValue) (links []trace.Link) {
	if parent == "" {
		return nil
	}
	to := trace.SpanContextFromContext(propagator.Extract(context.Background(), propagation.MapCarrier{traceparent: parent}))
	if !to.IsValid() {
		return nil
	}
	return []trace.Link{{SpanContext: to, Attributes: []attribute.KeyValue{kind, FlightKey.String(flight)}}}
}

func addLinks(span trace.Span, links []trace.Link) {
	for _, link := range links {
		span.AddLink(link)
	}
}

// Followed makes Hook a distributed.FollowHook.
func (h *Hook) Followed(ctx context.Context, leader distributed.Followed) {
	if span := trace.SpanFromContext(ctx); span.IsRecording() {
		addLinks(span, linkTo(leader.Trace, leader.Flight, toLeader))
	}
}

// Called makes Hook a distributed.CallHook. A local follower's wait is a span
// of its own: the flight that it waited for is in another request's trace.
func (h *Hook) Called(ctx context.Context, call distributed.Call) {
	record(ctx, h.wait, call.Wait, GroupKey.String(call.Group), RoleKey.String(call.Role.String()), OutcomeKey.String(coalesce.OutcomeOf(call.Err).String()))
	if call.Role != coalesce.LocalFollower {
		return
	}
	now := time.Now()
	_, span := h.tracer.Start(ctx, "fleetcall wait", trace.WithTimestamp(now.Add(-call.Wait)))
	if span.IsRecording() {
		addLinks(span, linkTo(call.Trace, call.Flight, toFlight))
		h.describe(span, call.Group, call.Key, call.Role, call.Flight)
		ended(span, call.Err)
	}
	span.End(trace.WithTimestamp(now))
}

// Run makes Hook a distributed.RunHook.
func (h *Hook) Run(ctx context.Context, run distributed.Run) (context.Context, func(error)) {
	group, role := GroupKey.String(run.Group), RoleKey.String(run.Role.String())
	began := time.Now()
	ctx, span := h.tracer.Start(ctx, "fleetcall function", trace.WithAttributes(group, role))
	return ctx, func(err error) {
		record(ctx, h.function, time.Since(began), group, role, OutcomeKey.String(coalesce.OutcomeOf(err).String()))
		if span.IsRecording() {
			ended(span, err)
		}
		span.End()
	}
}

// Command makes Hook a distributed.CommandHook.
func (h *Hook) Command(command distributed.Command) {
	result := command.Kind
	if result == "" {
		result = coalesce.OutcomeOK.String()
	}
	record(context.Background(), h.command, command.Took, StepKey.String(command.Step), ResultKey.String(result))
}

// Server makes Hook a distributed.ServerHook.
func (h *Hook) Server(change distributed.ServerChange) {
	if change.State == distributed.ServerDown {
		h.downs.Add(context.Background(), 1, with(attribute.String("kind", change.Kind)))
	}
}
