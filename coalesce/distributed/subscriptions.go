package distributed

import (
	"container/list"
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	// A channel nobody waits on stays subscribed for idleFor, so that a hot
	// key's followers need no SUBSCRIBE; of those, at most maxIdle.
	idleFor = 30 * time.Second
	maxIdle = 1024

	// A connection that was silent for silence is pinged, and replaced when
	// it is silent for as long again.
	silence = 10 * time.Second

	// Reconnecting waits between these, doubling. The first try is at once.
	minBackoff = 10 * time.Millisecond
	maxBackoff = time.Second

	// A waiter keeps this many messages from before it knew its flight.
	keptMessages = 8
)

// subscriptions is a replica's one subscription connection. Its loop never
// waits for a waiter.
type subscriptions struct {
	client    redis.UniversalClient
	control   string
	onControl func(payload string)
	onConnect func()
	onFailure func()
	onGarbage func()

	ctx      context.Context // ends with close
	cancel   context.CancelFunc
	stopped  sync.WaitGroup
	lastRead atomic.Int64 // Unix nanoseconds

	mu       sync.Mutex
	pubsub   *redis.PubSub
	channels map[string]*subscription
	idle     *list.List // of *subscription, longest idle first
	sweep    *time.Timer
}

// subscription is one channel; all is guarded by subscriptions.mu.
type subscription struct {
	channel   string
	confirmed bool // by the server, on the present connection
	waiters   map[*waiter]struct{}
	idle      *list.Element // when nobody waits
	idleSince time.Time
}

// waiter is one follower's view of its channel.
type waiter struct {
	subs *subscriptions
	sub  *subscription
	wake chan struct{} // capacity one: something below changed

	// Guarded by subs.mu.
	messages  []outcome // since the waiter was added
	missed    bool      // a message may have been: peek
	confirmed bool
}

// start connects in the background and keeps connected until close.
func (s *subscriptions) start() {
	s.channels = map[string]*subscription{}
	s.idle = list.New()
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.stopped.Go(s.loop)
	s.stopped.Go(s.watch)
}

func (s *subscriptions) close() {
	s.cancel()
	s.mu.Lock()
	pubsub := s.pubsub
	if s.sweep != nil {
		s.sweep.Stop()
	}
	s.mu.Unlock()
	if pubsub != nil {
		_ = pubsub.Close() // what matters is that the loop's read ends
	}
	s.stopped.Wait()
}

// existing returns a waiter on the channel if it is subscribed and confirmed.
// A flight that is joined after it needs no peek: its message cannot be missed.
func (s *subscriptions) existing(channel string) *waiter {
	s.mu.Lock()
	defer s.mu.Unlock()
	sub := s.channels[channel]
	if sub == nil || !sub.confirmed {
		return nil
	}
	return s.addWaiter(sub)
}

// subscribe returns a waiter on the channel. Once the server has confirmed the
// subscription, the waiter is woken to peek: its message may have come before.
func (s *subscriptions) subscribe(channel string) *waiter {
	s.mu.Lock()
	sub := s.channels[channel]
	isNew := sub == nil
	if isNew {
		sub = &subscription{channel: channel, waiters: map[*waiter]struct{}{}}
		s.channels[channel] = sub
	}
	w := s.addWaiter(sub)
	if sub.confirmed {
		w.missed = true
		w.wakeUp()
	}
	pubsub := s.pubsub
	s.mu.Unlock()
	if isNew {
		s.send(pubsub, (*redis.PubSub).Subscribe, channel)
	}
	return w
}

// send writes in the background: the client may be dialling. A write that
// fails ends the PubSub, so that the loop subscribes to everything anew: the
// PubSub's own reconnect may leave out the very channels of that write.
func (s *subscriptions) send(pubsub *redis.PubSub, write func(*redis.PubSub, context.Context, ...string) error, channels ...string) {
	if pubsub == nil {
		return
	}
	s.stopped.Go(func() {
		if write(pubsub, s.ctx, channels...) != nil {
			_ = pubsub.Close()
		}
	})
}

// addWaiter wants s.mu held.
func (s *subscriptions) addWaiter(sub *subscription) *waiter {
	w := &waiter{subs: s, sub: sub, wake: make(chan struct{}, 1), confirmed: sub.confirmed}
	sub.waiters[w] = struct{}{}
	if sub.idle != nil {
		s.idle.Remove(sub.idle)
		sub.idle = nil
	}
	return w
}

// close ends the wait. The channel stays subscribed for a while.
func (w *waiter) close() {
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
		s.sweep = time.AfterFunc(idleFor, s.sweepIdle)
	}
}

// sweepIdle unsubscribes from channels whose time is over.
func (s *subscriptions) sweepIdle() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sweep = nil
	if s.ctx.Err() != nil {
		return
	}
	over := 0
	for e := s.idle.Front(); e != nil && time.Since(e.Value.(*subscription).idleSince) >= idleFor; e = e.Next() {
		over++
	}
	s.dropIdle(over)
	if e := s.idle.Front(); e != nil {
		s.sweep = time.AfterFunc(time.Until(e.Value.(*subscription).idleSince.Add(idleFor)), s.sweepIdle)
	}
}

