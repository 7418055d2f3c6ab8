package coalescetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/fleetcall/fleetcall/coalesce"
)

// manyBehaviours are about one caller of DoMany of any Group.
var manyBehaviours = []behaviour{
	{name: "a batch runs its function once for all keys in their order", check: loneBatch},
	{name: "a batch of no keys runs nothing", check: noKeys},
	{name: "a key that a batch's function has no result for gets ErrNoResult", check: noResult},
	{name: "an error of a batch's function is every key's", check: errorOfMany},
	{name: "a BatchError fails its keys alone", check: batchError},
	{name: "a panic of a batch's function reaches its caller as a PanicError with the original stack", check: panicOfMany},
	{name: "Goexit in a batch's function exits the caller's goroutine", check: goexitOfMany},
	{name: "a batch whose context has ended before the call runs nothing", check: endedBatch, leaving: true},
	{name: "a batch's function sees the values of its caller's context", check: valuesOfMany},
}

// manyMergeBehaviours are about batches and single calls of one process that overlap.
var manyMergeBehaviours = []behaviour{
	{name: "a batch follows the keys that others run and runs its function for the others", check: batchFollows},
	{name: "a batch's function does not wait for keys that the batch follows", check: batchDoesNotWait},
	{name: "single calls and batches follow a batch's keys", check: batchIsFollowed},
	{name: "another function's error or panic is its key's alone", check: othersErrors},
	{name: "keys of abandoned flights are led by a batch that followed", check: batchTakesAbandoned},
	{name: "a batch's key that is abandoned is led by another and the rest is not", check: batchAbandons},
	{name: "after Forget of a batch's key a new flight starts and the others are followed", check: batchForgotten},
}

// manyLeaveBehaviours are about callers of DoMany that leave.
var manyLeaveBehaviours = []behaviour{
	{name: "a batch that leaves returns at once and leaves its keys to those who follow", check: batchLeaves, leaving: true},
	{name: "a batch's function is cancelled when nobody waits for any of its keys", check: batchCancelled, leaving: true},
}

// manyProcessBehaviours hold in one process alone: in a fleet, the news that nobody waits
// for one of a batch's keys takes its way, and a caller that comes before it joins.
var manyProcessBehaviours = []behaviour{
	{name: "a key of a batch that nobody waits for is not joined", check: batchKeyLeft, leaving: true},
}

func loneBatch(x *exercise) {
	g := x.group()
	f := x.manyFunction()
	m := x.callMany("the batch", g, []string{"b", "a", "b", "c", "a"}, f.run)
	f.begins("b", "a", "c")
	f.returns(map[string]string{"a": "A", "b": "B", "c": "C", "d": "D"}, nil)
	m.gets(results{"a": led("A"), "b": led("B"), "c": led("C")})
	f.ran(1)
}

func noKeys(x *exercise) {
	g := x.group()
	x.followMany("the batch", g).gets(results{})
}

func noResult(x *exercise) {
	g := x.group()
	m, f, _ := x.leadMany("the batch", g, "a", "b")
	f.returns(map[string]string{"a": "A"}, nil)
	m.gets(results{"a": led("A"), "b": failed(coalesce.Leader, coalesce.ErrNoResult)})
	f.ran(1)
}

func errorOfMany(x *exercise) {
	g := x.group()
	m, f, _ := x.leadMany("the batch", g, "a", "b")
	f.returns(map[string]string{"a": "A"}, errQuery)
	m.gets(results{"a": failed(coalesce.Leader, errQuery), "b": failed(coalesce.Leader, errQuery)})
	f.ran(1)
}

func batchError(x *exercise) {
	g := x.group()
	m, f, _ := x.leadMany("the batch", g, "a", "b", "c")
	f.returns(map[string]string{"a": "A", "b": "B"}, fmt.Errorf("reading: %w", coalesce.BatchError{"b": errRow}))
	m.gets(results{"a": led("A"), "b": failed(coalesce.Leader, errRow), "c": failed(coalesce.Leader, coalesce.ErrNoResult)})
	f.ran(1)
}

func panicOfMany(x *exercise) {
	g := x.group()
	m, f, _ := x.leadMany("the batch", g, "a", "b")
	f.end <- func() (map[string]string, error) {
		val, err := explode(errRow)
		return map[string]string{"a": val}, err
	}
	e, ok := m.ends().panicked.(*coalesce.PanicError)
	switch {
	case !ok:
		x.Fatalf("the batch %s, want a panic with a *coalesce.PanicError", m.ending)
	case e.Value != errRow || !bytes.Contains(e.Stack, []byte("coalescetest.explode")):
		x.Errorf("the panic is %v, want the function's own with its stack", e)
	}
	// A fleet may still be at telling the end of one key, and may call for it by itself.
	next := x.callMany("the next batch", g, []string{"b", "a"}, func(_ context.Context, keys []string) (map[string]string, error) {
		vals := map[string]string{}
		for _, key := range keys {
			vals[key] = "value of " + key
		}
		return vals, nil
	})
	next.gets(results{"a": led("value of a"), "b": led("value of b")})
}

