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

	// Guarded by subs.mu.
	pubsub   *redis.PubSub // nil until it is connected
	orders   []order       // that are not written yet
	writing  bool          // a goroutine writes them
	lastPing int64         // Unix nanoseconds
	silent   bool          // it was closed because a ping was not answered
}

// connect starts to make a connection to the server at address, after backoff. It wants
// s.mu held.
func (s *Subscriptions) connect(client subscriber, address string, backoff time.Duration) *connection {
	c := &connection{subs: s, client: client, address: address, backoff: backoff}
	s.connections[address] = c
	s.stopped.Go(c.loop)
	return c
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
		came, err := false, c.open(pubsub)
		away := isDial(err)
		if err == nil {
			came, err = c.read(pubsub)
		}
		_ = pubsub.Close()
		_, moved := redis.IsMovedError(err)
		left, waited := c.disconnected(came || moved, away)
		if s.ctx.Err() != nil {
			return
		}
		s.config.OnFailure()
		if waited {
			s.config.OnDeaf(c.address)
		}
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

// open connects pubsub, and subscribes to all channels of the connection. The first of them
// goes alone, because with it the client dials. From then on the client is given a context
// that has ended: its own reconnect, by which it would subscribe to everything a second time,
// just before the loop does, cannot dial any more. (A dialer that ignores its context can, such
// as go-redis' own for TLS: there it happens twice.)
func (c *connection) open(pubsub *redis.PubSub) error {
	s := c.subs
	first, err := "", error(nil)
	s.mu.Lock()
	for channel, sub := range s.channels {
		if sub.on == c {
			first = channel
			break
		}
	}
	s.mu.Unlock()
	switch {
	case c.address == "":
		first = s.config.Control
		err = pubsub.Subscribe(s.ctx, first)
	case first != "":
		err = pubsub.SSubscribe(s.ctx, first)
	default: // its only channel was dropped
		err = pubsub.Ping(s.ctx)
	}
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.ctx.Err(); err != nil {
		return err // Close has not seen this PubSub
	}
	c.pubsub = pubsub
	var channels []string
	if b := s.broadcast.Load(); c.address == "" && b != nil {
		channels = append(channels, b.channel)
	}
	for channel, sub := range s.channels {
		if sub.on == c && channel != first {
			channels = append(channels, channel)
		}
	}
	c.order(subscribe, channels...)
	return nil
}

// read handles what comes until the PubSub ends, and says whether anything came.
func (c *connection) read(pubsub *redis.PubSub) (came bool, err error) {
	s := c.subs
	for err == nil && s.ctx.Err() == nil {
		var message any
		if message, err = pubsub.Receive(s.ended); err != nil {
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
	c.lastPing = asked
	c.order(ping, "")
	time.AfterFunc(c.subs.config.Timeout, func() {
		if c.lastRead.Load() >= asked {
			return
		}
		c.subs.mu.Lock()
		c.silent = c.silent || c.pubsub == pubsub
		c.subs.mu.Unlock()
		_ = pubsub.Close()
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
		if b := s.broadcast.Load(); b != nil && b.channel == m.Channel {
			b.heard(m.Payload)
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
		if b := s.broadcast.Load(); b != nil && b.channel == m.Channel {
			b.hears.Store(m.Kind == "subscribe")
			if m.Kind == "subscribe" {
				b.connected()
			}
			return
		}
		c.confirm(m)
	}
}

// confirm handles what the server says about one channel. A channel that is wanted, and
// that the server says is unsubscribed, is placed again: its slot of a Cluster has moved.
// Or its next follower came before the answer to an UNSUBSCRIBE, and the answer to its
// SUBSCRIBE is still to come.
func (c *connection) confirm(m *redis.Subscription) {
	s := c.subs
	s.mu.Lock()
	defer s.mu.Unlock()
	sub := s.channels[m.Channel]
	if sub == nil || sub.on != c {
		return
	}
	sub.confirmed = m.Kind == "subscribe" || m.Kind == "ssubscribe"
	if sub.confirmed {
		sub.missed()
	} else {
		sub.changed()
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

// disconnected tells every waiter of the connection that it hears nothing, until it is
// confirmed again. The channels that nobody waits on are dropped.
// Where the server took the connection, and ended it before anything came on it, it counts as
// one that refuses to subscribe, unless it only has the channel's slot no more. That it was
// away, or silent, says nothing new.
// disconnected returns whether it is left for good, as a shard's is, and whether anybody waits
// on it.
func (c *connection) disconnected(served, away bool) (left, waited bool) {
	s := c.subs
	s.mu.Lock()
	defer s.mu.Unlock()
	away, c.silent = away || c.silent, false
	c.pubsub, c.orders = nil, nil
	if b := s.broadcast.Load(); c.address == "" && b != nil {
		b.hears.Store(false)
	}
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
	s.dropIdleOn(c)
	var lost []*subscription
	waiting := 0
	for _, sub := range s.channels {
		if sub.on == c {
			lost = append(lost, sub)
			if sub.awaited() {
				waiting++
			}
		}
	}
	for _, sub := range lost {
		told := !sub.confirmed && !s.refusing[c.address]
		sub.confirmed = false
		sub.spread = min(time.Duration(waiting)*spreadEach, s.config.Timeout)
		if !told {
			sub.changed()
		}
		if left {
			s.place(sub, longer(c.backoff))
		}
	}
	return left, waiting > 0
}
