// Package e2e_test tests the program itself: replicas in their own processes behind
// nginx, with a private Redis and a private PostgreSQL. The queries are counted in
// PostgreSQL's log.
//
// Each test has servers and replicas of its own, and most of its time is spent waiting, so
// that nearly all of them run beside each other.
package e2e_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fleetcall/fleetcall/internal/fleet"
	"github.com/fleetcall/fleetcall/internal/load"
	"github.com/fleetcall/fleetcall/internal/product"
	"github.com/fleetcall/fleetcall/internal/rig"
	"github.com/fleetcall/fleetcall/internal/rig/postgresrig"

	"go.uber.org/goleak"
)

// binary is the path of the program, built with the race detector.
var binary string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "fleetcall-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	binary = filepath.Join(dir, "fleetcall")
	build := exec.Command("go", "build", "-race", "-ldflags=-w", "-o", binary, "../cmd/fleetcall")
	if out, err := build.CombinedOutput(); err != nil {
		_ = os.RemoveAll(dir)
		fmt.Fprintf(os.Stderr, "building fleetcall: %v\n%s", err, out)
		os.Exit(1)
	}
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		_ = os.RemoveAll(dir)
		os.Exit(code)
	}))
}

// setup describes the fleet of a test.
type setup struct {
	binary   string // empty: the program under test
	mode     string
	replicas int
	postgres *postgresrig.Server // nil: an embedded database
	redisURL string
	balancer string
	env      []string
}

// impatient has the program's own timeouts of Redis, for tests of what a replica does when
// Redis or a leader does not answer. All others have timeouts that no busy machine reaches.
var impatient = []string{"COALESCE_REDIS_TIMEOUT=250ms", "COALESCE_LEASE_TTL=3s"}

// environment sets all variables, so that a test does not depend on the environment in
// which it runs.
func environment(more ...string) []string {
	return append([]string{
		"QUERY_DELAY=500ms", "DB_POOL_MIN=5", "DB_POOL_MAX=10", "COALESCE_NAMESPACE=fleetcall", "COALESCE_LEASE_TTL=30s",
		"COALESCE_FLIGHT_TIMEOUT=5m", "COALESCE_MAX_AGE=0s", "COALESCE_REDIS_TIMEOUT=30s", "ADMIN_TOKEN=", "LOG_LEVEL=info", "LOG_FORMAT=text",
	}, more...)
}

// start starts a fleet that is closed when the test ends. If the test fails, it shows
// the fleet's logs.
func start(t *testing.T, s setup) *fleet.Fleet {
	t.Helper()
	logs := &rig.Output{}
	if s.balancer == "" {
		s.balancer = fleet.BalancerNginx
	}
	if s.binary == "" {
		s.binary = binary
	}
	databaseURL := ""
	if s.postgres != nil {
		databaseURL = s.postgres.URL()
	}
	f, err := fleet.Start(t.Context(), fleet.Config{
		Binary: s.binary, Replicas: s.replicas, Mode: s.mode, Balancer: s.balancer,
		DatabaseURL: databaseURL, RedisURL: s.redisURL, Env: environment(s.env...),
		StartTimeout: 2 * time.Minute,
		Logs:         logs,
		Report:       func(sentence string) { t.Error(sentence) },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
		if race := "DATA RACE"; strings.Contains(logs.String(), race) {
			t.Error("a replica reports a data race")
		}
		if t.Failed() {
			text := logs.String()
			t.Logf("the fleet's logs end with:\n%s", text[max(0, len(text)-8000):])
		}
	})
	return f
}

// database starts a PostgreSQL server with the products.
func database(t *testing.T) *postgresrig.Server {
	t.Helper()
	p := postgresrig.Start(t)
	if out, err := run(t, []string{"DATABASE_URL=" + p.URL()}, "initdb"); err != nil {
		t.Fatalf("initdb: %v\n%s", err, out)
	}
	p.ResetQueries()
	return p
}