func goexitOfMany(x *exercise) {
	g := x.group()
	m, f, _ := x.leadMany("the batch", g, "a", "b")
	f.end <- func() (map[string]string, error) {
		_, err := exit()
		return nil, err
	}
	if got := m.ends(); !got.exited {
		x.Errorf("the batch %s, want its goroutine to exit", got)
	}
}

func endedBatch(x *exercise) {
	g := x.group()
	gone, leave := context.WithCancel(context.Background())
	leave()
	m := x.callManyWith(gone, "the batch", g, []string{"a", "b"}, func(context.Context, []string) (map[string]string, error) {
		x.report("a batch's function ran for a caller whose context had ended")
		return nil, nil
	})
	m.ended(results{"a": failed(0, context.Canceled), "b": failed(0, context.Canceled)}, context.Canceled)
}

func valuesOfMany(x *exercise) {
	g := x.group()
	f := x.manyFunction()
	m := x.callManyWith(x.named("the batch"), "the batch", g, []string{"a", "b"}, f.run)
	if got := f.begins("a", "b").Value(callerName{}); got != "the batch" {
		x.Errorf("the function's context has the value %v, want its caller's", got)
	}
	f.returns(map[string]string{"a": "A", "b": "B"}, nil)
	m.gets(results{"a": led("A"), "b": led("B")})
}

func batchFollows(x *exercise) {
	g := x.group()
	single := x.lead("the single caller", g, "b")
	f := x.manyFunction()
	m := x.callMany("the batch", g, []string{"a", "b", "c"}, f.run)
	f.begins("a", "c")
	x.joined()
	single.fn.returns("B of another", nil)
	single.gets("B of another", coalesce.Leader)
	f.returns(map[string]string{"a": "A", "b": "B", "c": "C"}, nil)
	m.gets(results{"a": led("A"), "b": followed("B of another"), "c": led("C")})
	f.ran(1)
	single.fn.ranOnce()
}

// batchDoesNotWait ends the batch's own function first: those who wait for its keys have
// them while the batch still waits for another's.
func batchDoesNotWait(x *exercise) {
	g := x.group()
	single := x.lead("the single caller", g, "b")
	f := x.manyFunction()
	m := x.callMany("the batch", g, []string{"b", "a"}, f.run)
	f.begins("a")
	c := x.follow("the follower", g, "a")
	x.joined()
	f.returns(map[string]string{"a": "A"}, nil)
	c.gets("A", coalesce.LocalFollower)
	next := x.lead("a caller after the end of the batch's function", g, "a")
	next.fn.returns("new A", nil)
	next.gets("new A", coalesce.Leader)
	single.fn.returns("B", nil)
	m.gets(results{"a": led("A"), "b": followed("B")})
}

func batchIsFollowed(x *exercise) {
	g := x.group()
	m, f, _ := x.leadMany("the batch", g, "a", "b", "c")
	single := x.follow("the single caller", g, "b")
	other := x.followMany("the other batch", g, "c", "a")
	x.joined()
	f.returns(map[string]string{"a": "A", "b": "B"}, nil)
	m.gets(results{"a": led("A"), "b": led("B"), "c": failed(coalesce.Leader, coalesce.ErrNoResult)})
	single.gets("B", coalesce.LocalFollower)
	other.gets(results{"a": followed("A"), "c": failed(coalesce.LocalFollower, coalesce.ErrNoResult)})
	f.ran(1)
}

func othersErrors(x *exercise) {
	g := x.group()
	fails := x.lead("the caller whose function fails", g, "fails")
	panics := x.lead("the caller whose function panics", g, "panics")
	exits := x.lead("the caller whose function exits", g, "exits")
	f := x.manyFunction()
	m := x.callMany("the batch", g, []string{"panics", "fails", "fine", "exits"}, f.run)
	f.begins("fine")
	x.joined()
	fails.fn.returns("", errQuery)
	panics.fn.ends(func() (string, error) { return explode(errRow) })
	exits.fn.ends(exit)
	panics.panicked()
	exits.exits()
	f.returns(map[string]string{"fine": "value"}, nil)
	got := m.ends()
	if got.panicked != nil || got.exited || got.err != nil {
		x.Fatalf("the batch %s, want a result of each key", got)
	}
	if r := got.results["fine"]; r != led("value") {
		x.Errorf("the batch got %s for its own key", resultText(r))
	}
	for key, want := range map[string]error{"fails": errQuery, "panics": errRow, "exits": coalesce.ErrGoexit} {
		r := got.results[key]
		_, panicked := r.Err.(*coalesce.PanicError)
		if !errors.Is(r.Err, want) || r.Role != coalesce.LocalFollower || panicked != (key == "panics") {
			x.Errorf("the batch got %s for the key that %s", resultText(r), key)
		}
	}
}

