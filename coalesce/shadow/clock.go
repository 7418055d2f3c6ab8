package shadow

import (
	"cmp"
	"slices"
	"sync"
	"time"
)

// clock tells Redis' time. It believes the reply that was on its way for the shortest
// time, of the last ones.
type clock struct {
	mu     sync.Mutex
	last   [16]sample
	n      int
	offset int64         // Redis' time when the Fleet was opened, in µs since 1970
	trip   time.Duration // the median
}

type sample struct {
	offset int64
	trip   time.Duration
}

// told notes that Redis told the time between sent and received, which are times since the
// Fleet was opened.
func (c *clock) told(redis int64, sent, received time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last[c.n%len(c.last)] = sample{redis - ((sent + received) / 2).Microseconds(), received - sent}
	c.n++
	known := slices.Clone(c.last[:min(c.n, len(c.last))])
	slices.SortFunc(known, func(a, b sample) int { return cmp.Compare(a.trip, b.trip) })
	c.offset, c.trip = known[0].offset, known[len(known)/2].trip
}

// read returns the clock's offset and how long a round trip takes, and whether they are
// known.
func (c *clock) read() (offset int64, trip time.Duration, known bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.offset, c.trip, c.n > 0
}
