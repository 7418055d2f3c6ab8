package distributed

import (
	"slices"
	"sync"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/internal/protocol"
	"github.com/fleetcall/fleetcall/coalesce/internal/wire"
	"github.com/fleetcall/fleetcall/coalesce/local"
)

// control hears a message on this Fleet's control channel: another one has forgotten a key
// of which this one leads a flight, or did.
func (f *Fleet) control(message string) {
	notice, err := wire.DecodeForget(message)
	if err != nil {
		f.garbage.Add(1)
		return
	}
	f.groupsMu.Lock()
	group := f.groups[notice.Group]
	f.groupsMu.Unlock()
	if group != nil {
		group.forgetHere(notice.Key)
	}
}

// connected is called when the control channel is subscribed, for the first time or
// again. It finds out what was forgotten while nothing could be heard.
func (f *Fleet) connected() {
	if f.inflight.enter() != nil {
		return
	}
	go func() {
		defer f.inflight.leave()
		f.catchUp()
		f.learnTime()
	}()
}

// catchUp has every call find out whether its key was forgotten.
func (f *Fleet) catchUp() {
	for calls := range slices.Chunk(f.expiries.Owners(), forgetTogether) {
		var under sync.WaitGroup
		for _, c := range calls {
			under.Add(1)
			f.workers.Run(func() {
				defer under.Done()
				defer f.survive()
				c.(interface{ catchUp() }).catchUp()
			})
		}
		under.Wait()
	}
}

// catchUp makes the callers to come start a new flight, if the key may have been forgotten
// since this one has begun. A leader looks. While the reply to its join is on its way, nobody
// knows that it leads, and it looks when that has come:
//
//	this replica: sends join
//	Redis:        join → lead F
//	another:      forgets the key; the control channel is not subscribed
//	this replica: the control channel is confirmed
//	              the reply comes
//
// A follower looks when its own channel is confirmed. A flight that runs without Redis stays:
// each call that it does not merge is another execution.
func (c *call[V]) catchUp() {
	c.unheard.Store(true)
	if !c.asking.Load() && coalesce.Role(c.role.Load()) == coalesce.Leader && !c.heat.unasked {
		c.look()
	}
}

// look asks whether the key was forgotten while this call leads. Where Redis has nothing of
// the flight, it may have been.
func (c *call[V]) look() {
	reply, err := protocol.Peek(c.ctx, c.g.fleet.link, protocol.PeekRequest{Names: c.names, Settings: &c.g.args, Flight: c.flight()})
	if err == nil && !reply.Done && (reply.Running == 0 || reply.Forgotten) {
		c.forget()
	}
}

// forget makes the callers to come start a new flight. Those who wait keep this one. A call
// that has its outcome is no exception: until its callers are told, others may join it, and
// MaxAge lets them take what it came to.
func (c *call[V]) forget() {
	c.running.mu.Lock()
	defer c.running.mu.Unlock()
	if c.callers != (local.Joined[string, result[V]]{}) {
		c.callers.Forget()
	}
}

// Forgotten makes call a pubsub.Forgetter. The Fleet that forgets a key does so before its
// Forget returns: once more might split a flight that has begun since.
func (c *call[V]) Forgotten(by string) {
	if protocol.FleetOf(by) != c.g.fleet.id {
		c.forget()
	}
}

// listen has this call hear of what is published on the key's channel, if that is subscribed
// already, or else from when it is.
func (c *call[V]) listen() {
	if c.waiter == nil {
		c.waiter = c.g.fleet.subs.Subscribe(c.names.Channel())
		c.waiter.Tell(c)
	}
}
