package distributed_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/distributed"
	"github.com/fleetcall/fleetcall/internal/rig/redisrig"
)

const aclPassword = "secret"

// documentedUsers returns the rules of the README's users, those after ACL
// SETUSER and the name: for one server, and for a Cluster.
func documentedUsers(t *testing.T) (single, cluster []string) {
	t.Helper()
	readme, err := os.ReadFile("../../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	lines := regexp.MustCompile(`(?m)^ACL SETUSER fleetcall (.*)$`).FindAllStringSubmatch(string(readme), -1)
	if len(lines) != 2 {
		t.Fatalf("README.md has %d users, want one for a server and one for a Cluster", len(lines))
	}
	return strings.Fields(lines[0][1]), strings.Fields(lines[1][1])
}

// guarded is a Redis whose users may only do what they were given.
type guarded struct {
	t       *testing.T
	admin   redis.UniversalClient
	nodes   []*redis.Client // the admin's, of every node
	connect func(user string) redis.UniversalClient
	cluster *redisrig.Cluster // nil: one server

	// Steps hold it shared; one that must be alone holds it.
	steps sync.RWMutex
}

var guard = append([]string{"--acllog-max-len", "10000"}, redisrig.ACL("nobody off")...)

func guardedServer(t *testing.T) *guarded {
	server := redisrig.Start(t, guard...)
	admin := server.Client()
	return &guarded{t: t, admin: admin, nodes: []*redis.Client{admin}, connect: func(user string) redis.UniversalClient {
		return redis.NewClient(&redis.Options{
			Addr: server.Addr, Username: user, Password: aclPassword, MaxRetries: -1, ContextTimeoutEnabled: true, DisableIdentity: true,
			MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
		})
	}}
}

func guardedCluster(t *testing.T) *guarded {
	cluster := redisrig.StartCluster(t, guard...)
	g := &guarded{t: t, admin: cluster.Client(), cluster: cluster, connect: func(user string) redis.UniversalClient {
		return redis.NewClusterClient(&redis.ClusterOptions{
			Addrs: cluster.Addrs(), Username: user, Password: aclPassword, MaxRetries: -1, ContextTimeoutEnabled: true, DisableIdentity: true,
			MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
		})
	}}
	for _, node := range cluster.Nodes() {
		g.nodes = append(g.nodes, node.Client())
	}
	return g
}

// let gives a user the rules, with its name for the namespace.
func (g *guarded) let(user string, rules []string) {
	g.t.Helper()
	args := []any{"ACL", "SETUSER", user}
	for _, rule := range rules {
		rule = strings.Replace(rule, ">PASSWORD", ">"+aclPassword, 1)
		args = append(args, strings.Replace(rule, "fleetcall:", user+":", 1))
	}
	for _, node := range g.nodes {
		if err := node.Do(context.Background(), args...).Err(); err != nil {
			g.t.Fatal(err)
		}
	}
}

// denied returns what the user asked for and was refused.
func (g *guarded) denied(user string) []string {
	var all []string
	for _, node := range g.nodes {
		entries, err := node.ACLLog(context.Background(), 10_000).Result()
		if err != nil {
			g.t.Error(err)
		}
		for _, e := range entries {
			if e.Username == user {
				all = append(all, e.Reason+" "+e.Object)
			}
		}
	}
	return all
}

// tour is one user's way through all that the tier does. It ends when the user
// is refused something.
type tour struct {
	*guarded
	user    string
	problem atomic.Value // string; set by the step, or by a function that a Group still runs
}

func (r *tour) failed() string {
	problem, _ := r.problem.Load().(string)
	return problem
}

type stop struct{}

// step takes one step of a tour, which ends with the first one that fails.
func (r *tour) step(f func()) {
	if r.failed() == "" {
		r.steps.RLock()
		defer r.steps.RUnlock()
		defer stopped()
		f()
	}
}

// alone takes a step while no other user takes any.
func (r *tour) alone(f func()) {
	if r.failed() == "" {
		r.steps.Lock()
		defer r.steps.Unlock()
		defer stopped()
		f()
	}
}

func stopped() {
	if p := recover(); p != nil && p != any(stop{}) {
		panic(p)
	}
}

func (r *tour) fail(format string, args ...any) {
	r.problem.CompareAndSwap(nil, fmt.Sprintf(format, args...))
	panic(stop{})
}

// until waits for what comes unless the user is refused something.
func (r *tour) until(what string, ok func() bool) {
	for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if denied := r.denied(r.user); len(denied) > 0 {
			r.fail("%s: refused %q", what, denied)
		}
		if time.Now().After(deadline) {
			r.fail("%s: did not happen", what)
		}
	}
}

func (r *tour) want(what string, got answer[string], role coalesce.Role, val string) {
	if got.err != nil || got.val != val || got.role != role {
		r.fail("%s: %+v, want %s as %v", what, got, val, role)
	}
}

func (r *tour) do(g *distributed.Group[string], key, val string) answer[string] {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	var a answer[string]
	a.val, a.role, a.err = g.Do(ctx, key, func(context.Context) (string, error) { return val, nil })
	return a
}

