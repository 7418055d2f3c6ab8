package e2e_test

import (
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fleetcall/fleetcall/internal/fleet"
	"github.com/fleetcall/fleetcall/internal/loopback"
	"github.com/fleetcall/fleetcall/internal/rig/postgresrig"
	"github.com/fleetcall/fleetcall/internal/rig/redisrig"
)

// expectProblem fails the test unless the response is an RFC 9457 problem with this
// status.
func expectProblem(t *testing.T, a response, status int) {
	t.Helper()
	if a.status != status {
		t.Errorf("status %d, want %d: %s", a.status, status, a.body)
	}
	if media := a.header.Get("Content-Type"); !strings.HasPrefix(media, "application/problem+json") {
		t.Errorf("Content-Type %q", media)
	}
	var p struct {
		Type, Title, Detail string
		Status              int
	}
	a.decode(t, &p)
	if p.Status != status || p.Type == "" || p.Title == "" || p.Detail == "" {
		t.Errorf("problem %s", a.body)
	}
	for _, internal := range []string{"pgx", "postgres://", "127.0.0.1", "dial", "SQLSTATE", "goroutine", "redis"} {
		if strings.Contains(strings.ToLower(p.Detail), strings.ToLower(internal)) {
			t.Errorf("the detail tells of %q: %s", internal, p.Detail)
		}
	}
}

func TestUnknownProductsAndBadIDsAreProblems(t *testing.T) {
	t.Parallel()
	pg := database(t)
	redis := redisrig.Start(t)
	f := start(t, setup{mode: "distributed", postgres: pg, redisURL: redis.URL(), env: []string{"QUERY_DELAY=50ms"}})
	for _, endpoint := range []string{"normal", "coalesced"} {
		for _, id := range []string{"999999", "2147483647"} {
			expectProblem(t, mustGet(t, f.URL()+"/product/"+endpoint+"/"+id), 404)
		}
		pg.ResetQueries()
		for _, id := range []string{"abc", "0", "-1", "2147483648", "1.5", "99999999999999999999", "1%27--"} {
			expectProblem(t, mustGet(t, f.URL()+"/product/"+endpoint+"/"+id), 422)
		}
		if n := pg.Queries(); n != 0 {
			t.Errorf("bad ids cost %d queries", n)
		}
	}
}

func TestNotFoundReachesEveryReplicaOfTheFlight(t *testing.T) {
	t.Parallel()
	pg := database(t)
	redis := redisrig.Start(t)
	f := start(t, setup{mode: "distributed", postgres: pg, redisURL: redis.URL(), env: []string{quickQuery}})
	pg.ResetQueries()
	release := pg.Hold()
	defer release()
	var wg sync.WaitGroup
	running := f.Replicas()
	answers := make([]response, len(running))
	errs := make([]error, len(running))
	for i, r := range running {
		wg.Go(func() { answers[i], errs[i] = get(t.Context(), r.URL+"/product/coalesced/999999") })
	}
	eventually(t, "every replica having joined", func() bool { return joins(t, f) == len(running) })
	time.Sleep(onItsWay)
	release()
	wg.Wait()
	for i := range answers {
		if errs[i] != nil {
			t.Fatal(errs[i])
		}
		expectProblem(t, answers[i], 404)
	}
	if n := pg.Queries(); n != 1 {
		t.Errorf("PostgreSQL saw %d queries, want 1", n)
	}
}

func TestADatabaseThatIsDownIsReportedAndRecoveredFrom(t *testing.T) {
	t.Parallel()
	pg := database(t)
	redis := redisrig.Start(t)
	f := start(t, setup{mode: "distributed", postgres: pg, redisURL: redis.URL(), env: []string{"QUERY_DELAY=50ms"}})
	sendBurst(t, f, 30)

	pg.Stop()
	for _, endpoint := range []string{"normal", "coalesced"} {
		for range 3 { // once for each replica
			a := mustGet(t, f.URL()+"/product/"+endpoint+"/1")
			expectProblem(t, a, 503)
			if after, err := strconv.Atoi(a.header.Get("Retry-After")); err != nil || after < 1 {
				t.Errorf("Retry-After is %q", a.header.Get("Retry-After"))
			}
		}
	}
	for _, r := range f.Replicas() {
		if status, h := health(t, r.URL); status != 503 || h.Database == "connected" || h.Redis != "connected" || h.Status == "healthy" {
			t.Errorf("/health: %d %+v", status, h)
		}
	}

	pg.Start()
	eventually(t, "recovery", func() bool {
		for _, r := range f.Replicas() {
			if a := mustGet(t, r.URL+"/product/coalesced/1"); a.status != 200 {
				return false
			}
			if status, _ := health(t, r.URL); status != 200 {
				return false
			}
		}
		return true
	})
	pg.ResetQueries()
	together{fleet: f, postgres: pg, requests: 30, connect: true}.sendJoined(t)
	if n := pg.Queries(); n != 1 {
		t.Errorf("%d queries after recovery, want 1", n)
	}
}

