package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/exaring/otelpgx"
	"github.com/jackc/pgx/v5"
	"github.com/redis/go-redis/extra/redisotel/v9"
	"github.com/redis/go-redis/v9"
	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	metricnoop "go.opentelemetry.io/otel/metric/noop"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	semconv "go.opentelemetry.io/otel/semconv/v1.41.0"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/embedded"
	tracenoop "go.opentelemetry.io/otel/trace/noop"

	"github.com/fleetcall/fleetcall/api"
	"github.com/fleetcall/fleetcall/coalesce/coalesceotel"
)

// traces sends spans to an OTLP collector. It exists only when one is
// configured.
type traces struct {
	provider *sdktrace.TracerProvider
	log      *slog.Logger
}

// collectorPause is how long it is not logged again that the collector cannot be reached.
const collectorPause = time.Minute

// newTraces returns nil unless the standard variables name an OTLP endpoint.
// They also set the rest: headers, certificates, sampler, batches, the
// resource's attributes.
func newTraces(ctx context.Context, replica string, log *slog.Logger) (*traces, error) {
	wanted := os.Getenv("OTEL_EXPORTER_OTLP_ENDPOINT") != "" || os.Getenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") != ""
	if !wanted || strings.EqualFold(os.Getenv("OTEL_SDK_DISABLED"), "true") || os.Getenv("OTEL_TRACES_EXPORTER") == "none" {
		return nil, nil
	}
	for _, name := range []string{"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"} {
		if protocol := os.Getenv(name); protocol != "" {
			if protocol != "http/protobuf" {
				return nil, fmt.Errorf("fleetcall: %s: %q is not http/protobuf, which is what spans are sent by", name, protocol)
			}
			break
		}
	}
	exporter, err := otlptracehttp.New(ctx)
	if err != nil {
		return nil, fmt.Errorf("fleetcall: preparing to export traces (OTEL_EXPORTER_OTLP_…): %w", err)
	}
	return newTracesTo(ctx, exporter, replica, log)
}

// newTracesTo sends spans to exporter.
func newTracesTo(ctx context.Context, exporter sdktrace.SpanExporter, replica string, log *slog.Logger) (*traces, error) {
	described, err := resource.New(ctx,
		resource.WithTelemetrySDK(),
		resource.WithAttributes(semconv.ServiceName("fleetcall"), semconv.ServiceVersion(buildVersion()), semconv.ServiceInstanceID(replica)),
		resource.WithFromEnv(), // last: it wins
	)
	if err != nil {
		return nil, fmt.Errorf("fleetcall: describing this replica in traces (OTEL_RESOURCE_ATTRIBUTES): %w", err)
	}
	return &traces{
		log: log,
		provider: sdktrace.NewTracerProvider(
			sdktrace.WithResource(described),
			sdktrace.WithBatcher(&quietExporter{SpanExporter: exporter, log: log}),
		),
	}, nil
}

// close sends the spans that are left, until ctx ends. It is no failure of the replica
// when the collector cannot be reached.
func (t *traces) close(ctx context.Context) {
	if err := t.provider.Shutdown(ctx); err != nil {
		t.log.Warn("stopped with traces that were not exported", "error", err)
	}
}

// hook makes spans of flights.
func (t *traces) hook() (*coalesceotel.Hook, error) {
	return coalesceotel.NewHook(coalesceotel.WithTracerProvider(t.provider), coalesceotel.WithMeterProvider(metricnoop.NewMeterProvider()))
}

// around makes a span of each request, a child of the client's if that sent a
// traceparent. Probes, the scraper and streams are left out.
func (t *traces) around(handler http.Handler) http.Handler {
	return otelhttp.NewHandler(handler, "request", append(t.options(), otelhttp.WithFilter(func(r *http.Request) bool {
		switch r.URL.Path {
		case "/metrics", "/livez", "/readyz", "/health", "/events":
			return false
		}
		return true
	}))...)
}

// aroundAll is around for the clients of a proxy, whose paths are the upstream's.
func (t *traces) aroundAll(handler http.Handler) http.Handler {
	return otelhttp.NewHandler(handler, "proxy", t.options()...)
}

