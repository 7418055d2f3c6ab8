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
}

type settlingKey struct{}

func (s *settling) Flight(ctx context.Context, _ distributed.FlightStart) (context.Context, string, func(distributed.Flight)) {
	settled := new(atomic.Bool)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.flights[settled] = struct{}{}
	return context.WithValue(ctx, settlingKey{}, settled), "", func(distributed.Flight) {
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

func settle(ctx context.Context) { ctx.Value(settlingKey{}).(*atomic.Bool).Store(true) }

// settlingGroup is a replica's Group that knows how many callers have settled.
type settlingGroup struct {
	*distributed.Group[string]
	hook *settling
}

// waiting returns how many callers wait, or -1 while one has not settled.
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
	return int(local.Waiting)
}

// exercise holds the Groups of fleets that connect so to the conformance suite.
func exercise(t *testing.T, connect func(t *testing.T) redis.UniversalClient) {
	var fleets atomic.Int64
	coalescetest.Exercise(t, coalescetest.Harness{
		Merges: true, Fleet: true,
		Replicas: func(t *testing.T, n int) []coalesce.Group[string] {
			namespace := fmt.Sprint("exercise-", fleets.Add(1))
			groups := make([]coalesce.Group[string], n)
			for i := range groups {
				client, hook := connect(t), &settling{flights: map[*atomic.Bool]struct{}{}}
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
	server := redisrig.Start(t)
	exercise(t, func(*testing.T) redis.UniversalClient {
		return redis.NewClient(&redis.Options{Addr: server.Addr, ContextTimeoutEnabled: true})
	})
}

func TestGroupsOnAClusterPassTheConformanceSuite(t *testing.T) {
	dialsEnd(t)
	cluster := redisrig.StartCluster(t)
	exercise(t, func(*testing.T) redis.UniversalClient { return onCluster(cluster)() })
}

func TestGroupsOnSentinelPassTheConformanceSuite(t *testing.T) {
	dialsEnd(t)
	sentinel := redisrig.StartSentinel(t)
	exercise(t, func(*testing.T) redis.UniversalClient { return onSentinel(sentinel)() })
}
