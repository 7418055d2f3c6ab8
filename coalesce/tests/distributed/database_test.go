package distributed_test

import (
	"context"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/internal/rig/redisrig"
)

// TestFleetsInTwoDatabasesOfOneServerDoNotHearEachOther has the same namespace and Group
// in both. Channels are a server's, not a database's.
func TestFleetsInTwoDatabasesOfOneServerDoNotHearEachOther(t *testing.T) {
	server := redisrig.Start(t)
	ctx := context.Background()
	in := func(database int) *replica[string] {
		client := redis.NewClient(&redis.Options{Addr: server.Addr, DB: database})
		g := openCalm[string](t, client)
		t.Cleanup(func() { _ = g.Close(ctx); _ = client.Close() })
		return g
	}
	here, sibling, there := in(0), in(0), in(1)
	admin := server.Client()
	eventually(t, "all have subscribed", func() bool { return len(controlChannels("fleetcall", admin)) == 3 })

	release := make(chan struct{})
	theirs, ours := holds(here, "theirs", release), holds(here, "ours", release)
	if _, role, err := there.Do(ctx, "theirs", value); role != coalesce.Leader || err != nil {
		t.Errorf("in the other database: %v, %v", role, err)
	}
	if err := there.Forget(ctx, "theirs"); err != nil {
		t.Fatal(err)
	}
	// Messages of a server arrive in order: when this one has, that of the other database would have.
	if err := sibling.Forget(ctx, "ours"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the own fleet's notice has arrived", func() bool {
		brief, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
		defer cancel()
		v, _, err := here.Do(brief, "ours", value)
		return v == "v" && err == nil
	})
	late := calling(ctx, here.Group, "theirs", value)
	eventually(t, "the late caller has come", func() bool { return here.Stats().Local.Waiting == 3 })
	close(release)
	for key, first := range map[string]<-chan answer[string]{"theirs": theirs, "ours": ours} {
		if a := comesBack(t, "the first caller", first); a != (answer[string]{"old", coalesce.Leader, nil}) {
			t.Errorf("%s: %+v", key, a)
		}
	}
	if a := comesBack(t, "the late caller", late); a != (answer[string]{"old", coalesce.LocalFollower, nil}) {
		t.Errorf("the other fleet's Forget split a flight: %+v", a)
	}
}

// holds has a replica lead a flight, whose function has begun and waits for release.
func holds(g *replica[string], key string, release <-chan struct{}) <-chan answer[string] {
	began := make(chan struct{})
	first := calling(context.Background(), g.Group, key, func(context.Context) (string, error) {
		close(began)
		<-release
		return "old", nil
	})
	<-began
	return first
}
