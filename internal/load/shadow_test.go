package load

import "testing"

// shadowStats returns the statistics of a replica in mode shadow that has answered so many
// requests, of which the tiers would have run a half and a tenth.
func shadowStats(requests, pending int64) Stats {
	s := replicaStats("a", 100, requests)
	s.Shadow = &ShadowStats{
		Requests: requests, QuerySeconds: float64(requests), Covered: 1, Pending: pending,
		Local:       ShadowTier{Executions: float64(requests) / 2, QuerySeconds: float64(requests) / 2},
		Distributed: &ShadowTier{Executions: float64(requests) / 10, ExecutionsError: 3, QuerySeconds: float64(requests) / 10, SecondsError: 2},
	}
	whole := fleetStats(0, "", s)
	whole.Shadow = s.Shadow
	return whole
}

func TestWhatWouldHaveBeenSavedIsReadWhenAllRequestsAreCounted(t *testing.T) {
	target, asked := serveStats(t, shadowStats(100, 0), shadowStats(300, 200), shadowStats(300, 50), shadowStats(300, 0))
	before, err := target.FleetStats(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	got, err := target.Counted(t.Context(), before, answeredBy(map[string]int{"a": 1}))
	// The server takes no time, so that the replica seems not to have aged.
	if err != nil || got.Shadow == nil {
		t.Fatalf("%v, %+v", err, got)
	}
	if s := got.Shadow; asked.Load() != 4 || s.Requests != 200 || s.Local.Executions != 100 || s.Distributed.Executions != 20 || s.Distributed.ExecutionsError != 3 {
		t.Errorf("asked %d times: %+v", asked.Load(), s)
	}
	if executions, seconds := got.Shadow.Saved(*got.Shadow.Distributed); executions != 180 || seconds != 180 {
		t.Errorf("%v executions and %v s are saved", executions, seconds)
	}
}
