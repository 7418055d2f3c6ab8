// Package detached has a context that lives on when the one that it came from
// ends.
package detached

import (
	"context"
	"sync"
	"time"
)

// Context has the values of another context, and an end of its own: it is
// context.WithCancel(context.WithoutCancel(first)), or WithDeadline, as a part
// of its owner instead of five allocations, and makes a channel only for those
// who ask for it. Whoever sets Until calls End when it comes.
type Context struct {
	First context.Context // whose values it has
	Until time.Time       // zero: no deadline

	mu    sync.Mutex
	done  chan struct{}
	err   error
	after []*callback // in no order
}

// callback is a function to be called at the end.
type callback struct {
	call func()
	at   int // its place in after; -1: in none
}

// Deadline makes Context a context.Context.
func (c *Context) Deadline() (time.Time, bool) { return c.Until, !c.Until.IsZero() }

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
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		go f()
		return func() bool { return false }
	}
	cb := &callback{f, len(c.after)}
	c.after = append(c.after, cb)
	return func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		if cb.at < 0 {
			return false
		}
		// The last one takes its place: of a hundred thousand contexts, each
		// leaves as fast as of two.
		last := len(c.after) - 1
		moved := c.after[last]
		moved.at = cb.at
		c.after[cb.at], c.after[last] = moved, nil
		c.after = c.after[:last]
		cb.at = -1
		return true
	}
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
	for _, cb := range c.after {
		cb.at = -1
		go cb.call()
	}
	c.after = nil
}
