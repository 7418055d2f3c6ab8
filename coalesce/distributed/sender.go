package distributed

import (
	"context"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"fleetcall/coalesce/internal/detached"
)

const (
	// senders is how many batches are under way at a time, and how many
	// goroutines are kept to send them. A script that finds none before it is a
	// batch of its own; those that do not are sent together by the next that
	// may.
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
	work   sync.Cond // queue, free or closed has changed
	queue  []*request
	free   int // batches that may begin
	closed bool
}

// request is one script on its way.
type request struct {
	script *script
	keys   []string
	args   []any
	// allowed is how long it may take: the Redis timeout, and more if it moves
	// many bytes.
	allowed time.Duration
	ctx     detached.Context // ends when it is given up
	breaker func(error)      // is told what became of it

	batch   *batch // guarded by sender.mu; nil until it is sent
	givenUp bool   // before it was sent; guarded by sender.mu

	reply any // these are set before done is closed
	err   error
	done  chan struct{} // nil when the one who asks sends it

	alarm alarm  // of one who sends it himself
	late  func() // is called when it goes off
}

// rings makes request a ringer.
func (r *request) rings(*alarm) { r.late() }

// newRequest makes a request that the caller's leaving does not stop: it may
// take the lease, and somebody must see the reply.
func newRequest(ctx context.Context, allowed time.Duration, script *script, keys []string, args []any) *request {
	return &request{
		script: script, keys: keys, args: args, allowed: allowed,
		ctx: detached.Context{First: ctx, Until: time.Now().Add(allowed)},
	}
}

func (r *request) answered() {
	if r.done != nil {
		close(r.done)
	}
}

// batch is what one goroutine has under way.
type batch struct {
	requests []*request
	kept     bool // the goroutine is one of those that are kept
	over     bool // another may take its place; guarded by sender.mu
}

func newSender(client redis.UniversalClient, timeout time.Duration) *sender {
	s := &sender{client: client, timeout: timeout, free: senders}
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
		r.batch = &batch{over: true} // takes nobody's place
		go s.run([]*request{r})
		return
	}
	s.mu.Lock()
	s.queue = append(s.queue, r)
	s.mu.Unlock()
	s.work.Signal()
}

// begin lets the caller run r itself, and end its batch, unless others are
// before it.
func (s *sender) begin(r *request) bool {
	if r.size() > largest {
		r.batch = &batch{over: true} // takes nobody's place
		return true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.free == 0 || len(s.queue) > 0 {
		return false
	}
	s.free--
	r.batch = &batch{}
	return true
}

// end makes room for another batch, once, and says whether there was before.
func (s *sender) end(b *batch) (late bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if b.over {
		return true
	}
	b.over = true
	s.free++
	if len(s.queue) > 0 {
		s.work.Signal()
	}
	return false
}

// giveUp says whether r was not sent: then it never will be. If it was, Redis
// or the client hangs, and the others need not wait for it.
func (s *sender) giveUp(r *request) (unsent bool) {
	r.ctx.End(context.DeadlineExceeded)
	s.mu.Lock()
	b := r.batch
	r.givenUp = b == nil
	s.mu.Unlock()
	if b != nil && !s.end(b) && b.kept {
		go s.loop()
	}
	return b == nil
}

// loop sends what is queued until the sender is closed, or a batch was late.
func (s *sender) loop() {
	for b := s.take(); b != nil; b = s.take() {
		s.run(b.requests)
		if s.end(b) {
			return
		}
	}
}

// take waits for requests and room to send them. It returns nil when there will
// be none.
func (s *sender) take() *batch {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		b := &batch{kept: true}
		n := 0
		for ; n < len(s.queue) && len(b.requests) < fullest && s.free > 0; n++ {
			if r := s.queue[n]; !r.givenUp {
				r.batch = b
				b.requests = append(b.requests, r)
			}
		}
		left := copy(s.queue, s.queue[n:])
		clear(s.queue[left:])
		s.queue = s.queue[:left]
		switch {
		case len(b.requests) > 0:
			s.free--
			return b
		case s.closed && left == 0:
			s.work.Signal() // the next one that waits
			return nil
		}
		s.work.Wait()
	}
}

// run sends requests in one round trip.
func (s *sender) run(requests []*request) {
	if len(requests) == 1 {
		r := requests[0]
		r.reply, r.err = r.script.Run(&r.ctx, s.client, r.keys, r.args...).Result()
		r.answered()
		return
	}
	ctx, cancel := context.WithTimeout(&detached.Context{First: requests[0].ctx.First}, s.timeout)
	defer cancel()
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
		r.answered()
	}
}

func (r *request) size() int { return sizeOf(r.args) }

func sizeOf(args []any) int {
	size := 0
	for _, arg := range args {
		if b, ok := arg.([]byte); ok {
			size += len(b)
		}
	}
	return size
}
