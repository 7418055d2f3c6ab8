package main

import (
	"fmt"
	"maps"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/fleetcall/fleetcall/api"
	"github.com/fleetcall/fleetcall/coalesce/distributed"
	"github.com/fleetcall/fleetcall/internal/rig/redisrig"
)

// A server that refuses writes answers a ping: /health has to know what the Fleet does.
func TestAServerThatRefusesWritesIsDownInHealthAndStats(t *testing.T) {
	redis := redisrig.Start(t)
	r := start(t, "--redis-url", redis.URL())
	server := func() api.RedisServer {
		t.Helper()
		servers := get[api.Stats](t, r, "/stats").Tiers.Distributed.RedisServers
		if len(servers) != 1 || servers[0].Address != redis.Addr {
			t.Fatalf("the servers are %+v, want %s", servers, redis.Addr)
		}
		return servers[0]
	}
	health := func() api.RedisStatus { return get[api.Health](t, r, "/health").Redis }
	if s := server(); s.State != "up" || s.Why != "" || time.Since(time.UnixMilli(int64(s.Since*1000))).Abs() > time.Minute {
		t.Errorf("a server that is well: %+v", s)
	}
	limit := func(maxmemory string) {
		t.Helper()
		if err := redis.Client().ConfigSet(t.Context(), "maxmemory", maxmemory).Err(); err != nil {
			t.Fatal(err)
		}
	}
	limit("1")
	r.expect(t, "/product/coalesced/1", http.StatusOK)
	eventually(t, "the server is down", func() bool { return server().State == "down" && health() == api.RedisDegraded })
	if s := server(); !strings.HasPrefix(s.Why, "oom: OOM command not allowed") {
		t.Errorf("why: %q", s.Why)
	}
	limit("0")
	eventually(t, "the server is up", func() bool { return server().State == "up" && server().Why == "" && health() == api.RedisConnected })
}

// On a Cluster, one master that hangs is one server that is down: the keys of the others
// are shared as before.
func TestAMasterThatHangsIsTheOnlyServerDown(t *testing.T) {
	cluster := redisrig.StartCluster(t)
	r := start(t, "--redis-url", cluster.URL(), "--query-delay=1ms", "--redis-timeout=2s")
	ids := map[string]int{} // of a product, by the master of its key
	for id := 1; len(ids) < 3; id++ {
		ids[cluster.Master(fmt.Sprintf("fleetcall:product:{product:%d}:lease", id)).Addr] = id
	}
	states := func() map[string]string {
		t.Helper()
		all := map[string]string{}
		for _, s := range get[api.Stats](t, r, "/stats").Tiers.Distributed.RedisServers {
			all[s.Address] = s.State
		}
		return all
	}
	want, hangs := map[string]string{}, ""
	for address, id := range ids {
		r.expect(t, fmt.Sprintf("/product/coalesced/%d", id), http.StatusOK)
		want[address], hangs = "up", address
	}
	if got := states(); !maps.Equal(got, want) {
		t.Fatalf("the servers are %v, want %v", got, want)
	}
	master := cluster.Master(fmt.Sprintf("fleetcall:product:{product:%d}:lease", ids[hangs]))
	master.Freeze()
	t.Cleanup(master.Thaw)
	want[hangs] = "down"
	r.expect(t, fmt.Sprintf("/product/coalesced/%d", ids[hangs]), http.StatusOK)
	eventually(t, "that master alone is down", func() bool { return maps.Equal(states(), want) })
	if h := get[api.Health](t, r, "/health"); h.Redis != api.RedisDegraded {
		t.Errorf("/health says %+v", h)
	}
	for address, id := range ids {
		_, header, _ := r.send(t, http.MethodGet, fmt.Sprintf("/product/coalesced/%d", id))
		if role := header.Get("X-Coalesce-Role"); (role == "fallback") != (address == hangs) {
			t.Errorf("a key of %s, which is %s: %s", address, want[address], role)
		}
	}
	master.Thaw()
	want[hangs] = "up"
	eventually(t, "it is up again", func() bool { return maps.Equal(states(), want) })
}

func TestStatsHaveNoSecretsOfRedis(t *testing.T) {
	for why, want := range map[string]string{
		"connection: dialing redis://shop:hunter2@10.0.0.1:6379/0: refused":                         "connection: dialing redis://10.0.0.1:6379/0: refused",
		"reply: ERR unknown command 'HELLO', with args beginning with: '3' 'AUTH' 'shop' 'hunter2'": "reply: ERR unknown command 'HELLO'",
		"oom: OOM command not allowed when used memory > 'maxmemory'.":                              "oom: OOM command not allowed when used memory > 'maxmemory'.",
	} {
		if got := redisServers([]distributed.ServerStats{{State: distributed.ServerDown, Why: why}})[0].Why; got != want {
			t.Errorf("%q became %q, want %q", why, got, want)
		}
	}
}
