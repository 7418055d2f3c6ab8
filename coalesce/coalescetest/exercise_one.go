package coalescetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"runtime"
	"time"

	"github.com/fleetcall/fleetcall/coalesce"
)

// callBehaviours are about one caller of any Group.
var callBehaviours = []behaviour{
	{name: "a lone caller leads and gets the result of its function", check: loneCaller},
	{name: "an error reaches the caller as it is", check: errorOfOne},
	{name: "a panic reaches the caller as a PanicError with the original stack", check: panicOfOne},
	{name: "Goexit exits the caller's goroutine", check: goexitOfOne},
	{name: "a nil function panics in its caller", check: nilFunction},
	{name: "a context that has ended before the call runs nothing", check: endedContext, leaving: true},
	{name: "the function sees the values of its caller's context", check: valuesOfOne},
	{name: "a caller that leaves gets its context's error", check: leaverOfOne, leaving: true},
	{name: "a flight that has finished is gone", check: finishedIsGone},
	{name: "a function may call for another key", check: nestedCall},
}

var (
	errQuery = errors.New("the query failed")
	errRow   = errors.New("the row is corrupt")
)

func loneCaller(x *exercise) {
	g := x.group()
	l := x.lead("the caller", g, "key")
	l.fn.returns("value", nil)
	l.gets("value", coalesce.Leader)
	l.fn.ranOnce()
}

func errorOfOne(x *exercise) {
	g := x.group()
	l := x.lead("the caller", g, "key")
	want := fmt.Errorf("reading: %w", errQuery)
	l.fn.returns("", want)
	if got := l.ends(); got.err != want || got.role != coalesce.Leader {
		x.Errorf("the caller %s, want its function's own error as leader", got)
	}
	l.fn.ranOnce()
}

// explode is looked for by name in stacks.
//
//go:noinline
func explode(value any) (string, error) { panic(value) }

// panicked checks that the call ended in the panic of explode(errRow).
func (c *caller) panicked() {
	c.x.Helper()
	got := c.ends()
	e, ok := got.panicked.(*coalesce.PanicError)
	switch {
	case !ok:
		c.x.Errorf("%s %s, want a panic with a *coalesce.PanicError", c.name, got)
	case e.Value != errRow || !errors.Is(e, errRow):
		c.x.Errorf("the value of the panic of %s is %v, want what the function panicked with", c.name, e.Value)
	case !bytes.Contains(e.Stack, []byte("coalescetest.explode")):
		c.x.Errorf("the stack of the panic of %s does not show where the function panicked:\n%s", c.name, e.Stack)
	}
}

func panicOfOne(x *exercise) {
	g := x.group()
	l := x.lead("the caller", g, "key")
	l.fn.ends(func() (string, error) { return explode(errRow) })
	l.panicked()
	next := x.lead("the next caller", g, "key")
	next.fn.returns("next", nil)
	next.gets("next", coalesce.Leader)
}

func exit() (string, error) {
	runtime.Goexit()
	return "", nil
}

func (c *caller) exits() {
	c.x.Helper()
	if got := c.ends(); !got.exited {
		c.x.Errorf("%s %s, want its goroutine to exit", c.name, got)
	}
}

func goexitOfOne(x *exercise) {
	g := x.group()
	l := x.lead("the caller", g, "key")
	l.fn.ends(exit)
	l.exits()
	next := x.lead("the next caller", g, "key")
	next.fn.returns("next", nil)
	next.gets("next", coalesce.Leader)
}

func nilFunction(x *exercise) {
	g := x.group()
	got := x.call("the caller", g, "key", nil).ends()
	e, ok := got.panicked.(*coalesce.PanicError)
	if !ok {
		x.Fatalf("the caller %s, want a panic with a *coalesce.PanicError", got)
	}
	if _, ok := e.Value.(runtime.Error); !ok {
		x.Errorf("the value of the panic is %T, want the runtime.Error of a nil function's call", e.Value)
	}
}

func endedContext(x *exercise) {
	g := x.group()
	gone, leave := context.WithCancel(context.Background())
	leave()
	late, cancel := context.WithDeadline(context.Background(), time.Now().Add(-time.Hour))
	defer cancel()
	for _, tt := range []struct {
		ctx  context.Context
		want error
	}{{gone, context.Canceled}, {late, context.DeadlineExceeded}} {
		c := x.callWith(tt.ctx, "the caller", g, "key", func(context.Context) (string, error) {
			x.report("a function ran for a caller whose context had ended")
			return "", nil
		})
		if got := c.ends(); got.err != tt.want || got.role != 0 || got.panicked != nil {
			x.Errorf("the caller %s, want the error %q and no role", got, tt.want)
		}
	}
}

type callerName struct{}

// named is a caller's context with a value.
func (x *exercise) named(name string) context.Context {
	ctx, _ := x.context()
	return context.WithValue(ctx, callerName{}, name)
}

func valuesOfOne(x *exercise) {
	g := x.group()
	f := x.function()
	c := x.callWith(x.named("the caller"), "the caller", g, "key", f.run)
	if got := f.begins().Value(callerName{}); got != "the caller" {
		x.Errorf("the function's context has the value %v, want its caller's", got)
	}
	f.returns("value", nil)
	c.gets("value", coalesce.Leader)
}

func leaverOfOne(x *exercise) {
	g := x.group()
	f := x.function()
	f.obeys = true
	l := leader{caller: x.call("the caller", g, "key", f.run), fn: f}
	l.flight = f.begins()
	l.leaves(coalesce.Leader)
	l.cancelled("though its only caller has left")
	f.ranOnce()
}

func finishedIsGone(x *exercise) {
	g := x.group()
	for i, err := range []error{nil, nil, errQuery, nil} {
		name := fmt.Sprintf("caller %d", i+1)
		l := x.lead(name, g, "key")
		l.fn.returns(name, err)
		if got := l.ends(); got.role != coalesce.Leader || got.err != err || err == nil && got.val != name {
			x.Errorf("%s %s, want its own function's result", name, got)
		}
	}
}

func nestedCall(x *exercise) {
	g := x.group()
	c := x.call("the caller", g, "outer", func(ctx context.Context) (string, error) {
		val, role, err := x.groups[g].Do(ctx, "inner", func(context.Context) (string, error) { return "inner value", nil })
		return fmt.Sprintf("%s as %s", val, role), err
	})
	c.gets("inner value as leader", coalesce.Leader)
}
