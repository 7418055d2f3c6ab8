package distributed_test

import (
	"context"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/fleetcall/fleetcall/coalesce/distributed"
)

// A Cluster of Redis 7 or later. Reads must not go to its replicas.
func ExampleOpen_cluster() {
	client := redis.NewClusterClient(&redis.ClusterOptions{
		Addrs: []string{"redis-1:6379", "redis-2:6379", "redis-3:6379"},
		// How soon a master's successor is found.
		ClusterStateReloadInterval: 5 * time.Second,
	})
	defer client.Close()
	fleet, err := distributed.Open(client)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer fleet.Close(context.Background())
}
