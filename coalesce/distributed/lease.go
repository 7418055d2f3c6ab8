package distributed

import (
	"time"

	"github.com/fleetcall/fleetcall/coalesce/internal/protocol"
	"github.com/fleetcall/fleetcall/coalesce/internal/redislink"
	"github.com/fleetcall/fleetcall/coalesce/internal/wire"
)

// renewAfter has the lease renewed when a third of its TTL has passed since then. A
// flight that is shorter costs nothing.
func (c *call[V]) renewAfter(then time.Time) {
	c.g.fleet.renewals.Set(&c.running.renewal, c, then.Add(c.g.set.leaseTTL/3))
}

func (c *call[V]) renew() {
	g, e := c.g, &c.running
	if c.local.Err() != nil {
		c.handle(left) // no caller is left here: those who have joined may have left since
	}
	e.mu.Lock()
	if e.over && !e.storing {
		e.mu.Unlock()
		c.encodeInTime()
		return
	}
	g.fleet.inflight.add()
	e.mu.Unlock()
	defer g.fleet.inflight.leave()

	asked := time.Now()
	reply, err := protocol.Renew(c.ctx, g.fleet.link, protocol.RenewRequest{
		Names: c.names, Settings: &g.args, Attempt: e.lease.attempt, Start: e.lease.start, Trace: c.told.trace,
		Message: wire.AliveOf(c.flight(), g.set.leaseTTL).Encode(), Publish: g.fleet.subs.PublishCommand(),
	})
	received := time.Now()
	if err == nil {
		e.lease.clock.Told(reply.Now, asked, received)
	}
	has := err == nil && (reply.State == protocol.Held || reply.State == protocol.Retaken)

	e.mu.Lock()
	over := e.over && !e.storing
	down := err != nil && g.fleet.isDown(c.names.Channel())
	if !over {
		if has || err != nil && !redislink.NeverSent(err) {
			e.renewed = received // or may have been
		}
		if !down {
			c.renewAfter(asked)
		}
	}
	e.mu.Unlock()
	if down && !over {
		g.fleet.link.WhenUp(c.names.Channel(), func() {
			g.fleet.workers.Run(func() { c.OnExpire(&e.renewal) })
		})
	}
	if over || err != nil {
		// A finish that overtook this renewal released the lease, or tells that it was lost.
		return
	}
	if reply.Forgotten {
		c.forget()
	}
	if reply.State != protocol.Held {
		c.loseLease(asked)
	}
	if has {
		c.leaseIs(LeaseRenewed, asked)
	}
}

// loseLease tells that the lease has been lost, once.
func (c *call[V]) loseLease(asked time.Time) {
	e := &c.running
	e.mu.Lock()
	before := e.lost
	e.lost = true
	e.mu.Unlock()
	if before {
		return
	}
	c.g.leaseLost.Add(1)
	c.leaseIs(LeaseLost, asked)
	c.g.fleet.set.log.WarnContext(c.ctx, "fleetcall: lease lost", c.attrs()...)
}

// abandon gives the flight up. Unless forced, it does not when a follower
// waits, and says so by false. When Redis cannot tell, no other replica is known to
// wait, and Redis is told once it can be: a join that it has not read yet would take a
// lease that nobody renews, and count as a death.
func (c *call[V]) abandon(forced bool) bool {
	asked := time.Now()
	abandoned, err := c.sendAbandon(forced)
	if !forced && !abandoned && (err == nil || c.running.wanted) {
		c.running.wanted = true
		return false // it asks again when the lease is to be renewed
	}
	c.g.fleet.renewals.Stop(&c.running.renewal)
	if err == nil {
		c.leaseIs(LeaseReleased, asked)
		return true
	}
	c.background(func() {
		_ = c.retryRelease(max(c.g.set.flightTimeout, c.g.set.leaseTTL), nil, asked, err, func() error {
			_, err := c.sendAbandon(true)
			return err
		})
	})
	return true
}

func (c *call[V]) sendAbandon(forced bool) (abandoned bool, err error) {
	f := c.g.fleet
	return protocol.Abandon(c.ctx, f.link, protocol.AbandonRequest{
		Names: c.names, Settings: &c.g.args,
		Message: wire.Outcome{Kind: wire.KindAbandoned, Flight: c.flight()}.Encode(),
		Publish: f.subs.PublishCommand(), Forced: forced,
	})
}

// retryRelease sends a step that releases the lease until Redis takes it, for up to
// limit after the first try, which was asked then and ended with err. It tries
// again at once when a caller waits for the ended flight, which may be nil, and when the
// key's server is up again. A Fleet that is closing does not wait for a server that is
// down: the lease runs out by itself.
func (c *call[V]) retryRelease(limit time.Duration, ended *endedFlight, asked time.Time, err error, send func() error) error {
	g := c.g
	began, up := asked, (chan struct{})(nil)
	for wait := g.fleet.set.redisTimeout / 4; ; wait = min(2*wait, time.Second) {
		if err == nil {
			c.leaseIs(LeaseReleased, asked)
			return nil
		}
		var wanted <-chan struct{}
		if ended != nil {
			wanted, _ = g.finishing.wait(ended)
		}
		closes, down := g.fleet.inflight.closes, (<-chan struct{})(nil)
		if g.fleet.inflight.closing() {
			limit = min(limit, g.set.leaseTTL)
			closes, down = nil, g.fleet.link.Down(c.names.Channel())
		}
		if time.Since(began) > limit {
			return err
		}
		if up == nil && g.fleet.isDown(c.names.Channel()) {
			up = make(chan struct{})
			g.fleet.link.WhenUp(c.names.Channel(), func() { close(up) })
		}
		select {
		case <-time.After(wait):
		case <-up:
			up = nil
		case <-wanted:
		case <-closes:
		case <-down:
			return err
		case <-g.fleet.abandon:
			return err
		}
		asked = time.Now()
		err = send()
	}
}
