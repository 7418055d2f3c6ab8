// Package census asks every live replica of a fleet a question, through Redis,
// and gathers the answers.
//
// A question is published on the channel <namespace>:census, to which each
// replica subscribes. Redis tells the asker how many received it, so the asker
// knows when it has every answer and when one is missing. Answers come back on
// a channel of the asker's own. Nothing is stored in Redis, and nothing is
// polled.
//
// A replica that is not connected to Redis at the moment of the question is
// not counted: nobody knows of it.
package census

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	// answerLimit is how long an asker whose context has no deadline waits for
	// answers.
	answerLimit = time.Second
	// maxAsking and maxAnswering bound the work that a client which asks in a
	// loop makes for the fleet.
	maxAsking, maxAnswering = 16, 64
	// maxReplicas is how many answers an asker has room for before it reads
	// the first.
	maxReplicas = 1024

	idleCheck           = 30 * time.Second // without a message, before a ping
	subscribeLimit      = 2 * time.Second  // for Redis to confirm a subscription or answer a ping
	minBackoff          = 50 * time.Millisecond
	maxBackoff          = time.Second
	subscriptionsNeeded = 2
)

// ErrDisconnected is returned by Ask while there is no subscription.
var ErrDisconnected = errors.New("fleetcall: not connected to Redis")

// Answer answers a question from another replica or this one. No bytes and no
// error mean that the question is not for this replica, which then says nothing.
// It must be safe for concurrent use.
type Answer func(ctx context.Context, question string) ([]byte, error)

// Config is what a Census needs. Observe, which may be nil, is told of every
// change of the subscription: nil when it is made, else why it is not there.
type Config struct {
	Client    redis.UniversalClient
	Namespace string
	Timeout   time.Duration // of one Redis command
	Observe   func(error)
}

// Census is one replica's part. Close it after use.
type Census struct {
	config      Config
	questions   string // the fleet's channel
	replies     string // this replica's
	answer      Answer
	subscribed  atomic.Bool
	ready       chan struct{}
	asking      chan struct{}
	answering   chan struct{}
	cancel      context.CancelFunc
	started     atomic.Bool
	loops       sync.WaitGroup
	mu          sync.Mutex
	outstanding map[string]*inquiry
}

// inquiry is one question that waits for answers.
type inquiry struct {
	heard   chan struct{} // has one when the asker has received its own question
	answers chan reply
}

type question struct {
	ID      string `json:"id"`
	Ask     string `json:"ask"`
	ReplyTo string `json:"reply_to"`
}

type reply struct {
	ID   string          `json:"id"`
	Data json.RawMessage `json:"data,omitempty"` // absent when the question could not be answered
}

// New returns a Census that does nothing before Start.
func New(config Config) *Census {
	if config.Observe == nil {
		config.Observe = func(error) {}
	}
	channel := config.Namespace + ":census"
	return &Census{
		config:      config,
		questions:   channel,
		replies:     channel + ":" + rand.Text(),
		ready:       make(chan struct{}),
		asking:      make(chan struct{}, maxAsking),
		answering:   make(chan struct{}, maxAnswering),
		outstanding: make(map[string]*inquiry),
	}
}

// Start subscribes in the background, now and whenever the connection is
// lost, and lets answer answer. answer's bytes must be JSON, or none. Start is
// called once, before Ask.
func (c *Census) Start(answer Answer) {
	if c.started.Swap(true) {
		panic("fleetcall: Census started twice")
	}
	c.answer = answer
	ctx, cancel := context.WithCancel(context.Background())
	c.cancel = cancel
	c.loops.Go(func() { c.run(ctx) })
}

// Ready is closed when the replica can be asked for the first time.
func (c *Census) Ready() <-chan struct{} { return c.ready }

// Close unsubscribes and waits for the answers under way, or until ctx ends.
func (c *Census) Close(ctx context.Context) error {
	if !c.started.Load() {
		return nil
	}
	c.cancel()
	done := make(chan struct{})
	go func() {
		c.loops.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("fleetcall: closing the census: %w", ctx.Err())
	}
}

// Ask asks every live replica, all at the same time, and returns their answers,
// this one's first. It waits until as many have answered as received the question
// (or as are expected, with this one, if that is not zero and less), until ctx
// ends, and for at most a second where ctx has no deadline; missing is how many of
// them did not answer. When the others cannot be asked, answers has this replica's
// alone and err says why.
func (c *Census) Ask(ctx context.Context, ask string, expected int) (answers [][]byte, missing int, err error) {
	var own []byte
	var ownErr error
	answered := make(chan struct{})
	// An answer may take as long as its question wants; the others must not
	// get theirs later for it.
	go func() {
		defer close(answered)
		own, ownErr = c.answer(ctx, ask)
	}()
	others, missing, err := c.askOthers(ctx, ask, expected)
	<-answered
	if ownErr != nil {
		return nil, 0, ownErr
	}
	return append([][]byte{own}, others...), missing, err
}

func (c *Census) askOthers(ctx context.Context, ask string, expected int) (answers [][]byte, missing int, err error) {
	if !c.subscribed.Load() {
		return nil, 0, ErrDisconnected
	}
	select {
	case c.asking <- struct{}{}:
		defer func() { <-c.asking }()
	case <-ctx.Done():
		return nil, 0, ctx.Err()
	}

	id := rand.Text()
	asked := &inquiry{heard: make(chan struct{}, 1), answers: make(chan reply, maxReplicas)}
	c.mu.Lock()
	c.outstanding[id] = asked
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		delete(c.outstanding, id)
		c.mu.Unlock()
	}()
	message, err := json.Marshal(question{ID: id, Ask: ask, ReplyTo: c.replies})
	if err != nil {
		return nil, 0, fmt.Errorf("fleetcall: asking the fleet: %w", err)
	}
	received, err := c.publish(ctx, message)
	if err != nil {
		return nil, 0, fmt.Errorf("fleetcall: asking the fleet: %w", err)
	}
	if expected > 0 {
		received = min(received, expected)
	}
	answers, missing = c.gather(ctx, asked, received)
	return answers, missing, nil
}

