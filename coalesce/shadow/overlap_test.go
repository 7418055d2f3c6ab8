package shadow

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// fleetOf opens replicas in a bubble, and closes them with the test.
func fleetOf(t *testing.T, n int, set settings) []*Fleet {
	t.Helper()
	h := &hub{}
	var fleets []*Fleet
	for range n {
		fleets = append(fleets, h.open(t, set))
	}
	return fleets
}

func (h *hub) open(t *testing.T, set settings) *Fleet {
	t.Helper()
	f := open(set, h.join())
	t.Cleanup(func() {
		if err := f.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return f
}

// settleFor is how long a second takes until it is judged.
const settleFor = 3 * time.Second

func groupOf(t *testing.T, f *Fleet) *Group[int] {
	t.Helper()
	g, err := NewGroup[int](f, "products")
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// everything has the Fleet follow all keys.
var everything = settings{sample: 1, fullBelow: 2000}

// at makes a call that begins and ends at these times from now, in ms.
func at(ctx context.Context, t *testing.T, g *Group[int], from, to int) {
	go func() {
		time.Sleep(time.Duration(from) * time.Millisecond)
		val, role, err := g.Do(ctx, "key", func(ctx context.Context) (int, error) {
			select {
			case <-time.After(time.Duration(to-from) * time.Millisecond):
				return from, nil
			case <-ctx.Done():
				return 0, ctx.Err()
			}
		})
		if err == nil && (val != from || role.String() != "leader") {
			t.Errorf("Do = %d, %v: not the call's own function", val, role)
		}
	}()
}

// would returns what the tiers would have run, summed over the replicas.
func would(t *testing.T, fleets []*Fleet) (requests, local, distributed float64) {
	t.Helper()
	for _, f := range fleets {
		st := f.Stats().Groups["products"]
		if st.Pending != 0 || st.Covered != 1 && st.Requests > 0 {
			t.Errorf("%d calls are pending, %.2f are covered: %+v", st.Pending, st.Covered, f.Stats().Seconds)
		}
		requests += float64(st.Requests)
		local += st.Local.Executions
		distributed += st.Distributed.Executions
	}
	return requests, local, distributed
}

func TestCallsThatOverlapAnywhereWouldHaveSharedAFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fleets := fleetOf(t, 3, everything)
		a, b, c := groupOf(t, fleets[0]), groupOf(t, fleets[1]), groupOf(t, fleets[2])
		time.Sleep(settleFor)
		at(t.Context(), t, a, 100, 200)
		at(t.Context(), t, a, 150, 250) // follows the first, here and in the fleet
		at(t.Context(), t, b, 160, 260) // leads in its process, and follows in the fleet
		at(t.Context(), t, c, 220, 320) // comes when the flight has ended: it leads
		at(t.Context(), t, b, 255, 300) // follows in its process, and in the fleet the last one
		time.Sleep(settleFor)
		if requests, local, distributed := would(t, fleets); requests != 5 || local != 3 || distributed != 2 {
			t.Errorf("of %.0f calls, local would have run %.0f and distributed %.0f; want 5, 3, 2", requests, local, distributed)
		}
		var st Stats
		for _, f := range fleets {
			of := f.Stats().Groups["products"]
			st.Time += of.Time
			st.Local.Time += of.Local.Time
			st.Distributed.Time += of.Distributed.Time
		}
		want := [3]time.Duration{445 * time.Millisecond, 300 * time.Millisecond, 200 * time.Millisecond}
		if got := [3]time.Duration{st.Time, st.Local.Time, st.Distributed.Time.Round(time.Microsecond)}; got != want {
			t.Errorf("the functions ran for %v; want %v", got, want)
		}
	})
}

func TestAFlightGoesOnForOthersWhenTheCallerThatLeadsItLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fleets := fleetOf(t, 2, everything)
		a, b := groupOf(t, fleets[0]), groupOf(t, fleets[1])
		time.Sleep(settleFor)
		ctx, leave := context.WithTimeout(t.Context(), 120*time.Millisecond)
		defer leave()
		at(ctx, t, a, 100, 200)
		at(t.Context(), t, b, 110, 210)
		at(t.Context(), t, a, 150, 250) // the flight's caller has left, but not its follower
		at(t.Context(), t, a, 260, 300) // the flight has ended
		time.Sleep(settleFor)
		if requests, _, distributed := would(t, fleets); requests != 4 || distributed != 2 {
			t.Errorf("of %.0f calls, distributed would have run %.0f; want 4, 2", requests, distributed)
		}
	})
}

func TestCallsAfterAForgetStartAFlightAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fleets := fleetOf(t, 2, everything)
		a, b := groupOf(t, fleets[0]), groupOf(t, fleets[1])
		time.Sleep(settleFor)
		at(t.Context(), t, a, 100, 200)
		time.Sleep(120 * time.Millisecond)
		if err := a.Forget(t.Context(), "key"); err != nil {
			t.Error(err)
		}
		at(t.Context(), t, a, 10, 50) // 130 ms from the start
		at(t.Context(), t, b, 20, 50)
		time.Sleep(settleFor)
		if _, local, distributed := would(t, fleets); local != 3 || distributed != 2 {
			t.Errorf("local would have run %.0f and distributed %.0f; want 3, 2", local, distributed)
		}
	})
}

func TestResultsAreGivenOutForMaxAge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		set := everything
		set.maxAge = 500 * time.Millisecond
		fleets := fleetOf(t, 2, set)
		a, b := groupOf(t, fleets[0]), groupOf(t, fleets[1])
		time.Sleep(settleFor)
		at(t.Context(), t, a, 100, 200)
		at(t.Context(), t, b, 690, 750) // 490 ms after its end
		at(t.Context(), t, b, 710, 800) // 510 ms
		time.Sleep(settleFor)
		if _, _, distributed := would(t, fleets); distributed != 2 {
			t.Errorf("distributed would have run %.0f; want 2", distributed)
		}
	})
}

func TestEachKeyOfABatchIsACallWithItsPartOfTheTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fleets := fleetOf(t, 1, everything)
		g := groupOf(t, fleets[0])
		time.Sleep(settleFor)
		errQuery := errors.New("the query failed")
		results, err := g.DoMany(t.Context(), []string{"a", "b", "a", "c"}, func(_ context.Context, keys []string) (map[string]int, error) {
			time.Sleep(30 * time.Millisecond)
			return nil, errQuery
		})
		if err != nil || len(results) != 3 || results["b"].Err != errQuery {
			t.Errorf("DoMany = %v, %v", results, err)
		}
		st := g.Stats()
		if st.Requests != 3 || st.Time != 30*time.Millisecond || st.Local.Executions != 3 {
			t.Errorf("%+v", st)
		}
	})
}
