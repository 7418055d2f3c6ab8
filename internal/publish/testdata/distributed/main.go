// A program that uses the second tier.
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/redis/go-redis/v9"

	"github.com/fleetcall/fleetcall/coalesce/distributed"
)

func main() {
	client := redis.NewClient(&redis.Options{Addr: os.Getenv("REDIS_ADDR")})
	fleet, err := distributed.Open(client)
	if err != nil {
		panic(err)
	}
	products, err := distributed.NewGroup[string](fleet, "products")
	if err != nil {
		panic(err)
	}
	name, role, err := products.Do(context.Background(), "7", func(context.Context) (string, error) { return "Teapot", nil })
	fmt.Println(name, role, err)
	if err := fleet.Close(context.Background()); err != nil {
		panic(err)
	}
}
