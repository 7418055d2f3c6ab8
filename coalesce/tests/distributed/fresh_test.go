package distributed_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/distributed"
	"github.com/fleetcall/fleetcall/internal/rig/redisrig"
)

// These are about callers who come when a function has ended, and before Redis knows of
// the end: they can join its flight, and must not get its result.

// ending has a leader whose function ends when release is closed, and whose replica tells
// Redis of the end when let is closed. ended is closed in between.
type ending struct {
	server              *redisrig.Server
	leader              <-chan answer[string]
	other               *replica[string] // has joined nothing yet
	release, let, ended chan struct{}
	joins               atomic.Int32 // of the other
}

func endingFlight(t *testing.T, err error, opts ...distributed.Option) *ending {
	t.Helper()
	e := &ending{server: redisrig.Start(t), release: make(chan struct{}), let: make(chan struct{}), ended: make(chan struct{})}
	ended := sync.OnceFunc(func() { close(e.ended) }) // a script that Redis has not is sent twice
	leader := &tap{t: t, server: e.server, before: func(script string, _ []any) error {
		if script == "finish" {
			ended()
			<-e.let
		}
		return nil
	}}
	other := &tap{t: t, server: e.server, after: func(script string, _ []any, _ any, _ time.Duration) {
		if script == "join" {
			e.joins.Add(1)
		}
	}}
	opts = append([]distributed.Option{distributed.WithLeaseTTL(calm), distributed.WithRedisTimeout(calm)}, opts...)
	a := wiredGroup[string](leader, opts...)
	e.other = wiredGroup[string](other, opts...)
	began := make(chan struct{})
	e.leader = calling(context.Background(), a.Group, "k", func(context.Context) (string, error) {
		close(began)
		<-e.release
		return "old", err
	})
	<-began
	return e
}

// call has a caller come on the other replica.
func (e *ending) call() <-chan answer[string] {
	return calling(context.Background(), e.other.Group, "k", func(context.Context) (string, error) { return "new", nil })
}

// joined waits until the other replica has joined n times.
func (e *ending) joined(t *testing.T, n int32) {
	t.Helper()
	eventually(t, "the other replica has joined", func() bool { return e.joins.Load() == n })
}

// itsOwn wants a caller to have run its function.
func itsOwn(t *testing.T, who string, got answer[string]) {
	t.Helper()
	if got.val != "new" || got.role != coalesce.Leader || got.err != nil {
		t.Errorf("%s has %+v", who, got)
	}
}

func TestWhoComesWhenAFunctionHasEndedGetsAFlightOfItsOwn(t *testing.T) {
	failed := errors.New("failed")
	for name, tt := range map[string]struct {
		err  error
		opts []distributed.Option
		old  bool // the caller may have the result all the same
	}{
		"by message":                {},
		"by notice":                 {opts: []distributed.Option{distributed.WithInlineLimit(1)}},
		"an error":                  {err: failed},
		"an error, with MaxAge":     {err: failed, opts: []distributed.Option{distributed.WithMaxAge(time.Hour)}},
		"by message, within MaxAge": {opts: []distributed.Option{distributed.WithMaxAge(time.Hour)}, old: true},
		"by notice, within MaxAge":  {opts: []distributed.Option{distributed.WithMaxAge(time.Hour), distributed.WithInlineLimit(1)}, old: true},
		"by message, past MaxAge":   {opts: []distributed.Option{distributed.WithMaxAge(time.Millisecond)}},
	} {
		t.Run(name, func(t *testing.T) {
			e := endingFlight(t, tt.err, tt.opts...)
			close(e.release)
			<-e.ended
			time.Sleep(2 * time.Millisecond) // more than the one MaxAge
			late := e.call()
			e.joined(t, 1)
			close(e.let)
			got := comesBack(t, "the late caller", late)
			if !tt.old {
				itsOwn(t, "the late caller", got)
			} else if got.val != "old" || got.role != coalesce.RemoteFollower || got.err != nil {
				t.Errorf("the late caller has %+v", got)
			}
			if n := e.other.Stats().Distributed.Takeovers; n != 0 {
				t.Errorf("%d takeovers: nobody died", n)
			}
			comesBack(t, "the leader", e.leader)
		})
	}
}

