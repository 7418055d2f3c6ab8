package coalesceprom_test

import (
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/alicebob/miniredis/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/expfmt"
	"github.com/redis/go-redis/v9"

	"github.com/fleetcall/fleetcall/coalesce/coalesceprom"
	"github.com/fleetcall/fleetcall/coalesce/distributed"
	"github.com/fleetcall/fleetcall/coalesce/local"
)

// A program registers an Observer and a collector for its Group, and serves the
// registry with promhttp.
func Example() {
	server, _ := miniredis.Run() // a stand-in; use your Redis
	defer server.Close()
	client := redis.NewClient(&redis.Options{Addr: server.Addr()})
	defer client.Close()

	observer := coalesceprom.NewObserver()
	group, err := distributed.New[string](client, distributed.WithObserver(observer))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer group.Close(context.Background())
	registry := prometheus.NewRegistry()
	registry.MustRegister(observer, coalesceprom.NewCollector(group.Totals))

	_, _, _ = group.Do(context.Background(), "42", func(context.Context) (string, error) { return "row", nil })
	show(registry, "fleetcall_distributed_flights_total")
	// Output:
	// fleetcall_distributed_flights_total{role="cached"} 0
	// fleetcall_distributed_flights_total{role="fallback"} 0
	// fleetcall_distributed_flights_total{role="leader"} 1
	// fleetcall_distributed_flights_total{role="none"} 0
	// fleetcall_distributed_flights_total{role="remote-follower"} 0
}

// A local tier that stands alone has a collector of its own, and is observed
// through distributed.Observed.
func ExampleNewLocalCollector() {
	var group local.Group[string, string]
	observer := coalesceprom.NewLocalObserver()
	tier := distributed.Observed(local.Tier(&group), observer)
	registry := prometheus.NewRegistry()
	registry.MustRegister(observer, coalesceprom.NewLocalCollector(group.Totals))

	_, _, _ = tier.Do(context.Background(), "42", func(context.Context) (string, error) { return "row", nil })
	show(registry, "fleetcall_local_requests_total")
	// Output:
	// fleetcall_local_requests_total{role="leader"} 1
	// fleetcall_local_requests_total{role="local-follower"} 0
}

// show prints the samples of one metric.
func show(registry *prometheus.Registry, name string) {
	families, _ := registry.Gather()
	var text strings.Builder
	for _, family := range families {
		if family.GetName() == name {
			_, _ = expfmt.MetricFamilyToText(&text, family)
		}
	}
	for line := range strings.Lines(text.String()) {
		if !strings.HasPrefix(line, "#") {
			fmt.Fprint(os.Stdout, line)
		}
	}
}
