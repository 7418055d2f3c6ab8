package distributed_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/distributed"
	"github.com/fleetcall/fleetcall/internal/rig/redisrig"
)

type dialer = func(ctx context.Context, network, addr string) (net.Conn, error)

// door keeps a client from making connections while it is closed.
type door struct{ sync.RWMutex }

func (g *door) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	g.RLock()
	defer g.RUnlock()
	return (&net.Dialer{}).DialContext(ctx, network, addr)
}

// flapping is a replica whose subscriptions a test cuts, on one server or a Cluster, and
// another one beside it.
type flapping struct {
	t       *testing.T
	nodes   []*redis.Client
	door    door
	g       *replica[string]
	other   *replica[string]
	looked  atomic.Int64 // how often the replica has peeked
	refused atomic.Bool  // its next join fails
	// runs are the executions for each key, which end with release.
	mu      sync.Mutex
	runs    map[string]int
	release chan struct{}
	callers sync.WaitGroup
}

// Command makes flapping a distributed.CommandHook.
func (f *flapping) Command(c distributed.Command) {
	if c.Step == "peek" && c.Kind == "" {
		f.looked.Add(1)
	}
}

func newFlapping(t *testing.T, leaseTTL time.Duration, nodes []*redis.Client, connect func(dialer) redis.UniversalClient) *flapping {
	f := &flapping{t: t, nodes: nodes, runs: map[string]int{}, release: make(chan struct{})}
	for i, dial := range []dialer{f.door.dial, (&net.Dialer{}).DialContext} {
		client := connect(dial)
		opts := []distributed.Option{distributed.WithReplicaID(fmt.Sprint(i)), distributed.WithLeaseTTL(leaseTTL), distributed.WithFlightTimeout(10 * calm)}
		if i == 0 {
			client.AddHook(&tap{t: t, before: func(script string, _ []any) error {
				if script == "join" && f.refused.CompareAndSwap(true, false) {
					return errors.New("ERR no")
				}
				return nil
			}})
			opts = append(opts, distributed.WithHooks(f))
		}
		g := openCalm[string](t, client, opts...)
		t.Cleanup(func() { _ = g.Close(context.Background()); _ = client.Close() })
		if i == 0 {
			f.g = g
		} else {
			f.other = g
		}
	}
	eventually(t, "both are subscribed", func() bool { return f.subscribed() == 2 })
	return f
}

func (f *flapping) subscribed() int { return len(controlChannels("fleetcall", f.nodes...)) }

// cut ends all subscriptions. The replica, which leads one flight, gets none before it is let.
func (f *flapping) cut() (letIn func()) {
	f.door.Lock()
	for _, node := range f.nodes {
		if err := node.Do(context.Background(), "CLIENT", "KILL", "TYPE", "pubsub").Err(); err != nil {
			f.t.Fatal(err)
		}
	}
	// The other's is back when one is there: the door holds the replica's.
	eventually(f.t, "only the other one is subscribed", func() bool { return f.subscribed() == 1 })
	before := f.looked.Load()
	return func() {
		f.door.Unlock()
		eventually(f.t, "the replica has caught up", func() bool { return f.looked.Load() > before })
		eventually(f.t, "both are subscribed", func() bool { return f.subscribed() == 2 })
	}
}

// forget has the other replica forget keys, of which the replica leads one flight, and waits
// until every node has passed the notice on: on a Cluster that takes a moment.
func (f *flapping) forget(keys ...string) {
	f.t.Helper()
	ctx := context.Background()
	var all []*redis.PubSub
	for _, node := range f.nodes {
		listener := node.PSubscribe(ctx, "fleetcall:control:*")
		defer listener.Close()
		if _, err := listener.Receive(ctx); err != nil {
			f.t.Fatal(err)
		}
		all = append(all, listener)
	}
	if err := f.other.Forget(ctx, keys...); err != nil {
		f.t.Fatal(err)
	}
	for _, listener := range all {
		if _, err := listener.ReceiveMessage(ctx); err != nil {
			f.t.Fatal(err)
		}
	}
}

// call has one more caller ask the replica for a key, and waits until it has joined a
// flight, or runs its own.
func (f *flapping) call(key string) <-chan answer[string] {
	waiting := f.g.Stats().Local.Waiting
	answers := make(chan answer[string], 1)
	f.callers.Go(func() {
		var a answer[string]
		a.val, a.role, a.err = f.g.Do(context.Background(), key, func(context.Context) (string, error) {
			f.mu.Lock()
			f.runs[key]++
			n := f.runs[key]
			f.mu.Unlock()
			<-f.release
			return fmt.Sprint("run ", n), nil
		})
		answers <- a
	})
	eventually(f.t, "the caller has come", func() bool { return f.g.Stats().Local.Waiting > waiting })
	return answers
}

// running is how often the function for a key has begun.
func (f *flapping) running(key string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.runs[key]
}

// begin starts a flight for each key. That of "alone" runs without Redis.
func (f *flapping) begin() map[string]<-chan answer[string] {
	first := map[string]<-chan answer[string]{}
	for _, key := range []string{"led", "alone"} {
		f.refused.Store(key == "alone")
		first[key] = f.call(key)
		eventually(f.t, "its function runs", func() bool { return f.running(key) == 1 })
	}
	eventually(f.t, "what runs without Redis listens", func() bool { return subscribers("alone", f.nodes...) == 1 })
	return first
}

