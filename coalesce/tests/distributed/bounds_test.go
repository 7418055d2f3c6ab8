package distributed_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/distributed"
	"github.com/fleetcall/fleetcall/internal/rig/redisrig"
)

// full makes the tests of this package that have a size run at that of a
// campaign: go test ./coalesce/distributed -full
var full = flag.Bool("full", false, "run the tests of bounds and staleness at full size")

// heapInUse returns the bytes of live objects.
func heapInUse() int64 {
	runtime.GC()
	runtime.GC() // what the first one's finalizers let go
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// untilSteady waits until there are no more goroutines than there were.
func untilSteady(t *testing.T, goroutines int) {
	t.Helper()
	eventually(t, fmt.Sprintf("%d goroutines are left", goroutines), func() bool { return runtime.NumGoroutine() <= goroutines })
}

// keysWithoutTTL returns every key in Redis, and those that would stay forever.
func keysWithoutTTL(t *testing.T, client *redis.Client) (all, forever []string) {
	t.Helper()
	ctx := context.Background()
	for keys := client.Scan(ctx, 0, "*", 1000).Iterator(); keys.Next(ctx); {
		all = append(all, keys.Val())
		ttl, err := client.PTTL(ctx, keys.Val()).Result()
		if err != nil {
			t.Fatal(err)
		}
		if ttl == -1 {
			forever = append(forever, keys.Val())
		}
	}
	return all, forever
}

// TestDistinctKeysLeaveNothingBehind flies many keys through one Group; with
// -full, a million.
func TestDistinctKeysLeaveNothingBehind(t *testing.T) {
	const workers = 32
	keys := 10_000
	switch {
	case *full:
		keys = 1_000_000
	case testing.Short():
		keys = 2_000
	}
	f := newFleet[string](t, 1)
	client := f.client()
	ctx := context.Background()
	fly := func(from, to int) {
		var next atomic.Int64
		next.Store(int64(from))
		var wg sync.WaitGroup
		for range workers {
			wg.Go(func() {
				for i := next.Add(1); i <= int64(to); i = next.Add(1) {
					if _, role, err := f.groups[0].Do(ctx, fmt.Sprintf("key-%d", i), value); role != coalesce.Leader || err != nil {
						t.Errorf("key %d: %v, %v", i, role, err)
						return
					}
				}
			})
		}
		wg.Wait()
		eventually(t, "every lease is released", func() bool { return client.DBSize(ctx).Val() == 0 })
	}
	const warm = 1_000
	fly(0, warm) // connections and maps have their size now
	goroutines, heap := runtime.NumGoroutine(), heapInUse()
	start := time.Now()
	fly(warm, warm+keys)
	took := time.Since(start)
	untilSteady(t, goroutines)
	grown := heapInUse() - heap
	t.Logf("%d keys in %v: the heap went from %d to %d bytes", keys, took.Round(time.Millisecond), heap, heap+grown)
	if limit := int64(1 << 20); grown > limit {
		t.Errorf("the heap has grown by %d bytes, %d for each key", grown, grown/int64(keys))
	}
	if channels := client.PubSubChannels(ctx, "*").Val(); len(channels) != 1 {
		t.Errorf("%d channels are subscribed, want the control channel alone", len(channels))
	}
}

func TestEveryKeyInRedisExpires(t *testing.T) {
	f := newFleet[string](t, 2, distributed.WithMaxAge(time.Hour), distributed.WithFlightTimeout(time.Hour), distributed.WithLeaseTTL(time.Minute))
	client := f.client()
	ctx := context.Background()
	look := func(when string, names ...string) {
		t.Helper()
		all, forever := keysWithoutTTL(t, client)
		if len(forever) > 0 {
			t.Errorf("%s: without a TTL: %q", when, forever)
		}
		for _, name := range names {
			if !strings.Contains(strings.Join(all, "\n"), name) {
				t.Errorf("%s: there is no %s, only %q", when, name, all)
			}
		}
	}
	if _, role, err := f.groups[0].Do(ctx, "alone", func(context.Context) (string, error) {
		look("led", ":lease", ":attempts") // one that joins would give the lease a TTL
		return "v", nil
	}); role != coalesce.Leader || err != nil {
		t.Error(role, err)
	}
	f.overlapping(1, "k", func(context.Context) (string, error) {
		f.waitFollowers("k", 1)
		look("in flight", ":lease", ":attempts")
		if err := f.groups[0].Forget(ctx, "k"); err != nil {
			t.Error(err)
		}
		look("forgotten", ":attempts")
		return "v", nil
	})
	f.overlapping(1, "other", value)
	f.quiet()
	look("ended", ":result:", ":latest")

	client.FlushDB(ctx)
	_, _, err := f.groups[0].Do(ctx, "lost", func(ctx context.Context) (string, error) {
		client.Del(ctx, "fleetcall:test:{lost}:lease")
		return "", context.Canceled // which abandons the flight
	})
	if !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	eventually(t, "the flight is given up", func() bool { return len(client.Keys(ctx, "*:over:*").Val()) == 1 })
	look("given up without a lease", ":over:")
}

// TestIdleSubscriptionsAreBounded follows one flight on each of many keys.
func TestIdleSubscriptionsAreBounded(t *testing.T) {
	const keys, bound = 1_500, 1_024
	f := newFleet[string](t, 1, distributed.WithFlightTimeout(time.Minute))
	client := f.client()
	ctx := context.Background()
	goroutines := runtime.NumGoroutine()
	pipe := client.Pipeline()
	for i := range keys {
		pipe.Set(ctx, fmt.Sprintf("fleetcall:test:{key-%d}:lease", i), foreignHeld(time.Minute), time.Minute)
	}
	if _, err := pipe.Exec(ctx); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for i := range keys {
		wg.Go(func() {
			v, role, err := f.groups[0].Do(ctx, fmt.Sprintf("key-%d", i), func(context.Context) (string, error) { return "own", nil })
			if v != "theirs" || role != coalesce.RemoteFollower || err != nil {
				t.Errorf("key %d: %q, %v, %v", i, v, role, err)
			}
		})
	}
	subscribed := func() int { return len(client.PubSubChannels(ctx, "fleetcall:test:{*").Val()) }
	eventually(t, "every follower is subscribed", func() bool { return subscribed() == keys })
	for i := range keys {
		pipe.Publish(ctx, fmt.Sprintf("fleetcall:test:{key-%d}@0", i), foreignOutcome("json", `"theirs"`))
	}
	if _, err := pipe.Exec(ctx); err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	eventually(t, "idle channels are within their bound", func() bool { return subscribed() <= bound })
	if n := subscribed(); n < bound {
		t.Errorf("%d channels are kept, not %d: a hot key would lose its own", n, bound)
	}
	untilSteady(t, goroutines)
	if *full {
		time.Sleep(30 * time.Second) // what is promised for an idle channel
		eventually(t, "no idle channel is left", func() bool { return subscribed() == 0 })
	}
}

// TestPayloadsAtTheirLimitsTravelAsPromised has sizes in encoded bytes.
func TestPayloadsAtTheirLimitsTravelAsPromised(t *testing.T) {
	t.Run("raw", func(t *testing.T) {
		testLimits(t, coalesce.Raw[[]byte](), func(size int) []byte { return []byte(strings.Repeat("x", size)) })
	})
	t.Run("JSON", func(t *testing.T) {
		testLimits(t, coalesce.JSON[string](), func(size int) string { return strings.Repeat("x", size-len(`""`)) })
	})
}

func testLimits[V any](t *testing.T, codec coalesce.Codec[V], result func(size int) V) {
	const inline, payload = 1_000, 50_000
	const asValue, asTooLarge, asNotice = 1, 5, 6
	l := newLimited[V](t, distributed.WithCodec(codec), distributed.WithInlineLimit(inline), distributed.WithPayloadLimit(payload))
	l.fly(t, result(100)) // the follower is subscribed now: it peeks for nothing
	header := len(foreignOutcome(codec.Name(), ""))
	for _, test := range []struct {
		size int
		kind byte
	}{
		{inline - 1, asValue}, {inline, asValue}, {inline + 1, asNotice},
		{payload - 1, asNotice}, {payload, asNotice}, {payload + 1, asTooLarge},
	} {
		message, runs, role, peeked := l.fly(t, result(test.size))
		wantRuns, wantRole := int32(1), coalesce.RemoteFollower
		if test.kind == asTooLarge {
			wantRuns, wantRole = 2, coalesce.Fallback
		}
		if message[1] != test.kind || test.kind == asValue && len(message) != header+test.size {
			t.Errorf("size %d: a message of kind %d with %d bytes, want kind %d", test.size, message[1], len(message), test.kind)
		}
		if runs != wantRuns || role != wantRole || peeked != 0 {
			t.Errorf("size %d: %d executions, the follower is %v and peeked %d times; want %d, %v, 0", test.size, runs, role, peeked, wantRuns, wantRole)
		}
	}
}

// limited has a leader and a follower, and what they send each other.
type limited[V any] struct {
	leader, follower *replica[V]
	client           *redis.Client
	messages         *redis.PubSub
	peeks, joins     atomic.Int64
}

func newLimited[V any](t *testing.T, opts ...distributed.Option) *limited[V] {
	t.Helper()
	server := redisrig.Start(t)
	l := &limited[V]{client: server.Client()}
	w := &tap{t: t, server: server, after: func(script string, _ []any, _ any, _ time.Duration) {
		switch script {
		case "peek":
			l.peeks.Add(1)
		case "join":
			l.joins.Add(1)
		}
	}}
	l.leader, l.follower = wiredGroup[V](w, opts...), wiredGroup[V](w, opts...)
	l.messages = l.client.Subscribe(t.Context(), "fleetcall:test:{k}@0")
	t.Cleanup(func() { _ = l.messages.Close() })
	if _, err := l.messages.Receive(t.Context()); err != nil {
		t.Fatal(err)
	}
	return l
}

// fly lets the follower join a flight with this result. It returns the flight's
// message, the number of executions, and the follower's role and peeks.
func (l *limited[V]) fly(t *testing.T, want V) (message string, runs int32, role coalesce.Role, peeked int64) {
	t.Helper()
	ctx := t.Context()
	subscribed := func() int64 { return l.client.PubSubNumSub(ctx, "fleetcall:test:{k}@0").Val()["fleetcall:test:{k}@0"] }
	var ran atomic.Int32
	fn := func(context.Context) (V, error) {
		if ran.Add(1) == 1 {
			eventually(t, "the follower waits", func() bool { return l.joins.Load() >= 2 && subscribed() == 2 })
		}
		return want, nil
	}
	l.joins.Store(0)
	leads := make(chan answer[V], 1)
	go func() {
		var a answer[V]
		a.val, a.role, a.err = l.leader.Do(ctx, "k", fn)
		leads <- a
	}()
	eventually(t, "the leader has joined", func() bool { return l.joins.Load() == 1 })
	before := l.peeks.Load()
	v, role, err := l.follower.Do(ctx, "k", fn)
	for _, a := range []answer[V]{<-leads, {v, role, err}} {
		if fmt.Sprint(a.val) != fmt.Sprint(want) || a.err != nil {
			t.Errorf("%v got another result, %v", a.role, a.err)
		}
	}
	m, err := l.messages.ReceiveMessage(ctx)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the lease is released", func() bool {
		lease := leaseOf(l.client, "test", "k")
		return lease == "" || lease[0] == '!'
	})
	return m.Payload, ran.Load(), role, l.peeks.Load() - before
}

