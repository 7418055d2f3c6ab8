package distributed_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/distributed"
)

type product struct {
	Name  string
	Price float64
}

// A service asks for a product; however many replicas are asked at the same
// moment, one of them queries the database.
func Example() {
	server, _ := miniredis.Run() // a stand-in; use your Redis
	defer server.Close()
	client := redis.NewClient(&redis.Options{Addr: server.Addr()})
	defer client.Close()

	products, err := distributed.New[product](client, distributed.WithNamespace("products"))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer products.Close(context.Background())

	p, role, err := products.Do(context.Background(), "42", func(ctx context.Context) (product, error) {
		return product{"Teapot", 19.99}, nil // the query
	})
	fmt.Println(p, role, err)
	// Output: {Teapot 19.99} leader <nil>
}

// Values that finished a moment ago may be good enough.
func ExampleWithMaxAge() {
	server, _ := miniredis.Run()
	defer server.Close()
	client := redis.NewClient(&redis.Options{Addr: server.Addr()})
	defer client.Close()
	group, _ := distributed.New[string](client, distributed.WithMaxAge(time.Minute))
	defer group.Close(context.Background())

	query := func(context.Context) (string, error) { return "fresh", nil }
	_, role, _ := group.Do(context.Background(), "k", query)
	fmt.Println(role)
	for role != coalesce.Cached { // the first flight is handed to Redis off its caller's path
		_, role, _ = group.Do(context.Background(), "k", query)
	}
	fmt.Println(role)
	// Output:
	// leader
	// cached
}

// An error that every replica has registered is the same error on all of them.
func ExampleGroup_Do_errors() {
	server, _ := miniredis.Run()
	defer server.Close()
	client := redis.NewClient(&redis.Options{Addr: server.Addr()})
	defer client.Close()
	group, _ := distributed.New[string](client)
	defer group.Close(context.Background())

	errNoRow := errors.New("no such row")
	coalesce.RegisterError("example.errNoRow", errNoRow)
	_, _, err := group.Do(context.Background(), "k", func(context.Context) (string, error) {
		return "", fmt.Errorf("product 7: %w", errNoRow)
	})
	fmt.Println(errors.Is(err, errNoRow), err)
	// Output: true product 7: no such row
}
