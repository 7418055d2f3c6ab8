package coalescehttp

import (
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
)

// recorder is the ResponseWriter of a handler whose answer may be shared.
//
// What the handler writes is kept, up to the limit, and never waits for the leader's
// client. That gets it from the pump, a goroutine which begins when there is more than
// net/http would send anyway before the handler ends. As soon as the answer is known to be
// for the client alone, the recorder is direct: the pump writes what was kept and ends, and
// the handler then writes to the client itself, at its speed.
//
// The handler has a header of its own, which begins with what outer handlers have set, so
// that what it adds can be told from that.
type recorder struct {
	*engine
	q      *request
	r      *http.Request
	client http.ResponseWriter // the leader's
	offer  *offer              // nil: the answer is the client's alone
	call   *call

	header     http.Header // what the handler sees
	outer      http.Header // what outer handlers have set: the client's, until that is changed
	changed    http.Header // what the handler has changed of it, when the header was written
	mode       mode
	status     int
	length     int64  // that was declared, or -1
	tried      int64  // bytes that the handler wrote, kept or not
	remembered Reason // why one before it was alone, if that is why this one is
	decision   Decision
	answer     *Answer
	committed  http.Header // the header when it was written
	over       atomic.Bool // the handler has returned
	told       bool        // the observer

	pumping bool
	pumped  chan struct{} // closed when the pump has ended
	grown   chan struct{} // has a value when there is more for the pump

	mu       sync.Mutex
	body     []byte
	stop     bool // the pump ends when it has written all
	panicked any  // by the client's writer, in the pump
}

type mode int

const (
	waiting mode = iota // for the header
	keeping             // the body
	direct              // the handler writes to the client
)

func newRecorder(e *engine, q *request, client http.ResponseWriter, r *http.Request) *recorder {
	return &recorder{engine: e, q: q, r: r, client: client, length: -1}
}

// Header makes recorder an http.ResponseWriter.
func (w *recorder) Header() http.Header {
	if w.header == nil {
		w.outer = w.client.Header()
		w.header = copyOf(w.outer)
	}
	return w.header
}

// WriteHeader makes recorder an http.ResponseWriter.
func (w *recorder) WriteHeader(status int) {
	switch {
	case w.status != 0:
		if w.mode == direct {
			w.client.WriteHeader(status) // it says that this is one too many
		}
	case status < 100 || status > 999:
		w.client.WriteHeader(status) // it panics
	case status < 200 && status != http.StatusSwitchingProtocols:
		header := w.Header()
		w.outer = w.outer.Clone()
		w.copyHeader(header)
		w.client.WriteHeader(status) // for the leader's client alone
	default:
		w.commit(status)
	}
}

// commit decides on the answer by its header.
func (w *recorder) commit(status int) {
	w.status = status
	w.committed = w.Header().Clone()
	if w.offer == nil {
		w.lookAgain(w.q, w.remembered, status, w.committed, false)
		w.sendHeader(w.decision)
		return
	}
	a, shared := w.offer.begin(status, w.committed)
	w.answer = a
	if shared {
		w.mode, w.length, w.changed = keeping, declaredLength(w.committed), w.changes()
		return
	}
	w.mode = direct
	w.sendHeader(w.alone())
}

// alone is the decision on a request whose answer is the client's alone, or whose flight
// has ended without it.
func (w *recorder) alone() Decision {
	for _, a := range []*Answer{w.answer, w.offer.begun()} {
		if a != nil && a.Alone != "" {
			return Decision{Role: roleAlone, Reason: a.Alone}
		}
	}
	return Decision{Role: w.call.leadersRole(), Flight: w.answer.Flight}
}

// sendHeader writes the header to the client.
func (w *recorder) sendHeader(d Decision) {
	w.copyHeader(w.committed)
	sign(w.client.Header(), d)
	w.decide(d)
	w.client.WriteHeader(w.status)
}

// copyHeader makes the client's header equal to the handler's.
func (w *recorder) copyHeader(header http.Header) {
	client := w.client.Header()
	if w.offer == nil {
		return // they are one
	}
	clear(client)
	for name, values := range header {
		client[name] = values
	}
}

// Write makes recorder an http.ResponseWriter.
func (w *recorder) Write(p []byte) (int, error) {
	if w.over.Load() {
		return 0, errReturned
	}
	if w.status == 0 {
		w.commit(http.StatusOK)
	}
	if w.mode == keeping {
		if n, err, kept := w.keep(p); kept {
			return n, err
		}
		w.goDirect()
	}
	return w.client.Write(p)
}

