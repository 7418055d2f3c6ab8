package coalesceprom_test

import (
	"context"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/fleetcall/fleetcall/coalesce/coalesceprom"
	"github.com/fleetcall/fleetcall/coalesce/shadow"
)

func TestWhatWouldHaveBeenSavedIsMeasured(t *testing.T) {
	fleet, err := shadow.Open(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = fleet.Close(t.Context()) }()
	group, err := shadow.NewGroup[string](fleet, "rows")
	if err != nil {
		t.Fatal(err)
	}
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(coalesceprom.NewShadowCollector(fleet.Totals))
	// A call within a call for the same key overlaps it.
	if _, _, err := group.Do(t.Context(), "key", func(ctx context.Context) (string, error) {
		val, _, err := group.Do(ctx, "key", func(context.Context) (string, error) { return "", nil })
		return val, err
	}); err != nil {
		t.Fatal(err)
	}
	fleet.ResetStats() // counters go on
	got := values(t, registry)
	for name, want := range map[string]float64{
		`fleetcall_shadow_calls_total{group="rows"}`:                         2,
		`fleetcall_shadow_executions{group="rows",tier="local"}`:             1,
		`fleetcall_shadow_executions_error{group="rows",tier="local"}`:       0,
		`fleetcall_shadow_executions_error{group="rows",tier="distributed"}`: 1,
		`fleetcall_shadow_covered_ratio{group="rows"}`:                       0,
		`fleetcall_shadow_seconds_total{verdict="silent"}`:                   0,
	} {
		if n, ok := got[name]; !ok || n != want {
			t.Errorf("%s is %v (there: %v), want %v", name, n, ok, want)
		}
	}
}
