package distributed_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/distributed"
	"github.com/fleetcall/fleetcall/internal/rig/redisrig"
)

// These are about callers who send their flight's first command themselves, on a
// client that is not to keep them.

// meddler is a hook that does something before a script is sent, as often as told.
type meddler struct {
	step  string // the script's
	times atomic.Int32
	do    func()
}

func (*meddler) DialHook(next redis.DialHook) redis.DialHook { return next }

func (m *meddler) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if scriptOf(cmd) == m.step && m.times.Add(-1) >= 0 {
			m.do()
		}
		return next(ctx, cmd)
	}
}

func (*meddler) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

// newPrompt returns a group whose callers send their first command themselves,
// unless change makes the client one that may keep them.
func newPrompt(t *testing.T, change func(*redis.Options), hook redis.Hook, opts ...distributed.Option) (*replica[string], *redisrig.Server) {
	t.Helper()
	f := &fleet[string]{t: t, server: redisrig.Start(t)}
	o := &redis.Options{Addr: f.server.Addr, ContextTimeoutEnabled: true, MaxRetries: -1}
	if change != nil {
		change(o)
	}
	client := redis.NewClient(o)
	if hook != nil {
		client.AddHook(hook)
	}
	g, err := open[string](client, opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := g.Close(ctx); err != nil {
			t.Errorf("Close: %v", err)
		}
		_ = client.Close()
	})
	f.waitSubscribed(1)
	return g, f.server
}

func TestAClientThatKeepsNoDeadlinesKeepsNoCaller(t *testing.T) {
	g, server := newPrompt(t, func(o *redis.Options) { o.ReadTimeout = -2 }, nil, distributed.WithRedisTimeout(200*time.Millisecond))
	if _, _, err := g.Do(t.Context(), "connects", value); err != nil {
		t.Fatal(err)
	}
	server.Freeze()
	returned := make(chan error, 1)
	go func() {
		_, _, err := g.Do(context.Background(), "k", value)
		returned <- err
	}()
	select {
	case err := <-returned:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Error("a caller is kept for as long as Redis hangs")
	}
	server.Thaw()
}

// TestAClusterThatHangsKeepsNoCaller has a client that does not know yet what
// commands there are: it asks a node, for as long as it likes.
func TestAClusterThatHangsKeepsNoCaller(t *testing.T) {
	t.Parallel()
	cluster := redisrig.StartCluster(t)
	client := redis.NewClusterClient(&redis.ClusterOptions{Addrs: cluster.Addrs(), ContextTimeoutEnabled: true, MaxRetries: -1, DialerRetries: 1})
	defer func() { _ = client.Close() }()
	if _, err := client.MasterForKey(t.Context(), "k"); err != nil {
		t.Fatal(err)
	}
	for _, node := range cluster.Nodes() {
		node.Freeze()
		defer node.Thaw()
	}
	g, err := open[string](client, distributed.WithRedisTimeout(200*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	began := time.Now()
	_, _, _ = g.Do(ctx, "k", value)
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("a caller whose deadline was 500 ms is kept for %v", took)
	}
	for _, node := range cluster.Nodes() {
		node.Thaw()
	}
	_ = g.Close(context.Background())
}

// TestACallerDoesNotWaitForTheFinishBeforeItsFlight has one whose replica is
// still telling Redis of the end of the last flight.
func TestACallerDoesNotWaitForTheFinishBeforeItsFlight(t *testing.T) {
	release := make(chan struct{})
	slow := &meddler{step: "finish", do: func() { <-release }}
	slow.times.Store(1)
	g, _ := newPrompt(t, nil, slow, distributed.WithRedisTimeout(10*time.Second), distributed.WithLeaseTTL(10*time.Second))
	defer close(release)
	if _, _, err := g.Do(t.Context(), "k", value); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(100*time.Millisecond, cancel)
	began := time.Now()
	_, _, err := g.Do(ctx, "k", value)
	if took := time.Since(began); err != context.Canceled || took > 5*time.Second {
		t.Errorf("a caller who leaves gets %v after %v", err, took)
	}
}

func TestAFunctionDoesNotRunForACallerWhoLeftDuringItsJoin(t *testing.T) {
	for _, with := range []string{"nobody", "another"} {
		t.Run(with, func(t *testing.T) {
			begun, release := make(chan struct{}), make(chan struct{})
			slow := &meddler{step: "join", do: func() { close(begun); <-release }}
			slow.times.Store(1)
			g, _ := newPrompt(t, nil, slow, distributed.WithRedisTimeout(10*time.Second), distributed.WithLeaseTTL(10*time.Second))
			var ran atomic.Int32
			fn := func(context.Context) (string, error) {
				ran.Add(1)
				return "v", nil
			}
			ctx, cancel := context.WithCancel(t.Context())
			first, second := make(chan error, 1), make(chan error, 1)
			go func() {
				_, _, err := g.Do(ctx, "k", fn)
				first <- err
			}()
			<-begun
			want := int32(0)
			if with == "another" {
				want = 1
				go func() {
					_, _, err := g.Do(t.Context(), "k", fn)
					second <- err
				}()
				eventually(t, "the other one waits", func() bool { return g.Stats().Local.Waiting == 2 })
			}
			cancel()
			close(release)
			if err := <-first; err != context.Canceled {
				t.Errorf("who left got %v", err)
			}
			if with == "another" {
				if err := <-second; err != nil {
					t.Errorf("who stayed got %v", err)
				}
			}
			eventually(t, "the flight has ended", func() bool { return g.Stats().Distributed.ActiveFlights == 0 })
			if n := ran.Load(); n != want {
				t.Errorf("the function ran %d times, not %d", n, want)
			}
			if _, role, err := g.Do(t.Context(), "k", fn); role != coalesce.Leader || err != nil {
				t.Errorf("the next caller is %v: %v", role, err)
			}
		})
	}
}

// TestAHookThatPanicsIsAnOutage has a hook of the client panic, in time or after
// the Redis timeout, in each command of a flight: its caller does not notice, and
// Redis is used again.
func TestAHookThatPanicsIsAnOutage(t *testing.T) {
	t.Parallel()
	const timeout = 200 * time.Millisecond
	for _, step := range []string{"join", "finish"} {
		for when, after := range map[string]time.Duration{"in time": 0, "late": 2 * timeout} {
			t.Run(step+", "+when, func(t *testing.T) {
				hook := &meddler{step: step, do: func() {
					time.Sleep(after) // the hook's own time
					panic("hook")
				}}
				g, _ := newPrompt(t, nil, hook, distributed.WithRedisTimeout(timeout))
				for range 2 {
					hook.times.Store(1)
					eventually(t, "the hook has panicked", func() bool { // while the server is down, it is not called
						if v, _, err := g.Do(t.Context(), "k", value); v != "v" || err != nil {
							t.Errorf("%q, %v", v, err)
						}
						return hook.times.Load() < 1
					})
				}
				eventually(t, "Redis is used", func() bool {
					_, role, err := g.Do(t.Context(), "k", value)
					return err == nil && role == coalesce.Leader && g.Stats().Distributed.Server == distributed.ServerUp
				})
			})
		}
	}
}
