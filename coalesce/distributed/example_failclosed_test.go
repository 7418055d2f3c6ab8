package distributed_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/redis/go-redis/v9"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/distributed"
)

// Without Redis, each replica runs its own function. Where the database could not
// take that, callers get an error instead.
func ExampleWithFailClosed() {
	ctx := context.Background()
	client := redis.NewClient(&redis.Options{Addr: "127.0.0.1:1", MaxRetries: -1, DialerRetries: 1}) // no Redis is there
	defer client.Close()
	fleet, _ := distributed.Open(client, distributed.WithLogger(slog.New(slog.DiscardHandler)))
	defer fleet.Close(ctx)
	query := func(context.Context) (string, error) { return "Keyboard", nil }

	names, _ := distributed.NewGroup[string](fleet, "names")
	name, role, err := names.Do(ctx, "7", query)
	fmt.Println(name, role, err)

	reports, _ := distributed.NewGroup[string](fleet, "reports", distributed.WithFailClosed())
	_, _, err = reports.Do(ctx, "7", query)
	fmt.Println(errors.Is(err, coalesce.ErrUnavailable))
	// Output:
	// Keyboard fallback <nil>
	// true
}
