package coalescehttp

import (
	"context"
	"crypto/rand"
	"errors"
	"net/http"
	"strconv"

	"github.com/fleetcall/fleetcall/coalesce"
)

// maxTakeovers is how many replicas try in turn after one could not reach its server,
// as distributed.WithMaxTakeovers has it for replicas that die.
const maxTakeovers = 2

// engine is what a Transport and a Middleware have in common: it finds the flight that a
// request shares.
type engine struct {
	group    Group
	settings *settings
	memory   *remembered
	replica  string // tells the answers of this process from others'
}

func newEngine(group Group, opts []Option) *engine {
	if group == nil {
		panic("fleetcall: coalescehttp: the Group is nil; coalesce.Off merges nothing")
	}
	return &engine{group: group, settings: newSettings(opts), memory: newRemembered(rememberedEntries), replica: rand.Text()}
}

// examine returns what merges r with others, or why r runs alone.
func (e *engine) examine(r *http.Request) (*request, Reason) {
	if e.settings.only != nil && !e.settings.only(r) {
		return nil, ReasonExcluded
	}
	return e.settings.rules.request(r)
}

// decided tells the observer of a request's decision.
func (e *engine) decided(r *http.Request, d Decision) {
	if e.settings.observe != nil {
		e.settings.observe(r, d)
	}
}

// part is a request's part in a flight that it may come to lead.
type part interface {
	// run is the function of the flight.
	run(flight context.Context) (*Answer, error)
	// leads is closed when the request has an answer of its own, or has to make it.
	leads() <-chan struct{}
	// resign ends a part that does not lead. It returns false when it does.
	resign() bool
	// failure is why the request got no answer of its own, if that is so.
	failure() error
}

// ending is what a request has found by its search for a flight.
type ending struct {
	part       part // it leads
	call       *call
	answer     *Answer // it takes this answer of another's
	decision   Decision
	alone      Reason // it runs alone
	remembered Reason // why one before it was alone, if that is why this one is
	err        error  // it fails
	lost       *coalesce.PanicError
}

// share joins flights until there is one that a request leads, or whose answer it may
// take. own is the request's context; newPart makes its part in a flight.
func (e *engine) share(own context.Context, q *request, newPart func(takeover int) part) ending {
	vary := e.memory.vary(q.key(nil))
	for varied, takeover := false, 0; ; {
		key := q.key(vary)
		if reason := e.memory.alone(key); reason != "" {
			return ending{alone: ReasonRemembered, remembered: reason}
		}
		p := newPart(takeover)
		end, next := e.await(own, q, p, e.join(own, takeoverKey(key, takeover), p.run))
		switch next {
		case joinVaried:
			if varied {
				return ending{alone: ReasonVary}
			}
			varied, vary = true, end.answer.Vary
		case joinTakeover:
			takeover++
		default:
			return end
		}
	}
}

// takeoverKey is the key of those who try after others could not reach their servers.
func takeoverKey(key string, takeover int) string {
	if takeover == 0 {
		return key
	}
	return key + " takeover " + strconv.Itoa(takeover)
}

// next says whether a request has to join another flight.
type next int

const (
	joinNone     next = iota
	joinVaried        // the answer depends on fields in which the leader's request differs
	joinTakeover      // the leader's replica could not reach its server
)

// await waits for what becomes of a request's part in a flight.
func (e *engine) await(own context.Context, q *request, p part, c *call) (ending, next) {
	select {
	case <-p.leads():
	case <-c.done:
	case <-own.Done(): // the group may need a moment more to notice
	}
	if !p.resign() {
		return ending{part: p, call: c}, joinNone
	}
	if err := own.Err(); err != nil {
		return ending{err: err, decision: Decision{Role: coalesce.Role(0).String()}}, joinNone
	}
	d := Decision{Role: c.role.String()}
	failed := p.failure()
	switch {
	case c.lost != nil:
		return ending{lost: c.lost}, joinNone
	case errors.Is(c.err, coalesce.ErrClosed):
		return ending{alone: ReasonClosed}, joinNone
	case c.err != nil:
		return ending{err: c.err, decision: d}, joinNone
	case failed != nil:
		return ending{err: failed, decision: d}, joinNone
	case c.answer == nil:
		return ending{err: errNoAnswer, decision: d}, joinNone
	}
	return e.take(q, c.answer, d)
}

// take decides whether a request may have the answer of another's flight.
func (e *engine) take(q *request, a *Answer, d Decision) (ending, next) {
	if a.Failure != nil {
		if a.Replica == e.replica {
			return ending{err: a.Failure, decision: d}, joinNone
		}
		return ending{}, joinTakeover
	}
	if len(a.Vary) > 0 {
		e.memory.learn(q.key(nil), a.Vary)
	}
	switch {
	case q.selection(a.Vary) != a.Fields:
		return ending{answer: a}, joinVaried
	case a.Alone != "":
		e.leaveAlone(q, a.Alone)
		return ending{alone: a.Alone}, joinNone
	}
	d.Flight = a.Flight
	return ending{answer: a, decision: d}, joinNone
}

// verdict returns what is known of an answer by its header, or what travels of one that
// may not be shared. It remembers that for those who come.
func (e *engine) verdict(q *request, status int, header http.Header, trailer bool) *Answer {
	a := &Answer{Flight: newFlight(), Replica: e.replica, Vary: q.vary(header)}
	a.Fields = q.selection(a.Vary)
	if len(a.Vary) > 0 {
		e.memory.learn(q.key(nil), a.Vary)
	}
	if reason := q.answer(status, header, trailer, e.settings.bodyLimit); reason != "" {
		return e.alone(q, a, reason)
	}
	return a
}

// alone returns what travels of an answer that may not be shared after all.
func (e *engine) alone(q *request, a *Answer, reason Reason) *Answer {
	e.leaveAlone(q, reason)
	return &Answer{Flight: a.Flight, Replica: a.Replica, Vary: a.Vary, Fields: a.Fields, Alone: reason}
}

// leaveAlone remembers that the answers to such requests are not shared, if the next one
// will probably not be, either.
func (e *engine) leaveAlone(q *request, reason Reason) {
	e.memory.leaveAlone(e.key(q), reason, e.settings.remember)
}

// key is what a request's flight would have for its key now.
func (e *engine) key(q *request) string { return q.key(e.memory.vary(q.key(nil))) }

// lookAgain forgets that the answers to such requests are not shared, for that reason, if
// the header of this one says otherwise. What comes after a header cannot be told by it.
func (e *engine) lookAgain(q *request, remembered Reason, status int, header http.Header, trailer bool) {
	switch remembered {
	case "", ReasonTrailer, ReasonStreams, ReasonHijacked, ReasonTooLarge, ReasonSlow:
		return
	}
	if q.answer(status, header, trailer, e.settings.bodyLimit) == "" {
		e.memory.clear(e.key(q))
	}
}

// newFlight returns the id of a flight.
func newFlight() string { return rand.Text()[:16] }
