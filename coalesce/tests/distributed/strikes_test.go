package distributed_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/distributed"
	"github.com/fleetcall/fleetcall/internal/rig/redisrig"
)

// These are about leaders that live, whatever becomes of their leases: none of them may
// count as one that died.

// TestEvictedLeasesAreNoDeaths has Redis lose the lease of each of several leaders, and
// keep what it knows of their attempts.
func TestEvictedLeasesAreNoDeaths(t *testing.T) {
	f := newFleet[string](t, 1, distributed.WithMaxTakeovers(0), distributed.WithLeaseTTL(time.Minute))
	client, ctx := f.client(), context.Background()
	end := make(chan struct{})
	var leaders []<-chan answer[string]
	for range 4 {
		began := make(chan struct{})
		leader := f.join(distributed.WithMaxTakeovers(0), distributed.WithLeaseTTL(time.Minute))
		leaders = append(leaders, calling(ctx, leader.Group, "k", func(context.Context) (string, error) {
			close(began)
			<-end
			return "v", nil
		}))
		select {
		case <-began:
		case <-time.After(calm):
			t.Fatal("it does not lead")
		}
		client.Del(ctx, "fleetcall:test:{k}:lease")
	}
	close(end)
	for _, leader := range leaders {
		if got := comesBack(t, "a leader", leader); got.val != "v" || got.err != nil {
			t.Errorf("%+v", got)
		}
	}
	eventually(t, "no attempt is left", func() bool { return client.Exists(ctx, "fleetcall:test:{k}:attempts").Val() == 0 })
}

// TestARedisThatEvictsHurtsNobody shares a Redis that is full with a cache, under every
// policy that evicts. Functions outlast their leases.
func TestARedisThatEvictsHurtsNobody(t *testing.T) {
	t.Parallel()
	policies := []string{"volatile-ttl", "allkeys-random", "volatile-lru", "volatile-lfu", "volatile-random", "allkeys-lru", "allkeys-lfu"}
	if testing.Short() {
		policies = policies[:2]
	}
	for _, policy := range policies {
		t.Run(policy, func(t *testing.T) { evicting(t, policy) })
	}
}

func evicting(t *testing.T, policy string) {
	const ttl = 600 * time.Millisecond
	server := redisrig.Start(t, "--maxmemory", "4mb", "--maxmemory-policy", policy)
	admin, ctx := server.Client(), context.Background()
	stop, stopped := make(chan struct{}), make(chan struct{})
	fill := func(n int) {
		p := admin.Pipeline()
		for i := range 20 {
			p.Set(ctx, fmt.Sprint("cache:", n*20+i), strings.Repeat("x", 1000), time.Hour)
		}
		_, _ = p.Exec(ctx)
	}
	evicted := func() bool { return !strings.Contains(admin.Info(ctx, "stats").Val(), "evicted_keys:0\r") }
	n := 0
	for ; !evicted(); n++ {
		fill(n)
	}
	go func() {
		defer close(stopped)
		for ; ; n++ {
			select {
			case <-stop:
				return
			case <-time.After(10 * time.Millisecond):
				fill(n)
			}
		}
	}()
	opts := []distributed.Option{distributed.WithLeaseTTL(ttl), distributed.WithRedisTimeout(ttl), distributed.WithFlightTimeout(10 * ttl), distributed.WithMaxTakeovers(1)}
	var wg sync.WaitGroup
	var fleets []*distributed.Fleet
	for i := range 8 {
		fleets = append(fleets, openFleet(t, server, opts...))
		g := newGroup[string](t, fleets[i], "g")
		for k := range 4 {
			wg.Go(func() {
				time.Sleep(time.Duration(i) * ttl / 5) // replicas do not keep step
				for range 4 {
					if v, role, err := g.Do(ctx, fmt.Sprint("report", k), func(context.Context) (string, error) { time.Sleep(2 * ttl); return "v", nil }); v != "v" || err != nil {
						t.Errorf("%q, %v, %v", v, role, err)
					}
				}
			})
		}
	}
	wg.Wait()
	close(stop)
	<-stopped
	var lost, leaders uint64
	for _, f := range fleets {
		d := f.Stats().Distributed
		lost, leaders = lost+d.LeaseLost, leaders+d.Leaders
	}
	t.Logf("%d executions, %d lost their lease", leaders, lost)
	if lost == 0 && policy == "volatile-ttl" {
		t.Error("nothing was tested")
	}
}

