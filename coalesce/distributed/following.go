package distributed

import (
	"fmt"
	"log/slog"
	"time"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/internal/protocol"
	"github.com/fleetcall/fleetcall/coalesce/internal/pubsub"
	"github.com/fleetcall/fleetcall/coalesce/internal/redislink"
	"github.com/fleetcall/fleetcall/coalesce/internal/wire"
)

// following waits for the outcome of a flight that another replica leads.
type following[V any] struct {
	leader string          // the flight
	due    time.Time       // of its lease, for all that is known
	joined protocol.Moment // when this call joined by Redis' clock, and when it asked to by its own
}

func (s *following[V]) run(c *call[V]) state[V] {
	f := c.g.fleet
	if own := c.g.finishing.follow(c.names.Channel(), s.leader); own != nil {
		return awaiting[V]{own}
	}
	defer c.g.finishing.unfollow(s.leader)
	if c.waiter == nil {
		c.waiter = f.subs.Subscribe(c.names.Channel())
	}
	w := c.waiter
	// A lease that lasts has been renewed, or lost and its outcome missed.
	lease := time.NewTimer(s.untilDue())
	defer lease.Stop()
	// A subscription that Redis does not confirm within the Redis timeout is
	// a command that failed. So is one that it refuses, and each one after that.
	unconfirmed := patience{Timer: time.NewTimer(f.set.redisTimeout), lasts: f.set.redisTimeout}
	defer unconfirmed.Stop()
	for peek := false; ; {
		news := w.Take(s.leader)
		unconfirmed.heed(news.Confirmed)
		if news.Refused {
			return s.leave(c).withoutRedis(redislink.ErrUnconfirmed)
		}
		if news.Came && news.Outcome.Kind != wire.KindNotice {
			return s.receive(c, news.Outcome)
		}
		if news.Came || news.Missed || peek {
			p := s.peek(c, news)
			if p.done && !news.Came && !news.Missed && news.Confirmed {
				// Its message was lost. The subscription may be at a server
				// that is the master no more.
				w.Distrust()
			}
			if !p.running {
				return p.next
			}
			lease.Reset(s.untilDue())
		}
		peek = false
		select {
		case <-w.Wake:
		case <-lease.C:
			peek = true
		case <-f.link.Down(c.names.Channel()):
			peek = true // at once: the key's server may be another by now
		case <-unconfirmed.C:
			if w.GiveUp() {
				f.link.Count(redislink.FailureKind(redislink.ErrUnconfirmed))
				return s.leave(c).withoutRedis(redislink.ErrUnconfirmed)
			}
			unconfirmed.Reset(f.set.redisTimeout)
		case <-c.local.Done():
			return s.leave(c).end(result[V]{}, c.local.Err())
		case <-c.deadline.Done():
			return s.leave(c).endLate()
		case <-f.abandon:
			return s.leave(c).end(result[V]{}, coalesce.ErrClosed)
		}
	}
}

// patience runs out when a subscription has not been confirmed for so long.
type patience struct {
	*time.Timer
	lasts     time.Duration
	confirmed bool
}

func (p *patience) heed(confirmed bool) {
	switch {
	case confirmed && !p.confirmed:
		p.Stop()
	case !confirmed && p.confirmed:
		p.Reset(p.lasts)
	}
	p.confirmed = confirmed
}

// due is when a lease that lives for ttl, as Redis says, has run out. No lease lives for
// longer than the lease TTL, whatever became of Redis' clock.
func (c *call[V]) due(ttl time.Duration) time.Time {
	return time.Now().Add(min(ttl, c.g.set.leaseTTL))
}

// untilDue returns how long to wait before the next look: by then, Redis has dropped a
// lease that was not renewed.
func (s *following[V]) untilDue() time.Duration { return time.Until(s.due) + time.Millisecond }

// peeked is what became of the flight that is followed.
type peeked[V any] struct {
	running bool
	next    state[V] // when it does not run
	done    bool     // there was an outcome
}

// peek looks what became of the flight, of which there was such news.
func (s *following[V]) peek(c *call[V], news pubsub.News) peeked[V] {
	f := c.g.fleet
	reply, err := protocol.Peek(c.ctx, f.link, protocol.PeekRequest{
		Names: c.names, Settings: &c.g.args, Flight: s.leader, Bytes: news.Outcome.Size(c.g.set.payloadLimit),
	})
	switch {
	case err != nil:
		return peeked[V]{next: s.leave(c).withoutRedis(err)}
	case reply.Running > 0:
		s.due = c.due(reply.Running)
		return peeked[V]{running: true}
	case !reply.Done && !reply.Over && !news.Came && time.Now().Before(s.due):
		// Redis has lost the lease. A leader that lives will see to that before it was due.
		return peeked[V]{running: true}
	case !reply.Done:
		return peeked[V]{next: s.gone(c)}
	}
	o, err := wire.Decode(reply.Outcome)
	if err != nil || o.Flight != s.leader {
		// Garbage under the result's name can't be waited out: the flight
		// has ended, or will be over with its lease.
		f.garbage.Add(1)
		return peeked[V]{next: fallback[V]{causeGarbage}}
	}
	return peeked[V]{next: s.receive(c, o), done: true}
}

