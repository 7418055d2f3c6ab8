package distributed_test

import (
	"context"
	"fmt"
	"runtime"

	"github.com/redis/go-redis/v9"

	"github.com/fleetcall/fleetcall/coalesce/distributed"
)

// The local tier counts callers, the distributed one flights.
func ExampleFleet_Stats() {
	ctx := context.Background()
	client := redis.NewClient(&redis.Options{Addr: redisAddr})
	defer client.Close()
	fleet, _ := distributed.Open(client, distributed.WithNamespace("example-stats"))
	defer fleet.Close(ctx)
	names, _ := distributed.NewGroup[string](fleet, "names")

	row, done := make(chan string), make(chan struct{})
	for range 3 {
		go func() {
			names.Do(ctx, "7", func(context.Context) (string, error) { return <-row, nil })
			done <- struct{}{}
		}()
	}
	for names.Stats().Local.Waiting < 3 {
		runtime.Gosched()
	}
	row <- "Keyboard"
	for range 3 {
		<-done
	}

	stats := fleet.Stats()
	fmt.Println("callers:", stats.Local.Requests, "of them followers:", stats.Local.Followers)
	fmt.Println("flights led here:", stats.Distributed.Leaders, "of group names:", stats.Groups["names"].Distributed.Leaders)
	fmt.Println("Redis:", stats.Redis.Servers[0].State)
	// Output:
	// callers: 3 of them followers: 2
	// flights led here: 1 of group names: 1
	// Redis: up
}
