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
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/distributed"
	"github.com/fleetcall/fleetcall/internal/rig/redisrig"
)

const aclPassword = "secret"

// documentedUsers returns the rules of the users in docs/redis.md, those after ACL
// SETUSER and the name: for one server, and for a Cluster.
func documentedUsers(t *testing.T) (single, cluster []string) {
	t.Helper()
	document, err := os.ReadFile("../../../docs/redis.md")
	if err != nil {
		t.Fatal(err)
	}
	lines := regexp.MustCompile(`(?m)^ACL SETUSER fleetcall (.*)$`).FindAllStringSubmatch(string(document), -1)
	if len(lines) != 2 {
		t.Fatalf("docs/redis.md has %d users, want one for a server and one for a Cluster", len(lines))
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

// take uses everything that the tier asks of Redis, as one user, and returns what
// went wrong first.
func (g *guarded) take(user string) (problem string) {
	r := &tour{guarded: g, user: user}
	defer r.close()
	r.step(r.open)
	r.share()
	r.keepAndForget()
	r.leaveRenewAndTakeOver()
	r.step(func() { r.crowd(r.b) })
	r.alone(func() {
		for range 5 { // another user may load a script again before it is used
			for _, node := range g.nodes {
				node.ScriptFlush(context.Background())
			}
			r.want("scripts flushed", r.do(r.a, "flush", "v"), coalesce.Leader, "v")
		}
	})
	r.step(func() {
		for i, group := range r.groups {
			if s := group.Stats().Distributed; s.RedisErrors+s.Fallbacks+s.Garbage != 0 {
				r.fail("group %d: %+v", i, s)
			}
		}
	})
	if g.cluster != nil {
		r.step(func() {
			key := "migrate-" + user
			m := g.cluster.BeginMigration("{"+key+"}", g.cluster.OtherMaster("{"+key+"}"))
			if got := r.do(r.a, key, "v"); got.val != "v" || got.err != nil {
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

// open opens the groups and waits until all have subscribed.
func (r *tour) open() {
	r.a, r.b = r.group(), r.group()
	r.kept = r.group(distributed.WithMaxAge(time.Hour))
	r.brief = r.group(distributed.WithLeaseTTL(600*time.Millisecond), distributed.WithRedisTimeout(600*time.Millisecond))
	r.until("subscribed", func() bool { return len(controlChannels(r.user, r.nodes...)) >= len(r.groups) })
}

func (r *tour) group(opts ...distributed.Option) *replica[string] {
	client := r.connect(r.user)
	opts = append([]distributed.Option{
		distributed.WithNamespace(r.user), distributed.WithRedisTimeout(5 * time.Second), distributed.WithLeaseTTL(5 * time.Second), distributed.WithInlineLimit(100),
	}, opts...)
	group, err := open[string](client, opts...)
	if err != nil {
		r.t.Fatal(err)
	}
	r.groups, r.clients = append(r.groups, group), append(r.clients, client)
	return group
}

// close closes the groups without waiting: their calls have been refused, or do not
// matter any more.
func (r *tour) close() {
	now, cancel := context.WithCancel(context.Background())
	cancel()
	for i, group := range r.groups {
		_ = group.Close(now)
		_ = r.clients[i].Close()
	}
}

// share leads and follows flights with every kind of outcome.
func (r *tour) share() {
	r.step(func() { r.want("lead", r.do(r.a, "lead", "v"), coalesce.Leader, "v") })
	for _, what := range []string{"cold", "hot"} {
		r.step(func() {
			led, followed := r.flight(r.a, r.b, "follow", func() (string, error) { return "v", nil })
			r.want(what, led, coalesce.Leader, "v")
			r.want(what, followed, coalesce.RemoteFollower, "v")
		})
	}
	r.step(func() {
		large := strings.Repeat("large", 100)
		led, followed := r.flight(r.b, r.a, "large", func() (string, error) { return large, nil })
		r.want("large", led, coalesce.Leader, large)
		r.want("large", followed, coalesce.RemoteFollower, large)
	})
	r.step(func() {
		led, followed := r.flight(r.b, r.a, "error", func() (string, error) { return "", errKnown })
		if !errors.Is(led.err, errKnown) || !errors.Is(followed.err, errKnown) || followed.role != coalesce.RemoteFollower {
			r.fail("error: %+v, %+v", led, followed)
		}
	})
}

func (r *tour) keepAndForget() {
	ctx := context.Background()
	r.step(func() {
		r.want("kept", r.do(r.kept, "kept", "v"), coalesce.Leader, "v")
		r.until("finished", func() bool { return r.admin.Exists(ctx, r.user+":test:{kept}:latest").Val() == 1 })
		r.want("kept", r.do(r.kept, "kept", "new"), coalesce.Cached, "v")
	})
	r.step(func() {
		led, followed := r.flight(r.a, r.b, "forget", func() (string, error) {
			if err := r.b.Forget(ctx, "forget"); err != nil {
				return "", err
			}
			r.want("after Forget", r.do(r.b, "forget", "new"), coalesce.Leader, "new")
			return "old", nil
		})
		r.want("forgotten", led, coalesce.Leader, "old")
		r.want("forgotten", followed, coalesce.RemoteFollower, "old")
	})
}

func (r *tour) leaveRenewAndTakeOver() {
	ctx := context.Background()
	r.step(func() {
		leaving, leave := context.WithCancel(ctx)
		_, _, err := r.a.Do(leaving, "abandon", func(ctx context.Context) (string, error) {
			leave()
			<-ctx.Done()
			return "", ctx.Err()
		})
		if !errors.Is(err, context.Canceled) {
			r.fail("abandon: %v", err)
		}
		r.until("abandoned", func() bool {
			return r.admin.Exists(ctx, r.user+":test:{abandon}:lease", r.user+":test:{abandon}:attempts").Val() == 0
		})
	})
	r.step(func() {
		lease := r.user + ":test:{renew}:lease"
		led, followed := r.flight(r.brief, r.a, "renew", func() (string, error) {
			left := r.admin.PTTL(ctx, lease).Val()
			r.until("renewed", func() bool {
				before := left
				left = r.admin.PTTL(ctx, lease).Val()
				return left > before
			})
			return "v", nil
		})
		r.want("renew", led, coalesce.Leader, "v")
		r.want("renew", followed, coalesce.RemoteFollower, "v")
	})
	r.step(func() {
		// While a follower waits on a connection, the connection is pinged.
		r.admin.Set(ctx, r.user+":test:{takeover}:lease", foreignHeld(500*time.Millisecond), 500*time.Millisecond)
		r.want("takeover", r.do(r.brief, "takeover", "v"), coalesce.Leader, "v")
		if n := r.brief.Stats().Distributed.Takeovers; n != 1 {
			r.fail("takeover: %d", n)
		}
	})
}

// crowd makes so many channels idle that some are unsubscribed from.
func (r *tour) crowd(g *replica[string]) {
	const idle = 1100 // more than 1,024 stay on none
	ctx := context.Background()
	var names, channels []string
	for i := range idle {
		name := fmt.Sprintf("%s:test:{crowd-%d}", r.user, i)
		names, channels = append(names, name), append(channels, name+"@0")
	}
	_, _ = r.admin.Pipelined(ctx, func(p redis.Pipeliner) error {
		for _, name := range names {
			p.Set(ctx, name+":lease", foreignHeld(time.Hour), time.Hour)
		}
		return nil
	})
	leaving, leave := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer leave()
	for i := range idle {
		wg.Go(func() { _, _, _ = g.Do(leaving, fmt.Sprint("crowd-", i), value) })
	}
	r.until("crowd subscribed", func() bool { return r.subscribed(channels) == idle })
	_, _ = r.admin.Pipelined(ctx, func(p redis.Pipeliner) error {
		for _, channel := range channels {
			if r.cluster != nil {
				p.SPublish(ctx, channel, foreignOutcome("json", `"v"`))
			} else {
				p.Publish(ctx, channel, foreignOutcome("json", `"v"`))
			}
		}
		return nil
	})
	r.until("crowd answered", func() bool { return g.Stats().Distributed.ActiveFlights == 0 })
	r.until("crowd unsubscribed", func() bool { return r.subscribed(channels) <= 1024 })
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
	t.Parallel()
	rules, _ := documentedUsers(t)
	guardedServer(t).each(rules)
}

func TestTheDocumentedUserOfAClusterHasTheRightsItNeedsAndNoMore(t *testing.T) {
	t.Parallel()
	_, rules := documentedUsers(t)
	guardedCluster(t).each(rules)
}
