// Package detached has a context that lives on when the one that it came from
// ends.
package detached

import (
	"context"
	"sync"
	"time"
)

// Context has the values of another context, and an end of its own: it is
// context.WithCancel(context.WithoutCancel(first)) as a part of its owner
// instead of four allocations, and makes a channel only for those who ask for it.
type Context struct {
	First context.Context // whose values it has

	mu    sync.Mutex
	done  chan struct{}
	err   error
	after *Callback // the first of those to be called at the end
}

// Timed is a Context with a deadline. Whoever sets Until calls End when it comes.
type Timed struct {
	Context
	Until time.Time
}

// Deadline makes Timed a context.Context.
func (t *Timed) Deadline() (time.Time, bool) { return t.Until, true }

// Ender is told when a context has ended, on a goroutine of its own.
type Ender interface{ ContextEnded() }

// Callback is an Ender's place with a Context. The zero value has none.
type Callback struct {
	ender      Ender
	prev, next *Callback
}

// Deadline makes Context a context.Context.
func (c *Context) Deadline() (time.Time, bool) { return time.Time{}, false }

// Done makes Context a context.Context.
func (c *Context) Done() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.done == nil {
		c.done = make(chan struct{})
		if c.err != nil {
			close(c.done)
		}
	}
	return c.done
}

// Err makes Context a context.Context.
func (c *Context) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// Value goes through WithoutCancel because context.Cause asks for the nearest
// cancellable parent by value: it must not find First's.
func (c *Context) Value(key any) any { return context.WithoutCancel(c.First).Value(key) }

// AfterFunc has f called in a goroutine of its own at the end, unless stop is
// called before. Package context looks for it in a context that it does not
// know: without it, each context derived from this one would take a goroutine
// that waits for this one's end.
func (c *Context) AfterFunc(f func()) (stop func() bool) {
	cb := new(Callback)
	c.Notify(cb, ender(f))
	return func() bool { return c.Dismiss(cb) }
}

type ender func()

func (f ender) ContextEnded() { f() }

// Notify has e told of the end, by way of cb, which is its own and has no place
// yet.
func (c *Context) Notify(cb *Callback, e Ender) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		go e.ContextEnded()
		return
	}
	cb.ender, cb.next = e, c.after
	if cb.next != nil {
		cb.next.prev = cb
	}
	c.after = cb
}

// Dismiss takes back what Notify asked for with cb, and says whether it was in
// time.
func (c *Context) Dismiss(cb *Callback) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if cb.ender == nil {
		return false
	}
	if cb.prev == nil {
		c.after = cb.next
	} else {
		cb.prev.next = cb.next
	}
	if cb.next != nil {
		cb.next.prev = cb.prev
	}
	*cb = Callback{}
	return true
}

// End ends the context with err, unless it has ended.
func (c *Context) End(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return
	}
	c.err = err
	if c.done != nil {
		close(c.done)
	}
	for cb := c.after; cb != nil; {
		next := cb.next
		go cb.ender.ContextEnded()
		*cb = Callback{}
		cb = next
	}
	c.after = nil
}
