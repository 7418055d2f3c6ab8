package distributed_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/distributed"
	"github.com/fleetcall/fleetcall/internal/rig/redisrig"
)

// slowTail is a client's hook that holds the reply to one command in so many for so long,
// and makes each round trip longer.
type slowTail struct {
	every   int64 // 0: none
	hold    time.Duration
	longer  time.Duration
	replies atomic.Int64
	held    atomic.Int64 // commands
}

func (*slowTail) DialHook(next redis.DialHook) redis.DialHook { return next }

func (s *slowTail) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		err := next(ctx, cmd)
		s.wait(cmd)
		return err
	}
}

func (s *slowTail) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		err := next(ctx, cmds)
		s.wait(cmds...)
		return err
	}
}

func (s *slowTail) wait(cmds ...redis.Cmder) {
	time.Sleep(s.longer) // every reply's way
	if s.every > 0 && s.replies.Add(1)%s.every == 0 {
		for _, cmd := range cmds {
			if scriptOf(cmd) != "" {
				s.held.Add(int64(callersKeys(cmd)))
			}
		}
		time.Sleep(s.hold) // the slow one's
	}
}

// onSlow starts a replica whose client has the hook.
func onSlow(t *testing.T, server *redisrig.Server, hook redis.Hook, opts ...distributed.Option) *replica[string] {
	t.Helper()
	client := redis.NewClient(&redis.Options{Addr: server.Addr, MaxRetries: -1})
	client.AddHook(hook)
	g, err := open[string](client, opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := g.Close(context.Background()); err != nil {
			t.Errorf("Close: %v", err)
		}
		_ = client.Close()
	})
	return g
}

// TestASlowTailHurtsNobodyElse holds one reply in a hundred for longer than the Redis
// timeout. Those whose command it is fall back; nobody else does.
func TestASlowTailHurtsNobodyElse(t *testing.T) {
	t.Parallel()
	var told toldLog
	tail := &slowTail{every: 100, hold: 3 * time.Second}
	g := onSlow(t, redisrig.Start(t), tail, distributed.WithRedisTimeout(2*time.Second), distributed.WithHooks(health{log: &told}))
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			for j := range 60 {
				if v, _, err := g.Do(context.Background(), fmt.Sprint("k", i, "-", j), value); v != "v" || err != nil {
					t.Errorf("%q, %v", v, err)
				}
			}
		})
	}
	wg.Wait()
	st := g.Stats().Distributed
	if st.Fallbacks == 0 || int64(st.Fallbacks) > tail.held.Load() {
		t.Errorf("%d of 1,200 callers fell back, and commands of %d were held", st.Fallbacks, tail.held.Load())
	}
	if lines := told.all(); len(lines) != 0 {
		t.Errorf("the server went %v", lines)
	}
	t.Logf("%d fallbacks, commands of %d callers held: %v", st.Fallbacks, tail.held.Load(), st.RedisErrorsBy)
}

// TestACutSubscriptionIsNoStampede cuts the subscriptions of a replica that follows
// thousands of flights over a slow link: their looks wait for each other for much longer than
// the Redis timeout.
func TestACutSubscriptionIsNoStampede(t *testing.T) {
	t.Parallel()
	const followers, redisTimeout = 5_000, 3 * time.Second
	ctx := context.Background()
	f := newFleet[string](t, 0)
	near := onSlow(t, f.server, &slowTail{}, distributed.WithRedisTimeout(10*time.Second), distributed.WithLeaseTTL(time.Minute), distributed.WithFlightTimeout(time.Hour))
	far := onSlow(t, f.server, &slowTail{longer: 540 * time.Millisecond}, distributed.WithRedisTimeout(redisTimeout), distributed.WithLeaseTTL(time.Minute), distributed.WithFlightTimeout(time.Hour))
	end := make(chan struct{})
	var leads, wg sync.WaitGroup
	leads.Add(followers)
	for i := range followers {
		wg.Go(func() {
			_, _, err := near.Do(ctx, fmt.Sprint("k", i), func(context.Context) (string, error) { leads.Done(); <-end; return "v", nil })
			if err != nil {
				t.Error(err)
			}
		})
	}
	leads.Wait()
	for i := range followers {
		wg.Go(func() {
			if v, _, err := far.Do(ctx, fmt.Sprint("k", i), func(context.Context) (string, error) { return "own", nil }); err != nil {
				t.Errorf("%q, %v", v, err)
			}
		})
	}
	eventually(t, "all follow", func() bool {
		channels, err := f.client().PubSubChannels(ctx, "fleetcall:test:*").Result()
		return err == nil && len(channels) == followers
	})
	if err := f.client().ClientKillByFilter(ctx, "TYPE", "pubsub").Err(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "all are subscribed again", func() bool {
		channels, err := f.client().PubSubChannels(ctx, "fleetcall:test:*").Result()
		return err == nil && len(channels) == followers
	})
	time.Sleep(3 * redisTimeout) // fallbacks would come now
	close(end)
	wg.Wait()
	if st := far.Stats().Distributed; st.Followers != followers || st.Server != distributed.ServerUp {
		t.Errorf("%d of %d followed, %d fell back: %v, server %s", st.Followers, followers, st.Fallbacks, st.RedisErrorsBy, st.Server)
	}
}

