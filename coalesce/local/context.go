package local

import (
	"context"
	"slices"
	"sync"
	"time"
)

// flightContext is context.WithCancel(context.WithoutCancel(first)) without
// the three allocations: it makes its channel only for a function that asks
// for it.
type flightContext struct {
	first context.Context // the first caller's

	mu    sync.Mutex
	done  chan struct{}
	err   error
	after []*func() // to be called at the end
}

func (c *flightContext) Deadline() (time.Time, bool) { return time.Time{}, false }

func (c *flightContext) Done() <-chan struct{} {
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

func (c *flightContext) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// Value goes through WithoutCancel because context.Cause asks for the nearest
// cancellable parent by value: it must not find the first caller's.
func (c *flightContext) Value(key any) any { return context.WithoutCancel(c.first).Value(key) }

// AfterFunc is what package context looks for in a context that it does not
// know: without it, each context derived from this one would take a goroutine
// that waits for this one's end.
func (c *flightContext) AfterFunc(f func()) (stop func() bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		go f()
		return func() bool { return false }
	}
	entry := &f
	c.after = append(c.after, entry)
	return func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		i := slices.Index(c.after, entry)
		if i >= 0 {
			c.after = slices.Delete(c.after, i, i+1)
		}
		return i >= 0
	}
}

func (c *flightContext) cancel() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return
	}
	c.err = context.Canceled
	if c.done != nil {
		close(c.done)
	}
	for _, f := range c.after {
		go (*f)()
	}
	c.after = nil
}
