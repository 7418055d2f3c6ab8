package coalescetest

import (
	"context"
	"fmt"

	"github.com/fleetcall/fleetcall/coalesce"
)

// leaveBehaviours are about callers of one process that leave. Their functions do
// not obey their contexts, so that nothing but the Group brings a caller back.
var leaveBehaviours = []behaviour{
	{name: "a follower that leaves returns at once and hurts nobody", check: followerLeaves, leaving: true},
	{name: "a leader that leaves returns at once and hurts nobody", check: leaderLeaves, leaving: true},
	{name: "the last caller to leave cancels the function's context", check: lastLeaves, leaving: true},
	{name: "a cancelled flight is not joined", check: cancelledIsNotJoined, leaving: true},
	{name: "a function that uses the context of a caller that leaves hurts nobody else", check: capturedContext, leaving: true},
}

func followerLeaves(x *exercise) {
	g := x.group()
	l := x.lead("the leader", g, "key")
	all := x.followAll(g, "key")
	all[0].leaves(coalesce.LocalFollower)
	l.lives("though only a follower has left")
	l.fn.returns("value", nil)
	l.gets("value", coalesce.Leader)
	for _, c := range all[1:] {
		c.gets("value", coalesce.LocalFollower)
	}
}

func leaderLeaves(x *exercise) {
	g := x.group()
	l := x.lead("the leader", g, "key")
	all := x.followAll(g, "key")
	l.leaves(coalesce.Leader)
	l.lives("though followers wait for it")
	late := x.follow("a caller that came later", g, "key")
	x.joined()
	l.fn.returns("value", nil)
	for _, c := range append(all, late) {
		c.gets("value", coalesce.LocalFollower)
	}
	l.fn.ranOnce()
}

func lastLeaves(x *exercise) {
	g := x.group()
	l := x.lead("the leader", g, "key")
	all := x.followAll(g, "key")
	for i, c := range all[1:] {
		c.leaves(coalesce.LocalFollower)
		l.lives(fmt.Sprintf("though only %d of %d callers have left", i+1, len(all)+1))
	}
	l.leaves(coalesce.Leader)
	l.lives("though a follower waits for it")
	all[0].leaves(coalesce.LocalFollower)
	l.cancelled("though all callers have left")
}

func cancelledIsNotJoined(x *exercise) {
	g := x.group()
	old := x.lead("the old leader", g, "key")
	old.leaves(coalesce.Leader)
	old.cancelled("though its only caller has left")
	// Its function runs on, beside the next one.
	l := x.lead("the next leader", g, "key")
	l.lives("when it had just begun")
	old.fn.returns("stale", nil)
	c := x.follow("the follower", g, "key")
	x.joined()
	l.fn.returns("fresh", nil)
	l.gets("fresh", coalesce.Leader)
	c.gets("fresh", coalesce.LocalFollower)
}

func capturedContext(x *exercise) {
	g := x.group()
	request, leave := context.WithCancel(context.Background())
	defer leave()
	began := make(chan struct{})
	first := x.callWith(request, "the leader", g, "key", func(context.Context) (string, error) {
		close(began)
		<-request.Done() // and not on the context that it was given
		return "", fmt.Errorf("query: %w", request.Err())
	})
	select {
	case <-began:
	case <-timeUp():
		x.Fatal("the leader's function has not been called")
	}
	c := x.call("the follower", g, "key", func(context.Context) (string, error) { return "value", nil })
	x.joined()
	leave()
	if got := first.ends(); got.err == nil {
		x.Errorf("the leader left and %s", got)
	}
	c.gets("value", coalesce.Leader)
}
