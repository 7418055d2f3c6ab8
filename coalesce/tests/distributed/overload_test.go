package distributed_test

import (
	"context"
	"errors"
	"net"
	"runtime"
	"strconv"
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
	waiting := func() (n int64) {
		for _, g := range f.groups {
			n += g.Stats().Local.Waiting
		}
		return n
	}
	eventually(t, "all wait, or have been answered", func() bool { return waiting()+answered.Load() >= int64(waiters) })
	if answered.Load() == 0 {
		t.Logf("a waiter costs %d bytes, its goroutine's stack included", (memory()-before)/int64(waiters))
	}
	wg.Wait()

	if n := waiting(); n != 0 {
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
	slow, err := distributed.New[string](client, distributed.WithRedisTimeout(5*time.Second))
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
	do := func(g *distributed.Group[string]) {
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
	dropped := func() bool { return f.numSub("k") == 0 }
	big := strings.Repeat("x", 256<<10)
	eventually(t, "Redis drops the slow subscriber", func() bool {
		admin.Publish(ctx, "fleetcall:{k}", big)
		return dropped()
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

// batches is a redis.Hook that keeps the goroutines that send busy, so that
// what comes meanwhile is sent together.
type batches struct {
	mu      sync.Mutex
	release chan struct{} // closed: nobody is kept
	kept    int
	largest int   // number of scripts that were sent together
	first   []any // a command that goes before the first of them
}

// DialHook makes batches a redis.Hook.
func (b *batches) DialHook(next redis.DialHook) redis.DialHook { return next }

// ProcessHook makes batches a redis.Hook that keeps the joins of busy keys.
func (b *batches) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if scriptOf(cmd) == "join" && strings.HasPrefix(cmd.Args()[3].(string), "fleetcall:{busy-") {
			b.mu.Lock()
			b.kept++
			release := b.release
			b.mu.Unlock()
			<-release
		}
		return next(ctx, cmd)
	}
}

// ProcessPipelineHook makes batches a redis.Hook.
func (b *batches) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		if scriptOf(cmds[0]) == "" { // a connection that is being made
			return next(ctx, cmds)
		}
		b.mu.Lock()
		b.largest = max(b.largest, len(cmds))
		if b.first != nil {
			cmds = append([]redis.Cmder{redis.NewCmd(ctx, b.first...)}, cmds...)
			b.first = nil
		}
		b.mu.Unlock()
		return next(ctx, cmds)
	}
}

// together makes one call for each key, whose joins are sent together after the
// command.
func (b *batches) together(t *testing.T, g *distributed.Group[string], keys []string, command ...any) []answer[string] {
	t.Helper()
	b.mu.Lock()
	b.release, b.kept, b.largest, b.first = make(chan struct{}), 0, 0, command
	b.mu.Unlock()
	var wg sync.WaitGroup
	for i := range 2 { // as many goroutines send
		wg.Go(func() { _, _, _ = g.Do(context.Background(), "busy-"+strconv.Itoa(i), value) })
		eventually(t, "a goroutine is kept busy", func() bool {
			b.mu.Lock()
			defer b.mu.Unlock()
			return b.kept > i
		})
	}
	answers := make([]answer[string], len(keys))
	for i, key := range keys {
		wg.Go(func() {
			a := &answers[i]
			a.val, a.role, a.err = g.Do(context.Background(), key, func(context.Context) (string, error) { return "of " + key, nil })
		})
	}
	eventually(t, "all have come", func() bool { return g.Stats().Distributed.ActiveFlights == int64(2+len(keys)) })
	close(b.release)
	wg.Wait()
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.largest < 2 {
		t.Errorf("at most %d scripts were sent together: nothing was tested", b.largest)
	}
	return answers
}

// batched starts a replica whose scripts can be kept.
func (f *fleet[V]) batched(b *batches, opts ...distributed.Option) *distributed.Group[V] {
	f.t.Helper()
	client := redis.NewClient(&redis.Options{Addr: f.server.Addr})
	client.AddHook(b)
	g, err := distributed.New[V](client, append([]distributed.Option{distributed.WithRedisTimeout(20 * time.Second)}, opts...)...)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() {
		if err := g.Close(context.Background()); err != nil {
			f.t.Errorf("Close: %v", err)
		}
		_ = client.Close()
	})
	f.groups = append(f.groups, g)
	f.waitSubscribed(len(f.groups))
	f.scriptsLoaded()
	return g
}

