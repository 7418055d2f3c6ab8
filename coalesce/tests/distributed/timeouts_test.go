package distributed_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/distributed"
	"github.com/fleetcall/fleetcall/internal/rig/redisrig"
)

// TestTheSameGroupMadeAgainHasItsOwnFlightTimeout has the Group that was made first lead
// a flight that takes longer than the second one waits.
func TestTheSameGroupMadeAgainHasItsOwnFlightTimeout(t *testing.T) {
	f := openFleet(t, redisrig.Start(t))
	patient := newGroup[string](t, f, "g")
	hasty := newGroup[string](t, f, "g", distributed.WithFlightTimeout(100*time.Millisecond))
	began, release := make(chan struct{}), make(chan struct{})
	leader := calling(context.Background(), patient, "k", func(context.Context) (string, error) {
		close(began)
		<-release
		return "v", nil
	})
	<-began
	follower := calling(context.Background(), hasty, "k", value)
	select {
	case got := <-follower:
		if got.role != coalesce.LocalFollower || !errors.Is(got.err, coalesce.ErrFlightTimeout) {
			t.Errorf("the hasty one has %+v", got)
		}
	case <-time.After(calm):
		t.Error("the hasty one waits on")
	}
	close(release)
	if got := comesBack(t, "the leader", leader); got.val != "v" || got.err != nil {
		t.Errorf("the leader has %+v", got)
	}
}

// TestFollowersOfALeaderWithLessTimeLeadAnew has followers on the leader's replica and on
// another one.
func TestFollowersOfALeaderWithLessTimeLeadAnew(t *testing.T) {
	t.Parallel()
	server := redisrig.Start(t)
	a, b := newGroup[string](t, openFleet(t, server), "g"), newGroup[string](t, openFleet(t, server), "g")
	began, release := make(chan struct{}), make(chan struct{})
	defer close(release)
	leader := calling(context.Background(), a.With(distributed.WithFlightTimeout(time.Second)), "k", func(context.Context) (string, error) {
		close(began)
		<-release
		return "late", nil
	})
	<-began
	here, there := calling(context.Background(), a, "k", value), calling(context.Background(), b, "k", value)
	waitJoined(t, server, "g", "k")
	if got := comesBack(t, "the leader", leader); !errors.Is(got.err, coalesce.ErrFlightTimeout) {
		t.Errorf("the leader has %+v", got)
	}
	for who, follower := range map[string]<-chan answer[string]{"its replica": here, "the other": there} {
		if got := comesBack(t, who, follower); got.val != "v" || got.err != nil {
			t.Errorf("the follower on %s has %+v", who, got)
		}
	}
}

// TestAFunctionThatObeysTheFlightTimeoutAtOnceGivesAllThatError has a function that sees
// the end of its time before the Fleet does.
func TestAFunctionThatObeysTheFlightTimeoutAtOnceGivesAllThatError(t *testing.T) {
	t.Parallel()
	g := newGroup[string](t, openFleet(t, redisrig.Start(t)), "g", distributed.WithFlightTimeout(10*time.Millisecond))
	obeys := func(ctx context.Context) (string, error) {
		for ctx.Err() == nil { // as a function that works does, which looks now and then
		}
		return "", fmt.Errorf("query: %w", ctx.Err())
	}
	for round := range 100 {
		key := fmt.Sprint(round)
		first, second := calling(context.Background(), g, key, obeys), calling(context.Background(), g, key, obeys)
		for _, caller := range []<-chan answer[string]{first, second} {
			if got := comesBack(t, "a caller", caller); !errors.Is(got.err, coalesce.ErrFlightTimeout) {
				t.Fatalf("round %d: a caller has %+v", round, got)
			}
		}
	}
}

// TestATimeoutThatIsObeyedWhileTheFleetIsBusyReachesFollowersAsSuch has the leader's caller
// leave. While Redis is asked whether another replica waits, the flight timeout passes,
// and the function obeys it.
func TestATimeoutThatIsObeyedWhileTheFleetIsBusyReachesFollowersAsSuch(t *testing.T) {
	t.Parallel()
	server := redisrig.Start(t)
	returned := make(chan struct{})
	leads := wiredGroup[string](&tap{t: t, server: server, before: func(script string, _ []any) error {
		if script == "abandon" {
			<-returned
			time.Sleep(50 * time.Millisecond) // until the Fleet has noted it, which nothing tells
		}
		return nil
	}}, distributed.WithFlightTimeout(time.Second))
	follows := wiredGroup[string](&tap{t: t, server: server})
	request, leave := context.WithCancel(context.Background())
	began := make(chan struct{})
	leader := calling(request, leads.Group, "k", func(ctx context.Context) (string, error) {
		close(began)
		defer close(returned)
		<-ctx.Done()
		return "", fmt.Errorf("query: %w", ctx.Err())
	})
	<-began
	follower := calling(context.Background(), follows.Group, "k", value)
	waitJoined(t, server, "test", "k")
	leave()
	if got := comesBack(t, "the leader's caller", leader); !errors.Is(got.err, context.Canceled) {
		t.Errorf("the leader's caller has %+v", got)
	}
	if got := comesBack(t, "the follower", follower); got.role != coalesce.RemoteFollower || !errors.Is(got.err, coalesce.ErrFlightTimeout) {
		t.Errorf("the follower has %v as %v", got.err, got.role)
	}
}
