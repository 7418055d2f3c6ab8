package adaptive_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/distributed"
)

// makeHot has a key found hot by all replicas, by a crowd on the first.
func makeHot(f *fleet, key string) {
	f.t.Helper()
	var callers sync.WaitGroup
	for range 10 {
		callers.Go(func() {
			_, _, _ = f.groups[0].Do(context.Background(), key, func(context.Context) (string, error) {
				eventually(f.t, "the others are told", func() bool {
					for _, g := range f.groups {
						if g.fleet.Stats().HotKeys == 0 {
							return false
						}
					}
					return true
				})
				time.Sleep(onItsWay)
				return "v", nil
			})
		})
	}
	callers.Wait()
}

func TestKeysThatNobodySharesSendRedisNothing(t *testing.T) {
	f := newAdaptive(t, 3)
	const keys = 300
	for i := range keys {
		v, role, err := f.groups[i%3].Do(context.Background(), fmt.Sprint("k", i), value)
		if v != "v" || role != coalesce.Leader || err != nil {
			t.Fatalf("%q, %v, %v", v, role, err)
		}
	}
	many := make([]string, 100)
	for i := range many {
		many[i] = fmt.Sprint("many ", i)
	}
	results, err := f.groups[0].DoMany(context.Background(), many, func(_ context.Context, keys []string) (map[string]string, error) {
		if len(keys) != len(many) {
			t.Errorf("the function has %d keys", len(keys))
		}
		return map[string]string{"many 7": "v"}, nil
	})
	if r := results["many 7"]; r.Val != "v" || r.Role != coalesce.Leader || err != nil {
		t.Errorf("%+v, %v", r, err)
	}
	if n := f.scripts(); n != 0 {
		t.Errorf("%d scripts and subscriptions were sent", n)
	}
	if n := f.unasked(); n != keys+100 {
		t.Errorf("%d flights have asked nobody, of %d", n, keys+100)
	}
}

func TestACrowdForAColdKeyRunsOnceAReplicaAndThenOnceForAll(t *testing.T) {
	f := newAdaptive(t, 3)
	if n := f.crowd(100, "k", 0); n < 1 || n > 3 {
		t.Errorf("the first crowd had %d executions", n)
	}
	for range 5 {
		f.quiet()
		if n := f.crowd(100, "k", 2); n != 1 {
			t.Errorf("a later crowd had %d executions", n)
		}
	}
}

func TestAKeyThatOneReplicaFindsHotIsAskedForByAll(t *testing.T) {
	f := newAdaptive(t, 3)
	makeHot(f, "k")
	began, release := make(chan struct{}), make(chan struct{})
	var leader sync.WaitGroup
	leader.Go(func() {
		_, role, err := f.groups[1].Do(context.Background(), "k", func(context.Context) (string, error) { close(began); <-release; return "led", nil })
		if role != coalesce.Leader || err != nil {
			t.Errorf("%v, %v", role, err)
		}
	})
	<-began
	var follower sync.WaitGroup
	follower.Go(func() {
		v, role, err := f.groups[2].Do(context.Background(), "k", value)
		if v != "led" || role != coalesce.RemoteFollower || err != nil {
			t.Errorf("%q, %v, %v", v, role, err)
		}
	})
	eventually(t, "the other follows", func() bool { return f.followed.Load() == 1 })
	time.Sleep(onItsWay)
	close(release)
	leader.Wait()
	follower.Wait()
}

func TestABatchAsksForItsHotKeysAlone(t *testing.T) {
	f := newAdaptive(t, 2)
	makeHot(f, "hot")
	began, release := make(chan struct{}), make(chan struct{})
	var leader sync.WaitGroup
	leader.Go(func() {
		_, _, _ = f.groups[0].Do(context.Background(), "hot", func(context.Context) (string, error) { close(began); <-release; return "led", nil })
	})
	<-began
	results, err := f.groups[1].DoMany(context.Background(), []string{"a", "hot", "b"}, func(_ context.Context, keys []string) (map[string]string, error) {
		if fmt.Sprint(keys) != "[a b]" {
			t.Errorf("the function has %v", keys)
		}
		eventually(t, "it follows", func() bool { return f.followed.Load() == 1 })
		time.Sleep(onItsWay)
		close(release)
		return map[string]string{"a": "1", "b": "2"}, nil
	})
	leader.Wait()
	if a, hot := results["a"], results["hot"]; a.Val != "1" || a.Role != coalesce.Leader || hot.Val != "led" || hot.Role != coalesce.RemoteFollower || err != nil {
		t.Errorf("%+v, %v", results, err)
	}
	if n := f.groups[1].Stats().Distributed.Unasked; n != 2 {
		t.Errorf("%d keys of the batch were not asked for", n)
	}
}

func TestCallsWithAMaxAgeAlwaysAsk(t *testing.T) {
	f := newAdaptive(t, 2, distributed.WithMaxAge(patience))
	if _, role, err := f.groups[0].Do(context.Background(), "k", value); role != coalesce.Leader || err != nil {
		t.Fatal(role, err)
	}
	f.quiet()
	if v, role, err := f.groups[1].Do(context.Background(), "k", value); v != "v" || role != coalesce.Cached || err != nil {
		t.Errorf("%q, %v, %v", v, role, err)
	}
}

// running has a replica run a function for key, and returns what ends it.
func running(t *testing.T, g *replica, key string) (end func()) {
	t.Helper()
	began, release, ended := make(chan struct{}), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		_, _, err := g.Do(context.Background(), key, func(context.Context) (string, error) { close(began); <-release; return "old", nil })
		if err != nil {
			t.Error(err)
		}
	}()
	<-began
	return func() { close(release); <-ended }
}

