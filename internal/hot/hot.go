// Package hot finds the keys with the most requests in a sliding window of time, with
// memory that does not grow with the number of keys.
//
// It counts with the Space-Saving algorithm (Metwally, Agrawal and El Abbadi,
// "Efficient Computation of Frequent and Top-k Elements in Data Streams", 2005): a key
// that finds no free counter takes over the smallest one, and records how much of the
// count may belong to other keys. The counters form sets of eight, as in a
// set-associative processor cache, so that finding a key's counter takes eight
// comparisons.
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
	// stripes is the number of parts with a lock of their own. Each request is counted
	// in a random one, so that requests seldom wait for each other, even if all are for
	// one key.
	stripes = 8
	sets    = 64 // in each slot of a stripe
	ways    = 8  // counters in a set
	// slots is the number of slots of time in the window. One more is kept: while the
	// newest slot fills, the window ends within the oldest.
	slots     = 10
	keptSlots = slots + 1
)

// Keys counts requests by key over a sliding window. Create it with New. Its methods
// may be called concurrently.
type Keys[K comparable] struct {
	seed       maphash.Seed
	begun      time.Time
	slotLength time.Duration
	stripes    [stripes]stripe[K]
}

type stripe[K comparable] struct {
	mu     sync.Mutex
	newest int64                             // the number of the slot that fills now
	slots  [keptSlots][sets][ways]counter[K] // a slot's index is its number modulo keptSlots
	_      [64]byte                          // puts the next stripe's lock on another cache line
}

type counter[K comparable] struct {
	key          K
	count        uint32 // 0: the counter is free
	overestimate uint32 // how much of count may belong to other keys
}

// Count is a key and the number of its requests within the window.
type Count[K comparable] struct {
	Key      K
	Requests float64
}

// New returns a Keys that counts over a window of this length.
func New[K comparable](window time.Duration) *Keys[K] {
	return &Keys[K]{seed: maphash.MakeSeed(), begun: time.Now(), slotLength: max(window/slots, 1)}
}

// Add counts a request for key at the time now. It takes less than a microsecond and
// allocates nothing.
func (k *Keys[K]) Add(key K, now time.Time) {
	set := maphash.Comparable(k.seed, key) % sets
	current := int64(now.Sub(k.begun) / k.slotLength)
	s := &k.stripes[rand.Uint32()%stripes]
	s.mu.Lock()
	defer s.mu.Unlock()
	s.advance(current)
	counters := &s.slots[s.newest%keptSlots][set]
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
	least.key, least.overestimate = key, least.count
	least.count += min(1, math.MaxUint32-least.count)
}

// advance clears the slots that have left the window. The caller holds mu. A caller
// whose time is in an earlier slot still counts in the newest one.
func (s *stripe[K]) advance(current int64) {
	for n := max(s.newest, current-keptSlots) + 1; n <= current; n++ {
		clear(s.slots[n%keptSlots][:])
	}
	s.newest = max(s.newest, current)
}

// Top returns the n keys with the most requests within the window, in descending order.
//
// The window ends within the oldest slot, whose requests are assumed to be spread
// evenly over it, so that part is an estimate. Apart from that, a key's count is never
// too high, because counts taken over from other keys are left out. No key is missed
// that has more than an eighth of its set's requests in each slot, which is about one
// of 500 of all requests.
func (k *Keys[K]) Top(n int, now time.Time) []Count[K] {
	elapsed := now.Sub(k.begun)
	current := int64(elapsed / k.slotLength)
	left := 1 - float64(elapsed%k.slotLength)/float64(k.slotLength) // the part of the oldest slot that is still in the window
	sums := map[K]float64{}
	for i := range k.stripes {
		s := &k.stripes[i]
		s.mu.Lock()
		s.advance(current)
		oldest := (s.newest + 1) % keptSlots
		for slot := range s.slots {
			weight := 1.0
			if int64(slot) == oldest {
				weight = left
			}
			for set := range sets {
				for _, c := range s.slots[slot][set][:] {
					if c.count > c.overestimate {
						sums[c.key] += float64(c.count-c.overestimate) * weight
					}
				}
			}
		}
		s.mu.Unlock()
	}
	top := make([]Count[K], 0, len(sums))
	for key, requests := range sums {
		if requests >= 0.5 { // less would be shown as 0
			top = append(top, Count[K]{key, requests})
		}
	}
	slices.SortFunc(top, func(a, b Count[K]) int { return cmp.Compare(b.Requests, a.Requests) })
	return slices.Clip(top[:min(n, len(top))])
}
