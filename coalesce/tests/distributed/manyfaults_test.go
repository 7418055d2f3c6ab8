package distributed_test

import (
	"context"
	"errors"
	"math"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/distributed"
)

// TestWhoTakesABatchOverCallsItsFunctionOnce has a leader die, and one of its leases run out
// later than the others, as those do that are renewed in another command.
func TestWhoTakesABatchOverCallsItsFunctionOnce(t *testing.T) {
	t.Parallel()
	const leaseTTL = 3 * time.Second
	f := newFleet[string](t, 2, distributed.WithLeaseTTL(leaseTTL))
	keys := numbered("k", 20)
	client := redis.NewClient(&redis.Options{Addr: f.server.Addr})
	doomed := openCalm[string](t, client, distributed.WithLeaseTTL(leaseTTL))
	fn := newBatchFn()
	ctx, cancel := context.WithCancel(context.Background())
	dead := doMany(ctx, doomed, keys, fn.run)
	defer func() {
		cancel()
		close(fn.release)
		<-dead
		_ = doomed.Close(ctx) // its client is closed
	}()
	<-fn.began
	_ = client.Close()

	joined := f.joins.Load()
	calls := make(chan []string, 100)
	all := int64(len(keys))
	var followers []<-chan batchResult
	for _, g := range f.groups {
		followers = append(followers, doMany(context.Background(), g, keys, func(_ context.Context, keys []string) (map[string]string, error) {
			calls <- keys
			eventually(t, "the other replica has joined again", func() bool { return f.joins.Load() == joined+4*all })
			time.Sleep(onItsWay)
			return allOf(keys), nil
		}))
	}
	eventually(t, "all follow", func() bool { return f.joins.Load() == joined+2*all })
	late := "fleetcall:test:{" + keys[7] + "}:lease"
	if !f.client().PExpire(context.Background(), late, f.client().PTTL(context.Background(), late).Val()+leaseTTL/6).Val() {
		t.Error("there is no lease")
	}
	roles := map[coalesce.Role]int{}
	for _, follower := range followers {
		got := <-follower
		roles[got.results[keys[0]].Role]++
		got.wantRoles(t, keys, got.results[keys[0]].Role)
	}
	if got := <-calls; !slices.Equal(got, keys) || len(calls) > 0 {
		t.Errorf("the function was called for %q, and %d more times", got, len(calls))
	}
	if roles[coalesce.Leader] != 1 || roles[coalesce.RemoteFollower] != 1 {
		t.Errorf("roles %v", roles)
	}
}

func TestABatchThatRedisDoesNotAnswerFallsBackTogether(t *testing.T) {
	t.Parallel()
	keys := numbered("k", 200)
	client := redis.NewClient(&redis.Options{Addr: "127.0.0.1:1", MaxRetries: -1}) // nobody listens there
	g, err := open[string](client)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	defer g.Close(context.Background())
	var mu sync.Mutex
	var calls [][]string
	got := <-doMany(context.Background(), g, keys, func(_ context.Context, keys []string) (map[string]string, error) {
		mu.Lock()
		defer mu.Unlock()
		calls = append(calls, keys)
		return allOf(keys), nil
	})
	got.wantRoles(t, keys, coalesce.Fallback)
	if len(calls) != 1 || !slices.Equal(calls[0], keys) {
		t.Errorf("%d calls of the function", len(calls))
	}
	closed := g.With(distributed.WithFailClosed())
	for key, r := range (<-doMany(context.Background(), closed, keys, nil)).results {
		if !errors.Is(r.Err, coalesce.ErrUnavailable) {
			t.Errorf("%s, failing closed: %+v", key, r)
		}
	}
}

// keeping is a codec that keeps one value until it is released.
type keeping struct {
	coalesce.Codec[string]
	release chan struct{}
}

func (s keeping) Marshal(v string) ([]byte, error) {
	if v == "of stuck" {
		<-s.release
	}
	return s.Codec.Marshal(v)
}

// TestACodecThatIsStuckHoldsUpNoOtherKeyOfItsBatch has the first key's result be the one.
func TestACodecThatIsStuckHoldsUpNoOtherKeyOfItsBatch(t *testing.T) {
	t.Parallel()
	codec := keeping{coalesce.JSON[string](), make(chan struct{})}
	f := newFleet[string](t, 2, distributed.WithCodec(codec), distributed.WithLeaseTTL(calm))
	keys := append([]string{"first", "stuck"}, numbered("k", 5)...)
	fn := newBatchFn()
	leader := doMany(context.Background(), f.groups[0], keys, fn.run)
	<-fn.began
	others := slices.DeleteFunc(slices.Clone(keys), func(key string) bool { return key == "stuck" })
	joined := f.joins.Load()
	follower := doMany(context.Background(), f.groups[1], others, nil)
	eventually(t, "it has joined", func() bool { return f.joins.Load() == joined+int64(len(others)) })
	for _, key := range others {
		f.waitSubscribers(key, 1)
	}
	close(fn.release)
	(<-leader).wantRoles(t, keys, coalesce.Leader)
	(<-follower).wantRoles(t, others, coalesce.RemoteFollower)
	close(codec.release)
	f.quiet()
}

// TestABatchWhoseKeysAreBeingReleasedWaitsForAllOfThem has the same caller call again before
// Redis has the end of its flights: its function is called once all the same.
func TestABatchWhoseKeysAreBeingReleasedWaitsForAllOfThem(t *testing.T) {
	t.Parallel()
	f := newFleet[string](t, 1, distributed.WithLeaseTTL(3*calm)) // a wave waits for a third of it
	keys := numbered("k", 50)
	f.failFinishes.Store(math.MaxInt64) // they are sent again: on a busy machine in several commands
	(<-doMany(context.Background(), f.groups[0], keys, atOnce)).wantRoles(t, keys, coalesce.Leader)
	again := doMany(context.Background(), f.groups[0], keys, atOnce)
	eventually(t, "it has joined", func() bool { return f.joins.Load() >= int64(2*len(keys)) })
	f.failFinishes.Store(0)
	(<-again).wantRoles(t, keys, coalesce.Leader)
	if s := f.groups[0].Stats().Distributed; s.BatchRuns != 2 || s.BatchKeys != 100 {
		t.Errorf("counted as %+v", s.TierStats)
	}
}
