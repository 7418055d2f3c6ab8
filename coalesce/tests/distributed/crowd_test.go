package distributed_test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/distributed"
)

// crowd is many keys that one replica leads and others follow.
type crowd struct {
	t        *testing.T
	end      chan struct{} // closed: the functions return
	wg       sync.WaitGroup
	runs     atomic.Int64 // of functions
	outcomes sync.Map     // how many calls had each role
}

func newCrowd(t *testing.T) *crowd { return &crowd{t: t, end: make(chan struct{})} }

// call makes a call for each key, all at once.
func (c *crowd) call(g *replica[string], keys int) {
	for i := range keys {
		c.wg.Go(func() {
			v, role, err := g.Do(context.Background(), fmt.Sprint("k", i), func(context.Context) (string, error) {
				c.runs.Add(1)
				<-c.end
				return fmt.Sprint("v", i), nil
			})
			if v != fmt.Sprint("v", i) || err != nil {
				c.t.Errorf("key %d: %q, %v, %v", i, v, role, err)
			}
			n, _ := c.outcomes.LoadOrStore(role, new(atomic.Int64))
			n.(*atomic.Int64).Add(1)
		})
	}
}

func (c *crowd) had(role coalesce.Role) int64 {
	if n, ok := c.outcomes.Load(role); ok {
		return n.(*atomic.Int64).Load()
	}
	return 0
}

// ended lets the functions return, and wants each key led once, and followed by so many.
func (c *crowd) ended(keys, followers int) {
	c.t.Helper()
	time.Sleep(onItsWay)
	close(c.end)
	c.wg.Wait()
	if leaders, remote, runs := c.had(coalesce.Leader), c.had(coalesce.RemoteFollower), c.runs.Load(); leaders != int64(keys) || remote != int64(keys*followers) || runs != int64(keys) {
		c.t.Errorf("%d executions for %d keys; %d leaders, %d followers, %d fallbacks", runs, keys, leaders, remote, c.had(coalesce.Fallback))
	}
}

// TestEachKeyLooksOnceAfterACut ends every subscription of many replicas that wait for the
// same keys.
func TestEachKeyLooksOnceAfterACut(t *testing.T) {
	t.Parallel()
	const replicas, keys = 10, 50
	// The lease is far away, and so is its renewal, which would spare a look: only the cut
	// makes anybody look.
	f := newFleet[string](t, 0)
	opts := []distributed.Option{distributed.WithLeaseTTL(10 * time.Minute), distributed.WithFlightTimeout(10 * time.Minute)}
	leader := f.join(opts...)
	var peeks atomic.Int64
	var followers []*replica[string]
	for range replicas {
		followers = append(followers, wiredGroup[string](&tap{t: t, server: f.server, after: func(script string, _ []any, _ any, _ time.Duration) {
			if script == "peek" {
				peeks.Add(1)
			}
		}}, opts...))
	}
	f.waitSubscribed(1 + replicas)
	c := newCrowd(t)
	c.call(leader, keys)
	eventually(t, "all keys are led", func() bool { return c.runs.Load() == int64(keys) })
	for _, g := range followers {
		c.call(g, keys)
	}
	const each = int64(replicas * keys)
	eventually(t, "all have looked once: they are subscribed", func() bool { return peeks.Load() == each })
	admin := f.client()
	before := f.asked("subscribe")
	if err := admin.ClientKillByFilter(context.Background(), "TYPE", "pubsub").Err(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "all have looked again", func() bool { return peeks.Load() >= 2*each })
	subscribed := f.asked("subscribe") - before
	time.Sleep(onItsWay) // a look too many would come now
	if n := peeks.Load(); n != 2*each {
		t.Errorf("%d looks after the cut by %d that wait", n-each, each)
	}
	// The control channel alone, and the others in pieces; once for each connection.
	if most := (1 + replicas) * (1 + (keys+255)/256); subscribed > most {
		t.Errorf("%d commands to subscribe again, not %d", subscribed, most)
	}
	c.ended(keys, replicas)
}

// TestTenThousandKeysAtOnce has them all come in one moment.
func TestTenThousandKeysAtOnce(t *testing.T) {
	t.Parallel()
	const keys = 10_000
	f := newFleet[string](t, 1, distributed.WithLeaseTTL(5*time.Minute), distributed.WithRedisTimeout(3*calm))
	c := newCrowd(t)
	c.call(f.groups[0], keys)
	eventually(t, "all run", func() bool { return c.runs.Load() == keys })
	c.ended(keys, 0)
	if s := f.groups[0].Stats().Distributed; s.RedisErrors != 0 {
		t.Errorf("Redis is said to have failed: %v", s.RedisErrorsBy)
	}
}

