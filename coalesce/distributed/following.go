package distributed

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/internal/protocol"
	"github.com/fleetcall/fleetcall/coalesce/internal/pubsub"
	"github.com/fleetcall/fleetcall/coalesce/internal/redislink"
	"github.com/fleetcall/fleetcall/coalesce/internal/wire"
)

// following waits for the outcome of a flight that another replica leads.
type following[V any] struct {
	leader string // the flight
	looks  looks
	joined protocol.Moment // when this call joined by Redis' clock, and when it asked to by its own
}

func (s *following[V]) run(c *call[V]) state[V] {
	f := c.g.fleet
	if own := c.g.finishing.follow(c.names.Channel(), s.leader); own != nil {
		return awaiting[V]{own}
	}
	defer c.g.finishing.unfollow(s.leader)
	c.listen()
	c.asking.Store(false)
	w := c.waiter
	look := time.NewTimer(f.set.redisTimeout)
	defer look.Stop()
	for atOnce := false; ; {
		news := w.Take(s.leader)
		if news.Came {
			return s.receive(c, news.Outcome)
		}
		if news.Refused {
			return s.leave(c).withoutRedis(redislink.ErrUnconfirmed)
		}
		now := time.Now()
		s.heed(c, news, now)
		if atOnce || !s.looks.next().After(now) {
			next, running := s.look(c, news, now)
			if !running {
				return next
			}
		}
		atOnce = false
		c.batch.comes(s.looks.due, false)
		look.Reset(time.Until(s.looks.next()))
		select {
		case <-w.Wake:
		case <-look.C:
		case <-f.link.Down(c.names.Channel()):
			atOnce = true // the key's server may be another by now
		case <-c.local.Done():
			return s.leave(c).end(result[V]{}, c.local.Err())
		case <-c.deadline.Done():
			return s.leave(c).endLate()
		case <-f.abandon:
			return s.leave(c).end(result[V]{}, coalesce.ErrClosed)
		}
	}
}

// heed takes note of what the subscription says.
func (s *following[V]) heed(c *call[V], news pubsub.News, now time.Time) {
	l := &s.looks
	if news.Missed {
		l.missed = now
		if news.Spread > 0 {
			l.missed = now.Add(rand.N(news.Spread))
		}
	}
	if news.Alive {
		l.missed = time.Time{}
		if news.Forgotten {
			c.forget() // what told so before was missed
		}
		if until := now.Add(min(news.Until.Sub(now), c.g.set.leaseTTL)); until.After(l.due) {
			l.due = until
		}
	}
	switch {
	case news.Confirmed:
		l.unconfirmed, l.wait = time.Time{}, 0
	case l.wait == 0:
		l.waitFor(c.g.fleet.set.redisTimeout, now)
	}
}

// look looks what became of the flight, and when to look again if it runs.
func (s *following[V]) look(c *call[V], news pubsub.News, now time.Time) (next state[V], running bool) {
	l := &s.looks
	if l.wait > 0 && !l.unconfirmed.After(now) {
		// Nothing would tell of a Forget: callers to come join anew.
		c.waiter.Doubt()
		c.forget()
		l.waitFor(2*l.wait, now)
	}
	told := news.Confirmed && l.missed.IsZero()
	l.missed = time.Time{}
	p := s.peek(c)
	if p.done && told {
		// Its message was lost. The subscription may be at a server
		// that is the master no more.
		c.waiter.Distrust()
	}
	return p.next, p.running
}

// looks says when a follower looks what became of its flight: at the first of these times. As
// long as it hears of its flight, none of them comes.
type looks struct {
	// due: the lease that was seen last has run out. A leader that lives has said so
	// before.
	due time.Time
	// missed: messages may have been missed while the subscription was lost. Zero: none.
	missed time.Time
	// unconfirmed: the subscription is not confirmed. The waits become longer and longer.
	// Zero: it is.
	unconfirmed time.Time
	wait        time.Duration // before unconfirmed; 0: it is confirmed
}

func (l *looks) waitFor(wait time.Duration, now time.Time) {
	l.wait, l.unconfirmed = wait, now.Add(wait)
}

// next returns the first. When a lease is due, Redis drops it within the next millisecond.
func (l *looks) next() time.Time {
	next := l.due.Add(time.Millisecond)
	for _, at := range []time.Time{l.missed, l.unconfirmed} {
		if !at.IsZero() && at.Before(next) {
			next = at
		}
	}
	return next
}

// due is when a lease that lives for ttl, as Redis says, has run out. No lease lives for
// longer than the lease TTL, whatever became of Redis' clock.
func (c *call[V]) due(ttl time.Duration) time.Time {
	return time.Now().Add(min(ttl, c.g.set.leaseTTL))
}

// peeked is what became of the flight that is followed.
type peeked[V any] struct {
	running bool
	next    state[V] // when it does not run
	done    bool     // there was an outcome
}

// peek looks what became of the flight.
func (s *following[V]) peek(c *call[V]) peeked[V] {
	f := c.g.fleet
	reply, err := protocol.Peek(c.ctx, f.link, protocol.PeekRequest{Names: c.names, Settings: &c.g.args, Flight: s.leader})
	switch {
	case err != nil:
		return peeked[V]{next: s.leave(c).withoutRedis(err)}
	case reply.Running > 0:
		if reply.Forgotten {
			c.forget()
		}
		s.looks.due = c.due(reply.Running)
		return peeked[V]{running: true}
	case !reply.Done && !reply.Over && time.Now().Before(s.looks.due):
		// Redis has lost the lease. A leader that lives will see to that before it was due.
		return peeked[V]{running: true}
	case !reply.Done:
		return peeked[V]{next: s.gone(c)}
	}
	o, err := wire.Decode(reply.Outcome)
	if err != nil || o.Flight != s.leader || o.Kind == wire.KindAlive {
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
	stored, err := wire.Stored{}, error(nil)
	if o.Kind == wire.KindNotice {
		if stored, err = o.Stored(); err != nil {
			c.g.fleet.garbage.Add(1)
			return fallback[V]{causeGarbage}
		}
		o = stored.Outcome
	}
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
	next := receiving[V]{outcome: o, role: coalesce.RemoteFollower, flight: s.leader, finished: finished}
	if stored.Bytes > 0 {
		return &fetching[V]{next, stored}
	}
	return &next
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
	c.batch.settle()
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
	if !g.reads(o) {
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

// reads says whether this replica can decode a value.
func (c *core[V]) reads(o wire.Outcome) bool {
	return o.Codec == c.codecName && o.Fingerprint == c.fingerprint
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
