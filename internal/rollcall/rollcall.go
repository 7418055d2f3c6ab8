// Package rollcall asks all live replicas of a fleet a question through Redis, and
// collects their answers.
//
// A question is published on the channel <namespace>:census@<database>, to which every
// replica subscribes. Redis tells the asker how many replicas received the question, so
// the asker knows when all answers have come, and how many are missing. The answers come
// back on a channel of the asker's own. Nothing is stored in Redis, and nothing is
// polled.
//
// The channel's name has the number of the client's database, because Redis' channels
// know no databases: without it, a fleet on database 1 would hear one on database 0.
//
// A replica that is not connected to Redis when the question is asked does not count,
// because nobody can know that it exists.
package rollcall

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	// answerTimeout bounds the wait for answers when the context has no deadline.
	answerTimeout = time.Second
	// maxAsking and maxAnswering bound the questions that a member asks and answers at
	// one time. So a client that asks in a loop cannot keep the fleet busy.
	maxAsking, maxAnswering = 16, 64
	// maxReplicas is the number of answers that may wait until the asker reads them.
	maxReplicas = 1024

	pingAfter           = 30 * time.Second // time without a message until a ping is sent
	replyTimeout        = 2 * time.Second  // for Redis to confirm a subscription or to answer a ping
	minBackoff          = 50 * time.Millisecond
	maxBackoff          = time.Second
	subscriptionsNeeded = 2
)

// ErrDisconnected is returned by Ask while there is no subscription.
var ErrDisconnected = errors.New("fleetcall: not connected to Redis")

// Answer answers a question that this replica or another one has asked. The answer must
// be JSON. To give no answer, because the question is not for this replica, it returns
// no bytes and no error. It must be safe for concurrent use.
type Answer func(ctx context.Context, question string) ([]byte, error)

// Config configures a Member. Observe, which may be nil, is called when the
// subscription changes: with nil when it is made, and otherwise with the reason why
// there is none.
type Config struct {
	Client    redis.UniversalClient
	Namespace string
	Timeout   time.Duration // of one Redis command
	Observe   func(error)
}

// Member is a replica that takes part in roll calls. Close it after use.
type Member struct {
	config     Config
	questions  string // the channel of the fleet
	id         string
	replies    string // the channel of this replica
	answer     Answer
	subscribed atomic.Bool
	ready      chan struct{}
	asking     chan struct{}
	answering  chan struct{}
	ctx        context.Context // ends with Close
	cancel     context.CancelFunc
	started    atomic.Bool
	goroutines sync.WaitGroup
	mu         sync.Mutex
	pending    map[string]*pendingQuestion
}

// pendingQuestion is a question that waits for answers.
type pendingQuestion struct {
	received chan struct{} // has an element when the asker itself has received the question
	answers  chan reply
}

type question struct {
	ID      string `json:"id"`
	Ask     string `json:"ask"`
	ReplyTo string `json:"reply_to"`
}

type reply struct {
	ID   string          `json:"id"`
	Data json.RawMessage `json:"data,omitempty"` // absent if the replica could not answer
}

// New returns a Member that does nothing until Start.
func New(config Config) *Member {
	if config.Observe == nil {
		config.Observe = func(error) {}
	}
	channel := fmt.Sprintf("%s:census@%d", config.Namespace, database(config.Client))
	id := rand.Text()
	return &Member{
		config:    config,
		id:        id,
		questions: channel,
		replies:   channel + ":" + id,
		ready:     make(chan struct{}),
		asking:    make(chan struct{}, maxAsking),
		answering: make(chan struct{}, maxAnswering),
		pending:   make(map[string]*pendingQuestion),
	}
}

// database returns the number of the database that a client has selected. A Cluster has
// no database but 0.
func database(client redis.UniversalClient) int {
	if single, ok := client.(*redis.Client); ok {
		return single.Options().DB
	}
	return 0
}

// Start subscribes in the background, and again whenever the connection is lost, and
// answers questions with answer. It must be called once, before Ask.
func (m *Member) Start(answer Answer) {
	if m.started.Swap(true) {
		panic("fleetcall: rollcall.Member started twice")
	}
	m.answer = answer
	ctx, cancel := context.WithCancel(context.Background())
	m.ctx, m.cancel = ctx, cancel
	m.goroutines.Go(func() { m.run(ctx) })
}

