package pubsub

import "github.com/redis/go-redis/v9"

// order is something to be written on a connection.
type order struct {
	verb    verb
	channel string
}

type verb uint8

const (
	subscribe verb = iota
	unsubscribe
	ping // without a channel
)

// order has channels subscribed to, or the like, after all that was ordered before. While the
// connection is being made, it does nothing: open subscribes to all channels that are on the
// connection. It wants subs.mu held.
func (c *connection) order(verb verb, channels ...string) {
	if c.pubsub == nil {
		return
	}
	for _, channel := range channels {
		c.orders = append(c.orders, order{verb, channel})
	}
	if !c.writing && len(c.orders) > 0 {
		c.writing = true
		c.subs.stopped.Go(c.write)
	}
}

// write writes what was ordered, on a goroutine of its own, because a write may wait for the
// server. One that fails ends the PubSub, so that the loop subscribes to everything again.
func (c *connection) write() {
	for {
		pubsub, verb, channels := c.takeOrders()
		if pubsub == nil {
			return
		}
		if err := c.carryOut(pubsub, verb, channels); err != nil {
			_ = pubsub.Close()
		}
	}
}

// takeOrders returns what one command can say. The channels of a sharded one must be of one
// slot, so it has one. The PubSub is nil when there is nothing to write.
func (c *connection) takeOrders() (pubsub *redis.PubSub, verb verb, channels []string) {
	most := maxChannels
	if c.address != "" {
		most = 1
	}
	c.subs.mu.Lock()
	defer c.subs.mu.Unlock()
	for len(c.orders) > 0 && len(channels) < most && (channels == nil || c.orders[0].verb == verb) {
		verb, channels = c.orders[0].verb, append(channels, c.orders[0].channel)
		c.orders = c.orders[1:]
	}
	if channels == nil {
		c.writing, c.orders = false, nil
		return nil, 0, nil
	}
	return c.pubsub, verb, channels
}

func (c *connection) carryOut(pubsub *redis.PubSub, verb verb, channels []string) error {
	ended, sharded := c.subs.ended, c.address != ""
	switch {
	case verb == ping:
		return pubsub.Ping(ended)
	case verb == subscribe && sharded:
		return pubsub.SSubscribe(ended, channels...)
	case verb == subscribe:
		return pubsub.Subscribe(ended, channels...)
	case sharded:
		return pubsub.SUnsubscribe(ended, channels...)
	}
	return pubsub.Unsubscribe(ended, channels...)
}
