package api_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/fleetcall/fleetcall/api"
)

func TestStatsHaveTheContractsFieldsAndOnlyTheTiersThatAreOn(t *testing.T) {
	tiers := map[string]api.Tiers{
		"off":   {},
		"local": {Local: &api.LocalTier{Requests: 1000, Leaders: 3, Followers: 997}},
		"distributed": {Local: &api.LocalTier{Requests: 1000, Leaders: 3, Followers: 997}, Distributed: &api.DistributedTier{Requests: 3, Leaders: 1, Followers: 2,
			RedisServers: []api.RedisServer{{Address: "127.0.0.1:6379", State: "up", Since: 1697812345.678}}}},
	}
	want := map[string]string{
		"off":   `{}`,
		"local": `{"local":{"requests":1000,"leaders":3,"followers":997,"errors":0,"active_flights":0,"waiting":0,"hit_rate":"99.7%"}}`,
		"distributed": `{"local":{"requests":1000,"leaders":3,"followers":997,"errors":0,"active_flights":0,"waiting":0,"hit_rate":"99.7%"},` +
			`"distributed":{"requests":3,"leaders":1,"followers":2,"cached":0,"fallbacks":0,"takeovers":0,"lease_lost":0,"errors":0,"incompatible":0,` +
			`"redis_errors":0,"active_flights":0,"hit_rate":"66.7%","redis_servers":[{"address":"127.0.0.1:6379","state":"up","since":1697812345.678,"why":""}]}}`,
	}
	for mode := range tiers {
		t.Run(mode, func(t *testing.T) {
			f := start(t, &store{}, func(c *api.Config) {
				c.Mode = mode
				c.Tiers = func() api.Tiers {
					fresh := api.Tiers{}
					if l := tiers[mode].Local; l != nil {
						copied := *l
						fresh.Local = &copied
					}
					if d := tiers[mode].Distributed; d != nil {
						copied := *d
						fresh.Distributed = &copied
					}
					return fresh
				}
			})
			f.get(t, "/product/coalesced/1")
			f.get(t, "/product/normal/2")
			var got map[string]json.RawMessage
			if err := json.Unmarshal([]byte(f.get(t, "/stats").body), &got); err != nil {
				t.Fatal(err)
			}
			for field, want := range map[string]string{
				"scope": `"replica"`, "replica": `"test:1"`, "mode": `"` + mode + `"`, "hits": "0", "misses": "1", "errors": "0",
				"active_calls": "0", "hit_rate": `"0.0%"`, "total_requests": "1", "queries_prevented": "0",
				"database": `{"queries":2,"errors":0,"in_use":0,"idle":5,"max":10}`, "tiers": want[mode],
			} {
				if compactJSON(t, got[field]) != want {
					t.Errorf("%s: %s, want %s", field, got[field], want)
				}
			}
			if got["uptime_seconds"] == nil || got["replicas"] != nil || got["missing"] != nil {
				t.Errorf("got %v", got)
			}
		})
	}
}

func compactJSON(t *testing.T, raw json.RawMessage) string {
	t.Helper()
	var s strings.Builder
	var v any
	d := json.NewDecoder(strings.NewReader(string(raw)))
	d.UseNumber()
	if err := d.Decode(&v); err != nil {
		t.Fatalf("%v in %q", err, raw)
	}
	// Decoding and encoding again would lose the order of the fields.
	inString := false
	for _, r := range string(raw) {
		if r == '"' {
			inString = !inString
		}
		if inString || r != ' ' && r != '\n' {
			s.WriteRune(r)
		}
	}
	return s.String()
}

// fakeFleet asks other servers of the test directly.
type fakeFleet struct {
	servers []*api.Server
	missing int
	err     error
}

func (f *fakeFleet) Ask(ctx context.Context, question string, _ int) (answers [][]byte, missing int, err error) {
	for _, s := range f.servers {
		a, err := s.Answer(ctx, question)
		if err != nil {
			return nil, 0, err
		}
		answers = append(answers, a)
	}
	return answers, f.missing, f.err
}

