package distributed

import (
	"container/list"
	"context"
	"errors"
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

	// A connection that nobody waits on is pinged when it was silent for so
	// long. One that somebody waits on is pinged at each third of a lease TTL.
	silence = 10 * time.Second

	// Reconnecting waits between these, doubling. The first try is at once.
	minBackoff = 10 * time.Millisecond
	maxBackoff = time.Second

	// A waiter keeps this many messages from before it knew its flight.
	keptMessages = 8
)

var errDistrusted = errors.New("fleetcall: a message was lost")

// subscriptions are the channels that a replica listens to: on one connection,
// or, on a Redis Cluster, on one for each shard and one for the control channel.
// Their loops never wait for a waiter.
type subscriptions struct {
	client    redis.UniversalClient
	cluster   *redis.ClusterClient // nil: one server
	publish   string               // the command for the channels of keys
	control   string
	beat      time.Duration
	timeout   time.Duration
	onControl func(payload string)
	onConnect func()
	onFailure func()
	onGarbage func()

	ctx     context.Context // ends with close
	cancel  context.CancelFunc
	stopped sync.WaitGroup

	mu          sync.Mutex
	channels    map[string]*subscription
	connections map[string]*connection // by the server's address; main is ""
	main        *connection            // the control channel's; without a Cluster, every channel's
	idle        *list.List             // of *subscription, longest idle first
	sweep       *time.Timer
}

// subscription is one channel; all is guarded by subscriptions.mu.
type subscription struct {
	channel   string
	on        *connection // nil while it is not known which shard has it
	confirmed bool        // by the server, on the present connection
	waiters   map[*waiter]struct{}
	idle      *list.Element // when nobody waits
	idleSince time.Time
}

// connection is one subscription connection, or the attempts to have it.
type connection struct {
	subs   *subscriptions
	client interface {
		Subscribe(context.Context, ...string) *redis.PubSub
	}
	address  string
	backoff  time.Duration
	lastRead atomic.Int64  // Unix nanoseconds
	pubsub   *redis.PubSub // guarded by subs.mu
}

// waiter is one follower's view of its channel.
type waiter struct {
	subs  *subscriptions
	sub   *subscription
	wake  chan struct{} // capacity one: something below changed
	since time.Time

	// Guarded by subs.mu.
	messages  []outcome // since the waiter was added
	missed    bool      // a message may have been: peek
	confirmed bool
}

func newSubscriptions(client redis.UniversalClient, set *settings) *subscriptions {
	s := &subscriptions{
		client: client, publish: "PUBLISH",
		control:     controlChannel(set.namespace),
		beat:        set.leaseTTL / 3,
		timeout:     set.redisTimeout,
		channels:    map[string]*subscription{},
		connections: map[string]*connection{},
		idle:        list.New(),
	}
	if cluster, ok := client.(*redis.ClusterClient); ok {
		s.cluster, s.publish = cluster, "SPUBLISH"
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s
}

// start connects in the background and keeps connected until close.
func (s *subscriptions) start() {
	s.mu.Lock()
	s.main = s.connect(s.client, "", 0)
	s.mu.Unlock()
	s.stopped.Go(s.watch)
}

// connect starts a connection to the server at address. It wants s.mu held.
func (s *subscriptions) connect(client interface {
	Subscribe(context.Context, ...string) *redis.PubSub
}, address string, backoff time.Duration) *connection {
	c := &connection{subs: s, client: client, address: address, backoff: backoff}
	s.connections[address] = c
	s.stopped.Go(c.loop)
	return c
}

func (s *subscriptions) close() {
	s.cancel()
	s.mu.Lock()
	var open []*redis.PubSub
	for _, c := range s.connections {
		if c.pubsub != nil {
			open = append(open, c.pubsub)
		}
	}
	if s.sweep != nil {
		s.sweep.Stop()
	}
	s.mu.Unlock()
	for _, pubsub := range open {
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
	if isNew {
		s.place(sub, 0)
	}
	s.mu.Unlock()
	return w
}

// place subscribes to a channel at the server that has it. On a Cluster, that
// may take a question: it is done in the background, and a connection that has
// to be made begins with backoff. It wants s.mu held.
func (s *subscriptions) place(sub *subscription, backoff time.Duration) {
	if s.ctx.Err() != nil {
		return
	}
	if s.cluster == nil {
		sub.on = s.main
		s.main.subscribe(sub.channel)
		return
	}
	sub.on = nil
	s.stopped.Go(func() {
		for {
			client, err := s.cluster.MasterForKey(s.ctx, sub.channel)
			if err == nil {
				s.placeOn(sub, client, backoff)
				return
			}
			backoff = longer(backoff)
			select {
			case <-s.ctx.Done():
				return
			case <-time.After(backoff):
			}
		}
	})
}

// placeOn subscribes at the shard whose master the client is of.
func (s *subscriptions) placeOn(sub *subscription, client *redis.Client, backoff time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ctx.Err() != nil || s.channels[sub.channel] != sub || sub.on != nil {
		return
	}
	c := s.connections[client.Options().Addr]
	if c == nil {
		c = s.connect(client, client.Options().Addr, backoff)
	}
	sub.on = c
	c.subscribe(sub.channel)
}

// subscribe wants subs.mu held. While the connection is being made, it does
// nothing: the loop subscribes to all channels that are on it.
func (c *connection) subscribe(channels ...string) {
	c.send(func(pubsub *redis.PubSub) error {
		if c.address == "" {
			return pubsub.Subscribe(c.subs.ctx, channels...)
		}
		for _, channel := range channels { // those of one command must be of one slot
			if err := pubsub.SSubscribe(c.subs.ctx, channel); err != nil {
				return err
			}
		}
		return nil
	})
}

// unsubscribe wants subs.mu held.
func (c *connection) unsubscribe(channels ...string) {
	c.send(func(pubsub *redis.PubSub) error {
		if c.address == "" {
			return pubsub.Unsubscribe(c.subs.ctx, channels...)
		}
		for _, channel := range channels {
			if err := pubsub.SUnsubscribe(c.subs.ctx, channel); err != nil {
				return err
			}
		}
		return nil
	})
}

// send writes in the background: the client may be dialling. A write that
// fails ends the PubSub, so that the loop subscribes to everything anew: the
// PubSub's own reconnect may leave out the very channels of that write.
// It wants subs.mu held.
func (c *connection) send(write func(*redis.PubSub) error) {
	pubsub := c.pubsub
	if pubsub == nil {
		return
	}
	c.subs.stopped.Go(func() {
		if write(pubsub) != nil {
			_ = pubsub.Close()
		}
	})
}

// addWaiter wants s.mu held.
func (s *subscriptions) addWaiter(sub *subscription) *waiter {
	w := &waiter{subs: s, sub: sub, wake: make(chan struct{}, 1), since: time.Now(), confirmed: sub.confirmed}
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
		c.unsubscribe(names...)
	}
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

// distrust replaces the connection that w waits on.
func (w *waiter) distrust() {
	w.subs.mu.Lock()
	defer w.subs.mu.Unlock()
	if c := w.sub.on; c != nil {
		c.send(func(*redis.PubSub) error { return errDistrusted })
	}
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
// a new one, on which it subscribes to everything that is on the connection. On
// a Cluster, a shard's channels may have moved: they are placed anew.
func (c *connection) loop() {
	s := c.subs
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-time.After(c.backoff):
		}
		pubsub := c.client.Subscribe(s.ctx)
		s.mu.Lock()
		c.pubsub = pubsub
		var channels []string
		if c.address == "" {
			channels = append(channels, s.control)
		}
		for channel, sub := range s.channels {
			if sub.on == c {
				channels = append(channels, channel)
			}
		}
		if s.ctx.Err() == nil { // else close may not have seen this one
			c.subscribe(channels...)
		}
		s.mu.Unlock()
		var err error
		for err == nil && s.ctx.Err() == nil {
			var message any
			if message, err = pubsub.Receive(s.ctx); err == nil {
				c.backoff = 0
				c.lastRead.Store(time.Now().UnixNano())
				c.handle(message)
			}
		}
		_ = pubsub.Close()
		left := c.disconnected()
		if s.ctx.Err() != nil {
			return
		}
		s.onFailure()
		if left {
			return
		}
		c.backoff = longer(c.backoff)
	}
}

func longer(backoff time.Duration) time.Duration {
	return min(max(2*backoff, minBackoff), maxBackoff)
}

// watch finds connections that are silent though they were asked to answer:
// the server hangs, or the peer is gone without a word.
func (s *subscriptions) watch() {
	ticker := time.NewTicker(s.beat)
	defer ticker.Stop()
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-ticker.C:
		}
		s.mu.Lock()
		waiting := s.waiting()
		for _, c := range s.connections {
			silent := time.Since(time.Unix(0, c.lastRead.Load()))
			if silent >= silence || waiting[c] && silent >= s.beat {
				c.ping()
			}
		}
		s.mu.Unlock()
	}
}

