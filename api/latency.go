package api

import (
	"math/bits"
	"sync/atomic"
	"time"

	"github.com/fleetcall/fleetcall/coalesce"
)

const (
	// subBuckets is the number of buckets for each octave, that is, for each power of
	// two of microseconds. A bucket is at most an eighth as wide as the latencies in
	// it.
	subBuckets    = 8
	subBucketBits = 3
	// latencyBuckets cover latencies up to 134 seconds. The last bucket also counts all
	// longer ones.
	latencyBuckets = subBuckets * 25
)

// latencies has a histogram for each role of the coalesced endpoint's requests, and one
// for the normal endpoint. It takes no lock: each count is an atomic of its own.
type latencies struct {
	roles  [coalesce.Cached + 1]histogram
	normal histogram
}

// normalRequests is the key of the normal endpoint's histogram, beside the names of the
// roles.
const normalRequests = "normal"

// histogram counts durations in buckets that grow with the duration, so that the
// relative error stays the same.
type histogram struct {
	counts [latencyBuckets]atomic.Uint64
}

func (h *histogram) add(d time.Duration) { h.counts[bucketOf(d)].Add(1) }

func bucketOf(d time.Duration) int {
	us := uint64(max(d.Microseconds(), 0))
	if us < subBuckets {
		return int(us)
	}
	octave := bits.Len64(us) - 1 - subBucketBits // 0 for the first octave
	part := int(us>>octave) - subBuckets
	return min((octave+1)*subBuckets+part, latencyBuckets-1)
}

// bucketStart returns the lower bound of a bucket in microseconds.
func bucketStart(bucket int) int64 {
	if bucket < subBuckets {
		return int64(bucket)
	}
	return int64(bucket%subBuckets+subBuckets) << (bucket/subBuckets - 1)
}

// add counts a request of the coalesced endpoint.
func (l *latencies) add(role coalesce.Role, d time.Duration) {
	if int(role) < len(l.roles) {
		l.roles[role].add(d)
	}
}

func (l *latencies) reset() {
	for i := range l.roles {
		l.roles[i].reset()
	}
	l.normal.reset()
}

func (h *histogram) reset() {
	for i := range h.counts {
		h.counts[i].Store(0)
	}
}

// LatencyBucket is the number of requests whose latency is between two bounds.
type LatencyBucket struct {
	FromMS float64 `json:"from_ms"`
	ToMS   float64 `json:"to_ms"` // excluded; the last bucket has no upper bound in fact
	Count  uint64  `json:"count"`
}

// byRole returns the buckets with a count above zero, for each role that occurred.
func (l *latencies) byRole() map[string][]LatencyBucket {
	all := map[string][]LatencyBucket{}
	for role := range l.roles {
		if buckets := l.roles[role].buckets(); buckets != nil {
			all[coalesce.Role(role).String()] = buckets
		}
	}
	if buckets := l.normal.buckets(); buckets != nil {
		all[normalRequests] = buckets
	}
	return all
}

func (h *histogram) buckets() []LatencyBucket {
	var filled []LatencyBucket
	for i := range h.counts {
		if n := h.counts[i].Load(); n != 0 {
			filled = append(filled, LatencyBucket{float64(bucketStart(i)) / 1000, float64(bucketStart(i+1)) / 1000, n})
		}
	}
	return filled
}