func TestFleetScopeSumsTheReplicasAndListsThem(t *testing.T) {
	fleet := &fakeFleet{}
	var fixtures []*fixture
	for i := range 3 {
		f := start(t, &store{}, func(c *api.Config) {
			c.Replica = fmt.Sprintf("replica-%d", i)
			c.Fleet = fleet
			c.Mode = "distributed"
			c.Tiers = func() api.Tiers {
				return api.Tiers{
					Local: &api.LocalTier{Requests: 10, Leaders: 1, Followers: 9},
					Distributed: &api.DistributedTier{Requests: 1, Leaders: 1, RedisErrors: 2,
						RedisErrorsBy: map[string]uint64{"timeout": 2}},
				}
			}
		})
		fleet.servers = append(fleet.servers, f.Server)
		fixtures = append(fixtures, f)
	}
	for i, f := range fixtures {
		for range i + 1 {
			f.get(t, "/product/coalesced/1")
		}
	}
	sum := decode[api.Stats](t, fixtures[1].get(t, "/stats?scope=fleet"))
	if sum.Scope != "fleet" || sum.Replica != "replica-1" || sum.Misses != 6 || sum.TotalRequests != 6 || sum.Database.Queries != 6 || sum.Database.Max != 30 {
		t.Errorf("%+v", sum)
	}
	if l := sum.Tiers.Local; l == nil || l.Requests != 30 || l.HitRate != "90.0%" {
		t.Errorf("local %+v", l)
	}
	if d := sum.Tiers.Distributed; d == nil || d.Leaders != 3 || d.RedisErrorsBy["timeout"] != 6 {
		t.Errorf("distributed %+v", d)
	}
	if sum.Missing == nil || *sum.Missing != 0 || sum.Note != "" || len(sum.Replicas) != 3 {
		t.Fatalf("%+v", sum)
	}
	for i, r := range sum.Replicas {
		if r.Replica != fmt.Sprintf("replica-%d", i) || r.Misses != uint64(i+1) || r.Scope != "replica" {
			t.Errorf("replica %d: %+v", i, r)
		}
	}

	fleet.missing = 1
	if sum := decode[api.Stats](t, fixtures[0].get(t, "/stats?scope=fleet")); *sum.Missing != 1 || sum.Note == "" {
		t.Errorf("a missing replica is not told: %+v", sum)
	}
	fleet.missing = 0

	a := decode[api.ResetResponse](t, fixtures[2].send(t, http.MethodPost, "/stats/reset?scope=fleet", nil))
	if a.Message == "" || len(a.Replicas) != 3 || *a.Missing != 0 {
		t.Errorf("%+v", a)
	}
	if sum := decode[api.Stats](t, fixtures[0].get(t, "/stats?scope=fleet")); sum.Misses != 0 || sum.TotalRequests != 0 || sum.Database.Queries != 0 {
		t.Errorf("after a reset: %+v", sum)
	}
}

func TestFleetScopeWithoutRedisIsThisReplicaAndSaysSo(t *testing.T) {
	broken := &fakeFleet{err: errors.New("dial tcp 10.0.0.7:6379: refused")}
	for name, fleet := range map[string]api.Fleet{"disabled": nil, "down": broken} {
		t.Run(name, func(t *testing.T) {
			f := start(t, &store{}, func(c *api.Config) { c.Fleet = fleet })
			broken.servers = []*api.Server{f.Server}
			f.get(t, "/product/coalesced/1")
			a := f.get(t, "/stats?scope=fleet")
			sum := decode[api.Stats](t, a)
			if a.status != http.StatusOK || sum.Misses != 1 || len(sum.Replicas) != 1 || sum.Note == "" {
				t.Errorf("status %d: %+v", a.status, sum)
			}
			if strings.Contains(a.body, "10.0.0.7") {
				t.Errorf("internals leak: %s", a.body)
			}
			if a := decode[api.ResetResponse](t, f.send(t, http.MethodPost, "/stats/reset?scope=fleet", nil)); len(a.Replicas) != 1 || a.Note == "" {
				t.Errorf("%+v", a)
			}
		})
	}
}

func TestUnknownScopeIs422(t *testing.T) {
	f := start(t, &store{}, nil)
	expectProblem(t, f.get(t, "/stats?scope=galaxy"), http.StatusUnprocessableEntity)
	expectProblem(t, f.send(t, http.MethodPost, "/stats/reset?scope=galaxy", nil), http.StatusUnprocessableEntity)
}
