package coalesceprom_test

import (
	"context"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/fleetcall/fleetcall/coalesce/coalesceprom"
	"github.com/fleetcall/fleetcall/coalesce/distributed"
	"github.com/fleetcall/fleetcall/coalesce/local"
)

// A batch is measured as the calls for its keys would be, and counted as a batch.
func TestBatchesOfALocalTierAreCounted(t *testing.T) {
	var group local.Group[string, string]
	hook := coalesceprom.NewLocalHook("rows")
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(hook, coalesceprom.NewLocalCollector("rows", group.Totals))
	tier, err := distributed.Observed(local.Tier(&group), "rows", hook)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tier.DoMany(t.Context(), []string{"a", "b", "a", "c"}, func(_ context.Context, keys []string) (map[string]string, error) {
		return map[string]string{"a": "A", "b": "B"}, nil
	}); err != nil {
		t.Fatal(err)
	}
	func() {
		defer func() {
			if recover() == nil {
				t.Error("the panic did not come through")
			}
		}()
		_, _ = tier.DoMany(t.Context(), []string{"a", "b"}, func(context.Context, []string) (map[string]string, error) { panic("boom") })
	}()
	got := values(t, registry)
	for name, want := range map[string]float64{
		`fleetcall_local_batches_total{group="rows"}`:                                     2,
		`fleetcall_local_batch_runs_total{group="rows"}`:                                  2,
		`fleetcall_local_batch_keys_total{group="rows"}`:                                  5,
		`fleetcall_call_wait_seconds{group="rows",outcome="ok",role="leader"}`:            2,
		`fleetcall_call_wait_seconds{group="rows",outcome="error",role="leader"}`:         1,
		`fleetcall_call_wait_seconds{group="rows",outcome="panic",role="none"}`:           2,
		`fleetcall_function_duration_seconds{group="rows",outcome="ok",role="leader"}`:    2,
		`fleetcall_function_duration_seconds{group="rows",outcome="error",role="leader"}`: 1,
		`fleetcall_function_duration_seconds{group="rows",outcome="panic",role="leader"}`: 2,
	} {
		if n, ok := got[name]; !ok || n != want {
			t.Errorf("%s is %v (there: %v), want %v", name, n, ok, want)
		}
	}
}
