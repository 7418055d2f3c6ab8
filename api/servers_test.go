package api_test

import (
	"cmp"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"testing"
	"time"

	"github.com/fleetcall/fleetcall/api"
	"github.com/fleetcall/fleetcall/internal/rig/browserrig"
)

// TestFleetScopeListsEachRedisServerOnceAndSaysWhoseIsDown: the snapshot of the page has
// the same list.
func TestFleetScopeListsEachRedisServerOnceAndSaysWhoseIsDown(t *testing.T) {
	up := func(address string, since float64) api.RedisServer {
		return api.RedisServer{Address: address, State: "up", Since: since}
	}
	down := func(address string, since float64, why string) api.RedisServer {
		return api.RedisServer{Address: address, State: "down", Since: since, Why: why}
	}
	seen := [][]api.RedisServer{
		{up("b:1", 10), down("c:1", 30, "timeout: nothing came"), down("d:1", 5, "oom: full")},
		{up("b:1", 12), down("c:1", 20, "connection: refused"), up("d:1", 50)},
		{up("a:1", 7), up("b:1", 11)},
	}
	fleet := &fakeFleet{}
	var first *fixture
	for i, servers := range seen {
		f := start(t, &store{}, func(c *api.Config) {
			c.Replica, c.Fleet, c.Mode = fmt.Sprintf("replica-%d", i), fleet, "distributed"
			c.Tiers = func() api.Tiers {
				return api.Tiers{Local: &api.LocalTier{}, Distributed: &api.DistributedTier{RedisServers: servers, Leaders: 1000, Unasked: 900, HotKeys: 3}}
			}
		})
		fleet.servers = append(fleet.servers, f.Server)
		first = cmp.Or(first, f)
	}
	want := []api.RedisServer{up("a:1", 7), up("b:1", 12), down("c:1", 20, "on replica-0, replica-1: connection: refused"), down("d:1", 5, "on replica-0: oom: full")}
	sum := decode[api.Stats](t, first.get(t, "/stats?scope=fleet"))
	if got := sum.Tiers.Distributed.RedisServers; !slices.Equal(got, want) {
		t.Errorf("the fleet has %+v, want %+v", got, want)
	}
	for i, r := range sum.Replicas {
		if got := r.Tiers.Distributed.RedisServers; !slices.Equal(got, seen[i]) {
			t.Errorf("replica %d has %+v, want %+v", i, got, seen[i])
		}
	}
	if got := watch(t, http.DefaultClient, first.url).snapshot(t).Fleet.Tiers.Distributed.RedisServers; !slices.Equal(got, want) {
		t.Errorf("the snapshot has %+v, want %+v", got, want)
	}
}

// Redis is of the distributed tier: without it, nothing is shown of servers.
func eachRedisServerIsShownWithItsState(t *testing.T, b *browserrig.Browser) {
	t.Helper()
	began := float64(time.Now().Add(-200 * time.Second).Unix())
	up := []api.RedisServer{{Address: "10.0.0.1:6379", State: "up", Since: began}, {Address: "10.0.0.2:6379", State: "up", Since: began}}
	down := []api.RedisServer{up[0], {Address: "10.0.0.2:6379", State: "down", Since: began, Why: "timeout: no reply"}}
	fleet := &concurrentFleet{}
	for i, servers := range [][]api.RedisServer{up, down, nil} {
		fleet.servers = append(fleet.servers, start(t, &store{}, func(c *api.Config) {
			c.Replica, c.Fleet, c.Mode = fmt.Sprintf("replica-%d", i), fleet, "distributed"
			c.Tiers = func() api.Tiers {
				if servers == nil {
					return api.Tiers{Local: &api.LocalTier{}}
				}
				return api.Tiers{Local: &api.LocalTier{}, Distributed: &api.DistributedTier{RedisServers: servers, Leaders: 1000, Unasked: 900, HotKeys: 3}}
			}
		}).Server)
	}
	f := start(t, &store{}, func(c *api.Config) { c.Fleet = fleet })
	p := open(t, b, f, browserrig.View{})
	browserrig.WaitFor(t, p, "document.querySelectorAll('#redis-table tbody tr').length === 2")
	shown := browserrig.Value[struct {
		Servers, Replicas []string
		Unasked           string
	}](t, p, `({
		Unasked: document.querySelector('#redis-unasked:not([hidden])').textContent,
		Servers: [...document.querySelectorAll('#redis-table tbody tr')].map((row) => [...row.children].map((cell) => cell.textContent).join(' | ')),
		Replicas: [...document.querySelectorAll('#replicas-table [data-label=Redis]')].map((cell) => cell.textContent),
	})`)
	since := regexp.MustCompile(` \| 3 min \d+ s ago \| `)
	for i, want := range []string{"10.0.0.1:6379 | up§–", "10.0.0.2:6379 | down§on replica-1: timeout: no reply"} {
		if got := since.ReplaceAllString(shown.Servers[i], "§"); got != want {
			t.Errorf("a server is shown as %q, want %q", shown.Servers[i], want)
		}
	}
	if want := []string{"up", "1 of 2 down", "–"}; !slices.Equal(shown.Replicas, want) {
		t.Errorf("the replicas have %q, want %q", shown.Replicas, want)
	}
	if want := "Of 2,000 flights, 1,800 did not ask Redis, because nobody shared their keys. It is asked for 3 keys that are shared."; shown.Unasked != want {
		t.Errorf("the page says %q, want %q", shown.Unasked, want)
	}
	asking := open(t, b, start(t, &store{}, func(c *api.Config) {
		c.Mode = "distributed"
		c.Tiers = func() api.Tiers {
			return api.Tiers{Local: &api.LocalTier{}, Distributed: &api.DistributedTier{RedisServers: up, Leaders: 1000}}
		}
	}), browserrig.View{})
	browserrig.WaitFor(t, asking, "document.querySelectorAll('#redis-table tbody tr').length === 2")
	if browserrig.Value[bool](t, asking, "document.querySelector('#redis-unasked').checkVisibility()") {
		t.Error("the page speaks of flights that did not ask Redis, and there are none")
	}
	alone := open(t, b, start(t, &store{}, func(c *api.Config) { c.Mode = "local" }), browserrig.View{})
	if browserrig.Value[bool](t, alone, "document.querySelector('#redis').checkVisibility()") {
		t.Error("servers are shown without a distributed tier")
	}
}
