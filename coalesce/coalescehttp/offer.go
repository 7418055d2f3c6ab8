package coalescehttp

import (
	"context"
	"errors"
	"net/http"
	"runtime"
	"sync"
	"time"

	"github.com/fleetcall/fleetcall/coalesce"
)

// offer is a request that has come to a Middleware and offers its goroutine to run the
// handler for a flight. Handlers that outlive their ServeHTTP would see what frameworks
// reuse for the next request, so that none does: when its client has left before the
// flight took the offer, the flight is abandoned, and another request leads.
type offer struct {
	*engine
	q   *request
	own context.Context

	taken chan struct{} // closed when the flight takes the offer
	life  *worktime     // of the handler; written before taken is closed
	ended chan struct{} // closed when the flight is to end

	header chan struct{} // closed when answer is there, without its body

	mu     sync.Mutex
	state  offerState
	answer *Answer

	// Written before ended is closed, read only after.
	err    error
	lost   *coalesce.PanicError
	exited bool
}

type offerState int

const (
	open     offerState = iota // until the flight takes the offer
	resigned                   // the request waits no more
	working                    // the handler runs, and its answer may be shared
	over                       // the flight ends, or has ended
)

func newOffer(e *engine, q *request, own context.Context) *offer {
	return &offer{
		engine: e, q: q, own: own,
		taken: make(chan struct{}), ended: make(chan struct{}), header: make(chan struct{}),
	}
}

func (o *offer) leads() <-chan struct{} { return o.taken }

// resign makes offer a part.
func (o *offer) resign() bool { return o.turn(open, resigned) }

func (*offer) failure() error { return nil }

// turn changes the state, if it is still from.
func (o *offer) turn(from, to offerState) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.state != from {
		return false
	}
	o.state = to
	return true
}

// errResigned is of a request whose client has left before the flight began.
var errResigned = errors.New("fleetcall: the client has left")

// run makes offer a part.
func (o *offer) run(flight context.Context) (*Answer, error) {
	if !o.turn(open, working) {
		return nil, errors.Join(errResigned, context.Canceled)
	}
	o.life = newWorktime(flight, o.own)
	close(o.taken)
	header := o.header
	slow := (<-chan time.Time)(nil)
	for {
		select {
		case <-o.ended:
			switch {
			case o.lost != nil:
				panic(o.lost)
			case o.exited:
				runtime.Goexit()
			}
			return o.answer, o.err
		case <-header:
			header = nil
			if !o.isShared() {
				continue // the body came with it
			}
			timer := time.NewTimer(o.settings.bodyTimeout(flight))
			defer timer.Stop()
			slow = timer.C
		case <-slow:
			o.leaveFlight(o.alone(o.q, o.begun(), ReasonSlow))
			slow = nil
		case <-flight.Done():
			if o.turn(working, over) { // what the handler does is for its own client
				return nil, flight.Err()
			}
		}
	}
}

// begin takes what the header of the answer says. shared is false when the answer is for
// the leader's client alone: for what it says, or because the flight has ended.
func (o *offer) begin(status int, header http.Header) (a *Answer, shared bool) {
	o.life.headerIsThere()
	a = o.verdict(o.q, status, header, false)
	if a.Alone != "" {
		o.leaveFlight(a)
		return a, false
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.state != working {
		return a, false
	}
	o.answer = a
	close(o.header)
	return a, true
}

// isShared says whether the flight still waits for the body.
func (o *offer) isShared() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.state == working
}

// begun returns what is known of the answer by its header.
func (o *offer) begun() *Answer {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.answer
}

// leaveFlight ends the flight, if it lasts, with an answer that says why the leader's is
// its own.
func (o *offer) leaveFlight(a *Answer) {
	o.end(func() {
		o.life.leaveFlight()
		o.answer = a
	})
}

// end ends the flight, unless it has ended.
func (o *offer) end(set func()) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.state != working {
		return false
	}
	o.state = over
	set()
	close(o.ended)
	return true
}

// lose ends the flight with a panic, or with an exit of the goroutine.
func (o *offer) lose(lost *coalesce.PanicError) {
	o.end(func() { o.lost, o.exited = lost, lost == nil })
}