// expectDegraded fails the test unless the fleet responds correctly with one query for
// each replica, and reports that it is degraded.
func expectDegraded(t *testing.T, f *fleet.Fleet, pg *postgresrig.Server) {
	t.Helper()
	pg.ResetQueries()
	together{fleet: f, postgres: pg, requests: 150, connect: true}.send(t, func() {})
	if n := pg.Queries(); n < 1 || n > 3 {
		t.Errorf("PostgreSQL saw %d queries, want at most one a replica", n)
	}
	for _, r := range f.Replicas() {
		if status, h := health(t, r.URL); status != 200 || h.Redis != "degraded" || h.Database != "connected" || h.Status != "degraded" {
			t.Errorf("/health: %d %+v", status, h)
		}
	}
}

// quickQuery is for tests that hold the queries until they may go on.
const quickQuery = "QUERY_DELAY=1ms"

func TestRedisDownAtStart(t *testing.T) {
	t.Parallel()
	pg := database(t)
	port, err := loopback.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	f := start(t, setup{mode: "distributed", postgres: pg, redisURL: fmt.Sprintf("redis://127.0.0.1:%d", port), env: []string{quickQuery}})
	expectDegraded(t, f, pg)
}

func TestRedisRefusesThePassword(t *testing.T) {
	t.Parallel()
	pg := database(t)
	redis := redisrig.Start(t, "--requirepass", "right")
	wrong, err := url.Parse(redis.URL())
	if err != nil {
		t.Fatal(err)
	}
	wrong.User = url.UserPassword("", "wrong")
	f := start(t, setup{mode: "distributed", postgres: pg, redisURL: wrong.String(), env: []string{quickQuery}})
	expectDegraded(t, f, pg)
}

func TestRedisDownLaterAndBackAgain(t *testing.T) {
	t.Parallel()
	pg := database(t)
	redis := redisrig.Start(t)
	f := start(t, setup{mode: "distributed", postgres: pg, redisURL: redis.URL(), env: []string{quickQuery}})
	pg.ResetQueries()
	together{fleet: f, postgres: pg, requests: 150, connect: true}.sendJoined(t)
	if n := pg.Queries(); n != 1 {
		t.Errorf("PostgreSQL saw %d queries, want 1", n)
	}

	redis.Kill()
	expectDegraded(t, f, pg)

	redis.Restart() // it has lost the scripts too
	eventually(t, "Redis being back", func() bool {
		for _, r := range f.Replicas() {
			if _, h := health(t, r.URL); h.Redis != "connected" {
				return false
			}
		}
		return true
	})
	// Subscriptions may be made anew after the server is up.
	eventually(t, "one query a fleet again", func() bool {
		pg.ResetQueries()
		before := joins(t, f)
		together{fleet: f, postgres: pg, requests: 150, connect: true}.send(t, func() {
			joined := time.Now().Add(2 * time.Second)
			for joins(t, f)-before < len(f.Replicas()) && time.Now().Before(joined) {
				time.Sleep(20 * time.Millisecond) // no event announces it
			}
		})
		return pg.Queries() == 1
	})
}

func TestRedisDiesOrHangsDuringAFlight(t *testing.T) {
	t.Parallel()
	for _, failure := range []struct {
		name string
		fail func(*redisrig.Server)
	}{{"killed", (*redisrig.Server).Kill}, {"hanging", (*redisrig.Server).Freeze}} {
		t.Run(failure.name, func(t *testing.T) {
			t.Parallel()
			pg := database(t)
			redis := redisrig.Start(t)
			f := start(t, setup{mode: "distributed", postgres: pg, redisURL: redis.URL(), env: append([]string{quickQuery}, impatient...)})
			pg.ResetQueries()
			together{fleet: f, postgres: pg, requests: 150, connect: true}.send(t, func() { failure.fail(redis) })
			if n := pg.Queries(); n < 1 || n > 3 {
				t.Errorf("PostgreSQL saw %d queries, want at most one a replica", n)
			}
			expectDegraded(t, f, pg)
		})
	}
}
