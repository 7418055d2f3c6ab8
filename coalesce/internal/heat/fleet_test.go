package heat

import (
	"container/heap"
	"iter"
	"math/rand/v2"
	"sort"
	"time"
)

// begun is when the simulated time begins.
var begun = time.Unix(1_800_000_000, 0)

// call is one in a simulated load.
type call struct {
	at           time.Duration
	replica, key int
}

// fleet is replicas that run functions for keys, in simulated time: of flights there is who
// runs one, who waits for it and what it costs Redis. Commands and functions are counted as
// bench counts them.
type fleet struct {
	takes  time.Duration // each function
	asks   func(replica int, id ID, now time.Time) bool
	learns []*Keys // nil: all flights ask

	flights []map[int]*flight // of each replica, by key
	leases  map[int]*flight
	heard   []map[int]time.Duration // until when each replica is subscribed to a key's channel
	events  events

	executions, commands, notices int
	most                          map[int]int // functions that ran at a time, by key
	running                       map[int]int
	began                         []time.Duration // of each function
}

type flight struct {
	asks, leads bool
	followers   []int
}

// distributed is a fleet as it is without Keys: every flight asks.
func distributed(replicas int, takes time.Duration) *fleet {
	f := &fleet{
		takes: takes, leases: map[int]*flight{}, most: map[int]int{}, running: map[int]int{},
		asks: func(int, ID, time.Time) bool { return true },
	}
	for range replicas {
		f.flights = append(f.flights, map[int]*flight{})
		f.heard = append(f.heard, map[int]time.Duration{})
	}
	return f
}

// adaptive is a fleet whose replicas have Keys, and hear of each other after 6 ms.
func adaptive(replicas int, takes time.Duration) *fleet {
	f := distributed(replicas, takes)
	for replica := range replicas {
		k := New(func(id ID) { f.notice(replica, id) })
		k.begun = begun
		k.SetOthers(replicas - 1)
		k.Trip(200 * time.Microsecond)
		f.learns = append(f.learns, k)
	}
	f.asks = func(replica int, id ID, now time.Time) bool { return f.learns[replica].Begins(id, now) }
	return f
}

// oracle is a fleet that knows how often each key is called in the whole fleet, and asks for
// those whose flights are expected to meet as many calls as meets says.
func oracle(replicas int, takes time.Duration, rates []float64, meets float64) *fleet {
	f := distributed(replicas, takes)
	f.asks = func(_ int, id ID, _ time.Time) bool { return rates[id]*takes.Seconds() >= meets }
	return f
}

// id is that of a key: what its name would be is of no importance.
func (f *fleet) id(key int) ID {
	if f.learns == nil {
		return ID(key)
	}
	return ID(mix(uint64(key) + 1))
}

func (f *fleet) notice(from int, id ID) {
	f.commands++
	f.notices++
	for replica := range f.flights {
		if replica != from {
			f.events.add(f.events.now+6*time.Millisecond, func(now time.Duration) { f.learns[replica].Told(id, begun.Add(now)) })
		}
	}
}

// run runs a load to its end.
func (f *fleet) run(load iter.Seq[call]) *fleet {
	for c := range load {
		f.events.until(c.at)
		f.call(c)
	}
	f.events.until(1 << 62)
	return f
}

func (f *fleet) call(c call) {
	id, now := f.id(c.key), begun.Add(c.at)
	if f.flights[c.replica][c.key] != nil {
		if f.learns != nil {
			f.learns[c.replica].Waits(id, now)
		}
		return
	}
	own := &flight{asks: f.asks(c.replica, id, now)}
	f.flights[c.replica][c.key] = own
	if own.asks {
		f.commands++ // join
		if leader := f.leases[c.key]; leader != nil {
			leader.followers = append(leader.followers, c.replica)
			if c.at > f.heard[c.replica][c.key] {
				f.commands += 3 // subscribe, peek, and unsubscribe later
			}
			f.heard[c.replica][c.key] = c.at + 30*time.Second
			f.asked(c.replica, id, true, now)
			return
		}
		own.leads = true
		f.leases[c.key] = own
	}
	f.executions++
	f.began = append(f.began, c.at)
	f.running[c.key]++
	f.most[c.key] = max(f.most[c.key], f.running[c.key])
	f.events.add(c.at+f.takes, func(now time.Duration) { f.ends(c, own, now) })
}

func (f *fleet) ends(c call, own *flight, at time.Duration) {
	id, now := f.id(c.key), begun.Add(at)
	f.running[c.key]--
	delete(f.flights[c.replica], c.key)
	if f.learns != nil {
		f.learns[c.replica].Ran(id, f.takes)
	}
	if !own.leads {
		return
	}
	f.commands++ // finish
	delete(f.leases, c.key)
	for _, follower := range own.followers {
		delete(f.flights[follower], c.key)
	}
	f.asked(c.replica, id, len(own.followers) > 0, now)
}

func (f *fleet) asked(replica int, id ID, shared bool, now time.Time) {
	if f.learns != nil {
		f.learns[replica].Asked(id, shared, now)
	}
}

// events are what is going to happen, the next first.
type events struct {
	now time.Duration
	all eventHeap
}

type event struct {
	at time.Duration
	do func(now time.Duration)
}

func (e *events) add(at time.Duration, do func(time.Duration)) { heap.Push(&e.all, event{at, do}) }

func (e *events) until(at time.Duration) {
	for len(e.all) > 0 && e.all[0].at <= at {
		next := heap.Pop(&e.all).(event)
		e.now = next.at
		next.do(next.at)
	}
	e.now = at
}

type eventHeap []event

func (h eventHeap) Len() int           { return len(h) }
func (h eventHeap) Less(i, j int) bool { return h[i].at < h[j].at }
func (h eventHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *eventHeap) Push(x any)        { *h = append(*h, x.(event)) }
func (h *eventHeap) Pop() any {
	last := (*h)[len(*h)-1]
	*h = (*h)[:len(*h)-1]
	return last
}

// zipf returns how often each of so many keys is called a second, of rate calls in all: the
// r-th key 1/r times as often as the first.
func zipf(keys int, rate float64) []float64 {
	rates, sum := make([]float64, keys), 0.0
	for i := range rates {
		rates[i] = 1 / float64(i+1)
		sum += rates[i]
	}
	for i := range rates {
		rates[i] *= rate / sum
	}
	return rates
}

// poisson is calls that come independently of each other, at these rates, for so long. to
// chooses the replica of each.
func poisson(rates []float64, lasts time.Duration, to func(*rand.Rand, int) int) iter.Seq[call] {
	return func(yield func(call) bool) {
		r := rand.New(rand.NewPCG(15, 1))
		sums, sum := make([]float64, len(rates)), 0.0
		for i, rate := range rates {
			sum += rate
			sums[i] = sum
		}
		for at := 0.0; ; {
			at += r.ExpFloat64() / sum
			now := time.Duration(at * float64(time.Second))
			key := sort.SearchFloat64s(sums, r.Float64()*sum)
			if now > lasts || !yield(call{now, to(r, key), key}) {
				return
			}
		}
	}
}

func evenly(replicas int) func(*rand.Rand, int) int {
	return func(r *rand.Rand, _ int) int { return r.IntN(replicas) }
}

// pinned is a balancer that sends each key to a replica of its own.
func pinned(replicas int) func(*rand.Rand, int) int {
	return func(_ *rand.Rand, key int) int { return key % replicas }
}
