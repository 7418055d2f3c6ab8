package pubsub

import (
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/fleetcall/fleetcall/coalesce/internal/wire"
)

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
	messages  []wire.Outcome // since the last Take
	missed    bool           // a message may have been missed
	confirmed bool
}

// News is what a waiter learned since the last Take.
type News struct {
	Outcome   wire.Outcome // the flight's message, if it came
	Came      bool         // the flight's message came
	Missed    bool         // a message may have been missed: the waiter must peek
	Confirmed bool         // Redis has confirmed the subscription, on the present connection
	Refused   bool         // it is not confirmed, and the server is known to refuse it or not to answer
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
	n.Missed, n.Confirmed = w.missed, w.confirmed
	n.Refused = !w.sub.confirmed && w.sub.on != nil && w.subs.refusing[w.sub.on.address]
	w.messages, w.missed = nil, false
	return n
}

// Distrust replaces the connection that w waits on, in the background: a message that
// was published did not come, so the connection may be to the wrong server. All waiters
// on it are woken to peek.
func (w *Waiter) Distrust() {
	w.subs.mu.Lock()
	defer w.subs.mu.Unlock()
	if c := w.sub.on; c != nil {
		c.send(func(*redis.PubSub) error { return errDistrusted })
	}
}

// GiveUp says that the subscription was not confirmed in time. It returns false where others
// on the connection have been confirmed within the timeout: this one's turn will come. If
// nothing at all came on the connection since w waits, it is pinged, and until something
// comes, those who wait to be confirmed are told that it is refused.
func (w *Waiter) GiveUp() bool {
	s := w.subs
	s.mu.Lock()
	defer s.mu.Unlock()
	c := w.sub.on
	switch {
	case w.sub.confirmed || c != nil && time.Since(c.lastConfirmed) < s.config.Timeout:
		return false
	case c == nil || c.lastRead.Load() >= w.since.UnixNano():
		return true
	}
	s.refusing[c.address] = true
	for _, sub := range s.channels {
		if sub.on == c && !sub.confirmed {
			sub.wakeAll()
		}
	}
	c.ping()
	return true
}

func (w *Waiter) wakeUp() {
	select {
	case w.Wake <- struct{}{}:
	default: // it was woken before, and has not looked yet
	}
}

func (sub *subscription) wakeAll() {
	for w := range sub.waiters {
		w.confirmed = sub.confirmed
		w.missed = true
		w.wakeUp()
	}
}

func (s *Subscriptions) deliver(m *redis.Message) {
	o, err := wire.Decode(m.Payload)
	s.mu.Lock()
	defer s.mu.Unlock()
	sub := s.channels[m.Channel]
	if sub == nil {
		return
	}
	if err != nil {
		// It may have been the outcome of any flight of the channel.
		s.config.OnGarbage()
		sub.wakeAll()
		return
	}
	for w := range sub.waiters {
		if len(w.messages) == maxMessages {
			w.messages = w.messages[1:]
			w.missed = true
		}
		w.messages = append(w.messages, o)
		w.wakeUp()
	}
}
