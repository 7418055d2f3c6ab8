// Package hot finds the keys that are asked for most at the moment, in memory
// that does not grow with the number of keys.
//
// It counts with the Space-Saving algorithm (Metwally, Agrawal and El Abbadi,
// "Efficient Computation of Frequent and Top-k Elements in Data Streams", 2005):
// a key that finds no counter free takes over the smallest, and notes how much
// of that count may be another's. The counters are divided into sets of eight,
// as in a processor's cache, so that a key is looked for among eight and not
// among all.
package hot

import (
	"cmp"
	"hash/maphash"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"time"
)

const (
	// stripes hold a sample of the requests each, so that no lock is shared by
	// all of them, also when all ask for one key.
	stripes = 8
	sets    = 64 // of a stripe
	ways    = 8  // counters of a set
	// spans is how many spans of time the window has. One more is kept: while one
	// fills, the window ends within the oldest.
	spans = 10
	kept  = spans + 1
)

// Keys counts requests by key over a sliding window. Make it with New; its
// methods may be called concurrently.
type Keys[K comparable] struct {
	seed    maphash.Seed
	begun   time.Time
	span    time.Duration
	stripes [stripes]stripe[K]
}

type stripe[K comparable] struct {
	mu     sync.Mutex
	number int64                        // of the span that fills
	spans  [kept][sets][ways]counter[K] // by their numbers' remainders
	_      [64]byte                     // keeps the next stripe's lock off this cache line
}

type counter[K comparable] struct {
	key   K
	count uint32 // zero: free
	over  uint32 // how much of count may be other keys'
}

// Count is a key and how many requests asked for it within the window.
type Count[K comparable] struct {
	Key      K
	Requests float64
}

// New returns a Keys whose window is the last so many seconds.
func New[K comparable](window time.Duration) *Keys[K] {
	return &Keys[K]{seed: maphash.MakeSeed(), begun: time.Now(), span: max(window/spans, 1)}
}

// Add counts a request for key at the moment now. It takes a fraction of a
// microsecond and allocates nothing.
func (k *Keys[K]) Add(key K, now time.Time) {
	set := maphash.Comparable(k.seed, key) % sets
	number := int64(now.Sub(k.begun) / k.span)
	s := &k.stripes[rand.Uint32()%stripes]
	s.mu.Lock()
	defer s.mu.Unlock()
	s.turn(number)
	counters := &s.spans[s.number%kept][set]
	least := &counters[0]
	for i := range counters {
		c := &counters[i]
		if c.count != 0 && c.key == key {
			c.count += min(1, math.MaxUint32-c.count)
			return
		}
		if c.count < least.count {
			least = c
		}
	}
	least.key, least.over = key, least.count
	least.count += min(1, math.MaxUint32-least.count)
}

// turn clears the spans that have left the window; mu is held. A request that
// was measured in the span before counts in the one that fills.
func (s *stripe[K]) turn(number int64) {
	for n := max(s.number, number-kept) + 1; n <= number; n++ {
		clear(s.spans[n%kept][:])
	}
	s.number = max(s.number, number)
}

// Top returns the n keys with the most requests within the window, the most
// first. The window ends within a span, whose requests are taken for spread
// evenly: how many of them are still in the window is an estimate. But for that, a
// key's count is never more than it had, as what a counter took over from another
// key is left out. A key that has more than an eighth of its set's requests in
// each span, one of some 500 of all, is not missed.
func (k *Keys[K]) Top(n int, now time.Time) []Count[K] {
	elapsed := now.Sub(k.begun)
	number := int64(elapsed / k.span)
	left := 1 - float64(elapsed%k.span)/float64(k.span) // of the oldest span
	sums := map[K]float64{}
	for i := range k.stripes {
		s := &k.stripes[i]
		s.mu.Lock()
		s.turn(number)
		oldest := (s.number + 1) % kept
		for span := range s.spans {
			weight := 1.0
			if int64(span) == oldest {
				weight = left
			}
			for set := range sets {
				for _, c := range s.spans[span][set][:] {
					if c.count > c.over {
						sums[c.key] += float64(c.count-c.over) * weight
					}
				}
			}
		}
		s.mu.Unlock()
	}
	top := make([]Count[K], 0, len(sums))
	for key, requests := range sums {
		if requests >= 0.5 { // what would be shown as none is none
			top = append(top, Count[K]{key, requests})
		}
	}
	slices.SortFunc(top, func(a, b Count[K]) int { return cmp.Compare(b.Requests, a.Requests) })
	return slices.Clip(top[:min(n, len(top))])
}