func (r *tour) joined(key string) bool {
	return strings.HasPrefix(r.admin.Get(context.Background(), r.user+":{"+key+"}:lease").Val(), "1")
}

// flight has one group lead, and another follow. The function runs when it is
// followed.
func (r *tour) flight(leader, follower *distributed.Group[string], key string, fn func() (string, error)) (led, followed answer[string]) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	started, release := make(chan struct{}), make(chan struct{})
	var calls sync.WaitGroup
	answered := make(chan struct{})
	calls.Go(func() {
		led.val, led.role, led.err = leader.Do(ctx, key, func(context.Context) (string, error) {
			defer stopped()
			close(started)
			<-release
			return fn()
		})
	})
	unlocked := sync.OnceFunc(func() { close(release) })
	defer calls.Wait()
	defer cancel()
	defer unlocked()
	r.until(key+" is led", func() bool { return closed(started) })
	calls.Go(func() {
		followed.val, followed.role, followed.err = follower.Do(ctx, key, func(context.Context) (string, error) { return "its own", nil })
	})
	r.until(key+" is joined", func() bool { return r.joined(key) })
	unlocked()
	go func() {
		defer close(answered)
		calls.Wait()
	}()
	r.until(key+" is answered", func() bool { return closed(answered) })
	return led, followed
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// take goes through everything that the tier asks of Redis, as user.
func (g *guarded) take(user string) (problem string) {
	r := &tour{guarded: g, user: user}
	ctx := context.Background()
	var groups []*distributed.Group[string]
	var clients []redis.UniversalClient
	group := func(opts ...distributed.Option) *distributed.Group[string] {
		client := g.connect(user)
		opts = append([]distributed.Option{
			distributed.WithNamespace(user), distributed.WithRedisTimeout(5 * time.Second), distributed.WithLeaseTTL(5 * time.Second), distributed.WithInlineLimit(100),
		}, opts...)
		group, err := distributed.New[string](client, opts...)
		if err != nil {
			g.t.Fatal(err)
		}
		groups, clients = append(groups, group), append(clients, client)
		return group
	}
	defer func() {
		now, cancel := context.WithCancel(ctx)
		cancel() // what is under way was refused, or matters no more
		for i, group := range groups {
			_ = group.Close(now)
			_ = clients[i].Close()
		}
	}()
	var a, b, kept, brief *distributed.Group[string]
	r.step(func() {
		a, b = group(), group()
		kept = group(distributed.WithMaxAge(time.Hour))
		brief = group(distributed.WithLeaseTTL(600 * time.Millisecond))
		r.until("subscribed", func() bool {
			n := int64(0)
			for _, node := range g.nodes {
				n += node.PubSubNumSub(ctx, user+":control").Val()[user+":control"]
			}
			return n >= int64(len(groups))
		})
	})
	r.step(func() { r.want("lead", r.do(a, "lead", "v"), coalesce.Leader, "v") })
	for _, what := range []string{"cold", "hot"} {
		r.step(func() {
			var led, followed answer[string]
			led, followed = r.flight(a, b, "follow", func() (string, error) { return "v", nil })
			r.want(what, led, coalesce.Leader, "v")
			r.want(what, followed, coalesce.RemoteFollower, "v")
		})
	}
	r.step(func() {
		large := strings.Repeat("large", 100)
		led, followed := r.flight(b, a, "large", func() (string, error) { return large, nil })
		r.want("large", led, coalesce.Leader, large)
		r.want("large", followed, coalesce.RemoteFollower, large)
	})
	r.step(func() {
		led, followed := r.flight(b, a, "error", func() (string, error) { return "", errKnown })
		if !errors.Is(led.err, errKnown) || !errors.Is(followed.err, errKnown) || followed.role != coalesce.RemoteFollower {
			r.fail("error: %+v, %+v", led, followed)
		}
	})
	r.step(func() {
		r.want("kept", r.do(kept, "kept", "v"), coalesce.Leader, "v")
		r.until("finished", func() bool { return g.admin.Exists(ctx, user+":{kept}:latest").Val() == 1 })
		r.want("kept", r.do(kept, "kept", "new"), coalesce.Cached, "v")
	})
	r.step(func() {
		led, followed := r.flight(a, b, "forget", func() (string, error) {
			if err := b.Forget(ctx, "forget"); err != nil {
				return "", err
			}
			r.want("after Forget", r.do(b, "forget", "new"), coalesce.Leader, "new")
			return "old", nil
		})
		r.want("forgotten", led, coalesce.Leader, "old")
		r.want("forgotten", followed, coalesce.RemoteFollower, "old")
	})
	r.step(func() {
		leaving, leave := context.WithCancel(ctx)
		_, _, err := a.Do(leaving, "abandon", func(ctx context.Context) (string, error) {
			leave()
			<-ctx.Done()
			return "", ctx.Err()
		})
		if !errors.Is(err, context.Canceled) {
			r.fail("abandon: %v", err)
		}
		r.until("abandoned", func() bool {
			return g.admin.Exists(ctx, user+":{abandon}:lease", user+":{abandon}:attempts").Val() == 0
		})
	})
	r.step(func() {
		lease := user + ":{renew}:lease"
		led, followed := r.flight(brief, a, "renew", func() (string, error) {
			left := g.admin.PTTL(ctx, lease).Val()
			r.until("renewed", func() bool {
				before := left
				left = g.admin.PTTL(ctx, lease).Val()
				return left > before
			})
			return "v", nil
		})
		r.want("renew", led, coalesce.Leader, "v")
		r.want("renew", followed, coalesce.RemoteFollower, "v")
	})
	r.step(func() {
		// A connection that somebody waits on is pinged.
		g.admin.Set(ctx, user+":{takeover}:lease", "0"+foreignFlight+" 1 0 elsewhere", 500*time.Millisecond)
		r.want("takeover", r.do(brief, "takeover", "v"), coalesce.Leader, "v")
		if n := brief.Stats().Distributed.Takeovers; n != 1 {
			r.fail("takeover: %d", n)
		}
	})
	r.step(func() { r.crowd(b) })
	r.alone(func() {
		for range 5 { // another user may bring a script back before it is used
			for _, node := range g.nodes {
				node.ScriptFlush(ctx)
			}
			r.want("scripts flushed", r.do(a, "flush", "v"), coalesce.Leader, "v")
		}
	})
	r.step(func() {
		for i, group := range groups {
			if s := group.Stats().Distributed; s.RedisErrors+s.Fallbacks+s.Garbage != 0 {
				r.fail("group %d: %+v", i, s)
			}
		}
	})
	if g.cluster != nil {
		r.step(func() {
			key := "migrate-" + user
			m := g.cluster.BeginMigration("{"+key+"}", g.cluster.OtherMaster("{"+key+"}"))
			if got := r.do(a, key, "v"); got.val != "v" || got.err != nil {
				r.fail("migration: %+v", got)
			}
			m.Finish()
		})
	}
	r.step(func() {
		if denied := r.denied(user); len(denied) > 0 {
			r.fail("refused %q", denied)
		}
	})
	return r.failed()
}

