package distributed

import (
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/internal/protocol"
	"github.com/fleetcall/fleetcall/coalesce/internal/redislink"
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
	c.sendOnce(o, ended)
}

// sendOnce sends the finish, unless that has been done.
func (c *call[V]) sendOnce(o wire.Outcome, ended *endedFlight) {
	if !c.running.finished.Swap(true) {
		c.g.fleet.renewals.Stop(&c.running.renewal)
		request := c.finishRequest(ended.at, o)
		c.sendFinish(request.Command(), redislink.Allowed(c.g.fleet.set.redisTimeout, len(request.Outcome)), ended)
	}
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
		c.sendOnce(wire.Outcome{Kind: wire.KindTooLarge, Flight: c.flight()}, ended)
	}
}

func (c *call[V]) sendFinish(command protocol.Command, allowed time.Duration, ended *endedFlight) {
	f := c.g.fleet
	asked := false
	defer func() {
		if !asked { // something panics
			c.released(ended)
		}
	}()
	c.g.finishing.sending(ended, allowed)
	sent := f.link.NewRequest(c.ctx, command)
	sent.Then = func() {
		if reply, err := sent.Reply(); err == nil && protocol.ParseFinish(reply) == protocol.FinishHeld && !c.g.hooks.tellOfCommands() {
			c.finished(sent, ended) // takes no time
			return
		}
		f.workers.Run(func() { c.proceed(beside[V](func() { c.finished(sent, ended) })) })
	}
	here := f.link.SendHere(sent)
	asked = true
	if here {
		c.finished(sent, ended)
	}
}

func (c *call[V]) finishRequest(at time.Time, o wire.Outcome) protocol.FinishRequest {
	g := c.g
	o.Finished = c.running.lease.clock.NoLater(at)
	encoded := o.Encode()
	request := protocol.FinishRequest{
		Names: c.names, Settings: &g.args,
		Outcome: encoded, Notice: wire.NoticeOf(o, len(encoded)).Encode(),
		Publish: g.fleet.subs.PublishCommand(), Message: protocol.Inline,
		Finished: o.Finished, Trace: c.told.trace,
	}
	if len(o.Payload) > g.set.inlineLimit {
		request.Message = protocol.Notice
	}
	switch o.Kind {
	case wire.KindValue:
		request.MaxAge = g.set.maxAge
	case wire.KindTooLarge:
		request.Unshared = causeTooLarge
	}
	return request
}

// finished goes on when the first try has been answered.
func (c *call[V]) finished(sent *redislink.Request, ended *endedFlight) {
	defer c.released(ended)
	g := c.g
	command := sent.Command()
	reply, err := g.fleet.link.Result(sent)
	give := func() error {
		if err != nil && command.Bytes() > largeOutcome && redislink.OwnFault(err) {
			command = c.withoutOutcome(ended, err)
			reply, err = g.fleet.link.Do(c.ctx, command)
		}
		return err
	}
	err = c.retryRelease(max(g.set.flightTimeout, g.set.leaseTTL), ended, sent.SentAt(), give(), func() error {
		reply, err = g.fleet.link.Do(c.ctx, command)
		return give()
	})
	switch {
	case err != nil:
		if g.unshared.allow() {
			g.fleet.set.log.WarnContext(c.ctx, "fleetcall: outcome could not be shared", c.attrs(slog.Any("error", err))...)
		}
	case c.hadLost(protocol.ParseFinish(reply), ended):
		c.loseLease(sent.SentAt())
	}
}

// largeOutcome is the size, in bytes, from which on it may be an outcome's own fault that
// Redis does not take it: a limit of the server or of a proxy, or a thin link.
const largeOutcome = 16 << 10

// withoutOutcome returns a finish of the flight for another try, after one with a large
// outcome that ended with err: it says that the outcome is too large to travel. So the key
// loses its sharing, and no follower waits for tries that may all fail.
func (c *call[V]) withoutOutcome(ended *endedFlight, err error) protocol.Command {
	g := c.g
	if g.unshared.allow() {
		g.fleet.set.log.WarnContext(c.ctx, "fleetcall: large result could not be shared; followers run their own", c.attrs(slog.Any("error", err))...)
	}
	g.finishing.sending(ended, g.fleet.set.redisTimeout)
	request := c.finishRequest(ended.at, wire.Outcome{Kind: wire.KindTooLarge, Flight: c.flight()})
	return request.Command()
}

// hadLost says whether the flight had lost its lease when it was released. One that
// outlived its lease had, if Redis has nothing of it.
func (c *call[V]) hadLost(reply protocol.FinishReply, ended *endedFlight) bool {
	e := &c.running
	e.mu.Lock()
	defer e.mu.Unlock()
	return reply == protocol.FinishLost || reply == protocol.FinishNothing && ended.at.Sub(e.renewed) > c.g.set.leaseTTL
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
