package pubsub

import (
	"container/list"
	"time"
)

// sweepIdle unsubscribes from the channels that have been idle for idleTime.
func (s *Subscriptions) sweepIdle() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sweep = nil
	if s.ctx.Err() != nil {
		return
	}
	over := 0
	for e := s.idle.Front(); e != nil && time.Since(e.Value.(*subscription).idleSince) >= idleTime; e = e.Next() {
		over++
	}
	s.dropIdle(over)
	if e := s.idle.Front(); e != nil {
		s.sweep = time.AfterFunc(time.Until(e.Value.(*subscription).idleSince.Add(idleTime)), s.sweepIdle)
	}
}

// dropIdle unsubscribes from the n channels that have been idle for longest. It wants
// s.mu held.
func (s *Subscriptions) dropIdle(n int) {
	if n == 0 {
		return
	}
	channels := map[*connection][]string{}
	for range n {
		sub := s.idle.Remove(s.idle.Front()).(*subscription)
		sub.idle = nil
		delete(s.channels, sub.channel)
		if sub.on != nil {
			channels[sub.on] = append(channels[sub.on], sub.channel)
		}
	}
	for c, names := range channels {
		c.order(unsubscribe, names...)
	}
}

// dropIdleOn drops the channels of a connection that is lost which have no waiters: it would
// take the server and this replica their time to subscribe to them again. It wants s.mu held.
func (s *Subscriptions) dropIdleOn(c *connection) {
	var next *list.Element
	for e := s.idle.Front(); e != nil; e = next {
		next = e.Next()
		if sub := e.Value.(*subscription); sub.on == c {
			s.idle.Remove(e)
			delete(s.channels, sub.channel)
		}
	}
}
