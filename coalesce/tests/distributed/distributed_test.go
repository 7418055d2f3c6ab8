package distributed_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"
	"go.uber.org/goleak"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/distributed"
	"github.com/fleetcall/fleetcall/internal/rig/redisrig"
)

func TestMain(m *testing.M) {
	logging.Disable() // what it says, the tests assert
	goleak.VerifyTestMain(afterDials{m})
}

// afterDials waits, when all tests have ended, for attempts to connect to servers that were
// killed: go-redis sleeps a second between them, though it was closed.
type afterDials struct{ tests goleak.TestingM }

func (a afterDials) Run() int {
	code := a.tests.Run()
	for deadline := time.Now().Add(patience); code == 0 && goleak.Find() != nil && time.Now().Before(deadline); {
	}
	return code
}

// fleet is several replicas in one process, each with its own connections.
type fleet[V any] struct {
	t      testing.TB
	server *redisrig.Server
	groups []*replica[V]
	joins  atomic.Int64 // that Redis has answered
	// finishes to fail before they are sent
	failFinishes atomic.Int64
}

// DialHook makes fleet a redis.Hook.
func (f *fleet[V]) DialHook(next redis.DialHook) redis.DialHook { return next }

// ProcessHook makes fleet a redis.Hook that counts joins and fails finishes.
func (f *fleet[V]) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if f.fails(cmd) {
			return cmd.Err()
		}
		err := next(ctx, cmd)
		if err == nil { // the client tells cmd only afterwards
			f.count(cmd)
		}
		return err
	}
}

// ProcessPipelineHook makes fleet a redis.Hook: scripts that come together are
// sent together.
func (f *fleet[V]) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		sent := slices.DeleteFunc(slices.Clone(cmds), f.fails)
		err := next(ctx, sent)
		for _, cmd := range sent {
			f.count(cmd)
		}
		return err
	}
}

// fails fails a finish that is to fail.
func (f *fleet[V]) fails(cmd redis.Cmder) bool {
	if scriptOf(cmd) == "finish" && f.failFinishes.Add(-1) >= 0 {
		cmd.SetErr(errors.New("broken pipe"))
		return true
	}
	return false
}

func (f *fleet[V]) count(cmd redis.Cmder) {
	if cmd.Err() == nil && scriptOf(cmd) == "join" {
		f.joins.Add(int64(callersKeys(cmd)))
	}
}

func newFleet[V any](t testing.TB, replicas int, opts ...distributed.Option) *fleet[V] {
	t.Helper()
	f := &fleet[V]{t: t, server: redisrig.Start(t)}
	for range replicas {
		f.join(opts...)
	}
	f.waitSubscribed(replicas)
	return f
}

func (f *fleet[V]) join(opts ...distributed.Option) *replica[V] {
	f.t.Helper()
	// Every other replica's callers send their commands themselves.
	client := redis.NewClient(&redis.Options{Addr: f.server.Addr, ContextTimeoutEnabled: len(f.groups)%2 == 0,
		DialTimeout: patience, ReadTimeout: patience, WriteTimeout: patience, PoolTimeout: patience})
	client.AddHook(f)
	// A busy machine is no outage: tests of those say what a timeout is.
	g := openCalm[V](f.t, client, append([]distributed.Option{distributed.WithReplicaID(fmt.Sprintf("replica-%d", len(f.groups)))}, opts...)...)
	f.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := g.Close(ctx); err != nil {
			f.t.Errorf("Close: %v", err)
		}
		_ = client.Close()
	})
	f.groups = append(f.groups, g)
	return g
}

func (f *fleet[V]) client() *redis.Client {
	client := redis.NewClient(&redis.Options{Addr: f.server.Addr, ReadTimeout: patience})
	f.t.Cleanup(func() { _ = client.Close() })
	return client
}

// waitSubscribed waits until every replica has its control channel and the
// scripts are loaded, so that what a test counts is what it does itself.
func (f *fleet[V]) waitSubscribed(replicas int) {
	f.t.Helper()
	client := f.client()
	eventually(f.t, "every replica is subscribed", func() bool { return len(controlChannels("fleetcall", client)) == replicas })
}

// controlChannels returns the control channels of the Fleets of a namespace that have
// subscribed to theirs, on one server or on the nodes of a Cluster.
func controlChannels(namespace string, nodes ...*redis.Client) (all []string) {
	for _, node := range nodes {
		all = append(all, node.PubSubChannels(context.Background(), namespace+":control:*").Val()...)
	}
	return all
}

// patience is for what happens soon, unless the machine is very busy.
const patience = time.Minute

// eventually polls what no event announces to a test.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); {
		if time.Now().After(deadline) {
			t.Errorf("did not happen within %v: %s", patience, what) // not Fatal: functions of flights call it too
			return
		}
		time.Sleep(time.Millisecond)
	}
}

type answer[V any] struct {
	val  V
	role coalesce.Role
	err  error
}

// herd makes callers calls on every replica at once.
func (f *fleet[V]) herd(ctx context.Context, callers int, key string, fn func(context.Context) (V, error)) []answer[V] {
	answers := make([]answer[V], callers*len(f.groups))
	var wg sync.WaitGroup
	for i := range answers {
		wg.Go(func() {
			a := &answers[i]
			a.val, a.role, a.err = f.groups[i%len(f.groups)].Do(ctx, key, fn)
		})
	}
	wg.Wait()
	return answers
}

