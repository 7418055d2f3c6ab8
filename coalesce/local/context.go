package local

import (
	"context"
	"sync"
	"time"
)

// flightContext is context.WithCancel(context.WithoutCancel(first)) without
// the three allocations: it is a part of its flight, and makes its channel
// only for a function that asks for it.
type flightContext struct {
	first context.Context // the first caller's

	mu   sync.Mutex
	done chan struct{}
	err  error
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
}