// keep keeps p, or returns false when the answer has become the client's alone.
func (w *recorder) keep(p []byte) (n int, err error, kept bool) {
	switch {
	case !w.offer.isShared():
		return 0, nil, false
	case !bodyAllowed(w.status):
		return 0, http.ErrBodyNotAllowed, true
	}
	if w.tried += int64(len(p)); w.length >= 0 && w.tried > w.length {
		return 0, http.ErrContentLength, true
	}
	w.mu.Lock()
	if len(w.body)+len(p) > w.settings.bodyLimit {
		w.mu.Unlock()
		w.leaveFlight(ReasonTooLarge)
		return 0, nil, false
	}
	w.body = append(w.body, p...)
	more := len(w.body) > sentAtOnce
	w.mu.Unlock()
	if more {
		w.pump()
	}
	return len(p), nil, true
}

// leaveFlight makes the answer the client's alone.
func (w *recorder) leaveFlight(reason Reason) {
	w.answer = w.engine.alone(w.q, w.answer, reason)
	w.offer.leaveFlight(w.answer)
}

// finish is called when the handler has returned.
func (w *recorder) finish() {
	if w.status == 0 {
		w.leaveUnanswered()
		return
	}
	w.over.Store(true) // before anybody learns that the handler has returned
	if w.mode == keeping {
		w.complete()
	}
	w.copyTrailer()
}

// leaveUnanswered is for a handler that has returned without an answer. net/http makes an
// empty one of that, but an outer handler may make another: echo calls its error handler
// when all middlewares have returned. So the recorder goes on, for the client alone.
func (w *recorder) leaveUnanswered() {
	d := w.decision
	if w.offer != nil {
		if w.header != nil {
			w.copyHeader(w.header)
		}
		w.answer = &Answer{Replica: w.replica}
		w.leaveFlight(ReasonUnanswered)
		d = w.alone()
	}
	sign(w.client.Header(), d)
	w.decide(d)
}

// decide tells the observer, once.
func (w *recorder) decide(d Decision) {
	if !w.told {
		w.told = true
		w.decided(w.r, d)
	}
}

// complete ends the flight with what the handler has written.
func (w *recorder) complete() {
	switch {
	case hasTrailer(w.header):
		w.leaveFlight(ReasonTrailer)
	case int64(len(w.body)) < w.length && bodyAllowed(w.status) && w.r.Method != http.MethodHead:
		w.offer.end(func() { w.offer.err = ErrCutShort })
	default:
		a := w.whole()
		w.offer.end(func() {
			w.offer.life.end() // before the flight's own end has others look whether it goes on
			w.offer.answer = a
		})
	}
	<-w.call.done // it is near; its role is the client's
	w.goDirect()
}

// whole returns the answer that is shared.
func (w *recorder) whole() *Answer {
	a := *w.answer
	a.Status, a.Header, a.Body = w.status, shared(w.changed), w.body
	return &a
}

// changes returns the fields that the handler has set or changed, and without a value
// those that it has removed. The others are from outer handlers, which set them for each
// client.
func (w *recorder) changes() http.Header {
	changed := http.Header{}
	for name, values := range w.committed {
		if outer, ok := w.outer[name]; !ok || !slices.Equal(outer, values) {
			changed[name] = values
		}
	}
	for name := range w.outer {
		if _, ok := w.committed[name]; !ok {
			changed[name] = nil
		}
	}
	return changed
}

// breakOff is called when the handler has not returned. The client gets what net/http
// would have sent it.
func (w *recorder) breakOff() {
	w.over.Store(true)
	if w.status == 0 {
		if w.header != nil {
			w.copyHeader(w.header) // for an outer handler that makes an answer of the panic
		}
		return
	}
	if w.mode == keeping {
		w.goDirect()
	}
}

// copyTrailer gives the client the trailer fields that the handler has set after the
// header.
func (w *recorder) copyTrailer() {
	if w.offer == nil {
		return
	}
	announced := w.committed["Trailer"]
	for name, values := range w.header {
		if strings.HasPrefix(name, http.TrailerPrefix) || slices.ContainsFunc(announced, func(list string) bool { return hasToken([]string{list}, name) }) {
			w.client.Header()[name] = values
		}
	}
}

// bodyAllowed is as in net/http: RFC 9110, §6.4.1.
func bodyAllowed(status int) bool {
	return status >= 200 && status != http.StatusNoContent && status != http.StatusNotModified
}