// publish returns how many replicas received the message. PUBLISH itself says how
// many clients did, and takes whoever watches by a pattern for one more.
func (c *Census) publish(ctx context.Context, message []byte) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, c.config.Timeout)
	defer cancel()
	if cluster, ok := c.config.Client.(*redis.ClusterClient); ok {
		return c.publishInCluster(ctx, cluster, message)
	}
	var subscribers *redis.MapStringIntCmd
	_, err := c.config.Client.Pipelined(ctx, func(p redis.Pipeliner) error {
		p.Publish(ctx, c.questions, message)
		subscribers = p.PubSubNumSub(ctx, c.questions)
		return nil
	})
	if err != nil {
		return 0, err
	}
	return int(subscribers.Val()[c.questions]), nil
}

// publishInCluster asks each node for its subscribers. They normally are all on
// the one that serves the channel's slot, but stay where they are when the slot
// moves.
func (c *Census) publishInCluster(ctx context.Context, cluster *redis.ClusterClient, message []byte) (int, error) {
	if err := cluster.Publish(ctx, c.questions, message).Err(); err != nil {
		return 0, err
	}
	var sum atomic.Int64
	err := cluster.ForEachShard(ctx, func(ctx context.Context, node *redis.Client) error {
		counts, err := node.PubSubNumSub(ctx, c.questions).Result()
		sum.Add(counts[c.questions])
		return err
	})
	return int(sum.Load()), err
}

// gather collects answers until every receiver has answered. This replica is
// one of them, if it heard itself.
func (c *Census) gather(ctx context.Context, asked *inquiry, received int) (answers [][]byte, missing int) {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, answerLimit)
		defer cancel()
	}
	heard := asked.heard
	for waiting := received; waiting > 0; waiting-- {
		select {
		case <-heard:
			heard = nil
		case r := <-asked.answers:
			if r.Data == nil {
				missing++
			} else {
				answers = append(answers, r.Data)
			}
		case <-ctx.Done():
			return answers, missing + waiting
		}
	}
	return answers, missing
}

// run keeps a subscription until ctx ends.
func (c *Census) run(ctx context.Context) {
	backoff := minBackoff
	for ctx.Err() == nil {
		err := c.subscribe(ctx)
		if c.subscribed.Swap(false) {
			backoff = minBackoff
		}
		if ctx.Err() != nil {
			return
		}
		c.config.Observe(err)
		select {
		case <-time.After(backoff):
		case <-ctx.Done():
		}
		backoff = min(2*backoff, maxBackoff)
	}
}

// subscribe subscribes and handles messages until the connection fails.
func (c *Census) subscribe(ctx context.Context) error {
	pubsub := c.config.Client.Subscribe(ctx)
	// A receiver does not look at its context while it waits.
	stop := context.AfterFunc(ctx, func() { _ = pubsub.Close() })
	defer func() {
		if stop() {
			_ = pubsub.Close()
		}
	}()
	if err := pubsub.Subscribe(ctx, c.questions, c.replies); err != nil {
		return err
	}
	confirmed, pinged := 0, false
	for {
		limit := subscribeLimit
		if confirmed == subscriptionsNeeded && !pinged {
			limit = idleCheck
		}
		message, err := pubsub.ReceiveTimeout(ctx, limit)
		if timeout := net.Error(nil); errors.As(err, &timeout) && timeout.Timeout() && limit == idleCheck {
			pinged = true
			if err := pubsub.Ping(ctx); err != nil {
				return err
			}
			continue
		}
		if err != nil {
			return err
		}
		pinged = false
		switch message := message.(type) {
		case *redis.Subscription:
			if confirmed++; confirmed == subscriptionsNeeded {
				c.connected()
			}
		case *redis.Message:
			c.handle(ctx, message)
		}
	}
}

func (c *Census) connected() {
	c.subscribed.Store(true)
	c.config.Observe(nil)
	select {
	case <-c.ready:
	default:
		close(c.ready)
	}
}

// handle never waits: a message that finds no room is dropped, and its asker
// reports it missing.
func (c *Census) handle(ctx context.Context, message *redis.Message) {
	if message.Channel == c.replies {
		var r reply
		if json.Unmarshal([]byte(message.Payload), &r) != nil {
			return
		}
		if asked := c.inquiry(r.ID); asked != nil {
			select {
			case asked.answers <- r:
			default:
			}
		}
		return
	}
	var q question
	if json.Unmarshal([]byte(message.Payload), &q) != nil {
		return
	}
	if q.ReplyTo == c.replies {
		if asked := c.inquiry(q.ID); asked != nil {
			select {
			case asked.heard <- struct{}{}:
			default:
			}
		}
		return
	}
	select {
	case c.answering <- struct{}{}:
		c.loops.Go(func() {
			defer func() { <-c.answering }()
			c.reply(ctx, q)
		})
	default:
	}
}

func (c *Census) inquiry(id string) *inquiry {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.outstanding[id]
}

func (c *Census) reply(ctx context.Context, q question) {
	r := reply{ID: q.ID}
	data, err := c.answer(ctx, q.Ask)
	switch {
	case err == nil && data == nil:
		return
	case err == nil:
		r.Data = data
	}
	message, err := json.Marshal(r)
	if err != nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, c.config.Timeout)
	defer cancel()
	// The asker learns of a failure by the answer it misses.
	_ = c.config.Client.Publish(ctx, q.ReplyTo, message).Err()
}
