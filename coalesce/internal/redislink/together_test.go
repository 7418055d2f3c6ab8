package redislink

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/fleetcall/fleetcall/coalesce/internal/protocol"
)

// recorder keeps the command that it is given.
type recorder struct{ protocol.Command }

func (r *recorder) Do(_ context.Context, c protocol.Command) (any, error) {
	r.Command = c
	return nil, nil
}

// abandon is a small command of another step.
func abandon(l *Link, key string) request {
	var r recorder
	_, _ = protocol.Abandon(context.Background(), &r, protocol.AbandonRequest{
		Names: protocol.NewNames(protocol.NewSpace("ns", "g", 0, "fleet-01"), key), Settings: &settings,
	})
	return newRequest(l, r.Command)
}

func numbered(l *Link, command func(key string) protocol.Command, n int) (all []request) {
	for i := range n {
		all = append(all, newRequest(l, command(strconv.Itoa(i))))
	}
	return all
}

func together(l *Link, all []request) {
	requests := make([]*Request, len(all))
	for i, r := range all {
		requests[i] = r.Request
	}
	l.SendTogether(requests)
}

// TestManyRequestsOfOneStepAreFewCommandsInOneRoundTrip has each of them answered with
// what is its own.
func TestManyRequestsOfOneStepAreFewCommandsInOneRoundTrip(t *testing.T) {
	l, fake := newLink(t, Config{}, func(trip []*redis.Cmd) {
		for _, cmd := range trip {
			cmd.SetVal(cmd.Args()[3])
		}
	})
	defer l.Close()
	all := numbered(l, join, maxCombined+1)
	together(l, all)
	for i, r := range all {
		<-r.answered
		if reply, err := l.Result(r.Request); reply != lease(strconv.Itoa(i)) || err != nil {
			t.Fatalf("%d: %v, %v", i, reply, err)
		}
	}
	if trips := fake.sizes(); len(trips) != 1 || fake.sent != 2 {
		t.Errorf("%d commands in round trips of %v keys", fake.sent, trips)
	}
}

// TestRequestsOfDifferentStepsLeaveInTheOrderOfTheirTurns has a join come before the end of
// the flight that it would follow.
func TestRequestsOfDifferentStepsLeaveInTheOrderOfTheirTurns(t *testing.T) {
	l, fake := newLink(t, Config{}, succeed)
	defer l.Close()
	all := []request{newRequest(l, join("a")), newRequest(l, finish("a", 1)), abandon(l, "b"), newRequest(l, join("b")), newRequest(l, finish("c", 1))}
	together(l, all)
	for _, r := range all {
		<-r.answered
	}
	if want := []string{lease("a"), lease("c"), lease("b"), lease("a"), lease("b")}; !slices.Equal(fake.keys(), want) || fake.sent != 3 {
		t.Errorf("%d commands with the keys %q, not 3 with %q", fake.sent, fake.keys(), want)
	}
}

// TestOutcomesThatAreNotSmallShareNoScript keeps each script short.
func TestOutcomesThatAreNotSmallShareNoScript(t *testing.T) {
	l, fake := newLink(t, Config{}, succeed)
	defer l.Close()
	all := []request{newRequest(l, finish("large", maxBatchedBytes+1))}
	for i := range 2 * maxCombinedBytes / maxBatchedBytes {
		all = append(all, newRequest(l, finish(strconv.Itoa(i), maxBatchedBytes)))
	}
	together(l, all)
	for _, r := range all {
		<-r.answered
	}
	sizes := fake.sizes()
	slices.Sort(sizes)
	if !slices.Equal(sizes, []int{1, len(all) - 1}) || fake.sent != 3 {
		t.Errorf("%d commands in round trips of %v keys", fake.sent, sizes)
	}
}

// TestAServerThatRefusesManyKeysGetsThemOneByOne has a proxy want all keys in one slot, and
// a key that may not be used.
func TestAServerThatRefusesManyKeysGetsThemOneByOne(t *testing.T) {
	for _, refusal := range []string{"CROSSSLOT Keys in request don't hash to the same slot", "NOPERM No permissions to access a key"} {
		l, fake := newLink(t, Config{OnChange: neverDown(t)}, succeed)
		fake.refuse = redisError(refusal)
		for range 2 {
			all := numbered(l, join, 3)
			together(l, all)
			for _, r := range all {
				<-r.answered
				if reply, err := l.Result(r.Request); reply != int64(1) || err != nil {
					t.Errorf("%s: %v, %v", refusal, reply, err)
				}
			}
		}
		want := []int{3, 3, 3, 3}
		if strings.HasPrefix(refusal, "CROSSSLOT") {
			want = []int{3, 3, 3} // it is not asked again
		}
		if !slices.Equal(fake.sizes(), want) {
			t.Errorf("%s: round trips of %v keys, not %v", refusal, fake.sizes(), want)
		}
		l.Close()
	}
}

// TestARefusalOfAllIsEachOnes has a server that takes no writes.
func TestARefusalOfAllIsEachOnes(t *testing.T) {
	l, fake := newLink(t, Config{}, func(trip []*redis.Cmd) {
		for _, cmd := range trip {
			cmd.SetErr(redisError("READONLY You can't write against a read only replica."))
		}
	})
	defer l.Close()
	fake.refuse = redisError("READONLY You can't write against a read only replica.")
	all := numbered(l, join, 3)
	together(l, all)
	for _, r := range all {
		<-r.answered
		if _, err := r.Reply(); err == nil || FailureKind(err) != "readonly" {
			t.Errorf("%v", err)
		}
	}
	if l.Servers()[0].Why == nil {
		t.Error("the server is up")
	}
	if n := len(fake.commands()); n != 3 {
		t.Errorf("%d keys were sent, not 3 once", n)
	}
}

// TestNothingIsSentTogetherToAServerThatIsDown answers all at once.
func TestNothingIsSentTogetherToAServerThatIsDown(t *testing.T) {
	l, fake := newLink(t, Config{}, func(trip []*redis.Cmd) {
		trip[0].SetErr(redisError("READONLY You can't write against a read only replica."))
	})
	defer l.Close()
	r := send(l, join("k"))
	<-r.answered
	if l.Servers()[0].Why == nil {
		t.Error("the server is up")
	}
	all := append(numbered(l, join, 3), newRequest(l, finish("large", maxBatchedBytes+1)))
	together(l, all)
	for _, r := range all {
		if _, err := r.Reply(); !r.taken() || err != ErrServerDown {
			t.Errorf("taken: %v, error %v", r.taken(), err)
		}
	}
	if n := len(fake.commands()); n != 1 {
		t.Errorf("%d commands", n)
	}
}
