package pubsub

import "sync/atomic"

// broadcast is a channel that all replicas listen to, beside the control channel.
type broadcast struct {
	channel   string
	heard     func(message string)
	connected func()
	hears     atomic.Bool
}

// Broadcast listens to one channel more, on the connection of the control channel, from now
// on. It must be called once at the most. heard is called with each message, and connected
// when the channel is subscribed, for the first time or again: on the goroutine that reads, so
// that they must not wait, nor call a method of Subscriptions or Waiter.
func (s *Subscriptions) Broadcast(channel string, heard func(message string), connected func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.broadcast.Store(&broadcast{channel: channel, heard: heard, connected: connected})
	s.main.order(subscribe, channel)
}

// Hears says whether the channel of Broadcast is subscribed, for all that is known.
func (s *Subscriptions) Hears() bool {
	b := s.broadcast.Load()
	return b != nil && b.hears.Load()
}