// TestNoTwoKeysShareAFlightWhateverTheirBytes holds the flights of all keys
// open at once, joined by both replicas.
func TestNoTwoKeysShareAFlightWhateverTheirBytes(t *testing.T) {
	var all []byte
	keys := []string{"", "{", "}", "{}", "}{", "a}b", "{a}b", "a\nb", "a\r\nb", "a b", strings.Repeat("x", 200), strings.Repeat("x", 201), strings.Repeat("y", 1<<20)}
	for b := range 256 {
		all = append(all, byte(b))
	}
	for b := range all {
		if s := string(all[b : b+1]); s != "{" && s != "}" {
			keys = append(keys, s)
		}
	}
	// What the hash of a key looks like, and what Redis calls its parts.
	keys = append(keys, string(all), "sha256:", "sha256:"+strings.Repeat("0", 64),
		"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", // of ""
		"control", "a:lease", "a}:lease", "a:result:"+foreignFlight)

	f := newFleet[int](t, 2)
	ctx := context.Background()
	release := make(chan struct{})
	runs := make([]atomic.Int32, len(keys))
	var wg sync.WaitGroup
	for _, g := range f.groups {
		for i, key := range keys {
			wg.Go(func() {
				v, _, err := g.Do(ctx, key, func(context.Context) (int, error) {
					runs[i].Add(1)
					<-release
					return i, nil
				})
				if v != i || err != nil {
					t.Errorf("%.40q got the result of key %d, %v", key, v, err)
				}
			})
		}
	}
	eventually(t, "both replicas have joined every key", func() bool { return f.joins.Load() >= int64(2*len(keys)) })
	// A join is counted when Redis has answered it, before its caller knows.
	for i := range runs {
		eventually(t, "the function runs", func() bool { return runs[i].Load() > 0 })
	}
	for i, key := range keys {
		if n := runs[i].Load(); n != 1 {
			t.Errorf("%.40q: %d executions", key, n)
		}
		if err := f.groups[0].Forget(ctx, key); err != nil {
			t.Errorf("%.40q: %v", key, err)
		}
		// The flight of before runs still: who gets the new value has a new one.
		if v, role, err := f.groups[0].Do(ctx, key, func(context.Context) (int, error) { return -1, nil }); v != -1 || role != coalesce.Leader || err != nil {
			t.Errorf("%.40q after Forget: %d, %v, %v", key, v, role, err)
		}
	}
	close(release)
	wg.Wait()
	for i, key := range keys {
		if n := runs[i].Load(); n != 1 {
			t.Errorf("%.40q: %d executions", key, n)
		}
	}
}
