package distributed_test

import (
	"context"
	"fmt"

	"github.com/redis/go-redis/v9"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/distributed"
	"github.com/fleetcall/fleetcall/coalesce/local"
)

// namesGroup returns the tier that the configuration names. Fleet is nil in the
// others.
func namesGroup(mode string, fleet *distributed.Fleet) (coalesce.Group[string], error) {
	switch mode {
	case "off":
		return coalesce.Off[string]{}, nil
	case "local":
		return local.Tier(new(local.Group[string, string])), nil
	case "distributed":
		return distributed.NewGroup[string](fleet, "names")
	}
	return nil, fmt.Errorf("mode %q is none of off, local, distributed", mode)
}

// A program chooses its tier by configuration: each of them is a coalesce.Group.
func Example_tier() {
	ctx := context.Background()
	client := redis.NewClient(&redis.Options{Addr: redisAddr})
	defer client.Close()
	fleet, _ := distributed.Open(client, distributed.WithNamespace("example-tier"))
	defer fleet.Close(ctx)

	for _, mode := range []string{"off", "local", "distributed", "global"} {
		names, err := namesGroup(mode, fleet)
		if err != nil {
			fmt.Println(err)
			return
		}
		name, role, err := names.Do(ctx, "7", func(context.Context) (string, error) { return "Keyboard", nil })
		fmt.Println(mode, name, role, err)
	}
	// Output:
	// off Keyboard leader <nil>
	// local Keyboard leader <nil>
	// distributed Keyboard leader <nil>
	// mode "global" is none of off, local, distributed
}
