package distributed_test

import (
	"context"
	"fmt"
	"regexp"
	"strconv"
	"testing"

	"github.com/fleetcall/fleetcall/coalesce"
)

// commands returns how often each command was sent by clients; what scripts
// call has other names.
func (f *fleet[V]) commands() map[string]int {
	f.t.Helper()
	n := map[string]int{}
	for _, name := range []string{"evalsha", "eval", "subscribe", "unsubscribe", "ssubscribe", "script|load", "ping"} {
		if calls := f.asked(name); calls > 0 {
			n[name] = calls
		}
	}
	return n
}

// asked returns how often a command was carried out.
func (f *fleet[V]) asked(command string) (calls int) {
	f.t.Helper()
	info, err := f.client().Info(context.Background(), "commandstats").Result()
	if err != nil {
		f.t.Fatal(err)
	}
	if m := regexp.MustCompile(`cmdstat_` + regexp.QuoteMeta(command) + `:calls=(\d+)`).FindStringSubmatch(info); m != nil {
		calls, _ = strconv.Atoi(m[1])
	}
	return calls
}

func (f *fleet[V]) resetCommands() {
	f.t.Helper()
	if err := f.client().ConfigResetStat(context.Background()).Err(); err != nil {
		f.t.Fatal(err)
	}
}

// quiet waits until no replica has anything under way with Redis.
func (f *fleet[V]) quiet() {
	f.t.Helper()
	client := f.client()
	eventually(f.t, "every lease is released", func() bool {
		keys, err := client.Keys(context.Background(), "fleetcall:*:lease").Result()
		return err == nil && len(keys) == 0
	})
}

// settled waits until every replica has sent what it sends when it has connected. The last of
// that is that it asks for the time.
func (f *fleet[V]) settled() {
	f.t.Helper()
	eventually(f.t, "every replica knows the time", func() bool {
		return f.asked("time") >= 4*len(f.groups)
	})
}

func TestAFlightCostsTheProtocolsCommandsAndNoMore(t *testing.T) {
	f := newFleet[string](t, 3)
	f.settled()
	fly := func(subscribed int) {
		answers := f.overlapping(20, "k", func(context.Context) (string, error) {
			f.waitFollowers("k", subscribed)
			eventually(t, "cold followers have peeked", func() bool { return f.commands()["evalsha"] >= 3+f.commands()["subscribe"] })
			return "v", nil
		})
		if n := roles(answers); n[coalesce.Leader] != 1 || n[coalesce.RemoteFollower] != 2 {
			t.Fatalf("roles %v", n)
		}
		f.quiet()
	}

	f.resetCommands()
	fly(2)
	cold := f.commands()
	if cold["evalsha"] != 2+2*2 || cold["subscribe"] != 2 || len(cold) != 2 {
		t.Errorf("cold key: want 6 scripts (2 of the leader, join and peek of each follower) and 2 subscriptions; sent %v", cold)
	}

	// The leader of a hot key may be one that was a follower: fly until all
	// three have followed and are subscribed.
	for f.numSub("k") < 3 {
		fly(2)
	}
	f.resetCommands()
	fly(3)
	hot := f.commands()
	if hot["evalsha"] != 4 || len(hot) != 1 {
		t.Errorf("hot key: want 4 scripts (2 of the leader, join of each follower); sent %v", hot)
	}
}

func (f *fleet[V]) numSub(key string) int {
	f.t.Helper()
	channel := "fleetcall:test:{" + key + "}@0"
	n, err := f.client().PubSubNumSub(context.Background(), channel).Result()
	if err != nil {
		f.t.Fatal(err)
	}
	return int(n[channel])
}

func TestACallerThatNobodyJoinsCostsTwoCommandsAndLeavesNothing(t *testing.T) {
	f := newFleet[string](t, 1)
	f.settled()
	f.resetCommands()
	for i := range 10 {
		if _, role, err := f.groups[0].Do(context.Background(), fmt.Sprint("k", i), func(context.Context) (string, error) { return "v", nil }); role != coalesce.Leader || err != nil {
			t.Fatal(role, err)
		}
	}
	f.quiet()
	// The end of one flight may leave with that of the next.
	if n := f.commands(); n["evalsha"] > 20 || n["evalsha"] < 11 || len(n) != 1 {
		t.Errorf("sent %v, want 20 scripts at the most", n)
	}
	if keys := f.client().Keys(context.Background(), "*").Val(); len(keys) != 0 {
		t.Errorf("left in Redis: %q", keys)
	}
}
