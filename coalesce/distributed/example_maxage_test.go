package distributed_test

import (
	"context"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/distributed"
)

// All callers of this group may have a value that finished up to a minute ago. Who changes
// the row forgets it.
func ExampleWithMaxAge() {
	ctx := context.Background()
	client := redis.NewClient(&redis.Options{Addr: redisAddr})
	defer client.Close()
	fleet, _ := distributed.Open(client, distributed.WithNamespace("example-max-age"))
	defer fleet.Close(ctx)
	names, _ := distributed.NewGroup[string](fleet, "names", distributed.WithMaxAge(time.Minute))
	query := func(context.Context) (string, error) { return "Keyboard", nil }

	_, role, _ := names.Do(ctx, "7", query)
	fmt.Println(role)
	for role != coalesce.Cached { // a leader's callers do not wait until Redis has the result
		_, role, _ = names.Do(ctx, "7", query)
	}
	fmt.Println(role)

	err := names.Forget(ctx, "7")
	_, role, _ = names.Do(ctx, "7", query)
	fmt.Println(role, err)
	// Output:
	// leader
	// cached
	// leader <nil>
}

// Some calls may have a value that finished a moment ago, others must not. They share
// flights all the same.
func ExampleGroup_With() {
	ctx := context.Background()
	client := redis.NewClient(&redis.Options{Addr: redisAddr})
	defer client.Close()
	fleet, _ := distributed.Open(client, distributed.WithNamespace("example-with"))
	defer fleet.Close(ctx)
	names, _ := distributed.NewGroup[string](fleet, "names")
	query := func(context.Context) (string, error) { return "Keyboard", nil }

	relaxed := names.With(distributed.WithMaxAge(time.Minute), distributed.WithFlightTimeout(time.Minute))
	_, role, _ := relaxed.Do(ctx, "7", query)
	fmt.Println("relaxed:", role)
	for role != coalesce.Cached { // a leader's callers do not wait until Redis has the result
		_, role, _ = relaxed.Do(ctx, "7", query)
	}
	fmt.Println("relaxed:", role)

	_, role, _ = names.Do(ctx, "7", query)
	fmt.Println("strict:", role)
	// Output:
	// relaxed: leader
	// relaxed: cached
	// strict: leader
}
