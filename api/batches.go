package api

import (
	"math"
	"sync/atomic"
)

// BatchStats says what coalescing did for requests for many products. Counts are since
// the start or the last reset.
type BatchStats struct {
	Requests     uint64  `json:"requests"`       // for many products
	Keys         uint64  `json:"keys"`           // products that they asked for, each once a request
	Queries      uint64  `json:"queries"`        // that they sent
	QueriedKeys  uint64  `json:"queried_keys"`   // products that these queries asked for
	KeysPerQuery float64 `json:"keys_per_query"` // queried keys divided by queries
	KeysSaved    uint64  `json:"keys_saved"`     // products that they got from others' queries
	Errors       uint64  `json:"errors"`         // requests that failed
}

func (b *BatchStats) add(other BatchStats) {
	b.Requests += other.Requests
	b.Keys += other.Keys
	b.Queries += other.Queries
	b.QueriedKeys += other.QueriedKeys
	b.KeysSaved += other.KeysSaved
	b.Errors += other.Errors
}

func (b BatchStats) since(before BatchStats) BatchStats {
	b.Requests -= before.Requests
	b.Keys -= before.Keys
	b.Queries -= before.Queries
	b.QueriedKeys -= before.QueriedKeys
	b.KeysSaved -= before.KeysSaved
	b.Errors -= before.Errors
	return b
}

// setKeysPerQuery rounds to one decimal.
func (b *BatchStats) setKeysPerQuery() {
	b.KeysPerQuery = 0
	if b.Queries > 0 {
		b.KeysPerQuery = math.Round(float64(b.QueriedKeys)/float64(b.Queries)*10) / 10
	}
}

// batchCounts counts requests for many products. Its counts never go down: a reset notes
// what they were.
type batchCounts struct {
	requests, keys, queries, queriedKeys, saved, errors atomic.Uint64
	before                                              atomic.Pointer[BatchStats]
}

func (b *batchCounts) totals() BatchStats {
	return BatchStats{
		Requests: b.requests.Load(), Keys: b.keys.Load(), Queries: b.queries.Load(),
		QueriedKeys: b.queriedKeys.Load(), KeysSaved: b.saved.Load(), Errors: b.errors.Load(),
	}
}

func (b *batchCounts) stats() BatchStats {
	before := b.before.Load() // first, so that no difference is negative
	st := b.totals()
	if before != nil {
		st = st.since(*before)
	}
	return st
}

func (b *batchCounts) reset() {
	totals := b.totals()
	b.before.Store(&totals)
}

// BatchTotals returns the counts since the start, whatever was reset: for counters that
// must not go down, such as those of Prometheus.
func (s *Server) BatchTotals() BatchStats {
	totals := s.batches.totals()
	totals.setKeysPerQuery()
	return totals
}
