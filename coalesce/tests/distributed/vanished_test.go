package distributed_test

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/distributed"
)

// TestFollowersOfAFlightThatLostItsLeaseStay has Redis lose a lease that was renewed twice, and
// the leader be late with the next renewal. The lease that the follower saw has run out
// by then; Redis still has the flight among the attempts, and that it is not due.
func TestFollowersOfAFlightThatLostItsLeaseStay(t *testing.T) {
	t.Parallel()
	const leaseTTL = 3 * time.Second
	ctx := context.Background()
	f := newFleet[string](t, 1, distributed.WithLeaseTTL(leaseTTL))
	client := f.client()
	var renewals atomic.Int64
	again := make(chan struct{})
	leads := wiredGroup[string](&tap{
		t: t, server: f.server,
		before: func(script string, _ []any) error {
			if script == "renew" && renewals.Load() == 2 {
				time.Sleep(leaseTTL / 6) // the renewal is late
			}
			return nil
		},
		after: func(script string, _ []any, _ any, _ time.Duration) {
			if script != "renew" {
				return
			}
			switch renewals.Add(1) {
			case 2:
				client.Del(ctx, "fleetcall:test:{k}:lease")
			case 3:
				close(again)
			}
		},
	}, distributed.WithLeaseTTL(leaseTTL))
	began, end := make(chan struct{}), make(chan struct{})
	leader := calling(ctx, leads.Group, "k", func(context.Context) (string, error) {
		close(began)
		<-end
		return "the leader's", nil
	})
	<-began
	follower := calling(ctx, f.groups[0].Group, "k", func(context.Context) (string, error) { return "its own", nil })
	f.waitFollowers("k", 1)
	<-again
	close(end)
	for who, call := range map[string]<-chan answer[string]{"the leader": leader, "the follower": follower} {
		if got := comesBack(t, who, call); got.val != "the leader's" {
			t.Errorf("%s of a flight that lives: %+v", who, got)
		}
	}
}

// TestAFlightThatLostItsLeaseTakesItAgainWhenTheNextHasEnded has another flight lead, and
// end, before the first one renews its lease.
func TestAFlightThatLostItsLeaseTakesItAgainWhenTheNextHasEnded(t *testing.T) {
	t.Parallel()
	const leaseTTL = 3 * time.Second
	ctx := context.Background()
	f := newFleet[string](t, 3, distributed.WithLeaseTTL(leaseTTL))
	client := f.client()
	began, end := make(chan struct{}), make(chan struct{})
	first := calling(ctx, f.groups[0].Group, "k", func(context.Context) (string, error) {
		close(began)
		<-end
		return "the first's", nil
	})
	<-began
	client.Del(ctx, "fleetcall:test:{k}:lease")
	next := func(context.Context) (string, error) { return "the next one's", nil }
	if got := comesBack(t, "the next one", calling(ctx, f.groups[1].Group, "k", next)); got.role != coalesce.Leader {
		t.Fatalf("the next one: %+v", got)
	}
	eventually(t, "the first has its lease again", func() bool {
		return strings.Contains(client.Get(ctx, "fleetcall:test:{k}:lease").Val(), " replica-0")
	})
	third := calling(ctx, f.groups[2].Group, "k", next)
	f.waitFollowers("k", 1)
	close(end)
	for who, call := range map[string]<-chan answer[string]{"the first": first, "the third": third} {
		if got := comesBack(t, who, call); got.val != "the first's" {
			t.Errorf("%s: %+v", who, got)
		}
	}
}

// TestAJoinIsGivenUpThoughRedisReadsItAfterMoreThanALease has Redis hang with a join in
// its socket: nobody would renew the lease that this takes.
func TestAJoinIsGivenUpThoughRedisReadsItAfterMoreThanALease(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	f := newFleet[string](t, 2, distributed.WithLeaseTTL(500*time.Millisecond), distributed.WithRedisTimeout(100*time.Millisecond))
	client, g := f.client(), f.groups[1] // whose client does not close the connection
	eventually(t, "it leads", func() bool {
		_, role, _ := g.Do(ctx, "before", value)
		return role == coalesce.Leader
	})
	client.Do(ctx, "CLIENT", "PAUSE", "2000", "ALL")
	if _, role, err := g.Do(ctx, "k", value); err != nil || role != coalesce.Fallback {
		t.Fatalf("while Redis hangs: %v, %v", role, err)
	}
	eventually(t, "the flight is given up", func() bool { return len(client.Keys(ctx, "fleetcall:test:{k}:over:*").Val()) == 1 })
	if left := client.Exists(ctx, "fleetcall:test:{k}:lease", "fleetcall:test:{k}:attempts").Val(); left > 0 {
		t.Error("its lease, or its attempt, is left")
	}
}
