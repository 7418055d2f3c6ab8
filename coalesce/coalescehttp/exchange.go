package coalescehttp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/fleetcall/fleetcall/coalesce"
)

// exchange is a Transport's request that may be sent for a flight.
type exchange struct {
	t        *Transport
	r        *http.Request
	q        *request
	own      context.Context // ends when the caller has left, or needs the flight no more
	leave    context.CancelFunc
	takeover int

	answered chan struct{} // closed when there is an answer for the caller

	mu     sync.Mutex
	copied bool           // r is nobody else's
	left   bool           // the caller takes no answer
	resp   *http.Response // for the caller
	body   *reader        // resp's; nil: it is the base's
	alone  Reason
	flight string
	failed error // why there is no answer
}

func (x *exchange) leads() <-chan struct{} { return x.answered }

// resign makes exchange a part. What was sent goes on for the others, and what is yet to
// be sent is no longer the caller's, who may change its request when RoundTrip returns.
func (x *exchange) resign() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.left = x.resp == nil
	if x.left && !x.copied && x.own.Err() != nil {
		x.r, x.copied = x.r.Clone(x.own), true
	}
	return x.left
}

// begin returns the request to send, or nil when its caller has got something else. From
// here on, the flight looks at nothing that is the caller's, nor at what the base may change.
func (x *exchange) begin(ctx context.Context) *http.Request {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.left && !x.copied {
		return nil
	}
	x.copied = true
	sent := x.r.Clone(ctx)
	if sent.Body != nil {
		sent.Body = http.NoBody
	}
	q := *x.q
	q.r = sent.WithContext(ctx)
	q.r.Header = sent.Header.Clone()
	x.q = &q
	return sent
}

func (x *exchange) failure() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.failed
}

// run makes exchange a part.
func (x *exchange) run(flight context.Context) (*Answer, error) {
	life := newWorktime(flight, x.own)
	sent := x.begin(&life.ctx)
	if sent == nil {
		life.end()
		return nil, errors.Join(errResigned, context.Canceled)
	}
	resp, err := x.t.send(sent)
	if err != nil {
		life.end()
		if ended := flight.Err(); ended != nil {
			return nil, ended
		}
		return x.noAnswer(err)
	}
	life.headerIsThere()
	a := x.t.verdict(x.q, resp.StatusCode, resp.Header, resp.Trailer != nil)
	if a.Alone != "" {
		life.leaveFlight()
		x.takesAll(a, resp, life)
		return a, nil
	}
	return x.share(flight, a, resp, life)
}

// noAnswer ends a flight whose server did not answer. Where others may have better luck,
// they are told so.
func (x *exchange) noAnswer(err error) (*Answer, error) {
	x.mu.Lock()
	x.failed = err
	x.mu.Unlock()
	switch {
	case errors.Is(err, context.Canceled):
		// The flight has not been cancelled: it was the base's own decision, and must not
		// look as if the flight had been abandoned.
		return nil, fmt.Errorf("fleetcall: sending the request: %v", err)
	case isTimeout(err):
		return nil, timedOut{err}
	case x.takeover >= maxTakeovers:
		return nil, err
	}
	return &Answer{Flight: newFlight(), Replica: x.t.replica, Alone: ReasonUnreachable, Failure: coalesce.NewRemoteError(err)}, nil
}

// takesAll gives the caller an answer that is nobody else's.
func (x *exchange) takesAll(a *Answer, resp *http.Response, life *worktime) {
	end := func(bool) {
		life.end()
		x.leave()
	}
	if _, upgraded := resp.Body.(io.Writer); upgraded {
		x.answer(a, resp, nil) // the context lasts as long as the caller's own
		return
	}
	body := &reader{ReadCloser: resp.Body, end: end}
	resp.Body = body
	x.answer(a, resp, body)
}