// joins says whether a call for key that comes now joins the flight that runs.
func joins(g *replica, key string) bool {
	ctx, leave := context.WithTimeout(context.Background(), onItsWay)
	defer leave()
	_, role, _ := g.Do(ctx, key, value)
	return role == coalesce.LocalFollower
}

func TestAForgetReachesFlightsThatAskedNobody(t *testing.T) {
	f := newAdaptive(t, 2)
	end := running(t, f.groups[1], "k")
	if !joins(f.groups[1], "k") {
		t.Error("a call did not join the flight that ran")
	}
	if err := f.groups[0].Forget(context.Background(), "another", "k"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the other replica has forgotten it", func() bool { return !joins(f.groups[1], "k") })
	if end(); f.unasked() == 0 {
		t.Error("it had asked")
	}
}

func TestAForgetThatWasMissedIsMadeUpForWhenTheChannelIsThereAgain(t *testing.T) {
	f := newAdaptive(t, 1)
	end := running(t, f.groups[0], "k")
	defer end()
	if err := f.client.ClientKillByFilter(context.Background(), "TYPE", "pubsub").Err(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it takes the key for forgotten", func() bool { return !joins(f.groups[0], "k") })
}

func TestWhoDoesNotHearOfForgetsAsks(t *testing.T) {
	f := newFleet(t, 1, distributed.WithAdaptive())
	ctx := context.Background()
	if err := f.client.Do(ctx, "ACL", "SETUSER", "default", "-subscribe").Err(); err != nil {
		t.Fatal(err)
	}
	if err := f.client.ClientKillByFilter(ctx, "TYPE", "pubsub").Err(); err != nil {
		t.Fatal(err)
	}
	n := 0
	eventually(t, "a call for a new key asks", func() bool {
		n++
		before := f.unasked()
		_, _, err := f.groups[0].Do(ctx, fmt.Sprint(n), value)
		return err != nil || f.unasked() == before
	})
}

func TestWithoutRedisAnAdaptiveGroupIsAsAnyOther(t *testing.T) {
	f := newAdaptive(t, 1, distributed.WithRedisTimeout(time.Second))
	f.server.Kill()
	g, ctx := f.groups[0], context.Background()
	n := 0
	eventually(t, "a call falls back", func() bool {
		n++
		_, role, err := g.Do(ctx, fmt.Sprint(n), value)
		return err != nil || role == coalesce.Fallback
	})
	if _, _, err := g.With(distributed.WithFailClosed()).Do(ctx, "closed", value); !errors.Is(err, coalesce.ErrUnavailable) {
		t.Errorf("failing closed: %v", err)
	}
	if err := g.Forget(ctx, "k"); err == nil {
		t.Error("a Forget that Redis could not be told of has no error")
	}
}

// long: each subtest is an end, and they share a replica, which the last one closes
func TestTheEndsOfAFlightThatAskedNobody(t *testing.T) {
	f := newAdaptive(t, 1)
	g, ctx := f.groups[0], context.Background()
	t.Run("error", func(t *testing.T) {
		if _, role, err := g.Do(ctx, "error", func(context.Context) (string, error) { return "x", errKnown }); role != coalesce.Leader || !errors.Is(err, errKnown) {
			t.Errorf("%v, %v", role, err)
		}
	})
	t.Run("panic", func(t *testing.T) {
		defer func() {
			if p, ok := recover().(*coalesce.PanicError); !ok || p.Value != "boom" {
				t.Errorf("%v", p)
			}
		}()
		_, _, _ = g.Do(ctx, "panic", func(context.Context) (string, error) { panic("boom") })
	})
	t.Run("flight timeout", func(t *testing.T) {
		if _, _, err := g.With(distributed.WithFlightTimeout(onItsWay)).Do(ctx, "late", func(ctx context.Context) (string, error) { <-ctx.Done(); return "", ctx.Err() }); !errors.Is(err, coalesce.ErrFlightTimeout) {
			t.Errorf("%v", err)
		}
	})
	t.Run("its callers leave", func(t *testing.T) {
		ctx, leave := context.WithCancel(ctx)
		ended := make(chan error)
		if _, role, err := g.Do(ctx, "left", func(ctx context.Context) (string, error) {
			go func() { <-ctx.Done(); ended <- ctx.Err() }()
			leave()
			<-ctx.Done()
			return "", ctx.Err()
		}); role != coalesce.Leader || !errors.Is(err, context.Canceled) {
			t.Errorf("%v, %v", role, err)
		}
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
	t.Run("abandoned", func(t *testing.T) {
		var second sync.WaitGroup
		_, _, err := g.Do(ctx, "abandoned", func(context.Context) (string, error) {
			followers := g.Stats().Local.Followers
			second.Go(func() {
				if v, role, err := g.Do(ctx, "abandoned", value); v != "v" || role == coalesce.LocalFollower || err != nil {
					t.Errorf("%q, %v, %v", v, role, err)
				}
			})
			eventually(t, "another waits", func() bool { return g.Stats().Local.Followers > followers })
			return "", context.Canceled
		})
		if second.Wait(); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
	t.Run("closing", func(t *testing.T) {
		ended, cancel := context.WithCancel(ctx)
		cancel()
		_, _, err := g.Do(ctx, "closed", func(ctx context.Context) (string, error) {
			go func() { _ = g.fleet.Close(ended) }()
			<-ctx.Done()
			return "", ctx.Err()
		})
		if !errors.Is(err, coalesce.ErrClosed) {
			t.Error(err)
		}
	})
	// That the others of the abandoned flight lead may have been asked for: one had waited.
	if n := f.unasked(); n < 6 {
		t.Errorf("%d flights had asked nobody", n)
	}
}
