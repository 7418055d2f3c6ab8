package coalescetest

import (
	"errors"
	"fmt"
	"time"

	"github.com/fleetcall/fleetcall/coalesce"
)

// fleetBehaviours are about callers on several replicas.
var fleetBehaviours = []behaviour{
	{name: "overlapping callers in the fleet share one execution", check: fleetExecution},
	{name: "a call after the end of a fleet's flight starts a new one", check: afterFleet},
	{name: "keys of any bytes are distinct over the fleet", check: fleetKeys},
	{name: "after Forget its replica starts a new flight and the fleet's callers keep theirs", check: fleetForget},
	{name: "an abandoned flight is led by another replica", check: fleetAbandoned},
}

// fleetErrorBehaviours are about what becomes of errors on other replicas.
var fleetErrorBehaviours = []behaviour{
	{name: "an error runs once and reaches every replica with its message", check: fleetError},
	{name: "errors.Is finds a registered error on every replica", check: fleetRegistered},
	{name: "errors.As finds an error of a registered type on every replica with its fields", check: fleetErrorType},
	{name: "a panic runs once and is ErrRemotePanic on other replicas", check: fleetPanic},
	{name: "Goexit runs once and is ErrGoexit on other replicas", check: fleetGoexit},
}

// fleetLeaveBehaviours are about callers on several replicas that leave.
var fleetLeaveBehaviours = []behaviour{
	{name: "a follower on another replica that leaves returns at once and hurts nobody", check: remoteLeaves, leaving: true},
	{name: "a leader that leaves hurts nobody on other replicas", check: leaderLeavesFleet, leaving: true},
	{name: "the last caller in the fleet to leave cancels the function's context", check: lastInFleetLeaves, leaving: true},
	{name: "a leader that leaves after its remote followers cancels the function's context", check: leaderLeavesLast, leaving: true},
}

var errRegistered = errors.New("an error that every replica has registered")

// followOn has one caller follow the flight of key on each of two other replicas.
func (x *exercise) followOn(key string) (one, two *caller) {
	x.Helper()
	one = x.follow("the follower on replica 1", 1, key)
	two = x.follow("the follower on replica 2", 2, key)
	x.joined()
	return one, two
}

func fleetExecution(x *exercise) {
	x.replicas(3)
	l := x.lead("the leader on replica 0", 0, "key")
	local := x.followAll(0, "key")
	var first []*caller // of its replica
	for group := 1; group < 3; group++ {
		first = append(first, x.follow(fmt.Sprint("the first follower on replica ", group), group, "key"))
		x.joined()
		local = append(local, x.follow(fmt.Sprint("the second follower on replica ", group), group, "key"))
		x.joined()
	}
	l.fn.returns("value", nil)
	l.gets("value", coalesce.Leader)
	for _, c := range first {
		c.gets("value", coalesce.RemoteFollower)
	}
	for _, c := range local {
		c.gets("value", coalesce.LocalFollower)
	}
	l.fn.ranOnce()
}

// afterFleet allows for the way that the news of an end takes: a call that comes
// on another replica right then may still get the flight that has just ended. Only
// a Group that keeps results gives them out for ever.
func afterFleet(x *exercise) {
	x.replicas(3)
	for round := range 6 {
		l := x.leadSoon(round%3, fmt.Sprint("value ", round))
		l.gets(fmt.Sprint("value ", round), coalesce.Leader)
	}
}

// leadSoon calls until the caller leads.
func (x *exercise) leadSoon(group int, value string) *caller {
	x.Helper()
	late := timeUp()
	for {
		f := x.function()
		f.returns(value, nil)
		c := x.call(fmt.Sprint("the caller on replica ", group), group, "key", f.run)
		if got := c.ends(); got.role != coalesce.RemoteFollower {
			return c
		}
		x.joined() // nobody waits
		select {
		case <-late:
			x.Fatalf("callers on replica %d still get the result of a flight that has ended", group)
		case <-time.After(time.Millisecond): // a bubble's clock stands still without it
		}
	}
}

func fleetKeys(x *exercise) {
	x.replicas(2)
	keys := oddKeys()
	leaders := x.leadAll(0, keys)
	remote := make([]*caller, len(keys))
	for i, key := range keys {
		remote[i] = x.follow(keyName(key)+" on replica 1", 1, key)
	}
	x.joined()
	for i, l := range leaders {
		want := fmt.Sprint("value ", i)
		l.fn.returns(want, nil)
		l.gets(want, coalesce.Leader)
		remote[i].gets(want, coalesce.RemoteFollower)
	}
}

func fleetForget(x *exercise) {
	x.replicas(3)
	old := x.lead("the old leader on replica 0", 0, "key")
	one, two := x.followOn("key")
	x.forget(1, "key")
	young := x.lead("the young leader on replica 1", 1, "key")
	old.lives("though it was only forgotten")
	old.fn.returns("old", nil)
	old.gets("old", coalesce.Leader)
	one.gets("old", coalesce.RemoteFollower)
	two.gets("old", coalesce.RemoteFollower)
	late := x.follow("a caller on replica 2 that came after the end of the old flight", 2, "key")
	x.joined()
	young.fn.returns("young", nil)
	young.gets("young", coalesce.Leader)
	late.gets("young", coalesce.RemoteFollower)
}

