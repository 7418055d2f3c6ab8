package coalescetest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fleetcall/fleetcall/coalesce"
)

// patience is for what must happen at once. In a bubble it passes as soon as
// nothing can happen any more.
const patience = time.Minute

// exercise is one subtest: its Groups, the calls on them, and their functions.
type exercise struct {
	*testing.T
	h       Harness
	forever bool // the callers' contexts never end
	groups  []coalesce.Group[string]
	pending []int // calls on each Group that have not returned, as far as the test has seen

	over    chan struct{} // closed at the end: functions that still run return
	cancels []context.CancelFunc
	calls   sync.WaitGroup
}

// replicas makes the Groups. At the end, before they are released, every function
// is let go and every caller leaves.
func (x *exercise) replicas(n int) []coalesce.Group[string] {
	x.groups, x.pending = x.h.Replicas(x.T, n), make([]int, n)
	if len(x.groups) != n {
		x.Fatalf("Replicas returned %d Groups instead of %d", len(x.groups), n)
	}
	x.Cleanup(func() {
		close(x.over)
		for _, cancel := range x.cancels {
			cancel()
		}
		all := make(chan struct{})
		go func() {
			x.calls.Wait()
			close(all)
		}()
		select {
		case <-all:
		case <-timeUp():
			x.Error("calls have not returned though every function has and every caller has left")
		}
	})
	return x.groups
}

// group makes the one Group of a subtest that needs no other.
func (x *exercise) group() int {
	x.replicas(1)
	return 0
}

