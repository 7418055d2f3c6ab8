package distributed_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/distributed"
	"github.com/fleetcall/fleetcall/internal/rig/redisrig"
)

// These are about a Redis whose clock is set back by an hour: what was to live for a
// second lives for an hour and a second.

// TestALeaseThatLivesForTooLongIsNotBelieved has a leader that is dead, and callers that
// come before and after the clock is set.
func TestALeaseThatLivesForTooLongIsNotBelieved(t *testing.T) {
	t.Parallel()
	const ttl = 600 * time.Millisecond
	for name, forgotten := range map[string]bool{"a lease": false, "a flight that was forgotten": true} {
		t.Run(name, func(t *testing.T) {
			f := newFleet[string](t, 2, distributed.WithLeaseTTL(ttl), distributed.WithFlightTimeout(time.Hour))
			client, ctx := f.client(), context.Background()
			f.foreignLease("k", ttl)
			before := calling(ctx, f.groups[0].Group, "k", value)
			eventually(t, "it has joined", func() bool { return f.joins.Load() == 1 })
			if forgotten {
				if err := f.groups[1].Forget(ctx, "k"); err != nil {
					t.Fatal(err)
				}
				due := fmt.Sprint(time.Now().Add(time.Hour).UnixMilli(), " 10001")
				if client.HSet(ctx, "fleetcall:test:{k}:attempts", foreignFlight, due).Val() != 0 {
					t.Fatal("the flight did not stand among the attempts")
				}
			} else if !client.PExpire(ctx, "fleetcall:test:{k}:lease", time.Hour).Val() {
				t.Fatal("there is no lease")
			}
			after := calling(ctx, f.groups[1].Group, "k", value)
			for who, caller := range map[string]<-chan answer[string]{"who came before": before, "who came after": after} {
				if got := comesBack(t, who, caller); got.val != "v" || got.err != nil {
					t.Errorf("%s has %+v", who, got)
				}
			}
		})
	}
}

// TestWhoFollowsADeadLeaderLooksTwiceAfterTheClockWasSetBack has its lease and what stands
// among the attempts live for too long. Who follows it waits for one more lease TTL, not two.
func TestWhoFollowsADeadLeaderLooksTwiceAfterTheClockWasSetBack(t *testing.T) {
	t.Parallel()
	const ttl = 2 * time.Second
	server := redisrig.Start(t)
	f := &fleet[string]{t: t, server: server}
	f.foreignLease("k", ttl)
	var looks atomic.Int32
	g := wiredGroup[string](&tap{t: t, server: server, after: func(script string, _ []any, _ any, _ time.Duration) {
		if script == "peek" {
			looks.Add(1)
		}
	}}, distributed.WithLeaseTTL(ttl))
	caller := calling(context.Background(), g.Group, "k", value)
	f.waitFollowers("k", 1)
	client, ctx := f.client(), context.Background()
	client.HSet(ctx, "fleetcall:test:{k}:attempts", foreignFlight, time.Now().Add(time.Hour).UnixMilli())
	if !client.PExpire(ctx, "fleetcall:test:{k}:lease", time.Hour).Val() {
		t.Fatal("there is no lease")
	}
	if got := comesBack(t, "the follower", caller); got.val != "v" || got.role != coalesce.Leader || got.err != nil {
		t.Errorf("the follower has %+v", got)
	}
	if n := looks.Load(); n > 3 { // when it has subscribed, and when the lease is due, twice
		t.Errorf("it has looked %d times", n)
	}
}

// TestAPoisonedKeyRecoversThoughTheClockWasSetBack has deaths that would be counted for an
// hour.
func TestAPoisonedKeyRecoversThoughTheClockWasSetBack(t *testing.T) {
	t.Parallel()
	f := newFleet[string](t, 1, distributed.WithMaxTakeovers(0), distributed.WithLeaseTTL(300*time.Millisecond), distributed.WithFlightTimeout(400*time.Millisecond))
	f.foreignDeath("k", "first", time.Hour)
	if _, _, err := f.groups[0].Do(context.Background(), "k", value); !errors.Is(err, coalesce.ErrPoisoned) {
		t.Errorf("a leader has died: %v", err)
	}
	eventually(t, "the key recovers", func() bool {
		_, role, err := f.groups[0].Do(context.Background(), "k", value)
		return role == coalesce.Leader && err == nil
	})
}

