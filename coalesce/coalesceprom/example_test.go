package coalesceprom_test

import (
	"context"
	"fmt"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/redis/go-redis/v9"

	"github.com/fleetcall/fleetcall/coalesce/coalesceprom"
	"github.com/fleetcall/fleetcall/coalesce/distributed"
	"github.com/fleetcall/fleetcall/coalesce/local"
)

// A program registers one Hook and one collector for its Fleet, whatever the number of
// its Groups.
func Example() {
	client := redis.NewClient(&redis.Options{Addr: "localhost:6379"})
	defer client.Close()

	hook := coalesceprom.NewHook("products") // the names of the Groups whose series are there from the start
	fleet, err := distributed.Open(client, distributed.WithHooks(hook))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer fleet.Close(context.Background())
	registry := prometheus.NewRegistry()
	registry.MustRegister(hook, coalesceprom.NewCollector(fleet.Totals))
	http.Handle("/metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))

	products, err := distributed.NewGroup[string](fleet, "products")
	if err != nil {
		fmt.Println(err)
		return
	}
	_, _, _ = products.Do(context.Background(), "42", func(context.Context) (string, error) { return "row", nil })
}

// A local tier that stands alone has a collector of its own, and is observed
// through distributed.Observed.
func ExampleNewLocalCollector() {
	var group local.Group[string, string]
	hook := coalesceprom.NewLocalHook("products")
	products, err := distributed.Observed(local.Tier(&group), "products", hook)
	if err != nil {
		fmt.Println(err)
		return
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(hook, coalesceprom.NewLocalCollector("products", group.Totals))

	_, _, _ = products.Do(context.Background(), "42", func(context.Context) (string, error) { return "row", nil })
	families, err := registry.Gather()
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, family := range families {
		if family.GetName() == "fleetcall_local_requests_total" {
			for _, m := range family.GetMetric() {
				for _, label := range m.GetLabel() {
					fmt.Print(label.GetName(), "=", label.GetValue(), " ")
				}
				fmt.Println(m.GetCounter().GetValue())
			}
		}
	}
	// Output:
	// group=products role=leader 1
	// group=products role=local-follower 0
}
