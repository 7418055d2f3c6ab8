package distributed_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/distributed"
)

var errNoRow = errors.New("no such row")

type outOfStock struct{ Left int }

func (e *outOfStock) Error() string { return fmt.Sprintf("only %d left", e.Left) }

// Each replica registers the same names, before the first call.
func init() {
	coalesce.RegisterError("example.errNoRow", errNoRow)
	coalesce.RegisterErrorType[*outOfStock]("example.outOfStock")
}

// An error of the function reaches the callers on all replicas. There, errors.Is finds
// registered errors, and errors.As those of registered types.
func ExampleGroup_Do_errors() {
	ctx := context.Background()
	client := redis.NewClient(&redis.Options{Addr: redisAddr})
	defer client.Close()

	one, _ := distributed.Open(client, distributed.WithNamespace("example-errors"))
	defer one.Close(ctx)
	orders1, _ := distributed.NewGroup[string](one, "orders")
	following := make(follows, 1)
	two, _ := distributed.Open(client, distributed.WithNamespace("example-errors"), distributed.WithHooks(following))
	defer two.Close(ctx)
	orders2, _ := distributed.NewGroup[string](two, "orders")

	running := make(chan struct{})
	go orders1.Do(ctx, "7", func(context.Context) (string, error) {
		close(running)
		<-following                        // until the other replica waits for this one
		time.Sleep(100 * time.Millisecond) // a query takes longer than a message
		return "", fmt.Errorf("order 7: %w, or %w", &outOfStock{2}, errNoRow)
	})
	<-running
	_, role, err := orders2.Do(ctx, "7", func(context.Context) (string, error) { return "never run", nil })

	var out *outOfStock
	fmt.Println(role, err)
	fmt.Println(errors.Is(err, errNoRow), errors.As(err, &out) && out.Left == 2)
	// Output:
	// remote-follower order 7: only 2 left, or no such row
	// true true
}
