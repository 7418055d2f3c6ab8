package redislink

import (
	"sync"
	"sync/atomic"
	"time"
)

const (
	// maxInFlight is how many batches are under way to a server at a time, and how many
	// goroutines are kept to send them. A command that finds room is a batch of its
	// own. Those that find none wait, and the next goroutine that is free sends them
	// together. A batch that takes long gives its room away at its first look.
	maxInFlight = 2
	// maxBatch is how many requests are sent together at most: two commands of many keys,
	// or, on a Cluster, as many single ones. The last of more would be answered so late
	// that a busy machine would take it for the timeout.
	maxBatch = 2 * maxCombined
	// maxBatchedBytes is the largest outcome, in bytes, that is sent in a batch. A
	// larger one would hold up the small commands beside it, so it is sent alone, and
	// needs no room.
	maxBatchedBytes = 16 << 10
	// patience is how many times as long as a command may take the client is given for it
	// where it keeps no caller. The looks judge a command, and know when this process was
	// held up. A client's deadline does not: it would throw replies away that are here, unread.
	patience = 4
)

// server is one server of Redis: what waits for it, what it has been sent, and its
// health. What is a server's alone cannot hurt the keys of another.
type server struct {
	link    *Link
	address string
	heard   atomic.Uint64 // how often anything came from it
	moving  chan struct{} // has one for each piece of a large outcome that is under way
	apart   atomic.Bool   // it refuses commands with the keys of several callers

	mu     sync.Mutex
	work   sync.Cond // queue, free or closed has changed
	queue  []*Request
	free   int      // batches that may begin
	loops  int      // goroutines that are kept
	idle   int      // those of them that wait
	flying []*batch // all that are under way
	key    string   // on a Cluster, the last one that it was asked for
	asked  bool     // since unused was called
	closed bool     // it is asked no more, and begins no probe

	health // guarded by mu
}

func (l *Link) newServer(address string) *server {
	s := &server{link: l, address: address, free: maxInFlight, moving: make(chan struct{}, maxMoving)}
	s.work.L = &s.mu
	s.since, s.downed = time.Now(), make(chan struct{})
	return s
}

// close ends what is kept. Requests on their way are answered all the same.
func (s *server) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	if s.nextProbe != nil {
		s.nextProbe.Stop()
	}
	s.work.Broadcast()
}

// unused says whether nobody has asked s since the last time, nor waits for it.
func (s *server) unused() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	was := s.asked
	s.asked = false
	return !was && len(s.queue)+len(s.flying)+len(s.whenUp) == 0
}

// admit returns r's batch if r is to be sent now, or nil when r waits its turn. A small
// request may be sent at once only from here. When the server is down, r is left alone.
func (s *server) admit(r *Request, here bool) (b *batch, up bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.link.cluster != nil {
		s.key, s.asked = r.command.Key(), true
	}
	switch {
	case s.why != nil:
		return nil, false
	case r.large():
		return s.alone(r), true
	case !here || s.free == 0 || len(s.queue) > 0:
		s.queue = append(s.queue, r)
		s.wake()
		return nil, true
	}
	b = s.alone(r)
	b.placed = true
	s.free--
	return b, true
}

// alone returns a batch of r that is sent now. It wants s.mu held.
func (s *server) alone(r *Request) *batch {
	b := &batch{}
	b.one[0] = r
	b.requests = b.one[:]
	s.launch(b)
	return b
}

// launch notes that b is sent now. It wants s.mu held.
func (s *server) launch(b *batch) {
	b.server, b.began, b.heard, b.changes = s, time.Now(), s.heard.Load(), s.changed
	b.at = len(s.flying)
	s.flying = append(s.flying, b)
	for _, r := range b.requests {
		r.depart(b)
	}
}

// land takes b out of those that are under way. It wants s.mu held.
func (s *server) land(b *batch) {
	if b.at < 0 {
		return
	}
	last := len(s.flying) - 1
	s.flying[b.at] = s.flying[last]
	s.flying[b.at].at = b.at
	s.flying[last] = nil
	s.flying = s.flying[:last]
	b.at = -1
}

// wake has a goroutine take what is queued, if there is room. It wants s.mu held.
func (s *server) wake() {
	switch {
	case len(s.queue) == 0 || s.free == 0:
	case s.idle > 0:
		s.work.Signal()
	case s.loops < maxInFlight:
		s.loops++
		go s.loop()
	}
}

// loop sends what is queued, until s is closed or a batch has given way.
func (s *server) loop() {
	for b := s.take(); b != nil; b = s.take() {
		if s.run(b) {
			return
		}
	}
}

// take waits for requests and room to send them. It returns nil when there will
// be none.
func (s *server) take() *batch {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.queue) == 0 || s.free == 0 {
		if s.closed && len(s.queue) == 0 {
			s.loops--
			return nil
		}
		s.idle++
		s.work.Wait()
		s.idle--
	}
	n := min(len(s.queue), maxBatch)
	b := &batch{kept: true, placed: true, requests: make([]*Request, n)}
	copy(b.requests, s.queue)
	left := copy(s.queue, s.queue[n:])
	clear(s.queue[left:])
	s.queue = s.queue[:left]
	s.free--
	s.launch(b)
	s.wake()
	return b
}

// giveWay lets another batch begin while b is under way.
func (s *server) giveWay(b *batch) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.leavePlace(b)
	s.wake()
}

// leavePlace wants s.mu held.
func (s *server) leavePlace(b *batch) {
	if !b.placed {
		return
	}
	b.placed = false
	b.gaveWay = true
	s.free++
	if b.kept {
		s.loops--
	}
}

// landed is called when the client has come back with b, before b's requests are
// answered: whether anything came, and the worst that they have met. It returns true when
// b gave way.
func (s *server) landed(b *batch, heard bool, sign sign, err error) (gaveWay bool) {
	if heard {
		s.heard.Add(1)
	}
	s.mu.Lock()
	s.land(b)
	if b.placed {
		b.placed = false
		s.free++
		s.wake()
	}
	gaveWay = b.gaveWay
	s.mu.Unlock()
	if heard && s.link.cluster != nil {
		s.link.locate(s, b.requests[0].command.Key())
	}
	if sign != nothing || gaveWay {
		s.heed(b, err, sign)
	}
	return gaveWay
}
