package redislink

import (
	"context"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/fleetcall/fleetcall/coalesce/internal/protocol"
	"github.com/fleetcall/fleetcall/coalesce/internal/timers"
)

// looks is how often a command that was sent is looked after until its time has passed,
// at even intervals. A look that comes late tells that this process was held up, and
// does not count: the reply may be here, unread.
const looks = 10

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
	claimed atomic.Bool     // somebody answers

	// Set when it is sent.
	batch   *batch
	timer   timers.Timer  // of the next look
	next    time.Time     // when that is due
	looked  atomic.Uint32 // looks that came in time
	delayed uint32        // looks that came late

	reply    any // the answer
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
func (r *Request) Trip() (began, ended time.Time) { return r.batch.began, r.answered }

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
	reply, err := s.runAlone(b, r)
	heard, sign := signOf(err)
	s.landed(b, heard, sign, err)
	if answered = r.claim(); answered {
		r.reply, r.err, r.answered = reply, err, time.Now()
	}
	return answered
}

// Busy says whether a small command of this key has to wait its turn if it is sent now.
func (l *Link) Busy(key string) bool {
	s := l.serverOf(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.free == 0 || len(s.queue) > 0
}

func (r *Request) large() bool { return r.command.Bytes() > maxBatchedBytes }

// allowed is how long r may take from when it is sent.
func (r *Request) allowed() time.Duration {
	return Allowed(r.link.config.Timeout, r.command.Bytes())
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
	every := r.allowed() / looks
	now := time.Now()
	if now.Sub(r.next) > every/2 && r.delayed < looks {
		r.delayed++
		r.next = now.Add(every)
	} else {
		r.looked.Add(1)
		r.next = r.next.Add(every)
	}
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

// heldUp says whether this process was, while r was under way: fewer looks came in time
// than should have.
func (r *Request) heldUp() bool {
	due := time.Since(r.batch.began) / max(r.allowed()/looks, 1)
	return r.looked.Load()+1 < uint32(min(due, looks))
}