// fleetAbandoned allows for the way that the news of an end takes: a follower may
// learn of it when the next flight has ended too, and then leads one of its own.
func fleetAbandoned(x *exercise) {
	x.replicas(3)
	l := x.lead("the leader on replica 0", 0, "key")
	next := x.function()
	one := x.call("the follower on replica 1", 1, "key", next.run)
	two := x.call("the follower on replica 2", 2, "key", next.run)
	x.joined()
	l.fn.returns("", errElsewhere)
	if got := l.ends(); got.err != errElsewhere {
		x.Errorf("%s %s, want its function's error", l.name, got)
	}
	next.begins()
	x.joined()
	next.ranOnce()
	next.returnsToAll("value")
	leaders := 0
	for _, c := range []*caller{one, two} {
		got := c.ends()
		if got.val != "value" || got.err != nil || got.role != coalesce.Leader && got.role != coalesce.RemoteFollower {
			x.Errorf("%s %s, want the result of the next flight", c.name, got)
		}
		if got.role == coalesce.Leader {
			leaders++
		}
	}
	if leaders == 0 || leaders > 1 && x.h.Waiting == nil {
		x.Errorf("%d followers of the abandoned flight say that they have led the next one", leaders)
	}
}

// failsRemotely checks what followers on other replicas get of a flight that ends
// as how does.
func (x *exercise) failsRemotely(how func() (string, error), want string, right func(err error) bool) {
	x.Helper()
	x.replicas(3)
	l := x.lead("the leader on replica 0", 0, "key")
	one, two := x.followOn("key")
	l.fn.ends(how)
	for _, c := range []*caller{one, two} {
		if got := c.ends(); got.err == nil || got.role != coalesce.RemoteFollower || !right(got.err) {
			x.Errorf("%s %s, want %s as remote-follower", c.name, got, want)
		}
	}
	l.ends()
	l.fn.ranOnce()
}

func fleetError(x *exercise) {
	x.failsRemotely(
		func() (string, error) { return "", fmt.Errorf("reading: %w", errQuery) },
		"an error with the message of the function's error",
		func(err error) bool { return err.Error() == "reading: the query failed" })
}

func fleetRegistered(x *exercise) {
	x.failsRemotely(
		func() (string, error) { return "", fmt.Errorf("reading: %w", errRegistered) },
		"an error in which errors.Is finds the registered one and no other",
		func(err error) bool { return errors.Is(err, errRegistered) && !errors.Is(err, coalesce.ErrRemotePanic) })
}

func fleetPanic(x *exercise) {
	x.failsRemotely(
		func() (string, error) { return explode(errRow) },
		"an error that is ErrRemotePanic",
		func(err error) bool { return errors.Is(err, coalesce.ErrRemotePanic) })
}

func fleetGoexit(x *exercise) {
	x.failsRemotely(exit,
		"an error that is ErrGoexit",
		func(err error) bool { return errors.Is(err, coalesce.ErrGoexit) })
}

func remoteLeaves(x *exercise) {
	x.replicas(3)
	l := x.lead("the leader on replica 0", 0, "key")
	one, two := x.followOn("key")
	one.leaves(coalesce.RemoteFollower)
	l.lives("though only a follower on another replica has left")
	l.fn.returns("value", nil)
	l.gets("value", coalesce.Leader)
	two.gets("value", coalesce.RemoteFollower)
}

func leaderLeavesFleet(x *exercise) {
	x.replicas(3)
	l := x.lead("the leader on replica 0", 0, "key")
	one, two := x.followOn("key")
	l.leaves(coalesce.Leader)
	l.lives("though followers on other replicas wait for it")
	l.fn.returns("value", nil)
	one.gets("value", coalesce.RemoteFollower)
	two.gets("value", coalesce.RemoteFollower)
	l.fn.ranOnce()
}

func lastInFleetLeaves(x *exercise) {
	x.replicas(3)
	l := x.lead("the leader on replica 0", 0, "key")
	one, two := x.followOn("key")
	l.leaves(coalesce.Leader)
	one.leaves(coalesce.RemoteFollower)
	l.lives("though a follower on replica 2 waits for it")
	two.leaves(coalesce.RemoteFollower)
	l.cancelled("though all callers in the fleet have left")
}

func leaderLeavesLast(x *exercise) {
	x.replicas(3)
	l := x.lead("the leader on replica 0", 0, "key")
	one, two := x.followOn("key")
	one.leaves(coalesce.RemoteFollower)
	two.leaves(coalesce.RemoteFollower)
	l.lives("though its caller waits for it")
	l.leaves(coalesce.Leader)
	l.cancelled("though all callers in the fleet have left")
}
