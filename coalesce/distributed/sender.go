package distributed

import (
	"context"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	// senders is how many goroutines send: as many pipelines are under way at
	// a time. A script that finds one idle is sent at once; those that do not
	// are sent together by the next that is.
	senders = 2
	// fullest is how many scripts are sent together at most.
	fullest = 128
	// largest is up to how many bytes of arguments a script is sent with others:
	// a large outcome would hold up small joins.
	largest = 16 << 10
)

// sender sends scripts, together when many come at once: 256 callers of as
// many keys would otherwise wait for each other's connections.
//
// Its goroutines are kept, because the client's calls are deep: a fresh one
// would grow its stack for each script.
type sender struct {
	client  redis.UniversalClient
	timeout time.Duration

	mu     sync.Mutex
	work   sync.Cond // queue or closed has changed
	queue  []*request
	closed bool
}

// request is one script on its way.
type request struct {
	script *script
	keys   []string
	args   []any
	ctx    context.Context // for its values

	batch   *batch // guarded by sender.mu; nil until it is sent
	givenUp bool   // before it was sent; guarded by sender.mu

	reply any // these are set before done is closed
	err   error
	done  chan struct{}
}

// batch is what one goroutine has under way.
type batch struct {
	late bool // another goroutine has taken its place; guarded by sender.mu
}

func newSender(client redis.UniversalClient, timeout time.Duration) *sender {
	s := &sender{client: client, timeout: timeout}
	s.work.L = &s.mu
	for range senders {
		go s.loop()
	}
	return s
}

// close ends the goroutines that have nothing under way. Nothing may be sent
// after it.
func (s *sender) close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.work.Broadcast()
}

// send puts r on its way. Its done is closed when its reply is there.
func (s *sender) send(r *request) {
	if r.size() > largest {
		go s.run([]*request{r})
		return
	}
	s.mu.Lock()
	s.queue = append(s.queue, r)
	s.mu.Unlock()
	s.work.Signal()
}

// giveUp says whether r was not sent: then it never will be. If it was, Redis
// or the client hangs, and the others need not wait for it.
func (s *sender) giveUp(r *request) (unsent bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.batch == nil {
		r.givenUp = true
		return true
	}
	if !r.batch.late {
		r.batch.late = true
		go s.loop()
	}
	return false
}

// loop sends what is queued until the sender is closed, or a batch was late.
func (s *sender) loop() {
	b := &batch{}
	for requests := s.take(b); requests != nil; requests = s.take(b) {
		s.run(requests)
	}
}

// take waits for requests. It returns nil when there will be none for b.
func (s *sender) take(b *batch) []*request {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		if b.late {
			return nil
		}
		var requests []*request
		n := 0
		for ; n < len(s.queue) && len(requests) < fullest; n++ {
			if r := s.queue[n]; !r.givenUp {
				r.batch = b
				requests = append(requests, r)
			}
		}
		left := copy(s.queue, s.queue[n:])
		clear(s.queue[left:])
		s.queue = s.queue[:left]
		if len(requests) > 0 {
			return requests
		}
		if s.closed {
			return nil
		}
		s.work.Wait()
	}
}

// run sends requests in one round trip.
func (s *sender) run(requests []*request) {
	ctx, cancel := context.WithTimeout(requests[0].ctx, s.timeout)
	defer cancel()
	if len(requests) == 1 {
		r := requests[0]
		r.reply, r.err = r.script.Run(ctx, s.client, r.keys, r.args...).Result()
		close(r.done)
		return
	}
	pipe := s.client.Pipeline()
	commands := make([]*redis.Cmd, len(requests))
	for i, r := range requests {
		commands[i] = r.script.EvalSha(ctx, pipe, r.keys, r.args...)
	}
	_, _ = pipe.Exec(ctx) // each command has its own error
	for i, r := range requests {
		r.reply, r.err = commands[i].Result()
		if redis.HasErrorPrefix(r.err, "NOSCRIPT") {
			r.reply, r.err = r.script.Eval(ctx, s.client, r.keys, r.args...).Result()
		}
		close(r.done)
	}
}

func (r *request) size() int {
	size := 0
	for _, arg := range r.args {
		if b, ok := arg.([]byte); ok {
			size += len(b)
		}
	}
	return size
}