// subscribers returns how many replicas are subscribed to the channel of a key.
func subscribers(key string, nodes ...*redis.Client) (n int64) {
	channel := "fleetcall:test:{" + key + "}@0"
	for _, node := range nodes {
		n += node.PubSubNumSub(context.Background(), channel).Val()[channel]
		n += node.PubSubShardNumSub(context.Background(), channel).Val()[channel]
	}
	return n
}

func (f *flapping) end() {
	close(f.release)
	f.callers.Wait()
}

// onEach runs a test with one server, and with a Cluster.
func onEach(t *testing.T, leaseTTL time.Duration, test func(t *testing.T, f *flapping)) {
	t.Run("one server", func(t *testing.T) {
		server := redisrig.Start(t)
		test(t, newFlapping(t, leaseTTL, []*redis.Client{server.Client()}, func(dial dialer) redis.UniversalClient {
			return redis.NewClient(&redis.Options{Addr: server.Addr, Dialer: dial})
		}))
	})
	t.Run("Cluster", func(t *testing.T) {
		cluster := redisrig.StartCluster(t)
		var nodes []*redis.Client
		for _, node := range cluster.Nodes() {
			nodes = append(nodes, node.Client())
		}
		test(t, newFlapping(t, leaseTTL, nodes, func(dial dialer) redis.UniversalClient {
			return redis.NewClusterClient(&redis.ClusterOptions{Addrs: cluster.Addrs(), Dialer: dial, MaxRetries: -1})
		}))
	})
}

func TestSubscriptionsThatFlapSplitNoFlight(t *testing.T) {
	t.Parallel()
	onEach(t, 4*calm, func(t *testing.T, f *flapping) {
		first := f.begin()
		var late []<-chan answer[string]
		for range 20 {
			f.cut()()
			for key := range first {
				late = append(late, f.call(key))
			}
		}
		f.end()
		for _, answers := range late {
			if a := <-answers; a != (answer[string]{"run 1", coalesce.LocalFollower, nil}) {
				t.Fatalf("a caller after a cut: %+v", a)
			}
		}
		for key := range first {
			if n := f.running(key); n != 1 {
				t.Errorf("%s: %d executions", key, n)
			}
		}
	})
}

func TestAForgetThatWasMissedWhileTheSubscriptionWasCutIsHonoured(t *testing.T) {
	t.Parallel()
	onEach(t, 4*calm, func(t *testing.T, f *flapping) {
		first := f.begin()
		letIn := f.cut()
		f.forget("led", "alone")
		letIn()
		f.splits("led")
		f.call("alone")
		// What has begun since stays one flight: nothing more was missed.
		f.cut()()
		again := f.call("led")
		f.end()
		if a := <-first["led"]; a.val != "run 1" || a.err != nil {
			t.Errorf("who called before: %+v", a)
		}
		if a := <-again; a.val != "run 2" || a.role != coalesce.LocalFollower || a.err != nil {
			t.Errorf("who called last: %+v", a)
		}
		if n := f.running("alone"); n != 1 {
			t.Errorf("what runs without Redis was split: %d executions", n)
		}
	})
}

// splits waits until a new caller starts a new flight.
func (f *flapping) splits(key string) {
	f.t.Helper()
	eventually(f.t, "a new caller starts a new flight", func() bool {
		f.call(key)
		return f.running(key) == 2
	})
}

// TestAFlightOfWhichRedisHasNothingIsJoinedNoMore has Redis lose what the Forget left, or all
// that it has: the key may have been forgotten.
func TestAFlightOfWhichRedisHasNothingIsJoinedNoMore(t *testing.T) {
	t.Parallel()
	for name, lose := range map[string]func(*redis.Client){
		"the attempts are evicted, and the control channel comes back": func(node *redis.Client) {
			node.Del(context.Background(), "fleetcall:test:{led}:attempts")
		},
		"all is flushed, and the control channel comes back": func(node *redis.Client) { node.FlushAll(context.Background()) },
	} {
		t.Run(name, func(t *testing.T) {
			onEach(t, 4*calm, func(t *testing.T, f *flapping) {
				f.begin()
				letIn := f.cut()
				f.forget("led")
				for _, node := range f.nodes {
					lose(node)
				}
				letIn()
				f.splits("led")
				f.end()
			})
		})
	}
}

// TestALeaderWithoutItsControlChannelLearnsFromItsRenewalsThatItsKeyWasForgotten has one that
// is not subscribed again.
func TestALeaderWithoutItsControlChannelLearnsFromItsRenewalsThatItsKeyWasForgotten(t *testing.T) {
	t.Parallel()
	for name, lose := range map[string]bool{"forgotten": false, "all is flushed": true} {
		t.Run(name, func(t *testing.T) {
			onEach(t, time.Second, func(t *testing.T, f *flapping) {
				f.call("led")
				eventually(t, "its function runs", func() bool { return f.running("led") == 1 })
				f.cut()
				if lose {
					for _, node := range f.nodes {
						node.FlushAll(context.Background())
					}
				} else {
					f.forget("led")
				}
				f.splits("led")
				f.door.Unlock()
				f.end()
			})
		})
	}
}
