package load

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// replicaStats returns the statistics of a replica that has run for uptime seconds and
// has answered this many coalesced requests, one of ten with a query.
func replicaStats(name string, uptime float64, requests int64) Stats {
	s := Stats{Scope: "replica", Replica: name, Mode: "local", Uptime: uptime, Total: requests, Hits: requests - requests/10, Misses: requests / 10}
	s.Database.Queries = s.Misses
	s.Tiers.Local = &TierStats{Requests: requests, Leaders: s.Misses, Followers: s.Hits}
	return s
}

// fleetStats returns the sum of the replicas' statistics.
func fleetStats(missing int, note string, replicas ...Stats) Stats {
	sum := Stats{Scope: "fleet", Replica: replicas[0].Replica, Mode: "local", Replicas: replicas, Missing: missing, Note: note}
	sum.Tiers.Local = &TierStats{}
	for _, r := range replicas {
		sum.Total += r.Total
		sum.Hits += r.Hits
		sum.Misses += r.Misses
		sum.Database.Queries += r.Database.Queries
		sum.Tiers.Local.Requests += r.Tiers.Local.Requests
		sum.Tiers.Local.Leaders += r.Tiers.Local.Leaders
		sum.Tiers.Local.Followers += r.Tiers.Local.Followers
	}
	return sum
}

// serveStats starts a server that gives the answers one after the other, and then
// repeats the last one. It also returns how often the server was asked.
func serveStats(t *testing.T, answers ...Stats) (Target, *atomic.Int64) {
	t.Helper()
	var asked atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		i := min(int(asked.Add(1)), len(answers)) - 1
		if err := json.NewEncoder(w).Encode(answers[i]); err != nil {
			t.Error(err)
		}
	}))
	t.Cleanup(server.Close)
	return Target{Base: server.URL, retryDelay: time.Millisecond}, &asked
}

const aloneNote = "This replica alone: without Redis it knows no other."

// answeredBy returns a run in which each replica has sent this many responses.
func answeredBy(by map[string]int) *Result {
	n := 0
	for _, of := range by {
		n += of
	}
	return &Result{Requests: n, OK: n, Replicas: by, Roles: map[string]int{"leader": n}, Statuses: map[int]int{200: n}}
}

