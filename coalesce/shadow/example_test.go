package shadow_test

import (
	"context"
	"fmt"

	"github.com/fleetcall/fleetcall/coalesce/shadow"
)

// Two callers ask for the same at the same time. Each runs its own function, and the group
// tells that local would have run one.
func Example() {
	fleet, err := shadow.Open(nil) // a Redis client connects the replicas
	if err != nil {
		fmt.Println(err)
		return
	}
	products, err := shadow.NewGroup[string](fleet, "products")
	if err != nil {
		fmt.Println(err)
		return
	}
	query := func(context.Context) (string, error) { return "Keyboard", nil }
	_, _, err = products.Do(context.Background(), "7", func(ctx context.Context) (string, error) {
		if _, _, err := products.Do(ctx, "7", query); err != nil { // meanwhile, another caller
			return "", err
		}
		return query(ctx)
	})
	would := products.Stats()
	fmt.Println(would.Requests, "executions;", would.Local.Executions, "with local;", err)
	fmt.Println(fleet.Close(context.Background()))
	// Output:
	// 2 executions; 1 with local; <nil>
	// <nil>
}
