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
package coalesceotel

import (
	"context"
	"fmt"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/distributed"
	"github.com/fleetcall/fleetcall/coalesce/internal/outcome"
)

// scope names the instrumentation.
const scope = "github.com/fleetcall/fleetcall/coalesce/coalesceotel"

// The attributes of spans and metrics.
const (
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
}

// Option changes what an Observer does.
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

func newConfig(opts []Option) config {
	c := config{tracers: otel.GetTracerProvider(), meters: otel.GetMeterProvider()}
	for _, opt := range opts {
		opt(&c)
	}
	return c
}

// Observer makes spans and measures. It is a distributed.Observer.
type Observer struct {
	tracer trace.Tracer
	keys   bool

	wait, function, command, lag metric.Float64Histogram
	fallbacks, breaker           metric.Int64Counter
}

var _ distributed.Observer = (*Observer)(nil)

// NewObserver returns an Observer for distributed.WithObserver, or
// distributed.Observed. Its error is the meter provider's.
func NewObserver(opts ...Option) (*Observer, error) {
	c := newConfig(opts)
	o := &Observer{tracer: c.tracers.Tracer(scope), keys: c.keys}
	meter := c.meters.Meter(scope)
	var err error
	histogram := func(name, description string) (h metric.Float64Histogram) {
		if err == nil {
			h, err = meter.Float64Histogram(name, metric.WithUnit("s"), metric.WithDescription(description),
				metric.WithExplicitBucketBoundaries(.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30))
		}
		return h
	}
	counter := func(name, unit, description string) (n metric.Int64Counter) {
		if err == nil {
			n, err = meter.Int64Counter(name, metric.WithUnit(unit), metric.WithDescription(description))
		}
		return n
	}
	o.wait = histogram("fleetcall.call.wait", "How long callers waited for a result.")
	o.function = histogram("fleetcall.function.duration", "How long functions ran here.")
	o.command = histogram("fleetcall.redis.command.duration", "How long the protocol's steps took in Redis.")
	o.lag = histogram("fleetcall.follower.lag", "From the end of a function on its leader until a follower had the outcome.")
	o.fallbacks = counter("fleetcall.distributed.fallbacks", "{flight}", "Flights that ran their function without the lease.")
	o.breaker = counter("fleetcall.distributed.breaker.transitions", "{transition}", "Changes of the circuit breaker before Redis.")
	if err != nil {
		return nil, fmt.Errorf("fleetcall: making instruments: %w", err)
	}
	// What is counted first is invisible to a rate, unless zero was there before.
	for _, cause := range distributed.FallbackCauses() {
		o.fallbacks.Add(context.Background(), 0, with(CauseKey.String(cause)))
	}
	for _, state := range breakerStates {
		o.breaker.Add(context.Background(), 0, with(attribute.String("to", state)))
	}
	return o, nil
}

var propagator propagation.TraceContext

const traceparent = "traceparent"

// Flight makes Observer a distributed.Observer. A span that is not sampled
// does not travel: a link to it would lead nowhere.
func (o *Observer) Flight(ctx context.Context, _ string) (context.Context, string, func(distributed.Flight)) {
	ctx, span := o.tracer.Start(ctx, "fleetcall flight")
	parent := ""
	if span.SpanContext().IsSampled() {
		carrier := propagation.MapCarrier{}
		propagator.Inject(ctx, carrier)
		parent = carrier[traceparent]
	}
	return ctx, parent, func(flight distributed.Flight) { o.landed(ctx, span, flight) }
}

func (o *Observer) landed(ctx context.Context, span trace.Span, flight distributed.Flight) {
	if flight.Role == coalesce.Fallback {
		o.fallbacks.Add(ctx, 1, with(CauseKey.String(flight.Cause)))
	}
	if flight.Lag >= 0 {
		record(ctx, o.lag, flight.Lag)
	}
	defer span.End()
	if !span.IsRecording() {
		return
	}
	addLinks(span, linkTo(flight.Kept, flight.Flight, toLeader))
	o.describe(span, flight.Key, flight.Role, flight.Flight)
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
func (o *Observer) describe(span trace.Span, key string, role coalesce.Role, flight string) {
	span.SetAttributes(RoleKey.String(role.String()))
	if flight != "" {
		span.SetAttributes(FlightKey.String(flight))
	}
	if o.keys {
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
	kind := outcome.Of(err)
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

// Followed makes Observer a distributed.Observer.
func (o *Observer) Followed(ctx context.Context, leader distributed.Followed) {
	if span := trace.SpanFromContext(ctx); span.IsRecording() {
		addLinks(span, linkTo(leader.Trace, leader.Flight, toLeader))
	}
}

// Called makes Observer a distributed.Observer. A local follower's wait is a span
// of its own: the flight that it waited for is in another request's trace.
func (o *Observer) Called(ctx context.Context, call distributed.Call) {
	record(ctx, o.wait, call.Wait, RoleKey.String(call.Role.String()), OutcomeKey.String(outcome.Of(call.Err)))
	if call.Role != coalesce.LocalFollower {
		return
	}
	now := time.Now()
	_, span := o.tracer.Start(ctx, "fleetcall wait", trace.WithTimestamp(now.Add(-call.Wait)))
	if span.IsRecording() {
		addLinks(span, linkTo(call.Trace, call.Flight, toFlight))
		o.describe(span, call.Key, call.Role, call.Flight)
		ended(span, call.Err)
	}
	span.End(trace.WithTimestamp(now))
}

// Run makes Observer a distributed.Observer.
func (o *Observer) Run(ctx context.Context, run distributed.Run) (context.Context, func(error)) {
	role := RoleKey.String(run.Role.String())
	began := time.Now()
	ctx, span := o.tracer.Start(ctx, "fleetcall function", trace.WithAttributes(role))
	return ctx, func(err error) {
		record(ctx, o.function, time.Since(began), role, OutcomeKey.String(outcome.Of(err)))
		if span.IsRecording() {
			ended(span, err)
		}
		span.End()
	}
}

// Lease makes Observer a distributed.Observer.
func (o *Observer) Lease(distributed.Lease) {}

// Command makes Observer a distributed.Observer.
func (o *Observer) Command(command distributed.Command) {
	result := command.Kind
	if result == "" {
		result = outcome.OK
	}
	record(context.Background(), o.command, command.Took, StepKey.String(command.Step), ResultKey.String(result))
}

// Breaker makes Observer a distributed.Observer.
func (o *Observer) Breaker(_, to string) {
	o.breaker.Add(context.Background(), 1, with(attribute.String("to", to)))
}
