package distributed

import (
	"time"

	"github.com/fleetcall/fleetcall/coalesce"
)

// following waits for the outcome of c.leader.
func (c *call[V]) following() state[V] {
	g := c.g
	w := c.waiter
	if w == nil {
		w = g.subs.subscribe(c.keys.channel())
		c.waiter = w
	}
	// A lease that lasts has been renewed, or lost and its outcome missed.
	lease := time.NewTimer(afterLease(c.ttl))
	defer lease.Stop()
	// A subscription that Redis does not confirm within the Redis timeout is
	// a command that failed.
	unconfirmed := time.NewTimer(g.set.redisTimeout)
	defer unconfirmed.Stop()
	wasConfirmed := false

	for peek := false; ; {
		o, came, missed, confirmed := w.take(c.leader)
		switch {
		case confirmed && !wasConfirmed:
			unconfirmed.Stop()
		case !confirmed && wasConfirmed:
			unconfirmed.Reset(g.set.redisTimeout)
		}
		wasConfirmed = confirmed
		if came && o.kind != kindNotice {
			return c.receive(o, coalesce.RemoteFollower, time.Time{})
		}
		if came || missed || peek {
			next, ttl, done := c.peek(o.size(g.set.payloadLimit))
			if done && !came && !missed && confirmed {
				// Its message was lost. The subscription may be at a server
				// that is the master no more.
				w.distrust()
			}
			if ttl == 0 {
				return next
			}
			lease.Reset(afterLease(ttl))
		}

		peek = false
		select {
		case <-w.wake:
		case <-lease.C:
			peek = true
		case <-unconfirmed.C:
			g.redis.count(failureKind(errUnconfirmed))
			return c.withoutRedis(errUnconfirmed)
		case <-c.local.Done():
			return c.end(result[V]{}, c.local.Err())
		case <-c.deadline.Done():
			return c.end(result[V]{}, coalesce.ErrFlightTimeout)
		case <-g.abandon:
			return c.end(result[V]{}, coalesce.ErrClosed)
		}
	}
}

// afterLease is when to look for a flight whose lease lives for ttl: by then,
// Redis has dropped it.
func afterLease(ttl time.Duration) time.Duration { return ttl + time.Millisecond }

// peek looks what became of c.leader, whose outcome may have so many bytes.
// While the flight runs, it returns the time that its lease has, and otherwise
// the next state, and whether there was an outcome.
func (c *call[V]) peek(bytes int) (next state[V], running time.Duration, done bool) {
	g := c.g
	sent := time.Now()
	word, rest, err := words(g.redis.mustFetch(c.ctx, bytes, peekScript,
		[]string{c.keys.lease(), c.keys.resultOf(c.leader), c.keys.detachedOf(c.leader)}, c.leader))
	if err != nil {
		return c.withoutRedis(err), 0, false
	}
	switch word {
	case "running":
		return nil, time.Duration(max(number(rest, 0), 1)) * time.Millisecond, false
	case "done":
		o, err := decodeOutcome(text(rest, 0))
		if err == nil && o.flight == c.leader && time.Now().Add(-time.Duration(number(rest, 1))*time.Microsecond).Before(c.started) {
			// It had ended before this call began, but its leader could not
			// tell Redis.
			return (*call[V]).joining, 0, true
		}
		if err == nil && o.flight == c.leader {
			return c.receive(o, coalesce.RemoteFollower, finishedAt(sent, number(rest, 1))), 0, true
		}
		// Garbage under the result's name can't be waited out: the flight
		// has ended, or will be over with its lease.
		g.garbage.Add(1)
		return c.goAlone(causeGarbage), 0, false
	}
	c.lost = true
	return (*call[V]).joining, 0, false
}
