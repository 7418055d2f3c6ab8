package coalescetest

import (
	"fmt"

	"github.com/fleetcall/fleetcall/coalesce"
)

// forgetBehaviours are about Forget in one process.
var forgetBehaviours = []behaviour{
	{name: "callers after Forget start a new flight and those that wait keep theirs", check: forgetSplits},
	{name: "the end of a forgotten flight leaves the new one in place", check: forgottenEnds},
	{name: "Forget forgets each of several keys", check: forgetSeveral},
	{name: "Forget of one key leaves the others alone", check: forgetOne},
}

func (x *exercise) forget(group int, keys ...string) {
	x.Helper()
	ctx, _ := x.context()
	if err := x.groups[group].Forget(ctx, keys...); err != nil {
		x.Fatalf("Forget(%q): %v", keys, err)
	}
}

func forgetSplits(x *exercise) {
	g := x.group()
	old := x.lead("the old leader", g, "key")
	oldFollower := x.follow("the old follower", g, "key")
	x.joined()
	x.forget(g, "key")
	young := x.lead("the young leader", g, "key")
	youngFollower := x.follow("the young follower", g, "key")
	x.joined()
	// The younger flight ends first.
	young.fn.returns("young", nil)
	young.gets("young", coalesce.Leader)
	youngFollower.gets("young", coalesce.LocalFollower)
	old.lives("though it was only forgotten")
	old.fn.returns("old", nil)
	old.gets("old", coalesce.Leader)
	oldFollower.gets("old", coalesce.LocalFollower)
}

func forgottenEnds(x *exercise) {
	g := x.group()
	old := x.lead("the old leader", g, "key")
	x.forget(g, "key")
	young := x.lead("the young leader", g, "key")
	old.fn.returns("old", nil)
	old.gets("old", coalesce.Leader)
	c := x.follow("a caller that came after the end of the old flight", g, "key")
	x.joined()
	young.fn.returns("young", nil)
	young.gets("young", coalesce.Leader)
	c.gets("young", coalesce.LocalFollower)
}

func forgetSeveral(x *exercise) {
	g := x.group()
	keys := []string{"one", "two", "three"}
	old := x.leadAll(g, keys)
	x.forget(g, keys...)
	for i, l := range append(x.leadAll(g, keys), old...) {
		want := fmt.Sprint("value ", i)
		l.fn.returns(want, nil)
		l.gets(want, coalesce.Leader)
	}
}

func forgetOne(x *exercise) {
	g := x.group()
	l := x.lead("the leader", g, "key")
	x.forget(g, "other", "ke", "key ", "")
	c := x.follow("the follower", g, "key")
	x.joined()
	l.fn.returns("value", nil)
	l.gets("value", coalesce.Leader)
	c.gets("value", coalesce.LocalFollower)
}