// waiting returns the connections that somebody has waited on for a beat. It
// wants s.mu held.
func (s *subscriptions) waiting() map[*connection]bool {
	waiting := map[*connection]bool{}
	for _, sub := range s.channels {
		if waiting[sub.on] {
			continue
		}
		for w := range sub.waiters {
			if time.Since(w.since) >= s.beat {
				waiting[sub.on] = true
				break
			}
		}
	}
	return waiting
}

// ping closes the connection unless something arrives within the Redis timeout.
// It wants subs.mu held.
func (c *connection) ping() {
	pubsub := c.pubsub
	if pubsub == nil {
		return
	}
	asked := time.Now().UnixNano()
	c.send(func(pubsub *redis.PubSub) error { return pubsub.Ping(c.subs.ctx) })
	time.AfterFunc(c.subs.timeout, func() {
		if c.lastRead.Load() < asked {
			_ = pubsub.Close()
		}
	})
}

func (c *connection) handle(message any) {
	s := c.subs
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
		c.confirm(m)
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
// and a Cluster's server unsubscribes its clients from a slot that has moved.
// So a channel that is wanted, and was unsubscribed from, is placed again.
func (c *connection) confirm(m *redis.Subscription) {
	s := c.subs
	s.mu.Lock()
	defer s.mu.Unlock()
	sub := s.channels[m.Channel]
	if sub == nil || sub.on != c {
		return
	}
	sub.confirmed = m.Kind == "subscribe" || m.Kind == "ssubscribe"
	sub.wakeAll()
	if !sub.confirmed {
		s.reload()
		s.place(sub, minBackoff)
	}
}

// reload has the client of a Cluster ask where the slots are.
func (s *subscriptions) reload() {
	if s.cluster != nil {
		s.cluster.ReloadState(s.ctx)
	}
}

// disconnected makes every waiter look for itself: messages are being missed.
// A shard's connection is left for good, and says so by true.
func (c *connection) disconnected() (left bool) {
	s := c.subs
	s.mu.Lock()
	defer s.mu.Unlock()
	c.pubsub = nil
	left = c.address != ""
	if left {
		s.reload()
		delete(s.connections, c.address)
	}
	for _, sub := range s.channels {
		if sub.on != c {
			continue
		}
		sub.confirmed = false
		sub.wakeAll()
		if left {
			s.place(sub, longer(c.backoff))
		}
	}
	return left
}
