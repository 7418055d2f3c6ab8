package distributed_test

import (
	"context"
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

// batches is a redis.Hook that keeps the goroutines that send busy, so that
// what comes meanwhile is sent together.
type batches struct {
	mu      sync.Mutex
	release chan struct{} // closed: nobody is kept
	kept    int
	largest int   // number of keys whose scripts were sent together
	first   []any // a command that goes before the first of them
}

// DialHook makes batches a redis.Hook.
func (b *batches) DialHook(next redis.DialHook) redis.DialHook { return next }

// ProcessHook makes batches a redis.Hook that keeps the joins of busy keys.
func (b *batches) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if scriptOf(cmd) == "join" && strings.HasPrefix(cmd.Args()[3].(string), "fleetcall:test:{busy-") {
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
		n := 0
		for _, cmd := range cmds {
			n += callersKeys(cmd)
		}
		b.largest = max(b.largest, n)
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
func (b *batches) together(t *testing.T, g *replica[string], keys []string, command ...any) []answer[string] {
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
func (f *fleet[V]) batched(b *batches, opts ...distributed.Option) *replica[V] {
	f.t.Helper()
	client := redis.NewClient(&redis.Options{Addr: f.server.Addr})
	client.AddHook(b)
	g, err := open[V](client, append([]distributed.Option{distributed.WithRedisTimeout(20 * time.Second), distributed.WithLeaseTTL(20 * time.Second)}, opts...)...)
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
	f.settled()
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
		"~fleetcall:test:{busy*", "~fleetcall:test:{first*", "~fleetcall:test:{last*") {
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
	t.Parallel()
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
