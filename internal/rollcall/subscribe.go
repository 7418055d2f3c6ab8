package rollcall

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"time"

	"github.com/redis/go-redis/v9"
)

// run keeps a subscription until ctx ends.
func (m *Member) run(ctx context.Context) {
	backoff := minBackoff
	for ctx.Err() == nil {
		err := m.subscribe(ctx)
		if m.subscribed.Swap(false) {
			backoff = minBackoff
		}
		if ctx.Err() != nil {
			return
		}
		m.config.Observe(err)
		select {
		case <-time.After(backoff):
		case <-ctx.Done():
		}
		backoff = min(2*backoff, maxBackoff)
	}
}

// subscribe subscribes and handles messages until the connection fails.
func (m *Member) subscribe(ctx context.Context) error {
	pubsub := m.config.Client.Subscribe(ctx)
	// ReceiveTimeout does not watch its context while it waits.
	stop := context.AfterFunc(ctx, func() { _ = pubsub.Close() })
	defer func() {
		if stop() {
			_ = pubsub.Close()
		}
	}()
	if err := pubsub.Subscribe(ctx, m.questions, m.replies); err != nil {
		return err
	}
	confirmed, pinged := 0, false
	for {
		limit := replyTimeout
		if confirmed == subscriptionsNeeded && !pinged {
			limit = pingAfter
		}
		message, err := pubsub.ReceiveTimeout(ctx, limit)
		if timeout := net.Error(nil); errors.As(err, &timeout) && timeout.Timeout() && limit == pingAfter {
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
				m.connected()
			}
		case *redis.Message:
			m.handleMessage(ctx, message)
		}
	}
}

func (m *Member) connected() {
	m.subscribed.Store(true)
	m.config.Observe(nil)
	select {
	case <-m.ready:
	default:
		close(m.ready)
	}
}

// handleMessage never waits. It drops a message for which there is no room, and the
// asker counts an answer as missing.
func (m *Member) handleMessage(ctx context.Context, message *redis.Message) {
	if message.Channel == m.replies {
		var r reply
		if json.Unmarshal([]byte(message.Payload), &r) != nil {
			return
		}
		if asked := m.pendingByID(r.ID); asked != nil {
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
	if q.ReplyTo == m.replies {
		if asked := m.pendingByID(q.ID); asked != nil {
			select {
			case asked.received <- struct{}{}:
			default:
			}
		}
		return
	}
	select {
	case m.answering <- struct{}{}:
		m.goroutines.Go(func() {
			defer func() { <-m.answering }()
			m.sendReply(ctx, q)
		})
	default:
	}
}

func (m *Member) pendingByID(id string) *pendingQuestion {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.pending[id]
}

func (m *Member) sendReply(ctx context.Context, q question) {
	r := reply{ID: q.ID}
	data, err := m.answer(ctx, q.Ask)
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
	ctx, cancel := context.WithTimeout(ctx, m.config.Timeout)
	defer cancel()
	// The error is ignored, because the asker sees that an answer is missing.
	_ = m.config.Client.Publish(ctx, q.ReplyTo, message).Err()
}
