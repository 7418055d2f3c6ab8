package redislink

import (
	"context"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/fleetcall/fleetcall/coalesce/internal/detached"
	"github.com/fleetcall/fleetcall/coalesce/internal/protocol"
	"github.com/fleetcall/fleetcall/coalesce/internal/timers"
)

const (
	// maxInFlight is how many batches are under way at a time, and how many
	// goroutines are kept to send them. A command that finds room is a batch of its
	// own. Those that find none wait, and the next goroutine that is free sends them
	// together.
	maxInFlight = 2
	// maxBatch is how many commands are sent together at most.
	maxBatch = 128
	// maxBatchedBytes is the largest outcome, in bytes, that is sent in a batch. A
	// larger one would hold up the small commands beside it, so it is sent alone, and
	// needs no room.
	maxBatchedBytes = 16 << 10
)

// Request is one command on its way. It is answered once: by the goroutine that
// stops its timer, or by the timer.
type Request struct {
	// Then is called once, when there is an answer. It must return soon: the goroutine
	// that calls it has other requests to answer. It is not called when SendHere
	// returns true.
	Then func()

	link    *Link
	command protocol.Command
	ctx     context.Context // the command has its values; its end stops nothing
	permit  Permit
	sent    time.Time
	timer   timers.Timer

	batch   *batch // guarded by link.mu; nil until it is sent
	givenUp bool   // before it was sent; guarded by link.mu

	reply any // the answer
	err   error
}

// batch is what one goroutine has under way.
type batch struct {
	requests []*Request
	kept     bool           // the goroutine is one of those that are kept
	over     bool           // another may take its place; guarded by link.mu
	ctx      detached.Timed // of one that has a single request: ends when that is given up
}

// NewRequest returns a request that is not yet sent. The command has the values of
// ctx. The end of ctx does not stop it: the command may take a lease, and then
// somebody must see the reply. The permit is from Ask or Must, and is told of the
// end by Result.
func (l *Link) NewRequest(ctx context.Context, command protocol.Command, permit Permit) *Request {
	return &Request{link: l, command: command, ctx: ctx, permit: permit}
}

// Reply returns the answer as it came, for a request that has been answered. It
// counts nothing and tells nobody: Result must be called, too.
func (r *Request) Reply() (any, error) { return r.reply, r.err }

// Command returns the request's command.
func (r *Request) Command() protocol.Command { return r.command }

// SentAt returns when Send or SendHere was called, which is before the request waited
// for its turn.
func (r *Request) SentAt() time.Time { return r.sent }

// Send puts r on its way, and returns before there is an answer. The request's Then is
// called when there is one: after Config.Timeout at the latest, and some more for a
// large command (see Allowed).
func (l *Link) Send(r *Request) {
	if r.command.Bytes() > maxBatchedBytes {
		b := l.begin(r)
		b.requests = []*Request{r}
		go l.run(b)
		return
	}
	l.expect(r)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.enqueue(r)
}

// SendHere sends r on this goroutine, which spares two wake-ups, unless others
// are before it. It returns true when there is an answer. Otherwise r waits its turn,
// or has been given up, and its Then is called. Only a client that is Prompt may be
// used so: any other may keep the goroutine for longer than the timeout.
func (l *Link) SendHere(r *Request) (answered bool) {
	b := l.begin(r)
	if b == nil {
		return false
	}
	reply, err := l.runAlone(b, r)
	if answered = l.pending.Stop(&r.timer); answered {
		r.reply, r.err = reply, err
	}
	l.end(b)
	return answered
}

// begin returns r's batch, if it may be sent at once. Otherwise r waits its turn,
// or has been given up.
func (l *Link) begin(r *Request) *batch {
	if r.command.Bytes() > maxBatchedBytes {
		r.batch = &batch{over: true} // takes no other's place
		l.expect(r)
		return r.batch
	}
	l.expect(r)
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case r.givenUp:
		return nil
	case l.free == 0 || len(l.queue) > 0:
		l.enqueue(r)
		return nil
	}
	l.free--
	r.batch = &batch{}
	return r.batch
}

// enqueue makes r wait for its turn. It wants l.mu held.
func (l *Link) enqueue(r *Request) {
	l.queue = append(l.queue, r)
	l.work.Signal()
}

// Busy says whether a small command that is sent now has to wait its turn.
func (l *Link) Busy() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.free == 0 || len(l.queue) > 0
}

// expect sets the timer that answers r when its time has passed.
func (l *Link) expect(r *Request) {
	r.sent = time.Now()
	l.pending.Set(&r.timer, r, l.due(r))
}

