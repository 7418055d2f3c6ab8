package coalescetest

import (
	"context"
	"fmt"
	"sync"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/internal/detached"
)

// Fleet is what the replicas of a fleet share: it takes the place of Redis. It
// keeps everything in memory, and needs no Close.
type Fleet struct {
	mu       sync.Mutex
	changed  sync.Cond // the followers of a flight have changed; its lock is mu
	down     bool
	flights  map[place]*flight    // those that can be joined
	running  map[*flight]struct{} // those and the forgotten ones
	cached   map[place]outcome
	poisoned map[place]bool
	replicas map[string][]func(key string) // by Group's name: what forgets a key there
}

// place is a key of one Group's name.
type place struct{ group, key string }

// NewFleet returns a Fleet whose Redis can be used.
func NewFleet() *Fleet {
	f := &Fleet{
		flights:  map[place]*flight{},
		running:  map[*flight]struct{}{},
		cached:   map[place]outcome{},
		poisoned: map[place]bool{},
		replicas: map[string][]func(string){},
	}
	f.changed.L = &f.mu
	return f
}

// StopRedis makes Redis unusable for every Group of the fleet. Calls that come,
// and those that wait for another replica, run their own function as Fallback, or
// get coalesce.ErrUnavailable where their Group fails closed. Functions that run
// go on, and their results reach the callers of their own replica. Forget returns
// an error.
func (f *Fleet) StopRedis() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.down = true
	for flight := range f.running {
		flight.endLocked(outcome{fate: noRedis})
	}
	clear(f.cached)
	clear(f.poisoned)
}

// StartRedis makes Redis usable again. It is empty, as after a restart.
func (f *Fleet) StartRedis() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.down = false
}

// joined is a replica's part in what the fleet does for a key.
type joined struct {
	flight *flight // nil: kept says what to do
	leads  bool
	kept   outcome
}

// join makes a replica the leader of a new flight, whose function has the values
// of ctx, or a follower of the one that there is.
func (f *Fleet) join(ctx context.Context, p place) joined {
	f.mu.Lock()
	defer f.mu.Unlock()
	j := f.joinLocked(nil, p)
	if j.leads {
		j.flight.ctx = &detached.Context{First: ctx}
	}
	return j
}

// joinLocked is join for a key of a batch, if there is a run: its function's.
func (f *Fleet) joinLocked(r *run, p place) joined {
	if f.down {
		return joined{kept: outcome{fate: noRedis}}
	}
	if f.poisoned[p] {
		return joined{kept: outcome{err: coalesce.ErrPoisoned}}
	}
	if kept, ok := f.cached[p]; ok {
		return joined{kept: kept}
	}
	if running := f.flights[p]; running != nil {
		running.followers++
		f.changed.Broadcast()
		return joined{flight: running}
	}
	led := f.startLocked(p)
	if r != nil {
		led.ctx, led.run = &r.ctx, r
	}
	return joined{flight: led, leads: true}
}

func (f *Fleet) startLocked(p place) *flight {
	started := &flight{fleet: f, place: p, done: make(chan struct{})}
	f.flights[p] = started
	f.running[started] = struct{}{}
	return started
}

// leadElsewhere starts a flight without a function.
func (f *Fleet) leadElsewhere(p place) *flight {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.down {
		panic("fleetcall: coalescetest: LeadElsewhere needs Redis: call StartRedis first")
	}
	if f.flights[p] != nil {
		panic(fmt.Sprintf("fleetcall: coalescetest: LeadElsewhere: key %q of group %q is led already: end that flight, or forget the key first", p.key, p.group))
	}
	return f.startLocked(p)
}

// forget lets nobody join the present flights of these keys, on any replica.
func (f *Fleet) forget(group string, keys []string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.down {
		return fmt.Errorf("fleetcall: forgetting keys on other replicas: %w", coalesce.ErrUnavailable)
	}
	for _, key := range keys {
		p := place{group, key}
		delete(f.flights, p)
		delete(f.cached, p)
		delete(f.poisoned, p)
		for _, forgetLocally := range f.replicas[group] {
			forgetLocally(key)
		}
	}
	return nil
}