// transport makes a span of each request to the upstream, and hands the trace on to it.
func (t *traces) transport(next http.RoundTripper) http.RoundTripper {
	return otelhttp.NewTransport(next, t.options()...)
}

func (t *traces) options() []otelhttp.Option {
	return []otelhttp.Option{
		otelhttp.WithTracerProvider(t.provider),
		otelhttp.WithMeterProvider(metricnoop.NewMeterProvider()),
		otelhttp.WithPropagators(propagation.TraceContext{}),
	}
}

// requested names a request's span after its route, which is known only now.
func (t *traces) requested(r api.Request) {
	span := trace.SpanFromContext(r.Context)
	if !span.IsRecording() {
		return
	}
	if r.Status == 0 {
		// otelhttp takes it for a 200.
		span.SetAttributes(semconv.ErrorTypeKey.String("canceled"))
	}
	if r.Route == "" {
		span.SetName(r.Method)
		return
	}
	span.SetName(r.Method + " " + r.Route)
	span.SetAttributes(semconv.HTTPRoute(r.Route))
}

// database makes spans of queries. Their text has no values: those are
// parameters.
func (t *traces) database() pgx.QueryTracer {
	return otelpgx.NewTracer(otelpgx.WithTracerProvider(t.provider), otelpgx.WithMeterProvider(metricnoop.NewMeterProvider()))
}

// redis makes spans of commands that belong to a request, without their
// arguments.
func (t *traces) redis(client redis.UniversalClient) error {
	err := redisotel.InstrumentTracing(client, redisotel.WithTracerProvider(childrenOnly{of: t.provider}),
		redisotel.WithDBStatement(false), redisotel.WithCallerEnabled(false))
	if err != nil {
		return fmt.Errorf("fleetcall: tracing Redis: %w", err)
	}
	return nil
}

// childrenOnly makes no span that would begin a trace: the commands that a replica sends
// to Redis in the background belong to no request.
type childrenOnly struct {
	embedded.TracerProvider
	of trace.TracerProvider
}

// Tracer makes childrenOnly a trace.TracerProvider.
func (p childrenOnly) Tracer(name string, opts ...trace.TracerOption) trace.Tracer {
	return childTracer{tracer: p.of.Tracer(name, opts...)}
}

type childTracer struct {
	embedded.Tracer
	tracer trace.Tracer
}

// Start makes childTracer a trace.Tracer.
func (t childTracer) Start(ctx context.Context, name string, opts ...trace.SpanStartOption) (context.Context, trace.Span) {
	if !trace.SpanContextFromContext(ctx).IsValid() {
		return ctx, tracenoop.Span{}
	}
	return t.tracer.Start(ctx, name, opts...)
}

// quietExporter logs what cannot be exported at most once a minute.
type quietExporter struct {
	sdktrace.SpanExporter
	log *slog.Logger

	mu   sync.Mutex
	last time.Time // of the last line; guarded by mu
}

// ExportSpans makes quietExporter a span exporter that does not fail.
func (e *quietExporter) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	err := e.SpanExporter.ExportSpans(ctx, spans)
	if err == nil || errors.Is(err, context.Canceled) {
		return nil
	}
	e.mu.Lock()
	news := e.last.IsZero() || time.Since(e.last) >= collectorPause
	if news {
		e.last = time.Now()
	}
	e.mu.Unlock()
	if news {
		e.log.Warn("traces cannot be exported, and are dropped", "error", err, "spans", len(spans))
	}
	return nil
}

// traceLog adds the trace to what is logged on behalf of a request.
type traceLog struct{ slog.Handler }

// Handle makes traceLog a slog.Handler.
func (h traceLog) Handle(ctx context.Context, record slog.Record) error {
	if span := trace.SpanContextFromContext(ctx); span.IsValid() {
		record.AddAttrs(slog.String("trace_id", span.TraceID().String()), slog.String("span_id", span.SpanID().String()))
	}
	return h.Handler.Handle(ctx, record)
}

// WithAttrs makes traceLog a slog.Handler.
func (h traceLog) WithAttrs(attrs []slog.Attr) slog.Handler {
	return traceLog{h.Handler.WithAttrs(attrs)}
}

// WithGroup makes traceLog a slog.Handler.
func (h traceLog) WithGroup(name string) slog.Handler { return traceLog{h.Handler.WithGroup(name)} }