// Ready is closed when the replica can be asked for the first time.
func (m *Member) Ready() <-chan struct{} { return m.ready }

// Close unsubscribes and waits for the answers under way. If ctx ends first, Close
// returns its error.
func (m *Member) Close(ctx context.Context) error {
	if !m.started.Load() {
		return nil
	}
	m.cancel()
	done := make(chan struct{})
	go func() {
		m.goroutines.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("fleetcall: closing the census: %w", ctx.Err())
	}
}

// Ask asks all live replicas at the same time and returns their answers, with this
// replica's first. It waits until every replica that received the question has
// answered. If expected is not zero, it waits for at most that many answers, including
// this replica's. It also stops waiting when ctx ends, or after a second if ctx has no
// deadline.
//
// missing is the number of answers that did not come. If the other replicas cannot be
// asked, answers has only this replica's and err says why.
func (m *Member) Ask(ctx context.Context, ask string, expected int) (answers [][]byte, missing int, err error) {
	var own []byte
	var ownErr error
	answered := make(chan struct{})
	// This replica's answer may take long. The others must not have to wait for it
	// before they are asked.
	go func() {
		defer close(answered)
		own, ownErr = m.answer(ctx, ask)
	}()
	others, missing, err := m.askOthers(ctx, ask, expected)
	<-answered
	if ownErr != nil {
		return nil, 0, ownErr
	}
	return append([][]byte{own}, others...), missing, err
}

func (m *Member) askOthers(ctx context.Context, ask string, expected int) (answers [][]byte, missing int, err error) {
	if !m.subscribed.Load() {
		return nil, 0, ErrDisconnected
	}
	select {
	case m.asking <- struct{}{}:
		defer func() { <-m.asking }()
	case <-ctx.Done():
		return nil, 0, ctx.Err()
	}

	id := rand.Text()
	asked := &pendingQuestion{received: make(chan struct{}, 1), answers: make(chan reply, maxReplicas)}
	m.mu.Lock()
	m.pending[id] = asked
	m.mu.Unlock()
	defer func() {
		m.mu.Lock()
		delete(m.pending, id)
		m.mu.Unlock()
	}()
	message, err := json.Marshal(question{ID: id, Ask: ask, ReplyTo: m.replies})
	if err != nil {
		return nil, 0, fmt.Errorf("fleetcall: asking the fleet: %w", err)
	}
	received, err := m.publish(ctx, message)
	if err != nil {
		return nil, 0, fmt.Errorf("fleetcall: asking the fleet: %w", err)
	}
	if expected > 0 {
		received = min(received, expected)
	}
	answers, missing = m.collect(ctx, asked, received)
	return answers, missing, nil
}

// publish returns how many replicas received the message. The number that PUBLISH
// returns would be too high when a client watches the channel by a pattern.
func (m *Member) publish(ctx context.Context, message []byte) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, m.config.Timeout)
	defer cancel()
	if cluster, ok := m.config.Client.(*redis.ClusterClient); ok {
		return m.publishInCluster(ctx, cluster, message)
	}
	var subscribers *redis.MapStringIntCmd
	_, err := m.config.Client.Pipelined(ctx, func(p redis.Pipeliner) error {
		p.Publish(ctx, m.questions, message)
		subscribers = p.PubSubNumSub(ctx, m.questions)
		return nil
	})
	if err != nil {
		return 0, err
	}
	return int(subscribers.Val()[m.questions]), nil
}

// publishInCluster asks every node for its subscribers. Usually all are on the node
// that serves the channel's slot, but subscribers do not move with the slot.
func (m *Member) publishInCluster(ctx context.Context, cluster *redis.ClusterClient, message []byte) (int, error) {
	if err := cluster.Publish(ctx, m.questions, message).Err(); err != nil {
		return 0, err
	}
	var sum atomic.Int64
	err := cluster.ForEachShard(ctx, func(ctx context.Context, node *redis.Client) error {
		counts, err := node.PubSubNumSub(ctx, m.questions).Result()
		sum.Add(counts[m.questions])
		return err
	})
	return int(sum.Load()), err
}

// collect waits until every receiver has answered. This replica may be one of the
// receivers, and its own answer comes another way.
func (m *Member) collect(ctx context.Context, asked *pendingQuestion, received int) (answers [][]byte, missing int) {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, answerTimeout)
		defer cancel()
	}
	heard := asked.received
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
