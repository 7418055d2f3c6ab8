package main

import (
	"slices"
	"sync"
	"time"

	"github.com/fleetcall/fleetcall/api"
	"github.com/fleetcall/fleetcall/coalesce/distributed"
)

const (
	// leasesListed is how many of a replica's leases are listed.
	leasesListed = 20
	// leasesSweep is the number of leases at which those that have run out are dropped.
	// They are still kept when Redis did not answer at the end of their flights.
	leasesSweep = 1024
)

// leases knows which leases this replica holds.
type leases struct {
	ttl time.Duration

	mu    sync.Mutex
	held  map[string]heldLease // by flight
	sweep int                  // the number at which the next ones are dropped
}

type heldLease struct {
	key   string
	taken time.Time
	until time.Time // at least; the lease has run out when it was not renewed
}

func newLeases(ttl time.Duration) *leases {
	return &leases{ttl: ttl, held: map[string]heldLease{}, sweep: leasesSweep}
}

// Lease makes leases a distributed.LeaseHook.
func (l *leases) Lease(lease distributed.Lease) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch lease.State {
	case distributed.LeaseTaken:
		if len(l.held) >= l.sweep {
			l.drop(time.Now())
			l.sweep = max(leasesSweep, 2*len(l.held))
		}
		l.held[lease.Flight] = heldLease{key: lease.Key, taken: lease.Asked, until: lease.Asked.Add(l.ttl)}
	case distributed.LeaseRenewed:
		if h, ok := l.held[lease.Flight]; ok {
			h.until = lease.Asked.Add(l.ttl)
			l.held[lease.Flight] = h
		}
	case distributed.LeaseLost, distributed.LeaseReleased:
		delete(l.held, lease.Flight)
	}
}

// drop forgets the leases that have run out; mu is held.
func (l *leases) drop(now time.Time) {
	for flight, h := range l.held {
		if now.After(h.until) {
			delete(l.held, flight)
		}
	}
}

// list returns the leases held now.
func (l *leases) list() api.Leases {
	now := time.Now()
	l.mu.Lock()
	l.drop(now)
	all := make([]heldLease, 0, len(l.held))
	for _, h := range l.held {
		all = append(all, h)
	}
	l.mu.Unlock()
	slices.SortFunc(all, func(a, b heldLease) int { return a.taken.Compare(b.taken) })
	listed := api.Leases{Count: len(all), Oldest: []api.Lease{}}
	for _, h := range all[:min(leasesListed, len(all))] {
		listed.Oldest = append(listed.Oldest, api.Lease{Key: h.key, AgeMS: float64(now.Sub(h.taken).Microseconds()) / 1000})
	}
	return listed
}
