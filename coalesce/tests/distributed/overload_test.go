package distributed_test

import (
	"context"
	"errors"
	"net"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/distributed"
)

// TestTenThousandWaitersOfAFunctionThatHangsAllGetTheFlightTimeout logs what a
// waiter costs.
func TestTenThousandWaitersOfAFunctionThatHangsAllGetTheFlightTimeout(t *testing.T) {
	const replicas = 3
	waiters := 10_000
	if testing.Short() {
		waiters = 1_000
	}
	f := newFleet[string](t, replicas, distributed.WithFlightTimeout(3*time.Second))
	// One flight on every replica first: connections are made.
	for _, g := range f.groups {
		if _, _, err := g.Do(context.Background(), "warm", value); err != nil {
			t.Fatal(err)
		}
	}
	f.quiet()
	goroutines := runtime.NumGoroutine()
	before := memory()

	release := make(chan struct{})
	var running atomic.Int64
	hang := func(context.Context) (string, error) {
		running.Add(1)
		defer running.Add(-1)
		<-release
		return "late", nil
	}
	// A waiter that can leave costs more than one that cannot.
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var wg sync.WaitGroup
	var answered atomic.Int64
	for i := range waiters {
		wg.Go(func() {
			if v, _, err := f.groups[i%replicas].Do(ctx, "k", hang); !errors.Is(err, coalesce.ErrFlightTimeout) {
				t.Errorf("%q, %v", v, err)
			}
			answered.Add(1)
		})
	}
	eventually(t, "all wait, or have been answered", func() bool { return f.waiting()+answered.Load() >= int64(waiters) })
	if answered.Load() == 0 {
		t.Logf("a waiter costs %d bytes, its goroutine's stack included", (memory()-before)/int64(waiters))
	}
	wg.Wait()

	if n := f.waiting(); n != 0 {
		t.Errorf("%d still wait", n)
	}
	hung := running.Load()
	if hung < 1 {
		t.Error("the function does not hang: nothing was tested")
	}
	f.quiet()
	untilSteady(t, goroutines+int(hung)) // the functions go on: nobody can stop them
	close(release)
	eventually(t, "the functions have ended", func() bool { return running.Load() == 0 })
	untilSteady(t, goroutines)
	if v, _, err := f.groups[1].Do(context.Background(), "k", value); v != "v" || err != nil {
		t.Errorf("afterwards: %q, %v", v, err)
	}
}

// waiting returns the number of callers that wait in local flights.
func (f *fleet[V]) waiting() (n int64) {
	for _, g := range f.groups {
		n += g.Stats().Local.Waiting
	}
	return n
}

// memory returns the bytes that goroutines and live objects use.
func memory() int64 {
	heap := heapInUse()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return heap + int64(m.StackInuse)
}

// slowConn does not read while its gate is closed.
type slowConn struct {
	net.Conn
	gate *gate
}

func (c slowConn) Read(b []byte) (int, error) {
	c.gate.wait()
	return c.Conn.Read(b)
}

func (c slowConn) Write(b []byte) (int, error) {
	if strings.Contains(string(b), "subscribe\r\n") {
		c.gate.subscribed.Store(true)
	}
	return c.Conn.Write(b)
}

// gate can be closed for connections that have subscribed.
type gate struct {
	subscribed atomic.Bool
	mu         sync.Mutex
	opened     chan struct{}
}

func (g *gate) wait() {
	g.mu.Lock()
	opened := g.opened
	g.mu.Unlock()
	if opened != nil && g.subscribed.Load() {
		<-opened
	}
}

func (g *gate) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.opened = make(chan struct{})
}

func (g *gate) open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	close(g.opened)
	g.opened = nil
}

// gates makes every connection of a client one with a gate of its own.
type gates struct {
	mu  sync.Mutex
	all []*gate
}

func (g *gates) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	// What the kernel keeps for a slow reader is little, so that Redis
	// notices it.
	_ = conn.(*net.TCPConn).SetReadBuffer(4 << 10)
	own := &gate{}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.all = append(g.all, own)
	return slowConn{conn, own}, nil
}

// subscriber returns the gate of the connection that has subscribed.
func (g *gates) subscriber(t *testing.T) *gate {
	t.Helper()
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, one := range g.all {
		if one.subscribed.Load() {
			return one
		}
	}
	t.Fatal("no connection has subscribed")
	return nil
}

// TestASlowSubscriberLosesItsConnectionNotItsAnswer stalls a follower's
// subscription until Redis, which keeps little for it, drops it.
func TestASlowSubscriberLosesItsConnectionNotItsAnswer(t *testing.T) {
	f := newFleet[string](t, 1)
	ctx := context.Background()
	admin := f.client()
	if err := admin.ConfigSet(ctx, "client-output-buffer-limit", "pubsub 64kb 0 0").Err(); err != nil {
		t.Fatal(err)
	}
	var conns gates
	client := redis.NewClient(&redis.Options{Addr: f.server.Addr, Dialer: conns.dial})
	defer client.Close()
	client.AddHook(f)
	slow, err := open[string](client, distributed.WithRedisTimeout(3*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	defer slow.Close(ctx)
	f.waitSubscribed(2)

	release := make(chan struct{})
	var runs atomic.Int32
	fn := func(context.Context) (string, error) {
		runs.Add(1)
		<-release
		return "v", nil
	}
	answers := make(chan answer[string], 2)
	do := func(g *replica[string]) {
		var a answer[string]
		a.val, a.role, a.err = g.Do(ctx, "k", fn)
		answers <- a
	}
	go do(f.groups[0])
	eventually(t, "the leader runs", func() bool { return runs.Load() == 1 })
	go do(slow)
	f.waitFollowers("k", 1)
	subscriber := conns.subscriber(t)
	subscriber.close()
	eventually(t, "Redis drops the slow subscriber", func() bool {
		admin.Publish(ctx, "fleetcall:test:{k}@0", strings.Repeat("x", 256<<10))
		return f.numSub("k") == 0
	})
	close(release) // its message has nobody to go to
	f.quiet()
	subscriber.open()
	for range 2 {
		if a := <-answers; a.val != "v" || a.err != nil {
			t.Errorf("%+v", a)
		}
	}
	if n := runs.Load(); n != 1 {
		t.Errorf("%d executions", n)
	}
	if s := slow.Stats().Distributed; s.Followers != 1 {
		t.Errorf("%+v", s)
	}
	// What it read before may have made it look, and answer, before this.
	eventually(t, "the lost connection is counted", func() bool {
		return slow.Stats().Distributed.RedisErrorsBy["subscription"] > 0
	})
}
