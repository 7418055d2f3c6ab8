package distributed

import (
	"log/slog"
	"time"

	"github.com/fleetcall/fleetcall/coalesce/internal/protocol"
	"github.com/fleetcall/fleetcall/coalesce/internal/redislink"
	"github.com/fleetcall/fleetcall/coalesce/internal/wire"
)

// delivery is the end of a flight on its way to Redis. A small outcome goes with the
// finish. The payload of a large one is stored first, by plain commands, because what goes
// through a script is copied by Redis several times while nobody else is answered:
//
//	finish (ask)   nobody wants it: the lease is released, and that is all
//	store …        each piece of the payload; the lease is renewed meanwhile
//	finish         with a notice that it is stored
type delivery struct {
	ended  *endedFlight
	finish protocol.FinishRequest
	pieces [][]byte // of a large outcome's payload that is not stored yet
}

// size returns how many bytes of the outcome are to be stored before the finish.
func (d *delivery) size() (bytes int) {
	for _, piece := range d.pieces {
		bytes += len(piece)
	}
	return bytes
}

// next returns the finish as it is to be sent now.
func (d *delivery) next() protocol.Command {
	d.finish.Ask, d.finish.Since = len(d.pieces) > 0, time.Since(d.ended.at)
	return d.finish.Command()
}

// delivery returns the end of the flight with an outcome.
func (c *call[V]) delivery(ended *endedFlight, o wire.Outcome) *delivery {
	g := c.g
	o.Finished = c.running.lease.clock.NoLater(ended.at)
	d := &delivery{ended: ended, finish: protocol.FinishRequest{
		Names: c.names, Settings: &g.args,
		Publish: g.fleet.subs.PublishCommand(), Finished: o.Finished, Trace: c.told.trace,
	}}
	switch o.Kind {
	case wire.KindValue:
		d.finish.MaxAge = g.set.maxAge
	case wire.KindTooLarge:
		d.finish.Unshared = causeTooLarge
	}
	if len(o.Payload) > g.set.inlineLimit {
		d.pieces = wire.Pieces(o.Payload, protocol.PieceBytes)
		o = wire.NoticeOf(o, protocol.PieceBytes)
	}
	d.finish.Outcome = o.Encode()
	return d
}

// deliverOnce delivers the outcome, unless that has been done.
func (c *call[V]) deliverOnce(o wire.Outcome, ended *endedFlight) {
	if !c.running.finished.Swap(true) {
		c.g.fleet.renewals.Stop(&c.running.renewal)
		c.deliver(c.delivery(ended, o))
	}
}

// deliver sends the first finish, and goes on when that is answered.
func (c *call[V]) deliver(d *delivery) {
	f := c.g.fleet
	asked := false
	defer func() {
		if !asked { // something panics
			c.released(d.ended)
		}
	}()
	command := d.next()
	c.g.finishing.sending(d.ended, redislink.Allowed(f.set.redisTimeout, command.Bytes()))
	sent := f.link.NewRequest(c.ctx, command)
	sent.Then = func() {
		if reply, err := sent.Reply(); err == nil && endsIt(protocol.ParseFinish(reply)) && !c.g.hooks.tellOfCommands() {
			c.delivered(sent, d) // takes no time
			return
		}
		f.workers.Run(func() { c.proceed(beside[V](func() { c.delivered(sent, d) })) })
	}
	if run := c.running.of(); run != nil {
		run.add(sent)
		asked = true
		return
	}
	here := f.link.SendHere(sent)
	asked = true
	if here {
		c.delivered(sent, d)
	}
}

// endsIt says whether a finish has ended the flight, and that is all.
func endsIt(reply protocol.FinishReply) bool {
	return reply == protocol.FinishHeld || reply == protocol.FinishShared
}