// overlapping is herd with calls that certainly overlap: the function of the
// first flight does not run before every caller has come and every replica has
// joined.
func (f *fleet[V]) overlapping(callers int, key string, fn func(context.Context) (V, error)) []answer[V] {
	requests := func() (n uint64) {
		for _, g := range f.groups {
			n += g.Stats().Local.Requests
		}
		return n
	}
	came := requests() + uint64(callers*len(f.groups))
	joined := f.joins.Load() + int64(len(f.groups))
	began := time.Now()
	return f.herd(context.Background(), callers, key, func(ctx context.Context) (V, error) {
		eventually(f.t, "all have joined", func() bool { return requests() >= came && f.joins.Load() >= joined })
		time.Sleep(max(onItsWay, 2*time.Since(began)))
		return fn(ctx)
	})
}

func roles[V any](answers []answer[V]) map[coalesce.Role]int {
	n := map[coalesce.Role]int{}
	for _, a := range answers {
		n[a.role]++
	}
	return n
}

// onItsWay is longer than a reply takes on its way. A function that ends sooner after a
// follower has joined may have ended before, for all that its replica knows of Redis'
// clock: then the follower joins anew.
const onItsWay = 50 * time.Millisecond

// waitFollowers waits until n flights of the local tiers have joined in Redis,
// as far as that can be seen from outside.
func (f *fleet[V]) waitFollowers(key string, n int) {
	f.t.Helper()
	client := f.client()
	eventually(f.t, "followers are subscribed", func() bool {
		subs, err := client.PubSubNumSub(context.Background(), "fleetcall:test:{"+key+"}@0").Result()
		return err == nil && subs["fleetcall:test:{"+key+"}@0"] >= int64(n)
	})
	time.Sleep(onItsWay)
}

// TestTotalsHaveEveryFlightUnderItsRole: what a flight was counted as for a moment
// would be a counter that goes down.
func TestTotalsHaveEveryFlightUnderItsRole(t *testing.T) {
	f := newFleet[string](t, 1)
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for n := range 500 {
				if _, _, err := f.groups[0].Do(context.Background(), fmt.Sprint(i, n), value); err != nil {
					t.Error(err)
				}
			}
		})
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	for more := true; more; {
		select {
		case <-done:
			more = false
		default:
		}
		if d := f.groups[0].Totals().Distributed; d.NoRole != 0 || d.Requests != d.Leaders+d.Followers+d.Cached+d.Fallbacks {
			t.Fatalf("%+v", d)
		}
	}
}

func TestOneExecutionForTheWholeFleet(t *testing.T) {
	t.Parallel()
	f := newFleet[string](t, 3)
	for flight := range 20 {
		var runs atomic.Int32
		answers := f.overlapping(100, "k", func(context.Context) (string, error) {
			runs.Add(1)
			return fmt.Sprint("result ", flight), nil
		})
		if n := runs.Load(); n != 1 {
			t.Fatalf("flight %d: %d executions", flight, n)
		}
		for _, a := range answers {
			if a.err != nil || a.val != fmt.Sprint("result ", flight) {
				t.Fatalf("flight %d: %+v", flight, a)
			}
		}
		if n := roles(answers); n[coalesce.Leader] != 1 || n[coalesce.RemoteFollower] != 2 || n[coalesce.LocalFollower] != 297 {
			t.Fatalf("flight %d: roles %v", flight, n)
		}
	}
	var sum tierStats
	for _, g := range f.groups {
		s := g.Stats().Distributed
		sum.Requests += s.Requests
		sum.Leaders += s.Leaders
		sum.Followers += s.Followers
		sum.Fallbacks += s.Fallbacks
		sum.Errors += s.Errors
		sum.RedisErrors += s.RedisErrors
		if s.ActiveFlights != 0 {
			t.Errorf("active flights: %d", s.ActiveFlights)
		}
	}
	if sum.Requests != 60 || sum.Leaders != 20 || sum.Followers != 40 || sum.Fallbacks+sum.Errors+sum.RedisErrors != 0 {
		t.Errorf("stats: %+v", sum)
	}
}

var errKnown = errors.New("known to every replica")

func init() { coalesce.RegisterError("distributed_test.errKnown", errKnown) }

func TestAnErrorReachesEveryReplicaOnceAndKeepsItsIdentity(t *testing.T) {
	f := newFleet[string](t, 3)
	var runs atomic.Int32
	answers := f.overlapping(10, "k", func(context.Context) (string, error) {
		runs.Add(1)
		f.waitFollowers("k", 2)
		return "", fmt.Errorf("row 7: %w", errKnown)
	})
	if runs.Load() != 1 {
		t.Errorf("%d executions", runs.Load())
	}
	for _, a := range answers {
		if !errors.Is(a.err, errKnown) || a.err.Error() != "row 7: known to every replica" {
			t.Errorf("%+v", a)
		}
	}
}

func TestAPanicIsAnErrorElsewhereAndIsNotRunAgain(t *testing.T) {
	f := newFleet[string](t, 3)
	var runs atomic.Int32
	var panics, remote atomic.Int32
	var wg sync.WaitGroup
	for _, g := range f.groups {
		wg.Go(func() {
			defer func() {
				if p, ok := recover().(*coalesce.PanicError); ok {
					panics.Add(1)
					if p.Value != "boom" || !strings.Contains(string(p.Stack), "TestAPanicIsAnErrorElsewhere") {
						t.Errorf("panic %v with stack %s", p.Value, p.Stack)
					}
				}
			}()
			_, _, err := g.Do(context.Background(), "k", func(context.Context) (string, error) {
				runs.Add(1)
				f.waitFollowers("k", 2)
				panic("boom")
			})
			if errors.Is(err, coalesce.ErrRemotePanic) && strings.Contains(err.Error(), "boom") {
				remote.Add(1)
			}
		})
	}
	wg.Wait()
	if runs.Load() != 1 || panics.Load() != 1 || remote.Load() != 2 {
		t.Errorf("%d executions, %d panics, %d errors on other replicas", runs.Load(), panics.Load(), remote.Load())
	}
}
