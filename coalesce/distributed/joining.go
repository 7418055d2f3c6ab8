package distributed

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/internal/protocol"
	"github.com/fleetcall/fleetcall/coalesce/internal/redislink"
	"github.com/fleetcall/fleetcall/coalesce/internal/wire"
)

// joining asks for the key's lease.
type joining[V any] struct {
	fresh bool // what MaxAge has kept is of no use
}

func (s joining[V]) run(c *call[V]) state[V] {
	if c.batch != nil {
		c.batch.join(s)
		return nil
	}
	a := s.request(c)
	if a == nil {
		return nil
	}
	f := c.g.fleet
	a.sent.Then = func() { f.workers.Run(func() { c.proceed(a) }) }
	if !f.link.SendHere(a.sent) {
		return nil
	}
	return a.run(c)
}

// request returns the state of a call whose join is about to be sent, or nil when the call
// has ended.
func (s joining[V]) request(c *call[V]) *joined[V] {
	g, f := c.g, c.g.fleet
	if err := c.local.Err(); err != nil {
		c.end(result[V]{}, err)
		return nil
	}
	if c.deadline.Err() != nil {
		c.endLate()
		return nil
	}
	if c.waiter == nil {
		if c.waiter = f.subs.Existing(c.names.Channel()); c.waiter != nil {
			c.waiter.Tell(c)
		}
	}
	request := protocol.JoinRequest{Names: c.names, Settings: &g.args, Fresh: s.fresh}
	if g.hooks.traces() {
		request.Trace = "+" + c.told.trace
	}
	a := &joined[V]{ended: g.finishing.on(c.names.Channel())}
	a.sent = f.link.NewRequest(c.ctx, request.Command())
	c.mayHold = true
	c.asking.Store(true)
	return a
}

// joined goes on when the join has been answered.
type joined[V any] struct {
	sent  *redislink.Request
	ended []*endedFlight // of this replica, when it was sent
	c     *call[V]       // of a batch, whose answers wait to be read
}

func (s *joined[V]) run(c *call[V]) state[V] {
	g := c.g
	reply, err := protocol.ParseJoin(g.fleet.link.Result(s.sent))
	if err != nil {
		c.mayHold = !redislink.NeverSent(err)
		return c.withoutRedis(err)
	}
	c.mayHold = reply.Answer == protocol.Leads
	sent, received := s.sent.Trip()
	c.trip(received.Sub(sent))
	switch reply.Answer {
	case protocol.Leads:
		c.leaseIs(LeaseTaken, s.sent.SentAt())
		return leading[V]{lease{
			attempt: reply.Lead.Attempt, start: reply.Lead.Now, taken: received,
			clock: g.fleet.clock(reply.Lead.Now, sent, received),
		}}
	case protocol.Follows:
		if g.fleet.oneServer {
			g.fleet.clock(reply.Follow.Now, sent, received)
		}
		return s.follow(c, reply.Follow, sent)
	case protocol.TakesKept:
		return s.keep(c, reply.Kept)
	case protocol.RunsAlone:
		return s.alone(c, reply.Why)
	case protocol.IsOver:
		// The client has sent the join twice, and the key was forgotten in between.
		c.names = protocol.NewNames(g.space, c.key)
		return joining[V]{}
	}
	if g.poisoned.allow() {
		g.fleet.set.log.ErrorContext(c.ctx, "fleetcall: key is poisoned", c.attrs(slog.Int64("attempts", reply.Poisoned))...)
	}
	return c.end(result[V]{}, coalesce.ErrPoisoned)
}

func (s *joined[V]) follow(c *call[V], reply protocol.Follow, sent time.Time) state[V] {
	for _, e := range s.ended {
		if e.flight == reply.Flight {
			return awaiting[V]{e}
		}
	}
	c.asked(true)
	c.role.Store(uint32(coalesce.RemoteFollower))
	next := &following[V]{
		leader: reply.Flight, looks: looks{due: c.due(reply.TTL)},
		joined: protocol.Moment{Redis: reply.Now, Local: sent},
	}
	if h := c.g.hooks; h.traces() {
		h.follow(c.ctx, Followed{Group: c.g.name, Key: c.key, Flight: reply.Flight, Trace: traceOf(reply.Trace)})
	}
	return next
}

