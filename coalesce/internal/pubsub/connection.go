package pubsub

import (
	"context"
	"errors"
	"net"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
)

// subscriber makes a connection: it is the client, or the client of a shard's master.
type subscriber interface {
	Subscribe(ctx context.Context, channels ...string) *redis.PubSub
}

// connection is one connection with subscriptions, or the attempts to make it.
type connection struct {
	subs     *Subscriptions
	client   subscriber
	address  string // of the shard's master; "" for the main connection
	backoff  time.Duration
	lastRead atomic.Int64 // Unix nanoseconds
	// unreached: the last write that failed could not connect.
	unreached atomic.Bool

	// Guarded by subs.mu.
	pubsub        *redis.PubSub
	lastConfirmed time.Time // a channel of a key was
}

var errDistrusted = errors.New("fleetcall: a message was lost")

// connect starts to make a connection to the server at address, after backoff. It wants
// s.mu held.
func (s *Subscriptions) connect(client subscriber, address string, backoff time.Duration) *connection {
	c := &connection{subs: s, client: client, address: address, backoff: backoff}
	s.connections[address] = c
	s.stopped.Go(c.loop)
	return c
}

// subscribe subscribes to channels. While the connection is being made, it does
// nothing: the loop subscribes to all channels that are on the connection. It wants
// subs.mu held.
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

// unsubscribe ends the subscriptions to channels. It wants subs.mu held.
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

// send writes in the background, because the client may be dialling. A write that
// fails ends the PubSub, so that the loop subscribes to everything again: the
// PubSub's own reconnect may leave out the very channels of that write.
// send wants subs.mu held.
func (c *connection) send(write func(*redis.PubSub) error) {
	pubsub := c.pubsub
	if pubsub == nil {
		return
	}
	c.subs.stopped.Go(func() {
		if err := write(pubsub); err != nil {
			c.unreached.Store(isDial(err))
			_ = pubsub.Close()
		}
	})
}

// loop reads messages until Close. When anything goes wrong with a PubSub, it opens
// a new one, on which it subscribes to all channels of the connection. On a Cluster, a
// shard's channels may have moved: its loop ends, and each channel is placed again.
func (c *connection) loop() {
	s := c.subs
	for {
		if !s.pause(c.backoff) {
			return
		}
		pubsub := c.client.Subscribe(s.ctx)
		s.mu.Lock()
		c.pubsub = pubsub
		var channels []string
		if c.address == "" {
			channels = append(channels, s.config.Control)
		}
		for channel, sub := range s.channels {
			if sub.on == c {
				channels = append(channels, channel)
			}
		}
		if s.ctx.Err() == nil { // otherwise Close may not have seen this PubSub
			c.subscribe(channels...)
		}
		s.mu.Unlock()
		came, err := c.read(pubsub)
		_ = pubsub.Close()
		_, moved := redis.IsMovedError(err)
		left := c.disconnected(came || moved, isDial(err) || c.unreached.Swap(false))
		if s.ctx.Err() != nil {
			return
		}
		s.config.OnFailure()
		if left {
			return
		}
		if refusal := redis.Error(nil); errors.As(err, &refusal) && !moved {
			c.backoff = min(max(2*c.backoff, minRefused), maxRefused)
		} else {
			c.backoff = longer(c.backoff)
		}
	}
}

// read handles what comes until the PubSub ends, and says whether anything came.
func (c *connection) read(pubsub *redis.PubSub) (came bool, err error) {
	s := c.subs
	for err == nil && s.ctx.Err() == nil {
		var message any
		if message, err = pubsub.Receive(s.ctx); err != nil {
			break
		}
		came = true
		c.backoff = 0
		c.lastRead.Store(time.Now().UnixNano())
		c.served()
		s.config.OnHeard(c.address)
		c.handle(message)
	}
	return came, err
}

func isDial(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial"
}

func longer(backoff time.Duration) time.Duration {
	return min(max(2*backoff, minBackoff), maxBackoff)
}

// watch pings connections that have been silent, at each beat: the server may hang, or
// the network may have lost it.
func (s *Subscriptions) watch() {
	ticker := time.NewTicker(s.config.Beat)
	defer ticker.Stop()
	for {
		select {
		case <-s.ctx.Done():
			return
		case beat := <-s.beats:
			ticker.Reset(beat)
			continue
		case <-ticker.C:
		}
		s.mu.Lock()
		waiting := s.waiting()
		for _, c := range s.connections {
			silent := time.Since(time.Unix(0, c.lastRead.Load()))
			if silent >= silence || silent >= s.beat && (waiting[c] || s.refusing[c.address]) {
				c.ping()
			}
		}
		s.mu.Unlock()
	}
}

// waiting returns the connections on which a waiter has waited for a beat. It
// wants s.mu held.
func (s *Subscriptions) waiting() map[*connection]bool {
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

// ping closes the connection unless something arrives within the timeout.
// It wants subs.mu held.
func (c *connection) ping() {
	pubsub := c.pubsub
	if pubsub == nil {
		return
	}
	asked := time.Now().UnixNano()
	c.send(func(pubsub *redis.PubSub) error { return pubsub.Ping(c.subs.ctx) })
	time.AfterFunc(c.subs.config.Timeout, func() {
		if c.lastRead.Load() < asked {
			_ = pubsub.Close()
		}
	})
}

func (c *connection) handle(message any) {
	s := c.subs
	switch m := message.(type) {
	case *redis.Message:
		if m.Channel == s.config.Control {
			s.config.OnControl(m.Payload)
			return
		}
		s.deliver(m)
	case *redis.Subscription:
		if m.Channel == s.config.Control {
			if m.Kind == "subscribe" {
				s.config.OnConnect()
			}
			return
		}
		c.confirm(m)
	}
}

// confirm handles what the server says about one channel. A channel that is wanted, and
// that the server says is unsubscribed, is placed again. That happens when a slot of a
// Cluster has moved, and when the SUBSCRIBE of the next follower of an idle channel is
// overtaken by the UNSUBSCRIBE:
//
//	sweepIdle: drops the channel    follower: adds it again
//	                                sends SUBSCRIBE
//	sends UNSUBSCRIBE
func (c *connection) confirm(m *redis.Subscription) {
	s := c.subs
	s.mu.Lock()
	defer s.mu.Unlock()
	c.lastConfirmed = time.Now()
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

// served notes that the server does not refuse to subscribe.
func (c *connection) served() {
	s := c.subs
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.refusing, c.address)
}

// disconnected wakes every waiter of the connection to peek: messages are being missed.
// Where nothing ever came on it, the server counts as one that refuses to subscribe,
// unless it only has the channel's slot no more. One that could not be connected to may
// have been away: that says nothing new.
// It returns true for a shard's connection, which is left for good.
func (c *connection) disconnected(served, away bool) (left bool) {
	s := c.subs
	s.mu.Lock()
	defer s.mu.Unlock()
	c.pubsub = nil
	switch {
	case served:
		delete(s.refusing, c.address) // the next one may be better
	case !away:
		s.refusing[c.address] = true
	}
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
