package redislink

import (
	"sync"
	"time"
)

// Change is a change of a server's health.
type Change struct {
	Address string
	Down    bool
	Why     error         // the failure that the outage began with
	After   time.Duration // how long the server was in the state before
}

// changes tells of one change after the other, beside all callers.
type changes struct {
	told func(Change)

	mu      sync.Mutex
	untold  []Change
	telling bool // a goroutine is about to call told
}

func (c *changes) tell(change Change) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.untold = append(c.untold, change)
	if !c.telling {
		c.telling = true
		go c.tellFirst()
	}
}

// tellFirst has the next change told when told returns. It has a goroutine for each,
// because told may do anything: wait, panic, or end its goroutine.
func (c *changes) tellFirst() {
	c.mu.Lock()
	first := c.untold[0]
	c.untold = c.untold[1:]
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.telling = len(c.untold) > 0
		if c.telling {
			go c.tellFirst()
		}
	}()
	c.told(first)
}

// changed is called on a goroutine that has no caller.
func (l *Link) changed(change Change) {
	defer l.config.Survive()
	l.config.OnChange(change)
}
