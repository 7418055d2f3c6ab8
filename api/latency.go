package api

import (
	"math/bits"
	"sync/atomic"
	"time"

	"github.com/fleetcall/fleetcall/coalesce"
)

const (
	// latencyParts is how many buckets an octave of microseconds has: a
	// latency is known to an eighth of itself.
	latencyParts   = 8
	latencyPartLog = 3
	// latencyBuckets are enough for 134 seconds; what takes longer is in the
	// last.
	latencyBuckets = latencyParts * 25
)

// latencies counts how long requests took: those of the coalesced endpoint by
// the role they had, and those of the normal one. Nothing is locked.
type latencies struct {
	roles  [coalesce.Cached + 1]histogram
	normal histogram
}

// normalRequests is the name of the normal endpoint's requests among the roles.
const normalRequests = "normal"

// histogram counts durations in buckets whose width grows with the duration.
type histogram struct {
	counts [latencyBuckets]atomic.Uint64
}

func (h *histogram) add(d time.Duration) { h.counts[bucketOf(d)].Add(1) }

func bucketOf(d time.Duration) int {
	us := uint64(max(d.Microseconds(), 0))
	if us < latencyParts {
		return int(us)
	}
	octave := bits.Len64(us) - 1 - latencyPartLog // from 0
	part := int(us>>octave) - latencyParts
	return min((octave+1)*latencyParts+part, latencyBuckets-1)
}

// bucketStart returns where a bucket begins, in microseconds.
func bucketStart(bucket int) int64 {
	if bucket < latencyParts {
		return int64(bucket)
	}
	return int64(bucket%latencyParts+latencyParts) << (bucket/latencyParts - 1)
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

// LatencyBucket is how many requests took how long.
type LatencyBucket struct {
	FromMS float64 `json:"from_ms"`
	ToMS   float64 `json:"to_ms"` // and no longer than this; the last one's have no limit
	Count  uint64  `json:"count"`
}

// byRole returns the buckets that are not empty, of the roles that were seen.
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