func TestCountsAreTheDifferenceOfTwoWholeFleets(t *testing.T) {
	target, _ := serveStats(t,
		fleetStats(0, "", replicaStats("a", 100, 50), replicaStats("b", 100, 10)),
		fleetStats(0, "", replicaStats("b", 101, 40), replicaStats("a", 101, 120)))
	before, err := target.FleetStats(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	got, err := target.Counted(t.Context(), before, answeredBy(map[string]int{"a": 70, "b": 30}))
	if err != nil || got.Total != 100 || got.Hits != 90 || got.Misses != 10 || got.Database.Queries != 10 || *got.Tiers.Local != (TierStats{Requests: 100, Leaders: 10, Followers: 90}) {
		t.Errorf("%v, %+v, local %+v", err, got, got.Tiers.Local)
	}
}

func TestCountsOfTheDistributedTierAreADifferenceToo(t *testing.T) {
	after := TierStats{Requests: 1000, Leaders: 900, Unasked: 800, Followers: 70, Cached: 60, Fallbacks: 50, Takeovers: 40, LeaseLost: 30, RedisErrors: 20}
	before := TierStats{Requests: 9, Leaders: 8, Unasked: 7, Followers: 6, Cached: 5, Fallbacks: 4, Takeovers: 3, LeaseLost: 2, RedisErrors: 1}
	want := TierStats{Requests: 991, Leaders: 892, Unasked: 793, Followers: 64, Cached: 55, Fallbacks: 46, Takeovers: 37, LeaseLost: 28, RedisErrors: 19}
	if got := after.since(&before); *got != want {
		t.Errorf("%+v, want %+v", *got, want)
	}
}

func TestASlowReplicaIsAskedAgain(t *testing.T) {
	whole := fleetStats(0, "", replicaStats("a", 101, 60), replicaStats("b", 101, 60))
	for name, slow := range map[string]Stats{
		"it does not answer in time":         fleetStats(1, "Some live replicas did not answer.", replicaStats("a", 101, 60)),
		"it is not reached by the question":  fleetStats(0, "", replicaStats("a", 101, 60)),
		"Redis does not answer in time":      fleetStats(0, "This replica alone: Redis cannot be used to ask the others.", replicaStats("a", 101, 60)),
		"the other one cannot ask the first": fleetStats(0, "This replica alone: Redis cannot be used to ask the others.", replicaStats("b", 101, 60)),
	} {
		t.Run(name, func(t *testing.T) {
			target, asked := serveStats(t, fleetStats(0, "", replicaStats("a", 100, 0), replicaStats("b", 100, 0)), slow, slow, whole)
			before, err := target.FleetStats(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			got, err := target.Counted(t.Context(), before, answeredBy(map[string]int{"a": 60, "b": 60}))
			if err != nil || got.Total != 120 || asked.Load() != 4 {
				t.Errorf("%v, %d requests, asked %d times", err, got.Total, asked.Load())
			}
		})
	}
	t.Run("before the load", func(t *testing.T) {
		target, _ := serveStats(t, fleetStats(1, "", replicaStats("a", 100, 0)), whole)
		if got, err := target.FleetStats(t.Context()); err != nil || len(got.Replicas) != 2 {
			t.Errorf("%v, %+v", err, got)
		}
	})
}

func TestAReplicaThatStaysMissingIsAnErrorBeforeTheLoadToo(t *testing.T) {
	target, asked := serveStats(t, fleetStats(2, "", replicaStats("a", 100, 0)))
	if _, err := target.FleetStats(t.Context()); err == nil || !strings.Contains(err.Error(), "2 live replicas") || asked.Load() != maxAttempts {
		t.Errorf("%v, asked %d times", err, asked.Load())
	}
	target, _ = serveStats(t, fleetStats(0, "", replicaStats("a", 100, 0)), fleetStats(0, "", replicaStats("a", 100, 0), replicaStats("b", 100, 0)))
	if got, err := target.FleetStatsOf(t.Context(), 2); err != nil || len(got.Replicas) != 2 {
		t.Errorf("%v, %+v", err, got)
	}
	if _, err := target.FleetStatsOf(t.Context(), 3); err == nil || !strings.Contains(err.Error(), "2 of 3") {
		t.Errorf("%v", err)
	}
}

// Wrong numbers would be worse than none.
func TestCountsThatCannotBeKnownAreAnErrorWithTheReason(t *testing.T) {
	ab := func(uptime float64, a, b int64) Stats {
		return fleetStats(0, "", replicaStats("a", uptime, a), replicaStats("b", uptime, b))
	}
	both := answeredBy(map[string]int{"a": 60, "b": 60})
	normal := answeredBy(map[string]int{"a": 60, "b": 60})
	normal.Roles = map[string]int{"none": 120}
	for name, c := range map[string]struct {
		before, after Stats
		run           *Result
		want          string
	}{
		"a replica is missing after the load": {ab(100, 0, 0), fleetStats(1, "", replicaStats("a", 101, 60)), both, "a live replica does not tell"},
		"a replica came with its history":     {fleetStats(0, "", replicaStats("a", 100, 0)), ab(101, 60, 5000), both, "statistics are of a, b, and before the load they were of a"},
		"a replica went":                      {ab(100, 0, 0), fleetStats(0, "", replicaStats("a", 101, 60)), answeredBy(map[string]int{"a": 60}), "statistics are of a, and before the load they were of a, b"},
		"a replica nobody can ask answered":   {fleetStats(0, "", replicaStats("a", 100, 0)), fleetStats(0, "", replicaStats("a", 101, 60)), both, "b answered, but the statistics are of a alone"},
		"Redis is lost":                       {ab(100, 0, 0), fleetStats(0, "Redis cannot be used.", replicaStats("a", 101, 60)), both, "b answered, but the statistics are of a alone (Redis cannot be used)"},
		"a balancer before replicas without Redis, the same one is asked twice": {
			fleetStats(0, aloneNote, replicaStats("a", 100, 0)), fleetStats(0, aloneNote, replicaStats("a", 101, 60)), both, "b answered, but the statistics are of a alone (This replica alone"},
		"a balancer before replicas without Redis, two are asked": {
			fleetStats(0, aloneNote, replicaStats("a", 100, 0)), fleetStats(0, aloneNote, replicaStats("b", 101, 60)), answeredBy(map[string]int{"b": 60}), "statistics are of b, and before the load they were of a (This"},
		"nobody says who answered":                   {fleetStats(0, aloneNote, replicaStats("a", 100, 0)), fleetStats(0, aloneNote, replicaStats("a", 101, 60)), &Result{Requests: 60, OK: 60}, "no answer says which replica"},
		"a restart that hides behind more requests":  {ab(100, 1, 1), fleetStats(0, "", replicaStats("a", 101, 61), replicaStats("b", 0.5, 60)), both, "b was started anew"},
		"a restart of a replica that was young, too": {ab(0.5, 0, 0), fleetStats(0, "", replicaStats("a", 1.5, 60), replicaStats("b", 0.7, 60)), both, "b was started anew"},
		"a reset":                                                {ab(100, 500, 500), ab(101, 30, 30), both, "the statistics of a were reset"},
		"a reset that hides behind the other's":                  {ab(100, 10, 100), ab(101, 500, 60), both, "the statistics of b were reset"},
		"a reset that hides behind later requests":               {ab(100, 10, 10), ab(101, 40, 40), both, "fewer requests than they answered"},
		"a reset that hides behind later requests of the normal": {ab(100, 0, 0), ab(101, 60, 60), normal, "fewer requests than they answered"},
	} {
		t.Run(name, func(t *testing.T) {
			target, _ := serveStats(t, c.before, c.after)
			before, err := target.FleetStats(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			before.answered = before.answered.Add(-time.Second) // as if the load had taken a second
			got, err := target.Counted(t.Context(), before, c.run)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q; counted %+v", err, c.want, got)
			}
		})
	}
}

func TestOneReplicaThatGaveEveryAnswerIsCountedWithoutRedis(t *testing.T) {
	long := strings.Repeat("x", 250) // longer than a label may be
	for _, name := range []string{"a", "host:8000", long} {
		target, _ := serveStats(t, fleetStats(0, aloneNote, replicaStats(name, 100, 10)), fleetStats(0, aloneNote, replicaStats(name, 101, 110)))
		before, err := target.FleetStats(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		run := &Result{Requests: 100, Replicas: map[string]int{}, Roles: map[string]int{}, Statuses: map[int]int{200: 100}}
		count(run.Replicas, name)
		got, err := target.Counted(t.Context(), before, run)
		if err != nil || got.Total != 100 || got.Note == "" {
			t.Errorf("%v, %+v", err, got)
		}
	}
}

func TestAskingAgainEndsWithItsContext(t *testing.T) {
	target, _ := serveStats(t, fleetStats(1, "", replicaStats("a", 100, 0)))
	target.retryDelay = time.Hour
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := target.FleetStats(ctx); err == nil {
		t.Error("a fleet that is not whole is taken for one")
	}
}

func TestLabelsAreCutBetweenCharacters(t *testing.T) {
	counts := map[string]int{}
	count(counts, strings.Repeat("é", 150)+"a")
	count(counts, "a"+strings.Repeat("é", 150))
	if counts[strings.Repeat("é", 100)] != 1 || counts["a"+strings.Repeat("é", 99)] != 1 {
		t.Errorf("%v", counts)
	}
}

func TestAPasswordIsInNoMessageAboutItsServer(t *testing.T) {
	server := httptest.NewServer(http.NotFoundHandler())
	with := Target{Base: strings.Replace(server.URL, "//", "//user:hunter2@", 1)}
	another := with.Alive(t.Context())
	server.Close()
	for _, err := range []error{another, with.Alive(t.Context())} {
		if err == nil || strings.Contains(err.Error(), "hunter2") || !strings.Contains(err.Error(), "127.0.0.1") {
			t.Errorf("%v", err)
		}
	}
}
