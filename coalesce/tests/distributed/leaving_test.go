package distributed_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/distributed"
	"github.com/fleetcall/fleetcall/internal/rig/redisrig"
)

// leaver is a caller that can leave.
type leaver struct {
	answers <-chan answer[string]
	cancel  context.CancelFunc
}

func callAndLeave(g *replica[string], fn func(context.Context) (string, error)) leaver {
	ctx, cancel := context.WithCancel(context.Background())
	return leaver{calling(ctx, g.Group, "k", fn), cancel}
}

// leaves has the caller leave, and waits until it has.
func (l leaver) leaves(t *testing.T) {
	t.Helper()
	l.cancel()
	if got := comesBack(t, "who leaves", l.answers); !errors.Is(got.err, context.Canceled) {
		t.Errorf("who leaves has %+v", got)
	}
}

// obedient is a function that runs until its context ends.
func obedient() (fn func(context.Context) (string, error), _, _ chan struct{}) {
	began, ended := make(chan struct{}), make(chan struct{})
	return func(ctx context.Context) (string, error) {
		close(began)
		<-ctx.Done()
		close(ended)
		return "", ctx.Err()
	}, began, ended
}

func ends(t *testing.T, ended <-chan struct{}) {
	t.Helper()
	select {
	case <-ended:
	case <-time.After(calm):
		t.Fatal("nobody in the fleet waits, and the function goes on")
	}
}

// followers returns how many have joined the key's flight and not left, as its lease says.
func (f *fleet[V]) followers(key string) string {
	lease := f.client().Get(context.Background(), "fleetcall:test:{"+key+"}:lease").Val()
	if len(lease) < 27 {
		return "no lease"
	}
	return lease[23:27]
}

// TestTheFunctionIsCancelledWhenTheLastCallerInTheFleetLeaves has a leader and two
// followers, whose callers leave in every order. The flight timeout would be too late.
func TestTheFunctionIsCancelledWhenTheLastCallerInTheFleetLeaves(t *testing.T) {
	t.Parallel()
	for name, order := range map[string][]int{
		"the leader's last": {1, 2, 0}, "the leader's first": {0, 1, 2}, "the leader's between them": {1, 0, 2},
		"the leader's alone": {0},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFleet[string](t, 3, distributed.WithFlightTimeout(time.Hour), distributed.WithLeaseTTL(900*time.Millisecond))
			fn, began, ended := obedient()
			callers := map[int]leaver{0: callAndLeave(f.groups[0], fn)}
			<-began
			for _, i := range order {
				if i != 0 {
					callers[i] = callAndLeave(f.groups[i], value)
				}
			}
			if len(order) > 1 {
				eventually(t, "two have joined", func() bool { return f.followers("k") == "0002" })
			}
			for i, who := range order {
				if i == len(order)-1 {
					select {
					case <-ended:
						t.Error("somebody waits, and the function's context has ended")
					default:
					}
				}
				callers[who].leaves(t)
			}
			ends(t, ended)
			f.quiet()
			if v, role, err := f.groups[1].Do(context.Background(), "k", value); v != "v" || role != coalesce.Leader || err != nil {
				t.Errorf("the next caller: %q, %v, %v", v, role, err)
			}
		})
	}
}

// TestAFollowerThatWaitsKeepsTheFunctionGoing has the leader's callers and one of two
// followers leave, whose client repeats its leave.
func TestAFollowerThatWaitsKeepsTheFunctionGoing(t *testing.T) {
	t.Parallel()
	const ttl = 300 * time.Millisecond
	f := newFleet[string](t, 1, distributed.WithFlightTimeout(time.Hour), distributed.WithLeaseTTL(ttl))
	left := make(chan error, 1)
	client := redis.NewClient(&redis.Options{Addr: f.server.Addr})
	defer client.Close()
	client.AddHook(twice{"leave", func() {}, left})
	repeats := openCalm[string](t, client, distributed.WithLeaseTTL(ttl))
	defer repeats.Close(context.Background())
	release := make(chan struct{})
	began := make(chan struct{})
	leader := callAndLeave(f.groups[0], func(ctx context.Context) (string, error) {
		close(began)
		select {
		case <-release:
			return "v", nil
		case <-ctx.Done():
			return "", ctx.Err()
		}
	})
	<-began
	leaves := callAndLeave(repeats, value)
	eventually(t, "one has joined", func() bool { return f.followers("k") == "0001" })
	stays := calling(context.Background(), f.join(distributed.WithLeaseTTL(ttl)).Group, "k", value)
	eventually(t, "two have joined", func() bool { return f.followers("k") == "0002" })
	leaves.leaves(t)
	if err := <-left; err != nil {
		t.Error(err)
	}
	leader.leaves(t)
	if n := f.followers("k"); n != "0001" {
		t.Errorf("%s wait, as the lease says", n)
	}
	time.Sleep(3 * ttl) // the leader asks whether anybody waits
	close(release)
	if got := comesBack(t, "the follower", stays); got.val != "v" || got.role != coalesce.RemoteFollower || got.err != nil {
		t.Errorf("the follower has %+v", got)
	}
}

