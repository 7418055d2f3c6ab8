package main

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/fleetcall/fleetcall/api"
)

// batches is the collector of what coalescing did for requests for many products. It is
// given the counts since the start.
type batches func() api.BatchStats

func batchDesc(name, help string) *prometheus.Desc {
	return prometheus.NewDesc("fleetcall_http_batch_"+name, help, nil, nil)
}

var (
	batchRequests    = batchDesc("requests_total", "Requests for many products.")
	batchErrors      = batchDesc("request_errors_total", "Requests for many products that failed.")
	batchKeys        = batchDesc("keys_total", "Products that requests for many asked for, each once a request.")
	batchQueries     = batchDesc("queries_total", "Queries that requests for many sent.")
	batchQueriedKeys = batchDesc("queried_keys_total", "Products that these queries asked for: divided by the queries, the keys per call.")
	batchKeysSaved   = batchDesc("keys_saved_total", "Products that requests for many got from others' queries.")
)

// Describe makes batches a prometheus.Collector.
func (batches) Describe(descs chan<- *prometheus.Desc) {
	for _, desc := range []*prometheus.Desc{batchRequests, batchErrors, batchKeys, batchQueries, batchQueriedKeys, batchKeysSaved} {
		descs <- desc
	}
}

// Collect makes batches a prometheus.Collector.
func (b batches) Collect(metrics chan<- prometheus.Metric) {
	counter := func(desc *prometheus.Desc, n uint64) {
		metrics <- prometheus.MustNewConstMetric(desc, prometheus.CounterValue, float64(n))
	}
	st := b()
	counter(batchRequests, st.Requests)
	counter(batchErrors, st.Errors)
	counter(batchKeys, st.Keys)
	counter(batchQueries, st.Queries)
	counter(batchQueriedKeys, st.QueriedKeys)
	counter(batchKeysSaved, st.KeysSaved)
}
