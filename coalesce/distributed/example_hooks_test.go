package distributed_test

import (
	"context"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/fleetcall/fleetcall/coalesce/distributed"
)

// follows is a hook that tells when its replica begins to follow another: it is a
// FollowHook.
type follows chan string

func (f follows) Followed(_ context.Context, leader distributed.Followed) {
	time.AfterFunc(50*time.Millisecond, func() { f <- leader.Key }) // a function that ends right then may have ended before
}

// calls is a hook that tells how calls ended: it is a CallHook.
type calls chan string

func (c calls) Called(_ context.Context, call distributed.Call) {
	c <- fmt.Sprint(call.Group, " ", call.Key, " ", call.Role, " ", call.Err)
}

// A hook implements the interfaces for what it wants to be told of.
func ExampleWithHooks() {
	ctx := context.Background()
	client := redis.NewClient(&redis.Options{Addr: redisAddr})
	defer client.Close()
	query := func(row chan string) func(context.Context) (string, error) {
		return func(context.Context) (string, error) { row <- "queried"; return <-row, nil }
	}

	// Two replicas: in real life, two processes.
	one, _ := distributed.Open(client, distributed.WithNamespace("example-hooks"))
	defer one.Close(ctx)
	names1, _ := distributed.NewGroup[string](one, "names")

	following, ended := make(follows, 1), make(calls, 1)
	two, _ := distributed.Open(client, distributed.WithNamespace("example-hooks"), distributed.WithHooks(following, ended))
	defer two.Close(ctx)
	names2, _ := distributed.NewGroup[string](two, "names")

	row := make(chan string)
	go names1.Do(ctx, "7", query(row))
	<-row // the first replica runs its function
	go names2.Do(ctx, "7", query(row))
	fmt.Println("follows another replica's flight of key", <-following)
	time.Sleep(100 * time.Millisecond) // a query takes longer than a message
	row <- "Keyboard"
	fmt.Println(<-ended)
	// Output:
	// follows another replica's flight of key 7
	// names 7 remote-follower <nil>
}
