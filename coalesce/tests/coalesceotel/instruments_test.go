package coalesceotel_test

import (
	"context"
	"errors"
	"testing"

	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/coalesceotel"
	"github.com/fleetcall/fleetcall/coalesce/distributed"
	"github.com/fleetcall/fleetcall/coalesce/local"
	"github.com/fleetcall/fleetcall/internal/rig/redisrig"
)

// sums are the sums of counters and the counts of histograms, over all their
// attributes.
func sums(t *testing.T, reader *metric.ManualReader) map[string]float64 {
	t.Helper()
	var all metricdata.ResourceMetrics
	if err := reader.Collect(context.Background(), &all); err != nil {
		t.Fatal(err)
	}
	n := map[string]float64{}
	for _, scope := range all.ScopeMetrics {
		for _, m := range scope.Metrics {
			switch data := m.Data.(type) {
			case metricdata.Sum[int64]:
				for _, p := range data.DataPoints {
					n[m.Name] += float64(p.Value)
				}
			case metricdata.Gauge[int64]:
				for _, p := range data.DataPoints {
					n[m.Name] += float64(p.Value)
				}
			case metricdata.Histogram[float64]:
				for _, p := range data.DataPoints {
					n[m.Name] += float64(p.Count)
				}
			default:
				t.Errorf("%s is a %T", m.Name, data)
			}
		}
	}
	return n
}

func TestInstrumentsAgreeWithStatsAndSurviveAReset(t *testing.T) {
	server := redisrig.Start(t)
	a, b := newReplica(t, server, trace.NeverSample()), newReplica(t, server, trace.NeverSample())
	share(t, server, a, b)
	b.fleet.ResetStats()
	for _, tt := range []struct {
		of   replica
		name string
		want float64
	}{
		{a, "fleetcall.local.requests", 1}, {a, "fleetcall.distributed.flights", 1}, {a, "fleetcall.call.wait", 1},
		{a, "fleetcall.function.duration", 1}, {a, "fleetcall.follower.lag", 0}, {a, "fleetcall.redis.server.up", 1},
		{b, "fleetcall.local.requests", 1}, {b, "fleetcall.distributed.flights", 1}, {b, "fleetcall.call.wait", 1},
		{b, "fleetcall.function.duration", 0}, {b, "fleetcall.follower.lag", 1},
	} {
		if got := sums(t, tt.of.meter)[tt.name]; got != tt.want {
			t.Errorf("%s is %v, want %v", tt.name, got, tt.want)
		}
	}
	if sums(t, a.meter)["fleetcall.redis.command.duration"] == 0 {
		t.Error("no Redis command was measured")
	}
}

func TestAServerThatIsDownIsShown(t *testing.T) {
	server := redisrig.Start(t)
	r := newReplica(t, server, trace.NeverSample())
	shown := func(up, downs float64) func() bool {
		return func() bool {
			got := sums(t, r.meter)
			now, ok := got["fleetcall.redis.server.up"]
			counted, there := got["fleetcall.redis.server.downs"]
			return ok && there && now == up && counted == downs
		}
	}
	wait(t, "shown as up", shown(1, 0))
	server.Kill()
	if _, role, err := r.group.Do(t.Context(), "k", func(context.Context) (string, error) { return "", nil }); role != coalesce.Fallback || err != nil {
		t.Errorf("%v, %v", role, err)
	}
	wait(t, "shown as down", shown(0, 1))
	server.Restart()
	wait(t, "shown as up again", shown(1, 1))
}

func TestALocalTierAloneIsObservedToo(t *testing.T) {
	reader := metric.NewManualReader()
	meters := metric.NewMeterProvider(metric.WithReader(reader))
	spans := tracetest.NewInMemoryExporter()
	tracers := trace.NewTracerProvider(trace.WithSyncer(spans))
	var group local.Group[string, string]
	hook, err := coalesceotel.NewHook(coalesceotel.WithMeterProvider(meters), coalesceotel.WithTracerProvider(tracers))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := coalesceotel.RegisterLocalStats("rows", group.Totals, coalesceotel.WithMeterProvider(meters)); err != nil {
		t.Fatal(err)
	}
	tier, err := distributed.Observed(local.Tier(&group), "rows", hook)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := tier.Do(t.Context(), "k", func(context.Context) (string, error) { return "v", nil }); err != nil {
		t.Error(err)
	}
	got := sums(t, reader)
	if got["fleetcall.local.requests"] != 1 || got["fleetcall.function.duration"] != 1 || got["fleetcall.call.wait"] != 1 {
		t.Errorf("%v", got)
	}
	if all := spans.GetSpans(); len(all) != 1 || all[0].Name != "fleetcall function" {
		t.Errorf("%v", all)
	}
	if err := errors.Join(tracers.Shutdown(t.Context()), meters.Shutdown(t.Context())); err != nil {
		t.Error(err)
	}
}