// TestARefusedSubscriptionKeepsNoCaller has scripts work, and SUBSCRIBE not. No flight can be
// followed, and nobody waits to learn that.
func TestARefusedSubscriptionKeepsNoCaller(t *testing.T) {
	ctx := context.Background()
	server := redisrig.Start(t)
	if err := server.Client().ACLSetUser(ctx, "app", "on", ">pw", "~*", "&*", "+@all", "-subscribe").Err(); err != nil {
		t.Fatal(err)
	}
	var groups []*replica[string]
	for range 2 {
		client := redis.NewClient(&redis.Options{Addr: server.Addr, Username: "app", Password: "pw", MaxRetries: -1, ContextTimeoutEnabled: true})
		g, err := open[string](client, distributed.WithRedisTimeout(5*time.Second), distributed.WithLeaseTTL(10*time.Second))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			_ = g.Close(ctx)
			_ = client.Close()
		})
		eventually(t, "it knows that it cannot subscribe", func() bool { return g.Stats().Distributed.RedisErrorsBy["subscription"] > 0 })
		groups = append(groups, g)
	}
	leader, follower := groups[0], groups[1]
	began := time.Now()
	for i := range 12 {
		key := fmt.Sprint("k", i)
		leads, end := make(chan struct{}), make(chan struct{})
		done := make(chan struct{})
		go func() {
			defer close(done)
			_, _, _ = leader.Do(ctx, key, func(context.Context) (string, error) { close(leads); <-end; return "led", nil })
		}()
		<-leads
		if v, role, err := follower.Do(ctx, key, value); v != "v" || role != coalesce.Fallback || err != nil {
			t.Errorf("%q, %v, %v", v, role, err)
		}
		close(end)
		<-done
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("12 callers took %v: they waited for a Redis timeout", took)
	}
	for _, g := range groups {
		if st := g.Stats().Distributed; st.Server != distributed.ServerUp {
			t.Errorf("the server is %s: %v", st.Server, st.RedisErrorsBy)
		}
	}
}

// TestAnOutcomeIsTakenThoughTheServerRefusesToSubscribeSince has a follower look while the
// outcome arrives. When it goes on, the subscription is lost, and refused.
func TestAnOutcomeIsTakenThoughTheServerRefusesToSubscribeSince(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	server := redisrig.Start(t)
	admin := server.Client()
	if err := admin.ACLSetUser(ctx, "app", "on", ">pw", "~*", "&*", "+@all").Err(); err != nil {
		t.Fatal(err)
	}
	looks, goesOn := make(chan struct{}), make(chan struct{})
	first := true
	open := func(hook redis.Hook) *replica[string] {
		client := redis.NewClient(&redis.Options{Addr: server.Addr, Username: "app", Password: "pw"})
		client.AddHook(hook)
		g := openCalm[string](t, client, distributed.WithLeaseTTL(4*calm))
		t.Cleanup(func() {
			_ = g.Close(ctx)
			_ = client.Close()
		})
		return g
	}
	leader := open(&tap{t: t})
	follower := open(&tap{t: t, after: func(script string, _ []any, _ any, _ time.Duration) {
		if script == "peek" && first {
			first = false
			close(looks)
			<-goesOn
		}
	}})
	release := make(chan struct{})
	led := holds(leader, "k", release)
	follows := calling(ctx, follower.Group, "k", value)
	<-looks
	heard := admin.Subscribe(ctx, "fleetcall:test:{k}@0") // after the follower: it has the message then
	defer heard.Close()
	if _, err := heard.Receive(ctx); err != nil {
		t.Fatal(err)
	}
	close(release)
	comesBack(t, "the leader", led)
	if _, err := heard.ReceiveMessage(ctx); err != nil {
		t.Fatal(err)
	}
	// Messages of one connection come in order.
	for _, channel := range controlChannels("fleetcall", admin) {
		admin.Publish(ctx, channel, "garbage")
	}
	eventually(t, "the outcome has arrived", func() bool { return follower.Stats().Distributed.Garbage == 1 })
	if err := admin.ACLSetUser(ctx, "app", "-subscribe").Err(); err != nil {
		t.Fatal(err)
	}
	if err := admin.Do(ctx, "CLIENT", "KILL", "TYPE", "pubsub").Err(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is refused", func() bool { return follower.Stats().Distributed.RedisErrorsBy["subscription"] >= 2 })
	close(goesOn)
	if a := comesBack(t, "the follower", follows); a.val != "old" || a.role != coalesce.RemoteFollower || a.err != nil {
		t.Errorf("the follower: %+v", a)
	}
}
