package shadow_test

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/distributed"
	"github.com/fleetcall/fleetcall/coalesce/shadow"
	"github.com/fleetcall/fleetcall/internal/rig/redisrig"
)

const replicas = 3

// recordedCall is a call of a recorded load.
type recordedCall struct {
	at      time.Duration
	replica int
	key     string
}

// record records a load of Poisson arrivals, spread evenly, of keys by Zipf's law with
// exponent 1.
func record(keys int, perSecond float64, length time.Duration) (calls []recordedCall) {
	random := rand.New(rand.NewPCG(1, 2))
	sums, sum := make([]float64, keys), 0.0
	for i := range sums {
		sum += 1 / float64(i+1)
		sums[i] = sum
	}
	for at := time.Duration(0); at < length; at += time.Duration(random.ExpFloat64() / perSecond * float64(time.Second)) {
		key, _ := slices.BinarySearch(sums, random.Float64()*sum)
		calls = append(calls, recordedCall{at, random.IntN(replicas), fmt.Sprint("key ", key)})
	}
	return calls
}

// play makes the calls of a load, each in its time, and returns how many functions ran, and
// how long their callers waited on average.
func play(t *testing.T, calls []recordedCall, groups []coalesce.Group[string]) (executions int64, wait time.Duration) {
	t.Helper()
	var ran, waited atomic.Int64
	var running sync.WaitGroup
	begun := time.Now()
	for _, c := range calls {
		time.Sleep(c.at - time.Since(begun)) // the load's own time
		running.Go(func() {
			own, came := false, time.Now()
			_, _, err := groups[c.replica].Do(context.Background(), c.key, func(context.Context) (string, error) {
				own = true
				time.Sleep(functionTakes)
				return "result", nil
			})
			if err != nil {
				t.Error(err)
			}
			if own {
				ran.Add(1)
				waited.Add(int64(time.Since(came)))
			}
		})
	}
	running.Wait()
	return ran.Load(), time.Duration(waited.Load() / max(ran.Load(), 1))
}

// functionTakes is long beside the stalls of a busy machine.
const functionTakes = 200 * time.Millisecond

// client is one as a program has it.
func client(t *testing.T, server *redisrig.Server) *redis.Client {
	c := redis.NewClient(&redis.Options{Addr: server.Addr})
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// The same recorded load is played to three replicas in shadow, and to three that
// coalesce: what the first predict is what the others save. Where a busy machine has
// flights last longer in one of the two than in the other, others overlap.
func TestThreeReplicasPredictWhatDistributedThenSaves(t *testing.T) {
	server := redisrig.Start(t)
	load := record(1000, 400, 10*time.Second)

	var fleets []*shadow.Fleet
	var watched []coalesce.Group[string]
	for range replicas {
		fleet, group := open(t, client(t, server))
		fleets, watched = append(fleets, fleet), append(watched, group)
	}
	for _, f := range fleets {
		eventually(t, "hearing all replicas", func() bool { st := f.Stats(); return st.Replicas == replicas && st.Seconds.Counted > 0 })
		f.ResetStats()
	}
	ran, lasted := play(t, load, watched)
	if ran != int64(len(load)) {
		t.Errorf("%d functions ran for %d calls: something was coalesced", ran, len(load))
	}
	var predicted, uncertain float64
	for i, f := range fleets {
		var st shadow.Stats
		eventually(t, "judged", func() bool { st = f.Stats().Groups["products"]; return st.Pending == 0 })
		predicted += float64(st.Requests) - st.Distributed.Executions
		uncertain += st.Distributed.ExecutionsError
		t.Logf("replica %d: %+v, %+v", i, st, f.Stats().Seconds)
		if st.Covered < 0.5 {
			t.Errorf("replica %d: only %.2f of the calls are covered: %+v", i, st.Covered, f.Stats().Seconds)
		}
	}

	var coalesced []coalesce.Group[string]
	for range replicas {
		fleet, err := distributed.Open(client(t, server), distributed.WithRedisTimeout(time.Second))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = fleet.Close(context.Background()) }()
		group, err := distributed.NewGroup[string](fleet, "products")
		if err != nil {
			t.Fatal(err)
		}
		coalesced = append(coalesced, group)
	}
	ran, last := play(t, load, coalesced)
	saved := float64(len(load)) - float64(ran)
	t.Logf("of %d calls, %.0f ± %.0f would have been saved, and %.0f were: %+.1f %%; flights of %v and %v", len(load), predicted, uncertain, saved, 100*(predicted/saved-1), lasted, last)
	if math.Abs(predicted/saved-1) > 0.05+math.Abs(float64(last)/float64(lasted)-1) {
		t.Errorf("%.0f ± %.0f would have been saved, and %.0f were", predicted, uncertain, saved)
	}
}

func TestAClusterConnectsTheReplicas(t *testing.T) {
	cluster := redisrig.StartCluster(t)
	var fleets []*shadow.Fleet
	for range 2 {
		fleet, _ := open(t, cluster.Client())
		fleets = append(fleets, fleet)
	}
	for _, f := range fleets {
		eventually(t, "hearing the other replica", func() bool { st := f.Stats(); return st.Replicas == 2 && st.Seconds.Counted > 1 })
	}
}

func TestFleetsOfOtherNamespacesAndDatabasesAreNotHeard(t *testing.T) {
	server := redisrig.Start(t)
	one, _ := open(t, client(t, server))
	_, _ = open(t, client(t, server), shadow.WithNamespace("other"))
	second := redis.NewClient(&redis.Options{Addr: server.Addr, DB: 1})
	t.Cleanup(func() { _ = second.Close() })
	_, _ = open(t, second)
	eventually(t, "counting", func() bool { return one.Stats().Seconds.Counted > 3 })
	if st := one.Stats(); st.Replicas != 1 {
		t.Errorf("%+v", st)
	}
}

// The rights that docs/redis.md gives are more than enough.
func TestPublishSubscribeAndTimeAreAllTheRightsThatItNeeds(t *testing.T) {
	server := redisrig.Start(t, redisrig.ACL("watcher reset on >secret resetchannels &fleetcall:shadow@* +publish +subscribe +ping +time")...)
	c := redis.NewClient(&redis.Options{Addr: server.Addr, Username: "watcher", Password: "secret", DisableIdentity: true})
	t.Cleanup(func() { _ = c.Close() })
	fleet, _ := open(t, c)
	eventually(t, "counting", func() bool { return fleet.Stats().Seconds.Counted > 1 })
}
