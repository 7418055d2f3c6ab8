package coalescehttp

import (
	"context"
	"runtime/debug"

	"github.com/fleetcall/fleetcall/coalesce"
)

// call is a call of the group's Do. It has a goroutine of its own, because the leader's
// client gets its answer while the flight lasts.
type call struct {
	done chan struct{} // closed when Do has ended

	// Written before done is closed, read only after.
	answer *Answer
	role   coalesce.Role
	err    error
	lost   *coalesce.PanicError // the function panicked
}

// join calls the group.
func (e *engine) join(ctx context.Context, key string, fn func(context.Context) (*Answer, error)) *call {
	c := &call{done: make(chan struct{})}
	go func() {
		returned := false
		defer func() {
			if !returned {
				c.answer, c.err = nil, coalesce.ErrGoexit
				switch value := recover().(type) {
				case nil: // runtime.Goexit
				case *coalesce.PanicError:
					c.lost = value
				default:
					c.lost = &coalesce.PanicError{Value: value, Stack: debug.Stack()}
				}
			}
			close(c.done)
		}()
		c.answer, c.role, c.err = e.group.Do(ctx, key, fn)
		returned = true
	}()
	return c
}

// leadersRole is the role of a request that got the answer itself: it may have had to
// because Redis could not be used. It is known when Do has ended.
func (c *call) leadersRole() string {
	select {
	case <-c.done:
		if c.role == coalesce.Fallback {
			return c.role.String()
		}
	default:
	}
	return coalesce.Leader.String()
}
