package coalescetest

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/fleetcall/fleetcall/coalesce"
)

// manyFleetBehaviours are about batches on several replicas.
var manyFleetBehaviours = []behaviour{
	{name: "batches on several replicas share their keys' executions", check: fleetBatches},
	{name: "each key's error reaches the batches of other replicas", check: fleetBatchErrors},
	{name: "a batch's panic is ErrRemotePanic for each of its keys on other replicas", check: fleetBatchPanic},
	{name: "a batch that leaves hurts nobody on other replicas", check: fleetBatchLeaves, leaving: true},
}

func remote(val string) coalesce.Result[string] {
	return coalesce.Result[string]{Val: val, Role: coalesce.RemoteFollower}
}

// fleetBatches has three batches in a ring, each of which leads one key and follows the
// batch before it in another.
func fleetBatches(x *exercise) {
	x.replicas(3)
	first, f1, _ := x.leadMany("the batch on replica 0", 0, "a", "b")
	f2 := x.manyFunction()
	second := x.callMany("the batch on replica 1", 1, []string{"c", "b"}, f2.run)
	f2.begins("c")
	x.joined()
	third := x.followMany("the batch on replica 2", 2, "c", "a", "b")
	single := x.follow("the single caller on replica 1", 1, "a")
	x.joined()
	f2.returns(map[string]string{"c": "C"}, nil)
	f1.returns(map[string]string{"a": "A", "b": "B"}, nil)
	first.gets(results{"a": led("A"), "b": led("B")})
	second.gets(results{"b": remote("B"), "c": led("C")})
	third.gets(results{"a": remote("A"), "b": remote("B"), "c": remote("C")})
	single.gets("A", coalesce.RemoteFollower)
	f1.ran(1)
	f2.ran(1)
}

func fleetBatchErrors(x *exercise) {
	x.replicas(2)
	m, f, _ := x.leadMany("the batch on replica 0", 0, "fails", "fine", "lost")
	other := x.followMany("the batch on replica 1", 1, "lost", "fine", "fails")
	x.joined()
	f.returns(map[string]string{"fine": "value"}, coalesce.BatchError{"fails": fmt.Errorf("row 7: %w", errRegistered)})
	m.ends()
	got := other.ends()
	if got.err != nil || got.panicked != nil || got.results["fine"] != remote("value") {
		x.Errorf("the batch on replica 1 %s, and %s for the key that is fine", got, resultText(got.results["fine"]))
	}
	if r := got.results["fails"]; !errors.Is(r.Err, errRegistered) || !strings.Contains(fmt.Sprint(r.Err), "row 7") || r.Role != coalesce.RemoteFollower {
		x.Errorf("the batch on replica 1 got %s for the key that fails", resultText(r))
	}
	if r := got.results["lost"]; !errors.Is(r.Err, coalesce.ErrNoResult) {
		x.Errorf("the batch on replica 1 got %s for the key that has no result", resultText(r))
	}
	f.ran(1)
}

func fleetBatchPanic(x *exercise) {
	x.replicas(2)
	m, f, _ := x.leadMany("the batch on replica 0", 0, "a", "b")
	other := x.followMany("the batch on replica 1", 1, "b", "a")
	x.joined()
	f.end <- func() (map[string]string, error) {
		val, err := explode(errRow)
		return map[string]string{"a": val}, err
	}
	if got := m.ends(); got.panicked == nil {
		x.Errorf("the batch on replica 0 %s, want a panic", got)
	}
	got := other.ends()
	for _, key := range []string{"a", "b"} {
		if r := got.results[key]; got.panicked != nil || !errors.Is(r.Err, coalesce.ErrRemotePanic) {
			x.Errorf("the batch on replica 1 %s, and %s for key %s", got, resultText(r), key)
		}
	}
	f.ran(1)
}

func fleetBatchLeaves(x *exercise) {
	x.replicas(2)
	m, f, flight := x.leadMany("the batch on replica 0", 0, "a", "b")
	other := x.followMany("the batch on replica 1", 1, "b")
	x.joined()
	m.leave()
	m.ended(results{"a": failed(coalesce.Leader, context.Canceled), "b": failed(coalesce.Leader, context.Canceled)}, context.Canceled)
	flight.lives("though another replica waits for one of its keys")
	f.returns(map[string]string{"b": "B"}, nil)
	other.gets(results{"b": remote("B")})
	f.ran(1)
}
