package redislink

import (
	"context"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/fleetcall/fleetcall/coalesce/internal/protocol"
	"github.com/fleetcall/fleetcall/coalesce/internal/timers"
)

const (
	// looks is how often a command that was sent is looked after until its time has
	// passed, at even intervals.
	looks = 10
	// heldUpFor is by how many intervals a look is late when this process was held up, and
	// had not only much to do. That time does not count: no reply was read in it, and
	// perhaps not even the command was written.
	heldUpFor = 2
	// maxLate is how many last looks may come late before one tells all the same, and
	// maxHeldUp the same for a process that was held up: a caller must not wait for as long
	// as this process has too few processors.
	maxLate, maxHeldUp = 1, 3
)

// Request is one command on its way. It is answered once.
type Request struct {
	// Then is called once, when there is an answer, perhaps before Send returns. It
	// must return soon: the goroutine that calls it has other requests to answer. It is
	// not called when SendHere returns true.
	Then func()

	link    *Link
	command protocol.Command
	ctx     context.Context // the command has its values; its end stops nothing
	asked   time.Time       // when Send or SendHere was called
	within  time.Duration   // for a piece: what is left for it and all after it; 0: it is none
	claimed atomic.Bool     // somebody answers

	// Set when it is sent.
	batch   *batch
	timer   timers.Timer  // of the next look
	next    time.Time     // when that is due
	looked  atomic.Uint32 // looks so far
	delayed int           // last looks that came late

	again    *Request // its reply is the answer; nil: this one's is
	reply    any      // the answer
	err      error
	answered time.Time
}

// NewRequest returns a request that is not yet sent. The command has the values of
// ctx. The end of ctx does not stop it: the command may take a lease, and then
// somebody must see the reply.
func (l *Link) NewRequest(ctx context.Context, command protocol.Command) *Request {
	return &Request{link: l, command: command, ctx: ctx}
}

// Reply returns the answer as it came, for a request that has been answered. It
// counts nothing and tells nobody: Result must be called, too.
func (r *Request) Reply() (any, error) { return r.reply, r.err }

// Command returns the request's command.
func (r *Request) Command() protocol.Command { return r.command }

// SentAt returns when Send or SendHere was called, which is before the request waited
// for its turn.
func (r *Request) SentAt() time.Time { return r.asked }

// Trip returns when r, to which Redis has replied, left for Redis and when the reply was here.
func (r *Request) Trip() (began, ended time.Time) {
	if r.again != nil {
		return r.again.Trip()
	}
	return r.batch.began, r.answered
}

// Send puts r on its way. Where its server is down, the answer is ErrServerDown at
// once. Otherwise r waits for its turn; when it has been sent, the answer comes after
// Config.Timeout at the latest, some more for a large command (see Allowed), and for the
// time that this process was held up.
func (l *Link) Send(r *Request) {
	r.asked = time.Now()
	s := l.serverOf(r.command.Key())
	switch b, up := s.admit(r, false); {
	case !up:
		r.answer(nil, ErrServerDown)
	case b != nil:
		go s.run(b)
	}
}

// SendHere sends r on this goroutine, which spares two wake-ups, unless others
// are before it. It returns true when there is an answer. Otherwise r waits its turn,
// or its answer came from another goroutine, and its Then is called. Only a client that
// is Prompt may be used so: any other may keep the goroutine for longer than the
// timeout.
func (l *Link) SendHere(r *Request) (answered bool) {
	r.asked = time.Now()
	s := l.serverOf(r.command.Key())
	b, up := s.admit(r, true)
	if !up {
		r.err = ErrServerDown
		return true
	}
	if b == nil {
		return false
	}
	reply, err := s.runAlone(b, r, r.allowed())
	heard, sign := signOf(err)
	s.landed(b, heard, sign, err)
	if answered = r.claim(); !answered {
		return false
	}
	if sign == slowness && r.heldUp() {
		r.sendAgain()
		return false
	}
	r.reply, r.err, r.answered = reply, err, time.Now()
	return true
}

