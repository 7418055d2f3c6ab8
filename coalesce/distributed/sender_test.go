package distributed

import (
	"context"
	"errors"
	"net"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// heldRedis is a client that keeps every script until it is released, and notes
// which it was given.
type heldRedis struct {
	released chan struct{}
	kept     chan struct{} // receives one for each round trip that began

	mu   sync.Mutex
	keys []string // the first key of each script
}

// DialHook makes heldRedis a redis.Hook that connects to nothing.
func (*heldRedis) DialHook(redis.DialHook) redis.DialHook {
	return func(context.Context, string, string) (net.Conn, error) { return nil, errors.New("no network") }
}

// ProcessHook makes heldRedis a redis.Hook.
func (r *heldRedis) ProcessHook(redis.ProcessHook) redis.ProcessHook {
	return func(_ context.Context, cmd redis.Cmder) error {
		r.hold(cmd)
		return nil
	}
}

// ProcessPipelineHook makes heldRedis a redis.Hook.
func (r *heldRedis) ProcessPipelineHook(redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(_ context.Context, cmds []redis.Cmder) error {
		r.hold(cmds...)
		return nil
	}
}

func (r *heldRedis) hold(cmds ...redis.Cmder) {
	r.mu.Lock()
	for _, cmd := range cmds {
		r.keys = append(r.keys, cmd.Args()[3].(string))
	}
	r.mu.Unlock()
	r.kept <- struct{}{}
	<-r.released
}

func newRequest(script *script, key string, bytes int) *request {
	return &request{
		script: script, args: script.evalsha([]string{key}, make([]byte, bytes)), bytes: bytes,
		ctx: context.Background(),
	}
}

// TestAScriptThatWasGivenUpBeforeItWasSentNeverIs gives one up while all that
// send are busy. Nobody would release a lease that it took later.
func TestAScriptThatWasGivenUpBeforeItWasSentNeverIs(t *testing.T) {
	held := &heldRedis{released: make(chan struct{}), kept: make(chan struct{}, 10)}
	client := redis.NewClient(&redis.Options{})
	defer client.Close()
	client.AddHook(held)
	s := newSender(client, time.Minute)
	defer s.close()
	type sent struct {
		*request
		answered chan struct{}
	}
	send := func(key string) sent {
		r := sent{newRequest(joinScript, key, 0), make(chan struct{})}
		r.then = func() { close(r.answered) }
		s.send(r.request)
		return r
	}
	var busy []sent
	for range senders {
		busy = append(busy, send("busy"))
		<-held.kept
	}
	late, last := send("given up"), send("last")
	if !s.giveUp(late.request) {
		t.Error("it was sent, though all that send were busy")
	}
	if s.giveUp(busy[0].request) {
		t.Error("what is on its way was not sent")
	}
	close(held.released)
	for _, r := range append(busy, last) {
		<-r.answered
	}
	held.mu.Lock()
	defer held.mu.Unlock()
	for _, key := range held.keys {
		if key == "given up" {
			t.Errorf("sent: %q", held.keys)
		}
	}
	select {
	case <-late.answered:
		t.Error("it has a reply")
	default:
	}
}

// TestALargeScriptThatIsGivenUpWasSent tells a large outcome that Redis may have
// from one that never left.
func TestALargeScriptThatIsGivenUpWasSent(t *testing.T) {
	held := &heldRedis{released: make(chan struct{}), kept: make(chan struct{}, 10)}
	client := redis.NewClient(&redis.Options{})
	defer client.Close()
	client.AddHook(held)
	s := newSender(client, time.Minute)
	defer s.close()
	r := newRequest(finishScript, "k", largest+1)
	answered := make(chan struct{})
	r.then = func() { close(answered) }
	s.send(r)
	<-held.kept
	if s.giveUp(r) {
		t.Error("what is on its way was not sent")
	}
	close(held.released)
	<-answered
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.free != senders {
		t.Errorf("%d batches may begin, not %d", s.free, senders)
	}
}

// TestAScriptThatWasGivenUpBeforeItCouldBeginNeverIsSent has a time that has passed
// when a script is sent.
func TestAScriptThatWasGivenUpBeforeItCouldBeginNeverIsSent(t *testing.T) {
	held := &heldRedis{released: make(chan struct{}), kept: make(chan struct{}, 100_000)}
	close(held.released)
	client := redis.NewClient(&redis.Options{})
	defer client.Close()
	client.AddHook(held)
	s := newSender(client, time.Nanosecond)
	unsent := map[string]bool{}
	for i := range 20_000 {
		r := newRequest(joinScript, strconv.Itoa(i), 0)
		answered := make(chan struct{})
		r.then = func() { close(answered) }
		if !s.sendHere(r) {
			<-answered
		}
		if r.err == errNotSent {
			unsent[strconv.Itoa(i)] = true
		}
	}
	s.close()
	held.mu.Lock()
	defer held.mu.Unlock()
	for _, key := range held.keys {
		if unsent[key] {
			t.Fatalf("script %s was said not to be sent, and was", key)
		}
	}
	t.Logf("%d of 20,000 were given up before they were sent", len(unsent))
}