// TestHangsOfRedisAreNoDeaths has Redis hang for longer than a lease while a flight ends,
// again and again within the flight timeout.
func TestHangsOfRedisAreNoDeaths(t *testing.T) {
	t.Parallel()
	const ttl = 600 * time.Millisecond
	server := redisrig.Start(t)
	admin, ctx := server.Client(), context.Background()
	g := newGroup[string](t, openFleet(t, server, distributed.WithLeaseTTL(ttl), distributed.WithRedisTimeout(ttl/3), distributed.WithMaxTakeovers(1)), "g")
	for range 3 {
		began, end := make(chan struct{}), make(chan struct{})
		leader := calling(ctx, g, "hot", func(context.Context) (string, error) { close(began); <-end; return "v", nil })
		<-began
		server.Freeze()
		close(end)
		if got := comesBack(t, "the leader", leader); got.val != "v" || got.err != nil {
			t.Errorf("%+v", got)
		}
		time.Sleep(ttl + ttl/4) // the lease runs out while nobody can tell Redis
		server.Thaw()
		eventually(t, "Redis is used again", func() bool {
			_, role, err := g.Do(ctx, "other", value)
			return role == coalesce.Leader && err == nil
		})
		eventually(t, "Redis has been told of the end", func() bool {
			return admin.Exists(ctx, "fleetcall:g:{hot}:lease", "fleetcall:g:{hot}:attempts").Val() == 0
		})
	}
	if v, role, err := g.Do(ctx, "hot", value); v != "v" || err != nil {
		t.Errorf("nobody died: %q, %v, %v", v, role, err)
	}
}

// stoppable is a hook that lets nothing pass while its process is stopped.
type stoppable struct {
	renewals
	mu   sync.Mutex
	stop chan struct{} // closed when it goes on; nil: it is not stopped
}

// forget drops what it has said.
func (r renewals) forget() {
	for len(r) > 0 {
		<-r
	}
}

func (s *stoppable) stops() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stop = make(chan struct{})
}

func (s *stoppable) goesOn() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stop != nil {
		close(s.stop)
		s.stop = nil
	}
}

func (s *stoppable) pass() {
	s.mu.Lock()
	stop := s.stop
	s.mu.Unlock()
	if stop != nil {
		<-stop
	}
}

func (s *stoppable) DialHook(next redis.DialHook) redis.DialHook { return next }

func (s *stoppable) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		s.pass()
		return next(ctx, cmd)
	}
}

func (s *stoppable) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		s.pass()
		return next(ctx, cmds)
	}
}

// TestALeaderThatIsStoppedPastItsLeaseAgainAndAgainHasNotDied has no takeover that may
// fail: one leader that counts as dead poisons the key.
func TestALeaderThatIsStoppedPastItsLeaseAgainAndAgainHasNotDied(t *testing.T) {
	t.Parallel()
	const ttl = 600 * time.Millisecond
	opts := []distributed.Option{distributed.WithLeaseTTL(ttl), distributed.WithRedisTimeout(ttl), distributed.WithMaxTakeovers(1)}
	f := newFleet[string](t, 1, opts...)
	client, ctx := f.client(), context.Background()
	end, ended := make(chan struct{}), make(chan answer[string], 2)
	endAll := sync.OnceFunc(func() { close(end) })
	defer endAll()
	lead := func() *stoppable {
		hook := &stoppable{renewals: make(renewals, 10)}
		redisClient := redis.NewClient(&redis.Options{Addr: f.server.Addr})
		redisClient.AddHook(hook)
		g := openCalm[string](t, redisClient, append(opts, distributed.WithHooks(hook))...)
		t.Cleanup(func() { hook.goesOn(); _ = g.Close(ctx); _ = redisClient.Close() })
		began := make(chan struct{})
		go func() {
			var got answer[string]
			got.val, got.role, got.err = g.Do(ctx, "k", func(context.Context) (string, error) { close(began); <-end; return "v", nil })
			ended <- got
		}()
		select {
		case <-began:
		case got := <-ended:
			t.Fatalf("it does not lead: %+v", got)
		}
		return hook
	}
	leaseOf := func() string { return client.Get(ctx, "fleetcall:test:{k}:lease").Val() }
	first := lead()
	stop := func() {
		first.stops()
		eventually(t, "the first leader's lease has run out", func() bool { return leaseOf() == "" })
	}
	goOn := func() { first.renewals.forget(); first.goesOn() }
	stop()
	goOn()
	<-first.renewals // nobody has led meanwhile: it has its lease again
	stop()
	second := lead() // which takes over
	goOn()
	eventually(t, "both are counted, and neither is due", func() bool {
		now := client.Time(ctx).Val().UnixMilli()
		due := client.HVals(ctx, "fleetcall:test:{k}:attempts").Val()
		return len(due) == 2 && due[0] > fmt.Sprint(now) && due[1] > fmt.Sprint(now)
	})
	second.stops() // the second is stopped as well, and the first takes its lease again
	eventually(t, "the first has the lease", func() bool { return leaseOf() != "" && len(first.renewals) > 0 })
	second.goesOn()
	endAll()
	for range 2 {
		if got := comesBack(t, "a leader", ended); got.val != "v" || got.err != nil {
			t.Errorf("%+v", got)
		}
	}
	eventually(t, "no attempt is left", func() bool { return client.Exists(ctx, "fleetcall:test:{k}:attempts").Val() == 0 })
}

// TestAttemptsOfAnotherVersionAreReplaced has the count that an earlier version wrote.
func TestAttemptsOfAnotherVersionAreReplaced(t *testing.T) {
	f := newFleet[string](t, 1)
	f.set("fleetcall:test:{k}:attempts", "3", time.Minute)
	if v, role, err := f.groups[0].Do(context.Background(), "k", value); v != "v" || role != coalesce.Leader || err != nil {
		t.Errorf("%q, %v, %v", v, role, err)
	}
}