// TestAFollowerLooksWhenItsOwnLeaseTTLHasPassed has a leader that ends unnoticed, and a
// lease that says that it lives for an hour.
func TestAFollowerLooksWhenItsOwnLeaseTTLHasPassed(t *testing.T) {
	f := newFleet[string](t, 1, distributed.WithLeaseTTL(600*time.Millisecond), distributed.WithFlightTimeout(time.Hour))
	ctx := context.Background()
	f.foreignLease("k", time.Hour)
	follower := calling(ctx, f.groups[0].Group, "k", value)
	f.waitFollowers("k", 1)
	f.client().Set(ctx, "fleetcall:test:{k}:result:"+foreignFlight, foreignOutcome("json", `"theirs"`), 0)
	if got := comesBack(t, "the follower", follower); got.val != "theirs" || got.role != coalesce.RemoteFollower || got.err != nil {
		t.Errorf("the follower has %+v", got)
	}
}

// TestCallersInAHurryAreNotKeptFromALeaseThatLivesForTooLong has callers of whom none waits
// until it looks for the flight again.
func TestCallersInAHurryAreNotKeptFromALeaseThatLivesForTooLong(t *testing.T) {
	t.Parallel()
	const ttl = 2 * time.Second
	f := newFleet[string](t, 1, distributed.WithLeaseTTL(ttl))
	f.foreignLease("k", ttl)
	first, leave := context.WithCancel(context.Background())
	follower := calling(first, f.groups[0].Group, "k", value)
	f.waitFollowers("k", 1) // those who come after it need not look when they have subscribed
	leave()
	comesBack(t, "the first", follower)
	if !f.client().PExpire(context.Background(), "fleetcall:test:{k}:lease", time.Hour).Val() {
		t.Fatal("there is no lease")
	}
	eventually(t, "one of them leads", func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), ttl/10)
		defer cancel()
		_, role, err := f.groups[0].Do(ctx, "k", value)
		return role == coalesce.Leader && err == nil
	})
}

// TestAResultIsNoYoungerForAClockThatWasSetBack has a leader whose finish fails for a while.
// A caller comes meanwhile, after the clock was set back: by that clock it came long before
// the function's end, as the leader knows it.
func TestAResultIsNoYoungerForAClockThatWasSetBack(t *testing.T) {
	t.Parallel()
	server, clock := redisrig.StartOnClock(t)
	var fails, joins atomic.Int32
	fails.Store(1)
	tried := make(chan struct{}, 1000)
	leader := wiredGroup[string](&tap{t: t, server: server, before: func(script string, _ []any) error {
		if script == "finish" && fails.Load() == 1 {
			tried <- struct{}{}
			return errors.New("the finish is lost")
		}
		return nil
	}}, distributed.WithLeaseTTL(calm), distributed.WithRedisTimeout(calm))
	other := wiredGroup[string](&tap{t: t, server: server, after: func(script string, _ []any, _ any, _ time.Duration) {
		if script == "join" {
			joins.Add(1)
		}
	}}, distributed.WithLeaseTTL(calm), distributed.WithRedisTimeout(calm))
	if _, _, err := leader.Do(context.Background(), "k", func(context.Context) (string, error) { return "old", nil }); err != nil {
		t.Fatal(err)
	}
	<-tried
	// By the finish's own delivery the result seems younger than it is: that takes less.
	time.Sleep(2 * time.Second)
	clock.Set(-time.Hour)
	late := calling(context.Background(), other.Group, "k", func(context.Context) (string, error) { return "new", nil })
	eventually(t, "it has joined", func() bool { return joins.Load() == 1 })
	for len(tried) > 0 {
		<-tried
	}
	// The first of these may have been on its way when the caller joined.
	<-tried
	<-tried
	fails.Store(0)
	itsOwn(t, "who came when the function had ended", comesBack(t, "who came when the function had ended", late))
}
