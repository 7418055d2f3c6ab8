package e2e_test

import (
	"runtime"
	"syscall"
	"testing"

	"github.com/fleetcall/fleetcall/internal/fleet"
	"github.com/fleetcall/fleetcall/internal/load"
	"github.com/fleetcall/fleetcall/internal/rig/redisrig"
)

// It runs alone: nginx closes connections that have waited for 15 s for their requests.
func TestAThousandRequestsAtOnceCostTheQueriesOfTheirMode(t *testing.T) {
	const requests = 1000
	pg := database(t)
	redis := redisrig.Start(t)
	for _, mode := range []struct {
		name      string
		low, high int
		send      func(*testing.T, *fleet.Fleet) *load.Result
	}{
		{"off", requests, requests, func(t *testing.T, f *fleet.Fleet) *load.Result { return sendBurst(t, f, requests) }},
		{"local", 1, 3, func(t *testing.T, f *fleet.Fleet) *load.Result {
			return together{fleet: f, postgres: pg, requests: requests, connect: true}.send(t, func() {})
		}},
		{"distributed", 1, 1, func(t *testing.T, f *fleet.Fleet) *load.Result {
			return together{fleet: f, postgres: pg, requests: requests, connect: true}.sendJoined(t)
		}},
	} {
		t.Run(mode.name, func(t *testing.T) {
			f := start(t, setup{mode: mode.name, postgres: pg, redisURL: redis.URL(), env: []string{quickQuery}})
			pg.ResetQueries()
			r := mode.send(t, f)
			n := pg.Queries()
			t.Logf("%d queries, %.2f s, p50 %v, p99 %v, roles %v, replicas %v", n, r.Duration.Seconds(), r.Latency.P50, r.Latency.P99, r.Roles, r.Replicas)

			if n < mode.low || n > mode.high {
				t.Errorf("PostgreSQL saw %d queries, want %d to %d", n, mode.low, mode.high)
			}
			s := fleetStats(t, f)
			if s.Misses != int64(n) || s.Database.Queries != int64(n) {
				t.Errorf("/stats says %d misses and %d queries, PostgreSQL saw %d", s.Misses, s.Database.Queries, n)
			}
			if s.Total != requests || s.Hits != requests-int64(n) || s.Prevented != s.Hits || s.Errors != 0 || s.Active != 0 || s.Missing != 0 || s.Mode != mode.name {
				t.Errorf("/stats says %+v", s)
			}
			if len(s.Replicas) != 3 || len(r.Replicas) != 3 {
				t.Errorf("%d replicas in /stats, %d in answers, want 3", len(s.Replicas), len(r.Replicas))
			}
			sum := int64(0)
			for _, replica := range s.Replicas {
				sum += replica.Total
				if answered := r.Replicas[replica.Replica]; int64(answered) != replica.Total {
					t.Errorf("%s says %d requests, X-Replica says %d", replica.Replica, replica.Total, answered)
				}
				// All workers of nginx share one round robin.
				if replica.Total < requests/3-requests/20 || replica.Total > requests/3+requests/20 {
					t.Errorf("%s got %d of %d requests", replica.Replica, replica.Total, requests)
				}
			}
			if sum != requests {
				t.Errorf("the replicas' requests sum up to %d", sum)
			}
			if r.Roles["leader"] != n || r.Roles["leader"]+r.Roles["local-follower"]+r.Roles["remote-follower"] != requests {
				t.Errorf("roles %v for %d queries", r.Roles, n)
			}
		})
	}
}

// It runs alone: its connections take half of all ports.
func TestTenThousandRequestsForAHundredProductsCostAHundredQueries(t *testing.T) {
	const keys = 100
	requests := 10_000
	var files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err != nil {
		t.Fatal(err)
	}
	// This process opens one file for each request. Each worker of nginx, of which
	// there is one for each core, has 16,384 connections and needs two for each of its
	// requests.
	worker := min(int(files.Cur), 16_384) * 9 / 10
	if fit := min(int(files.Cur)-500, worker*runtime.NumCPU()/2) / keys * keys; fit < requests {
		t.Logf("the limit of %d open files allows %d requests at once", files.Cur, fit)
		requests = fit
	}
	pg := database(t)
	redis := redisrig.Start(t)
	// Each query needs a connection.
	f := start(t, setup{mode: "distributed", postgres: pg, redisURL: redis.URL(), env: []string{quickQuery, "DB_POOL_MAX=100"}})
	pg.ResetQueries()
	// Each connection sends its request at once. If it waited for all the others, it would
	// be idle for longer than nginx allows.
	r := together{fleet: f, postgres: pg, requests: requests, products: keys}.sendJoined(t)
	n := pg.Queries()
	t.Logf("%d requests, %d queries, %.2f s, p50 %v, p99 %v, roles %v", requests, n, r.Duration.Seconds(), r.Latency.P50, r.Latency.P99, r.Roles)
	if n != keys {
		t.Errorf("PostgreSQL saw %d queries for %d products", n, keys)
	}
	if r.OK != requests {
		t.Errorf("%d of %d requests answered right; failures: %v", r.OK, requests, r.Errors)
	}
	if s := fleetStats(t, f); s.Misses != keys || s.Total != int64(requests) || s.Hits != int64(requests-keys) {
		t.Errorf("/stats says %+v", s)
	}
}