// answer gives the caller its answer at once, or closes that when the caller has left.
func (x *exchange) answer(a *Answer, resp *http.Response, body *reader) {
	if x.keep(a, resp, body) {
		close(x.answered)
	}
}

// keep has the caller find its answer, at the latest when the flight has ended.
func (x *exchange) keep(a *Answer, resp *http.Response, body *reader) bool {
	resp.Request = x.r
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.left {
		_ = resp.Body.Close()
		return false
	}
	x.resp, x.body, x.alone, x.flight = resp, body, a.Alone, a.Flight
	return true
}

// share captures the body for all. The caller reads it as it comes.
func (x *exchange) share(flight context.Context, a *Answer, resp *http.Response, life *worktime) (*Answer, error) {
	header := resp.Header.Clone() // the caller may change its own
	own := *resp
	own.Trailer = nil // that of resp is written by who reads the body
	body := newCapture(resp.Body, resp.ContentLength, x.t.settings.bodyLimit)
	client := &reader{ReadCloser: &captured{capture: body, own: x.own}}
	client.end = func(whole bool) {
		if whole {
			own.Trailer = resp.Trailer
			client.await(x.own)
		}
		x.leave()
		if body.isHandedOver() {
			life.end()
		}
	}
	own.Body = client

	if body.isHere(flight) {
		x.keep(a, &own, client)
		return x.whole(flight, a, resp, header, body, life)
	}
	x.answer(a, &own, client)
	timer := time.NewTimer(x.t.settings.bodyTimeout(flight))
	defer timer.Stop()
	select {
	case <-body.done:
		return x.whole(flight, a, resp, header, body, life)
	case <-timer.C:
		body.handOver()
		life.leaveFlight()
		return x.t.alone(x.q, a, ReasonSlow), nil
	case <-flight.Done():
		body.handOver() // the caller may have time
		return nil, flight.Err()
	}
}

// whole returns what is shared of an answer when the capture of its body has ended.
func (x *exchange) whole(flight context.Context, a *Answer, resp *http.Response, header http.Header, body *capture, life *worktime) (*Answer, error) {
	data, handed, err := body.whole()
	if handed {
		life.leaveFlight()
		return x.t.alone(x.q, a, ReasonTooLarge), nil
	}
	life.end()
	switch {
	case err != nil && flight.Err() != nil:
		return nil, flight.Err()
	case err != nil:
		return nil, cutShort(err)
	case x.q.r.Method != http.MethodHead && int64(len(data)) < resp.ContentLength:
		return nil, cutShort(io.ErrUnexpectedEOF)
	case len(resp.Trailer) > 0:
		return x.t.alone(x.q, a, ReasonTrailer), nil
	}
	a.Status, a.Header, a.Body = resp.StatusCode, shared(header), data
	return a, nil
}

// response is the caller's answer.
func (x *exchange) response(c *call) *http.Response {
	if x.body != nil {
		x.body.flight = c
	}
	d := Decision{Role: c.leadersRole(), Flight: x.flight}
	if x.alone != "" {
		d = Decision{Role: roleAlone, Reason: x.alone}
	}
	x.t.decided(x.r, d)
	sign(x.resp.Header, d)
	return x.resp
}

// reader is the body of a caller that got its answer itself. It calls end once, when the
// caller has come to the body's end, or wants no more.
type reader struct {
	io.ReadCloser
	flight *call
	once   sync.Once
	end    func(whole bool)
}

// Read makes reader an io.Reader.
func (b *reader) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil {
		b.once.Do(func() { b.end(err == io.EOF) })
	}
	return n, err
}

// Close makes reader an io.Closer.
func (b *reader) Close() error {
	err := b.ReadCloser.Close()
	b.once.Do(func() { b.end(false) })
	return err
}

// await waits for the end of the flight, which is near: its caller does not have to
// look as if it had left a flight that lasts.
func (b *reader) await(own context.Context) {
	select {
	case <-b.flight.done:
	case <-own.Done():
	}
}
