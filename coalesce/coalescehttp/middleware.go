package coalescehttp

import (
	"net/http"
	"runtime/debug"
	"slices"

	"github.com/fleetcall/fleetcall/coalesce"
)

// Middleware returns a function that wraps a handler, so that requests for the same thing
// which come at once to all replicas whose Group shares flights are handled once. It
// panics when group is nil.
//
// The leader's handler runs on the goroutine of its own request, as it would without the
// Middleware, and what it panics with goes on there. Its context has the request's
// values and ends with the flight, when no client waits any more, until the answer's header
// is there; then with the request. When its own client leaves, it goes on for the others,
// and its ServeHTTP returns with it.
//
// What is shared is what the handler adds: each client gets the fields that outer handlers
// have set for itself. What an outer handler knows of a client, such as a user in the
// request's context or a nonce, must not be in an answer, unless that is private or
// WithIdentity tells clients apart. Answers that a handler flushes are streams, and nobody
// else's. A handler that returns without a status or a body leaves the answer to outer ones.
//
// A panic reaches the callers of its own process with its value; on other replicas they
// get an answer with the status 500. Other errors of the Group are answers as RFC 9457
// describes them: 504 past the flight timeout, 503 when the key is poisoned, or a group
// that fails closed cannot use Redis. When the fleet is closed, requests run alone.
func Middleware(group Group, opts ...Option) func(http.Handler) http.Handler {
	e := newEngine(group, opts)
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { e.serve(w, r, next) })
	}
}

func (e *engine) serve(w http.ResponseWriter, r *http.Request, next http.Handler) {
	q, reason := e.examine(r)
	if reason != "" {
		e.serveAlone(w, r, next, reason)
		return
	}
	end := e.share(r.Context(), q, func(int) part { return newOffer(e, q, r.Context()) })
	switch {
	case end.part != nil:
		end.part.(*offer).serve(w, r, next, end.call)
	case end.remembered != "":
		newRecorder(e, q, w, r).serveRemembered(next, end)
	case end.alone != "":
		e.serveAlone(w, r, next, end.alone)
	case end.lost != nil:
		panic(end.lost.Value)
	case end.err != nil:
		e.decided(r, end.decision)
		serveError(w, r, end)
	default:
		e.decided(r, end.decision)
		end.answer.serve(w, end.decision)
	}
}

// serveAlone runs a handler as it would run without the Middleware.
func (e *engine) serveAlone(w http.ResponseWriter, r *http.Request, next http.Handler, reason Reason) {
	d := Decision{Role: roleAlone, Reason: reason}
	sign(w.Header(), d)
	e.decided(r, d)
	next.ServeHTTP(w, r)
}

// serve runs the handler of the request that leads.
func (o *offer) serve(w http.ResponseWriter, r *http.Request, next http.Handler, c *call) {
	<-o.taken
	defer o.life.end()
	rec := newRecorder(o.engine, o.q, w, r)
	rec.offer, rec.call = o, c
	inner := r.WithContext(&o.life.ctx)
	inner.Header = r.Header.Clone() // o.q reads r's when the answer is there
	returned := false
	defer func() {
		r.Pattern = inner.Pattern // for outer handlers, which log it
		if returned {
			return
		}
		// In a deferred function that panics on, the stack still has the handler.
		value := recover()
		lost := &coalesce.PanicError{Value: value, Stack: debug.Stack()}
		if value == nil {
			lost = nil // runtime.Goexit, which goes on
		}
		o.lose(lost)
		rec.breakOff()
		if value != nil {
			panic(value)
		}
	}()
	next.ServeHTTP(rec, inner)
	rec.finish()
	returned = true
}

// serveRemembered runs the handler of a request that is alone because one before was, and
// looks whether that still holds.
func (w *recorder) serveRemembered(next http.Handler, end ending) {
	w.remembered = end.remembered
	w.header = w.client.Header()
	w.decision = Decision{Role: roleAlone, Reason: end.alone}
	w.mode = direct
	next.ServeHTTP(w, w.r)
	w.finish()
}

// serve writes an answer of another's flight.
func (a *Answer) serve(w http.ResponseWriter, d Decision) {
	header := w.Header()
	for name, values := range a.Header {
		if len(values) == 0 && len(header[name]) > 0 {
			delete(header, name)
		} else {
			header[name] = slices.Clone(values)
		}
	}
	sign(header, d)
	w.WriteHeader(a.Status)
	if len(a.Body) > 0 {
		_, _ = w.Write(a.Body)
	}
}
