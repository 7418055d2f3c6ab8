// Package heat learns which keys are worth asking Redis for: those whose flights meet
// flights of other replicas often enough. It asks nobody, and its memory does not grow with
// the number of keys.
//
// A flight meets one of another replica if a call for the key comes there while the function
// runs here, or the other way round. What a replica sees by itself tells how likely that is:
//
//   - How often the key is called here, and how long its functions take. With N replicas
//     among which a balancer spreads calls evenly, λ calls a second here and functions of d
//     seconds, the chance is 1-exp(-(N-1)·λ·d).
//   - Calls that wait for each other here. Calls that come in crowds do so everywhere.
//   - What has become of flights that asked. This counts for more than the two before: a
//     balancer that sends a key to one replica alone makes it look hot, and it is not shared.
//   - A sample, for what nothing of this shows, such as calls that come once a minute and at
//     the same moment on all replicas: see sampled.
//   - What other replicas say: a key that was found hot by one is taken for hot by all.
//
// Whether that finds the keys that matter is shown by a simulation in this package's tests.
package heat

import (
	"math"
	"sync"
	"sync/atomic"
	"time"
)

// The size of the table. An entry is given away when its set is full: that with the fewest
// calls in the last seconds. With 16,384 entries, and a thousand calls a second for keys that
// come once, a key is remembered for some 16 s if it has come once, and for longer if more
// often.
const (
	sets    = 2048
	ways    = 8
	stripes = 64 // locks; each is for some sets
)

// ID names a key of a group, with the same bits on all replicas. Two keys may have one: then
// they are hot together, which costs some commands.
type ID uint64

// IDOf returns the id of a group's key.
func IDOf(group, key string) ID {
	const offset, prime = 14695981039346656037, 1099511628211 // FNV-1a
	h := uint64(offset)
	for i := range len(group) {
		h = (h ^ uint64(group[i])) * prime
	}
	h *= prime // of a zero byte, which keeps group and key apart
	for i := range len(key) {
		h = (h ^ uint64(key[i])) * prime
	}
	return ID(mix(h))
}

// mix spreads what differs between two numbers over all bits (Vigna's splitmix64).
func mix(x uint64) uint64 {
	x ^= x >> 30
	x *= 0xbf58476d1ce4e5b9
	x ^= x >> 27
	x *= 0x94d049bb133111eb
	return x ^ x>>31
}

// Keys has what is known of keys. Its methods may be called by several goroutines. Those
// that are given the time may be given one that is a little earlier than another call's.
type Keys struct {
	turned func(ID) // told of each key that has become hot by what is known here
	begun  time.Time

	locks [stripes]struct {
		sync.Mutex
		_ [56]byte // puts the next lock on another cache line
	}
	sets [sets][ways]entry // each guarded by its stripe's lock

	others atomic.Int64 // replicas besides this one
	trip   atomic.Int64 // a time.Duration: of a command to Redis and back; 0: not known
}

// entry is what is known of a key. Times are in seconds since Keys was made.
type entry struct {
	id      ID
	first   float64 // when the key was first seen
	last    float64 // when the counts below were right
	told    float64 // when others were told, or told, that it is hot
	calls   float32 // within the window, about: older ones count less
	takes   float32 // what a function takes, in seconds; 0: not known
	crowd   float32 // the chance to share that calls tell which waited for each other here
	vain    float32 // flights that asked in vain of late
	grants  uint8   // flights that are going to ask in any case
	early   uint8   // calls that wait for a flight of which it is not known that it has asked nobody
	hot     bool    // as it was judged last
	unasked bool    // its flight here has asked nobody
	used    bool
}

// New returns a Keys that knows of no key, and takes it that there is one other replica.
// turned is called when a key has become hot by what this replica sees, and others may not know. It
// must not wait.
func New(turned func(ID)) *Keys {
	k := &Keys{turned: turned, begun: time.Now()}
	k.others.Store(1)
	return k
}

// SetOthers says how many other replicas there are. One that hears of none takes it that there
// is one: it may be about to start.
func (k *Keys) SetOthers(n int) { k.others.Store(int64(max(n, 1))) }

// Others returns what SetOthers was given.
func (k *Keys) Others() int { return int(k.others.Load()) }

// Trip says how long a command was on its way to Redis and back. The shortest of the last
// ones counts: others have waited for something.
func (k *Keys) Trip(took time.Duration) {
	trip := time.Duration(k.trip.Load())
	if trip != 0 && took > trip {
		took = trip + (took-trip)/64
	}
	k.trip.Store(int64(took)) // one that comes at the same moment may be lost
}

