package distributed_test

import (
	"context"
	"runtime"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/distributed"
	"github.com/fleetcall/fleetcall/internal/rig/redisrig"
)

// slowEnd is a distributed.FlightHook that keeps the first flight that has what its callers get.
type slowEnd struct{ ended, release chan struct{} }

func (s *slowEnd) Flight(ctx context.Context, _ distributed.FlightStart) (context.Context, string, func(distributed.Flight)) {
	return ctx, "", func(distributed.Flight) {
		select {
		case <-s.ended:
		default:
			close(s.ended)
			<-s.release
		}
	}
}

// TestAForgetIsHeardByAFlightThatIsAboutToEnd has its callers not told yet. MaxAge would let
// who comes then take what it came to.
func TestAForgetIsHeardByAFlightThatIsAboutToEnd(t *testing.T) {
	for _, role := range []coalesce.Role{coalesce.Leader, coalesce.RemoteFollower, coalesce.Fallback} {
		t.Run(role.String(), func(t *testing.T) {
			t.Parallel()
			ctx := context.Background()
			server := redisrig.Start(t)
			hook := &slowEnd{make(chan struct{}), make(chan struct{})}
			var all []*replica[string]
			for i := range 2 {
				client := redis.NewClient(&redis.Options{Addr: server.Addr})
				opts := []distributed.Option{distributed.WithMaxAge(time.Hour), distributed.WithLeaseTTL(4 * calm), distributed.WithFlightTimeout(10 * calm)}
				if i == 0 {
					opts = append(opts, distributed.WithHooks(hook))
				}
				g := openCalm[string](t, client, opts...)
				t.Cleanup(func() { _ = g.Close(ctx); _ = client.Close() })
				all = append(all, g)
			}
			eventually(t, "both are subscribed", func() bool { return len(controlChannels("fleetcall", server.Client())) == 2 })
			end := make(chan struct{})
			var others <-chan answer[string]
			switch role {
			case coalesce.RemoteFollower:
				others = holds(all[1], "k", end)
			case coalesce.Fallback:
				server.Client().Set(ctx, "fleetcall:test:{k}:lease", "!too large", time.Hour)
			}
			first := calling(ctx, all[0].Group, "k", func(context.Context) (string, error) { <-end; return "old", nil })
			if role == coalesce.RemoteFollower {
				waitJoined(t, server, "test", "k")
			}
			if role != coalesce.Leader {
				eventually(t, "it is subscribed", func() bool { return subscribers("k", server.Client()) == 1 })
			}
			close(end)
			<-hook.ended
			if others != nil {
				comesBack(t, "the leader", others)
			}
			if err := all[1].Forget(ctx, "k"); err != nil {
				t.Fatal(err)
			}
			// Messages of one connection come in order.
			for _, channel := range controlChannels("fleetcall", server.Client()) {
				server.Client().Publish(ctx, channel, "garbage")
			}
			eventually(t, "the Forget has arrived", func() bool { return all[0].Stats().Distributed.Garbage == 1 })
			waiting := all[0].Stats().Local.Waiting
			late := calling(ctx, all[0].Group, "k", func(context.Context) (string, error) { return "new", nil })
			eventually(t, "who comes last has come", func() bool { return all[0].Stats().Local.Waiting != waiting || len(late) == 1 })
			close(hook.release)
			if a := comesBack(t, "who called before", first); a.val != "old" || a.role != role || a.err != nil {
				t.Errorf("who called before: %+v", a)
			}
			if a := comesBack(t, "who called after the Forget", late); a.val != "new" || a.err != nil {
				t.Errorf("who called after the Forget: %+v", a)
			}
		})
	}
}

// TestWhoComesWhenAFunctionHasPanickedGetsAFlightOfItsOwn has those who came before not told
// yet.
func TestWhoComesWhenAFunctionHasPanickedGetsAFlightOfItsOwn(t *testing.T) {
	for name, end := range map[string]func(){"panic": func() { panic("old") }, "exit": runtime.Goexit} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			hook := &slowEnd{make(chan struct{}), make(chan struct{})}
			f := newFleet[string](t, 1, distributed.WithHooks(hook))
			g := f.groups[0].Group
			first := calling(context.Background(), g, "k", func(context.Context) (string, error) { end(); return "", nil })
			<-hook.ended
			late := calling(context.Background(), g, "k", func(context.Context) (string, error) { return "new", nil })
			many := doMany(context.Background(), g, []string{"k"}, func(context.Context, []string) (map[string]string, error) {
				return map[string]string{"k": "new"}, nil
			})
			eventually(t, "three wait", func() bool { return g.Stats().Local.Waiting == 3 })
			close(hook.release)
			if a := comesBack(t, "who called before", first); a.err == nil {
				t.Errorf("who called before: %+v", a)
			}
			if a := comesBack(t, "who called after", late); a.val != "new" || a.err != nil {
				t.Errorf("who called after: %+v", a)
			}
			if a := (<-many).results["k"]; a.Val != "new" || a.Err != nil {
				t.Errorf("who called for many keys after: %+v", a)
			}
		})
	}
}

// slowRun is a distributed.RunHook that keeps the first function's end for itself.
type slowRun slowEnd

func (s *slowRun) Run(ctx context.Context, _ distributed.Run) (context.Context, func(error)) {
	_, _, ended := (*slowEnd)(s).Flight(ctx, distributed.FlightStart{})
	return ctx, func(error) { ended(distributed.Flight{}) }
}

// TestAFunctionHasEndedBeforeTheHooksKnow has a caller come while they are told.
func TestAFunctionHasEndedBeforeTheHooksKnow(t *testing.T) {
	for name, begin := range map[string]func(*distributed.Group[string]){
		"one key": func(g *distributed.Group[string]) {
			calling(context.Background(), g, "k", func(context.Context) (string, error) { return "old", nil })
		},
		"many keys": func(g *distributed.Group[string]) {
			doMany(context.Background(), g, []string{"k"}, func(context.Context, []string) (map[string]string, error) {
				return map[string]string{"k": "old"}, nil
			})
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			hook := &slowRun{make(chan struct{}), make(chan struct{})}
			f := newFleet[string](t, 1, distributed.WithHooks(hook))
			g := f.groups[0].Group
			begin(g)
			<-hook.ended
			late := calling(context.Background(), g, "k", func(context.Context) (string, error) { return "new", nil })
			eventually(t, "two wait", func() bool { return g.Stats().Local.Waiting == 2 })
			close(hook.release)
			if a := comesBack(t, "who called after", late); a.val != "new" || a.err != nil {
				t.Errorf("who called after: %+v", a)
			}
		})
	}
}
