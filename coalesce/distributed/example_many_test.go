package distributed_test

import (
	"context"
	"fmt"

	"github.com/redis/go-redis/v9"

	"github.com/fleetcall/fleetcall/coalesce/distributed"
)

// A list page reads what nobody in the fleet is fetching with one query, and takes the rest
// from the queries that are under way.
func ExampleGroup_DoMany() {
	ctx := context.Background()
	client := redis.NewClient(&redis.Options{Addr: redisAddr})
	defer client.Close()
	fleet, _ := distributed.Open(client, distributed.WithNamespace("example-many"))
	defer fleet.Close(ctx)
	names, _ := distributed.NewGroup[string](fleet, "names")

	// Another page is fetching product 7.
	reading, row, single := make(chan struct{}), make(chan string), make(chan struct{})
	go func() {
		defer close(single)
		_, _, _ = names.Do(ctx, "7", func(context.Context) (string, error) {
			close(reading)
			return <-row, nil
		})
	}()
	<-reading

	results, err := names.DoMany(ctx, []string{"7", "8"}, func(_ context.Context, ids []string) (map[string]string, error) {
		fmt.Println("SELECT … WHERE id = ANY", ids)
		row <- "Keyboard" // the other query ends
		return map[string]string{"8": "Mouse"}, nil
	})
	<-single
	for _, id := range []string{"7", "8"} {
		fmt.Println(id, results[id].Val, results[id].Role)
	}
	fmt.Println(err)
	// Output:
	// SELECT … WHERE id = ANY [8]
	// 7 Keyboard local-follower
	// 8 Mouse leader
	// <nil>
}
