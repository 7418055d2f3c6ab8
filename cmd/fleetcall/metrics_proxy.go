package main

import (
	"net/http"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
	semconv "go.opentelemetry.io/otel/semconv/v1.41.0"
	"go.opentelemetry.io/otel/trace"

	"github.com/fleetcall/fleetcall/api"
	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/coalescehttp"
	"github.com/fleetcall/fleetcall/internal/httpproxy"
)

// proxyMetrics are measured as a proxy answers requests.
type proxyMetrics struct{ requests *prometheus.HistogramVec }

func newProxyMetrics(registry *prometheus.Registry) proxyMetrics {
	m := proxyMetrics{prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name:    "fleetcall_proxy_request_duration_seconds",
		Help:    "How long clients waited for the header of an answer, by the path of the rule, the role and the class of the status; canceled: the client left.",
		Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60},
	}, []string{"rule", "role", "code"})}
	registry.MustRegister(m.requests)
	return m
}

// proxyCounts tells statistics and metrics what a proxy does.
type proxyCounts struct {
	upstream *api.Upstream
	metrics  proxyMetrics
}

// maxHotKey is how much of a request's address is shown among the hottest.
const maxHotKey = 200

// Begin makes proxyCounts the proxy's Counts.
func (c *proxyCounts) Begin(r *http.Request) func(httpproxy.Exchange) {
	end := c.upstream.Begin()
	return func(e httpproxy.Exchange) {
		end(api.Exchange{
			Key: hotKey(r), Role: roleOf(e.Decision.Role), Reason: string(e.Decision.Reason),
			Asked: e.Asked, Failed: e.Failed, Left: e.Left, Took: e.Took,
		})
		if span := trace.SpanFromContext(r.Context()); span.IsRecording() {
			span.SetName(r.Method + " " + e.Rule)
			span.SetAttributes(semconv.HTTPRoute(e.Rule))
		}
		code := canceled
		if e.Status != 0 {
			code = strconv.Itoa(e.Status/100) + "xx"
		}
		role := e.Decision.Role
		if role == "" {
			role = coalesce.Role(0).String()
		}
		c.metrics.requests.WithLabelValues(e.Rule, role, code).Observe(e.Took.Seconds())
	}
}

// Asking makes proxyCounts the proxy's Counts.
func (c *proxyCounts) Asking() func(failure string) { return c.upstream.Asking() }

// Cut makes proxyCounts the proxy's Counts.
func (c *proxyCounts) Cut(failure string) { c.upstream.Cut(failure) }

// hotKey is a request's method, host and path. The query, which may have secrets, is left
// out, and so are the keys that differ only by it taken together.
func hotKey(r *http.Request) string {
	key := r.Method + " " + r.Host + r.URL.EscapedPath()
	if len(key) > maxHotKey {
		key = key[:maxHotKey] + "…"
	}
	return key
}

// roleOf returns the role of that name; zero for "alone".
func roleOf(name string) coalesce.Role {
	for role := coalesce.Leader; role <= coalesce.Cached; role++ {
		if role.String() == name {
			return role
		}
	}
	return 0
}

// upstreamTotals is the collector of what a proxy asked its upstream. It is given the counts
// since the start.
type upstreamTotals func() api.UpstreamStats

var (
	upstreamRequests = prometheus.NewDesc("fleetcall_upstream_requests_total", "Requests sent to the upstream, merged or alone.", nil, nil)
	upstreamErrors   = prometheus.NewDesc("fleetcall_upstream_errors_total", "Requests to the upstream that got no whole answer, by kind: unreachable, timeout, broken, garbage or cut.", []string{"kind"}, nil)
	upstreamWaiting  = prometheus.NewDesc("fleetcall_upstream_waiting", "Requests to the upstream without a header of an answer yet.", nil, nil)
	proxyAlone       = prometheus.NewDesc("fleetcall_proxy_alone_total", "Requests of clients that were not merged with others, by reason.", []string{"reason"}, nil)
)

// Describe makes upstreamTotals a prometheus.Collector.
func (upstreamTotals) Describe(descs chan<- *prometheus.Desc) {
	for _, desc := range []*prometheus.Desc{upstreamRequests, upstreamErrors, upstreamWaiting, proxyAlone} {
		descs <- desc
	}
}

// Collect makes upstreamTotals a prometheus.Collector.
func (u upstreamTotals) Collect(metrics chan<- prometheus.Metric) {
	counter := func(desc *prometheus.Desc, n uint64, labels ...string) {
		metrics <- prometheus.MustNewConstMetric(desc, prometheus.CounterValue, float64(n), labels...)
	}
	st := u()
	counter(upstreamRequests, st.Requests)
	// The first increment of a series that was not there is invisible to rate.
	for _, kind := range httpproxy.Failures() {
		counter(upstreamErrors, st.ErrorsBy[kind], kind)
	}
	metrics <- prometheus.MustNewConstMetric(upstreamWaiting, prometheus.GaugeValue, float64(st.Waiting))
	for _, reason := range coalescehttp.Reasons() {
		counter(proxyAlone, st.AloneBy[string(reason)], string(reason))
	}
}