// alone runs the function at once: what a flight would come to is of no use here.
func (s *joined[V]) alone(c *call[V], why string) state[V] {
	c.asked(false)
	if why != protocol.Incompatible {
		return fallback[V]{causeTooLarge}
	}
	c.g.incompatible.Add(1)
	c.logUndecoded(errors.New("its leader has another type or codec"))
	return fallback[V]{causeIncompatible}
}

// keep takes what MaxAge has kept.
func (s *joined[V]) keep(c *call[V], reply protocol.Kept) state[V] {
	o, err := wire.Decode(reply.Outcome)
	stored := wire.Stored{}
	if err == nil && o.Kind == wire.KindNotice {
		stored, err = o.Stored()
		o = stored.Outcome
	}
	if err != nil || o.Kind != wire.KindValue {
		c.g.fleet.garbage.Add(1)
		return joining[V]{fresh: true}
	}
	c.told.kept = traceOf(reply.Trace)
	next := receiving[V]{
		outcome: o, role: coalesce.Cached, flight: strings.Clone(o.Flight), finished: s.sent.SentAt().Add(-reply.Age), // never later than it was
	}
	if stored.Bytes > 0 {
		return &fetching[V]{next, stored}
	}
	return &next
}

// awaiting waits until the flight that this replica has ended is ended in
// Redis too. Its result went to callers who had come before; this one must not
// get it. Redis answers again: if it did not take the release before, it may
// now.
type awaiting[V any] struct{ own *endedFlight }

func (s awaiting[V]) run(c *call[V]) state[V] {
	c.batch.comes(time.Now(), true)
	wanted, released := c.g.finishing.wait(s.own)
	select {
	case wanted <- struct{}{}:
	default: // another caller has asked
	}
	timeout := time.NewTimer(c.g.fleet.set.redisTimeout)
	defer timeout.Stop()
	down := c.g.fleet.link.Down(c.names.Channel())
	for {
		select {
		case <-released:
			return joining[V]{}
		case <-down:
			return c.withoutRedis(redislink.ErrServerDown)
		case <-timeout.C:
			// A codec that takes its time, or a large outcome, may need more.
			if left := c.g.finishing.left(s.own); left > 0 {
				timeout.Reset(left)
				continue
			}
			return c.withoutRedis(fmt.Errorf("%w: %w", coalesce.ErrUnavailable, context.DeadlineExceeded))
		case <-c.local.Done():
			return c.end(result[V]{}, c.local.Err())
		case <-c.deadline.Done():
			return c.endLate()
		case <-c.g.fleet.abandon:
			return c.end(result[V]{}, coalesce.ErrClosed)
		}
	}
}

// withoutRedis goes on when Redis cannot be used.
func (c *call[V]) withoutRedis(err error) state[V] {
	if f := c.g.fleet; !f.isDown(c.names.Channel()) && f.failed.allow() {
		f.set.log.WarnContext(c.ctx, "fleetcall: Redis failed one flight; its server is up", c.attrs(slog.String("kind", redislink.FailureKind(err)), slog.Any("error", err))...)
	}
	if !c.g.set.failClosed {
		return fallback[V]{redislink.FailureKind(err)}
	}
	c.releaseUnsure()
	if !errors.Is(err, coalesce.ErrUnavailable) {
		err = fmt.Errorf("%w: %w", coalesce.ErrUnavailable, err)
	}
	return c.end(result[V]{refused: true}, err)
}

// endLate ends a call whose flight timeout has passed.
func (c *call[V]) endLate() state[V] {
	return c.end(result[V]{late: true}, coalesce.ErrFlightTimeout)
}