// sendAgain is for a request that has been claimed, and whose reply the client has thrown
// away because this process was held up: it may have been here, unread. A step may be
// repeated.
func (r *Request) sendAgain() {
	again := r.link.NewRequest(r.ctx, r.command)
	again.Then = func() {
		r.again, r.reply, r.err, r.answered = again, again.reply, again.err, again.answered
		if NeverSent(r.err) {
			r.err = unanswered{context.DeadlineExceeded} // the first time, it was
		}
		r.Then()
	}
	r.link.Send(again)
}

// Busy says whether a small command of this key has to wait its turn if it is sent now.
func (l *Link) Busy(key string) bool {
	s := l.serverOf(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.free == 0 || len(s.queue) > 0
}

// large says whether r moves an outcome, or a piece of one, that may be slow by itself.
func (r *Request) large() bool { return r.within > 0 || r.command.Bytes() > maxBatchedBytes }

// allowed is how long r may take from when it is sent.
func (r *Request) allowed() time.Duration {
	allowed := Allowed(r.link.config.Timeout, r.command.Bytes())
	if r.within > 0 {
		return min(allowed, r.within)
	}
	return allowed
}

// claim returns true to one of those who have an answer to r.
func (r *Request) claim() bool {
	if r.claimed.Swap(true) {
		return false
	}
	r.link.pending.Stop(&r.timer)
	return true
}

// answer gives r its answer, unless it has one.
func (r *Request) answer(reply any, err error) {
	if r.claim() {
		r.reply, r.err, r.answered = reply, err, time.Now()
		r.Then()
	}
}

// depart notes that r is sent now, and has it looked after.
func (r *Request) depart(b *batch) {
	r.batch, r.next = b, b.began.Add(r.allowed()/looks)
	r.link.pending.Set(&r.timer, r, r.next)
}

// OnExpire makes Request a timers.Owner: it is a look.
func (r *Request) OnExpire(*timers.Timer) {
	runtime.Gosched() // a goroutine that has a reply to read comes first
	if r.claimed.Load() {
		return
	}
	r.look()
	s := r.batch.server
	switch r.looked.Load() {
	case 1:
		s.giveWay(r.batch)
	case looks / 2:
		if s.silentSince(r.batch) && !r.large() {
			s.ask()
		}
	case looks:
		r.expire()
		return
	}
	r.link.pending.Set(&r.timer, r, r.next)
	if r.claimed.Load() { // just now
		r.link.pending.Stop(&r.timer)
	}
}

// look counts a look, and says when the next one is due. Looks that are a little late keep
// to the time that they were due, so that they do not add up. Only the last one, which
// decides, must come in time, an interval after one that did: else the reply may be here,
// unread.
func (r *Request) look() {
	every := r.allowed() / looks
	now := time.Now()
	late := now.Sub(r.next)
	heldUp, last := late > heldUpFor*every, looks-1
	looked := int(r.looked.Load())
	r.next = r.next.Add(every)
	if heldUp || looked >= last-1 && late > every/2 {
		r.next = now.Add(every)
	}
	if looked == last && late > every/2 && (r.delayed < maxLate || heldUp && r.delayed < maxHeldUp) {
		r.delayed++
		return
	}
	r.looked.Add(1)
}

// expire answers r because its time has passed, and judges its server.
func (r *Request) expire() {
	if !r.claim() {
		return
	}
	r.err = context.DeadlineExceeded
	r.batch.ctx.End(r.err)
	r.batch.server.expired(r)
	r.Then()
}

// wasLookedAfter says whether the time of r has passed, or will at once: a client that
// keeps the same deadline may come back a little before the last look.
func (r *Request) wasLookedAfter() bool { return r.looked.Load() >= looks-1 }

// heldUp says whether this process was, while r was under way: there were fewer looks than
// there should have been.
func (r *Request) heldUp() bool {
	due := time.Since(r.batch.began) / max(r.allowed()/looks, 1)
	return r.looked.Load()+1 < uint32(min(due, looks))
}