// TestFollowersOfALongFlightDoNotLook has one that is renewed many times: the renewals tell
// them that it lives.
func TestFollowersOfALongFlightDoNotLook(t *testing.T) {
	t.Parallel()
	const ttl, followers = 3 * time.Second, 20
	f := newFleet[string](t, 0)
	var renewals, looks atomic.Int64
	opts := []distributed.Option{distributed.WithLeaseTTL(ttl), distributed.WithFlightTimeout(10 * time.Minute)}
	leader := wiredGroup[string](&tap{t: t, server: f.server, after: func(script string, _ []any, _ any, _ time.Duration) {
		if script == "renew" {
			renewals.Add(1)
		}
	}}, opts...)
	c := newCrowd(t)
	c.call(leader, 1)
	eventually(t, "it runs", func() bool { return c.runs.Load() == 1 })
	for range followers {
		g := wiredGroup[string](&tap{t: t, server: f.server, after: func(script string, _ []any, _ any, _ time.Duration) {
			if script == "peek" {
				looks.Add(1)
			}
		}}, opts...)
		c.call(g, 1)
	}
	// Each looks once when it is subscribed, or hears a renewal first.
	eventually(t, "all are subscribed", func() bool { return f.numSub("k0") == followers })
	before := renewals.Load()
	eventually(t, "the lease that they saw was due long ago", func() bool { return renewals.Load() >= before+10 })
	if n := looks.Load(); n >= 3*followers { // where this machine holds a renewal up, all look once
		t.Errorf("%d looks of %d followers in more than three lease TTLs", n, followers)
	}
	c.ended(1, followers)
}

// TestASignOfLifeThatIsLostCostsALook has a follower hear no messages at all.
func TestASignOfLifeThatIsLostCostsALook(t *testing.T) {
	t.Parallel()
	const ttl = time.Second
	f := newFleet[string](t, 1, distributed.WithLeaseTTL(ttl))
	c := newCrowd(t)
	c.call(f.groups[0], 1)
	eventually(t, "it runs", func() bool { return c.runs.Load() == 1 })
	var looks atomic.Int64
	follower := wiredGroup[string](&tap{t: t, server: f.server, lose: func([]byte) bool { return true }, after: func(script string, _ []any, _ any, _ time.Duration) {
		if script == "peek" {
			looks.Add(1)
		}
	}}, distributed.WithLeaseTTL(ttl))
	c.call(follower, 1)
	eventually(t, "the follower has looked each time when the lease was due", func() bool { return looks.Load() >= 3 })
	c.ended(1, 1)
}

// TestWhoIsNotConfirmedFollowsByLooks has a way to Redis that has commands pass, and lets
// no subscription through.
func TestWhoIsNotConfirmedFollowsByLooks(t *testing.T) {
	t.Parallel()
	f := newFleet[string](t, 1, distributed.WithLeaseTTL(time.Minute))
	c := newCrowd(t)
	c.call(f.groups[0], 1)
	eventually(t, "it runs", func() bool { return c.runs.Load() == 1 })
	var joins, looks atomic.Int64
	client := redis.NewClient(&redis.Options{Addr: f.server.Addr, Dialer: func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := (&net.Dialer{}).DialContext(ctx, network, addr)
		return swallowing{Conn: conn}, err
	}})
	defer client.Close()
	client.AddHook(&tap{t: t, server: f.server, after: func(script string, _ []any, _ any, _ time.Duration) {
		switch script {
		case "join":
			joins.Add(1)
		case "peek":
			looks.Add(1)
		}
	}})
	g, err := open[string](client, distributed.WithRedisTimeout(300*time.Millisecond), distributed.WithLeaseTTL(time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close(context.Background())
	c.call(g, 1)
	eventually(t, "it has looked, and looked again", func() bool { return looks.Load() >= 2 })
	if n := joins.Load(); n != 1 {
		t.Errorf("it has joined %d times", n)
	}
	c.call(g, 1) // it would not hear of a Forget, so the next caller joins anew
	eventually(t, "the next caller has joined", func() bool { return joins.Load() == 2 })
	c.ended(1, 2)
}

// TestScriptsComeWithTheirFirstUse starts many replicas at a server that has no script, and
// has their first flights come together.
func TestScriptsComeWithTheirFirstUse(t *testing.T) {
	t.Parallel()
	const replicas, keys = 10, 100
	f := newFleet[string](t, 0)
	if err := f.client().ScriptFlush(context.Background()).Err(); err != nil {
		t.Fatal(err)
	}
	c := newCrowd(t)
	for range replicas {
		client := redis.NewClient(&redis.Options{Addr: f.server.Addr, ReadTimeout: patience})
		defer client.Close()
		fleet, err := distributed.Open(client, distributed.WithRedisTimeout(calm), distributed.WithLeaseTTL(3*calm))
		if err != nil {
			t.Fatal(err)
		}
		defer fleet.Close(context.Background())
		c.call(&replica[string]{newGroup[string](t, fleet, "test"), fleet}, keys)
	}
	admin := f.client()
	eventually(t, "all follow", func() bool {
		var channels []string
		for i := range keys {
			channels = append(channels, fmt.Sprintf("fleetcall:test:{k%d}@0", i))
		}
		subscribed := int64(0)
		for _, n := range admin.PubSubNumSub(context.Background(), channels...).Val() {
			subscribed += n
		}
		return subscribed == keys*(replicas-1)
	})
	c.ended(keys, replicas-1)
	// Two batches of each may learn in the same moment that a script is not there.
	if n := f.commands(); n["script|load"] != 0 || n["eval"] > 8*replicas {
		t.Errorf("sent %v", n)
	}
}

// swallowing is a connection on which no subscription gets through, nor is answered.
type swallowing struct{ net.Conn }

func (c swallowing) Write(b []byte) (int, error) {
	if bytes.Contains(b, []byte("subscribe\r\n")) {
		return len(b), nil
	}
	return c.Conn.Write(b)
}
