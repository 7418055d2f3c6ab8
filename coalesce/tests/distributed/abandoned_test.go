package distributed_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/distributed"
	"github.com/fleetcall/fleetcall/internal/rig/redisrig"
)

// TestOneCallersCancellationIsNotEverybodys has a function that uses its caller's
// context instead of the one it is given: that caller leaves, and the function says so.
func TestOneCallersCancellationIsNotEverybodys(t *testing.T) {
	server := redisrig.Start(t)
	a := newGroup[string](t, openFleet(t, server), "g")
	b := newGroup[string](t, openFleet(t, server), "g")
	request, leave := context.WithCancel(context.Background())
	began := make(chan struct{})
	left := make(chan error, 1)
	go func() {
		_, _, err := a.Do(request, "k", func(context.Context) (string, error) {
			close(began)
			<-request.Done()
			return "", fmt.Errorf("query: %w", request.Err())
		})
		left <- err
	}()
	<-began
	var runs atomic.Int32
	answers := make(chan answer[string], 2)
	for _, g := range []*distributed.Group[string]{a, b} {
		go func() {
			var got answer[string]
			got.val, got.role, got.err = g.Do(context.Background(), "k", func(context.Context) (string, error) {
				runs.Add(1)
				return "v", nil
			})
			answers <- got
		}()
	}
	admin := server.Client()
	const channel = "fleetcall:g:{k}@0"
	eventually(t, "one waits here, one there", func() bool {
		return a.Stats().Local.Waiting == 2 && admin.PubSubNumSub(context.Background(), channel).Val()[channel] == 1
	})
	leave()
	if err := <-left; !errors.Is(err, context.Canceled) {
		t.Errorf("who left: %v", err)
	}
	for range 2 {
		if got := <-answers; got.val != "v" || got.err != nil {
			t.Errorf("%+v", got)
		}
	}
	if n := runs.Load(); n < 1 || n > 2 {
		t.Errorf("%d executions after it", n)
	}
}

// TestAFunctionThatIsCancelledForNobodyIsItsCallersAlone has the leader's caller live:
// it gets its own function's error.
func TestAFunctionThatIsCancelledForNobodyIsItsCallersAlone(t *testing.T) {
	server := redisrig.Start(t)
	f := openFleet(t, server)
	g := newGroup[string](t, f, "g")
	gone, cancel := context.WithCancel(context.Background())
	cancel()
	_, role, err := g.Do(context.Background(), "k", func(context.Context) (string, error) { return "", gone.Err() })
	if role != coalesce.Leader || !errors.Is(err, context.Canceled) {
		t.Errorf("%v, %v", role, err)
	}
	eventually(t, "it is no death", func() bool {
		return server.Client().Exists(context.Background(), "fleetcall:g:{k}:lease", "fleetcall:g:{k}:attempts").Val() == 0
	})
}

// TestOneCallersCancellationIsNobodysOnOtherReplicas has the only caller of the leader's
// replica leave, whose function uses its caller's context, while another replica
// follows.
func TestOneCallersCancellationIsNobodysOnOtherReplicas(t *testing.T) {
	server := redisrig.Start(t)
	a := newGroup[string](t, openFleet(t, server), "g")
	b := newGroup[string](t, openFleet(t, server), "g")
	admin := server.Client()
	for round := range 20 {
		request, leave := context.WithCancel(context.Background())
		began := make(chan struct{})
		left := make(chan error, 1)
		key := fmt.Sprint("key ", round)
		go func() {
			_, _, err := a.Do(request, key, func(context.Context) (string, error) {
				close(began)
				<-request.Done()
				return "", fmt.Errorf("query: %w", request.Err())
			})
			left <- err
		}()
		<-began
		follower := make(chan answer[string], 1)
		go func() {
			var got answer[string]
			got.val, got.role, got.err = b.Do(context.Background(), key, value)
			follower <- got
		}()
		eventually(t, "the follower has joined", func() bool {
			return strings.HasPrefix(admin.Get(context.Background(), "fleetcall:g:{"+key+"}:lease").Val(), "1")
		})
		leave()
		if err := <-left; !errors.Is(err, context.Canceled) {
			t.Errorf("who left has %v", err)
		}
		if got := <-follower; got.val != "v" || got.err != nil || got.role != coalesce.Leader {
			t.Fatalf("round %d: the follower has %+v", round, got)
		}
	}
}

// TestACallerThatLeavesAfterAnAbandonedFlightHasFollowedIt has a follower whose context
// has ended when it is to lead in its turn.
func TestACallerThatLeavesAfterAnAbandonedFlightHasFollowedIt(t *testing.T) {
	g := newGroup[string](t, openFleet(t, redisrig.Start(t)), "g")
	began, release := make(chan struct{}), make(chan struct{})
	leader := calling(context.Background(), g, "k", func(context.Context) (string, error) {
		close(began)
		<-release
		return "", context.Canceled
	})
	<-began
	leaving := &untold{}
	follower := calling(leaving, g, "k", value)
	eventually(t, "it waits", func() bool { return g.Stats().Local.Waiting == 2 })
	leaving.ended.Store(true)
	close(release)
	if got := comesBack(t, "the follower", follower); got.role != coalesce.LocalFollower || !errors.Is(got.err, context.Canceled) {
		t.Errorf("the follower has %+v", got)
	}
	if got := comesBack(t, "the leader", leader); !errors.Is(got.err, context.Canceled) {
		t.Errorf("the leader has %+v", got)
	}
}

// untold is a context that has ended before its Done says so.
type untold struct{ ended atomic.Bool }

func (*untold) Deadline() (time.Time, bool) { return time.Time{}, false }
func (*untold) Done() <-chan struct{}       { return make(chan struct{}) }
func (*untold) Value(any) any               { return nil }
func (c *untold) Err() error {
	if c.ended.Load() {
		return context.Canceled
	}
	return nil
}
