package pubsub

import (
	"slices"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/fleetcall/fleetcall/coalesce/internal/wire"
)

// Forgetter is told that the key of the channel that it waits on was forgotten.
type Forgetter interface {
	// Forgotten is called as soon as the message has come, with the flight that it names:
	// that begins with the Fleet that forgot the key. It must not wait, nor call a method of
	// Subscriptions or Waiter. It may be called until shortly after the waiter was closed.
	Forgotten(by string)
}

// Waiter is one follower's view of its channel. Its methods may be called by several
// goroutines.
type Waiter struct {
	// Wake receives a value when Take has news. Its capacity is one: a waiter that was
	// woken takes all that is new.
	Wake  chan struct{}
	subs  *Subscriptions
	sub   *subscription
	since time.Time

	// Guarded by subs.mu.
	owner     Forgetter // may be nil
	muted     bool
	messages  []wire.Outcome // since the last Take
	signs     []sign         // that flights run, since the last Take and since missed was set; one for each flight
	missed    bool           // a message may have been missed
	spread    time.Duration  // of the looks, if missed
	confirmed bool
}

// sign is that a flight runs, and has a lease until then.
type sign struct {
	flight    string
	until     time.Time
	forgotten bool // the key was, while it ran
}

// News is what a waiter learned since the last Take.
type News struct {
	Outcome   wire.Outcome  // the flight's message, if it came
	Came      bool          // the flight's message came
	Missed    bool          // a message may have been missed: the waiter must peek, unless it hears more
	Spread    time.Duration // of Missed: the peeks of all who missed one are to be spread over so long
	Alive     bool          // the flight runs: so it did after all that may have been missed
	Until     time.Time     // of Alive: Redis drops its lease then, unless it is renewed
	Forgotten bool          // of Alive: its key was forgotten while it ran
	Confirmed bool          // Redis has confirmed the subscription, on the present connection
	Refused   bool          // it is not confirmed, and the server is known to refuse it
}

// addWaiter wants s.mu held.
func (s *Subscriptions) addWaiter(sub *subscription) *Waiter {
	w := &Waiter{subs: s, sub: sub, Wake: make(chan struct{}, 1), since: time.Now(), confirmed: sub.confirmed}
	sub.waiters[w] = struct{}{}
	if sub.idle != nil {
		s.idle.Remove(sub.idle)
		sub.idle = nil
	}
	return w
}

// Close ends the wait, and must be called once. The channel stays subscribed for a while,
// for the next waiter.
func (w *Waiter) Close() {
	s := w.subs
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(w.sub.waiters, w)
	if len(w.sub.waiters) > 0 || s.ctx.Err() != nil {
		return
	}
	w.sub.idleSince = time.Now()
	w.sub.idle = s.idle.PushBack(w.sub)
	if s.idle.Len() > maxIdle {
		s.dropIdle(s.idle.Len() - maxIdle)
	}
	if s.sweep == nil {
		s.sweep = time.AfterFunc(idleTime, s.sweepIdle)
	}
}

// Take returns what w learned since the last Take, of the messages only the flight's. It
// drops the messages of other flights.
func (w *Waiter) Take(flight string) (n News) {
	w.subs.mu.Lock()
	defer w.subs.mu.Unlock()
	for _, m := range w.messages {
		if m.Flight == flight {
			n.Outcome, n.Came = m, true
		}
	}
	for _, sign := range w.signs {
		if sign.flight == flight {
			n.Alive, n.Until, n.Forgotten = true, sign.until, sign.forgotten
		}
	}
	n.Missed, n.Spread, n.Confirmed = w.missed, w.spread, w.confirmed
	n.Refused = !w.sub.confirmed && w.sub.on != nil && w.subs.refusing[w.sub.on.address]
	w.messages, w.signs, w.missed, w.spread = nil, nil, false, 0
	return n
}

