package distributed_test

import (
	"context"
	"errors"
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

// calm is a Redis timeout that a busy machine keeps.
const calm = 10 * time.Second

// TestAHundredGroupsCostNoConnectionAndNoGoroutine measures what Groups cost beside
// one, after each has made a flight.
func TestAHundredGroupsCostNoConnectionAndNoGoroutine(t *testing.T) {
	server := redisrig.Start(t)
	admin := server.Client()
	ctx := context.Background()
	f := openFleet(t, server)
	connections := func() int {
		list, err := admin.ClientList(ctx).Result()
		if err != nil {
			t.Fatal(err)
		}
		return strings.Count(list, "\n")
	}
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	call := func(g *distributed.Group[string]) {
		if v, role, err := g.Do(ctx, "k", value); v != "v" || role != coalesce.Leader || err != nil {
			t.Fatalf("%q, %v, %v", v, role, err)
		}
	}
	first := newGroup[string](t, f, "first")
	var many sync.WaitGroup
	for i := range 50 { // as many connections as it is going to use
		many.Go(func() { _, _, _ = first.Do(ctx, fmt.Sprint("k", i), value) })
	}
	many.Wait()
	call(first)
	eventually(t, "it is subscribed", func() bool { return len(controlChannels("fleetcall", admin)) == 1 })
	goroutines := func() int { return runtime.NumGoroutine() }
	eventually(t, "the flight has ended", func() bool {
		return f.Stats().Distributed.ActiveFlights == 0 && admin.Exists(ctx, "fleetcall:first:{k}:lease").Val() == 0
	})
	before, conns, bytes := goroutines(), connections(), heap()

	const n = 100
	groups := make([]*distributed.Group[string], n)
	for i := range groups {
		groups[i] = newGroup[string](t, f, fmt.Sprint("group-", i))
		call(groups[i])
	}
	eventually(t, "the flights have ended", func() bool { return f.Stats().Distributed.ActiveFlights == 0 })
	eventually(t, "no goroutine is left", func() bool { return goroutines() <= before })
	if more := connections() - conns; more > 0 {
		t.Errorf("%d Groups have %d more connections than one", n, more)
	}
	each := (int64(heap()) - int64(bytes)) / n
	t.Logf("%d Groups beside one: %d connections, %d goroutines, %d bytes each", n, connections()-conns, goroutines()-before, each)
	if each > 16<<10 {
		t.Errorf("a Group has %d bytes", each)
	}
	if st := f.Stats(); len(st.Groups) != n+1 || st.Distributed.Leaders != n+51 || st.Groups["group-7"].Distributed.Leaders != 1 {
		t.Errorf("the fleet's stats: %d groups, %d leaders", len(st.Groups), st.Distributed.Leaders)
	}
	runtime.KeepAlive(groups)
}

func TestOpenAndNewGroupRefuseWhatMakesNoSense(t *testing.T) {
	client := redis.NewClient(&redis.Options{Addr: "127.0.0.1:1"})
	defer client.Close()
	for want, open := range map[string]func() (*distributed.Fleet, error){
		"client is nil":    func() (*distributed.Fleet, error) { return distributed.Open(nil) },
		"redis.NewClient":  func() (*distributed.Fleet, error) { return distributed.Open((*redis.Client)(nil)) },
		"NewClusterClient": func() (*distributed.Fleet, error) { return distributed.Open((*redis.ClusterClient)(nil)) },
		"option 2 is nil":  func() (*distributed.Fleet, error) { return distributed.Open(client, distributed.WithFailOpen(), nil) },
		"over the lease TTL": func() (*distributed.Fleet, error) {
			return distributed.Open(client, distributed.WithRedisTimeout(time.Minute))
		},
		"give it to NewGroup": func() (*distributed.Fleet, error) {
			return distributed.Open(client, distributed.WithCodec(coalesce.JSON[int]()))
		},
		"hook 1 is nil": func() (*distributed.Fleet, error) { return distributed.Open(client, distributed.WithHooks(nil)) },
		"hook 2 implements none": func() (*distributed.Fleet, error) {
			return distributed.Open(client, distributed.WithHooks(callOnly{}, "hook"))
		},
	} {
		if f, err := open(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
			if f != nil {
				_ = f.Close(context.Background())
			}
		}
	}
	f, err := distributed.Open(client, distributed.WithRedisTimeout(time.Second))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close(context.Background())
	for want, make := range map[string]func() error{
		"the Fleet is nil":  func() error { _, err := distributed.NewGroup[int](nil, "n"); return err },
		"0 bytes, not 1 to": func() error { _, err := distributed.NewGroup[int](f, ""); return err },
		"101 bytes":         func() error { _, err := distributed.NewGroup[int](f, strings.Repeat("n", 101)); return err },
		"option 1 is nil":   func() error { _, err := distributed.NewGroup[int](f, "n", nil); return err },
		"over the lease TTL": func() error {
			_, err := distributed.NewGroup[int](f, "n", distributed.WithLeaseTTL(time.Millisecond))
			return err
		},
		"codec is nil": func() error { _, err := distributed.NewGroup[int](f, "n", distributed.WithCodec[int](nil)); return err },
	} {
		if err := make(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
	newGroup[int](t, f, "n")
	if _, err := distributed.NewGroup[int](f, "n", distributed.WithLeaseTTL(time.Minute)); err == nil || !strings.Contains(err.Error(), "another lease TTL") {
		t.Errorf("the same name with another lease TTL: %v", err)
	}
}

func TestWithRefusesWhatAllCallsHaveTogether(t *testing.T) {
	g := newGroup[int](t, openFleet(t, redisrig.Start(t)), "n")
	for want, opt := range map[string]distributed.GroupOption{
		"WithMaxAge":            distributed.WithMaxAge(-1),
		"option 1 is nil":       nil,
		"not take WithLeaseTTL": distributed.WithLeaseTTL(time.Minute),
		"not take WithCodec":    distributed.WithCodec(coalesce.JSON[int]()),
		"not take AllowLossy":   distributed.AllowLossy(),
	} {
		w := g.With(opt)
		_, role, err := w.Do(context.Background(), "k", func(context.Context) (int, error) { return 1, nil })
		if err == nil || !strings.Contains(err.Error(), want) || role != 0 {
			t.Errorf("Do of With: %v, %v, want %q", role, err, want)
		}
		if err := w.Forget(context.Background(), "k"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Forget of With: %v", err)
		}
	}
}

func TestGroupsOfOneFleetDoNotShareFlights(t *testing.T) {
	server := redisrig.Start(t)
	f := openFleet(t, server)
	a, b := newGroup[string](t, f, "a"), newGroup[string](t, f, "b")
	v, role, err := a.Do(context.Background(), "k", func(ctx context.Context) (string, error) {
		v, role, err := b.Do(ctx, "k", value)
		return v + " " + role.String(), err
	})
	if v != "v leader" || role != coalesce.Leader || err != nil {
		t.Errorf("%q, %v, %v", v, role, err)
	}
	if err := b.Forget(context.Background(), "k", "l", "m"); err != nil {
		t.Error(err)
	}
}

func TestForgetReachesTheGroupOfThatNameAlone(t *testing.T) {
	server := redisrig.Start(t)
	here, there := openFleet(t, server), openFleet(t, server)
	admin := server.Client()
	ctx := context.Background()
	eventually(t, "both hear", func() bool { return len(controlChannels("fleetcall", admin)) == 2 })
	named, other := newGroup[string](t, there, "named"), newGroup[string](t, there, "other")
	release := make(chan struct{})
	running := func(g *distributed.Group[string]) chan error {
		began, done := make(chan struct{}), make(chan error, 1)
		go func() {
			_, _, err := g.Do(ctx, "k", func(context.Context) (string, error) { close(began); <-release; return "v", nil })
			done <- err
		}()
		<-began
		return done
	}
	first, second := running(named), running(other)
	if err := newGroup[string](t, here, "named").Forget(ctx, "other key", "k"); err != nil {
		t.Fatal(err)
	}
	// The notice has its way to go; a call that comes after it starts a new flight.
	eventually(t, "the other replica has forgotten it", func() bool {
		ctx, leave := context.WithTimeout(ctx, 20*time.Millisecond)
		defer leave()
		_, role, _ := named.Do(ctx, "k", value)
		return role == coalesce.Leader
	})
	leaving, leave := context.WithTimeout(ctx, 20*time.Millisecond)
	defer leave()
	if _, role, err := other.Do(leaving, "k", value); role != coalesce.LocalFollower || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the group of another name: %v, %v", role, err)
	}
	close(release)
	if err := errors.Join(<-first, <-second); err != nil {
		t.Error(err)
	}
}

func TestWithChangesOneCallAndSharesTheFlights(t *testing.T) {
	server := redisrig.Start(t)
	g := newGroup[string](t, openFleet(t, server), "g", distributed.WithMaxAge(time.Hour))
	ctx := context.Background()
	if _, role, err := g.Do(ctx, "k", value); role != coalesce.Leader || err != nil {
		t.Fatalf("%v, %v", role, err)
	}
	eventually(t, "the value is kept", func() bool { return server.Client().Exists(ctx, "fleetcall:g:{k}:latest").Val() == 1 })
	if _, role, err := g.Do(ctx, "k", value); role != coalesce.Cached || err != nil {
		t.Errorf("MaxAge of the group: %v, %v", role, err)
	}
	if _, role, err := g.With(distributed.WithMaxAge(0)).Do(ctx, "k", value); role != coalesce.Leader || err != nil {
		t.Errorf("no MaxAge for this call: %v, %v", role, err)
	}
	if n := g.Stats().Local.Requests; n != 3 {
		t.Errorf("%d requests are counted together, not 3", n)
	}
}

func TestEachCallerHasItsOwnFlightTimeout(t *testing.T) {
	server := redisrig.Start(t)
	g := newGroup[string](t, openFleet(t, server), "g")
	brief := g.With(distributed.WithFlightTimeout(50 * time.Millisecond))
	ctx := context.Background()
	release, began := make(chan struct{}), make(chan struct{})
	long := make(chan error, 1)
	go func() {
		_, _, err := g.Do(ctx, "led by the patient", func(context.Context) (string, error) { close(began); <-release; return "v", nil })
		long <- err
	}()
	<-began
	if _, role, err := brief.Do(ctx, "led by the patient", value); role != coalesce.LocalFollower || !errors.Is(err, coalesce.ErrFlightTimeout) {
		t.Errorf("a follower with less time: %v, %v", role, err)
	}
	close(release)
	if err := <-long; err != nil {
		t.Error(err)
	}
	var runs atomic.Int32
	hangs := func(ctx context.Context) (string, error) {
		runs.Add(1)
		<-ctx.Done()
		return "", ctx.Err()
	}
	ended := make(chan error, 1)
	go func() {
		_, _, err := brief.Do(ctx, "led by the hasty", hangs)
		ended <- err
	}()
	eventually(t, "it runs", func() bool { return runs.Load() == 1 })
	if v, _, err := g.Do(ctx, "led by the hasty", value); v != "v" || err != nil {
		t.Errorf("a follower with more time: %q, %v", v, err)
	}
	if err := <-ended; !errors.Is(err, coalesce.ErrFlightTimeout) {
		t.Errorf("the leader with less time: %v", err)
	}
}

func TestFailClosedIsEachCallersOwn(t *testing.T) {
	server := redisrig.Start(t)
	f := openFleet(t, server, distributed.WithRedisTimeout(50*time.Millisecond), distributed.WithLeaseTTL(time.Second))
	g := newGroup[string](t, f, "g")
	closed := g.With(distributed.WithFailClosed())
	server.Kill()
	ctx := context.Background()
	if _, role, err := closed.Do(ctx, "k", value); !errors.Is(err, coalesce.ErrUnavailable) || role != 0 {
		t.Errorf("fail closed: %v, %v", role, err)
	}
	if v, role, err := g.Do(ctx, "k", value); v != "v" || role != coalesce.Fallback || err != nil {
		t.Errorf("fail open: %q, %v, %v", v, role, err)
	}
	if v, role, err := closed.With(distributed.WithFailOpen()).Do(ctx, "k", value); v != "v" || role != coalesce.Fallback || err != nil {
		t.Errorf("taken back: %q, %v, %v", v, role, err)
	}
}

func TestACallerOfAClosedFleetIsToldSo(t *testing.T) {
	f := openFleet(t, redisrig.Start(t))
	g := newGroup[string](t, f, "g")
	if err := f.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	if _, _, err := g.Do(context.Background(), "k", value); !errors.Is(err, coalesce.ErrClosed) {
		t.Errorf("Do: %v", err)
	}
	if err := g.Forget(context.Background(), "k"); !errors.Is(err, coalesce.ErrClosed) {
		t.Errorf("Forget: %v", err)
	}
	if _, err := distributed.NewGroup[int](f, "late"); !errors.Is(err, coalesce.ErrClosed) {
		t.Errorf("NewGroup: %v", err)
	}
}