// context returns what a caller calls with, and how it leaves.
func (x *exercise) context() (context.Context, context.CancelFunc) {
	if x.forever {
		return context.Background(), nil
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	leave := func() { cancel(errLeft) }
	x.cancels = append(x.cancels, leave)
	return ctx, leave
}

// errLeft is the cause with which a context ends. Do returns the context's error,
// and not this.
var errLeft = errors.New("the caller has left")

// report is for goroutines that a wrong Group may leave behind.
func (x *exercise) report(format string, args ...any) {
	select {
	case <-x.over:
	default:
		x.Errorf(format, args...)
	}
}

// ending is everything that a call can end in.
type ending struct {
	val      string
	role     coalesce.Role
	err      error
	panicked any
	exited   bool // its goroutine, by runtime.Goexit
}

type caller struct {
	x      *exercise
	name   string // of the caller, for messages
	group  int
	leave  context.CancelFunc // nil: it cannot
	done   chan struct{}
	ending ending // written before done is closed
	seen   bool
}

// call calls in a goroutine of its own.
func (x *exercise) call(name string, group int, key string, fn func(context.Context) (string, error)) *caller {
	ctx, leave := x.context()
	c := x.callWith(ctx, name, group, key, fn)
	c.leave = leave
	return c
}

func (x *exercise) callWith(ctx context.Context, name string, group int, key string, fn func(context.Context) (string, error)) *caller {
	c := &caller{x: x, name: name, group: group, done: make(chan struct{}), ending: ending{exited: true}}
	x.pending[group]++
	x.calls.Add(1)
	go func() {
		defer x.calls.Done()
		defer close(c.done)
		defer func() {
			if value := recover(); value != nil {
				c.ending = ending{panicked: value}
			}
		}()
		val, role, err := x.groups[group].Do(ctx, key, fn)
		c.ending = ending{val: val, role: role, err: err}
	}()
	return c
}

// follow calls with a function that must not run.
func (x *exercise) follow(name string, group int, key string) *caller {
	return x.call(name, group, key, func(context.Context) (string, error) {
		x.report("the function of %s ran, though another one's was running for its key", name)
		return "the result of " + name + "'s own function", nil
	})
}

// ends waits for the end of the call.
func (c *caller) ends() ending {
	c.x.Helper()
	select {
	case <-c.done:
	case <-timeUp():
		c.x.Fatalf("the call of %s has not returned", c.name)
	}
	if !c.seen {
		c.seen = true
		c.x.pending[c.group]--
	}
	return c.ending
}

// gets is for a call that must end with a value.
func (c *caller) gets(want string, role coalesce.Role) {
	c.x.Helper()
	if got := c.ends(); got != (ending{val: want, role: role}) {
		c.x.Errorf("%s %s, want %.200q as %s", c.name, got, want, role)
	}
}

// leaves makes the caller leave, which must bring it back at once.
func (c *caller) leaves(role coalesce.Role) {
	c.x.Helper()
	c.leave()
	if got := c.ends(); got.err != context.Canceled || got.role != role || got.panicked != nil || got.exited {
		c.x.Errorf("%s left and %s, want context.Canceled as %s", c.name, got, role)
	}
}

func (o ending) String() string {
	switch {
	case o.panicked != nil:
		return fmt.Sprintf("panicked with %T %.200v", o.panicked, o.panicked)
	case o.exited:
		return "exited its goroutine"
	case o.err != nil:
		return fmt.Sprintf("got the error %T %.200q as %s", o.err, o.err, o.role)
	}
	return fmt.Sprintf("got %.200q as %s", o.val, o.role)
}

// joined waits until every call that has not returned belongs to a flight.
func (x *exercise) joined() {
	x.Helper()
	if x.h.Waiting == nil {
		synctest.Wait()
	} else {
		until := timeUp()
		for group := range x.groups {
			x.waiting(group, until)
		}
	}
	if x.Failed() {
		x.FailNow()
	}
}

// waiting asks until as many callers wait as should.
func (x *exercise) waiting(group int, until <-chan time.Time) {
	x.Helper()
	again := time.NewTicker(time.Millisecond)
	defer again.Stop()
	for {
		got := x.h.Waiting(x.groups[group])
		if got == x.pending[group] || x.Failed() {
			return
		}
		select {
		case <-again.C:
		case <-until:
			x.Fatalf("%d callers wait on replica %d, want %d", got, group, x.pending[group])
		}
	}
}

// function is what a caller calls with, in the hands of the test.
type function struct {
	x     *exercise
	obeys bool // it returns when its context ends
	runs  atomic.Int32
	began chan context.Context
	end   chan func() (string, error)
	all   chan struct{} // closed by returnsToAll
	value string        // written before all is closed
}

var errOver = errors.New("the subtest is over")

func (x *exercise) function() *function {
	return &function{x: x, began: make(chan context.Context, 1000), end: make(chan func() (string, error), 1), all: make(chan struct{})}
}

func (f *function) run(ctx context.Context) (string, error) {
	f.runs.Add(1)
	f.began <- ctx
	var ended <-chan struct{}
	if f.obeys {
		ended = ctx.Done()
	}
	select {
	case end := <-f.end:
		return end()
	case <-f.all:
		return f.value, nil
	case <-ended:
		return "", ctx.Err()
	case <-f.x.over:
		return "", errOver
	}
}

// begins waits until the function has been called, and returns its context.
func (f *function) begins() context.Context {
	f.x.Helper()
	select {
	case ctx := <-f.began:
		return ctx
	case <-timeUp():
		f.x.Fatal("a function has not been called, though its caller should lead")
		return nil
	}
}

func (f *function) returns(val string, err error) {
	f.ends(func() (string, error) { return val, err })
}

// returnsToAll ends every run, those that are still to come too.
func (f *function) returnsToAll(val string) {
	f.value = val
	close(f.all)
}

func (f *function) ends(how func() (string, error)) { f.end <- how }

func (f *function) ranOnce() {
	f.x.Helper()
	if n := f.runs.Load(); n != 1 {
		f.x.Errorf("a function ran %d times instead of once", n)
	}
}

// leader is a caller whose function runs.
type leader struct {
	*caller
	fn     *function
	flight context.Context // of the function
}

// lead has a caller lead a new flight.
func (x *exercise) lead(name string, group int, key string) leader {
	x.Helper()
	f := x.function()
	c := x.call(name, group, key, f.run)
	return leader{c, f, f.begins()}
}

// lives checks that the context of the function has not ended.
func (l leader) lives(when string) {
	l.x.Helper()
	if l.x.h.Waiting == nil {
		synctest.Wait() // an end that is under way has come
	}
	if err := l.flight.Err(); err != nil {
		l.x.Errorf("the function's context has ended (%v) %s", err, when)
	}
}

// cancelled waits for the end of the function's context.
func (l leader) cancelled(when string) {
	l.x.Helper()
	select {
	case <-l.flight.Done():
	case <-timeUp():
		l.x.Fatalf("the function's context has not ended %s", when)
	}
}

func timeUp() <-chan time.Time { return time.After(patience) }