// Tell has owner be told from now on when the key is forgotten.
func (w *Waiter) Tell(owner Forgetter) {
	w.subs.mu.Lock()
	w.owner = owner
	w.subs.mu.Unlock()
}

// Mute says that no message is going to be taken any more: what w waits for is that its key
// is forgotten.
func (w *Waiter) Mute() {
	w.subs.mu.Lock()
	defer w.subs.mu.Unlock()
	w.muted, w.messages = true, nil
}

// Distrust replaces the connection that w waits on, in the background: a message that
// was published did not come, so the connection may be to the wrong server. All waiters
// on it are woken to peek.
func (w *Waiter) Distrust() {
	w.subs.mu.Lock()
	defer w.subs.mu.Unlock()
	if c := w.sub.on; c != nil && c.pubsub != nil {
		pubsub := c.pubsub
		w.subs.stopped.Go(func() { _ = pubsub.Close() })
	}
}

// Doubt says that the subscription was not confirmed in time. If the connection has been
// silent for a timeout, it is pinged, and replaced unless something comes.
func (w *Waiter) Doubt() {
	s := w.subs
	s.mu.Lock()
	defer s.mu.Unlock()
	c := w.sub.on
	if w.sub.confirmed || c == nil {
		return
	}
	last := max(c.lastRead.Load(), c.lastPing) // what is lost with a ping is found by it
	if time.Since(time.Unix(0, last)) >= s.config.Timeout {
		c.ping()
	}
}

func (w *Waiter) wakeUp() {
	select {
	case w.Wake <- struct{}{}:
	default: // it was woken before, and has not looked yet
	}
}

// changed wakes every waiter: the subscription is confirmed no more, or refused.
func (sub *subscription) changed() {
	for w := range sub.waiters {
		w.confirmed = sub.confirmed
		w.wakeUp()
	}
}

// missed wakes every waiter to peek. What its flight said before proves nothing.
func (sub *subscription) missed() {
	for w := range sub.waiters {
		w.missed, w.spread, w.signs = true, sub.spread, nil
	}
	sub.changed()
	sub.spread = 0
}

func (s *Subscriptions) deliver(m *redis.Message) {
	o, err := wire.Decode(m.Payload)
	if err == nil && o.Kind == wire.KindForgotten {
		for _, owner := range s.owners(m.Channel) {
			owner.Forgotten(o.Flight)
		}
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	sub := s.channels[m.Channel]
	if sub == nil {
		return
	}
	if err != nil {
		// It may have been the outcome of any flight of the channel.
		s.config.OnGarbage()
		sub.missed()
		return
	}
	if o.Kind == wire.KindAlive {
		sub.lives(sign{strings.Clone(o.Flight), time.Now().Add(o.Lease(time.Hour)), o.Forgotten()})
		return
	}
	for w := range sub.waiters {
		if w.muted {
			continue
		}
		if len(w.messages) == maxMessages {
			w.messages = w.messages[1:]
			w.missed, w.signs = true, nil // the one that is lost may have come after them
		}
		w.messages = append(w.messages, o)
		w.wakeUp()
	}
}

// owners returns those who wait on a channel.
func (s *Subscriptions) owners(channel string) (all []Forgetter) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if sub := s.channels[channel]; sub != nil {
		for w := range sub.waiters {
			if w.owner != nil {
				all = append(all, w.owner)
			}
		}
	}
	return all
}

// awaited says whether anybody waits for a flight on the channel, and not only to hear that its
// key is forgotten.
func (sub *subscription) awaited() bool {
	for w := range sub.waiters {
		if !w.muted {
			return true
		}
	}
	return false
}

// lives tells every waiter that a flight runs.
func (sub *subscription) lives(told sign) {
	for w := range sub.waiters {
		w.signs = slices.DeleteFunc(w.signs, func(s sign) bool { return s.flight == told.flight })
		if len(w.signs) == maxMessages {
			w.signs = w.signs[1:]
		}
		w.signs = append(w.signs, told)
		w.wakeUp()
	}
}
