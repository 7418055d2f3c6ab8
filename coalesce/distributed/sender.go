package distributed

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/fleetcall/fleetcall/coalesce/internal/detached"
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
//
// Most clients ignore a context's deadline while they read, retry, or dial. One
// that has not come back when a script's time has passed is not waited for.
type sender struct {
	client  redis.UniversalClient
	timeout time.Duration
	watch   alarms // of what is not answered

	mu     sync.Mutex
	work   sync.Cond // queue, free or closed has changed
	queue  []*request
	free   int // batches that may begin
	closed bool
}

// request is one script on its way. It is answered once: by whoever takes its
// alarm out of the sender's watch.
type request struct {
	script  *script
	args    []any           // of EVALSHA, that word included
	bytes   int             // that the command moves, about; of a small one 0
	ctx     context.Context // whose values the command has; its end stops nothing
	breaker func(error)     // is told what became of it
	// then is called when there is an answer, on a goroutine that it must not
	// keep, unless whoever sent it goes on himself.
	then func()

	sender *sender
	began  time.Time
	alarm  alarm

	batch   *batch // guarded by sender.mu; nil until it is sent
	givenUp bool   // before it was sent; guarded by sender.mu

	reply any // the answer
	err   error
}

// batch is what one goroutine has under way.
type batch struct {
	requests []*request
	kept     bool           // the goroutine is one of those that are kept
	over     bool           // another may take its place; guarded by sender.mu
	ctx      detached.Timed // of one that has a single request: ends when that is given up
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
	s.watch.close()
}

// send puts r on its way. Its then is called.
func (s *sender) send(r *request) {
	if r.bytes > largest {
		b := s.begin(r)
		b.requests = []*request{r}
		go s.run(b)
		return
	}
	s.expect(r)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.enqueue(r)
}

// sendHere sends r on this goroutine, which spares two wake-ups, unless others
// are before it. It says whether there is an answer. If not, r's then is called.
func (s *sender) sendHere(r *request) (answered bool) {
	b := s.begin(r)
	if b == nil {
		return false
	}
	reply, err := s.runAlone(b, r)
	if answered = s.watch.stop(&r.alarm); answered {
		r.reply, r.err = reply, err
	}
	s.end(b)
	return answered
}

// begin returns r's batch, if it may be sent at once. Otherwise r waits its turn,
// or has been given up.
func (s *sender) begin(r *request) *batch {
	if r.bytes > largest {
		r.batch = &batch{over: true} // takes nobody's place
		s.expect(r)
		return r.batch
	}
	s.expect(r)
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case r.givenUp:
		return nil
	case s.free == 0 || len(s.queue) > 0:
		s.enqueue(r)
		return nil
	}
	s.free--
	r.batch = &batch{}
	return r.batch
}

// enqueue has r wait its turn. s is locked.
func (s *sender) enqueue(r *request) {
	s.queue = append(s.queue, r)
	s.work.Signal()
}

// busy says whether what is sent now has to wait its turn.
func (s *sender) busy() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.free == 0 || len(s.queue) > 0
}

// expect sees to it that r is answered when its time has passed.
func (s *sender) expect(r *request) {
	r.sender, r.began = s, time.Now()
	s.watch.set(&r.alarm, r, s.due(r))
}

// due is when r is given up.
func (s *sender) due(r *request) time.Time { return r.began.Add(allowed(s.timeout, r.bytes)) }

// rings makes request a ringer.
func (r *request) rings(*alarm) {
	r.err = context.DeadlineExceeded
	if r.sender.giveUp(r) {
		r.err = errNotSent
	}
	r.then()
}

// answer gives r its answer, unless it has been given up.
func (r *request) answer(reply any, err error) {
	if r.sender.watch.stop(&r.alarm) {
		r.reply, r.err = reply, err
		r.then()
	}
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
	s.mu.Lock()
	b := r.batch
	r.givenUp = b == nil
	s.mu.Unlock()
	if b == nil {
		return true
	}
	b.ctx.End(context.DeadlineExceeded)
	if !s.end(b) && b.kept {
		go s.loop()
	}
	return false
}

// loop sends what is queued until the sender is closed, or a batch was late.
func (s *sender) loop() {
	for b := s.take(); b != nil; b = s.take() {
		s.run(b)
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

// run sends a batch in one round trip.
func (s *sender) run(b *batch) {
	if len(b.requests) == 1 {
		r := b.requests[0]
		r.answer(s.runAlone(b, r))
		return
	}
	ctx, cancel := context.WithTimeout(&detached.Context{First: b.requests[0].ctx}, s.timeout)
	defer cancel()
	commands := make([]*redis.Cmd, len(b.requests))
	err := process(func() {
		pipe := s.client.Pipeline()
		for i, r := range b.requests {
			commands[i] = command(ctx, r.args)
			_ = pipe.Process(ctx, commands[i])
		}
		_, _ = pipe.Exec(ctx) // each command has its own error
	})
	for i, r := range b.requests {
		if err != nil {
			r.answer(nil, err)
		} else {
			r.answer(s.loaded(ctx, r, commands[i]))
		}
	}
}

func (s *sender) runAlone(b *batch, r *request) (any, error) {
	b.ctx.First, b.ctx.Until = r.ctx, s.due(r)
	cmd := command(&b.ctx, r.args)
	if err := process(func() { _ = s.client.Process(&b.ctx, cmd) }); err != nil { // the command has its own
		return nil, err
	}
	return s.loaded(&b.ctx, r, cmd)
}

// process has the client do what it does, and makes a panic an error: a hook of
// the client may do anything, and somebody waits for the answer.
func process(do func()) (err error) {
	defer recoverAs(&err)
	do()
	return nil
}

// loaded returns the result of r's command, which it sends again, with the
// script, where Redis does not have that.
func (s *sender) loaded(ctx context.Context, r *request, cmd *redis.Cmd) (any, error) {
	reply, err := cmd.Result()
	if err == nil || !redis.HasErrorPrefix(err, "NOSCRIPT") {
		return reply, err
	}
	args := slices.Clone(r.args)
	args[0], args[1] = "eval", r.script.source
	cmd = command(ctx, args)
	if err := process(func() { _ = s.client.Process(ctx, cmd) }); err != nil {
		return nil, err
	}
	return cmd.Result()
}

func command(ctx context.Context, args []any) *redis.Cmd {
	cmd := redis.NewCmd(ctx, args...)
	cmd.SetFirstKeyPos(firstKey)
	return cmd
}
