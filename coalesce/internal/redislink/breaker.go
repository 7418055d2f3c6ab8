package redislink

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/fleetcall/fleetcall/coalesce/internal/protocol"
)

// window is how long the breaker keeps callers from Redis after a failure, before
// it lets one of them try.
const window = time.Second

// probeAfter is how long after a failure Redis is probed, if no caller has tried by
// then.
const probeAfter = 2 * window

// tryLimit is how long a try of the half-open breaker is waited for.
const tryLimit = 10 * window

// State is a state of the breaker.
type State string

// The states of the breaker.
const (
	Closed   State = "closed"    // callers use Redis
	Open     State = "open"      // callers do not use Redis
	HalfOpen State = "half-open" // one caller at a time may try Redis
)

// breaker keeps callers from a Redis that failed. One failure opens it: a second
// one would cost a caller a second Redis timeout in the same window.
type breaker struct {
	onChange func(from, to State, why error) // called for one change after the other, beside all callers
	onOpen   func()                          // called by the one who opened it, without the lock

	mu      sync.Mutex
	state   State     // "": Closed
	until   time.Time // an open breaker becomes half-open then
	tried   time.Time // a half-open one has let a caller try then; zero: none
	changes uint64    // so far: what was asked before the last one says nothing
	untold  []change  // that onChange has not been called for
	telling bool      // a goroutine is about to call it
}

type change struct {
	from, to State
	why      error // the failure that opened it
}

// allow returns a permit to send a command, or false: Redis is not to be used.
func (b *breaker) allow() (permit Permit, allowed bool) {
	defer b.lock()()
	// A try of which nothing is heard, because a hook's panic has taken its caller
	// away, must not be waited for.
	if b.state == Open || b.state == HalfOpen && time.Since(b.tried) < tryLimit {
		return nil, false
	}
	if b.state == HalfOpen {
		b.tried = time.Now()
	}
	asked := b.changes
	return func(err error) { b.report(asked, err) }, true
}

func (b *breaker) report(asked uint64, err error) {
	defer b.lock()()
	switch {
	case asked != b.changes:
	case errors.Is(err, errNotSent):
		b.tried = time.Time{} // Redis was not asked: another caller may try
	case err != nil:
		b.until = time.Now().Add(window)
		b.change(Open, err)
	case b.state == HalfOpen:
		b.change(Closed, nil)
	}
}

// current returns the state.
func (b *breaker) current() State {
	defer b.lock()()
	return b.name()
}

// name wants b.mu held.
func (b *breaker) name() State {
	if b.state == "" {
		return Closed
	}
	return b.state
}

// lock locks the breaker after the time that has passed has had its effect. What it
// returns unlocks it, and has the changes told.
func (b *breaker) lock() (unlock func()) {
	b.mu.Lock()
	if b.state == Open && !time.Now().Before(b.until) {
		b.change(HalfOpen, nil)
	}
	before := b.changes
	return func() {
		opened := b.state == Open && b.changes != before
		if len(b.untold) > 0 && !b.telling {
			b.telling = true
			go b.tell()
		}
		b.mu.Unlock()
		if opened {
			b.onOpen()
		}
	}
}

func (b *breaker) change(to State, why error) {
	b.untold = append(b.untold, change{b.name(), to, why})
	b.state, b.tried = to, time.Time{}
	b.changes++
}

// tell calls onChange for the first change that is untold, and has the next one told
// when it returns. It has a goroutine for each, because onChange may do anything:
// wait, panic, or end its goroutine.
func (b *breaker) tell() {
	b.mu.Lock()
	first := b.untold[0]
	b.untold = b.untold[1:]
	b.mu.Unlock()
	defer func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.telling = len(b.untold) > 0
		if b.telling {
			go b.tell()
		}
	}()
	b.onChange(first.from, first.to, first.why)
}

// Permit allows one command, and is called with the command's error when that has
// ended. In the half-open state, every other caller waits for that call.
type Permit func(error)

// Ask returns a permit for a caller that can do without Redis. The error is
// ErrBreakerOpen where the breaker is open, or half-open and somebody else tries.
func (l *Link) Ask() (Permit, error) {
	permit, allowed := l.breaker.allow()
	if !allowed {
		return nil, ErrBreakerOpen
	}
	return permit, nil
}

// Must returns a permit for a command that is sent whatever the breaker says, because
// somebody depends on the reply, or nobody waits for it. If the breaker would refuse
// the command, its end does not matter to the breaker.
func (l *Link) Must() Permit {
	permit, allowed := l.breaker.allow()
	if !allowed {
		return func(error) {}
	}
	return permit
}

// State returns the breaker's state at this moment.
func (l *Link) State() State { return l.breaker.current() }

// changed is called on a goroutine that has no caller.
func (l *Link) changed(from, to State, why error) {
	defer l.config.Survive()
	l.config.OnChange(from, to, why)
}

func (l *Link) opened() {
	l.probeLater()
	l.config.OnOpen()
}

// probeLater sets the timer of the next probe. By probes, a breaker that has opened
// closes though nobody calls.
func (l *Link) probeLater() {
	l.countMu.Lock()
	defer l.countMu.Unlock()
	switch {
	case l.stopped:
	case l.probes == nil:
		l.probes = time.AfterFunc(probeAfter, l.probe)
	default:
		l.probes.Reset(probeAfter)
	}
}

// probe tries Redis, unless a caller has. A success closes the breaker. A failure
// leaves it half-open, for callers: on a Cluster, their keys may belong to another
// server, which is well.
func (l *Link) probe() {
	if l.breaker.current() != HalfOpen {
		return
	}
	l.countMu.Lock()
	if l.stopped {
		l.countMu.Unlock()
		return
	}
	l.probing.Add(1)
	l.countMu.Unlock()
	defer l.probing.Done()
	defer l.config.Survive()
	permit := func(err error) {
		if err != nil {
			l.probeLater()
		} else if permit, allowed := l.breaker.allow(); allowed {
			permit(nil)
		}
	}
	_, _ = l.wait(l.NewRequest(context.Background(), protocol.Probe(l.config.Namespace, window), permit))
}
