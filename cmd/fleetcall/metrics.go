package main

import (
	"net/http"
	"runtime"
	"strconv"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/fleetcall/fleetcall/api"
	"github.com/fleetcall/fleetcall/coalesce/coalesceprom"
)

// metrics is what /metrics shows: a registry, and the metrics that are measured as
// requests and calls happen.
type metrics struct {
	registry *prometheus.Registry
	calls    *coalesceprom.Hook
	requests *prometheus.HistogramVec
}

// noRoute is the route of requests for paths that do not exist. The paths themselves would
// make a series each, without a limit.
const noRoute = "none"

// canceled is the class of a request whose client left before there was a status.
const canceled = "canceled"

func newMetrics(replica, mode string, kind kind) *metrics {
	m := &metrics{
		registry: prometheus.NewRegistry(),
		calls:    coalesceprom.NewLocalHook(kind.group),
		requests: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "fleetcall_http_request_duration_seconds",
			Help:    "How long requests took, by the pattern of their path and the class of their status; canceled: the client left.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60},
		}, []string{"route", "code"}),
	}
	if mode == modeDistributed {
		m.calls = coalesceprom.NewHook(kind.group)
	}
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "fleetcall_build_info", Help: "1; the labels say what was built, and with what.",
		ConstLabels: prometheus.Labels{"version": buildVersion(), "goversion": runtime.Version()},
	})
	info := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "fleetcall_replica_info", Help: "1; the labels are the replica's id, and how it coalesces: off, shadow, local or distributed.",
		ConstLabels: prometheus.Labels{"replica": replica, "mode": mode},
	})
	build.Set(1)
	info.Set(1)
	m.registry.MustRegister(m.calls, m.requests, build, info,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	// The first increment of a series that was not there is invisible to rate.
	for _, route := range kind.routes {
		for _, code := range []string{"2xx", "4xx", "5xx", canceled} {
			m.requests.WithLabelValues(route, code)
		}
	}
	return m
}

// handler answers /metrics.
func (m *metrics) handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{})
}

// requested measures a request. It leaves out probes and scrapes, which would hide what
// clients see, and streams, which last as long as a client watches.
func (m *metrics) requested(r api.Request) {
	switch r.Route {
	case "/metrics", "/livez", "/readyz", "/health", "/events":
		return
	case "":
		r.Route = noRoute
	}
	code := canceled
	if r.Status != 0 {
		code = strconv.Itoa(r.Status/100) + "xx"
	}
	m.requests.WithLabelValues(r.Route, code).Observe(r.Took.Seconds())
}

// database is the collector of a store's metrics.
type database struct {
	store store
	pool  func() *pgxpool.Stat // nil: not PostgreSQL
}

// databaseOf returns the collector of a store. A store with a pool of pgx has more metrics.
func databaseOf(s store) database {
	d := database{store: s}
	if pgx, ok := s.(interface{ Pool() *pgxpool.Stat }); ok {
		d.pool = pgx.Pool
	}
	return d
}

func databaseDesc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("fleetcall_database_"+name, help, labels, nil)
}

var (
	databaseQueries     = databaseDesc("queries_total", "Queries sent to the database, by all product endpoints.")
	databaseErrors      = databaseDesc("query_errors_total", "Queries that failed, by stage: connection (they never got one, and were not sent) or query.", "stage")
	databaseConnections = databaseDesc("connections", "Connections of the pool, by state.", "state")
	databaseMax         = databaseDesc("connections_max", "Connections that the pool may have.")

	poolAcquires     = databaseDesc("pool_acquires_total", "Connections that were taken from the pool.")
	poolWaits        = databaseDesc("pool_empty_acquires_total", "Connections that had to be waited for, because none was idle.")
	poolWaited       = databaseDesc("pool_empty_acquire_wait_seconds_total", "How long they were waited for.")
	poolCanceled     = databaseDesc("pool_canceled_acquires_total", "Connections that were waited for in vain.")
	poolNew          = databaseDesc("pool_new_connections_total", "Connections that were made.")
	poolConstructing = databaseDesc("pool_constructing_connections", "Connections that are being made.")
)

// Describe makes database a prometheus.Collector.
func (d database) Describe(descs chan<- *prometheus.Desc) {
	for _, desc := range []*prometheus.Desc{databaseQueries, databaseErrors, databaseConnections, databaseMax} {
		descs <- desc
	}
	if d.pool == nil {
		return
	}
	for _, desc := range []*prometheus.Desc{poolAcquires, poolWaits, poolWaited, poolCanceled, poolNew, poolConstructing} {
		descs <- desc
	}
}

// Collect makes database a prometheus.Collector.
func (d database) Collect(metrics chan<- prometheus.Metric) {
	counter := func(desc *prometheus.Desc, n float64, labels ...string) {
		metrics <- prometheus.MustNewConstMetric(desc, prometheus.CounterValue, n, labels...)
	}
	gauge := func(desc *prometheus.Desc, n int, labels ...string) {
		metrics <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, float64(n), labels...)
	}
	total := d.store.Totals()
	counter(databaseQueries, float64(total.Queries))
	counter(databaseErrors, float64(total.Unsent), "connection")
	counter(databaseErrors, float64(total.Failed), "query")
	st := d.store.Stats()
	gauge(databaseConnections, st.InUse, "in_use")
	gauge(databaseConnections, st.Idle, "idle")
	gauge(databaseMax, st.Max)
	if d.pool == nil {
		return
	}
	pool := d.pool()
	counter(poolAcquires, float64(pool.AcquireCount()))
	counter(poolWaits, float64(pool.EmptyAcquireCount()))
	counter(poolWaited, pool.EmptyAcquireWaitTime().Seconds())
	counter(poolCanceled, float64(pool.CanceledAcquireCount()))
	counter(poolNew, float64(pool.NewConnsCount()))
	gauge(poolConstructing, int(pool.ConstructingConns()))
}