// TestAJoinThatWasLongOnItsWayIsOneOfWhoCameLate has a caller come before the function's
// end, and its join be carried out after it: nobody can tell the two apart.
func TestAJoinThatWasLongOnItsWayIsOneOfWhoCameLate(t *testing.T) {
	e := endingFlight(t, nil)
	onWay, arrives := make(chan struct{}), make(chan struct{})
	var joins atomic.Int32
	slow := wiredGroup[string](&tap{t: t, server: e.server, before: func(script string, _ []any) error {
		if script == "join" && joins.Add(1) == 1 {
			close(onWay)
			<-arrives
		}
		return nil
	}}, distributed.WithLeaseTTL(calm), distributed.WithRedisTimeout(calm))
	late := calling(context.Background(), slow.Group, "k", func(context.Context) (string, error) { return "new", nil })
	<-onWay
	close(e.release)
	<-e.ended
	close(arrives)
	waitJoined(t, e.server, "test", "k")
	close(e.let)
	itsOwn(t, "who came late", comesBack(t, "who came late", late))
	comesBack(t, "the leader", e.leader)
}

// TestWhoComesToAFollowersReplicaWhenTheFunctionHasEndedGetsAFlightOfItsOwn has a first
// caller that follows, and a second that joins the first one's local flight too late.
func TestWhoComesToAFollowersReplicaWhenTheFunctionHasEndedGetsAFlightOfItsOwn(t *testing.T) {
	for name, opts := range map[string][]distributed.Option{"by message": nil, "by notice": {distributed.WithInlineLimit(1)}} {
		t.Run(name, func(t *testing.T) {
			e := endingFlight(t, nil, opts...)
			first := e.call()
			waitJoined(t, e.server, "test", "k")
			close(e.release)
			<-e.ended
			second := e.call()
			eventually(t, "two wait", func() bool { return e.other.Stats().Local.Waiting == 2 })
			close(e.let)
			if got := comesBack(t, "the first", first); got.val != "old" || got.role != coalesce.RemoteFollower || got.err != nil {
				t.Errorf("the first has %+v", got)
			}
			itsOwn(t, "the second", comesBack(t, "the second", second))
			comesBack(t, "the leader", e.leader)
		})
	}
}

// TestAFollowerOfAFlightWhoseLeaseRedisLostWaitsForThatFlight has Redis lose a lease, and
// another flight take the key. The follower looks before the lease was due, and after.
func TestAFollowerOfAFlightWhoseLeaseRedisLostWaitsForThatFlight(t *testing.T) {
	t.Parallel()
	const ttl = 600 * time.Millisecond
	server := redisrig.Start(t)
	client, ctx := server.Client(), context.Background()
	opts := []distributed.Option{distributed.WithLeaseTTL(ttl)}
	taken := make(chan struct{}) // by the second
	var renewals atomic.Int32
	a := wiredGroup[string](&tap{t: t, server: server, before: func(script string, _ []any) error {
		if script == "renew" {
			<-taken
			renewals.Add(1)
		}
		return nil
	}}, opts...)
	var peeks atomic.Int32
	b := wiredGroup[string](&tap{t: t, server: server, before: func(script string, _ []any) error {
		if script == "peek" {
			if peeks.Load() == 0 { // it has subscribed
				client.Del(ctx, "fleetcall:test:{k}:lease")
			}
			peeks.Add(1)
		}
		return nil
	}}, opts...)
	c := wiredGroup[string](&tap{t: t, server: server}, opts...)
	hold := func(g *replica[string], val string) (_, _ chan struct{}, caller <-chan answer[string]) {
		began, end := make(chan struct{}), make(chan struct{})
		return began, end, calling(ctx, g.Group, "k", func(context.Context) (string, error) { close(began); <-end; return val, nil })
	}
	began, endFirst, first := hold(a, "first")
	<-began
	follower := calling(ctx, b.Group, "k", func(context.Context) (string, error) { return "its own", nil })
	eventually(t, "the follower has looked", func() bool { return peeks.Load() == 1 })
	began, endSecond, second := hold(c, "second")
	<-began
	close(taken)
	eventually(t, "the lease that the follower saw was due long ago", func() bool { return renewals.Load() >= 7 })
	close(endFirst)
	if got := comesBack(t, "the follower", follower); got.val != "first" || got.role != coalesce.RemoteFollower || got.err != nil {
		t.Errorf("the follower has %+v", got)
	}
	close(endSecond)
	comesBack(t, "the first", first)
	comesBack(t, "the second", second)
}
