package api

import (
	"context"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/internal/hot"
)

// Upstream counts what a proxy does with the requests of its clients and with its
// upstream, for the Server that tells about it. Its methods may be called concurrently.
type Upstream struct {
	ping     func(context.Context) error
	address  string
	counts   counts
	latency  latencies
	hot      *hot.Keys[string]
	requests atomic.Uint64
	waiting  atomic.Int64
	failures countsBy
	alone    countsBy

	mu     sync.Mutex
	before UpstreamStats // the totals at the last reset; guarded by mu
}

// NewUpstream returns an Upstream without counts. address is what is shown of the
// upstream, and ping checks whether it takes connections.
func NewUpstream(address string, ping func(context.Context) error) *Upstream {
	return &Upstream{ping: ping, address: address, hot: hot.New[string](hotWindow)}
}

// UpstreamStats describes what a proxy asked its upstream. Counts are since the start or
// the last reset.
type UpstreamStats struct {
	Address  string            `json:"address,omitempty"`   // absent of a fleet, where each replica has its own
	Requests uint64            `json:"requests"`            // sent to the upstream, merged or alone
	Errors   uint64            `json:"errors"`              // that got no whole answer
	ErrorsBy map[string]uint64 `json:"errors_by,omitempty"` // by kind
	Waiting  int64             `json:"waiting"`             // without a header of an answer yet
	Alone    uint64            `json:"alone"`               // requests of clients that were not merged with others
	AloneBy  map[string]uint64 `json:"alone_by,omitempty"`  // by reason
}

// Exchange is a request of a client that a proxy has answered.
type Exchange struct {
	Key    string        // for the list of the hottest
	Role   coalesce.Role // zero: alone, or ended before it had a role
	Reason string        // why it was alone; empty: it was not
	Asked  bool          // it was sent to the upstream
	Failed bool          // it was answered with an error of the proxy's own, or cut
	Left   bool          // the client left before the end
	Took   time.Duration // until the header of the answer was there
}

// Begin counts a request as under way. The function that it returns must be called once,
// when the request has ended.
func (u *Upstream) Begin() (end func(Exchange)) {
	u.counts.active.Add(1)
	return u.end
}

func (u *Upstream) end(e Exchange) {
	u.counts.active.Add(-1)
	u.hot.Add(e.Key, time.Now())
	if e.Reason != "" {
		u.alone.add(e.Reason)
		u.latency.normal.add(e.Took)
		return
	}
	u.counts.total.Add(1)
	u.latency.add(e.Role, e.Took)
	switch {
	case e.Asked:
		u.counts.misses.Add(1)
	case !e.Failed && !e.Left:
		u.counts.hits.Add(1)
	}
	if e.Failed && !e.Left { // a client that has left sees no error
		u.counts.errors.Add(1)
	}
}

// Asking counts a request to the upstream. The function that it returns must be called
// once, when the header of the answer is there, or with the kind of the failure.
func (u *Upstream) Asking() (answered func(failure string)) {
	u.requests.Add(1)
	u.waiting.Add(1)
	return func(failure string) {
		u.waiting.Add(-1)
		if failure != "" {
			u.failures.add(failure)
		}
	}
}

// Cut counts an answer of the upstream that broke off.
func (u *Upstream) Cut(failure string) { u.failures.add(failure) }

// Totals returns the counts since the start, whatever was reset: for counters that must
// not go down, such as those of Prometheus.
func (u *Upstream) Totals() UpstreamStats {
	st := UpstreamStats{Address: u.address, Requests: u.requests.Load(), Waiting: u.waiting.Load()}
	st.Errors, st.ErrorsBy = u.failures.load()
	st.Alone, st.AloneBy = u.alone.load()
	return st
}

func (u *Upstream) stats() *UpstreamStats {
	u.mu.Lock()
	before := u.before
	u.mu.Unlock()
	st := u.Totals()
	st.Requests -= before.Requests
	st.Errors -= before.Errors
	st.Alone -= before.Alone
	st.ErrorsBy = without(st.ErrorsBy, before.ErrorsBy)
	st.AloneBy = without(st.AloneBy, before.AloneBy)
	return &st
}

func (u *Upstream) reset() {
	u.mu.Lock()
	u.before = u.Totals()
	u.mu.Unlock()
	u.latency.reset()
}

func (sum *UpstreamStats) add(other UpstreamStats) {
	sum.Requests += other.Requests
	sum.Errors += other.Errors
	sum.Waiting += other.Waiting
	sum.Alone += other.Alone
	sum.ErrorsBy = plus(sum.ErrorsBy, other.ErrorsBy)
	sum.AloneBy = plus(sum.AloneBy, other.AloneBy)
}

func plus(sum, other map[string]uint64) map[string]uint64 {
	if sum == nil && len(other) > 0 {
		sum = map[string]uint64{}
	}
	for name, n := range other {
		sum[name] += n
	}
	return sum
}

// without takes away what was counted before, and leaves out what nothing is left of.
func without(now, before map[string]uint64) map[string]uint64 {
	for name, n := range before {
		now[name] -= n
	}
	maps.DeleteFunc(now, func(_ string, n uint64) bool { return n == 0 })
	return now
}

// countsBy counts by a word. The words must be few.
type countsBy struct{ counts sync.Map } // of *atomic.Uint64 by word

func (c *countsBy) add(word string) {
	n, ok := c.counts.Load(word)
	if !ok {
		n, _ = c.counts.LoadOrStore(word, new(atomic.Uint64))
	}
	n.(*atomic.Uint64).Add(1)
}

func (c *countsBy) load() (sum uint64, by map[string]uint64) {
	by = map[string]uint64{}
	c.counts.Range(func(word, n any) bool {
		by[word.(string)] = n.(*atomic.Uint64).Load()
		sum += by[word.(string)]
		return true
	})
	return sum, by
}
