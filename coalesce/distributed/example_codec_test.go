package distributed_test

import (
	"context"
	"fmt"

	"github.com/redis/go-redis/v9"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/distributed"
)

type place struct{ X, Y int }

// A codec says how results travel. JSON, the default, has no map whose keys are
// structs, and NewGroup says so; gob has.
func ExampleWithCodec() {
	ctx := context.Background()
	client := redis.NewClient(&redis.Options{Addr: redisAddr})
	defer client.Close()
	fleet, _ := distributed.Open(client, distributed.WithNamespace("example-codec"))
	defer fleet.Close(ctx)

	_, err := distributed.NewGroup[map[place]string](fleet, "board")
	fmt.Println(err != nil)

	board, err := distributed.NewGroup[map[place]string](fleet, "board", distributed.WithCodec(coalesce.Gob[map[place]string]()))
	if err != nil {
		fmt.Println(err)
		return
	}
	pieces, _, _ := board.Do(ctx, "game 7", func(context.Context) (map[place]string, error) {
		return map[place]string{{5, 1}: "king"}, nil
	})
	fmt.Println(pieces)
	// Output:
	// true
	// map[{5 1}:king]
}