func batchTakesAbandoned(x *exercise) {
	g := x.group()
	one, two := x.lead("the first single caller", g, "a"), x.lead("the second single caller", g, "b")
	f := x.manyFunction()
	m := x.callMany("the batch", g, []string{"a", "b", "c"}, f.run)
	f.begins("c")
	x.joined()
	one.fn.returns("", errElsewhere)
	f.begins("a")
	two.fn.returns("B", nil)
	f.returns(map[string]string{"a": "A", "c": "C"}, nil)
	f.returns(map[string]string{"a": "A", "c": "C"}, nil)
	m.gets(results{"a": led("A"), "b": followed("B"), "c": led("C")})
}

func batchAbandons(x *exercise) {
	g := x.group()
	m, f, _ := x.leadMany("the batch", g, "a", "b")
	next := x.function()
	c := x.call("the follower", g, "a", next.run)
	other := x.follow("the other follower", g, "b")
	x.joined()
	f.returns(map[string]string{"b": "B"}, coalesce.BatchError{"a": errElsewhere})
	m.gets(results{"a": failed(coalesce.Leader, errElsewhere), "b": led("B")})
	other.gets("B", coalesce.LocalFollower)
	next.begins()
	next.returns("another A", nil)
	c.gets("another A", coalesce.Leader)
}

func batchForgotten(x *exercise) {
	g := x.group()
	m, f, _ := x.leadMany("the batch", g, "a", "b")
	x.forget(g, "a")
	youngFn := x.manyFunction()
	young := x.callMany("the young batch", g, []string{"b", "a"}, youngFn.run)
	youngFn.begins("a")
	x.joined()
	f.returns(map[string]string{"a": "A", "b": "B"}, nil)
	m.gets(results{"a": led("A"), "b": led("B")})
	youngFn.returns(map[string]string{"a": "young A"}, nil)
	young.gets(results{"a": led("young A"), "b": followed("B")})
}

func batchLeaves(x *exercise) {
	g := x.group()
	single := x.lead("the single caller", g, "c")
	f := x.manyFunction()
	m := x.callMany("the batch", g, []string{"a", "b", "c"}, f.run)
	flight := leader{caller: &caller{x: x}, flight: f.begins("a", "b")}
	c := x.follow("the follower", g, "b")
	x.joined()
	m.leave()
	m.ended(results{
		"a": failed(coalesce.Leader, context.Canceled), "b": failed(coalesce.Leader, context.Canceled), "c": failed(coalesce.LocalFollower, context.Canceled),
	}, context.Canceled)
	flight.lives("though one of its keys is waited for")
	single.lives("though only its follower has left")
	f.returns(map[string]string{"b": "B"}, nil)
	c.gets("B", coalesce.LocalFollower)
	single.fn.returns("C", nil)
	single.gets("C", coalesce.Leader)
}

func batchCancelled(x *exercise) {
	g := x.group()
	m, _, flight := x.leadMany("the batch", g, "a", "b")
	one, two := x.follow("the follower of a", g, "a"), x.follow("the follower of b", g, "b")
	x.joined()
	m.leave()
	m.ended(results{"a": failed(coalesce.Leader, context.Canceled), "b": failed(coalesce.Leader, context.Canceled)}, context.Canceled)
	one.leaves(coalesce.LocalFollower)
	flight.lives("though one of its keys is waited for")
	two.leaves(coalesce.LocalFollower)
	flight.cancelled("though nobody waits for any of its keys")
}

func batchKeyLeft(x *exercise) {
	g := x.group()
	m, f, flight := x.leadMany("the batch", g, "a", "b")
	c := x.follow("the follower", g, "b")
	x.joined()
	m.leave()
	m.ends()
	next := x.lead("a caller of the key that was left", g, "a")
	flight.lives("though one of its keys is waited for")
	next.fn.returns("another A", nil)
	next.gets("another A", coalesce.Leader)
	f.returns(map[string]string{"a": "A", "b": "B"}, nil)
	c.gets("B", coalesce.LocalFollower)
}
