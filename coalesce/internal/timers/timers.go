// Package timers has many deadlines wait for one timer of the runtime.
//
// Most deadlines of a flight are timeouts, which are stopped long before they come. A
// Timer is a part of its owner, and to set and stop it moves a few pointers. On a machine
// of two cores, an owner that is made with its timer, which is set and stopped, takes
// 170 ns and one allocation with this package, and 290 ns and three allocations with
// time.AfterFunc: 1.7 times as long.
//
//	go test ./coalesce/internal/timers -run '^$' -bench .
package timers

import (
	"sync"
	"time"
)

// maxSteps is how far from the end of the list Set looks for the place of a new timer.
// The deadlines of one kind are about the same time from now, so the place is nearly
// always the last one. A timer whose place is farther away, a stray, gets a timer of the
// runtime for itself: no mix of deadlines makes Set slow.
const maxSteps = 32

// List is a set of timers. The zero value is empty and ready to use. Its methods may be
// called by several goroutines.
type List struct {
	mu          sync.Mutex
	first, last *Timer // in the order of their deadlines
	strays      map[*Timer]struct{}
	wake        *time.Timer
	due         moment // when wake fires; 0: it does not
}

// Owner has timers.
type Owner interface {
	// OnExpire is called when a timer of the owner expires, on a goroutine that it may
	// keep. The timer is not set any more, and may be set again.
	OnExpire(t *Timer)
}

// Timer is a part of its owner. The zero value is not set. It must not be copied while it
// is set.
type Timer struct { // the mu of its list guards all fields
	at         moment
	owner      Owner // nil: it is not set
	prev, next *Timer
	own        *time.Timer // of a stray
}

// moment is a time.Time of this process in a third of the space.
type moment time.Duration

var epoch = time.Now().Add(-time.Nanosecond) // no moment is 0

func momentOf(t time.Time) moment { return moment(t.Sub(epoch)) }

// Set sets t to expire at that time, or at once when that has passed, and not when it was
// to expire before. The list must not be closed.
func (l *List) Set(t *Timer, owner Owner, at time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if t.owner != nil {
		l.remove(t)
	}
	t.at, t.owner = momentOf(at), owner
	prev := l.last
	for steps := 0; prev != nil && prev.at > t.at; steps++ {
		if steps == maxSteps {
			l.setStray(t, at)
			return
		}
		prev = prev.prev
	}
	t.prev = prev
	if prev == nil {
		t.next, l.first = l.first, t
	} else {
		t.next, prev.next = prev.next, t
	}
	if t.next == nil {
		l.last = t
	} else {
		t.next.prev = t
	}
	l.arm()
}

// setStray gives t a timer of its own. It wants l.mu held.
func (l *List) setStray(t *Timer, at time.Time) {
	if l.strays == nil {
		l.strays = map[*Timer]struct{}{}
	}
	l.strays[t] = struct{}{}
	var own *time.Timer
	own = time.AfterFunc(time.Until(at), func() {
		l.mu.Lock()
		owner := t.owner
		current := t.own == own // else it was stopped, and may be set again
		if current {
			l.remove(t)
		}
		l.mu.Unlock()
		if current {
			owner.OnExpire(t)
		}
	})
	t.own = own
}

// Stop stops t. It returns false when t was not set: it has expired, or was never set.
// After true, OnExpire is not called.
func (l *List) Stop(t *Timer) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if t.owner == nil {
		return false
	}
	l.remove(t)
	return true
}

// Owners returns the owners of the timers that are set, in no order. It takes time for
// each.
func (l *List) Owners() (all []Owner) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for t := l.first; t != nil; t = t.next {
		all = append(all, t.owner)
	}
	for t := range l.strays {
		all = append(all, t.owner)
	}
	return all
}

// Close stops the timers of the runtime. OnExpire is not called after it, unless the
// timer was expiring. No timer may be set from now on.
func (l *List) Close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.wake != nil {
		l.wake.Stop()
		l.due = 0
	}
	for t := range l.strays {
		l.remove(t)
	}
}

// arm makes wake fire in time for the first timer. wake may fire too early, for a
// timer that was stopped meanwhile: to fire once too often costs less than to set wake
// anew whenever a timer is stopped. arm wants l.mu held.
func (l *List) arm() {
	if l.first == nil || l.due != 0 && l.due <= l.first.at {
		return
	}
	l.due = l.first.at
	in := time.Duration(l.due - momentOf(time.Now()))
	if l.wake == nil {
		l.wake = time.AfterFunc(in, l.fire)
	} else {
		l.wake.Reset(in)
	}
}

func (l *List) fire() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.due = 0
	for now := momentOf(time.Now()); l.first != nil && l.first.at <= now; {
		t, owner := l.first, l.first.owner
		l.remove(t)
		go owner.OnExpire(t)
	}
	l.arm()
}

// remove wants l.mu held.
func (l *List) remove(t *Timer) {
	switch {
	case t.own != nil:
		t.own.Stop()
		delete(l.strays, t)
		*t = Timer{}
		return
	case t.prev == nil:
		l.first = t.next
	default:
		t.prev.next = t.next
	}
	if t.next == nil {
		l.last = t.prev
	} else {
		t.next.prev = t.prev
	}
	*t = Timer{}
}
