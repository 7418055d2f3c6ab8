package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fleetcall/fleetcall/api"
	"github.com/fleetcall/fleetcall/internal/rig/postgresrig"
	"github.com/fleetcall/fleetcall/internal/rig/redisrig"
)

// running is a replica in this process.
type running struct {
	replica *replica
	url     string
	log     *output
	client  *http.Client
	cancel  context.CancelFunc
	done    chan error
}

// patience is a time that no stall of a busy machine reaches.
const patience = 2 * time.Minute

// impatient are flags for tests of what a replica does when Redis does not answer: without
// them a test has timeouts that no busy machine reaches.
var impatient = []string{"--redis-timeout=500ms", "--lease-ttl=3s"}

// start starts a replica with serve's flags, waits until it is ready, and stops it with
// the test.
func start(t *testing.T, args ...string) *running {
	t.Helper()
	r := launch(t, args...)
	eventually(t, "ready", func() bool { return strings.Contains(r.log.String(), "msg=ready") })
	return r
}

// launch is start without the wait.
func launch(t *testing.T, args ...string) *running {
	t.Helper()
	set := parse(t, append([]string{"--listen=127.0.0.1:0", "--query-delay=1ms", "--redis-timeout=1m", "--lease-ttl=1m"}, args...)...)
	return runs(t, func(ctx context.Context, log *slog.Logger) (*replica, error) { return newReplica(ctx, set, log) })
}

// runs runs a replica until the test ends.
func runs(t *testing.T, newReplica func(context.Context, *slog.Logger) (*replica, error)) *running {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{
		log:    &output{},
		client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 100}},
		cancel: cancel,
		done:   make(chan error, 1),
	}
	replica, err := newReplica(ctx, slog.New(slog.NewTextHandler(r.log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	r.replica = replica
	r.url = "http://" + replica.listener.Addr().String()
	go func() { r.done <- replica.run(ctx) }()
	t.Cleanup(func() {
		r.client.CloseIdleConnections()
		if err := r.stop(); err != nil {
			t.Errorf("stopping: %v\n%s", err, r.log)
		}
	})
	return r
}

// fill makes the table products in a database.
func fill(t *testing.T, address string) {
	t.Helper()
	var out output
	if err := (&initdbCmd{DatabaseURL: address}).Run(t.Context(), &out); err != nil {
		t.Fatal(err)
	}
}

// stop does what SIGTERM does, and returns what the replica returned.
func (r *running) stop() error {
	r.cancel()
	err := <-r.done
	r.done <- err
	return err
}

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for limit := time.Now().Add(patience); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatalf("not %s after %v", what, patience)
		}
	}
}

func (r *running) send(t *testing.T, method, path string) (int, http.Header, []byte) {
	t.Helper()
	req, err := http.NewRequestWithContext(context.Background(), method, r.url+path, nil)
	if err != nil {
		t.Error(err)
		return 0, nil, nil
	}
	resp, err := r.client.Do(req)
	if err != nil {
		t.Error(err)
		return 0, nil, nil
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Error(err)
	}
	return resp.StatusCode, resp.Header, body
}

func get[T any](t *testing.T, r *running, path string) (v T) {
	t.Helper()
	_, _, body := r.send(t, http.MethodGet, path)
	if err := json.Unmarshal(body, &v); err != nil {
		t.Errorf("%s: %v in %s", path, err, body)
	}
	return v
}

func (r *running) expect(t *testing.T, path string, status int) http.Header {
	t.Helper()
	got, header, body := r.send(t, http.MethodGet, path)
	if got != status {
		t.Errorf("%s: status %d, want %d: %s", path, got, status, body)
	}
	return header
}

