package distributed_test

import (
	"context"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/fleetcall/fleetcall/coalesce/distributed"
)

// A process that stops lets its calls end, for as long as its context allows. What it
// still leads then is given up, and another replica takes over at once.
func ExampleFleet_Close() {
	ctx := context.Background()
	client := redis.NewClient(&redis.Options{Addr: redisAddr})
	defer client.Close() // after the Fleet's, which does not do it
	fleet, _ := distributed.Open(client, distributed.WithNamespace("example-close"))
	names, _ := distributed.NewGroup[string](fleet, "names")

	reading, row, answer := make(chan struct{}), make(chan string), make(chan string)
	go func() {
		name, _, _ := names.Do(ctx, "7", func(context.Context) (string, error) {
			close(reading)
			return <-row, nil
		})
		answer <- name
	}()
	<-reading

	grace, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	closed := make(chan error)
	go func() { closed <- fleet.Close(grace) }()
	row <- "Keyboard"
	fmt.Println(<-answer, <-closed)

	_, role, err := names.Do(ctx, "7", func(context.Context) (string, error) { return "too late", nil })
	fmt.Println(role, err)
	// Output:
	// Keyboard <nil>
	// none fleetcall: the fleet is closed
}