// Begins counts a call that begins a flight, and says whether the flight is to ask Redis.
func (k *Keys) Begins(id ID, now time.Time) (asks bool) {
	k.with(id, now, func(e *entry, at float64) {
		k.judge(e, at)
		asks = e.hot || e.calls > 0 && sampled(id, now)
		e.calls++
		e.crowd *= 1 - crowdFades
		if e.unasked = !asks; e.unasked && e.early > 0 {
			e.crowds(float32(e.early))
			k.judge(e, at)
		}
		e.early = 0
	})
	return asks
}

// Asks says that the flight that has begun asks all the same.
func (k *Keys) Asks(id ID) {
	lock, e := k.find(id)
	defer lock.Unlock()
	if e != nil {
		e.unasked = false
	}
}

// Waits counts a call that waits for a flight of this replica. It may come a little before
// that flight begins.
func (k *Keys) Waits(id ID, now time.Time) {
	k.with(id, now, func(e *entry, now float64) {
		e.calls++
		switch {
		case e.unasked:
			e.crowds(1)
		case e.early < mostEarly: // what a flight that asks comes to tells more
			e.early++
		}
		k.judge(e, now)
	})
}

// Ran says that a function has run for so long, which has ended now, or was left.
func (k *Keys) Ran(id ID, took time.Duration) {
	lock, e := k.find(id)
	defer lock.Unlock()
	if e == nil {
		return
	}
	s := max(float32(took.Seconds()), 1e-9)
	e.unasked, e.early = false, 0
	if e.takes == 0 {
		e.takes = s
	} else {
		e.takes += (s - e.takes) / 8
	}
}

// Asked says what became of a flight that asked: whether it was shared with another replica.
func (k *Keys) Asked(id ID, shared bool, now time.Time) {
	k.with(id, now, func(e *entry, now float64) {
		switch {
		case shared:
			e.grants, e.vain = grant, 0
		case e.grants > 0:
			e.grants--
			e.vain++
		default:
			e.vain++
		}
		k.judge(e, now)
	})
}

// Told says that another replica has found a key hot.
func (k *Keys) Told(id ID, now time.Time) {
	k.with(id, now, func(e *entry, now float64) {
		e.grants = max(e.grants, grant)
		e.told = now
		k.judge(e, now)
	})
}

// Hot returns how many keys are hot now, of those that were called within about the window.
func (k *Keys) Hot(now time.Time) (n int) {
	at := k.since(now)
	for i := range k.sets {
		lock := &k.locks[i%stripes]
		lock.Lock()
		for j := range k.sets[i] {
			if e := &k.sets[i][j]; e.hot && at-e.last < e.window() {
				n++
			}
		}
		lock.Unlock()
	}
	return n
}

func (k *Keys) since(now time.Time) float64 { return now.Sub(k.begun).Seconds() }

// with has do change the entry of a key, which is made if there is none, and tells if the key
// has become hot.
func (k *Keys) with(id ID, now time.Time, do func(e *entry, now float64)) {
	at := k.since(now)
	lock, e := k.find(id)
	if e == nil {
		e = k.least(id, at)
		*e = entry{id: id, used: true, first: at, last: at, told: -toldFor}
	}
	e.fade(at)
	was := e.hot
	do(e, e.last)
	turned := e.hot && !was && e.last-e.told >= toldFor
	if turned {
		e.told = e.last
	}
	lock.Unlock()
	if turned {
		k.turned(id)
	}
}

// find returns the entry of a key, or nil, and the lock that guards it, held.
func (k *Keys) find(id ID) (*sync.Mutex, *entry) {
	lock := &k.locks[id%stripes].Mutex
	lock.Lock()
	set := &k.sets[id%sets]
	for i := range set {
		if set[i].used && set[i].id == id {
			return lock, &set[i]
		}
	}
	return lock, nil
}

// least returns the entry that is given to a key that has none.
func (k *Keys) least(id ID, now float64) *entry {
	set := &k.sets[id%sets]
	least := &set[0]
	for i := range set {
		if set[i].worth(now) < least.worth(now) {
			least = &set[i]
		}
	}
	return least
}

// worth says what is lost with the entry.
func (e *entry) worth(now float64) float64 {
	switch {
	case !e.used:
		return -1
	case e.unasked: // its flight runs
		return math.MaxFloat64
	}
	// Grants fade as calls do: those of a key that nobody calls here any more would keep its
	// place for ever, and with enough of them no other key would be remembered.
	return (float64(e.calls) + float64(e.grants)) * e.fades(now)
}
