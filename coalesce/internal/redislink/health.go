package redislink

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/fleetcall/fleetcall/coalesce/internal/protocol"
)

const (
	// probeEvery is about how often a server that is down is probed.
	probeEvery = 100 * time.Millisecond
	// maxProbes is how many probes may be with the client at a time: two, because one
	// may be dialling or waiting while the other would be answered. When the client has
	// kept them for stuckAfter, there may be one more.
	maxProbes  = 2
	stuckAfter = 3 * time.Second
	// probeTTL is how long the key that a probe writes lives.
	probeTTL = time.Second
)

// health is a server's. It is up until it refuses what it is sent, or is silent for a
// whole timeout while it is asked. It is up again when it answers a probe.
type health struct {
	since   time.Time
	why     error         // it is down because of that; nil: it is up
	changed uint64        // how often it went down or came up
	downed  chan struct{} // closed while it is down
	whenUp  []func()

	asking    bool // a probe is to tell whether it is up
	probes    int  // that the client has
	lastProbe time.Time
	nextProbe *time.Timer // nil until it went down
}

func (s *server) state() Server {
	s.mu.Lock()
	defer s.mu.Unlock()
	return Server{Address: s.address, Since: s.since, Why: s.why}
}

// Down returns a channel that is closed while the key's server is down.
func (l *Link) Down(key string) <-chan struct{} {
	s := l.serverOf(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.downed
}

// WhenUp has f called once, when the key's server is up, or asked no more: perhaps before
// it returns. f must not wait. It is not called after Close.
func (l *Link) WhenUp(key string, f func()) {
	s := l.serverOf(key)
	s.mu.Lock()
	if down := s.why != nil && !s.closed; down {
		s.whenUp = append(s.whenUp, f)
		s.mu.Unlock()
		return
	}
	s.mu.Unlock()
	f()
}

// silentSince says whether nothing came from the server since b was sent.
func (s *server) silentSince(b *batch) bool { return s.heard.Load() == b.heard }

// silence is why a server is down of which nothing was heard.
func (l *Link) silence() error {
	return fmt.Errorf("no answer for %v: %w", l.config.Timeout, context.DeadlineExceeded)
}

// heed judges the server by a batch that the client has come back with: err is the worst
// that its requests have met, or nil for a batch that took long.
func (s *server) heed(b *batch, err error, sign sign) {
	r := b.requests[0]
	switch {
	case sign == refusal:
		s.goDown(err, b.changes)
	case sign == slowness && !s.silentSince(b): // that command's misfortune alone
	case sign == slowness && !r.large() && r.wasLookedAfter():
		s.goDown(s.link.silence(), b.changes)
	case sign != nothing:
		s.ask()
	default:
		s.hasten()
	}
}

// expired judges the server by a request whose time has passed. That of a large one
// proves nothing.
func (s *server) expired(r *Request) {
	switch {
	case r.batch.probe: // its caller judges
	case r.large():
		s.ask()
	case s.silentSince(r.batch):
		s.goDown(s.link.silence(), r.batch.changes)
	}
}

// goDown fails all that waits for the server, unless it has changed since so many
// changes.
func (s *server) goDown(why error, changes uint64) {
	s.mu.Lock()
	if s.why != nil || s.changed != changes {
		s.mu.Unlock()
		return
	}
	change := s.change(why)
	close(s.downed)
	queue, flying := s.queue, s.flying
	s.queue, s.flying = nil, nil
	for _, b := range flying {
		b.at = -1
		s.leavePlace(b)
	}
	if !s.closed {
		s.probeSoon(0)
	}
	s.link.changes.tell(change)
	s.mu.Unlock()
	s.link.reload()
	for _, r := range queue {
		r.answer(nil, ErrServerDown)
	}
	for _, b := range flying {
		for _, r := range b.requests {
			r.answer(nil, unanswered{why})
		}
	}
}

// goUp lets callers use the server again.
func (s *server) goUp() {
	s.mu.Lock()
	if s.why == nil {
		s.mu.Unlock()
		return
	}
	change := s.change(nil)
	s.downed = make(chan struct{})
	waiting, key := s.whenUp, s.key
	s.whenUp = nil
	if s.nextProbe != nil {
		s.nextProbe.Stop()
	}
	s.link.changes.tell(change)
	s.mu.Unlock()
	s.link.dropMoved(s, key)
	s.link.config.OnUp()
	for _, f := range waiting {
		f()
	}
}

// change notes that the server is down because of why, or up. It wants s.mu held.
func (s *server) change(why error) Change {
	now := time.Now()
	change := Change{Address: s.address, Down: why != nil, Why: why, After: now.Sub(s.since)}
	if !change.Down {
		change.Why = s.why
	}
	s.why, s.since = why, now
	s.changed++
	return change
}

// ask sends a probe to a server that may be in trouble, unless one is under way: if it
// fails, the server goes down.
func (s *server) ask() {
	s.mu.Lock()
	if s.why != nil || s.asking || s.closed {
		s.mu.Unlock()
		return
	}
	s.asking = true
	s.mu.Unlock()
	s.probe()
}

// probeSoon sets the timer of the next probe. It wants s.mu held.
func (s *server) probeSoon(in time.Duration) {
	if s.nextProbe == nil {
		s.nextProbe = time.AfterFunc(in, s.probeAgain)
	} else {
		s.nextProbe.Reset(in)
	}
}

// hasten probes a server that is down at once: a reply came, late.
func (s *server) hasten() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.why != nil && !s.closed {
		s.probeSoon(0)
	}
}

// probeAgain probes a server that is down, unless the client is busy with probes, and
// sets the timer of the next.
func (s *server) probeAgain() {
	s.mu.Lock()
	if s.why == nil || s.closed {
		s.mu.Unlock()
		return
	}
	free := s.probes < maxProbes || time.Since(s.lastProbe) > stuckAfter
	s.probeSoon(probeEvery*3/4 + rand.N(probeEvery/2)) // replicas take turns
	s.mu.Unlock()
	if free {
		s.probe()
	}
}

// probe sends a probe. It takes nobody's place.
func (s *server) probe() {
	l := s.link
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return
	}
	r := l.NewRequest(context.Background(), protocol.Probe(l.config.Namespace, s.key, probeTTL))
	r.asked = time.Now()
	b := &batch{server: s, probe: true, began: r.asked, heard: s.heard.Load(), changes: s.changed, at: -1}
	b.one[0] = r
	b.requests = b.one[:]
	s.probes++
	s.lastProbe = r.asked
	l.probing.Add(1)
	s.mu.Unlock()
	r.Then = func() {
		defer l.probing.Done()
		defer l.config.Survive()
		s.probed(b, r.err)
		_, _ = l.Result(r)
	}
	r.depart(b)
	go func() {
		defer func() {
			s.mu.Lock()
			s.probes--
			s.mu.Unlock()
		}()
		reply, err := s.runAlone(b, r, r.allowed())
		answered, sign := signOf(err)
		if answered {
			s.heard.Add(1)
		}
		if answered && sign == nothing {
			s.goUp() // however late it is
		}
		r.answer(reply, err)
	}()
}

// probed judges a server that is up by the answer to a probe.
func (s *server) probed(b *batch, err error) {
	s.mu.Lock()
	s.asking = false
	s.mu.Unlock()
	r := b.requests[0]
	switch _, sign := signOf(err); {
	case sign == nothing || sign == slowness && !s.silentSince(b):
		return
	case sign == slowness && r.heldUp():
		s.ask()
		return
	case sign == slowness && r.wasLookedAfter():
		err = s.link.silence()
	}
	s.goDown(err, b.changes)
	s.link.reload()
}
