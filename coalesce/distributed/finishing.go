package distributed

import (
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/internal/wire"
)

// outcome is how the function ended, as it travels.
func (c *call[V]) outcome(r returned[V]) (o wire.Outcome) {
	g, limit := c.g, c.g.set.payloadLimit
	switch {
	case r.lost && r.err != coalesce.ErrGoexit:
		return wire.ErrorOutcome(wire.KindPanic, c.flight(), fmt.Errorf("%w: %v", coalesce.ErrRemotePanic, r.err.(*coalesce.PanicError).Value), limit)
	case r.err != nil:
		return wire.ErrorOutcome(wire.KindError, c.flight(), r.err, limit)
	}
	payload, err := marshal(g.codec, r.val)
	switch {
	case err != nil:
		if g.unencoded.allow() {
			g.fleet.set.log.ErrorContext(c.ctx, "fleetcall: result cannot be encoded; followers run their own", c.attrs(slog.Any("error", err))...)
		}
	case len(payload) <= limit:
		return wire.Outcome{Kind: wire.KindValue, Flight: c.flight(), Codec: g.codecName, Fingerprint: g.fingerprint, Payload: payload}
	}
	return wire.Outcome{Kind: wire.KindTooLarge, Flight: c.flight()}
}

// marshal makes a panic of the codec an error: no caller could recover it where
// outcomes are encoded.
func marshal[V any](codec coalesce.Codec[V], v V) (b []byte, err error) {
	defer recoverAs(&err)
	return codec.Marshal(v)
}

// finish releases the lease and publishes the outcome. While Redis does not
// take it, it tries again: for as long as the flight timeout, and the lease, because
// until it is released the flight counts as one whose leader died; when the fleet is
// closing, for as long as the lease.
//
// Until then others may join the flight, though its function has ended. They must not
// get its result: the outcome says when that was, and a follower knows when it joined.
//
// A codec that has not returned within a third of the lease TTL, during which nothing
// renews the lease, is not waited for: followers are told that the outcome is too
// large, and run their own.
func (c *call[V]) finish(r returned[V], ended *endedFlight) {
	e := &c.running
	e.mu.Lock()
	e.encoding = ended
	e.mu.Unlock()
	encoded := false
	defer func() {
		if !encoded && !e.finished.Swap(true) { // a log handler panics, or a codec exits
			defer c.released(ended)
			c.abandon(true)
		}
	}()
	o := c.outcome(r)
	encoded = true
	c.deliverOnce(o, ended)
}

// encodeInTime is called when the lease was to be renewed, and the function has ended.
func (c *call[V]) encodeInTime() {
	e := &c.running
	e.mu.Lock()
	ended := e.encoding
	e.mu.Unlock()
	switch {
	case ended == nil || e.finished.Load():
	case time.Since(ended.at) < c.g.set.leaseTTL/3:
		c.renewAfter(ended.at)
	default:
		c.deliverOnce(wire.Outcome{Kind: wire.KindTooLarge, Flight: c.flight()}, ended)
		if run := e.of(); run != nil {
			run.send()
		}
	}
}

// released is called once, when Redis has the end of a flight, or will not be
// told.
func (c *call[V]) released(ended *endedFlight) {
	c.g.finishing.release(c.names.Channel(), ended)
	c.g.fleet.inflight.leave()
}

// finishing holds this replica's flights whose function has ended but whose
// lease Redis may still hold. A caller that comes now must not get them, though
// Redis lets it join:
//
//	flight F: function ends, its callers return
//	caller:   comes after them, sends join
//	Redis:    join → follow F
//	Redis:    finish of F
//
// By the time the reply to the join is read, F may have left this list: a
// caller takes its copy before it joins.
//
// Another local flight may follow F, too: after a reconnect, or when the callers of F
// have left. Callers that come when F has ended must not join that one.
type finishing struct {
	mu       sync.Mutex
	ended    map[string][]*endedFlight // by channel; the slices are never changed
	followed map[string]int            // how many local flights follow a flight
}

// endedFlight is guarded by finishing.mu, except for what never changes.
type endedFlight struct {
	flight string
	at     time.Time // its function ended
	due    time.Time // when Redis has been told, if it answers in time
	over   bool      // Redis has released the lease, or will not be told

	// Made for those who wait; nil before.
	wanted   chan struct{} // capacity one: a caller waits for the release
	released chan struct{} // closed when it is over
}

// sending says that the finish of e is sent, and may take so long.
func (f *finishing) sending(e *endedFlight, allowed time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	e.due = time.Now().Add(allowed)
}

// left returns how long to wait for the release of e, at the most.
func (f *finishing) left(e *endedFlight) time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	return time.Until(e.due)
}

// add puts a flight in whose function has ended, and says whether a local flight
// follows it.
func (f *finishing) add(channel, flight string, at, due time.Time) (e *endedFlight, followed bool) {
	e = &endedFlight{flight: flight, at: at, due: due}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.ended == nil {
		f.ended = map[string][]*endedFlight{}
	}
	f.ended[channel] = append(slices.Clone(f.ended[channel]), e)
	return e, f.followed[flight] > 0
}

// follow says that a local flight follows a flight, until unfollow. It returns that
// flight if it is one of this replica's that has ended.
func (f *finishing) follow(channel, flight string) *endedFlight {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, e := range f.ended[channel] {
		if e.flight == flight {
			return e
		}
	}
	if f.followed == nil {
		f.followed = map[string]int{}
	}
	f.followed[flight]++
	return nil
}

func (f *finishing) unfollow(flight string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.followed[flight]--; f.followed[flight] == 0 {
		delete(f.followed, flight)
	}
}

// release takes e out.
func (f *finishing) release(channel string, e *endedFlight) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if all := f.ended[channel]; len(all) == 1 && all[0] == e {
		delete(f.ended, channel)
	} else {
		f.ended[channel] = slices.DeleteFunc(slices.Clone(all), func(other *endedFlight) bool { return other == e })
	}
	e.over = true
	if e.released != nil {
		close(e.released)
	}
}

// wait is for those who release e, and those who wait for that.
func (f *finishing) wait(e *endedFlight) (wanted chan struct{}, released <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if e.wanted == nil {
		e.wanted, e.released = make(chan struct{}, 1), make(chan struct{})
		if e.over {
			close(e.released)
		}
	}
	return e.wanted, e.released
}

func (f *finishing) on(channel string) []*endedFlight {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.ended[channel]
}
