package coalescehttp

import (
	"context"
	"net/http"
)

// Transport is an http.RoundTripper that merges requests for the same thing which are
// sent at once, by all replicas whose Group shares flights, into one. It is used by many
// goroutines at once.
//
// Each request ends with its own context, and goes on for others when its own caller has
// left. What is sent has the values of the leader's context.
//
// An error of the base before there is an answer is the error of all callers of the
// leader's process. Those of other replicas, whose server or whose way to it may be
// another, try after one another, together, at most twice more, unless the error is a
// timeout. An answer that is cut is ErrCutShort to those who share it, and is not asked
// for again. Past the flight timeout, all get coalesce.ErrFlightTimeout.
//
// The errors of the Group are those of its requests: coalesce.ErrPoisoned, and
// coalesce.ErrUnavailable when it fails closed. When its fleet is closed, requests run
// alone.
type Transport struct {
	base http.RoundTripper
	*engine
}

// NewTransport returns a Transport that sends requests with base, http.DefaultTransport
// if it is nil. It panics when group is nil.
func NewTransport(base http.RoundTripper, group Group, opts ...Option) *Transport {
	if base == nil {
		base = http.DefaultTransport
	}
	return &Transport{base: base, engine: newEngine(group, opts)}
}

// CloseIdleConnections closes those of the base, if that has such a method.
func (t *Transport) CloseIdleConnections() {
	if base, ok := t.base.(interface{ CloseIdleConnections() }); ok {
		base.CloseIdleConnections()
	}
}

// RoundTrip makes Transport an http.RoundTripper.
func (t *Transport) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL == nil {
		return t.base.RoundTrip(r) // it says what is wrong, and closes the body
	}
	q, reason := t.examine(r)
	if reason != "" {
		return t.sendAlone(r, nil, ending{alone: reason})
	}
	own, leave := context.WithCancel(r.Context())
	if r.Body != nil {
		_ = r.Body.Close() // it is empty
	}
	end := t.share(own, q, func(takeover int) part {
		return &exchange{t: t, r: r, q: q, own: own, leave: leave, takeover: takeover, answered: make(chan struct{})}
	})
	if end.part != nil {
		return end.part.(*exchange).response(end.call), nil
	}
	leave()
	switch {
	case end.alone != "":
		return t.sendAlone(r, q, end)
	case end.lost != nil:
		panic(end.lost.Value)
	case end.err != nil:
		t.decided(r, end.decision)
		return nil, callersError(end.err)
	}
	t.decided(r, end.decision)
	return end.answer.response(r, end.decision), nil
}

// sendAlone sends a request that is not merged. Of a key that is remembered, it looks
// whether that still holds.
func (t *Transport) sendAlone(r *http.Request, q *request, end ending) (*http.Response, error) {
	resp, err := t.send(r)
	d := Decision{Role: roleAlone, Reason: end.alone}
	t.decided(r, d)
	if err != nil {
		return resp, err
	}
	t.lookAgain(q, end.remembered, resp.StatusCode, resp.Header, resp.Trailer != nil)
	sign(resp.Header, d)
	return resp, nil
}

// send sends a request with the base, and makes good what http.Client would: a base that is
// written by hand may leave out the header or the body.
func (t *Transport) send(r *http.Request) (*http.Response, error) {
	resp, err := t.base.RoundTrip(r)
	if err != nil {
		return resp, err
	}
	if resp == nil || resp.Body == nil && resp.ContentLength > 0 && r.Method != http.MethodHead {
		return nil, errNoResponse
	}
	if resp.Header == nil {
		resp.Header = http.Header{}
	}
	if resp.Body == nil {
		resp.Body = http.NoBody
	}
	return resp, nil
}
