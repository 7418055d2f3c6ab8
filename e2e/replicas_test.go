package e2e_test

import (
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/fleetcall/fleetcall/internal/load"
	"github.com/fleetcall/fleetcall/internal/rig/redisrig"
)

func TestAReplicaThatJoinsLateTakesPartInTheRunningFlight(t *testing.T) {
	t.Parallel()
	pg := database(t)
	redis := redisrig.Start(t)
	f := start(t, setup{mode: "distributed", replicas: 2, postgres: pg, redisURL: redis.URL(), env: []string{quickQuery}})
	early := f.Replicas()
	pg.ResetQueries()
	release := pg.Hold()
	defer release()

	var wg sync.WaitGroup
	answers := make([]response, 3)
	errs := make([]error, 3)
	ask := func(i int, url string) {
		wg.Go(func() { answers[i], errs[i] = get(t.Context(), url+"/product/coalesced/1") })
	}
	ask(0, early[0].URL)
	eventually(t, "the flight's start", func() bool { return active(t, early[0]) == 1 })
	late, err := f.AddReplica(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if active(t, early[0]) != 1 {
		t.Fatal("the flight was over before the replica had joined: the test shows nothing")
	}
	ask(1, late.URL)
	ask(2, early[1].URL)
	eventually(t, "all three having joined", func() bool { return joins(t, f) == 3 })
	time.Sleep(onItsWay)
	release()
	wg.Wait()

	for i, want := range []string{"leader", "remote-follower", "remote-follower"} {
		if errs[i] != nil {
			t.Fatal(errs[i])
		}
		if err := checkProduct(1, replicaIDs(f), answers[i].header, answers[i].body); err != nil || answers[i].role() != want {
			t.Errorf("answer %d: %s, want %s; %v", i, answers[i].role(), want, err)
		}
	}
	if n := pg.Queries(); n != 1 {
		t.Errorf("PostgreSQL saw %d queries, want 1", n)
	}
	if s := fleetStats(t, f); len(s.Replicas) != 3 || s.Misses != 1 {
		t.Errorf("/stats says %+v", s)
	}
	// The balancer must send it requests too.
	if r := sendBurst(t, f, 30); r.Replicas[late.ID] == 0 {
		t.Errorf("the balancer sent it nothing: %v", r.Replicas)
	}
}

func TestAReplicaThatIsTerminatedUnderLoadFailsNoRequest(t *testing.T) {
	t.Parallel()
	for _, balancer := range []string{"nginx", "builtin"} {
		t.Run(balancer, func(t *testing.T) {
			t.Parallel()
			const delay = 200 * time.Millisecond
			pg := database(t)
			redis := redisrig.Start(t)
			f := start(t, setup{mode: "distributed", postgres: pg, redisURL: redis.URL(), balancer: balancer,
				env: []string{"QUERY_DELAY=" + delay.String()}})
			replicas := replicaIDs(f)
			running := f.Replicas()
			pg.ResetQueries()

			var wg sync.WaitGroup
			stopped := make([]error, 2)
			wg.Go(func() {
				for i := range stopped {
					time.Sleep(1500 * time.Millisecond) // lets the load continue between the stops
					stopped[i] = running[i].Stop()
				}
			})
			r, err := load.Run(t.Context(), load.Config{
				URLs: []string{f.URL() + "/product/coalesced/1"}, Requests: 4000, Concurrency: 100,
				Check: func(_ string, header http.Header, body []byte) error { return checkProduct(1, replicas, header, body) },
			})
			wg.Wait()
			if err != nil {
				t.Fatal(err)
			}
			for _, err := range stopped {
				if err != nil {
					t.Error(err)
				}
			}
			n := pg.Queries()
			t.Logf("%d queries in %.2f s, replicas %v, roles %v", n, r.Duration.Seconds(), r.Replicas, r.Roles)
			if r.Duration < 4*time.Second {
				t.Fatalf("the load was over after %v: too early to show anything", r.Duration)
			}
			if r.OK != r.Requests {
				t.Errorf("%d of %d requests failed: %v", r.Failed, r.Requests, r.Errors)
			}
			// Flights follow one after another, and each leader that left may cause one
			// more.
			if most := int(r.Duration/delay) + 1 + len(stopped); n > most {
				t.Errorf("PostgreSQL saw %d queries, want at most %d", n, most)
			}
		})
	}
}

func TestFollowersTakeOverWhenTheLeadingReplicaIsKilled(t *testing.T) {
	t.Parallel()
	pg := database(t)
	redis := redisrig.Start(t)
	f := start(t, setup{mode: "distributed", postgres: pg, redisURL: redis.URL(), env: []string{"QUERY_DELAY=10s", "COALESCE_LEASE_TTL=3s", "COALESCE_REDIS_TIMEOUT=3s"}})
	running := f.Replicas()
	pg.ResetQueries()

	var wg sync.WaitGroup
	wg.Go(func() { _, _ = get(t.Context(), running[0].URL+"/product/coalesced/1") }) // fails, because its replica is killed
	eventually(t, "the flight's start", func() bool { return active(t, running[0]) == 1 })
	answers := make([]response, 2)
	errs := make([]error, 2)
	for i, r := range running[1:] {
		wg.Go(func() { answers[i], errs[i] = get(t.Context(), r.URL+"/product/coalesced/1") })
		eventually(t, "the follower's arrival", func() bool { return active(t, r) == 1 })
	}
	running[0].Kill()
	wg.Wait()
	roles := map[string]int{}
	for i := range answers {
		if errs[i] != nil {
			t.Fatal(errs[i])
		}
		if err := checkProduct(1, replicaIDs(f), answers[i].header, answers[i].body); err != nil {
			t.Error(err)
		}
		roles[answers[i].role()]++
	}
	// PostgreSQL never sees the killed leader's query, because a query is delayed
	// before it is sent.
	if n := pg.Queries(); n != 1 {
		t.Errorf("PostgreSQL saw %d queries, want the successor's alone", n)
	}
	if roles["leader"] != 1 || roles["remote-follower"] != 1 {
		t.Errorf("roles %v, want one leader and one follower", roles)
	}
}
