package distributed

import (
	"context"
	"sync"
	"time"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/internal/protocol"
	"github.com/fleetcall/fleetcall/coalesce/internal/wire"
)

// forgets tells whether this replica has missed a Forget of another while its
// subscription was lost. Redis counts the keys that the fleet forgets. What the counter
// has grown by from one connection to the next must have been heard of.
type forgets struct {
	mu          sync.Mutex
	connections int          // how often the control channel was confirmed
	known       bool         // at is what the counter was when it was last to be read
	at          wire.Count   // N is 0 when there was none; zero: there is none yet
	heard       int64        // the keys that it has counted since, as far as this replica knows
	recent      []wire.Count // those heard of since the last confirmation; nil once the counter was read
	reading     bool
}

// heardOf notes a key that was forgotten here, or by a replica whose notice has arrived.
func (f *forgets) heardOf(key wire.Count) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if key.Began == 0 {
		return // nobody has counted it
	}
	if f.reading {
		f.recent = append(f.recent, key)
	}
	f.note(key)
}

// note counts a key that was forgotten after the counter was read. It wants mu held.
func (f *forgets) note(key wire.Count) {
	if f.at.Began == 0 {
		f.at.Began = key.Began
	}
	if key.Began == f.at.Began && key.N > f.at.N {
		f.heard++
	}
}

// connected is called when the control channel is confirmed: what is forgotten from now
// on, this replica hears of. It returns which connection this is, from 1.
func (f *forgets) connected() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.connections++
	f.reading, f.recent = true, nil
	return f.connections
}

// read is called with what the counter was on a connection, or that this cannot be
// learned. It says whether a key may have been forgotten that this replica has not heard
// of. On the first connection there is nothing that it could have missed. When there is
// another connection since, that decides.
func (f *forgets) read(connection int, now wire.Count, err error) (missed bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if connection != f.connections {
		return false
	}
	known, at, heard := f.known, f.at, f.heard
	f.known, f.at, f.heard = err == nil, now, 0
	for _, key := range f.recent {
		f.note(key) // it may have been forgotten after the counter was read
	}
	f.reading, f.recent = false, nil
	return connection > 1 && (err != nil || !known || now.Began != at.Began || now.N-at.N != heard-f.heard)
}

// superseded says whether there is another connection since.
func (f *forgets) superseded(connection int) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return connection != f.connections
}

// connected is called when the control channel is subscribed, for the first time or
// again. It loads the scripts, which a restart of Redis loses, and finds out what was
// forgotten while the subscription was lost.
func (f *Fleet) connected() {
	confirmed, connection := time.Now(), f.forgets.connected()
	if f.inflight.enter() != nil {
		return
	}
	go func() {
		defer f.inflight.leave()
		err := f.catchUp(connection)
		f.link.Load(context.Background())
		f.learnTime()
		wait := min(f.set.redisTimeout/4, 100*time.Millisecond)
		for err != nil && !f.inflight.closing() && !f.forgets.superseded(connection) {
			if time.Since(confirmed) > f.set.group.leaseTTL {
				f.forgetMissed(f.forgets.read(connection, wire.Count{}, err), confirmed)
				return
			}
			select {
			case <-time.After(wait):
			case <-f.abandon:
			}
			err = f.catchUp(connection)
		}
	}()
}

// catchUp reads the counter, and forgets if a Forget was missed.
func (f *Fleet) catchUp(connection int) error {
	replies, errs := f.sendAll(context.Background(), []protocol.Command{
		protocol.CountRequest{Counter: protocol.ForgetCounter(f.set.namespace), Channel: protocol.ControlChannel(f.set.namespace, f.database)}.Command(),
	})
	if errs[0] != nil {
		return errs[0]
	}
	// The connection may have been lost before the counter was read: what has begun
	// meanwhile may be forgotten, too.
	f.forgetMissed(f.forgets.read(connection, protocol.ParseCount(replies[0]), nil), time.Now())
	return nil
}

// forgetMissed makes the callers to come start new flights where the present ones have
// begun before that. It leaves alone those that run without Redis, for which every call
// that is not merged here is another execution.
func (f *Fleet) forgetMissed(missed bool, before time.Time) {
	if !missed {
		return
	}
	for _, c := range f.expiries.Owners() {
		c.(interface{ forget(before time.Time) }).forget(before)
	}
}

func (c *call[V]) forget(before time.Time) {
	c.running.mu.Lock()
	defer c.running.mu.Unlock()
	if c.started.Before(before) && !c.over.Load() && coalesce.Role(c.role.Load()) != coalesce.Fallback {
		c.callers.Forget()
	}
}
