package distributed_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/distributed"
	"github.com/fleetcall/fleetcall/internal/rig/redisrig"
)

// replicas are Groups on more than one Redis server, each with its own client.
type replicas struct {
	t         testing.TB
	groups    []*replica[string]
	joins     atomic.Int64 // that Redis has answered
	fallbacks atomic.Int64 // functions run without a lease
	finishes  atomic.Int64 // that failed
}

// Command makes replicas a distributed.Observer.
func (r *replicas) Command(c distributed.Command) {
	switch {
	case c.Step == "join" && c.Kind == "":
		r.joins.Add(1)
	case c.Step == "finish" && c.Kind != "":
		r.finishes.Add(1)
	}
}

// Run makes replicas a distributed.Observer.
func (r *replicas) Run(ctx context.Context, run distributed.Run) (context.Context, func(error)) {
	if run.Role == coalesce.Fallback {
		r.fallbacks.Add(1)
	}
	return ctx, func(error) {}
}

const replicaCount = 3

// newReplicas makes three Groups, each with a client of its own.
func newReplicas(t testing.TB, connect func() redis.UniversalClient, opts ...distributed.Option) *replicas {
	t.Helper()
	r := &replicas{t: t}
	for i := range replicaCount {
		client := connect()
		g := openCalm[string](t, client, append([]distributed.Option{
			distributed.WithReplicaID(fmt.Sprint("replica-", i)), distributed.WithHooks(r),
		}, opts...)...)
		t.Cleanup(func() {
			ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
			defer cancel()
			if err := g.Close(ctx); err != nil {
				t.Errorf("Close: %v", err)
			}
			_ = client.Close()
		})
		r.groups = append(r.groups, g)
	}
	return r
}

// onCluster returns how a replica connects, with the options that the program
// sets.
func onCluster(cluster *redisrig.Cluster) func() redis.UniversalClient {
	return func() redis.UniversalClient {
		return redis.NewClusterClient(&redis.ClusterOptions{
			Addrs: cluster.Addrs(), MaxRetries: -1, DialerRetries: 1, ContextTimeoutEnabled: true, DisableIdentity: true,
			MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
		})
	}
}

// flights are what became of one call on each replica for each key.
type flights struct {
	answers map[string][]answer[string]
	runs    map[string]int
}

// held are flights whose functions wait for release.
type held struct {
	release func()
	wait    func() flights
}

// hold has every replica ask for every key at the same time, and returns when
// every call has joined a flight, or runs its own. A key's function returns
// what fn does.
func (r *replicas) hold(keys []string, fn func(key string) (string, error)) held {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	settled := r.joins.Load() + r.fallbacks.Load() + int64(len(keys)*len(r.groups))
	f := flights{answers: map[string][]answer[string]{}, runs: map[string]int{}}
	released := make(chan struct{})
	var mu sync.Mutex
	var wg sync.WaitGroup
	for _, key := range keys {
		for _, g := range r.groups {
			wg.Go(func() {
				var a answer[string]
				a.val, a.role, a.err = g.Do(ctx, key, func(context.Context) (string, error) {
					mu.Lock()
					f.runs[key]++
					mu.Unlock()
					<-released
					return fn(key)
				})
				mu.Lock()
				defer mu.Unlock()
				f.answers[key] = append(f.answers[key], a)
			})
		}
	}
	eventually(r.t, "every call has joined", func() bool { return r.joins.Load()+r.fallbacks.Load() >= settled })
	return held{release: sync.OnceFunc(func() { time.Sleep(onItsWay); close(released) }), wait: func() flights {
		defer cancel()
		wg.Wait()
		return f
	}}
}

// end lets the functions return, and waits until every caller has its answer.
func (h held) end() flights {
	h.release()
	return h.wait()
}

// shared says which key was not run once, with its outcome given to the others.
func (f flights) shared() error {
	for key, answers := range f.answers {
		if n := roles(answers); f.runs[key] != 1 || n[coalesce.Leader] != 1 || n[coalesce.RemoteFollower] != len(answers)-1 {
			return fmt.Errorf("%s: %d executions, roles %v, %+v", key, f.runs[key], n, answers)
		}
	}
	return nil
}

// answered says which caller did not get its key's value, or what was run more
// often than once by each replica.
func (f flights) answered() error {
	for key, answers := range f.answers {
		for _, a := range answers {
			if a.err != nil || a.val != "v" {
				return fmt.Errorf("%s: %+v", key, a)
			}
		}
		if f.runs[key] > replicaCount {
			return fmt.Errorf("%s: %d executions", key, f.runs[key])
		}
	}
	return nil
}

func theValue(string) (string, error) { return "v", nil }

func (r *replicas) redisErrors() (n uint64) {
	for _, g := range r.groups {
		n += g.Stats().Distributed.RedisErrors
	}
	return n
}

// recovers waits until flights of these keys are shared by all replicas again,
// and every server is up.
func (r *replicas) recovers(keys []string) {
	r.t.Helper()
	var err error
	deadline := time.Now().Add(30 * time.Second)
	for {
		f := r.hold(keys, theValue).end()
		if err = f.answered(); err != nil {
			r.t.Error(err)
			return
		}
		err = f.shared()
		for _, g := range r.groups {
			if server := g.Stats().Distributed.Server; server != distributed.ServerUp && err == nil {
				err = errors.New("the server is down")
			}
		}
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			r.t.Errorf("flights are not shared again: %v", err)
			return
		}
	}
}

// load calls on all replicas until it is stopped, and fails the test when a
// caller gets anything but a value.
func (r *replicas) load(keys []string) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for _, g := range r.groups {
		for worker := range 4 {
			wg.Go(func() {
				for i := worker; ctx.Err() == nil; i++ {
					v, _, err := g.Do(context.Background(), keys[i%len(keys)], func(context.Context) (string, error) {
						time.Sleep(5 * time.Millisecond) // the work
						return "v", nil
					})
					if v != "v" || err != nil {
						r.t.Errorf("under load: %q, %v", v, err)
						return
					}
				}
			})
		}
	}
	return func() {
		cancel()
		wg.Wait()
	}
}

func manyKeys(n int) []string {
	keys := make([]string, n)
	for i := range keys {
		keys[i] = fmt.Sprint("key-", i)
	}
	return keys
}
