package distributed_test

import (
	"context"
	"fmt"

	"github.com/redis/go-redis/v9"

	"github.com/fleetcall/fleetcall/coalesce/distributed"
)

type product struct {
	Name  string
	Price float64
}

// queryProduct is a slow query in real life.
func queryProduct(_ context.Context, id string) (product, error) {
	return product{"Keyboard " + id, 49}, nil
}

// A service asks for a product; however many replicas are asked at the same moment,
// one of them queries the database.
func Example() {
	ctx := context.Background()
	client := redis.NewClient(&redis.Options{Addr: redisAddr, ContextTimeoutEnabled: true})
	defer client.Close()

	fleet, err := distributed.Open(client, distributed.WithNamespace("example"))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer fleet.Close(ctx)
	products, err := distributed.NewGroup[product](fleet, "products")
	if err != nil {
		fmt.Println(err)
		return
	}

	p, role, err := products.Do(ctx, "7", func(ctx context.Context) (product, error) { return queryProduct(ctx, "7") })
	fmt.Println(p, role, err)
	// Output: {Keyboard 7 49} leader <nil>
}
