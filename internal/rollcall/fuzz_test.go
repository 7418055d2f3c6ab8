package rollcall

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"sync"
	"testing"

	"github.com/redis/go-redis/v9"
)

// published is a hook that records what the client publishes and sends nothing.
type published struct {
	mu       sync.Mutex
	messages [][]any // arguments of each command: PUBLISH, channel, message
}

// DialHook makes published a redis.Hook.
func (p *published) DialHook(redis.DialHook) redis.DialHook {
	return func(context.Context, string, string) (net.Conn, error) { return nil, errors.New("no network") }
}

// ProcessPipelineHook makes published a redis.Hook.
func (p *published) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

// ProcessHook makes published a redis.Hook.
func (p *published) ProcessHook(redis.ProcessHook) redis.ProcessHook {
	return func(_ context.Context, cmd redis.Cmder) error {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.messages = append(p.messages, cmd.Args())
		return nil
	}
}

// FuzzMessage passes any message to a member, as if it came from one of its two
// channels.
func FuzzMessage(f *testing.F) {
	f.Add(true, `{"id":"Q","data":{"hits":1}}`)
	f.Add(true, `{"id":"Q"}`)
	f.Add(true, `{"id":"someone else's","data":[]}`)
	f.Add(true, `{"id":"Q","data":`)
	f.Add(false, `{"id":"Q","ask":"stats","reply_to":"mine"}`)
	f.Add(false, `{"id":"X","ask":"stats","reply_to":"theirs"}`)
	f.Add(false, `{"id":1}`)
	f.Add(false, "\xff")
	f.Fuzz(func(t *testing.T, isReply bool, payload string) {
		sent := &published{}
		client := redis.NewClient(&redis.Options{})
		defer client.Close()
		client.AddHook(sent)
		c := New(Config{Client: client, Namespace: "test", Timeout: 1 << 30})
		c.replies = "mine"
		c.answer = func(_ context.Context, ask string) ([]byte, error) {
			if ask == "" {
				return nil, errors.New("nothing was asked")
			}
			return json.Marshal(ask)
		}
		asked := &pendingQuestion{received: make(chan struct{}, 1), answers: make(chan reply, 1)}
		c.pending["Q"] = asked
		channel := c.questions
		if isReply {
			channel = c.replies
		}
		c.handleMessage(context.Background(), &redis.Message{Channel: channel, Payload: payload})
		c.goroutines.Wait()

		select {
		case r := <-asked.answers:
			if !isReply || r.ID != "Q" || r.Data != nil && !json.Valid(r.Data) {
				t.Errorf("%q is taken as the answer %q", payload, r.Data)
			}
		default:
		}
		if len(asked.received) > 0 && (isReply || len(sent.messages) > 0) {
			t.Errorf("%q is the asker's own question, and is answered", payload)
		}
		var q question
		foreign := !isReply && json.Unmarshal([]byte(payload), &q) == nil && q.ReplyTo != c.replies
		if !foreign {
			if len(sent.messages) > 0 {
				t.Errorf("%q is answered with %q", payload, sent.messages)
			}
			return
		}
		if len(sent.messages) != 1 || sent.messages[0][1] != q.ReplyTo {
			t.Fatalf("%q is answered with %q", payload, sent.messages)
		}
		var r reply
		if err := json.Unmarshal(sent.messages[0][2].([]byte), &r); err != nil || r.ID != q.ID || (r.Data == nil) != (q.Ask == "") {
			t.Errorf("%q is answered with %q, %v", payload, sent.messages[0], err)
		}
	})
}
