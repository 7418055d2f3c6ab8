package load

import (
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
)

func TestBatchesFollowEachOtherUntilTheyRepeat(t *testing.T) {
	for _, c := range []struct {
		ids, size, limit int
		want             string
	}{
		{6, 3, 10, "1,2,3 4,5,6"},
		{5, 3, 10, "1,2,3 4,5,1 2,3,4 5,1,2 3,4,5"},
		{5, 3, 2, "1,2,3 4,5,1"},
		{2, 100, 10, "1,2"},
	} {
		ids := make([]int, c.ids)
		for i := range ids {
			ids[i] = i + 1
		}
		got := strings.ReplaceAll(strings.Join(Batches("http://host", ids, c.size, c.limit), " "), "http://host/products?ids=", "")
		if got != c.want {
			t.Errorf("%+v: %s", c, got)
		}
	}
}

func TestKeysAreCountedByTheirRoles(t *testing.T) {
	counts := map[string]int{}
	for _, header := range []string{"leader=2, remote-follower=98", "leader=1", "", "leader=x, cached=-1, cached", "cached=3"} {
		countKeys(counts, http.Header{"X-Coalesce-Roles": {header}})
	}
	if !maps.Equal(counts, map[string]int{"leader": 3, "remote-follower": 98, "cached": 3}) {
		t.Errorf("%v", counts)
	}
}

func TestBatchCountsAreDifferencesAndTheirResetIsSeen(t *testing.T) {
	stats := func(uptime float64, keys int64) Stats {
		s := replicaStats("a", uptime, 0)
		s.Batches = BatchStats{Requests: keys / 10, Keys: keys, Queries: keys / 20, QueriedKeys: keys / 2, KeysSaved: keys / 2}
		return s
	}
	sum := func(replica Stats) Stats {
		s := fleetStats(0, "", replica)
		s.Batches = replica.Batches
		return s
	}
	run := &Result{Requests: 6, OK: 6, Replicas: map[string]int{"a": 6}, KeyRoles: map[string]int{"leader": 30, "local-follower": 30}, Statuses: map[int]int{200: 6}}
	for _, c := range []struct {
		after int64
		reset bool
	}{{100, false}, {30, true}, {50, true}} {
		target, _ := serveStats(t, sum(stats(100, 40)), sum(stats(101, c.after)))
		before, err := target.FleetStats(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		got, err := target.Counted(t.Context(), before, run)
		if (err != nil) != c.reset {
			t.Errorf("%d keys after the load: %v", c.after, err)
		}
		if want := []int64{6, 60, 3, 30, 30, 0}; err == nil && !slices.Equal(got.Batches.counts(), want) {
			t.Errorf("%+v", got.Batches)
		}
	}
}
