package distributed_test

import (
	"context"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/fleetcall/fleetcall/coalesce/distributed"
)

// A field that is not exported does not travel as JSON. A program that can do without it
// on other replicas says so.
func ExampleAllowLossy() {
	ctx := context.Background()
	client := redis.NewClient(&redis.Options{Addr: redisAddr})
	defer client.Close()
	one, _ := distributed.Open(client, distributed.WithNamespace("example-lossy"))
	defer one.Close(ctx)
	following := make(follows, 1)
	two, _ := distributed.Open(client, distributed.WithNamespace("example-lossy"), distributed.WithHooks(following))
	defer two.Close(ctx)

	type page struct {
		Title string
		hits  int // of this replica's cache
	}
	_, err := distributed.NewGroup[page](one, "pages")
	fmt.Println("refused:", err != nil)
	pages1, _ := distributed.NewGroup[page](one, "pages", distributed.AllowLossy())
	pages2, _ := distributed.NewGroup[page](two, "pages", distributed.AllowLossy())

	running, led := make(chan struct{}), make(chan page)
	go func() {
		p, _, _ := pages1.Do(ctx, "7", func(context.Context) (page, error) {
			close(running)
			<-following                        // until the other replica waits for this one
			time.Sleep(100 * time.Millisecond) // a query takes longer than a message
			return page{"Keyboards", 3}, nil
		})
		led <- p
	}()
	<-running
	followed, role, _ := pages2.Do(ctx, "7", func(context.Context) (page, error) { return page{}, nil })
	fmt.Println("leader:", <-led)
	fmt.Printf("%v: %v\n", role, followed)
	// Output:
	// refused: true
	// leader: {Keyboards 3}
	// remote-follower: {Keyboards 0}
}
