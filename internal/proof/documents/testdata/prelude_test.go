// Package shop is what the snippets of the documents stand in: each is a file of it.
// This file has what they use without declaring it.
package shop

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/fleetcall/fleetcall/coalesce/coalescegrpc"
	"github.com/fleetcall/fleetcall/coalesce/coalescehttp"
	"github.com/fleetcall/fleetcall/coalesce/distributed"
)

type Product struct {
	Name  string
	Price float64
}

func queryProduct(context.Context, string) (Product, error) { return Product{"Keyboard", 49}, nil }

func queryProducts(_ context.Context, ids []string) (map[string]Product, error) {
	found := map[string]Product{}
	for _, id := range ids {
		if id != "5000" {
			found[id] = Product{"Keyboard", 49}
		}
	}
	return found, nil
}

func updateProduct(context.Context, string, float64) error { return nil }

var (
	ctx              = context.Background()
	id, tenant, role = "7", "acme", "admin"

	redisClient redis.UniversalClient
	fleet       *distributed.Fleet
	products    *distributed.Group[Product]
	answers     *distributed.Group[*coalescehttp.Answer]
	calls       *distributed.Group[*coalescegrpc.Reply]
)

func TestMain(m *testing.M) {
	redisClient = redis.NewClient(&redis.Options{Addr: os.Getenv("SNIPPETS_REDIS")})
	var err error
	if fleet, err = distributed.Open(redisClient, distributed.WithNamespace("prelude"),
		distributed.WithRedisTimeout(3*time.Second)); err == nil {
		products, err = distributed.NewGroup[Product](fleet, "products")
	}
	if err == nil {
		err = startServers()
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}
