package coalescehttp

import (
	"context"
	"sync"

	"github.com/fleetcall/fleetcall/coalesce/internal/detached"
)

// worktime is how long the work for a flight lasts: the request that a Transport sends, or
// the handler that a Middleware runs. Until the header of the answer is there, the work
// ends with the flight, which nobody may wait for any more. From then on the leader's
// client has a part of the answer, and gets the rest even if the flight ends, by its
// timeout or because the answer is not shared. So the work ends with the leader's own
// request.
type worktime struct {
	ctx detached.Context // that the work runs under; it has the flight's values
	own context.Context  // the leader's

	mu         sync.Mutex
	header     bool // it is there
	stopFlight func() bool
	stopOwn    func() bool // nil: the work does not end with own
}

func newWorktime(flight, own context.Context) *worktime {
	l := &worktime{own: own}
	l.ctx.First = flight
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stopFlight = afterFunc(flight, l.flightEnded)
	return l
}

// afterFunc is context.AfterFunc, which makes a context of its own though a flight's needs
// none.
func afterFunc(ctx context.Context, f func()) (stop func() bool) {
	if own, ok := ctx.(interface{ AfterFunc(func()) func() bool }); ok {
		return own.AfterFunc(f)
	}
	return context.AfterFunc(ctx, f)
}

func (l *worktime) cancel() { l.ctx.End(context.Canceled) }

func (l *worktime) flightEnded() {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.ctx.Err() != nil: // the work is done
	case l.header:
		l.followOwn()
	default:
		l.cancel()
	}
}

// headerIsThere is called when the leader's client is about to get the answer.
func (l *worktime) headerIsThere() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.header = true
}

// leaveFlight is called when the answer is the leader's alone.
func (l *worktime) leaveFlight() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.header = true
	l.stopFlight()
	l.followOwn()
}

func (l *worktime) followOwn() {
	if l.stopOwn == nil {
		l.stopOwn = context.AfterFunc(l.own, func() { l.ctx.End(l.own.Err()) })
	}
}

// end is called when the work is done.
func (l *worktime) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stopFlight()
	if l.stopOwn != nil {
		l.stopOwn()
	}
	l.cancel()
}
