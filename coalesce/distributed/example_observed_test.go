package distributed_test

import (
	"context"
	"fmt"

	"github.com/fleetcall/fleetcall/coalesce/distributed"
	"github.com/fleetcall/fleetcall/coalesce/local"
)

// A local group has no Fleet that hooks belong to. Observed gives it those that are told
// of calls and of functions, so that a program has the same metrics in each of its modes.
func ExampleObserved() {
	ended := make(calls, 1)
	names, err := distributed.Observed(local.Tier(new(local.Group[string, string])), "names", ended)
	if err != nil {
		fmt.Println(err)
		return
	}
	name, _, _ := names.Do(context.Background(), "7", func(context.Context) (string, error) { return "Keyboard", nil })
	fmt.Println(name)
	fmt.Println(<-ended)

	// A hook that would never be told of anything is refused.
	_, err = distributed.Observed(names, "names", make(follows))
	fmt.Println(err)
	// Output:
	// Keyboard
	// names 7 leader <nil>
	// fleetcall: Observed: hook 1 is neither a CallHook nor a RunHook; nothing else happens here
}
