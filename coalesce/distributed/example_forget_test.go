package distributed_test

import (
	"context"
	"fmt"

	"github.com/redis/go-redis/v9"

	"github.com/fleetcall/fleetcall/coalesce/distributed"
)

// A writer forgets the keys of the rows that it has changed, so that a caller who
// comes after that does not join a query that may have read an old row.
func ExampleGroup_Forget() {
	ctx := context.Background()
	client := redis.NewClient(&redis.Options{Addr: redisAddr})
	defer client.Close()
	fleet, _ := distributed.Open(client, distributed.WithNamespace("example-forget"))
	defer fleet.Close(ctx)
	names, _ := distributed.NewGroup[string](fleet, "names")

	// A query is under way when the row changes.
	reading, row, before := make(chan struct{}), make(chan string), make(chan string)
	go func() {
		name, _, _ := names.Do(ctx, "7", func(context.Context) (string, error) {
			close(reading)
			return <-row, nil
		})
		before <- name
	}()
	<-reading

	err := names.Forget(ctx, "7", "8") // any number of keys
	after, role, _ := names.Do(ctx, "7", func(context.Context) (string, error) { return "new name", nil })
	fmt.Println(after, role, err)

	row <- "old name" // those who waited already keep their flight
	fmt.Println(<-before)
	// Output:
	// new name leader <nil>
	// old name
}