// leave tells Redis, beside all else, that this call waits no longer for a flight that may
// run, because a leader whose callers have left asks whether anybody does. It is told once:
// where that fails, the function runs to its end. leave returns c, which ends then.
func (s *following[V]) leave(c *call[V]) *call[V] {
	c.background(func() {
		_ = protocol.Leave(c.ctx, c.g.fleet.link, protocol.LeaveRequest{Names: c.names, Settings: &c.g.args, Flight: s.leader})
	})
	return c
}

// gone is for a flight that went away without an outcome.
func (s *following[V]) gone(c *call[V]) state[V] {
	c.vanished = s.leader
	return joining[V]{}
}

func (s *following[V]) receive(c *call[V], o wire.Outcome) state[V] {
	switch {
	case o.Kind == wire.KindAbandoned:
		return s.gone(c)
	case o.Kind != wire.KindTooLarge && !s.ran(o, c.g.set.maxAge):
		return joining[V]{}
	}
	if c.g.hooks.traces() {
		c.told.lag = s.joined.Since(o.Finished, c.g.set.flightTimeout)
	}
	finished := s.joined.LocalTime(o.Finished)
	if now := time.Now(); finished.After(now) {
		finished = now
	}
	return &receiving[V]{outcome: o, role: coalesce.RemoteFollower, flight: s.leader, finished: finished}
}

// ran says whether the function ran when this call joined, or a value is young enough. A
// call may join a flight that has ended, until Redis knows of the end.
func (s *following[V]) ran(o wire.Outcome, maxAge time.Duration) bool {
	if o.Kind != wire.KindValue {
		maxAge = 0
	}
	return o.Finished+uint64(maxAge.Microseconds()) >= uint64(s.joined.Redis)
}

// receiving ends the call with an outcome of another flight.
type receiving[V any] struct {
	outcome  wire.Outcome
	role     coalesce.Role // RemoteFollower or Cached
	flight   string
	finished time.Time // as in result
}

func (s *receiving[V]) run(c *call[V]) state[V] {
	r := result[V]{role: s.role, flight: s.flight, finished: s.finished}
	switch s.outcome.Kind {
	case wire.KindValue:
		return s.value(c, r)
	case wire.KindError, wire.KindPanic:
		remote, err := s.outcome.RemoteError()
		if err != nil {
			c.g.fleet.garbage.Add(1)
			return fallback[V]{causeGarbage}
		}
		return c.end(r, remote)
	}
	return fallback[V]{causeTooLarge}
}

func (s *receiving[V]) value(c *call[V], r result[V]) state[V] {
	g, o := c.g, s.outcome
	if o.Codec != g.codecName || o.Fingerprint != g.fingerprint {
		g.incompatible.Add(1)
		return s.useless(c, causeIncompatible, fmt.Errorf("it is of another type or codec: %s, structure %016x, not %s, %016x", o.Codec, o.Fingerprint, g.codecName, g.fingerprint))
	}
	c.foreign.Store(true)
	val, err := unmarshal(g.codec, o.Payload)
	if !c.foreign.CompareAndSwap(true, false) {
		return nil // the call was ended meanwhile
	}
	if err != nil {
		g.fleet.garbage.Add(1)
		return s.useless(c, causeGarbage, err)
	}
	r.val = val
	return c.end(r, nil)
}

// useless goes on without an outcome that cannot be decoded. The flight that is
// joined or led now replaces what MaxAge has kept.
func (s *receiving[V]) useless(c *call[V], cause string, err error) state[V] {
	c.logUndecoded(err)
	if s.role == coalesce.Cached {
		return joining[V]{fresh: true}
	}
	return fallback[V]{cause}
}

func (c *call[V]) logUndecoded(err error) {
	if c.g.undecoded.allow() {
		c.g.fleet.set.log.WarnContext(c.ctx, "fleetcall: result cannot be decoded; this replica runs its own", c.attrs(slog.Any("error", err))...)
	}
}

// unmarshal makes a panic of the codec an error: garbage must hurt no caller.
func unmarshal[V any](codec coalesce.Codec[V], data []byte) (v V, err error) {
	defer recoverAs(&err)
	return codec.Unmarshal(data)
}

func recoverAs(err *error) {
	if value := recover(); value != nil {
		*err = fmt.Errorf("fleetcall: panic: %v", value)
	}
}