func TestPostgresSeesTheQueriesThatEachModePromises(t *testing.T) {
	database, redis := postgresrig.Start(t), redisrig.Start(t)
	fill(t, database.URL())
	const replicas, each = 3, 20
	for mode, most := range map[string]int{"off": replicas * each, "local": replicas, "distributed": 1} {
		t.Run(mode, func(t *testing.T) {
			var fleet []*running
			for i := range replicas {
				fleet = append(fleet, start(t, "--mode", mode, "--database-url", database.URL(), "--redis-url", redis.URL(),
					"--replica-id", "replica-"+string(rune('1'+i)), "--namespace", mode))
			}
			database.ResetQueries()
			release := database.Hold()
			defer release()
			var all sync.WaitGroup
			for range each {
				for _, r := range fleet {
					all.Go(func() { r.expect(t, "/product/coalesced/1", http.StatusOK) })
				}
			}
			eventually(t, "waiting", func() bool { return waiting(t, fleet) == replicas*each })
			time.Sleep(onItsWay)
			release()
			all.Wait()
			queries := database.Queries()
			if queries > most || mode != "local" && queries != most {
				t.Errorf("PostgreSQL saw %d queries, %d promised", queries, most)
			}
			for _, r := range fleet {
				st := r.wholeFleet(t, replicas)
				if st.Misses != uint64(queries) || st.Database.Queries != uint64(queries) || st.TotalRequests != replicas*each ||
					st.Hits != uint64(replicas*each-queries) || st.Errors != 0 || st.ActiveCalls != 0 || len(st.Replicas) != replicas || *st.Missing != 0 {
					t.Errorf("PostgreSQL saw %d queries: %+v", queries, st)
				}
				if (st.Tiers.Local != nil) != (mode != "off") || (st.Tiers.Distributed != nil) != (mode == "distributed") {
					t.Errorf("tiers of mode %s: %+v", mode, st.Tiers)
				}
			}
			if status, _, body := fleet[0].send(t, http.MethodPost, "/stats/reset?scope=fleet"); status != http.StatusOK {
				t.Errorf("%d %s", status, body)
			}
			if st := fleet[1].wholeFleet(t, replicas); st.TotalRequests != 0 || st.Misses != 0 || st.Database.Queries != 0 {
				t.Errorf("after a reset: %+v", st)
			}
		})
	}
}

// onItsWay is longer than a reply takes on its way: by what a leader knows of Redis' clock,
// a function that ends sooner after a follower's join may have ended before it.
const onItsWay = 200 * time.Millisecond

// waiting returns how many requests wait for a query that has begun: in mode distributed,
// none that may still be on its way to Redis.
func waiting(t *testing.T, fleet []*running) int {
	t.Helper()
	n := 0
	for _, r := range fleet {
		st := get[api.Stats](t, r, "/stats")
		if st.Tiers.Local == nil {
			n += int(st.ActiveCalls)
			continue
		}
		if d := st.Tiers.Distributed; d != nil {
			if joined, _ := value(r.scrape(t), "fleetcall_redis_command_duration_seconds", "step", "join"); int64(joined) < d.ActiveFlights {
				continue
			}
		}
		n += int(st.Tiers.Local.Waiting)
	}
	return n
}

// wholeFleet returns the statistics of a fleet of so many replicas. It asks again when
// one of them was too busy to answer in time.
func (r *running) wholeFleet(t *testing.T, replicas int) (st api.Stats) {
	t.Helper()
	eventually(t, "counted by the whole fleet", func() bool {
		st = get[api.Stats](t, r, "/stats?scope=fleet")
		return len(st.Replicas) == replicas && *st.Missing == 0
	})
	return st
}

func TestModeFollowsRedis(t *testing.T) {
	if h := get[api.Health](t, start(t), "/health"); h.Mode != "local" || h.Redis != api.RedisDisabled || h.Status != "healthy" {
		t.Errorf("%+v", h)
	}
	redis := redisrig.Start(t)
	if h := get[api.Health](t, start(t, "--redis-url", redis.URL()), "/health"); h.Mode != "distributed" || h.Redis != api.RedisConnected || h.Status != "healthy" {
		t.Errorf("%+v", h)
	}
	if h := get[api.Health](t, start(t, "--redis-url", redis.URL(), "--mode=off"), "/health"); h.Mode != "off" || h.Redis != api.RedisConnected {
		t.Errorf("%+v", h)
	}
}