func numbered(prefix string, n int) (keys []string) {
	for i := range n {
		keys = append(keys, prefix+strconv.Itoa(i))
	}
	return keys
}

func TestScriptsThatAreSentTogetherEachGetTheirOwnReply(t *testing.T) {
	var b batches
	f := newFleet[string](t, 0)
	g := f.batched(&b, distributed.WithMaxAge(time.Hour))
	keys := numbered("k-", 200) // more than are sent together
	for _, role := range []coalesce.Role{coalesce.Leader, coalesce.Cached} {
		for i, a := range b.together(t, g, keys) {
			if a.val != "of "+keys[i] || a.role != role || a.err != nil {
				t.Errorf("%s: %+v, want %v", keys[i], a, role)
			}
		}
		f.quiet()
	}
	if s := g.Stats().Distributed; s.RedisErrors != 0 {
		t.Errorf("%+v", s)
	}
}

func TestAScriptThatFailsHurtsNoneOfThoseItIsSentWith(t *testing.T) {
	var b batches
	f := newFleet[string](t, 0)
	g := f.batched(&b)
	keys := append(numbered("first-", 20), "forbidden")
	keys = append(keys, numbered("last-", 20)...)
	for i, a := range b.together(t, g, keys, "ACL", "SETUSER", "default", "resetkeys",
		"~fleetcall:{busy*", "~fleetcall:{first*", "~fleetcall:{last*") {
		want := coalesce.Leader
		if keys[i] == "forbidden" {
			want = coalesce.Fallback
		}
		if a.val != "of "+keys[i] || a.role != want || a.err != nil {
			t.Errorf("%s: %+v, want %v", keys[i], a, want)
		}
	}
}

func TestScriptsThatRedisForgotAreLoadedAgainForAllThatAreSentTogether(t *testing.T) {
	var b batches
	f := newFleet[string](t, 0)
	g := f.batched(&b)
	keys := numbered("k-", 20)
	for i, a := range b.together(t, g, keys, "SCRIPT", "FLUSH") {
		if a.val != "of "+keys[i] || a.role != coalesce.Leader || a.err != nil {
			t.Errorf("%s: %+v", keys[i], a)
		}
	}
	f.quiet()
	if s := g.Stats().Distributed; s.RedisErrors != 0 {
		t.Errorf("%+v", s)
	}
}

// TestCommandsThatHangForeverDoNotKeepOthersFromRedis stalls as many
// connections as there are goroutines that send.
func TestCommandsThatHangForeverDoNotKeepOthersFromRedis(t *testing.T) {
	f := newFleet[string](t, 0)
	stalled := make(chan struct{})
	defer close(stalled)
	var hanging atomic.Int32
	g := f.joinHeld(func(b []byte) {
		if strings.Contains(string(b), "{stuck-") {
			hanging.Add(1)
			<-stalled
		}
	}, distributed.WithRedisTimeout(500*time.Millisecond), distributed.WithFlightTimeout(time.Minute))
	ctx := context.Background()
	calls := 0
	eventually(t, "commands hang", func() bool {
		calls++
		if v, role, err := g.Do(ctx, "stuck-"+strconv.Itoa(calls), value); v != "v" || role != coalesce.Fallback || err != nil {
			t.Errorf("%q, %v, %v", v, role, err)
		}
		return hanging.Load() >= 2
	})
	eventually(t, "another call has its way to Redis", func() bool {
		v, role, err := g.Do(ctx, "k", value)
		if v != "v" || err != nil {
			t.Errorf("%q, %v", v, err)
		}
		return role == coalesce.Leader
	})
}
