// Package pubsub has the channels that a replica listens to: on one connection, or,
// on a Redis Cluster, on one connection for each shard and one for the control channel.
//
// Its loops read what Redis sends and never wait for a waiter, so that Redis never
// finds this replica slow. A waiter that may have missed a message is told so, and
// must peek: ask Redis what became of its flight.
package pubsub

import (
	"container/list"
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	// A channel without waiters stays subscribed for idleTime, so that a hot
	// key's followers need no SUBSCRIBE. At most maxIdle channels stay so.
	idleTime = 30 * time.Second
	maxIdle  = 1024

	// A connection without waiters is pinged when it has been silent for so long. A
	// connection with waiters is pinged at each beat.
	silence = 10 * time.Second

	// The waits before a lost connection is made again: the first is minBackoff, each
	// is twice the one before, and none is longer than maxBackoff.
	minBackoff = 10 * time.Millisecond
	maxBackoff = time.Second
	// The same where Redis answered, and refused to subscribe.
	minRefused = 100 * time.Millisecond
	maxRefused = 5 * time.Second

	// A waiter keeps this many messages until it is asked for its flight's. When more
	// come, it has missed one.
	maxMessages = 8

	// maxChannels is how many channels one command subscribes to at most.
	maxChannels = 256

	// Those who waited on a connection that was lost look what they have missed when they are
	// subscribed again: spread over so long for each, and over a timeout at most. All replicas
	// may have lost theirs in the same moment.
	spreadEach = 2 * time.Millisecond
)

// Config is what Subscriptions need to know, and the functions that they call. None of
// the functions may be nil. They are called on the goroutine that reads, so they must
// not wait, nor call a method of Subscriptions or Waiter.
type Config struct {
	Control   string               // the name of the control channel
	Beat      time.Duration        // how often a connection with waiters is pinged
	Timeout   time.Duration        // how long an answer to a ping may take
	OnControl func(message string) // a message came on the control channel
	OnHeard   func(address string) // anything came from a server; without a Cluster, and on the control channel, the address is ""
	OnConnect func()               // the control channel is subscribed, for the first time or again
	OnFailure func()               // a connection was lost, or could not be made
	OnDeaf    func(address string) // the same, and somebody waits on it; the address is as for OnHeard
	OnGarbage func()               // a message was not readable
}

// Subscriptions are all channels of a replica. Their methods may be called by several
// goroutines.
type Subscriptions struct {
	client  redis.UniversalClient
	cluster *redis.ClusterClient // nil: one server
	config  Config
	beats   chan time.Duration

	broadcast atomic.Pointer[broadcast] // nil: none

	ctx     context.Context // ends with Close
	ended   context.Context // has ended: under it, the client dials no more
	cancel  context.CancelFunc
	stopped sync.WaitGroup

	mu          sync.Mutex
	beat        time.Duration
	channels    map[string]*subscription
	connections map[string]*connection // by the server's address; main is ""
	refusing    map[string]bool        // by the same: the last connection, or its attempt, ended before anything came
	retry       chan struct{}          // closed when lost connections are to be made at once
	main        *connection            // the control channel's; without a Cluster, every channel's
	idle        *list.List             // of *subscription, longest idle first
	sweep       *time.Timer
}

// subscription is one channel. Subscriptions.mu guards all its fields.
type subscription struct {
	channel   string
	on        *connection   // nil while it is not known which shard has it
	confirmed bool          // by the server, on the present connection
	spread    time.Duration // of the looks of its waiters, once it is confirmed
	waiters   map[*Waiter]struct{}
	idle      *list.Element // when it has no waiter
	idleSince time.Time
}