// crowd makes so many channels idle that some are unsubscribed from.
func (r *tour) crowd(g *distributed.Group[string]) {
	const channels = 1100 // more than 1,024 stay on none
	ctx := context.Background()
	var names []string
	for i := range channels {
		names = append(names, fmt.Sprintf("%s:{crowd-%d}", r.user, i))
	}
	_, _ = r.admin.Pipelined(ctx, func(p redis.Pipeliner) error {
		for _, name := range names {
			p.Set(ctx, name+":lease", "0"+foreignFlight+" 1 0 elsewhere", time.Hour)
		}
		return nil
	})
	leaving, leave := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer leave()
	for i := range channels {
		wg.Go(func() { _, _, _ = g.Do(leaving, fmt.Sprint("crowd-", i), value) })
	}
	r.until("crowd subscribed", func() bool { return r.subscribed(names) == channels })
	_, _ = r.admin.Pipelined(ctx, func(p redis.Pipeliner) error {
		for _, name := range names {
			if r.cluster != nil {
				p.SPublish(ctx, name, foreignOutcome("json", `"v"`))
			} else {
				p.Publish(ctx, name, foreignOutcome("json", `"v"`))
			}
		}
		return nil
	})
	r.until("crowd answered", func() bool { return g.Stats().Distributed.ActiveFlights == 0 })
	r.until("crowd unsubscribed", func() bool { return r.subscribed(names) <= 1024 })
}

// subscribed counts the subscriptions to channels of keys.
func (r *tour) subscribed(channels []string) (n int) {
	for _, node := range r.nodes {
		count := node.PubSubNumSub
		if r.cluster != nil {
			count = node.PubSubShardNumSub
		}
		for _, subscribers := range count(context.Background(), channels...).Val() {
			n += int(subscribers)
		}
	}
	return n
}

// each shows that the rules are enough, and that each of them is needed.
func (g *guarded) each(rules []string) {
	g.let("all", rules)
	if problem := g.take("all"); problem != "" {
		g.t.Fatalf("with the documented rights: %s", problem)
	}
	var wg sync.WaitGroup
	for i, rule := range rules {
		if !strings.ContainsAny(rule[:1], "+~&") || rule == "+pubsub|numsub" { // the census of the program needs that
			continue
		}
		wg.Go(func() {
			user := fmt.Sprint("without-", i)
			g.let(user, slices.Delete(slices.Clone(rules), i, i+1))
			if g.take(user) == "" {
				g.t.Errorf("%s is not needed", rule)
			}
		})
	}
	wg.Wait()
}

func TestTheDocumentedUserHasTheRightsItNeedsAndNoMore(t *testing.T) {
	rules, _ := documentedUsers(t)
	guardedServer(t).each(rules)
}

func TestTheDocumentedUserOfAClusterHasTheRightsItNeedsAndNoMore(t *testing.T) {
	_, rules := documentedUsers(t)
	guardedCluster(t).each(rules)
}
