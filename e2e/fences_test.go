package e2e_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/fleetcall/fleetcall/internal/fleet"
	"github.com/fleetcall/fleetcall/internal/load"
	"github.com/fleetcall/fleetcall/internal/rig/redisrig"
)

// neighbour is one of several fleets on one Redis server.
type neighbour struct {
	*fleet.Fleet
	token string
}

// startBeside starts a fleet on a database of a Redis server.
func startBeside(t *testing.T, redis *redisrig.Server, database, replicas int, token string) neighbour {
	t.Helper()
	return neighbour{start(t, setup{mode: "distributed", replicas: replicas, balancer: fleet.BalancerBuiltin,
		redisURL: fmt.Sprintf("%s/%d", redis.URL(), database), env: []string{"QUERY_DELAY=10ms", "ADMIN_TOKEN=" + token}}), token}
}

// order posts to the fleet's first replica.
func (n neighbour) order(t *testing.T, path, body string, answer any) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, n.Replicas()[0].URL+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	if n.token != "" {
		req.Header.Set("Authorization", "Bearer "+n.token)
	}
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: status %d, %v: %s", path, resp.StatusCode, err, text)
	}
	if err := json.Unmarshal(text, answer); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
}

// burst sends a burst and returns how many replicas did what with their share.
func (n neighbour) burst(t *testing.T, requests int) (states map[string]int, ran int) {
	t.Helper()
	var answer struct {
		Requests int
		Replicas []struct{ State string }
	}
	n.order(t, "/burst", fmt.Sprintf(`{"product":7,"requests":%d}`, requests), &answer)
	states = map[string]int{}
	for _, r := range answer.Replicas {
		states[r.State]++
	}
	return states, answer.Requests
}

// reset resets the statistics and returns how many replicas obeyed and refused.
func (n neighbour) reset(t *testing.T) (obeyed, refused int) {
	t.Helper()
	var answer struct{ Replicas, Refused []string }
	n.order(t, "/stats/reset?scope=fleet", "", &answer)
	return len(answer.Replicas), len(answer.Refused)
}

// served returns the coalesced requests that the fleet's replicas count themselves.
func (n neighbour) served(t *testing.T) int64 {
	t.Helper()
	sum := int64(0)
	for _, r := range n.Replicas() {
		var s load.Stats
		mustGet(t, r.URL+"/stats").decode(t, &s)
		sum += s.Total
	}
	return sum
}

// knows returns how many replicas the fleet's first replica knows.
func (n neighbour) knows(t *testing.T) int {
	t.Helper()
	var s load.Stats
	mustGet(t, n.Replicas()[0].URL+"/stats?scope=fleet").decode(t, &s)
	return len(s.Replicas)
}

// TestAFleetTakesNoOrdersFromAnother: production, a staging fleet on another database,
// and a third fleet that has production's database and namespace by mistake share one
// Redis server.
func TestAFleetTakesNoOrdersFromAnother(t *testing.T) {
	t.Parallel()
	redis := redisrig.Start(t)
	production := startBeside(t, redis, 0, 2, "secret")
	staging := startBeside(t, redis, 1, 1, "")
	mistaken := startBeside(t, redis, 0, 1, "guessed")
	untrusted := startBeside(t, redis, 0, 1, "")
	for name, c := range map[string]struct {
		fleet neighbour
		knows int
	}{"production": {production, 4}, "staging": {staging, 1}, "mistaken": {mistaken, 4}, "untrusted": {untrusted, 4}} {
		eventually(t, name+" knowing whom it should", func() bool { return c.fleet.knows(t) == c.knows })
	}

	for range 5 {
		mustGet(t, production.URL()+"/product/coalesced/1")
	}
	expectOrders := func(name string, n neighbour, own, refusing int) {
		t.Helper()
		states, ran := n.burst(t, 40)
		if shares := 40 / (own + refusing); states["ran"] != own || states["refused"] != refusing || len(states) > 2 || ran != own*shares {
			t.Errorf("%s: a burst of 40 requests made %d, by %v", name, ran, states)
		}
		if obeyed, refused := n.reset(t); obeyed != own || refused != refusing {
			t.Errorf("%s: a reset was obeyed by %d replicas and refused by %d", name, obeyed, refused)
		}
	}
	expectOrders("staging", staging, 1, 0)
	expectOrders("mistaken", mistaken, 1, 3)
	expectOrders("untrusted", untrusted, 1, 3)
	if n := production.served(t); n != 5 {
		t.Errorf("production counts %d requests after the orders of others, want its own 5", n)
	}
	mustGet(t, mistaken.URL()+"/product/coalesced/1")
	expectOrders("production", production, 2, 2)
	if n := production.served(t); n != 0 {
		t.Errorf("production counts %d requests after its own reset", n)
	}
	if n := mistaken.served(t); n != 1 {
		t.Errorf("the mistaken fleet counts %d requests, want its own 1", n)
	}
}
