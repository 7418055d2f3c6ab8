package distributed

import (
	"context"
	"strings"
	"sync"
	"time"

	"github.com/fleetcall/fleetcall/coalesce/internal/heat"
	"github.com/fleetcall/fleetcall/coalesce/internal/protocol"
	"github.com/fleetcall/fleetcall/coalesce/internal/wire"
)

const (
	// gathers is for how long keys that have become hot are gathered before the other
	// replicas are told of them together.
	gathers = 5 * time.Millisecond
	// mostTold is how many keys one notice tells of. Others that become hot within the same
	// time are found by the others themselves.
	mostTold = 1024

	// A replica learns how many there are from its notices. It sends one without keys when it
	// is there, and again firstCount and ten times that later; from then on once in count,
	// or in as many times fleetShare as there are replicas, so that all of them together are
	// told by each no more than once in fleetShare.
	firstCount = time.Second
	count      = time.Minute
	fleetShare = time.Second
)

// adaptive is what the adaptive Groups of a Fleet have in common: what is known of keys, and
// the channel on which replicas tell each other what has become hot, and was forgotten.
type adaptive struct {
	fleet   *Fleet
	channel string
	keys    *heat.Keys
	flights unaskedFlights

	mu      sync.Mutex
	turned  []uint64 // keys of which the others are to be told
	sending *time.Timer
	counts  *time.Timer
	counted time.Duration        // how long the last wait before a count was
	others  map[string]time.Time // Fleets that were heard of, and when; on a Cluster alone
	closed  bool
}

// adapt returns what the Fleet's adaptive Groups have in common, and makes it for the first.
func (f *Fleet) adapt() *adaptive {
	f.groupsMu.Lock()
	defer f.groupsMu.Unlock()
	if f.adaptive == nil {
		a := &adaptive{fleet: f, channel: protocol.HeatChannel(f.set.namespace, f.database), others: map[string]time.Time{}}
		a.keys = heat.New(a.tell)
		f.adaptive = a
		f.subs.Broadcast(a.channel, a.heard, a.connected)
	}
	return f.adaptive
}

// adaptiveGroups returns what adapt has made, or nil.
func (f *Fleet) adaptiveGroups() *adaptive {
	f.groupsMu.Lock()
	defer f.groupsMu.Unlock()
	return f.adaptive
}

// close sends nothing any more.
func (a *adaptive) close() {
	if a == nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.closed = true
	for _, timer := range []*time.Timer{a.sending, a.counts} {
		if timer != nil {
			timer.Stop()
		}
	}
}

// hot returns how many keys are hot.
func (a *adaptive) hot() int {
	if a == nil {
		return 0
	}
	return a.keys.Hot(time.Now())
}

// tell has the other replicas told that a key has become hot, soon.
func (a *adaptive) tell(id heat.ID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed || len(a.turned) == mostTold {
		return
	}
	a.turned = append(a.turned, uint64(id))
	if len(a.turned) == 1 {
		a.sending = time.AfterFunc(gathers, a.send)
	}
}

// send tells the other replicas of the keys that have become hot, if there are any, and
// that this one is there.
func (a *adaptive) send() {
	a.mu.Lock()
	keys := a.turned
	a.turned = nil
	a.mu.Unlock()
	f := a.fleet
	if f.inflight.enter() != nil {
		return
	}
	sent := f.link.NewRequest(context.Background(), protocol.Tell(a.channel, wire.Heat{Fleet: f.id, Keys: keys}.Encode()))
	sent.Then = func() {
		f.workers.Run(func() {
			defer f.inflight.leave()
			defer f.survive()
			if heard, err := f.link.Result(sent); err == nil { // otherwise they find out themselves
				began, ended := sent.Trip()
				a.keys.Trip(ended.Sub(began))
				n, _ := heard.(int64)
				a.keys.SetOthers(a.count(int(n) - 1))
			}
		})
	}
	f.link.Send(sent)
}

// count returns how many other replicas there are, if so many have heard a notice. A node of a
// Cluster knows only of those that are connected to it: there, those count that were heard of.
func (a *adaptive) count(heard int) int {
	if a.fleet.oneServer {
		return heard
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for fleet, at := range a.others {
		if time.Since(at) > 3*a.counted+count {
			delete(a.others, fleet)
		}
	}
	return max(heard, len(a.others))
}

// connected is called when the channel is subscribed. What was forgotten before may have
// been missed.
func (a *adaptive) connected() {
	a.flights.forgetAll()
	a.mu.Lock()
	a.counted = 0
	a.mu.Unlock()
	a.countIn(0)
}

// countIn sends a notice in so long, and then again and again.
func (a *adaptive) countIn(wait time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed {
		return
	}
	if a.counts != nil {
		a.counts.Stop()
	}
	a.counts = time.AfterFunc(wait, func() {
		a.send()
		a.countIn(a.nextCount())
	})
}

func (a *adaptive) nextCount() time.Duration {
	most := max(count, time.Duration(a.keys.Others())*fleetShare)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.counted = min(max(10*a.counted, firstCount), most)
	return a.counted
}

// heard hears a notice of another replica, or of this one.
func (a *adaptive) heard(message string) {
	notice, err := wire.DecodeHeat(message)
	switch {
	case err != nil:
		a.fleet.garbage.Add(1)
		return
	case notice.Fleet == a.fleet.id:
		return
	case notice.Forgotten:
		for _, id := range notice.Keys {
			a.flights.forget(heat.ID(id))
		}
		return
	}
	now := time.Now()
	for _, id := range notice.Keys {
		a.keys.Told(heat.ID(id), now)
	}
	if !a.fleet.oneServer {
		a.mu.Lock()
		a.others[strings.Clone(notice.Fleet)] = now
		a.mu.Unlock()
	}
}

// forgotten returns the command that tells the other replicas that keys of a group were
// forgotten: what those run without having asked Redis, it knows nothing of.
func (a *adaptive) forgotten(group string, keys []string) protocol.Command {
	ids := make([]uint64, len(keys))
	for i, key := range keys {
		ids[i] = uint64(heat.IDOf(group, key))
	}
	return protocol.Tell(a.channel, wire.Heat{Fleet: a.fleet.id, Forgotten: true, Keys: ids}.Encode())
}