// delivered goes on when the first finish has been answered.
func (c *call[V]) delivered(sent *redislink.Request, d *delivery) {
	defer c.released(d.ended)
	g := c.g
	reply, err := g.fleet.link.Result(sent)
	reply, err = c.handOver(d, sent.Command(), reply, err)
	err = c.retryRelease(max(g.set.flightTimeout, g.set.leaseTTL), d.ended, sent.SentAt(), err, func() error {
		command := d.next()
		reply, err = g.fleet.link.Do(c.ctx, command)
		reply, err = c.handOver(d, command, reply, err)
		return err
	})
	switch {
	case err != nil:
		if g.unshared.allow() {
			g.fleet.set.log.WarnContext(c.ctx, "fleetcall: outcome could not be shared", c.attrs(slog.Any("error", err))...)
		}
	case c.hadLost(protocol.ParseFinish(reply), d.ended):
		c.loseLease(sent.SentAt())
	case endsIt(protocol.ParseFinish(reply)):
		c.asked(protocol.ParseFinish(reply) == protocol.FinishShared)
	}
}

// largeOutcome is the size, in bytes, from which on it may be an outcome's own fault that
// Redis does not take it: a limit of the server or of a proxy, or a thin link.
const largeOutcome = 16 << 10

// handOver goes on after a finish that ended with reply and err, and returns how the last
// one ended. When the outcome is wanted, it is stored, and the flight finished with a
// notice. When that fails because of its size, the next finish says that the outcome is too
// large to travel: so the key loses its sharing, and no follower waits for tries that may
// all fail.
func (c *call[V]) handOver(d *delivery, finish protocol.Command, reply any, err error) (any, error) {
	link := c.g.fleet.link
	large := finish.Bytes() > largeOutcome
	if err == nil && protocol.ParseFinish(reply) == protocol.FinishWanted {
		large = true
		if err = c.store(d); err == nil {
			return link.Do(c.ctx, d.next())
		}
	}
	if err != nil && large && redislink.OwnFault(err) {
		if c.g.unshared.allow() {
			c.g.fleet.set.log.WarnContext(c.ctx, "fleetcall: large result could not be shared; followers run their own", c.attrs(slog.Any("error", err))...)
		}
		*d = *c.delivery(d.ended, wire.Outcome{Kind: wire.KindTooLarge, Flight: c.flight()})
		c.g.finishing.sending(d.ended, c.g.fleet.set.redisTimeout)
		return link.Do(c.ctx, d.next())
	}
	return reply, err
}

// store stores the payload of a large outcome, and keeps the lease meanwhile: followers
// go on waiting, and those who come join the flight, though they will not get its result.
func (c *call[V]) store(d *delivery) error {
	f, e := c.g.fleet, &c.running
	allowed := redislink.Allowed(f.set.redisTimeout, d.size())
	goesOn := func() error { // though the pieces of other outcomes may be before it
		c.g.finishing.sending(d.ended, allowed)
		return nil
	}
	e.mu.Lock()
	e.storing = true
	renewed := e.renewed
	e.mu.Unlock()
	c.renewAfter(renewed)
	defer func() {
		e.mu.Lock()
		e.storing = false
		e.mu.Unlock()
		f.renewals.Stop(&e.renewal)
		c.g.finishing.sending(d.ended, f.set.redisTimeout)
	}()
	_, err := f.link.DoAll(c.ctx, protocol.Store(c.names, &c.g.args, d.pieces, d.finish.MaxAge), goesOn)
	if err == nil {
		d.pieces = nil
	}
	return err
}

// hadLost says whether the flight had lost its lease when it was released. One that
// outlived its lease had, if Redis has nothing of it.
func (c *call[V]) hadLost(reply protocol.FinishReply, ended *endedFlight) bool {
	e := &c.running
	e.mu.Lock()
	defer e.mu.Unlock()
	return reply == protocol.FinishLost || reply == protocol.FinishNothing && ended.at.Sub(e.renewed) > c.g.set.leaseTTL
}
