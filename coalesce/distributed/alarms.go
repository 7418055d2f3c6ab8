package distributed

import (
	"sync"
	"time"
)

// alarms go off at the times that they are set to, with one timer for all. Most
// are for what hardly ever comes, such as a timeout, and are stopped long before:
// a timer of its own would cost each more than its place in the list does.
//
// Those of one list are set to about the same time from now, so that the place of
// a new one is near the end.
type alarms struct {
	mu          sync.Mutex
	first, last *alarm // in the order of their times
	timer       *time.Timer
	due         moment // when the timer goes off; 0: it does not
}

// moment is a time.Time of this process in a third of the space.
type moment time.Duration

var epoch = time.Now().Add(-time.Nanosecond) // no moment is 0

func momentOf(t time.Time) moment { return moment(t.Sub(epoch)) }

// alarm is a part of its owner. It is guarded by the mu of its list.
type alarm struct {
	at         moment
	owner      ringer // nil: it is not set
	prev, next *alarm
}

// ringer is told when an alarm of its own goes off, on a goroutine of its own.
type ringer interface{ rings(a *alarm) }

// set sets a, which is not set.
func (l *alarms) set(a *alarm, owner ringer, t time.Time) {
	at := momentOf(t)
	l.mu.Lock()
	defer l.mu.Unlock()
	prev := l.last
	for prev != nil && prev.at > at {
		prev = prev.prev
	}
	a.at, a.owner, a.prev = at, owner, prev
	if prev == nil {
		a.next, l.first = l.first, a
	} else {
		a.next, prev.next = prev.next, a
	}
	if a.next == nil {
		l.last = a
	} else {
		a.next.prev = a
	}
	l.arm()
}

// stop says whether a was set. If not, it has gone off, or was never set.
func (l *alarms) stop(a *alarm) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if a.owner == nil {
		return false
	}
	l.remove(a)
	return true
}

// owners returns whose alarms are set.
func (l *alarms) owners() (all []ringer) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for a := l.first; a != nil; a = a.next {
		all = append(all, a.owner)
	}
	return all
}

// close lets go of the timer. No alarm is set any more.
func (l *alarms) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.timer != nil {
		l.timer.Stop()
		l.due = 0
	}
}

// arm sees to it that the timer goes off in time for the first one. It may go off
// too early, for one that was stopped: that is rarer than stopping one.
func (l *alarms) arm() {
	if l.first == nil || l.due != 0 && l.due <= l.first.at {
		return
	}
	l.due = l.first.at
	in := time.Duration(l.due - momentOf(time.Now()))
	if l.timer == nil {
		l.timer = time.AfterFunc(in, l.ring)
	} else {
		l.timer.Reset(in)
	}
}

func (l *alarms) ring() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.due = 0
	for now := momentOf(time.Now()); l.first != nil && l.first.at <= now; {
		a, owner := l.first, l.first.owner
		l.remove(a)
		go owner.rings(a)
	}
	l.arm()
}

func (l *alarms) remove(a *alarm) {
	if a.prev == nil {
		l.first = a.next
	} else {
		a.prev.next = a.next
	}
	if a.next == nil {
		l.last = a.prev
	} else {
		a.next.prev = a.prev
	}
	*a = alarm{}
}
