package distributed

import (
	"fmt"
	"log/slog"
	"time"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/internal/protocol"
	"github.com/fleetcall/fleetcall/coalesce/internal/redislink"
	"github.com/fleetcall/fleetcall/coalesce/internal/wire"
)

// following waits for the outcome of a flight that another replica leads.
type following[V any] struct {
	leader string        // the flight
	ttl    time.Duration // of its lease
	clock  protocol.Clock
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
	lease := time.NewTimer(afterLease(s.ttl))
	defer lease.Stop()
	// A subscription that Redis does not confirm within the Redis timeout is
	// a command that failed.
	unconfirmed := time.NewTimer(f.set.redisTimeout)
	defer unconfirmed.Stop()
	wasConfirmed := false

	for peek := false; ; {
		news := w.Take(s.leader)
		if news.Confirmed && !wasConfirmed {
			unconfirmed.Stop()
		} else if !news.Confirmed && wasConfirmed {
			unconfirmed.Reset(f.set.redisTimeout)
		}
		wasConfirmed = news.Confirmed
		if news.Came && news.Outcome.Kind != wire.KindNotice {
			return s.receive(c, news.Outcome, time.Time{})
		}
		if news.Came || news.Missed || peek {
			p := s.peek(c, news.Outcome.Size(c.g.set.payloadLimit))
			if p.done && !news.Came && !news.Missed && news.Confirmed {
				// Its message was lost. The subscription may be at a server
				// that is the master no more.
				w.Distrust()
			}
			if p.running == 0 {
				return p.next
			}
			lease.Reset(afterLease(p.running))
		}

		peek = false
		select {
		case <-w.Wake:
		case <-lease.C:
			peek = true
		case <-unconfirmed.C:
			f.link.Count(redislink.FailureKind(redislink.ErrUnconfirmed))
			return c.withoutRedis(redislink.ErrUnconfirmed)
		case <-c.local.Done():
			return c.end(result[V]{}, c.local.Err())
		case <-c.deadline.Done():
			return c.endLate()
		case <-f.abandon:
			return c.end(result[V]{}, coalesce.ErrClosed)
		}
	}
}

// afterLease is when to look for a flight whose lease lives for ttl: by then,
// Redis has dropped it.
func afterLease(ttl time.Duration) time.Duration { return ttl + time.Millisecond }

// peeked is what became of the flight that is followed.
type peeked[V any] struct {
	running time.Duration // until its lease runs out; 0: it does not run
	next    state[V]      // when it does not run
	done    bool          // there was an outcome
}

// peek looks what became of the flight, whose outcome may have so many bytes.
func (s *following[V]) peek(c *call[V], bytes int) peeked[V] {
	f := c.g.fleet
	sent := time.Now()
	reply, err := protocol.Peek(c.ctx, f.link, protocol.PeekRequest{Names: c.names, Flight: s.leader, Bytes: bytes})
	switch {
	case err != nil:
		return peeked[V]{next: c.withoutRedis(err)}
	case reply.Running > 0:
		return peeked[V]{running: reply.Running}
	case !reply.Done:
		return peeked[V]{next: s.gone(c)}
	}
	o, err := wire.Decode(reply.Outcome)
	switch {
	case err != nil || o.Flight != s.leader:
		// Garbage under the result's name can't be waited out: the flight
		// has ended, or will be over with its lease.
		f.garbage.Add(1)
		return peeked[V]{next: fallback[V]{causeGarbage}}
	case time.Now().Add(-reply.Age).Before(c.started):
		// It had ended before this call began, but its leader could not
		// tell Redis.
		return peeked[V]{next: joining[V]{}, done: true}
	}
	return peeked[V]{next: s.receive(c, o, finishedAt(sent, reply.Age)), done: true}
}

// gone is for a flight that went away without an outcome.
func (s *following[V]) gone(c *call[V]) state[V] {
	c.vanished = s.leader
	return joining[V]{}
}

func (s *following[V]) receive(c *call[V], o wire.Outcome, finished time.Time) state[V] {
	if o.Kind == wire.KindAbandoned {
		return s.gone(c)
	}
	if c.g.hooks.traces() {
		c.told.lag = s.clock.Since(o.Finished, c.g.set.flightTimeout)
	}
	return &receiving[V]{outcome: o, role: coalesce.RemoteFollower, flight: s.leader, finished: finished}
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
	if c.g.undecoded.allow() {
		c.g.fleet.set.log.WarnContext(c.ctx, "fleetcall: result cannot be decoded; this replica runs its own", c.attrs(slog.Any("error", err))...)
	}
	if s.role == coalesce.Cached {
		return joining[V]{fresh: true}
	}
	return fallback[V]{cause}
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
