package shadow

import (
	"cmp"
	"encoding/binary"
	"hash/fnv"
	"maps"
	"math"
	"slices"
	"time"
)

const (
	// maxHot is how many of the hottest keys are followed.
	maxHot = 128
	// maxCandidates is how many keys a replica tells the others of.
	maxCandidates = 2 * maxHot
	// hotEvents bounds what a replica reports of the hottest keys in a second.
	hotEvents = maxEvents / 2
	// maxKeyEvents is what thinning leaves of a key's events in a second, at the most.
	maxKeyEvents = 2 * uint64(time.Second/thinMin)

	sketchSets = 8 // in each shard
	sketchWays = 8 // counters in a set
	// callWeight is what a call adds to its counter, so that one may fade by parts of a call.
	callWeight = 256
	// fadeOf is the part of a counter that fades in a second: a steady one is that of so many
	// seconds.
	fadeOf = 8
)

// sketch counts calls by key with the Space-Saving algorithm (Metwally, Agrawal and El
// Abbadi, "Efficient Computation of Frequent and Top-k Elements in Data Streams", 2005): a
// key that finds no free counter takes over the smallest one of its set, and notes how much
// of the count may belong to other keys. No key is missed that has more than an eighth of
// its set's calls: one of some 4,000 of all.
type sketch [sketchSets][sketchWays]counter

type counter struct {
	key              uint64
	count, takenOver uint32 // in parts of a call
}

func (s *sketch) add(key uint64) {
	set := &s[key>>32%sketchSets]
	least := &set[0]
	for i := range set {
		c := &set[i]
		if c.count != 0 && c.key == key {
			c.count += min(callWeight, math.MaxUint32-c.count)
			return
		}
		if c.count < least.count {
			least = c
		}
	}
	least.key, least.takenOver = key, least.count
	least.count += min(callWeight, math.MaxUint32-least.count)
}

// fade makes the counts those of the last seconds. It is called once a second.
func (s *sketch) fade() {
	for i := range s {
		for j := range s[i] {
			s[i][j].count -= s[i][j].count / fadeOf
			s[i][j].takenOver -= s[i][j].takenOver / fadeOf
		}
	}
}

// candidate is a key and how often it was asked for here of late: its calls of fadeOf
// seconds, if these are steady.
type candidate struct {
	key      uint64
	calls    uint64
	followed bool // as one of the hottest, at the moment
}

// candidates returns the hottest keys of this replica.
func (f *Fleet) candidates() []candidate {
	var all []candidate
	now := f.followed.Load()
	for i := range f.shards {
		s := &f.shards[i]
		s.mu.Lock()
		for _, set := range s.sketch {
			for _, c := range set {
				if n := (c.count - c.takenOver) / callWeight; n > 1 {
					all = append(all, candidate{c.key, uint64(n), now.hot[c.key] != nil})
				}
			}
		}
		s.sketch.fade()
		s.mu.Unlock()
	}
	slices.SortFunc(all, hotter)
	return all[:min(len(all), maxCandidates)]
}

func hotter(a, b candidate) int {
	return cmp.Or(cmp.Compare(b.calls, a.calls), cmp.Compare(a.key, b.key))
}

// followed says which keys are followed. It does not change, except for the counts of its
// hottest keys.
type followed struct {
	all bool
	hot map[uint64]*hotKey
}

// hotKey is one of the hottest keys.
type hotKey struct {
	group  *counted // guarded by the shard's mu, as the next ones are
	name   string   // empty: this replica has not seen it since
	recent sums     // calls that have ended since they were collected

	// What the seconds that count say of it; guarded by the Fleet's mu.
	calls sums
	fleet tally
}

// ended counts a call. The caller holds the shard's mu.
func (h *hotKey) ended(leads bool, part time.Duration) { h.recent.add(leads, part) }

// recentHot returns the calls of the hottest keys that have ended since it was called last.
func (f *Fleet) recentHot(now *followed) map[*hotKey]sums {
	counts := make(map[*hotKey]sums, len(now.hot))
	for hash, h := range now.hot {
		s := &f.shards[hash>>shardShift]
		s.mu.Lock()
		if h.recent.calls > 0 {
			counts[h] = h.recent
			h.recent = sums{}
		}
		s.mu.Unlock()
	}
	return counts
}

// choose returns what to follow, by what the replicas report: the same on each of them. A
// key that is followed stays when it is nearly as hot as another one.
func choose(reports []*report, set settings, now *followed) *followed {
	type place struct {
		fleet, most uint64
		followed    bool
	}
	places := map[uint64]place{}
	full := set.fullBelow > 0
	for _, r := range reports {
		limit := uint64(set.fullBelow)
		if r.all { // it stays so a bit longer than it would become so
			limit += limit / 2
		}
		full = full && (r.partial || r.calls <= limit)
		for _, c := range r.candidates {
			p := places[c.key]
			places[c.key] = place{p.fleet + c.calls, max(p.most, c.calls), p.followed || c.followed}
		}
	}
	ranked := make([]candidate, 0, len(places))
	for key, p := range places {
		calls := p.fleet
		if p.followed {
			calls += calls / 2
		}
		ranked = append(ranked, candidate{key: key, calls: calls})
	}
	slices.SortFunc(ranked, hotter)
	next := &followed{all: full, hot: map[uint64]*hotKey{}}
	room := uint64(hotEvents)
	for _, c := range ranked {
		cost := min(2*places[c.key].most/fadeOf, maxKeyEvents) // a call has two events
		if len(next.hot) == maxHot || cost > room {
			continue
		}
		room -= cost
		h := now.hot[c.key]
		if h == nil {
			h = &hotKey{}
		}
		next.hot[c.key] = h
	}
	return next
}

// fingerprint is equal on replicas that follow the same keys in the same way.
func (now *followed) fingerprint(set settings) uint64 {
	var keys []uint64
	all := uint64(1)
	if !now.all {
		all = 0
		keys = slices.Sorted(maps.Keys(now.hot))
	}
	h := fnv.New64a()
	var b [8]byte
	for _, n := range append(keys, all, set.sample, uint64(set.fullBelow), uint64(set.maxAge)) {
		binary.LittleEndian.PutUint64(b[:], n)
		_, _ = h.Write(b[:])
	}
	return h.Sum64()
}