// dropIdle unsubscribes from the n channels that are longest idle. It wants
// s.mu held.
func (s *subscriptions) dropIdle(n int) {
	if n == 0 {
		return
	}
	channels := make([]string, 0, n)
	for range n {
		sub := s.idle.Remove(s.idle.Front()).(*subscription)
		sub.idle = nil
		delete(s.channels, sub.channel)
		channels = append(channels, sub.channel)
	}
	s.send(s.pubsub, (*redis.PubSub).Unsubscribe, channels...)
}

// take returns what w learned since the last take: the flight's message, if it
// came, and whether one may have been missed.
func (w *waiter) take(flight string) (o outcome, came, missed, confirmed bool) {
	w.subs.mu.Lock()
	defer w.subs.mu.Unlock()
	for _, m := range w.messages {
		if m.flight == flight {
			o, came = m, true
		}
	}
	w.messages = nil
	missed = w.missed
	w.missed = false
	return o, came, missed, w.confirmed
}

func (w *waiter) wakeUp() {
	select {
	case w.wake <- struct{}{}:
	default: // it is about to look anyway
	}
}

// wakeAll makes every waiter peek.
func (s *subscriptions) wakeAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, sub := range s.channels {
		sub.wakeAll()
	}
}

func (sub *subscription) wakeAll() {
	for w := range sub.waiters {
		w.confirmed = sub.confirmed
		w.missed = true
		w.wakeUp()
	}
}

// loop reads messages until close. Whatever goes wrong with a PubSub, it opens
// a new one, on which it subscribes to everything.
func (s *subscriptions) loop() {
	backoff := time.Duration(0)
	for s.ctx.Err() == nil {
		pubsub := s.client.Subscribe(s.ctx)
		s.mu.Lock()
		s.pubsub = pubsub
		channels := make([]string, 0, 1+len(s.channels))
		channels = append(channels, s.control)
		for channel := range s.channels {
			channels = append(channels, channel)
		}
		s.mu.Unlock()
		if s.ctx.Err() != nil { // close did not see this one
			_ = pubsub.Close()
			return
		}
		err := pubsub.Subscribe(s.ctx, channels...)
		for err == nil {
			var message any
			if message, err = pubsub.Receive(s.ctx); err == nil {
				backoff = 0
				s.lastRead.Store(time.Now().UnixNano())
				s.handle(message)
			}
		}
		_ = pubsub.Close()
		s.disconnected()
		if s.ctx.Err() != nil {
			return
		}
		s.onFailure()
		select {
		case <-s.ctx.Done():
		case <-time.After(backoff):
		}
		backoff = min(max(2*backoff, minBackoff), maxBackoff)
	}
}

// watch closes a connection that is silent though it was asked to answer: the
// peer may be gone without a word.
func (s *subscriptions) watch() {
	ticker := time.NewTicker(silence)
	defer ticker.Stop()
	var asked *redis.PubSub // by a ping
	var askedAt int64
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-ticker.C:
		}
		s.mu.Lock()
		pubsub := s.pubsub
		s.mu.Unlock()
		now, lastRead := time.Now().UnixNano(), s.lastRead.Load()
		switch {
		case pubsub == nil || now-lastRead < int64(silence):
		case pubsub == asked && lastRead < askedAt:
			_ = pubsub.Close()
		default:
			asked, askedAt = pubsub, now
			s.stopped.Go(func() { _ = pubsub.Ping(s.ctx) })
		}
	}
}

func (s *subscriptions) handle(message any) {
	switch m := message.(type) {
	case *redis.Message:
		if m.Channel == s.control {
			s.onControl(m.Payload)
			return
		}
		s.deliver(m)
	case *redis.Subscription:
		if m.Channel == s.control {
			if m.Kind == "subscribe" {
				s.onConnect()
			}
			return
		}
		s.confirm(m)
	}
}

func (s *subscriptions) deliver(m *redis.Message) {
	o, err := decodeOutcome(m.Payload)
	s.mu.Lock()
	defer s.mu.Unlock()
	sub := s.channels[m.Channel]
	if sub == nil {
		return
	}
	if err != nil {
		// It may have been anybody's.
		s.onGarbage()
		sub.wakeAll()
		return
	}
	for w := range sub.waiters {
		if len(w.messages) == keptMessages {
			w.messages = w.messages[1:]
			w.missed = true
		}
		w.messages = append(w.messages, o)
		w.wakeUp()
	}
}

// confirm handles the server's word on one channel. An UNSUBSCRIBE of an idle
// channel may overtake the SUBSCRIBE of its next follower:
//
//	sweep: drops the channel        follower: adds it again
//	                                sends SUBSCRIBE
//	sends UNSUBSCRIBE
//
// so that a channel that is wanted, and was unsubscribed from, is subscribed
// to again.
func (s *subscriptions) confirm(m *redis.Subscription) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sub := s.channels[m.Channel]
	if sub == nil {
		return
	}
	sub.confirmed = m.Kind == "subscribe"
	sub.wakeAll()
	if !sub.confirmed {
		s.send(s.pubsub, (*redis.PubSub).Subscribe, m.Channel)
	}
}

// disconnected makes every waiter look for itself: messages are being missed.
func (s *subscriptions) disconnected() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, sub := range s.channels {
		sub.confirmed = false
		sub.wakeAll()
	}
}
