package coalescetest

import (
	"context"
	"errors"
	"fmt"

	"github.com/fleetcall/fleetcall/coalesce"
)

// mergeBehaviours are about callers of one process whose calls overlap.
var mergeBehaviours = []behaviour{
	{name: "overlapping callers in one process share one execution", check: sharedExecution},
	{name: "an error runs once and reaches every caller in the process", check: sharedError},
	{name: "a panic reaches every caller in the process with the original stack", check: sharedPanic},
	{name: "Goexit exits the goroutine of every caller in the process", check: sharedGoexit},
	{name: "the nil function of a follower is not called", check: nilFollower},
	{name: "the function has the values of the first caller's context", check: firstCallersValues},
	{name: "a call after the end of a shared flight starts a new one", check: afterShared},
	{name: "a function that returns a cancellation of its own is abandoned and another leads", check: abandoned},
	{name: "callers that all abandon run their function once each", check: allAbandon},
}

const followers = 5

// followAll has several callers follow the flight of key, and waits until they do.
func (x *exercise) followAll(group int, key string) []*caller {
	x.Helper()
	all := make([]*caller, followers)
	for i := range all {
		all[i] = x.follow(fmt.Sprint("follower ", i+1), group, key)
	}
	x.joined()
	return all
}

func sharedExecution(x *exercise) {
	g := x.group()
	l := x.lead("the leader", g, "key")
	all := x.followAll(g, "key")
	l.fn.returns("value", nil)
	l.gets("value", coalesce.Leader)
	for _, c := range all {
		c.gets("value", coalesce.LocalFollower)
	}
	l.fn.ranOnce()
}

func sharedError(x *exercise) {
	g := x.group()
	l := x.lead("the leader", g, "key")
	all := x.followAll(g, "key")
	l.fn.returns("", errQuery)
	for _, c := range append(all, l.caller) {
		if got := c.ends(); got.err != errQuery {
			x.Errorf("%s %s, want the error of the leader's function", c.name, got)
		}
	}
	l.fn.ranOnce()
}

func sharedPanic(x *exercise) {
	g := x.group()
	l := x.lead("the leader", g, "key")
	all := x.followAll(g, "key")
	l.fn.ends(func() (string, error) { return explode(errRow) })
	for _, c := range append(all, l.caller) {
		c.panicked()
	}
	l.fn.ranOnce()
}

func sharedGoexit(x *exercise) {
	g := x.group()
	l := x.lead("the leader", g, "key")
	all := x.followAll(g, "key")
	l.fn.ends(exit)
	for _, c := range append(all, l.caller) {
		c.exits()
	}
	l.fn.ranOnce()
}

func nilFollower(x *exercise) {
	g := x.group()
	l := x.lead("the leader", g, "key")
	c := x.call("the follower", g, "key", nil)
	x.joined()
	l.fn.returns("value", nil)
	c.gets("value", coalesce.LocalFollower)
	l.gets("value", coalesce.Leader)
}

func firstCallersValues(x *exercise) {
	g := x.group()
	f := x.function()
	first := x.callWith(x.named("first"), "the first caller", g, "key", f.run)
	flight := f.begins()
	second := x.callWith(x.named("second"), "the second caller", g, "key", f.run)
	x.joined()
	if got := flight.Value(callerName{}); got != "first" {
		x.Errorf("the function's context has the value %v, want the first caller's", got)
	}
	f.returns("value", nil)
	first.gets("value", coalesce.Leader)
	second.gets("value", coalesce.LocalFollower)
	f.ranOnce()
}

func afterShared(x *exercise) {
	g := x.group()
	for _, value := range []string{"first", "second", "third"} {
		l := x.lead("the leader of the "+value+" flight", g, "key")
		c := x.follow("the follower of the "+value+" flight", g, "key")
		x.joined()
		l.fn.returns(value, nil)
		l.gets(value, coalesce.Leader)
		c.gets(value, coalesce.LocalFollower)
	}
}

// errElsewhere is what a query returns when a context is cancelled that is not the
// one the Group gave to the function.
var errElsewhere = fmt.Errorf("query: %w", context.Canceled)

func abandoned(x *exercise) {
	g := x.group()
	l := x.lead("the leader", g, "key")
	next := x.function()
	var others []*caller
	for i := range followers {
		others = append(others, x.call(fmt.Sprint("follower ", i+1), g, "key", next.run))
	}
	x.joined()
	l.fn.returns("", errElsewhere)
	if got := l.ends(); !errors.Is(got.err, context.Canceled) || got.role != coalesce.Leader {
		x.Errorf("the leader %s, want the error of its function", got)
	}
	next.begins()
	x.joined()
	next.returns("value", nil)
	leaders := 0
	for _, c := range others {
		got := c.ends()
		if got.err != nil || got.val != "value" {
			x.Errorf("%s %s, want the result of a follower's function", c.name, got)
		}
		if got.role == coalesce.Leader {
			leaders++
		}
	}
	if leaders != 1 {
		x.Errorf("%d followers of the abandoned flight say that they have led the next one", leaders)
	}
	l.fn.ranOnce()
	next.ranOnce()
}

func allAbandon(x *exercise) {
	g := x.group()
	l := x.lead("the leader", g, "key")
	all := []*caller{l.caller}
	fns := []*function{l.fn}
	for i := range followers {
		f := x.function()
		f.returns("", errElsewhere)
		fns = append(fns, f)
		all = append(all, x.call(fmt.Sprint("follower ", i+1), g, "key", f.run))
	}
	x.joined()
	l.fn.returns("", errElsewhere)
	for i, c := range all {
		if got := c.ends(); !errors.Is(got.err, context.Canceled) {
			x.Errorf("%s %s, want the error of its own function", c.name, got)
		}
		fns[i].ranOnce()
	}
}