func TestReplicaIsNamedAfterHostAndRealPort(t *testing.T) {
	r := start(t)
	_, port, err := net.SplitHostPort(strings.TrimPrefix(r.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	if h := get[api.Health](t, r, "/health"); port == "0" || !strings.HasSuffix(h.Replica, ":"+port) || h.Replica == ":"+port {
		t.Errorf("%q on %s", h.Replica, r.url)
	}
	if !strings.Contains(r.log.String(), "address=127.0.0.1:"+port) {
		t.Errorf("the log does not have the address:\n%s", r.log)
	}
}

func TestDatabaseThatIsDownAtStartOrLaterIs503AndComesBack(t *testing.T) {
	database := postgresrig.Start(t)
	fill(t, database.URL())
	database.Stop()
	r := start(t, "--database-url", database.URL())
	down := func() {
		t.Helper()
		for _, kind := range []string{"normal", "coalesced"} {
			if h := r.expect(t, "/product/"+kind+"/1", http.StatusServiceUnavailable); h.Get("Retry-After") == "" || h.Get("Content-Type") != "application/problem+json" {
				t.Errorf("%s: %v", kind, h)
			}
		}
		r.expect(t, "/health", http.StatusServiceUnavailable)
		if h := get[api.Health](t, r, "/health"); h.Status != "unhealthy" || h.Database != "disconnected" {
			t.Errorf("%+v", h)
		}
		r.expect(t, "/readyz", http.StatusOK)
	}
	down()
	database.Start()
	for _, kind := range []string{"normal", "coalesced"} {
		r.expect(t, "/product/"+kind+"/1", http.StatusOK)
	}
	r.expect(t, "/health", http.StatusOK)
	database.Stop()
	down()
	if log := r.log.String(); strings.Contains(log, "only-for-tests") || strings.Count(log, `msg="the database is unavailable`) != 2 {
		t.Errorf("want an entry for each change and no password:\n%s", log)
	}
}

func TestPoolWaitOverItsLimitIs503(t *testing.T) {
	r := start(t, "--db-pool-min=1", "--db-pool-max=1", "--db-pool-wait=50ms", "--query-delay=5s")
	var holder sync.WaitGroup
	holder.Go(func() { r.expect(t, "/product/normal/1", http.StatusOK) })
	eventually(t, "busy", func() bool { return get[api.Stats](t, r, "/stats").Database.InUse == 1 })
	for _, kind := range []string{"normal", "coalesced"} {
		if h := r.expect(t, "/product/"+kind+"/2", http.StatusServiceUnavailable); h.Get("Retry-After") == "" {
			t.Errorf("%v", h)
		}
	}
	if st := get[api.Stats](t, r, "/stats"); st.Errors != 1 || st.Misses != 0 {
		t.Errorf("%+v", st)
	}
	holder.Wait()
}

func TestFlightTimeoutIs504InBothTiers(t *testing.T) {
	redis := redisrig.Start(t)
	for _, mode := range []string{"local", "distributed"} {
		r := start(t, "--mode", mode, "--redis-url", redis.URL(), "--flight-timeout=200ms", "--query-delay=30s", "--namespace", mode)
		var all sync.WaitGroup
		for range 5 {
			all.Go(func() { r.expect(t, "/product/coalesced/1", http.StatusGatewayTimeout) })
		}
		all.Wait()
		r.expect(t, "/products?ids=1,2,3", http.StatusGatewayTimeout)
		if st := get[api.Stats](t, r, "/stats"); st.Errors != 5 || st.Misses != 0 || st.ActiveCalls != 0 || st.Batches.Errors != 1 || st.Batches.Queries != 0 {
			t.Errorf("%s: %+v", mode, st)
		}
	}
}

func TestStoppedReplicaFinishesItsRequests(t *testing.T) {
	redis := redisrig.Start(t)
	r := start(t, "--redis-url", redis.URL(), "--query-delay=3s", "--shutdown-grace=1m")
	var all sync.WaitGroup
	for range 10 {
		all.Go(func() { r.expect(t, "/product/coalesced/1", http.StatusOK) })
	}
	eventually(t, "under way", func() bool { return get[api.Stats](t, r, "/stats").ActiveCalls == 10 })
	if err := r.stop(); err != nil {
		t.Error(err)
	}
	all.Wait()
	if log := r.log.String(); !strings.Contains(log, "msg=stopping") || !strings.Contains(log, "msg=stopped") {
		t.Errorf("log:\n%s", log)
	}
}

func TestReplicasOfOneMachineShareAFile(t *testing.T) {
	address := "sqlite://" + filepath.Join(t.TempDir(), "products.db")
	a, b := start(t, "--database-url", address), start(t, "--database-url", address)
	for _, r := range []*running{a, b} {
		r.expect(t, "/product/coalesced/1000", http.StatusOK)
		r.expect(t, "/product/coalesced/1001", http.StatusNotFound)
	}
}

func TestAddressInUseIsAnErrorThatSaysSo(t *testing.T) {
	r := start(t)
	set := parse(t, "--listen", strings.TrimPrefix(r.url, "http://"))
	_, err := newReplica(t.Context(), set, slog.New(slog.DiscardHandler))
	if err == nil || !strings.Contains(err.Error(), "address already in use") {
		t.Errorf("got %v", err)
	}
}

func TestRequestsThatOutlastTheGraceAreCutAndReported(t *testing.T) {
	r := start(t, "--query-delay=1h", "--shutdown-grace=50ms")
	var client sync.WaitGroup
	client.Go(func() {
		resp, err := r.client.Get(r.url + "/product/normal/1")
		if err == nil {
			_ = resp.Body.Close()
			t.Error("the request was answered")
		}
	})
	eventually(t, "under way", func() bool { return get[api.Stats](t, r, "/stats").Database.InUse == 1 })
	r.cancel()
	if err := <-r.done; !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	r.done <- nil // for the test's own stop
	client.Wait()
}