// run runs a command of the program until it ends.
func run(t *testing.T, env []string, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, args...)
	cmd.Env = append(append(os.Environ(), environment("DATABASE_URL=", "REDIS_URL=", "COALESCE_MODE=")...), env...)
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// response is an HTTP response with its whole body.
type response struct {
	status int
	header http.Header
	body   []byte
}

func (a response) role() string { return a.header.Get("X-Coalesce-Role") }

func get(ctx context.Context, url string) (response, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return response{}, err
	}
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		return response{}, err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	return response{resp.StatusCode, resp.Header, body}, err
}

func mustGet(t *testing.T, url string) response {
	t.Helper()
	a, err := get(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func (a response) decode(t *testing.T, v any) {
	t.Helper()
	if err := json.Unmarshal(a.body, v); err != nil {
		t.Fatalf("%v in %s", err, a.body)
	}
}

// health asks for /health.
func health(t *testing.T, base string) (status int, h struct{ Status, Database, Redis, Mode, Replica string }) {
	t.Helper()
	a := mustGet(t, base+"/health")
	a.decode(t, &h)
	return a.status, h
}

// eventually waits until ready returns true.
func eventually(t *testing.T, what string, ready func() bool) {
	t.Helper()
	deadline := time.Now().Add(2 * time.Minute)
	for !ready() {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within 2 min", what)
		}
		time.Sleep(20 * time.Millisecond) // no event announces it
	}
}

// active returns the number of coalesced requests under way on a replica.
func active(t *testing.T, r *fleet.Replica) int64 {
	t.Helper()
	var s load.Stats
	mustGet(t, r.URL+"/stats").decode(t, &s)
	return s.Active
}

// catalogue has the JSON of each product exactly as it must be in responses.
var catalogue = sync.OnceValue(func() [][]byte {
	var all [][]byte
	for _, p := range product.Catalogue() {
		text, err := json.Marshal(p)
		if err != nil {
			panic(err)
		}
		all = append(all, text)
	}
	return all
})

// checkProduct returns what is wrong with a response for a product. replicas are the
// ids of the fleet's replicas. The product must be that of the catalogue, byte for
// byte.
func checkProduct(id int32, replicas []string, header http.Header, body []byte) error {
	want := catalogue()[id-1]
	var a struct {
		QueryTime *float64        `json:"query_time_ms"`
		Timestamp *float64        `json:"timestamp"`
		Product   json.RawMessage `json:"product"`
		Endpoint  string          `json:"endpoint_type"`
	}
	if err := json.Unmarshal(body, &a); err != nil {
		return err
	}
	switch {
	case !bytes.Equal(a.Product, want):
		return fmt.Errorf("product %s, want %s", a.Product, want)
	case a.QueryTime == nil || a.Timestamp == nil || a.Endpoint != "coalesced":
		return fmt.Errorf("incomplete answer %s", body)
	case !slices.Contains(replicas, header.Get("X-Replica")):
		return fmt.Errorf("X-Replica is %q", header.Get("X-Replica"))
	case header.Get("X-Coalesce-Role") == "":
		return errors.New("no X-Coalesce-Role")
	}
	return nil
}

func replicaIDs(f *fleet.Fleet) []string {
	var ids []string
	for _, r := range f.Replicas() {
		ids = append(ids, r.ID)
	}
	return ids
}

// sendBurst sends requests for product 1 through the balancer, all at the same time. It
// fails the test unless every response is right.
func sendBurst(t *testing.T, f *fleet.Fleet, requests int) *load.Result {
	t.Helper()
	replicas := replicaIDs(f)
	r, err := load.Run(t.Context(), load.Config{
		URLs: []string{f.URL() + "/product/coalesced/1"}, Requests: requests, Concurrency: requests, Connect: true,
		Check: func(_ string, header http.Header, body []byte) error { return checkProduct(1, replicas, header, body) },
	})
	if err != nil {
		t.Fatal(err)
	}
	if r.OK != requests {
		t.Errorf("%d of %d requests answered right; failures: %v", r.OK, requests, r.Errors)
	}
	return r
}

func fleetStats(t *testing.T, f *fleet.Fleet) load.Stats {
	t.Helper()
	s, err := load.Target{Base: f.URL()}.FleetStats(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return s
}