// Open returns at once. It connects in the background, and connects again whenever a
// connection is lost, until Close. A connection that hangs is found within two beats and
// the timeout where a waiter depends on it, and within ten seconds, a beat and the
// timeout where none does. The client stays the caller's.
func Open(client redis.UniversalClient, config Config) *Subscriptions {
	s := &Subscriptions{
		client: client, config: config,
		beat:        config.Beat,
		beats:       make(chan time.Duration, 1),
		channels:    map[string]*subscription{},
		connections: map[string]*connection{},
		refusing:    map[string]bool{},
		retry:       make(chan struct{}),
		idle:        list.New(),
	}
	s.cluster, _ = client.(*redis.ClusterClient)
	s.ctx, s.cancel = context.WithCancel(context.Background())
	ended, end := context.WithCancel(context.Background())
	end()
	s.ended = ended
	s.mu.Lock()
	s.main = s.connect(s.client, "", 0)
	s.mu.Unlock()
	s.stopped.Go(s.watch)
	return s
}

// PublishCommand returns the command that publishes on the channels of keys: PUBLISH, or
// SPUBLISH on a Redis Cluster, where a message stays on its shard.
func (s *Subscriptions) PublishCommand() string {
	if s.cluster != nil {
		return "SPUBLISH"
	}
	return "PUBLISH"
}

// Hasten makes the beat shorter if it is longer than this.
func (s *Subscriptions) Hasten(beat time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if beat >= s.beat {
		return
	}
	s.beat = beat
	select {
	case <-s.beats: // it was longer
	default:
	}
	s.beats <- beat
}

// Close ends every subscription, and waits until its goroutines have ended. A client that
// is dialling keeps it, unless its dialer obeys the context. Waiters may stay open: they
// hear nothing more.
func (s *Subscriptions) Close() {
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

// Existing returns a waiter on the channel if Redis has confirmed its subscription, or
// nil. Who joins a flight after that need not peek: the flight's message cannot be
// missed. The waiter must be closed.
func (s *Subscriptions) Existing(channel string) *Waiter {
	s.mu.Lock()
	defer s.mu.Unlock()
	sub := s.channels[channel]
	if sub == nil || !sub.confirmed {
		return nil
	}
	return s.addWaiter(sub)
}

// Subscribe returns a waiter on the channel, and subscribes to the channel in the
// background where that was not done before. When Redis has confirmed the subscription,
// the waiter is woken to peek: the flight's message may have come before. The waiter must
// be closed.
func (s *Subscriptions) Subscribe(channel string) *Waiter {
	s.mu.Lock()
	defer s.mu.Unlock()
	sub := s.channels[channel]
	isNew := sub == nil
	if isNew {
		sub = &subscription{channel: channel, waiters: map[*Waiter]struct{}{}}
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
	if c := sub.on; c != nil && c.pubsub == nil && !s.refusing[c.address] {
		s.retryNow() // the server may be there again
	}
	return w
}

// Retry makes lost connections again at once: a server has come up.
func (s *Subscriptions) Retry() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.retryNow()
}

// retryNow wants s.mu held.
func (s *Subscriptions) retryNow() {
	close(s.retry)
	s.retry = make(chan struct{})
}

// pause waits for so long, or until Retry. It returns false when Close was called.
func (s *Subscriptions) pause(backoff time.Duration) bool {
	s.mu.Lock()
	retry := s.retry
	s.mu.Unlock()
	select {
	case <-s.ctx.Done():
		return false
	case <-time.After(backoff):
	case <-retry:
	}
	return true
}

// place subscribes to a channel at the server that has it. On a Cluster, the client
// may have to ask which one that is, so it is done in the background. If a connection
// has to be made, it is made after backoff. place wants s.mu held.
func (s *Subscriptions) place(sub *subscription, backoff time.Duration) {
	if s.ctx.Err() != nil {
		return
	}
	if s.cluster == nil {
		sub.on = s.main
		s.main.order(subscribe, sub.channel)
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
			if !s.pause(backoff) {
				return
			}
		}
	})
}

// placeOn subscribes to a channel at the master that the client is for.
func (s *Subscriptions) placeOn(sub *subscription, client *redis.Client, backoff time.Duration) {
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
	c.order(subscribe, sub.channel)
	if s.refusing[c.address] {
		sub.changed()
	}
}

// reload has the client of a Cluster ask where the slots are.
func (s *Subscriptions) reload() {
	if s.cluster != nil {
		s.cluster.ReloadState(s.ctx)
	}
}