// TestAFollowerThatWaitsKeepsTheFunctionGoingWithoutItsLease has Redis lose the lease, and the
// leader's callers leave before a renewal has found that.
func TestAFollowerThatWaitsKeepsTheFunctionGoingWithoutItsLease(t *testing.T) {
	t.Parallel()
	server := redisrig.Start(t)
	began, asked, release := make(chan struct{}), make(chan struct{}), make(chan struct{})
	w := &tap{t: t, server: server, after: func(script string, _ []any, _ any, _ time.Duration) {
		if script == "abandon" {
			close(asked)
		}
	}}
	a := wiredGroup[string](w, distributed.WithLeaseTTL(4*calm), distributed.WithFlightTimeout(10*calm))
	b := wiredGroup[string](&tap{t: t, server: server}, distributed.WithLeaseTTL(4*calm), distributed.WithFlightTimeout(10*calm))
	leader := callAndLeave(a, func(ctx context.Context) (string, error) {
		close(began)
		<-release
		return "led", ctx.Err()
	})
	<-began
	follower := calling(context.Background(), b.Group, "k", value)
	waitJoined(t, server, "test", "k")
	server.Client().Del(context.Background(), "fleetcall:test:{k}:lease")
	leader.leaves(t)
	<-asked
	close(release)
	if got := comesBack(t, "the follower", follower); got.val != "led" || got.role != coalesce.RemoteFollower || got.err != nil {
		t.Errorf("the follower has %+v", got)
	}
}

// TestALeaderThatCannotAskWhetherAnybodyWaitsGoesOn has its question fail once it has been
// told that a follower waits.
func TestALeaderThatCannotAskWhetherAnybodyWaitsGoesOn(t *testing.T) {
	const ttl = 300 * time.Millisecond
	server := redisrig.Start(t)
	var asked atomic.Int32
	w := &tap{t: t, server: server, before: func(script string, _ []any) error {
		if script == "abandon" && asked.Add(1) == 2 {
			return errors.New("broken pipe")
		}
		return nil
	}}
	a := wiredGroup[string](w, distributed.WithLeaseTTL(ttl))
	b := wiredGroup[string](&tap{t: t, server: server}, distributed.WithLeaseTTL(ttl))
	began := make(chan struct{})
	leader := callAndLeave(a, func(ctx context.Context) (string, error) {
		close(began)
		for asked.Load() < 4 && ctx.Err() == nil {
			time.Sleep(time.Millisecond) // no event announces it
		}
		return "v", ctx.Err()
	})
	<-began
	follower := calling(context.Background(), b.Group, "k", value)
	waitJoined(t, server, "test", "k")
	leader.leaves(t)
	if got := comesBack(t, "the follower", follower); got.val != "v" || got.role != coalesce.RemoteFollower || got.err != nil {
		t.Errorf("the follower has %+v", got)
	}
}

// TestAForgottenFlightIsCancelledWhenItsLastFollowerLeaves has its key forgotten in between.
func TestAForgottenFlightIsCancelledWhenItsLastFollowerLeaves(t *testing.T) {
	f := newFleet[string](t, 2, distributed.WithFlightTimeout(time.Hour), distributed.WithLeaseTTL(900*time.Millisecond))
	fn, began, ended := obedient()
	leader := callAndLeave(f.groups[0], fn)
	<-began
	follower := callAndLeave(f.groups[1], value)
	eventually(t, "one has joined", func() bool { return f.followers("k") == "0001" })
	if err := f.groups[0].Forget(context.Background(), "k"); err != nil {
		t.Fatal(err)
	}
	leader.leaves(t)
	follower.leaves(t)
	ends(t, ended)
}
