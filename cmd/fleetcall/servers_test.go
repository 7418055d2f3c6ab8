package main

import (
	"encoding/json"
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

func TestRedisThatIsDownAtStartOrLaterIsDegradedAndLoggedOnce(t *testing.T) {
	redis := redisrig.Start(t, "--requirepass", "hunter2")
	redis.Stop()
	r := start(t, "--redis-url", redis.URL())
	logged := func(down, up int) {
		t.Helper()
		is := func() bool {
			return strings.Count(r.log.String(), `msg="fleetcall: Redis server down"`) == down && strings.Count(r.log.String(), `msg="fleetcall: Redis server up"`) == up
		}
		eventually(t, "logged as often as it changed", is)
	}
	health := func(want api.RedisStatus) {
		t.Helper()
		eventually(t, string(want), func() bool {
			status, _, body := r.send(t, http.MethodGet, "/health")
			var h api.Health
			return json.Unmarshal(body, &h) == nil && status == http.StatusOK && h.Redis == want && (h.Status == "degraded") == (want == api.RedisDegraded)
		})
	}
	work := func() {
		t.Helper()
		for range 5 {
			r.expect(t, "/product/coalesced/1", http.StatusOK)
		}
	}
	health(api.RedisDegraded)
	work()
	if st := get[api.Stats](t, r, "/stats?scope=fleet"); st.Note == "" || len(st.Replicas) != 1 {
		t.Errorf("%+v", st)
	}
	logged(1, 0)
	redis.Restart()
	health(api.RedisConnected)
	logged(1, 1)
	work()
	redis.Kill()
	health(api.RedisDegraded)
	work()
	logged(2, 1)
	if strings.Contains(r.log.String(), "hunter2") {
		t.Errorf("the password is in the log:\n%s", r.log)
	}
}

func TestFrozenRedisCostsNoRequestItsAnswer(t *testing.T) {
	redis := redisrig.Start(t)
	r := start(t, append([]string{"--redis-url", redis.URL()}, impatient...)...)
	redis.Freeze()
	t.Cleanup(redis.Thaw)
	r.expect(t, "/product/coalesced/1", http.StatusOK)
	if h := get[api.Health](t, r, "/health"); h.Redis != api.RedisDegraded || h.Status != "degraded" {
		t.Errorf("%+v", h)
	}
}

func TestWrongRedisPasswordIsDegradedAndStaysSecret(t *testing.T) {
	redis := redisrig.Start(t, "--requirepass", "right")
	r := start(t, "--redis-url", strings.Replace(redis.URL(), "right", "hunter2", 1))
	status, _, body := r.send(t, http.MethodGet, "/health")
	var h api.Health
	if err := json.Unmarshal(body, &h); err != nil || status != http.StatusOK || h.Redis != api.RedisDegraded {
		t.Errorf("%d %s", status, body)
	}
	for range 3 {
		r.expect(t, "/product/coalesced/1", http.StatusOK)
	}
	down := func() []string { return r.lines(`msg="fleetcall: Redis server down"`) }
	eventually(t, "the log says so", func() bool { return len(down()) > 0 })
	if line := down()[0]; len(down()) != 1 || !strings.Contains(line, "kind=auth") || !strings.Contains(line, "WRONGPASS") || strings.Contains(r.log.String(), "hunter2") {
		t.Errorf("the log:\n%s", r.log)
	}
	_, _, stats := r.send(t, http.MethodGet, "/stats")
	if !strings.Contains(string(stats), `"why": "auth: WRONGPASS`) || strings.Contains(string(stats), "hunter2") {
		t.Errorf("/stats: %s", stats)
	}
}
