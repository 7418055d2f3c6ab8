package distributed_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/coalescetest"
	"github.com/fleetcall/fleetcall/coalesce/distributed"
	"github.com/fleetcall/fleetcall/internal/rig/redisrig"
)

// settling is a hook that knows which flights of a replica have found their place in
// the fleet: they follow, or their function runs.
type settling struct {
	mu      sync.Mutex
	flights map[*atomic.Bool]struct{}
	slowest *atomic.Int64 // how long it took a flight of the fleet to find its place
	last    int           // what waiting saw, and since when
	since   time.Time
}

type settlingKey struct{}

func (s *settling) Flight(ctx context.Context, _ distributed.FlightStart) (context.Context, string, func(distributed.Flight)) {
	settled, began := new(atomic.Bool), time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.flights[settled] = struct{}{}
	settle := func() {
		settled.Store(true)
		for took := int64(time.Since(began)); ; {
			if slowest := s.slowest.Load(); took <= slowest || s.slowest.CompareAndSwap(slowest, took) {
				return
			}
		}
	}
	return context.WithValue(ctx, settlingKey{}, settle), "", func(distributed.Flight) {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.flights, settled)
	}
}

func (s *settling) Followed(ctx context.Context, _ distributed.Followed) { settle(ctx) }

func (s *settling) Run(ctx context.Context, _ distributed.Run) (context.Context, func(error)) {
	settle(ctx)
	return ctx, func(error) {}
}

func settle(ctx context.Context) { ctx.Value(settlingKey{}).(func())() }

// settlingGroup is a replica's Group that knows how many callers have settled.
type settlingGroup struct {
	*distributed.Group[string]
	hook *settling
}

// waiting returns how many callers wait, or -1 while one has not settled. A replica knows
// what Redis' clock shows but for the time that a reply took: so callers have to be there
// for a while before their flight is certain to have run when they joined.
func (g settlingGroup) waiting() int {
	g.hook.mu.Lock()
	defer g.hook.mu.Unlock()
	local := g.Totals().Local
	if int(local.ActiveFlights) != len(g.hook.flights) {
		return -1 // the hook has yet to be told of one's begin, or has been told of its end
	}
	for settled := range g.hook.flights {
		if !settled.Load() {
			return -1
		}
	}
	if n := int(local.Waiting); n != g.hook.last {
		g.hook.last, g.hook.since = n, time.Now()
	}
	if there := time.Since(g.hook.since); there < 2*time.Duration(g.hook.slowest.Load())+10*time.Millisecond {
		return -1
	}
	return g.hook.last
}

// exercise holds the Groups of fleets that connect so to the conformance suite.
func exercise(t *testing.T, connect func(t *testing.T) redis.UniversalClient) {
	var fleets atomic.Int64
	coalescetest.Exercise(t, coalescetest.Harness{
		Merges: true, Fleet: true,
		Replicas: func(t *testing.T, n int) []coalesce.Group[string] {
			namespace := fmt.Sprint("exercise-", fleets.Add(1))
			groups, slowest := make([]coalesce.Group[string], n), new(atomic.Int64)
			for i := range groups {
				client, hook := connect(t), &settling{flights: map[*atomic.Bool]struct{}{}, slowest: slowest}
				f, err := distributed.Open(client, distributed.WithNamespace(namespace), distributed.WithHooks(hook),
					distributed.WithRedisTimeout(calm), distributed.WithLeaseTTL(calm))
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() {
					ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
					defer cancel()
					if err := f.Close(ctx); err != nil {
						t.Errorf("Close: %v", err)
					}
					_ = client.Close()
				})
				groups[i] = settlingGroup{newGroup[string](t, f, "exercise"), hook}
			}
			return groups
		},
		Waiting: func(g coalesce.Group[string]) int { return g.(settlingGroup).waiting() },
	})
}

func TestGroupsOnOneServerPassTheConformanceSuite(t *testing.T) {
	t.Parallel()
	server := redisrig.Start(t)
	exercise(t, func(*testing.T) redis.UniversalClient {
		return redis.NewClient(&redis.Options{Addr: server.Addr, ContextTimeoutEnabled: true})
	})
}

func TestGroupsOnAClusterPassTheConformanceSuite(t *testing.T) {
	t.Parallel()
	cluster := redisrig.StartCluster(t)
	exercise(t, func(*testing.T) redis.UniversalClient { return onCluster(cluster)() })
}

func TestGroupsOnSentinelPassTheConformanceSuite(t *testing.T) {
	t.Parallel()
	sentinel := redisrig.StartSentinel(t)
	exercise(t, func(*testing.T) redis.UniversalClient { return onSentinel(sentinel)() })
}
