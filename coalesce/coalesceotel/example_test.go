package coalesceotel_test

import (
	"context"
	"fmt"

	"github.com/redis/go-redis/v9"

	"github.com/fleetcall/fleetcall/coalesce/coalesceotel"
	"github.com/fleetcall/fleetcall/coalesce/distributed"
)

// A program that has set up OpenTelemetry's global providers needs no option. One Hook
// and one registration are enough for a Fleet, whatever the number of its Groups.
func Example() {
	client := redis.NewClient(&redis.Options{Addr: "localhost:6379"})
	defer client.Close()

	hook, err := coalesceotel.NewHook(coalesceotel.WithGroups("products"))
	if err != nil {
		fmt.Println(err)
		return
	}
	fleet, err := distributed.Open(client, distributed.WithHooks(hook))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer fleet.Close(context.Background())
	registration, err := coalesceotel.RegisterStats(fleet.Totals)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer registration.Unregister()

	products, err := distributed.NewGroup[string](fleet, "products")
	if err != nil {
		fmt.Println(err)
		return
	}
	_, _, _ = products.Do(context.Background(), "42", func(context.Context) (string, error) {
		return "row", nil // a span started from the function's context is a child of the function's
	})
}
