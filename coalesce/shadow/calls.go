package shadow

import (
	"strings"
	"sync"
	"time"
)

const (
	// shardCount is the number of locks among which the keys are spread, by the first
	// bits of their hashes.
	shardCount = 64
	shardShift = 64 - 6
	// maxEvents bounds what a replica reports of a second. A second with more does not
	// count.
	maxEvents = 32 << 10
	// Of the followers that a flight would have here, those that come within a part of its
	// length after another one need not be reported: it is enough to know whether there is
	// one when the flight of the fleet ends. On a key with very many calls that leaves out
	// nearly all of them.
	thinPart = 64
	thinMin  = 500 * time.Microsecond
	// maxFree is how many keyStates a shard keeps for keys to come.
	maxFree = 64
	// maxNamed is how much of a key is kept to name it among the hottest.
	maxNamed = 200
)

// shard has the keys that have calls under way.
type shard struct {
	mu      sync.Mutex
	keys    map[uint64]*keyState // by the key's hash
	free    []*keyState
	sketch  sketch
	events  []event // of followed keys, until they are collected
	dropped bool    // an event since then
	_       [64]byte
}

// keyState is a key that has calls under way in this process. Two keys of one hash would
// be taken for one: of a million keys at a time, one pair in 40 million such times.
type keyState struct {
	calls  uint32 // that have begun
	active uint32 // that have not ended
	leader uint32 // the number of the call that would lead the flight here; 0: none would
	led    time.Duration
	sent   time.Duration // when the last call that is reported began
}

// anyCall stands for a leader that has left: the flight lasts until another of its calls
// has ended.
const anyCall = ^uint32(0)

// A kind is what happened to a followed key.
type kind uint8

const (
	began  kind = iota // a call
	ended              // a call
	left               // a call ended because its caller left: others would still wait for its function
	forgot             // the key
)

// event is something that happened to a followed key.
type event struct {
	key    uint64
	at     time.Duration // since the Fleet was opened
	number uint32        // of the call
	kind   kind

	// The rest is of this replica's own calls, when they have ended, and is not sent.

	exact bool // the key is followed for its own sake, and stands for no other
	leads bool // the call would lead its flight in this process
	group *counted
	hot   *hotKey // nil: none of the hottest
	took  time.Duration
	part  time.Duration // of took, that is the key's
}

// call is a call under way.
type call struct {
	group                 *counted
	state                 *keyState
	hot                   *hotKey
	key                   uint64
	began                 time.Duration
	number                uint32
	leads, exact, sampled bool
	sent                  bool
}

// start notes that a call for a key begins.
func (f *Fleet) start(g *counted, name string) call {
	key := hashString(g.seed, name)
	s := &f.shards[key>>shardShift]
	at := f.now()
	s.mu.Lock()
	defer s.mu.Unlock()
	c := call{group: g, key: key, began: at}
	st := s.keys[key]
	if st == nil {
		st = s.add(key)
	}
	st.calls++
	st.active++
	c.state, c.number = st, st.calls
	if c.leads = st.leader == 0; c.leads {
		st.leader = c.number
	}
	s.sketch.add(key)
	now := f.followed.Load()
	if c.hot = now.hot[key]; c.hot != nil && c.hot.name == "" {
		c.hot.group, c.hot.name = g, strings.Clone(name[:min(len(name), maxNamed)])
	}
	c.exact = now.all || c.hot != nil
	c.sampled = !c.exact && key%f.set.sample == 0
	if c.exact || c.sampled {
		if c.leads || at-st.sent >= max(st.led/thinPart, thinMin) {
			c.sent = s.note(event{key: key, at: at, number: c.number, kind: began})
			st.sent = at
		}
	}
	return c
}

// end notes that the call has ended. It was one of n keys of a function. hasLeft says that
// it ended because its caller left.
func (f *Fleet) end(c *call, hasLeft bool, n int) {
	s := &f.shards[c.key>>shardShift]
	at := f.now()
	took := at - c.began
	part := took / time.Duration(n)
	s.mu.Lock()
	defer s.mu.Unlock()
	st := c.state
	st.active--
	goesOn := hasLeft && st.active > 0
	switch {
	case st.leader != c.number && (st.leader != anyCall || hasLeft):
	case goesOn:
		st.leader = anyCall
	default:
		st.leader = 0
	}
	if c.leads && !hasLeft {
		st.led = took
	}
	if st.active == 0 {
		s.remove(c.key, st)
	}
	c.group.ended(int(c.key>>shardShift), c, part)
	if c.hot != nil {
		c.hot.ended(c.leads, part)
	}
	if c.sent {
		e := event{key: c.key, at: at, number: c.number, kind: ended, exact: c.exact, leads: c.leads, group: c.group, hot: c.hot, took: took, part: part}
		if hasLeft {
			e.kind = left
		}
		s.note(e)
	}
}

// forget notes that the calls for a key that come would start a new flight.
func (f *Fleet) forget(g *counted, name string) {
	key := hashString(g.seed, name)
	s := &f.shards[key>>shardShift]
	at := f.now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if st := s.keys[key]; st != nil {
		st.leader = 0
	}
	now := f.followed.Load()
	if now.all || now.hot[key] != nil || key%f.set.sample == 0 {
		s.note(event{key: key, at: at, kind: forgot})
	}
}

// add returns a new keyState. The caller holds mu.
func (s *shard) add(key uint64) *keyState {
	if s.keys == nil {
		s.keys = map[uint64]*keyState{}
	}
	st := &keyState{}
	if n := len(s.free); n > 0 {
		st, s.free = s.free[n-1], s.free[:n-1]
		*st = keyState{}
	}
	s.keys[key] = st
	return st
}

// remove takes out a key that has no call under way. The caller holds mu.
func (s *shard) remove(key uint64, st *keyState) {
	delete(s.keys, key)
	if len(s.free) < maxFree {
		s.free = append(s.free, st)
	}
}

// note keeps an event until it is collected. The caller holds mu.
func (s *shard) note(e event) bool {
	if len(s.events) >= maxEvents/8 {
		s.dropped = true
		return false
	}
	s.events = append(s.events, e)
	return true
}

// collect takes the events until then, and says whether some were dropped.
func (f *Fleet) collect(until time.Duration) (events []event, dropped bool) {
	for i := range f.shards {
		s := &f.shards[i]
		s.mu.Lock()
		kept := s.events[:0]
		for _, e := range s.events {
			if e.at < until {
				events = append(events, e)
			} else {
				kept = append(kept, e)
			}
		}
		clear(s.events[len(kept):])
		s.events = kept
		dropped = dropped || s.dropped
		s.dropped = false
		s.mu.Unlock()
	}
	return events, dropped || len(events) > maxEvents
}