// due is when r is given up.
func (l *Link) due(r *Request) time.Time {
	return r.sent.Add(Allowed(l.config.Timeout, r.command.Bytes()))
}

// OnExpire makes Request a timers.Owner. It answers with context.DeadlineExceeded, or
// with an error that wraps it and for which NeverSent is true.
func (r *Request) OnExpire(*timers.Timer) {
	r.err = context.DeadlineExceeded
	if r.link.giveUp(r) {
		r.err = errNotSent
	}
	r.Then()
}

// answer gives r its answer, unless it has been given up.
func (r *Request) answer(reply any, err error) {
	if r.link.pending.Stop(&r.timer) {
		r.reply, r.err = reply, err
		r.Then()
	}
}

// end makes room for another batch, once. It returns true when that was done before,
// because b was late.
func (l *Link) end(b *batch) (late bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if b.over {
		return true
	}
	b.over = true
	l.free++
	if len(l.queue) > 0 {
		l.work.Signal()
	}
	return false
}

// giveUp returns true when r was not sent: then it never will be. If it was sent,
// Redis or the client hangs, and another batch may take its place.
func (l *Link) giveUp(r *Request) (unsent bool) {
	l.mu.Lock()
	b := r.batch
	r.givenUp = b == nil
	l.mu.Unlock()
	if b == nil {
		return true
	}
	b.ctx.End(context.DeadlineExceeded)
	if !l.end(b) && b.kept {
		go l.loop()
	}
	return false
}

// loop sends what is queued until the link is closed, or a batch was late.
func (l *Link) loop() {
	for b := l.take(); b != nil; b = l.take() {
		l.run(b)
		if l.end(b) {
			return
		}
	}
}

// take waits for requests and room to send them. It returns nil when there will
// be none.
func (l *Link) take() *batch {
	l.mu.Lock()
	defer l.mu.Unlock()
	for {
		b := &batch{kept: true}
		n := 0
		for ; n < len(l.queue) && len(b.requests) < maxBatch && l.free > 0; n++ {
			if r := l.queue[n]; !r.givenUp {
				r.batch = b
				b.requests = append(b.requests, r)
			}
		}
		left := copy(l.queue, l.queue[n:])
		clear(l.queue[left:])
		l.queue = l.queue[:left]
		switch {
		case len(b.requests) > 0:
			l.free--
			return b
		case l.closed && left == 0:
			l.work.Signal() // the next one that waits
			return nil
		}
		l.work.Wait()
	}
}

// run sends a batch in one round trip.
func (l *Link) run(b *batch) {
	if len(b.requests) == 1 {
		r := b.requests[0]
		r.answer(l.runAlone(b, r))
		return
	}
	ctx, cancel := context.WithTimeout(&detached.Context{First: b.requests[0].ctx}, l.config.Timeout)
	defer cancel()
	commands := make([]*redis.Cmd, len(b.requests))
	err := process(func() {
		pipe := l.client.Pipeline()
		for i, r := range b.requests {
			commands[i] = r.command.Cmd(ctx)
			_ = pipe.Process(ctx, commands[i])
		}
		_, _ = pipe.Exec(ctx) // each command has its own error
	})
	for i, r := range b.requests {
		if err != nil {
			r.answer(nil, err)
		} else {
			r.answer(l.loaded(ctx, r, commands[i]))
		}
	}
}

func (l *Link) runAlone(b *batch, r *Request) (any, error) {
	b.ctx.First, b.ctx.Until = r.ctx, l.due(r)
	cmd := r.command.Cmd(&b.ctx)
	if err := process(func() { _ = l.client.Process(&b.ctx, cmd) }); err != nil { // the command has its own
		return nil, err
	}
	return l.loaded(&b.ctx, r, cmd)
}

// process calls do, which uses the client, and returns its panic as an error: a hook
// of the client may do anything, and somebody waits for the answer.
func process(do func()) (err error) {
	defer func() {
		if value := recover(); value != nil {
			err = fmt.Errorf("fleetcall: panic: %v", value)
		}
	}()
	do()
	return nil
}

// loaded returns the result of r's command. If Redis does not have the script, it
// sends the command again with the script's source.
func (l *Link) loaded(ctx context.Context, r *Request, cmd *redis.Cmd) (any, error) {
	reply, err := cmd.Result()
	if err == nil || !redis.HasErrorPrefix(err, "NOSCRIPT") {
		return reply, err
	}
	cmd = r.command.CmdWithSource(ctx)
	if err := process(func() { _ = l.client.Process(ctx, cmd) }); err != nil {
		return nil, err
	}
	return cmd.Result()
}
